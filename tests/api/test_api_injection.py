"""Whatever stands in a field of a submit: no header begins with it, no address has a line of its own in SMTP."""

from __future__ import annotations

import email
import re
from email.message import Message
from itertools import product
from typing import Any

import pytest

from relay.core import copytext
from relay.store import db
from tests.api.client import SHOP, Client
from tests.api.fields import Path, grown, spelt, taken, texts
from tests.api.test_api_submit import SUBMIT, recipients, stored

SCHEMA = taken("POST", "/v1/account/{account}/submit")
BREAKS = ["\r\n", "\n", "\r", "\r\n\t", "\x00", "\x0b", "\x85", "\u2028"]
EVIL = "X-Evil: yes"
ATTACKS = [
    *(attack for line in BREAKS for attack in (f"a{line}{EVIL}{line}b", f"<a{line}{EVIL}@x.example>")),
    *("a%0d%0aX-Evil: yes", "=?utf-8?q?a=0D=0AX-Evil:_yes?=", EVIL),
]
BASE: dict[str, Any] = {"to": {"address": "ann@x.example"}, "text": "Hi"}
SAID = frozenset({("text",), ("html",)})  # what is the message's own words may have lines that look like fields
LINE = re.compile(rb"(?:\A|[\r\n\x0b\x0c\x1c-\x1e\x85]|\xe2\x80[\xa8\xa9]|\xc2\x85)\s*x-evil", re.IGNORECASE)


def begins_a_field(content: bytes, path: Path) -> bool:
    """Some reader could take it for one: in the header, by any line end; in the parts, as the standard library does."""
    head = content.partition(b"\r\n\r\n")[0]
    parsed = email.message_from_bytes(content)
    return bool(
        LINE.search(head if path in SAID else content) or any("x-evil" in map(str.lower, one) for one in parts(parsed))
    )


def parts(message: Message) -> list[list[str]]:
    """The names of the fields of each part."""
    return [part.keys() for part in message.walk()]


@pytest.mark.parametrize(
    "content",
    [
        b"From: a\r\nX-Evil: yes\r\n\r\nHi",
        b"From: a\nX-Evil: yes\r\n\r\nHi",
        b"From: a\rX-Evil: yes\r\n\r\nHi",
        b"From: a\xe2\x80\xa8X-Evil: yes\r\n\r\nHi",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX-Evil: yes\r\n\r\nHi\r\n--b--",
    ],
)
def test_an_injection_is_seen(content: bytes) -> None:
    assert begins_a_field(content, ("subject",))


def test_every_field_is_found() -> None:
    found = set(map(spelt, texts(SCHEMA)))
    assert len(found) > 40
    assert found >= {
        *("subject", "messageId", "sentMailPath", "referenceId", "tz", "to.0.name", "headers.{name}", "headers.X-Any"),
        *("attachments.0.cid", "attachments.0.filename", "envelope.from", "envelope.to.0", "reference.messageId"),
    }


@pytest.mark.parametrize("field", sorted({str(path[0]) for path in texts(SCHEMA)}))
async def test_no_field_begins_a_header(admin: Client, shop: str, pool: db.Pool, field: str) -> None:
    offenders = []
    for path, attack in product([path for path in texts(SCHEMA) if path[0] == field], ATTACKS):
        given = {**(BASE if field != "raw" else {}), **grown(SCHEMA, path, attack)}
        if field == "reference":
            given["reference"]["ignoreMissing"] = (
                True  # there is no mailbox here: what is said of it counts all the same
            )
        status, answer = await admin.ask("POST", SUBMIT, given)
        if status not in (200, 400, 404) or (status == 200 and not await harmless(pool, answer["queueId"], path)):
            offenders.append((spelt(path), attack, status))
    assert offenders == []


async def harmless(pool: db.Pool, queue_id: str, path: Path) -> bool:
    """What is stored, and its Sent copy, have no field of the attacker's; and what is said in SMTP no second line."""
    message = await stored(pool, queue_id)
    content, bcc = message["content"], message["bcc"] or []
    spoken = [message["sender"], *(row[0] for row in await recipients(pool, queue_id)), *bcc]
    return (
        not begins_a_field(content, path)
        and not begins_a_field(copytext.write(content, bcc), path)
        and all(address.isprintable() and not set(address) & set("<> ") for address in spoken)
        and message["message_id"].isprintable()
        and message["subject"].isprintable()
    )


# What is stored by other calls ends in headers too: an account's name in From, a webhook's in its requests.

KEPT: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/account"): {**SHOP, "account": "other"},
    ("PUT", "/v1/account/{account}"): SHOP,
    ("POST", "/v1/webhooks"): {"url": "https://hooks.example.com/in"},
    ("POST", "/v1/suppressions"): {"account": "shop", "address": "bob@x.example"},
    ("POST", "/v1/tokens"): {"scopes": ["send"], "account": "shop"},
}
WORDS = frozenset({"detail", "description"})  # for people; they may have lines, and end in no header


@pytest.mark.parametrize(("method", "path"), KEPT)
async def test_nothing_that_is_kept_has_a_line_end(admin: Client, shop: str, method: str, path: str) -> None:
    offenders = []
    schema = taken(method, path)
    for field, line in product(texts(schema), BREAKS):
        base = {name: value for name, value in KEPT[method, path].items() if name != field[0]}
        given = base | grown(schema, field, f"a{line}{EVIL}")
        status, answer = await admin.ask(method, path.format(account=shop), given)
        if status >= 500 or (status < 300 and field[-1] not in WORDS and not one_line(answer)):
            offenders.append((spelt(field), line, status))
    assert offenders == []
    shown = [await admin.ok("GET", f"/v1/account/{shop}"), await admin.ok("GET", "/v1/webhooks")]
    assert all(map(one_line, shown))


def one_line(value: Any) -> bool:
    """Whether no text in it has a second line, in whatever reader's eyes; words for people aside."""
    match value:
        case dict():
            return all(one_line(name) and (name in WORDS or one_line(inner)) for name, inner in value.items())
        case list():
            return all(map(one_line, value))
        case str():
            return len(f"{value}.".splitlines()) == 1 and "\0" not in value
        case _:
            return True
