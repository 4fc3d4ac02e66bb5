"""The generator: a given number of messages over a given number of connections, as plain client libraries send them.

A process of its own: `python -m tests.bench.load JSON`, the JSON being a Plan. EHLO, MAIL, RCPT, DATA and the content
each wait for their reply. Prints how many are done while it runs, and at the end one line of JSON, a Result.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from typing import Any

import uvloop

from tests.bench import mail


@dataclass
class Plan:
    """What to send, where, and how."""

    run: str
    port: int
    count: int
    name: str = ""  # of the figure
    protocol: str = "smtp"  # or "pipelined", which says all it may without waiting (RFC 2920), or "http"
    connections: int = 20
    reuse: bool = True  # False: a new connection for every message
    size: int = 4096
    recipients: int = 1
    readers: int = 1  # people that messages with one recipient go to by turns
    domain: str = "readers.example"  # theirs
    sender: str = mail.SENDER
    gap: float = 0.0  # seconds between one connection and the next, on average: for latency
    pace: float = 0.0  # messages a second of all connections together; 0: as fast as they are taken
    at: float = 0.0  # of time.monotonic(): when to begin
    path: str = ""  # http: where to post
    token: str = ""
    seconds: float = 60.0  # gives up after so long


@dataclass
class Result:
    """What became of it. Times are those of time.monotonic(), which all processes of a machine share."""

    accepted: int = 0
    refused: int = 0
    unknown: int = 0  # the connection ended between the content and its reply
    started: float = 0.0
    ended: float = 0.0
    cpu: float = 0.0
    replies: list[str] = field(default_factory=list)  # the first few that refused
    waits: list[float] = field(default_factory=list)  # from the content's last byte to its reply
    written: dict[str, float] = field(
        default_factory=dict
    )  # when each message's last byte was written (with a gap or a pace only)


Talk = Generator[bytes | float, bytes, None]
"""What a client says: yields bytes to write, gets the reply to them. Yields b"" to wait for the greeting, and seconds
to wait before it goes on."""


class Client(asyncio.Protocol):
    """One of the connections. It is `over` when it has said all it had to say, or was cut off."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.buffer = self.said = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.speak(next(self.talk))

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        if not self.whole():
            return
        reply, self.buffer = self.buffer, b""
        self.go_on(reply)

    def go_on(self, reply: bytes) -> None:
        try:
            self.speak(self.talk.send(reply))
        except StopIteration:
            self.transport.close()

    def speak(self, words: bytes | float) -> None:
        if isinstance(words, float):
            asyncio.get_running_loop().call_later(words, self.go_on, b"")
            return
        self.said = words
        if words:
            self.transport.write(words)

    def connection_lost(self, fault: Exception | None) -> None:
        self.talk.close()
        if not self.over.done():
            self.over.set_result(None)

    def whole(self) -> bool:
        """Is the reply in the buffer complete?"""
        raise NotImplementedError


class SmtpClient(Client):
    def whole(self) -> bool:
        last = self.buffer.rfind(b"\n", 0, -1) + 1
        return self.buffer.endswith(b"\n") and self.buffer[last + 3 : last + 4] == b" "


class PipelinedClient(SmtpClient):
    def whole(self) -> bool:
        """A reply to content, and one to each command alone or behind it."""
        _, content, commands = self.said.rpartition(b"\r\n.\r\n")
        awaited = bool(content) + commands.count(b"\n")
        return super().whole() and sum(line[3:4] == b" " for line in self.buffer.splitlines()) >= awaited


class HttpClient(Client):
    def whole(self) -> bool:
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return False
        start = self.buffer.lower().find(b"content-length:", 0, head)
        size = int(self.buffer[start + 15 : self.buffer.find(b"\r\n", start)]) if start >= 0 else 0
        return len(self.buffer) >= head + 4 + size


