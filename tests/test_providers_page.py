"""The page about providers says what the program takes: each account on it is accepted, and leads where it says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from relay import enrol
from relay.core import account, filers
from relay.core.tenant import Account, AccountState, Mailgun, Smtp

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "providers.md").read_text()
RULES = account.Rules(allowed=(), sandbox=False, zones=enrol.zones())
BLOCKS = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)]
ACCOUNTS = {block["account"]: block for block in BLOCKS}


def stored(given: dict[str, Any]) -> Account:
    fields = account.change({}, {key: value for key, value in given.items() if key != "account"}, RULES)
    return account.build(given["account"], AccountState.ACTIVE, "", fields)


@pytest.mark.parametrize("given", BLOCKS, ids=list(ACCOUNTS))
def test_each_account_is_accepted_and_can_send(given: dict[str, Any]) -> None:
    one = stored(given)
    assert one.upstream is not None
    assert one.limits.windows or one.mailgun
    assert re.fullmatch(account.ID, one.id)


def test_no_account_is_there_twice() -> None:
    assert len(ACCOUNTS) == len(BLOCKS)


@pytest.mark.parametrize(
    ("name", "smtp", "imap", "filed"),
    [
        ("ada", "smtp.gmail.com:465", "imap.gmail.com", True),
        ("bob", "smtp.gmail.com:465", "imap.gmail.com", True),
        ("carol", "smtp.office365.com:587", "outlook.office365.com", True),
        ("scanner", "smtp.office365.com:587", None, None),
        ("shop", "mail.example.com:465", "mail.example.com", None),
        ("news", "api.eu.mailgun.net:443", None, False),
        ("desk", "api.mailgun.net:443", "mail.example.com", False),
    ],
)
def test_where_each_sends_and_what_is_known_of_its_sent_copy(
    name: str, smtp: str, imap: str | None, filed: bool | None
) -> None:
    one = stored(ACCOUNTS[name])
    assert one.upstream is not None
    assert (one.upstream.label, one.imap.host if one.imap else None) == (smtp, imap)
    assert filers.files(one) is filed


@pytest.mark.parametrize(
    ("name", "seconds", "most"),
    [("ada", 86400, 500), ("bob", 86400, 2000), ("carol", 60, 30), ("carol", 86400, 10_000), ("scanner", 60, 30)],
)
def test_the_limits_stay_below_the_providers(name: str, seconds: int, most: int) -> None:
    assert dict(stored(ACCOUNTS[name]).limits.windows)[seconds] < most


def test_microsofts_connections_stay_below_three() -> None:
    assert stored(ACCOUNTS["carol"]).limits.connections < 3


def test_what_it_says_of_protection_is_so() -> None:
    assert all(not isinstance(one.upstream, Smtp) or one.upstream.verify_certificate for one in map(stored, BLOCKS))
    assert isinstance(stored(ACCOUNTS["news"]).upstream, Mailgun)


@pytest.mark.parametrize("heading", ["Gmail", "Microsoft 365", "cPanel", "Mailgun"])
def test_each_provider_has_limits_with_their_sources_and_its_quirks(heading: str) -> None:
    (section,) = [part for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:] if heading in part.split("\n")[0]]
    assert "**Sent copy.**" in section
    assert "**Bounces**" in section
    rows = re.findall(r"^\| .* \| (.*) \|$", section, re.MULTILINE)
    assert rows[0] == "source"
    assert len(rows) > 2
