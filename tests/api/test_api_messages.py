"""Messages of the mailbox over HTTP: shown as data, given out as files, and only as long as they are there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest

from api import visits
from relay.core.place import Place, spell
from tests.api.client import SHOP, Client, Login
from tests.fakes.mailbox import MailboxServer
from tests.stack import until

LETTER = b"\r\n".join(
    (
        b"From: =?utf-8?q?Zo=C3=AB?= <zoe@there.example>",
        b"To: shop@example.com, Bob <bob@example.com>",
        b"Cc: c@example.com",
        b"Reply-To: desk@there.example",
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=",
        b"Message-ID: <1@there.example>",
        b"In-Reply-To: <0@example.com>",
        b"Received: first",
        b"Received: second",
        b"Content-Type: multipart/mixed; boundary=m",
        b"",
        b"--m",
        b"Content-Type: multipart/alternative; boundary=a",
        b"",
        b"--a",
        b"",
        b"plain",
        b"--a",
        b"Content-Type: text/html",
        b"",
        b"<p onclick=x()>rich</p><script>alert(1)</script>",
        b"--a--",
        b"--m",
        b'Content-Type: text/html; name="a\xc3\xa4.html"; charset=utf-8',
        b"Content-Disposition: attachment",
        b"Content-ID: <file@there>",
        b"Content-Transfer-Encoding: base64",
        b"",
        b"PHNjcmlwdD4=",
        b"--m--",
        b"",
    )
)


@pytest.fixture
async def server() -> AsyncIterator[MailboxServer]:
    async with MailboxServer() as server:
        yield server


@pytest.fixture
async def mailbox(admin: Client, server: MailboxServer) -> MailboxServer:
    """The mailbox of the account `shop`."""
    await admin.ok("POST", "/v1/account", {**SHOP, "imap": settings_of(server)})
    return server


def settings_of(server: MailboxServer, **more: Any) -> dict[str, Any]:
    auth = {"user": "ann", "pass": "secret"}
    return {"host": server.host, "port": server.port, "secure": False, "tls": {"mode": "none"}, "auth": auth, **more}


def put(server: MailboxServer, content: bytes = LETTER, path: str = "INBOX", flags: tuple[str, ...] = ()) -> str:
    """Its id."""
    uid = server.put(path, content, flags)
    return spell(Place(path, server.folder(path).uidvalidity, uid))


def address(id: str, more: str = "") -> str:
    return f"/v1/account/shop/message/{quote(id, safe='')}{more}"


async def test_a_message_is_shown(admin: Client, mailbox: MailboxServer) -> None:
    id = put(mailbox, flags=("\\Flagged",))
    shown = await admin.ok("GET", address(id))
    assert (shown["id"], shown["path"], shown["messageId"]) == (id, "INBOX", "<1@there.example>")
    assert (shown["subject"], shown["inReplyTo"], shown["size"]) == ("Grüße", "<0@example.com>", len(LETTER))
    assert shown["from"] == {"name": "Zoë", "address": "zoe@there.example"}
    assert [one["address"] for one in shown["to"]] == ["shop@example.com", "bob@example.com"]
    assert [one["address"] for one in shown["cc"] + shown["replyTo"]] == ["c@example.com", "desk@there.example"]
    assert (shown["flags"], shown["unseen"], shown["flagged"], shown["draft"]) == (["\\Flagged"], True, True, False)
    assert shown["headers"]["received"] == ["first", "second"]
    assert shown["text"]["plain"] == "plain"
    assert shown["text"]["html"] == "<p onclick=x()>rich</p><script>alert(1)</script>"
    assert not shown["truncated"]


async def test_it_is_data_and_not_marked_as_seen(admin: Client, mailbox: MailboxServer) -> None:
    id = put(mailbox)
    response = await admin.open("GET", address(id))
    assert response.content_type == "application/json"
    assert "\\Seen" not in mailbox.flags("INBOX", 1)


async def test_html_can_be_had_without_what_acts(admin: Client, mailbox: MailboxServer) -> None:
    shown = await admin.ok("GET", address(put(mailbox), "?webSafeHtml=true&textType=html"))
    assert shown["text"] == {"plain": None, "html": "<p>rich</p>", "hasMore": False}


async def test_text_can_be_had_in_part(admin: Client, mailbox: MailboxServer) -> None:
    id = put(mailbox, "Subject: x\r\n\r\ngrün".encode())
    shown = await admin.ok("GET", address(id, "?maxBytes=3"))
    assert shown["text"] == {"plain": "gr", "html": None, "hasMore": True}


async def test_files_are_listed_and_given_out_as_files(admin: Client, mailbox: MailboxServer) -> None:
    id = put(mailbox)
    (file,) = (await admin.ok("GET", address(id)))["attachments"]
    facts = (file["filename"], file["contentType"], file["size"], file["cid"], file["contentId"], file["inline"])
    assert facts == ("aä.html", "text/html", 8, "file@there", "<file@there>", False)

    response = await admin.open("GET", f"/v1/account/shop/attachment/{quote(file['id'])}")
    assert (response.status, await response.read()) == (200, b"<script>")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["Content-Disposition"] == "attachment; filename=\"a_.html\"; filename*=UTF-8''a%C3%A4.html"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("number", ["1", "-1", "x", "", "99999"])
async def test_no_other_file_is_there(admin: Client, mailbox: MailboxServer, number: str) -> None:
    status, error = await admin.ask("GET", f"/v1/account/shop/attachment/{put(mailbox)}.{number}")
    assert (status, error["code"]) == (404, "AttachmentNotFound")


async def test_the_source_is_byte_for_byte(admin: Client, mailbox: MailboxServer) -> None:
    raw = LETTER + b"\xff\x00 bare\nline"
    response = await admin.open("GET", address(put(mailbox, raw), "/source"))
    assert (response.status, await response.read()) == (200, raw)
    assert response.headers["Content-Type"] == "message/rfc822"
    assert response.headers["Content-Disposition"].startswith('attachment; filename="message.eml"')
    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_large_message_is_shown_in_part_and_not_given_out(
    admin: Client, mailbox: MailboxServer, house: Any
) -> None:
    most = house.settings.max_message_size
    id = put(mailbox, b"Subject: large\r\n\r\n" + b"x" * most)
    shown = await admin.ok("GET", address(id, "?maxBytes=10"))
    assert (shown["subject"], shown["truncated"], shown["text"]["hasMore"]) == ("large", True, True)
    status, error = await admin.ask("GET", address(id, "/source"))
    assert (status, error["code"]) == (413, "MessageTooLarge")


@pytest.mark.parametrize("more", ["", "/source"])
async def test_what_is_gone_is_not_found(admin: Client, mailbox: MailboxServer, more: str) -> None:
    id = put(mailbox)
    here = mailbox.folder("INBOX").uidvalidity
    gone = [
        spell(Place("INBOX", here, 99)),
        spell(Place("INBOX", here + 1, 1)),
        spell(Place("No such", here, 1)),
        "AAAADQAABl0",
        "<1@there.example>",
    ]
    assert (await admin.open("GET", address(id, more))).status == 200
    for one in gone:
        status, error = await admin.ask("GET", address(one, more))
        assert (status, error["code"]) == (404, "MessageNotFound")

    mailbox.renumber("INBOX")
    status, error = await admin.ask("GET", address(id, more))
    assert (status, error["code"]) == (404, "MessageNotFound")


async def test_an_account_without_a_mailbox_has_no_messages(admin: Client, shop: str) -> None:
    status, error = await admin.ask("GET", address(spell(Place("INBOX", 1, 1))))
    assert (status, error["code"]) == (404, "NoMailbox")


async def test_a_mailbox_that_is_away_is_asked_again_later(admin: Client, mailbox: MailboxServer) -> None:
    id = put(mailbox)
    await mailbox.stop()
    response = await admin.open("GET", address(id))
    assert (response.status, (await response.json())["code"]) == (503, "MailboxAway")
    assert int(response.headers["Retry-After"]) > 0


async def test_a_mailbox_that_refuses_is_told_with_its_words(admin: Client, mailbox: MailboxServer) -> None:
    mailbox.users = {"ann": "another"}
    response = await admin.open("GET", address(put(mailbox)))
    error = await response.json()
    assert (response.status, error["code"]) == (502, "MailboxAway")
    assert "/verify" in error["message"]
    assert "wrong user or password" in error["message"]
    assert "secret" not in error["message"].replace("wrong user or password", "")
    assert "Retry-After" in response.headers


async def test_a_server_that_hangs_is_given_up(
    admin: Client, mailbox: MailboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "SECONDS", 0.3)
    mailbox.when("FETCH").hang()
    status, error = await admin.ask("GET", address(put(mailbox)))
    assert (status, error["code"]) == (503, "MailboxAway")
    assert "did not answer" in error["message"]


async def test_calls_for_one_mailbox_wait_for_each_other_and_not_for_ever(
    admin: Client, mailbox: MailboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "PATIENCE", 0.1)
    released = asyncio.Event()
    mailbox.when("FETCH").wait(released).usual()
    id = put(mailbox)
    async with asyncio.TaskGroup() as group:
        first = [group.create_task(admin.ask("GET", address(id))) for _ in range(visits.EACH)]
        await until(lambda: mailbox.connections == visits.EACH)
        status, error = await admin.ask("GET", address(id))
        released.set()
    assert (status, error["code"]) == (429, "TooManyCalls")
    assert [task.result()[0] for task in first] == [200] * visits.EACH
    assert (await admin.ask("GET", address(id)))[0] == 200


async def test_a_token_of_another_account_sees_nothing(admin: Client, mailbox: MailboxServer, login: Login) -> None:
    await admin.ok("POST", "/v1/account", {**SHOP, "account": "other"})
    other = await login("api", account="other")
    for path in (address(put(mailbox)), address(put(mailbox), "/source"), "/v1/account/shop/attachment/x.0"):
        assert (await other.ask("GET", path))[0] == 403
