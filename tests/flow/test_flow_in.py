"""An ordinary day through real roles: mail in by every door, out through the tenant's upstream, once."""

from __future__ import annotations

import re

import aiosmtplib
import pytest

from relay.core.pixel import GIF
from relay.store import db, tokens
from tests.stack import until
from tests.tenant import Tenant

PIXEL = re.compile(rb'<img src="(http[^"]+/t/[^"]+\.gif)"[^>]*>')
KEY = {"Idempotency-Key": "order-17"}


async def test_x_account_says_whose_mail_it_is(tenant: Tenant) -> None:
    reply = await tenant.mail(
        "one@there.example",
        "two@there.example",
        sender="any@else.example",
        X_Account=tenant.id,
        Bcc="two@there.example",
    )
    assert reply.startswith("2.0.0 Message queued for delivery as ")
    await tenant.all_sent_once(["one@there.example", "two@there.example"])
    (taken,) = tenant.upstream.taken
    assert taken.sender == "any@else.example"
    assert b"X-Account" not in taken.content
    assert b"Bcc" not in taken.content


async def test_the_sender_says_whose_mail_it_is(tenant: Tenant) -> None:
    await tenant.mail("one@there.example")
    await tenant.all_sent_once(["one@there.example"])


async def test_a_login_says_whose_mail_it_is(tenant: Tenant) -> None:
    async with db.connection(tenant.pool) as conn:
        token = await tokens.create(conn, ["smtp"], tenant.id)
    await tenant.mail("one@there.example", sender="any@else.example", login=(tenant.id, token))
    await tenant.all_sent_once(["one@there.example"])


async def test_a_login_that_fails_sends_nothing(tenant: Tenant) -> None:
    with pytest.raises(aiosmtplib.SMTPAuthenticationError):
        await tenant.mail("one@there.example", login=(tenant.id, "pf_" + "x" * 43))
    await tenant.becomes()


async def test_mail_over_http(tenant: Tenant) -> None:
    answer = await tenant.submit("one@there.example")
    await tenant.all_sent_once(["one@there.example"])
    (taken,) = tenant.upstream.taken
    assert answer["messageId"].encode() in taken.content


async def test_each_recipient_has_a_pixel_whose_fetch_is_kept(tenant: Tenant) -> None:
    await tenant.change(tracking={"opens": True})
    to = ["one@there.example", "two@there.example", "three@there.example"]
    await tenant.mail(*to, html=True)
    await tenant.all_sent_once(to)
    copies = {taken.recipients: taken.content for taken in tenant.upstream.taken}
    assert len({PIXEL.sub(b"", content) for content in copies.values()}) == 1, "they differ in more than the pixel"
    assert len({url for content in copies.values() for url in PIXEL.findall(content)}) == 3

    (url,) = PIXEL.findall(copies[("two@there.example",)])
    async with tenant.http.get(url.decode(), headers={"User-Agent": "Reader/1"}) as answer:
        assert (answer.status, await answer.read()) == (200, GIF)

    async def kept() -> bool:
        rows = await tenant.rows(
            "select recipient, user_agent from fetches f join deliveries d on d.id = f.delivery_id"
            " where d.account_id = %s"
        )
        return rows == [("two@there.example", "Reader/1")]

    await until(kept)


async def test_a_key_over_smtp_sends_once(tenant: Tenant) -> None:
    replies = {await tenant.mail("one@there.example", X_Idempotency_Key="k1") for _ in range(3)}
    assert len(replies) == 1
    await tenant.mail("two@there.example", X_Idempotency_Key="k2")
    await tenant.all_sent_once(["one@there.example", "two@there.example"])


async def test_a_key_with_another_body_is_refused_over_smtp(tenant: Tenant) -> None:
    await tenant.mail("one@there.example", X_Idempotency_Key="k1")
    with pytest.raises(aiosmtplib.SMTPDataError, match="different message"):
        await tenant.mail("two@there.example", X_Idempotency_Key="k1")
    await tenant.all_sent_once(["one@there.example"])


async def test_a_key_over_http_sends_once(tenant: Tenant) -> None:
    path = f"/v1/account/{tenant.id}/submit"
    body = tenant.body("one@there.example")
    first, again = [await tenant.ask("POST", path, body, KEY) for _ in range(2)]
    other = await tenant.ask("POST", path, body | {"subject": "another"}, KEY)
    assert (first[0], again[0], other[0]) == (200, 200, 409)
    assert again[1]["queueId"] == first[1]["queueId"]
    assert (first[1]["idempotency"]["status"], again[1]["idempotency"]["status"]) == ("MISS", "HIT")
    await tenant.all_sent_once(["one@there.example"])
