"""Connect accounts by OAuth2 over HTTP: where to sign in, a link to hand on, and the pages that a person sees."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated

from aiohttp import web
from pydantic import ConfigDict, Field

from api.call import Call
from api.shapes import AccountId, Answer, Instant, Query, public
from relay import metrics
from relay.core.errors import Refused, StoreAway

LinkToken = Annotated[str, Field(description="What the link holds, signed by us.", max_length=500)]

STYLE = "body{font:1.1rem/1.5 sans-serif;max-width:34rem;margin:4rem auto;padding:0 1rem}"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}</h1><p>{text}</p></body></html>
"""
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'",
}
BAD_LINK = "This link is not good, or not any more. Ask whoever gave it to you for a new one."
AWAY = "We cannot reach our own store just now, and nothing was done. Try again in a minute."


class Authorisation(Answer):
    """Two ways to the same: the one for a browser that is open now, the other to hand on."""

    account: str
    url: str = Field(
        description="The provider's page, where the mailbox's user signs in and agrees. For one use.",
        examples=["https://accounts.google.com/o/oauth2/v2/auth?response_type=code&…"],
    )
    expires: Instant = Field(description="They must be back by then.")
    link: str = Field(
        description="A link of ours to hand on: it leads to a fresh `url` whenever it is opened.",
        examples=["https://mail.example.com/v1/oauth2/start/u7Yx…"],
    )
    link_expires: Instant


class Return(Query):
    """What the provider adds to the address (RFC 6749 4.1.2, RFC 9207); what else it adds is let be."""

    model_config = ConfigDict(alias_generator=public, extra="ignore")
    state: str = Field("", max_length=500, description="What `authorize` sent with.")
    code: str = Field("", max_length=8192, description="The authorisation's code.")
    error: str = Field("", max_length=500, description="Why there is none.")
    error_description: str = Field("", max_length=8192, alias="error_description")
    iss: str = Field("", max_length=2048, description="The issuer that answers.")


async def authorize(call: Call, account: AccountId) -> Authorisation:
    """Begin to connect an account with its provider: where its user signs in.

    The account has `oauth2` settings; whoever comes back through `/v1/oauth2/callback` connects it. 422 says what is
    missing, and 503 that the issuer is away.
    """
    house = call.house
    with house.quota.admitted(call.token):
        begun = await house.connecting.begin(account)
    link, until = house.tokens.link(begun.account)
    expires = datetime.fromtimestamp(until, UTC)
    return Authorisation(account=account, url=begun.url, expires=begun.expires, link=link, link_expires=expires)


async def start(call: Call, token: LinkToken) -> web.Response:
    """The link to connect an account, opened by its user: goes on to the provider's page."""

    async def go_on() -> web.Response:
        link = call.house.tokens.linked(token)
        if link is None:
            return _page(410, "This link has ended", BAD_LINK)
        if call.request.method == "HEAD":
            return _page(200, "Connect your mailbox", "This link leads to your provider.")
        begun = await call.house.connecting.begin(*link)
        return web.Response(status=302, headers={**HEADERS, "Location": begun.url})

    return await _kindly(go_on)


async def callback(call: Call, query: Return) -> web.Response:
    """The way back from the provider. No token is asked for: the `state` is the secret, and good for one use."""

    async def connect() -> web.Response:
        if call.request.method == "HEAD":  # nobody who signs in asks so
            return _page(200, "Connect your mailbox", "Nothing was done.")
        given = {name: value for name, value in query.model_dump(by_alias=True).items() if value}
        connected = await call.house.connecting.finish(given)
        call.house.directory.forget(connected.account)
        call.house.waker.wake(connected.account)
        return _page(200, "Connected", f"The mailbox of {connected.user} is connected. You can close this page.")

    return await _kindly(connect)


async def _kindly(work: Callable[[], Awaitable[web.Response]]) -> web.Response:
    """In front of this page sits a person: what went wrong is told as one."""
    try:
        return await work()
    except Refused as refused:
        return _page(refused.status, "Not connected", refused.message)
    except StoreAway:
        metrics.STORE_ERRORS.inc()
        return _page(503, "Not connected", AWAY)


def _page(status: int, title: str, text: str) -> web.Response:
    """Plain HTML, all of it escaped."""
    body = PAGE.format(title=html.escape(title), text=html.escape(text), style=STYLE)
    return web.Response(status=status, text=body, content_type="text/html", charset="utf-8", headers=HEADERS)
