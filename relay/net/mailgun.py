"""Mail over an open connection to Mailgun's API: one request for each recipient (core/mailgun.py says what and why)."""

from __future__ import annotations

import base64
import secrets
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from relay.core import mailgun as api
from relay.core.mailgun import Said
from relay.core.masking import masked
from relay.core.networks import Network
from relay.core.reply import Reply, Stage
from relay.core.tenant import Mailgun
from relay.net import dial, exchange, guard
from relay.net.dial import Passed, unwatched
from relay.net.envelope import Envelope
from relay.net.exchange import Line, Unanswered, Unsent
from relay.net.smtp import UNREACHED, UpstreamError, broken
from relay.net.transaction import Result, Timeouts, Withheld, always

SMALL = 256 * 1024  # bytes of a mail that go in one write


class Connection:
    """A connection with the surface of SMTP's. That Mailgun knows the key shows only when it answers a mail."""

    told = balked = False  # of what comes next it is told nothing

    def __init__(self, line: Line, mailgun: Mailgun) -> None:
        self.used = 0  # transactions so far
        self.greeted = False  # Mailgun has let us in: it took a mail, or judged one
        self._line, self._mailgun = line, mailgun
        login = base64.b64encode(f"api:{mailgun.api_key}".encode()).decode()
        self._login = {"Authorization": f"Basic {login}"}

    @property
    def usable(self) -> bool:
        return self._line.usable

    def takes(self, envelope: Envelope) -> bool:
        return self.usable

    async def transact(
        self,
        envelope: Envelope,
        content: Sequence[bytes],
        *,
        wanted: Callable[[], bool] = always,
        following: Envelope | None = None,
    ) -> Sequence[Result]:
        """One mail to these recipients, a request for each: one result each, in their order.

        Never raises for what Mailgun does. The envelope's sender is Mailgun's own; it takes any bytes and addresses.
        `wanted` is asked once, before the first; if not, Withheld is raised. It is told nothing of what is `following`.
        """
        if not wanted():
            raise Withheld
        reused = self.used > 0
        self.used += 1
        return [await self._send(recipient, content, reused=reused) for recipient in envelope.recipients]

    async def domain(self) -> Said:
        """What Mailgun says of the domain, which keys that may only send are not told. Raises Unsent, Unanswered."""
        return await self._line.ask("GET", api.domain_path(self._mailgun.domain), self._login)

    async def knock(self) -> Said:
        """The answer to a mail without recipient or content: nobody gets anything, and the key is judged.

        Raises Unsent, Unanswered.
        """
        boundary = secrets.token_hex(16)
        return await self._post(boundary, [f"--{boundary}--\r\n".encode()])

    async def close(self) -> None:
        await self._line.close()

    async def _send(self, recipient: str, content: Sequence[bytes], *, reused: bool) -> Result:
        boundary = secrets.token_hex(16)
        try:
            head, tail = api.form(api.recipient(recipient), boundary, test=self._mailgun.test)
        except ValueError as fault:
            return Result(recipient, Stage.RCPT, Reply(553, "5.1.3", str(fault)))
        body = [head, *content, tail]
        try:
            said = await self._post(boundary, [b"".join(body)] if sum(map(len, content)) <= SMALL else body)
        except Unsent as fault:
            gone = Reply(451, "4.4.2", str(fault))
            return Result(recipient, Stage.DATA, gone, stale=reused and not fault.late)
        except Unanswered as fault:
            return Result(recipient, Stage.DOT, Reply(451, "4.4.2", str(fault)), lost=True)
        stage, reply = api.read(said, datetime.now(UTC))
        reply = replace(reply, text=masked(reply.text, [self._mailgun.api_key]))
        lost = api.unclear(said)
        judged = stage in (Stage.RCPT, Stage.DOT) and said.status < 500 and not lost
        self.greeted = judged or (self.greeted and stage is not Stage.AUTH)
        return Result(recipient, Stage.DOT if lost else stage, reply, lost=lost)

    async def _post(self, boundary: str, body: Sequence[bytes]) -> Said:
        headers = {**self._login, "Content-Type": f"multipart/form-data; boundary={boundary}"}
        return await self._line.ask("POST", api.path(self._mailgun.domain), headers, body)


async def connect(
    mailgun: Mailgun,
    *,
    allowed: Sequence[Network],
    timeouts: Timeouts,
    resolver: guard.Resolver | None = None,
    context: ssl.SSLContext | None = None,
    passed: Passed = unwatched,
) -> Connection:
    """A connection, encrypted as the account's `base_url` says. Raises UpstreamError.

    `passed` is told of the steps resolve, connect and tls; `context` is for tests.
    """
    try:
        line = await exchange.connect(
            mailgun.base_url,
            allowed=allowed,
            seconds=timeouts.connect,
            stall=timeouts.command,
            patience=timeouts.data,
            resolver=resolver,
            context=context,
            passed=passed,
        )
    except dial.DialError as fault:
        raise UpstreamError(Stage.CONNECT, Reply(*UNREACHED[fault.kind], str(fault)), fault.kind) from fault
    except OSError as fault:
        raise broken(Stage.TLS, fault, mailgun.host) from fault
    return Connection(line, mailgun)
