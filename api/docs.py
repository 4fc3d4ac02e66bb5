"""The API described: for programs at /openapi.json, for people at /docs. Nothing of it comes from another host."""

from __future__ import annotations

import json
from importlib import resources

from aiohttp import web

from api.call import Call

DOCUMENT = web.AppKey("document", bytes)
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


async def openapi(call: Call) -> web.Response:
    """This document."""
    return web.Response(body=call.request.app[DOCUMENT], content_type="application/json", headers=HEADERS)


async def page(call: Call) -> web.Response:
    """The documentation as a page."""
    return _file("docs.html", "text/html")


async def style(call: Call) -> web.Response:
    """The page's style."""
    return _file("docs.css", "text/css")


async def script(call: Call) -> web.Response:
    """The page's script: it draws /openapi.json."""
    return _file("docs.js", "text/javascript")


def _file(name: str, kind: str) -> web.Response:
    text = resources.files(__package__).joinpath("page", name).read_text("utf-8")
    return web.Response(text=text, content_type=kind, headers=HEADERS)


def encoded(document: dict[str, object]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
