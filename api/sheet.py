"""Answers as CSV: one that has a page of a list, or the whole list page by page, as it is read."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from api.call import Call
from api.problems import REQUEST_ID
from api.shapes import Answer, Query
from relay.core import sheet

MOST = 100_000  # lines of one file, where its kind does not say another number
PAGE = 250  # lines read and written at once: meanwhile this process answers nobody else
PART = {"page", "limit", "page_size", "cursor"}

_log = logging.getLogger("postferry.api")
Ask = Callable[..., Awaitable[Any]]


async def answer(call: Call, ask: Ask, given: dict[str, Any], kind: type[Answer]) -> web.StreamResponse:
    """What `ask` answers, as CSV. Where the query names no part of a list, all of it, up to a number of lines.

    A fault after the first lines cuts the connection: a file that ends early must not look whole.
    """
    query = given.get("query")
    whole = isinstance(query, Query) and _is_list(query) and not query.model_fields_set & PART
    if isinstance(query, Query) and whole:
        given = {**given, "query": _sized(query, PAGE)}
    first = await ask(call, **given)
    response = web.StreamResponse(headers=_headers(call, first, kind, whole))
    await response.prepare(call.request)
    if call.request.method == "HEAD":
        return response
    columns = list(first.line().model_fields)
    try:
        await response.write(sheet.line(columns).encode())
        async for found in _answers(call, ask, given, first, whole):
            lines = (sheet.line(getattr(one, name) for name in columns) for one in found.lines())
            await response.write("".join(lines).encode(errors="replace"))
        await response.write_eof()
    except ConnectionError:
        _log.info("refused: the client left before its file was whole", extra={"requestId": call.id})
    except Exception as error:
        _log.error("failed in the middle of a file: %s", error, exc_info=error, extra={"requestId": call.id})
        if call.request.transport:
            call.request.transport.abort()
    return response


def _is_list(query: Query) -> bool:
    return "cursor" in type(query).model_fields


def _sized(query: Any, size: int, **more: str) -> Any:
    return query.model_copy(update={query.sized: size, **more})


async def _answers(call: Call, ask: Ask, given: dict[str, Any], found: Any, whole: bool) -> AsyncIterator[Any]:
    """The first answer, and while the list goes on those that follow."""
    written = 0
    while True:
        yield found
        written += len(found.lines())
        left = (found.most_lines or MOST) - written
        if not whole or found.cursor is None or left <= 0 or call.request.transport is None:
            return
        query = _sized(given["query"], min(PAGE, left), cursor=found.cursor)
        found = await ask(call, **{**given, "query": query})


def _headers(call: Call, first: Any, kind: type[Answer], whole: bool) -> dict[str, str]:
    headers = {
        "Content-Type": f"{sheet.TYPE}; charset=utf-8; header=present",
        "Content-Disposition": f'attachment; filename="{kind.sheet}.csv"',
        "Cache-Control": "no-store",
        "Vary": "Accept",
        "X-Content-Type-Options": "nosniff",
        "X-Request-Id": call.request[REQUEST_ID],
        "Server": "postferry",
    }
    cursor = None if whole else getattr(first, "cursor", None)
    if cursor:
        headers["Link"] = f'<{call.request.rel_url.update_query(cursor=cursor)}>; rel="next"'
    return headers
