"""Reads a request's body: within its limit and time, as the one JSON value or the table that it claims to be."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from typing import Any, NoReturn

from aiohttp import web

from api.problems import Problem, too_many
from relay.arrivals import MESSAGES, Arriving

BODY = web.RequestKey("body", bytes)
MOST_VALUES = 250_000  # of one body: a megabyte of [],[],[] is half a gigabyte once it is read
SECONDS = 60  # for one body; a client that drips it longer is not waited for


async def body(request: web.Request, limit: int, arriving: Arriving, kind: str = "application/json") -> bytes:
    """The bytes of the body. 413 over `limit` (after decompression), 408 when it takes too long, 415 for others.

    429 where `arriving` has no room for it.
    """
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    if request.content_type != kind:
        what = "JSON" if kind.endswith("json") else kind
        raise Problem(
            415,
            f"The body must be {what}, sent with Content-Type: {kind}",
            code="UnsupportedMediaType",
            headers={"Accept": kind},
        )
    try:
        async with asyncio.timeout(SECONDS):
            request[BODY] = await _read(request, limit, arriving)
            return request[BODY]
    except TimeoutError:
        raise Problem(408, f"The body did not arrive within {SECONDS} seconds", code="RequestTimeout") from None
    except web.HTTPException:
        raise
    except (web.RequestPayloadError, ConnectionError, zlib.error):
        raise Problem(
            400, "The body could not be read: it is cut short or badly encoded", code="UnreadableBody"
        ) from None


async def _read(request: web.Request, limit: int, arriving: Arriving) -> bytes:
    """Chunk by chunk, unpacked no further than the limit: a compressed body tells nothing of its size."""
    chunks, size, packed = [], 0, _unpacker(request)
    while not request.content.at_eof():
        chunk = await request.content.readany()
        if packed:
            chunk = packed.decompress(chunk, limit + 1 - size)
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        if not arriving.holds(size):
            words = "Too much arrives at once, and there is no room for this body; try again in a second"
            raise too_many(words, most=MESSAGES)
        chunks.append(chunk)
    if packed and (packed.unused_data or not packed.eof):
        raise zlib.error
    return b"".join(chunks)


def _unpacker(request: web.Request) -> Any:
    """Of a body in gzip or deflate; None of one that is as it is."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("gzip", "deflate"):
        return zlib.decompressobj(zlib.MAX_WBITS | 32)
    if encoding != "identity":
        words = "The body may be compressed with gzip or deflate"
        raise Problem(415, words, code="UnsupportedMediaType", headers={"Accept-Encoding": "gzip"})
    return None


def _too_large(limit: int) -> Problem:
    return Problem(413, f"The body is larger than the {limit} bytes that are taken here", code="BodyTooLarge")


def parse(body: bytes) -> Any:
    """The JSON value. 400 tells the line and column of what is not JSON, a key that comes twice, or NaN."""
    if _values(body) > MOST_VALUES:
        raise _bad(f"has more than {MOST_VALUES} values")
    try:
        value = _DECODER.decode(body.decode())
        if _SURROGATE.search(body):
            _ENCODER.encode(value).encode()
        return value
    except UnicodeEncodeError:
        raise _bad("has half of a surrogate pair, which is no character") from None
    except UnicodeDecodeError as error:
        raise _bad(f"is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise _bad(f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _bad("is nested too deeply") from None
    except ValueError as error:  # ours below, and numbers of thousands of digits
        raise _bad(str(error) if str(error).startswith("has") else "has a number that is too long") from None


def _values(body: bytes) -> int:
    """About how many values it has; not fewer. Strings are looked into only where the marks of others are many."""
    marks = _marks(body)
    return marks if marks <= MOST_VALUES else _marks(_STRING.sub(b"", body, count=MOST_VALUES))


def _marks(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _bad(message: str) -> Problem:
    return Problem(400, f"The body {message}", code="InvalidJson")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two equal keys they believe, so neither is believed."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"has the key {json.dumps(twice[:100])} twice in one object")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"has {name}, which is not JSON")


_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
