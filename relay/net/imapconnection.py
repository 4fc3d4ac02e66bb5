"""A connection to a mailbox: TLS as the settings say, logged in, every fault told in words. It has a thread of its own.

TLS: `implicit` and `starttls` never go on without it; `opportunistic` takes it when offered; `none` never asks. The
certificate must be valid for the configured host, unless the account says otherwise. A server that forbids the login
(LOGINDISABLED) is told no password.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from relay.core.masking import masked
from relay.core.tenant import Imap, Tls
from relay.net import tls
from relay.net.dial import Passed
from relay.net.imapfaults import Ended, OutOfTurn, Silent, TooMuch, Unsupported
from relay.net.imapfolders import Client, Nonsense
from relay.net.imaplogin import log_in
from relay.net.imapwire import Wire

T = TypeVar("T")
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)  # as libraries raise over nonsense
CODE = re.compile(r"\[([A-Z][A-Z0-9-]*)")


class MailboxError(Exception):
    """A mailbox that could not be reached, or did not do as asked.

    `step`: resolve, connect, tls, greeting, login, or what was asked for: folders, create, status, select, search,
    fetch, append, flag, copy, move, expunge, idle, noop. `kind`: forbidden, dns, unreachable, tls, certificate, lost
    (it fell silent or hung up), refused (it said no), unsupported (it never learnt that) or protocol (it speaks no IMAP
    that we know). `said`: the server's own words, "" where they are ours; `code`: their response code (RFC 5530), e.g.
    AUTHENTICATIONFAILED, TRYCREATE, OVERQUOTA, TOOBIG. All but refused and unsupported end the connection.
    """

    def __init__(self, step: str, kind: str, text: str, said: str = "") -> None:
        super().__init__(text)
        self.step, self.kind, self.said = step, kind, said

    @property
    def code(self) -> str:
        found = CODE.search(self.said)
        return found[1] if found else ""


class Connection:
    """One call at a time; a call that is cancelled ends the connection."""

    def __init__(self, imap: Imap, sock: socket.socket, seconds: float) -> None:
        self.host = imap.host
        self.encrypted = False
        self.capabilities: frozenset[str] = frozenset()
        self._imap, self._seconds = imap, seconds
        self._sock = sock
        self._wire: Wire | None = None
        self._lost = False  # nothing more can be said over it
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="imap")

    @property
    def alive(self) -> bool:
        """Nothing went wrong so far that ends a connection."""
        return not self._lost

    async def close(self) -> None:
        """Says goodbye, where somebody listens. May be called again."""
        try:
            if self._wire is not None and not self._lost:
                await self._run(self._wire.leave)
        finally:
            self.abort()

    def abort(self) -> None:
        """Ends the connection at once. A thread that reads from it wakes up, and closes it."""
        self._lost = True
        with suppress(OSError):  # below TLS, for its thread may be in the midst of TLS
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        with suppress(RuntimeError):  # it is ended already
            self._thread.submit(lambda: self._socket.close())
        self._thread.shutdown(wait=False)

    @property
    def _socket(self) -> socket.socket:
        return self._wire.sock if self._wire is not None else self._sock

    async def open(self, passed: Passed) -> None:
        """TLS and the login; `passed` is told of the steps. Raises MailboxError."""
        loop = asyncio.get_running_loop()
        await self._run(self._greet, lambda step: loop.call_soon_threadsafe(passed, step))

    async def ask(self, step: str, work: Callable[..., T], *args: Any, **more: Any) -> T:
        """What `work` makes of the client, in the thread. Raises MailboxError."""
        if self._lost:
            raise self._error(step, "lost", f"the connection to {self.host} was lost before")
        return await self._run(lambda: self._asked(step, work, *args, **more))

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)
        except asyncio.CancelledError:
            self.abort()
            raise

    # What the thread does.

    def _greet(self, passed: Passed) -> None:
        """TLS from the first byte, greeting, STARTTLS, login: as the settings say."""
        imap = self._imap
        if imap.tls is Tls.IMPLICIT:
            with self._faults("tls"):
                self._shake_hands()
            passed("tls")
        with self._faults("greeting"):
            wire = self._wire = Wire(self._sock, imap.host, self._seconds)
        passed("greeting")
        if imap.tls in (Tls.STARTTLS, Tls.OPPORTUNISTIC) and self._start_tls(wire):
            passed("tls")
        self.encrypted = isinstance(wire.sock, ssl.SSLSocket)
        with self._faults("login"):
            self._log_in(wire)
            self._client = Client(wire)
            self.capabilities = self._client.words()
        passed("login")

    def _shake_hands(self) -> None:
        self._sock.settimeout(self._seconds)
        wrapped = self._context().wrap_socket(
            self._sock, server_hostname=self._imap.host, do_handshake_on_connect=False
        )
        self._sock = wrapped
        wrapped.do_handshake()

    def _start_tls(self, wire: Wire) -> bool:
        host = self._imap.host
        if wire.state == "AUTH":
            raise self._error("tls", "refused", f"{host} logs us in unasked, before TLS could begin")
        if "STARTTLS" not in wire.capabilities:
            if self._imap.tls is Tls.STARTTLS:
                raise self._error("tls", "tls", f"{host} does not offer STARTTLS")
            return False
        with self._faults("tls"):
            wire.start_tls(self._context())
        return True

    def _log_in(self, wire: Wire) -> None:
        typ, said = ("OK", "") if wire.state == "AUTH" else log_in(wire, self._imap)  # PREAUTH
        if typ != "OK":
            raise self._error("login", "refused", said or "the server refuses the login without a word", said)
        wire.state = "AUTH"

    def _asked(self, step: str, work: Callable[..., T], *args: Any, **more: Any) -> T:
        with self._faults(step):
            return work(self._client, *args, **more)

    def _context(self) -> ssl.SSLContext:
        return tls.context(self._imap.verify_certificate)

    @contextmanager
    def _faults(self, step: str) -> Iterator[None]:
        """What goes wrong becomes one MailboxError, in words that a person can act on."""
        try:
            yield
        except MailboxError:
            raise
        except ssl.SSLError as fault:
            if step != "tls":
                raise self._broken(step, fault) from None
            kind = "certificate" if isinstance(fault, ssl.SSLCertVerificationError) else "tls"
            raise self._error(step, kind, tls.words(fault, self._imap.host)) from fault
        except (Wire.error, OSError, *UNREADABLE) as fault:
            raise self._broken(step, fault) from None  # a cause may hold what was sent

    def _error(self, step: str, kind: str, text: str, said: str = "") -> MailboxError:
        """Without our secrets: there are servers that repeat what they are told."""
        self._lost |= kind not in ("refused", "unsupported")
        secrets = (self._imap.password, self._imap.access_token)
        return MailboxError(step, kind, masked(text, secrets), masked(said, secrets))

    def _broken(self, step: str, fault: Exception) -> MailboxError:
        host, said = self.host, str(fault)
        match fault:
            case Silent() | TimeoutError():
                return self._error(step, "lost", f"{host} did not answer in time")
            case TooMuch():
                return self._error(step, "protocol", f"{host} answers without end: {fault}")
            case OutOfTurn():
                return self._error(step, "tls", f"{host}: {fault}")
            case Ended() if said:
                return self._error(step, "lost", f"{host} ended the session: {said}", said)
            case Ended() | OSError():
                return self._error(step, "lost", f"{host} closed the connection")
            case Unsupported():
                return self._error(step, "unsupported", f"{host} {fault}")
            case _ if isinstance(fault, (Nonsense, Wire.abort, *UNREADABLE)):
                return self._error(step, "protocol", f"{host} does not speak IMAP that we understand")
            case _:
                return self._error(step, "refused", said or f"{host} refuses without a word", said)
