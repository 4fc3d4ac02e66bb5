"""The tracking pixel: any token answers the picture, at once; whether it is ours is nobody's business."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field

from api.call import Call, client
from relay.core import pixel

Token = Annotated[str, Field(description="What the image's address in the mail holds.")]
HEADERS = {
    "Content-Type": "image/gif",
    "Cache-Control": "no-store, no-cache, must-revalidate, private, max-age=0",
    "Pragma": "no-cache",
    "Expires": "0",
    "X-Robots-Tag": "noindex",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


async def gif(call: Call, token: Token) -> web.Response:
    """A transparent GIF of one dot, never cached. The fetch is kept afterwards."""
    request = call.request
    address = client(request, call.house.settings)
    call.house.opens.fetched(token, request.method, address, request.headers.get("User-Agent", ""))
    return web.Response(body=pixel.GIF, headers=HEADERS)
