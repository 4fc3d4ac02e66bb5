"""Which providers file what is sent: the table fits its samples, and says nothing of what it does not know."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.core.filers import FILERS, Filer, files
from relay.core.tenant import Account, AccountState, Imap, Limits, Mailgun, Smtp

ACCOUNT = Account("a1", "", "ann@example.com", AccountState.ACTIVE, None, Limits(), track_opens=True)


def account(smtp: str, imap: str) -> Account:
    return replace(ACCOUNT, smtp=Smtp(smtp, 587), imap=Imap(imap))


@pytest.mark.parametrize("filer", FILERS, ids=lambda filer: filer.name)
def test_each_line_fits_its_sample_first(filer: Filer) -> None:
    assert next(one for one in FILERS if one.fits(*filer.sample)) is filer
    assert files(account(*filer.sample)) is filer.files


@pytest.mark.parametrize("filer", FILERS, ids=lambda filer: filer.name)
def test_each_line_says_where_it_is_from(filer: Filer) -> None:
    assert filer.source.startswith("https://")
    assert len(filer.seen) == len("2026-11-20")


def test_a_server_of_ones_own_is_in_no_table() -> None:
    assert files(account("mail.example.com", "mail.example.com")) is None


def test_what_is_sent_elsewhere_is_not_filed_by_the_mailbox_s_provider_for_sure() -> None:
    assert files(account("mail.example.com", "imap.gmail.com")) is None
    assert files(account("smtp.gmail.com", "imap.example.com")) is None


def test_mailgun_has_no_way_into_a_mailbox() -> None:
    assert files(replace(account("", "imap.gmail.com"), smtp=None, mailgun=Mailgun("example.com"))) is False


def test_an_account_without_upstream_is_not_known() -> None:
    assert files(ACCOUNT) is None


def test_a_name_that_only_looks_like_a_provider_is_none() -> None:
    assert files(account("smtp.gmail.com.example.com", "imap.gmail.com")) is None
