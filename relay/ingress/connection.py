"""One client's bytes: lines in, replies out, TLS and PROXY around them, and how patient we are. It knows no verb."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import ssl
from typing import TYPE_CHECKING, NoReturn, cast

from aiosmtpd.smtp import SMTP

from relay.core.errors import Refused
from relay.core.networks import Address
from relay.ingress import peer
from relay.ingress.envelope import Bad
from relay.ingress.inbox import Inbox

if TYPE_CHECKING:
    from relay.ingress.door import Door

LONGEST_LINE = 12_288  # bytes: what RFC 4954, section 4 wants for AUTH is plenty for the rest
ENDLESS_LINE = 65_536  # bytes of one line that we drop before we hang up
INBOX = 131_072  # bytes received and not read, twice of which pauses the client
MOST_BAD = 20  # bad commands between two accepted messages
AT_ONCE = 50  # commands of one client that are carried out before others have their turn
STRANGER_SECONDS = 60.0  # for a client we do not know to log in
PROXY_SECONDS = 10.0  # a load balancer speaks first, and at once
LONGEST_REPLY = 510  # bytes of one line, without its CRLF (RFC 5321 4.5.3.1.5)
LINGER_SECONDS = 1.0  # for a last reply to be read
CLOSING = "421 4.3.2 Closing for now, try again"

_log = logging.getLogger("postferry.smtp")


class HungUp(Exception):
    """We said our last words; what the client still sends is not read."""


class Connection(SMTP):
    """Reads lines and hands them to `obey`; the replies to what came together leave together."""

    def __init__(self, door: Door, *, implicit_tls: bool) -> None:
        """Not the base's: that one looks through all our attributes, a quarter of what a short session costs."""
        self.inbox = Inbox(INBOX, door.loop)
        asyncio.StreamReaderProtocol.__init__(self, self.inbox, self._cb_client_connected, door.loop)
        self.loop = door.loop
        self.hostname = door.settings.hostname
        self.transport = self._original_transport = None
        self.door = door
        self.client = "unknown"  # the address, for the log
        self.trusted = False  # may send without AUTH
        self.known = False  # trusted, or logged in
        self.origin: Address | None = None  # the client, for its share of our connections
        self.secure = False  # inside TLS
        self.bad = 0
        self.holds_message = False  # one is being stored: whoever closes waits for its answer
        self._turns = 0
        self._implicit_tls = implicit_tls
        self._outbox = bytearray()
        self._deadline = math.inf  # of the client's next line or content; never while it waits for us
        self._came = door.loop.time()
        self._hears = True
        self._waits_for_command = False
        self._timer: asyncio.TimerHandle | None = None

    # ---- what aiosmtpd and the event loop call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        line = cast(asyncio.Transport, transport)
        if self.door.admit(self):
            super().connection_made(line)
            return
        if not self._implicit_tls:
            line.write(b"421 4.3.2 Too many connections, try again later\r\n")
        line.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Unlike the base's, it cancels nothing: a commit under way is finished, and reading ends by itself."""
        asyncio.StreamReaderProtocol.connection_lost(self, error)
        self._release()

    def data_received(self, data: bytes) -> None:
        if self._hears:
            self.inbox.feed_data(data)

    def eof_received(self) -> bool:
        """A client may say all it has to say, close its side, and still read our replies."""
        return bool(asyncio.StreamReaderProtocol.eof_received(self)) and self._hears

    def _reset_timeout(self, duration: float | None = None) -> None:
        """One timer a connection looks at the deadline now and then: cheaper than a new one for each line."""
        self._timer = self.door.loop.call_later(duration or self.door.settings.smtp_timeout, self._watch)

    async def push(self, status: str | bytes) -> None:
        self.say(status.decode() if isinstance(status, bytes) else status)

    async def _handle_client(self) -> None:
        try:
            await self._welcome()
            while True:
                await self._turn()
        except (EOFError, OSError, HungUp):  # the client has gone, or we said our last words: no fault of ours
            pass
        except Exception:
            request = secrets.token_hex(8)
            _log.exception("a session broke off", extra={"requestId": request, "client": self.client})
            self.say(f"421 4.3.0 Internal error, try again later (request {request})")
        finally:
            self._part()

    # ---- for the verbs

    async def obey(self, command: str) -> None:
        """Carries out one command line. Raises Bad or Refused for the replies they mean."""
        raise NotImplementedError

    def say(self, reply: str) -> None:
        """A reply line, sent when there is nothing left to answer. It stays one line whatever is in it."""
        line = reply if reply.isprintable() and reply.isascii() else _one_line(reply)
        self._outbox += line.encode()[:LONGEST_REPLY] + b"\r\n"

    def hang_up(self, reply: str) -> NoReturn:
        self.say(reply)
        self._part()
        raise HungUp

    async def line(self) -> str:
        """The client's next line, without its CRLF. Raises Bad when it is none."""
        line = self.inbox.line()
        dropped = 0
        if line is None:
            until = self._until()
            while (line := self.inbox.line()) is None:
                if self.inbox.size > LONGEST_LINE:
                    dropped += len(self.inbox.take())
                if dropped > ENDLESS_LINE:
                    self.hang_up("421 4.7.0 Your line never ends")
                await self.listen(until)
        if dropped or len(line) > LONGEST_LINE:
            raise Bad("Line too long", smtp="500 5.5.2")
        if not line.endswith(b"\r\n") or line.find(b"\r") != len(line) - 2 or b"\0" in line:
            raise Bad("A command ends with CRLF, and has no CR, LF or NUL in it", smtp="500 5.5.2")
        try:
            return line[:-2].decode()
        except UnicodeDecodeError:
            raise Bad("Commands are ASCII or UTF-8", smtp="500 5.5.2") from None

    async def listen(self, until: float) -> None:
        """Sends what there is to say and waits for more of the client, until that moment of the loop's clock."""
        self._expect(until)
        self._flush()
        before = self.inbox.size
        await self._drain_helper()  # type: ignore[attr-defined]
        if self.inbox.size == before:  # else it came while our replies were leaving
            await self.inbox.more()
        self._deadline = math.inf

    async def begin_tls(self, early: bytes = b"") -> None:
        """The server's side of the handshake. `early` is the client's part of it that we have read already."""
        plain = cast(asyncio.Transport, self.transport)
        self._flush()
        if early:
            self.door.loop.call_soon(_feed, plain, early)  # runs before the handshake begins: that is also called soon
        patience = min(self.door.settings.smtp_timeout, 60.0)
        context = cast(ssl.SSLContext, self.door.tls)
        tls = await self.door.loop.start_tls(plain, self, context, server_side=True, ssl_handshake_timeout=patience)
        if tls is None:
            raise EOFError
        self.transport = tls
        self.inbox.follow(tls)
        self._over_ssl = True
        self.secure = True

    def tell(self, what: str) -> None:
        """A line in the log, with the client's address."""
        _log.warning(what, extra={"ingress": "smtp", "client": self.client})

    def retire(self) -> None:
        """The door closes: an idle client is told so, one in the middle of something when it is through."""
        if self._waits_for_command:
            self.give_up()

    def give_up(self) -> None:
        """The door cannot wait any longer."""
        self._last_words(CLOSING)

    # ---- one connection from end to end

    async def _welcome(self) -> None:
        name = cast(asyncio.Transport, self.transport).get_extra_info("peername")
        if name is None:  # it has gone already
            raise EOFError
        neighbour = peer.address(name[0])
        self.client = str(neighbour)
        client = await self._proxied() if self.door.proxies(neighbour) else neighbour
        self.client = str(client or f"unknown, through {neighbour}")
        self.trusted = self.known = client is not None and self.door.trusts(client)
        if client is not None and not self.trusted and not self.door.shares(self, client):
            if self._implicit_tls:  # words in the clear would be no TLS
                raise EOFError
            self.hang_up("421 4.7.0 Too many connections from your address")
        if self._implicit_tls:
            await self.begin_tls(self.inbox.take())
        self.say(f"220 {self.hostname} ESMTP Postferry")

    async def _proxied(self) -> Address | None:
        """The client that a load balancer speaks for; None when it speaks for itself, and so for nobody we trust."""
        self._expect(self.door.loop.time() + min(PROXY_SECONDS, self.door.settings.smtp_timeout))
        try:
            return await peer.spoken_for(self.inbox)
        except peer.NoHeader as fault:
            self.tell(str(fault))
            raise EOFError from None
        finally:
            self._deadline = math.inf

    async def _turn(self) -> None:
        """One command and its reply."""
        try:
            if self.door.closing:
                self.hang_up(CLOSING)
            self._waits_for_command = True
            command = await self.line()
            self._waits_for_command = False
            await self.obey(command)
        except Bad as bad:
            self._misbehaved()
            self.say(bad.reply())
        except Refused as refused:
            if not self.known:
                self._misbehaved()
            self.say(refused.reply())
        finally:
            self._waits_for_command = False
        self._turns += 1
        if self._turns % AT_ONCE == 0:
            await asyncio.sleep(0)

    def _misbehaved(self) -> None:
        self.bad += 1
        if self.bad >= MOST_BAD:
            self.hang_up("421 4.7.0 Too many bad commands")

    def _until(self) -> float:
        """Until when the next line may take. Strangers have a minute in all to say who they are."""
        until = self.door.loop.time() + self.door.settings.smtp_timeout
        return until if self.known else min(until, self._came + STRANGER_SECONDS)

    def _expect(self, until: float) -> None:
        """It is the client's turn, until then."""
        self._deadline = until
        if self._timer is not None and self._timer.when() > until:
            self._timer.cancel()
            self._timer = self.door.loop.call_at(until, self._watch)

    def _watch(self) -> None:
        left = self._deadline - self.door.loop.time()
        if left <= 0:
            self._last_words("421 4.4.2 Timeout: you were silent, or too slow")
        else:
            self._reset_timeout(min(left, self.door.settings.smtp_timeout))

    def _last_words(self, reply: str) -> None:
        if self._hears:
            self.say(reply)
            self._part()

    def _flush(self) -> None:
        transport = self.transport
        if self._outbox and transport is not None and not transport.is_closing():
            cast(asyncio.Transport, transport).write(bytes(self._outbox))
        self._outbox.clear()

    def _part(self) -> None:
        """Sends what there is to say and ends the connection.

        What the client is still sending is received for a moment, unread: to close in front of it would reset the
        connection, and take our last reply with it.
        """
        if not self._hears:
            return
        self._flush()
        self._hears = False
        if self._timer is not None:
            self._timer.cancel()
        transport = cast(asyncio.Transport, self.transport)
        if transport is None or transport.is_closing():
            self._release()
            return
        self._timer = self.door.loop.call_later(LINGER_SECONDS, transport.abort)
        if transport.can_write_eof() and not self.inbox.ended:
            transport.write_eof()
        else:
            transport.close()

    def _release(self) -> None:
        """Gives the place in the house back. May be called again."""
        self.door.leave(self)
        if self._timer is not None:
            self._timer.cancel()


def _feed(transport: asyncio.Transport, early: bytes) -> None:
    """Gives a TLS protocol the bytes that came before it was there."""
    tls = cast(asyncio.BufferedProtocol, transport.get_protocol())
    view = memoryview(early)
    while view:
        room = memoryview(tls.get_buffer(len(view)))
        taken = min(len(room), len(view))
        room[:taken] = view[:taken]
        tls.buffer_updated(taken)
        view = view[taken:]


def _one_line(text: str) -> str:
    """Printable ASCII; a reply may quote what a client sent."""
    kept = "".join(char if char.isprintable() else " " for char in text[:LONGEST_REPLY])
    return kept.encode("ascii", "backslashreplace").decode()
