"""Secrets open for the account and field they were sealed for, under any key that is still listed."""

from __future__ import annotations

import pytest

from relay.core.vault import Vault, VaultError, new_key


def test_a_secret_opens_where_it_was_sealed() -> None:
    vault = Vault([new_key()])
    assert vault.open("a", "smtp.auth.pass", vault.seal("a", "smtp.auth.pass", "pässword")) == "pässword"


@pytest.mark.parametrize(
    ("account", "field"), [("b", "smtp.auth.pass"), ("a", "imap.auth.pass"), ("as", "mtp.auth.pass")]
)
def test_a_secret_moved_to_another_place_does_not_open(account: str, field: str) -> None:
    vault = Vault([new_key()])
    token = vault.seal("a", "smtp.auth.pass", "secret")
    with pytest.raises(VaultError) as error:
        vault.open(account, field, token)
    assert "secret" not in str(error.value).replace("secret key", "")


@pytest.mark.parametrize("token", ["", "x", "gAAAAA", "schlüssel", "\ud800", "A" * 1000])
def test_what_was_never_sealed_does_not_open(token: str) -> None:
    with pytest.raises(VaultError):
        Vault([new_key()]).open("a", "f", token)


def test_rotation_moves_a_secret_to_the_newest_key() -> None:
    old, new = new_key(), new_key()
    token = Vault([old]).seal("a", "f", "secret")
    rotated = Vault([new, old]).rotate("a", "f", token)
    assert Vault([new]).open("a", "f", rotated) == "secret"


def test_a_secret_whose_key_is_gone_says_which() -> None:
    token = Vault([new_key()]).seal("a", "smtp.auth.pass", "secret")
    with pytest.raises(VaultError, match=r"smtp.auth.pass of account a"):
        Vault([new_key()]).open("a", "smtp.auth.pass", token)


def test_derived_keys_differ_by_purpose_and_key() -> None:
    vault = Vault([new_key(), new_key()])
    assert len({*vault.derive("pixel"), *vault.derive("other")}) == 4


def test_no_keys_say_how_to_make_one() -> None:
    with pytest.raises(VaultError, match="--new-key"):
        Vault([])