class Generating:
    """One run: hands out message numbers to its connections and notes what becomes of them."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.result = plan, Result()
        self.next = 0
        self.random = random.Random(7)
        if plan.protocol != "http":
            self.content = mail.content(plan.run, plan.size)
            self.client: type[Client] = SmtpClient
            if plan.protocol == "pipelined":
                self.client = PipelinedClient
            together = plan.recipients > 1
            names = mail.recipients(plan.recipients if together else plan.readers, plan.domain)
            self.envelopes = [self.envelope(to) for to in ([names] if together else [[name] for name in names])]
        else:
            self.content = mail.submission(plan.run, plan.size)
            self.client = HttpClient

    def envelope(self, names: list[str]) -> list[bytes]:
        """What is said before the content, as it is said: command by command, or all at once."""
        commands = [f"MAIL FROM:<{self.plan.sender}>\r\n", *(f"RCPT TO:<{name}>\r\n" for name in names), "DATA\r\n"]
        words = [command.encode() for command in commands]
        return [b"".join(words)] if self.plan.protocol == "pipelined" else words

    async def go(self) -> Result:
        await asyncio.sleep(max(self.plan.at - time.monotonic(), 0))
        self.result.started = time.monotonic()
        self.deadline = self.result.started + self.plan.seconds
        progress = asyncio.create_task(self.progress())
        await asyncio.gather(*(self.connect() for _ in range(self.plan.connections)))
        self.result.ended = time.monotonic()
        self.result.refused += self.next - self.done  # handed out, and cut off before the content
        self.result.cpu = time.process_time()
        progress.cancel()
        return self.result

    @property
    def done(self) -> int:
        return self.result.accepted + self.result.refused + self.result.unknown

    @property
    def wanted(self) -> bool:
        return self.next < self.plan.count and time.monotonic() < self.deadline

    async def progress(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            print(self.done, flush=True)

    async def connect(self) -> None:
        """One lane: a connection, or one after another, until all messages are handed out."""
        loop = asyncio.get_running_loop()
        while self.wanted:
            client = self.client(self.http() if self.plan.protocol == "http" else self.smtp())
            try:
                await loop.create_connection(lambda client=client: client, "127.0.0.1", self.plan.port)  # type: ignore[misc]
            except OSError as fault:
                self.complain(str(fault))
                await asyncio.sleep(0.05)
                continue
            done, _ = await asyncio.wait([client.over], timeout=max(self.deadline - time.monotonic(), 1))
            if not done:
                self.complain(f"no reply within {self.plan.seconds:.0f} s to {client.said[:40]!r}")
                client.transport.abort()
                await client.over
            if self.plan.gap:
                await asyncio.sleep(self.random.uniform(0.6, 1.4) * self.plan.gap)

    def smtp(self) -> Talk:
        """One SMTP session."""
        yield b""
        reply = yield b"EHLO app.sender.example\r\n"
        if self.plan.protocol == "pipelined":
            yield from self.pipelined()
        while self.wanted and reply < b"4":
            number, self.next = self.next, self.next + 1
            if (wait := self.wait(number)) > 0:
                yield wait
            for command in self.envelopes[number % len(self.envelopes)]:
                reply = yield command
                if reply >= b"4":
                    break
            else:
                reply = yield from self.hand_over(self.content(number), number)
            self.note(reply, accepted=reply < b"4")
            if not self.plan.reuse:
                break
            if reply >= b"4":
                reply = yield b"RSET\r\n"
        yield b"QUIT\r\n"

    def pipelined(self) -> Talk:
        """Each envelope but the first behind the dot before it."""
        [envelope] = self.envelopes[0]
        more = self.wanted
        reply = (yield envelope) if more else b""
        while more and reply < b"4":
            number, self.next = self.next, self.next + 1
            more = self.wanted
            reply = yield from self.hand_over(self.content(number) + (envelope if more else b""), number)
            self.note(reply, accepted=reply < b"4")

    def http(self) -> Talk:
        """One keep-alive HTTP connection."""
        lines = [f"POST {self.plan.path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {self.plan.token}"]
        head = "\r\n".join([*lines, "Content-Type: application/json", "Content-Length: "]).encode()
        while self.wanted:
            number, self.next = self.next, self.next + 1
            if (wait := self.wait(number)) > 0:
                yield wait
            body = self.content(number)
            reply = yield from self.hand_over(head + str(len(body)).encode() + b"\r\n\r\n" + body, number)
            self.note(reply, accepted=reply.startswith(b"HTTP/1.1 2"))

    def wait(self, number: int) -> float:
        """Seconds until this message's turn."""
        return self.result.started + number / self.plan.pace - time.monotonic() if self.plan.pace else 0.0

    def hand_over(self, words: bytes, number: int) -> Generator[bytes | float, bytes, bytes]:
        """Say the words that hand a message over; a connection that ends before the reply leaves it unknown."""
        began = time.monotonic()
        try:
            reply = yield words
        except GeneratorExit:
            self.result.unknown += 1
            raise
        self.result.waits.append(time.monotonic() - began)
        if self.plan.gap or self.plan.pace:
            self.result.written[mail.mark(self.plan.run, number)] = began
        return reply

    def note(self, reply: bytes, accepted: bool) -> None:
        self.result.accepted += accepted
        self.result.refused += not accepted
        if not accepted:
            self.complain(reply.decode(errors="replace").strip())

    def complain(self, text: str) -> None:
        if len(self.result.replies) < 3:
            self.result.replies.append(text[:500])


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    result = uvloop.run(Generating(plan).go())
    waits = sorted(result.waits)
    result.waits = [waits[len(waits) * part // 100] for part in (50, 99)] if waits else []
    print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
