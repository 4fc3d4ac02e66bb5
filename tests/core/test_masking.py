"""Secrets are taken out of what servers say."""

from __future__ import annotations

import base64

import pytest

from relay.core.masking import masked


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no such password hunter2!", "no such password ***!"),
        ("hunter2hunter2", "******"),
        (f"got {base64.b64encode(b'hunter2').decode()}", "got ***=="),
        ("nothing of ours", "nothing of ours"),
    ],
)
def test_a_secret_does_not_show(said: str, shown: str) -> None:
    assert masked(said, ["hunter2", ""]) == shown


def test_a_secret_inside_another_does_not_show_what_is_left() -> None:
    assert masked("abcdef", ["abc", "abcdef"]) == "***"


def test_what_is_in_every_text_is_let_be() -> None:
    assert masked("a b", ["a", "b "]) == "a b"
