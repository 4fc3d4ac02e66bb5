"""From a submission to a message ready to be stored: what is refused, and what is chosen."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from relay import settings
from relay.core import mime
from relay.core.errors import Refused
from relay.core.model import Options, Prepared, Submission
from relay.core.tenant import Account, AccountState, Limits, Smtp
from relay.prepare import prepare

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HTML = b"From: a@x.example\r\nContent-Type: text/html\r\n\r\n<p>hi</p>\r\n"
ACCOUNT = Account("a", "", "", AccountState.ACTIVE, Smtp("mx.x.example", 25), Limits(), track_opens=True)
SETTINGS = settings.read({"POSTFERRY_MAX_RECIPIENTS": "2", "POSTFERRY_MAX_MESSAGE_SIZE": "1024"}, dotenv=None)


def ready(account: Account = ACCOUNT, content: bytes = HTML, **given: Any) -> Prepared:
    mail = mime.tidy(content, now=NOW, domain="x.example", unique="1")
    given = {"sender": "a@x.example", "recipients": ("r@x.example",), **given}
    return prepare(Submission(account, "api", mail=mail, **given), SETTINGS, NOW, UUID(int=1))


@pytest.mark.parametrize(
    ("given", "reply"),
    [
        ({"account": dataclasses.replace(ACCOUNT, smtp=None)}, "550 5.3.5"),
        ({"recipients": ()}, "554 5.5.1"),
        ({"recipients": ("a@x.example", "b@x.example", "c@x.example")}, "452 4.5.3"),
        ({"content": HTML + b"x" * 1100}, "552 5.3.4"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_reply(given: dict[str, Any], reply: str) -> None:
    with pytest.raises(Refused) as refused:
        ready(**given)
    assert refused.value.reply().startswith(reply)


def test_an_account_whose_upstream_was_taken_away_still_takes_mail() -> None:
    assert ready(dataclasses.replace(ACCOUNT, smtp=None, had_upstream=True)).account == "a"


@pytest.mark.parametrize(
    ("account", "message", "tracked"),
    [(True, None, True), (False, None, False), (True, False, False), (False, True, True)],
)
def test_the_message_decides_on_its_pixel_before_the_account(
    account: bool, message: bool | None, tracked: bool
) -> None:
    made = ready(dataclasses.replace(ACCOUNT, track_opens=account), options=Options(track=message))
    assert (made.splice is not None) is tracked


def test_a_recipient_named_twice_receives_once() -> None:
    assert ready(recipients=("r@x.example", "r@x.example")).recipients == ("r@x.example",)


def test_an_instant_that_has_passed_is_now() -> None:
    assert ready(options=Options(send_at=NOW - timedelta(days=1))).send_at is None


@pytest.mark.parametrize(("to", "wide"), [("r@x.example", False), ("ü@x.example", True), ("r@ü.example", True)])
def test_an_address_beyond_ascii_wants_smtputf8(to: str, wide: bool) -> None:
    assert ready(recipients=(to,)).smtputf8 is wide
