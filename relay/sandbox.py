"""The sandbox: an upstream on loopback that keeps each mail as a file, to try things out without sending anything.

A file holds exactly the bytes that an upstream gets, and appears whole (written aside, then renamed). Its name is the
time and the first recipient, `20261120T103110.123456Z-000001-ann@example.org.eml`, so a listing is in order; `+2` after
the address says that the transaction had two recipients more. Nothing is forced to disk: a power cut may take the last.

Some recipients do not get their mail, so that failures can be tried too (an extension as in `fail+1@` changes nothing):

    fail@anywhere       550 5.1.1, for good
    bounce@anywhere     the same, after the content was taken in
    defer@anywhere      451 4.3.0, every time
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import cast

from relay import processes, ready

HOST = "127.0.0.1"
MOST_CONTENT = 64 * 1024 * 1024  # bytes of one mail; with it a connection's memory is bounded
MOST_LINE = 4096
UNAVAILABLE, CANNOT_CREATE = 69, 73  # sysexits.h

HELLO = (
    b"250-sandbox\r\n250-PIPELINING\r\n250-SIZE %d\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n"
    % MOST_CONTENT
)
GREETING = b"220 sandbox ESMTP: mail ends here\r\n"
FAIL = b"550 5.1.1 fail: there is no such mailbox\r\n"
DEFER = b"451 4.3.0 defer: come back later\r\n"
TOO_LARGE = b"552 5.3.4 larger than %d bytes\r\n" % MOST_CONTENT
NO_ROOM = b"452 4.3.1 the mail could not be written: %b\r\n"
OUT_OF_ORDER = b"503 5.5.1 bad sequence of commands\r\n"
PLAIN_REPLIES = {
    b"EHLO": HELLO,
    b"HELO": b"250 sandbox\r\n",
    b"NOOP": b"250 2.0.0 ok\r\n",
    b"VRFY": b"252 2.1.5 send and see\r\n",
    b"QUIT": b"221 2.0.0 bye\r\n",
}
END = b"\r\n.\r\n"
PATH = re.compile(rb"\s*<([^>]*)>|\s*([^\s<>]+)")
SCRIPTED = re.compile(r"(fail|bounce|defer)(\+[^@]*)?@", re.IGNORECASE)
UNSAFE = re.compile(r"[^\w@.+=-]")


class Folder:
    """Where the mails go."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._numbers = count(1)

    def keep(self, recipients: list[str], content: bytes) -> str:
        """Writes one mail; gives the name of its file. Raises OSError."""
        name = self._name(recipients)
        aside = self.path / f".{name}"
        aside.write_bytes(content)
        aside.rename(self.path / name)
        return name

    def _name(self, recipients: list[str]) -> str:
        time = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        others = f"+{len(recipients) - 1}" if len(recipients) > 1 else ""
        return f"{time}-{next(self._numbers):06d}-{UNSAFE.sub('_', recipients[0])[:60]}{others}.eml"


