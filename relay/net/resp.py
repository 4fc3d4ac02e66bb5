"""Ask a Redis or Valkey a question: enough of its protocol (RESP 2) for a health check, without a client library."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from io import BufferedRWPair
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit


class Away(Exception):
    """It cannot be reached, or refuses us; the text says why."""


def ask(url: str, command: str, *words: str, seconds: float = 5) -> str:
    """The answer to one command. `url` as everybody writes it: redis://, rediss:// (TLS) or unix://."""
    parts = urlsplit(url)
    try:
        with _connected(parts, seconds) as stream:
            if parts.password:
                user = [unquote(parts.username)] if parts.username else []
                _exchange(stream, "AUTH", *user, unquote(parts.password))
            return _exchange(stream, command, *words)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Away(f"{_place(parts)}: {reason}") from error


@contextlib.contextmanager
def _connected(parts: SplitResult, seconds: float) -> Iterator[BufferedRWPair]:
    with contextlib.ExitStack() as stack:
        line = stack.enter_context(_dial(parts, seconds))
        if parts.scheme == "rediss":
            # Verified unless the URL says otherwise, as the client library reads it.
            context = ssl.create_default_context()
            if parse_qs(parts.query).get("ssl_cert_reqs", [""])[0].lower() == "none":
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            line = stack.enter_context(context.wrap_socket(line, server_hostname=parts.hostname))
        yield stack.enter_context(line.makefile("rwb"))


def _place(parts: SplitResult) -> str:
    """Whom the URL names, without the password."""
    return (
        unquote(parts.path) if parts.scheme == "unix" else f"{parts.hostname or '127.0.0.1'} port {parts.port or 6379}"
    )


def _dial(parts: SplitResult, seconds: float) -> socket.socket:
    if parts.scheme != "unix":
        return socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379), timeout=seconds)
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(seconds)
    try:
        line.connect(unquote(parts.path))
    except OSError:
        line.close()
        raise
    return line


def _exchange(stream: BufferedRWPair, *words: str) -> str:
    parts = [word.encode() for word in words]
    stream.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts))
    stream.flush()
    return _answer(stream)


def _answer(stream: BufferedRWPair) -> str:
    """One answer as text; a list is joined by spaces."""
    line = stream.readline(65536)
    if not line.endswith(b"\r\n"):
        raise Away("it closed the connection")
    kind, rest = line[:1], line[1:-2].decode(errors="replace")
    match kind:
        case b"+" | b":":
            return rest
        case b"$":
            return _bulk(stream, int(rest))
        case b"*":
            return " ".join(_answer(stream) for _ in range(int(rest)))
        case b"-":
            raise Away(rest)
        case _:
            raise Away("what answers there is no Redis")


def _bulk(stream: BufferedRWPair, size: int) -> str:
    """A text of `size` bytes; -1 is none."""
    if size < 0:
        return ""
    text = stream.read(size + 2)
    if len(text) < size + 2:
        raise Away("it closed the connection")
    return text[:-2].decode(errors="replace")
