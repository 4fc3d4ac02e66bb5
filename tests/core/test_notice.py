"""What a notice says, and that nobody's words get out of their place in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from relay.core.model import Opener
from relay.core.notice import OPENED, UNOPENED, Notice, Words, write

NOTICE = Notice(
    kind=OPENED,
    delivery=42,
    recipient="ann@there.example",
    name="",
    subject="Offer 4711",
    sent_at=datetime(2026, 11, 19, 9, 7, tzinfo=UTC),
    opened_at=datetime(2026, 11, 20, 23, 30, tzinfo=UTC),
    opener=Opener.PERSON,
    client="Outlook",
    country="AT",
    city="Vienna",
)
RECORD = "https://relay.example/v1/account/a/tracking/42"


def words(days: int = 3, **changed: Any) -> Words:
    return write(replace(NOTICE, **changed), account="a", days=days, record=RECORD, tz=ZoneInfo("Europe/Vienna"))


def test_an_opened_mail() -> None:
    assert words().subject == "Opened: Offer 4711"
    assert words().text == (
        "ann@there.example opened your mail “Offer 4711”.\n"
        "\n"
        "Opened: Saturday, 21 November 2026, 00:30 (Europe/Vienna)\n"
        "With: Outlook\n"
        "Where: Vienna, AT\n"
        "Sent: Thursday, 19 November 2026, 10:07 (Europe/Vienna)\n"
        "\n"
        f"More over the API: {RECORD}\n"
        "\n"
        "Account a asks for a mail when one of its mails is opened for the first time.\n"
    )


def test_what_wants_a_token_is_no_link_to_click_on() -> None:
    assert RECORD in words().html
    assert "<a " not in words().html


def test_an_unopened_mail() -> None:
    told = words(kind=UNOPENED, opened_at=None, opener=None, client="", country="", city="")
    assert told.subject == "Not opened: Offer 4711"
    assert told.text.startswith("Within 3 days nobody was seen to open your mail “Offer 4711” to ann@there.example.\n")
    assert "With:" not in told.text
    assert "it may have been read all the same" in told.text


def test_one_day() -> None:
    assert words(1, kind=UNOPENED).text.startswith("Within 1 day nobody")


def test_a_proxy_hides_the_place() -> None:
    told = words(opener=Opener.PROXY, client="Gmail", country="US", city="Mountain View")
    assert "Where: hidden by Gmail, which fetches pictures for its users\n" in told.text
    assert "Mountain" not in told.text + told.html


def test_what_is_not_known_is_left_out() -> None:
    told = words(client="", country="", city="")
    assert "With:" not in told.text
    assert "Where:" not in told.text


def test_a_name_is_told_beside_the_address() -> None:
    assert words(name="Ann Ash").text.startswith("Ann Ash <ann@there.example> opened")


def test_a_reader_who_was_quicker_than_our_commit_is_told_of() -> None:
    assert "Sent:" not in words(sent_at=None).text


def test_no_subject() -> None:
    assert words(subject="").subject == "Opened: (no subject)"


def test_a_long_subject_is_cut() -> None:
    assert len(words(subject="x" * 998).subject) == len("Opened: ") + 200


@pytest.mark.parametrize("field", ["subject", "name", "client", "city", "recipient"])
def test_strangers_words_stay_in_their_line_and_are_no_html(field: str) -> None:
    told = words(**{field: 'x<script>"&\r\nBcc: eve@example.com\x00\x1b[31m'})
    assert not any(line.startswith("Bcc") for line in told.text.splitlines())
    assert "<script" not in told.html
    assert "\x00" not in told.text + told.html
    assert "\x1b" not in told.text + told.html + told.subject
    assert "\n" not in told.subject