class Session(asyncio.Protocol):
    """One connection: commands in lines, content until its dot, replies of one packet in one packet."""

    def __init__(self, folder: Folder, sessions: set[Session]) -> None:
        self._folder = folder
        self._sessions = sessions
        self._transport: asyncio.Transport | None = None
        self._rest = b""  # of a line
        self._content: bytearray | None = None  # while it is being read
        self._too_large = False
        self._forget()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(GREETING)
        self._sessions.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sessions.discard(self)
        self._content = None

    def data_received(self, data: bytes) -> None:
        replies: list[bytes] = []
        while data:
            data = self._commands(data, replies) if self._content is None else self._read(data, replies)
        if self._transport is not None and replies:
            self._transport.write(b"".join(replies))
            if replies[-1].startswith((b"221", b"421")):
                self.end()

    def end(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # Commands.

    def _commands(self, data: bytes, replies: list[bytes]) -> bytes:
        """Takes lines until there are no more, or until DATA; what is left is returned."""
        data = self._rest + data
        start = 0
        while self._content is None and (end := data.find(b"\n", start)) >= 0:
            replies.append(self._answer(data[start:end]))
            start = end + 1
        self._rest = data[start:] if self._content is None else b""
        if len(self._rest) > MOST_LINE:
            self._rest = b""
            replies.append(b"421 4.5.2 line too long\r\n")
        return b"" if self._content is None else data[start:]

    def _answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"MAIL":
            return self._mail(line)
        if verb == b"RCPT":
            return self._rcpt(line)
        if verb == b"DATA":
            return self._data()
        if verb in (b"RSET", b"EHLO", b"HELO"):
            self._forget()
        return PLAIN_REPLIES.get(verb) or (b"250 2.0.0 ok\r\n" if verb == b"RSET" else b"500 5.5.1 unknown command\r\n")

    def _forget(self) -> None:
        self._sender: str | None = None
        self._recipients: list[str] = []

    def _mail(self, line: bytes) -> bytes:
        if self._sender is not None:
            return OUT_OF_ORDER
        path = _path(line)
        if path is None:
            return b"501 5.1.7 MAIL FROM:<address>\r\n"
        self._sender = path
        return b"250 2.1.0 ok\r\n"

    def _rcpt(self, line: bytes) -> bytes:
        path = _path(line)
        if self._sender is None:
            return OUT_OF_ORDER
        if not path:
            return b"501 5.1.3 RCPT TO:<address>\r\n"
        match _script(path):
            case "fail":
                return FAIL
            case "defer":
                return DEFER
        self._recipients.append(path)
        return b"250 2.1.5 ok\r\n"

    def _data(self) -> bytes:
        if not self._recipients:
            return b"554 5.5.1 no valid recipients\r\n"
        self._content = bytearray(b"\r\n")  # so that a dot on the first line looks like any other
        self._too_large = False
        return b"354 end with a dot\r\n"

    # Content.

    def _read(self, data: bytes, replies: list[bytes]) -> bytes:
        """Takes content until its dot; what follows is returned."""
        content = self._content
        assert content is not None
        seen = max(0, len(content) - len(END) + 1)
        content += data
        end = content.find(END, seen)
        if end < 0:
            if len(content) > MOST_CONTENT:
                self._too_large = True
                del content[: -len(END)]
            return b""
        rest = bytes(content[end + len(END) :])
        del content[end + 2 :]
        self._content = None
        replies.append(self._taken(content))
        self._forget()
        return rest

    def _taken(self, content: bytearray) -> bytes:
        if self._too_large or len(content) > MOST_CONTENT:
            return TOO_LARGE
        if any(_script(recipient) for recipient in self._recipients):
            return FAIL
        try:
            name = self._folder.keep(self._recipients, bytes(content.replace(b"\r\n.", b"\r\n")[2:]))
        except OSError as fault:
            return NO_ROOM % str(fault.strerror).encode()
        return b"250 2.0.0 kept as %b\r\n" % name.encode()


def _path(line: bytes) -> str | None:
    found = PATH.match(line.partition(b":")[2])
    return None if found is None else (found[1] if found[1] is not None else found[2]).decode("utf-8", "replace")


def _script(recipient: str) -> str:
    found = SCRIPTED.match(recipient)
    return found[1].lower() if found else ""


async def serve(folder: Folder, port: int, stopping: asyncio.Event) -> None:
    """Takes mail until `stopping`. Raises OSError when the port cannot be had."""
    sessions: set[Session] = set()
    server = await asyncio.get_running_loop().create_server(lambda: Session(folder, sessions), HOST, port)
    port = server.sockets[0].getsockname()[1]
    print(f"sandbox: listening on {HOST}:{port}, mail goes to {folder.path}", flush=True)
    ready.announce()
    await stopping.wait()
    server.close()
    for session in list(sessions):
        session.end()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m relay.sandbox", description="An upstream that keeps mail as files."
    )
    parser.add_argument("--dir", type=Path, required=True, help="the folder that the mails are put in")
    parser.add_argument("--port", type=int, default=0, help="the port on 127.0.0.1; 0 takes any and says which")
    args = parser.parse_args(argv)
    try:
        folder = Folder(args.dir)
    except OSError as fault:
        print(f"sandbox: cannot make {args.dir}: {fault.strerror}", file=sys.stderr)
        return CANNOT_CREATE
    code = 0

    async def until(stopping: asyncio.Event) -> None:
        nonlocal code
        try:
            await serve(folder, args.port, stopping)
        except OSError as fault:
            print(f"sandbox: cannot listen on port {args.port}: {fault.strerror}", file=sys.stderr)
            code = UNAVAILABLE

    return processes.run(1, until) or code


if __name__ == "__main__":
    sys.exit(main())
