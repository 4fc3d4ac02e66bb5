"""Replies and forwards over HTTP: what a submit makes of the message that it names, or says where there is none."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

import pytest

from api import visits
from relay.core import original
from relay.core.original import Original
from relay.core.pixel import sign
from relay.core.place import Place, spell
from relay.store import db
from tests.api.client import Client
from tests.api.test_api_messages import LETTER, mailbox, put, server
from tests.fakes.mailbox import MailboxServer

__all__ = ["mailbox", "server"]  # fixtures
LATER = "2030-01-01T00:00:00Z"
NOBODY = "AAAADQAABl0"


async def submit(admin: Client, reference: dict[str, Any] | None, **fields: Any) -> Any:
    body = {"text": "Yes.", "sendAt": LATER, "reference": reference, **fields}
    return await admin.ask("POST", "/v1/account/shop/submit", {key: value for key, value in body.items() if value})


async def drafted(admin: Client, reference: dict[str, Any], **fields: Any) -> Original:
    """What would be sent."""
    status, answer = await submit(admin, reference, dryRun=True, **fields)
    assert status == 200, answer
    return original.read(base64.b64decode(answer["preview"]))


async def stored(pool: db.Pool, queue_id: str) -> tuple[dict[str, Any], list[str]]:
    """Its options, and who gets it."""
    async with db.connection(pool) as conn:
        cursor = await conn.execute("select options from messages where id = %s", (UUID(queue_id),))
        row = await cursor.fetchone()
        assert row is not None
        cursor = await conn.execute(
            "select recipient from deliveries where message_id = %s order by id", (UUID(queue_id),)
        )
        return row[0] or {}, [one[0] for one in await cursor.fetchall()]


async def missed(pool: db.Pool) -> list[Any]:
    """The data of the events that tell of missing messages."""
    async with db.connection(pool) as conn:
        cursor = await conn.execute("select data from events where type = 'messageMissing' order by id")
        return [row[0] for row in await cursor.fetchall()]


async def test_a_reply_needs_its_text_alone(admin: Client, mailbox: MailboxServer, pool: db.Pool) -> None:
    id = put(mailbox)
    status, answer = await submit(admin, {"message": id})
    assert status == 200
    assert answer["reference"] == {"message": id, "success": True}
    options, recipients = await stored(pool, answer["queueId"])
    assert recipients == ["desk@there.example"]
    assert options["answers"] == {"place": id, "flag": "\\Answered", "message_id": "<1@there.example>"}
    assert await missed(pool) == []


async def test_a_reply_goes_on_with_the_thread(admin: Client, mailbox: MailboxServer) -> None:
    found = await drafted(admin, {"message": put(mailbox), "action": "reply"})
    assert (found.subject, found.text) == ("Re: Grüße", "Yes.")
    assert found.in_reply_to == ("<1@there.example>",)
    assert found.references == ("<0@example.com>", "<1@there.example>")
    assert [box.address for box in found.to] == ["desk@there.example"]


async def test_a_reply_may_quote(admin: Client, mailbox: MailboxServer) -> None:
    reference = {"message": put(mailbox), "action": "reply", "inline": True}
    found = await drafted(admin, reference, html="<p>Yes.</p>")
    assert found.text == "Yes.\n\nZoë <zoe@there.example> wrote:\n\n> plain"
    assert "<p>rich</p></blockquote>" in found.html
    assert "script" not in found.html


async def test_a_reply_to_all_leaves_me_out(admin: Client, mailbox: MailboxServer) -> None:
    found = await drafted(admin, {"message": put(mailbox), "action": "replyAll"}, cc={"address": "extra@example.com"})
    assert [box.address for box in found.to] == ["desk@there.example", "bob@example.com"]
    assert [box.address for box in found.cc] == ["c@example.com", "extra@example.com"]


async def test_a_forward_has_the_files(admin: Client, mailbox: MailboxServer, pool: db.Pool) -> None:
    reference = {"message": put(mailbox), "action": "forward", "inline": True, "forwardAttachments": True}
    found = await drafted(admin, reference, to={"address": "x@example.com"})
    assert found.subject == "Fwd: Grüße"
    assert "---------- Forwarded message ----------" in found.text
    assert [(file.filename, file.content) for file in found.files] == [("aä.html", b"<script>")]
    _, answer = await submit(admin, reference, to={"address": "x@example.com"})
    options, recipients = await stored(pool, answer["queueId"])
    assert (options["answers"]["flag"], recipients) == ("$Forwarded", ["x@example.com"])


async def test_a_forward_is_for_somebody(admin: Client, mailbox: MailboxServer) -> None:
    status, error = await submit(admin, {"message": put(mailbox), "action": "forward"})
    assert (status, error["fields"][0]["key"]) == (400, "to")


async def test_what_is_given_counts(admin: Client, mailbox: MailboxServer) -> None:
    found = await drafted(
        admin,
        {"message": put(mailbox)},
        subject="Other",
        to={"address": "x@example.com"},
        headers={"in-reply-to": "<mine@example.com>", "X-Mine": "y"},
    )
    assert (found.subject, [box.address for box in found.to]) == ("Other", ["x@example.com"])
    assert found.in_reply_to == ("<mine@example.com>",)
    assert found.references == ("<0@example.com>", "<1@there.example>")
    assert found.fields.get("x-mine") == "y"


async def test_recipients_of_the_envelope_count_before_all(
    admin: Client, mailbox: MailboxServer, pool: db.Pool
) -> None:
    _, answer = await submit(admin, {"message": put(mailbox)}, envelope={"to": ["only@example.com"]})
    assert (await stored(pool, answer["queueId"]))[1] == ["only@example.com"]


async def test_a_message_is_named_by_its_message_id_too(admin: Client, mailbox: MailboxServer, pool: db.Pool) -> None:
    id = put(mailbox, path="Sent")
    status, answer = await submit(admin, {"message": "<1@there.example>"})
    assert status == 200
    assert answer["reference"] == {"message": "<1@there.example>", "success": True}
    assert (await stored(pool, answer["queueId"]))[0]["answers"]["place"] == id


async def test_a_message_that_moved_is_found_by_its_message_id(
    admin: Client, mailbox: MailboxServer, pool: db.Pool
) -> None:
    elsewhere = spell(Place("INBOX", mailbox.folder("INBOX").uidvalidity, 99))
    id = put(mailbox, path="Sent")
    assert (await submit(admin, {"message": elsewhere}))[0] == 404
    _, answer = await submit(admin, {"message": elsewhere, "messageId": "<1@there.example>"})
    assert (await stored(pool, answer["queueId"]))[0]["answers"]["place"] == id


async def test_another_message_is_not_taken_for_it(admin: Client, mailbox: MailboxServer) -> None:
    status, error = await submit(admin, {"message": put(mailbox), "messageId": "<2@there.example>"})
    assert (status, error["code"]) == (404, "MessageNotFound")


@pytest.mark.parametrize("name", [NOBODY, "<gone@there.example>"])
async def test_what_is_gone_is_refused_and_told(
    admin: Client, mailbox: MailboxServer, pool: db.Pool, name: str
) -> None:
    status, error = await submit(admin, {"message": name}, to={"address": "x@example.com"})
    assert (status, error["code"], error["fields"][0]["key"]) == (404, "MessageNotFound", "reference.message")
    assert "ignoreMissing" in error["message"]
    (told,) = await missed(pool)
    by_id = name.startswith("<")
    assert (told["id"], told["messageId"]) == ((None, name) if by_id else (name, None))
    assert (told["queueId"], told["flag"]) == (None, "\\Answered")


async def test_what_is_gone_can_be_done_without(admin: Client, mailbox: MailboxServer, pool: db.Pool) -> None:
    reference = {"message": NOBODY, "ignoreMissing": True, "inline": True}
    status, answer = await submit(admin, reference, to={"address": "x@example.com"}, subject="S")
    assert status == 200
    assert answer["reference"]["success"] is False
    assert "not found" in answer["reference"]["error"]
    assert "answers" not in (await stored(pool, answer["queueId"]))[0]
    (told,) = await missed(pool)
    assert (told["id"], told["queueId"]) == (NOBODY, answer["queueId"])


async def test_without_the_original_its_thread_goes_on(admin: Client, mailbox: MailboxServer, pool: db.Pool) -> None:
    reference = {"message": "<gone@there.example>", "ignoreMissing": True}
    found = await drafted(admin, reference, to={"address": "x@example.com"})
    assert (found.in_reply_to, found.references) == (("<gone@there.example>",), ("<gone@there.example>",))
    assert await missed(pool) == []  # a dry run tells nobody


async def test_a_mailbox_that_is_away_refuses_or_is_done_without(
    admin: Client, mailbox: MailboxServer, pool: db.Pool
) -> None:
    id = put(mailbox)
    await mailbox.stop()
    to = {"address": "x@example.com"}
    response = await admin.open(
        "POST", "/v1/account/shop/submit", {"text": "x", "to": to, "reference": {"message": id}}
    )
    assert (response.status, "Retry-After" in response.headers) == (503, True)
    status, answer = await submit(admin, {"message": id, "ignoreMissing": True}, to=to)
    assert (status, answer["reference"]["success"]) == (200, False)
    assert (await stored(pool, answer["queueId"]))[0]["answers"]["place"] == id  # to be flagged when it is back
    assert await missed(pool) == []


async def test_a_server_that_hangs_keeps_nobody_waiting_for_ever(
    admin: Client, mailbox: MailboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "SECONDS", 0.3)
    mailbox.when("SELECT").hang()
    mailbox.when("EXAMINE").hang()
    status, error = await submit(admin, {"message": put(mailbox)})
    assert (status, error["code"]) == (503, "MailboxAway")


async def test_an_account_without_a_mailbox_has_nothing_to_answer(admin: Client, shop: str) -> None:
    to = {"address": "x@example.com"}
    assert (await submit(admin, {"message": NOBODY}, to=to))[0] == 404
    status, answer = await submit(admin, {"message": NOBODY, "ignoreMissing": True}, to=to)
    assert (status, answer["reference"]["success"]) == (200, False)


async def test_a_huge_original_is_answered_and_not_quoted(admin: Client, mailbox: MailboxServer, house: Any) -> None:
    id = put(mailbox, LETTER + b"x" * house.settings.max_message_size)
    assert (await submit(admin, {"message": id}))[0] == 200
    status, error = await submit(admin, {"message": id, "inline": True})
    assert (status, error["code"]) == (413, "ReferenceTooLarge")


async def test_a_message_that_is_whole_only_flags_the_original(
    admin: Client, mailbox: MailboxServer, pool: db.Pool
) -> None:
    id, raw = put(mailbox), b"From: a@example.com\r\nTo: b@example.com\r\nSubject: mine\r\n\r\nmine\r\n"
    reference = {"message": id, "action": "forward", "inline": True, "forwardAttachments": True}
    body = {"raw": base64.b64encode(raw).decode(), "reference": reference, "sendAt": LATER}
    answer = await admin.ok("POST", "/v1/account/shop/submit", body)
    options, recipients = await stored(pool, answer["queueId"])
    assert (options["answers"]["flag"], recipients) == ("$Forwarded", ["b@example.com"])
    preview = await admin.ok("POST", "/v1/account/shop/submit", {**body, "dryRun": True})
    assert base64.b64decode(preview["preview"]).endswith(b"Subject: mine\r\n\r\nmine\r\n")


async def test_the_first_answer_counts_whatever_became_of_the_original(
    admin: Client, mailbox: MailboxServer, pool: db.Pool
) -> None:
    body = {"text": "Yes.", "sendAt": LATER, "reference": {"message": put(mailbox), "inline": True}}
    send = {"headers": {"Idempotency-Key": "k1"}}
    first = await admin.ok("POST", "/v1/account/shop/submit", body, **send)
    mailbox.renumber("INBOX")
    again = await admin.ok("POST", "/v1/account/shop/submit", body, **send)
    assert (first["idempotency"]["status"], again["idempotency"]["status"]) == ("MISS", "HIT")
    assert (again["queueId"], again["reference"]) == (first["queueId"], first["reference"])
    status, error = await admin.ask("POST", "/v1/account/shop/submit", {**body, "text": "No."}, **send)
    assert (status, error["code"]) == (409, "IdempotencyConflict")
    assert await missed(pool) == []


async def test_no_pixel_of_ours_is_quoted(admin: Client, mailbox: MailboxServer, house: Any) -> None:
    keys = house.vault.derive("pixel")
    token, home = sign(keys, 7), house.settings.public_url
    urls = [
        f"{home}/t/{token}.gif",
        f"https://old.example/t/{token}.gif",
        f"https://proxy.example/x#{home}/t/{token}.gif",
    ]
    other = f"https://other.example/t/{'A' * 32}.gif"
    pictures = "".join(f'<img src="{url}">' for url in (*urls, other))
    id = put(mailbox, f"From: a@example.com\r\nContent-Type: text/html\r\n\r\n<p>x</p>{pictures}".encode())
    found = await drafted(admin, {"message": id, "inline": True}, html="<p>Yes.</p>")
    assert found.html.count("<img") == 1
    assert other in found.html


async def test_whom_i_send_as_is_me(admin: Client, mailbox: MailboxServer) -> None:
    mine = LETTER.replace(b"=?utf-8?q?Zo=C3=AB?= <zoe@there.example>", b"alias@example.com")
    found = await drafted(admin, {"message": put(mailbox, mine)}, **{"from": {"address": "Alias@example.com"}})
    assert [box.address for box in found.to] == ["bob@example.com"]  # shop@example.com is me, too
