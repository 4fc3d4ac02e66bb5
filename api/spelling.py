"""One spelling for the fixed words of an address: what a proxy shields by its path is not to be had by another."""

from __future__ import annotations

from aiohttp import web

from api.problems import Handler


@web.middleware
async def plain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """404 for `/%6detrics` and its like. Parts, such as an account's id, may be encoded as anybody wishes."""
    if not _plainly(request):
        raise web.HTTPNotFound
    return await handler(request)


def _plainly(request: web.Request) -> bool:
    """A `#`, which no client sends, is a part of the path to some proxies and the end of it here."""
    resource = request.match_info.route.resource
    words = resource.canonical.split("/") if resource else ()
    given = request.rel_url.raw_path.split("/")
    same = all("{" in word or word == one for word, one in zip(words, given, strict=False))
    return same and "#" not in request.raw_path
