"""A tenant's upstream, scripted to behave and to misbehave. Runs in the test's own event loop.

    async with Upstream() as upstream:                            # everything is accepted and kept
        ... Smtp(upstream.host, upstream.port, tls=Tls.NONE) ...
        [mail] = await upstream.wait(1)                           # until 1 was taken
        mail.sender, mail.recipients, mail.content, mail.connection, mail.encrypted, mail.user

    Upstream(pipelining=False, size=1000, smtputf8=False, eightbit=False)
    Upstream(starttls=True)  Upstream(implicit=True)              # self-signed certificate for localhost and 127.0.0.1
    Upstream(auth=("PLAIN", "XOAUTH2"), users={"ann": "secret"})  # the token is the password of XOAUTH2, OAUTHBEARER

Moods answer in place of the usual reply, the one added last first. The verbs are those of SMTP, and CONNECT (the
greeting), AUTH (the end of the login), CONTENT (while the content is read) and DOT (after it):

    upstream.when("RCPT", "bob@").say("550 5.1.1 no such user")   # only commands with this text in them
    upstream.when("MAIL", times=1).say("451 4.7.1 greylisted")    # only the first time, then as usual
    upstream.when("DOT", connection=2).drop()                     # only on the second connection
    upstream.when("DATA").say("421 4.3.2 going down").close()     # reply, then close
    upstream.when("MAIL").hang()                                  # no reply at all; the connection stays open
    upstream.when("RCPT").wait(event).say("250 ok")               # reply when the test sets the asyncio.Event
    upstream.when("DOT").pause(0.1).say("250 ok")                 # reply after so many seconds
    upstream.when("MAIL").endless()                               # lines that promise more lines, for ever
    upstream.when("MAIL").huge()                                  # a line without end
    upstream.when("MAIL").drip(0.01)                              # a line of a reply every so many seconds, for ever
    upstream.when("EHLO").say("250-fake\\r\\n250 AUTH=LOGIN")       # raw text, several lines
    upstream.when("CONNECT").say("421 d\\udce9pass\\udce9")          # raw bytes, by surrogateescape

Out of turn: `upstream.speak("421 4.3.2 bye")`, `upstream.drop()` (every open connection). `upstream.commands` has each
line as (connection, text), `await upstream.heard("MAIL")` waits for one; `upstream.connections` counts those that came,
`upstream.open` those that are open, `upstream.most_open` the most that were at once; `stop()` and `start()` again.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import functools
import hmac
import ipaddress
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.fakes.moods import Steps
from tests.fakes.places import HOST, port_of
from tests.stack import PATIENCE

LONGEST_LINE = 1024 * 1024


@dataclass(frozen=True)
class Taken:
    """A mail that was answered with 250."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes  # without dot-stuffing
    connection: int  # from 1
    encrypted: bool
    user: str
    parameters: str  # of MAIL


@dataclass
class Mood(Steps):
    """What to do in place of the usual reply; built by the verbs below."""

    verb: str
    containing: str
    times: int | None
    connection: int | None

    def say(self, reply: str) -> Mood:
        return self._then("say", reply)

    def close(self) -> Mood:
        return self._then("close")

    def endless(self) -> Mood:
        return self._then("endless")

    def huge(self) -> Mood:
        return self._then("huge")

    def applies(self, verb: str, text: str, connection: int) -> bool:
        return (
            self.verb == verb
            and self.containing in text
            and self.connection in (None, connection)
            and (self.times is None or self.times > 0)
        )


class Upstream:
    """The server; see above."""

    def __init__(
        self,
        *,
        pipelining: bool = True,
        eightbit: bool = True,
        smtputf8: bool = True,
        size: int | None = 26_214_400,
        starttls: bool = False,
        implicit: bool = False,
        auth: Sequence[str] = (),
        users: Mapping[str, str] | None = None,
    ) -> None:
        self.host, self.port = HOST, port_of(self)
        self.taken: list[Taken] = []
        self.commands: list[tuple[int, str]] = []
        self.connections = 0
        self.open = self.most_open = 0
        self.starttls, self.implicit = starttls, implicit
        self.auth, self.users = tuple(auth), dict(users or {"ann": "secret"})
        self.extensions = [
            *(["PIPELINING"] if pipelining else []),
            *(["8BITMIME"] if eightbit else []),
            *(["SMTPUTF8"] if smtputf8 else []),
            *([f"SIZE {size}"] if size is not None else []),
            *([f"AUTH {' '.join(auth)}"] if auth else []),
            "ENHANCEDSTATUSCODES",
        ]
        self._moods: list[Mood] = []
        self._sessions: dict[asyncio.Task[None], _Session] = {}
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Upstream:
        await self.start()
        return self

    async def start(self) -> None:
        """Take connections; after `stop`, on the same port again."""
        self._server = await asyncio.start_server(self._arrive, self.host, self.port, limit=LONGEST_LINE)

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Refuse new connections and end the open ones."""
        if self._server is not None:
            self._server.close()
        for task in self._sessions:
            task.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to close

    def when(self, verb: str, containing: str = "", *, times: int | None = None, connection: int | None = None) -> Mood:
        """A mood, to be followed by what it does."""
        mood = Mood(verb, containing, times, connection)
        self._moods.insert(0, mood)
        return mood

    def calm(self) -> None:
        """Forget all moods."""
        self._moods.clear()

    async def wait(self, number: int, seconds: float = PATIENCE) -> list[Taken]:
        """Until so many mails were taken."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: len(self.taken) >= number)
        return self.taken

    async def heard(self, verb: str, seconds: float = PATIENCE) -> None:
        """Until a line with this verb came in."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: bool(self.said(verb)))

    def speak(self, reply: str) -> None:
        """Say something that nobody asked for, on every open connection."""
        for session in self._sessions.values():
            session.writer.write(reply.encode() + b"\r\n")

    def drop(self) -> None:
        """End every open connection without a word."""
        for session in self._sessions.values():
            session.writer.transport.abort()

    def said(self, verb: str) -> list[str]:
        """The lines with this verb, from all connections."""
        return [line for _, line in self.commands if line.upper().startswith(verb)]

    async def keep(self, mail: Taken) -> None:
        async with self._changed:
            self.taken.append(mail)
            self._changed.notify_all()

    async def hear(self, connection: int, line: str) -> None:
        async with self._changed:
            self.commands.append((connection, line))
            self._changed.notify_all()

    def mood(self, verb: str, text: str, connection: int) -> Mood | None:
        for mood in self._moods:
            if mood.applies(verb, text, connection):
                if mood.times is not None:
                    mood.times -= 1
                return mood
        return None

    def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        session = _Session(self, self.connections, reader, writer)
        task = asyncio.get_running_loop().create_task(self._serve(session))
        self._sessions[task] = session
        task.add_done_callback(self._leave)

    async def _serve(self, session: _Session) -> None:
        with suppress(OSError, EOFError, _Closed):
            if self.implicit:
                await session.writer.start_tls(server_context())
            await session.run()

    def _leave(self, task: asyncio.Task[None]) -> None:
        self.open -= 1
        session = self._sessions.pop(task)
        session.writer.transport.abort()


class _Closed(Exception):
    """The script ends this connection."""


class _Session:
    def __init__(
        self, upstream: Upstream, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.upstream, self.number, self.reader, self.writer = upstream, number, reader, writer
        self.user = ""
        self._forget()

    def _forget(self) -> None:
        self.sender: str | None = None
        self.parameters = ""
        self.recipients: list[str] = []

    @property
    def encrypted(self) -> bool:
        return self.writer.get_extra_info("ssl_object") is not None

    async def run(self) -> None:
        await self._answer("CONNECT", "", "220 fake.example ESMTP")
        while True:
            line = (await self._line()).rstrip(b"\r\n").decode()
            await self.upstream.hear(self.number, line)
            verb = line.upper().partition(" ")[0]
            handler = getattr(self, f"_{verb.lower()}", None)
            if handler is None:
                await self._answer(verb, line, "500 5.5.1 unknown command")
            else:
                await handler(line)

    async def _line(self) -> bytes:
        line = await self.reader.readline()
        if not line:
            raise EOFError
        return line

    async def _answer(self, verb: str, line: str, usual: str) -> int:
        """Reply as the moods say, or as usual; gives the code that was said."""
        mood = self.upstream.mood(verb, line, self.number)
        for step, value in mood.steps if mood else [("say", usual)]:
            match step, value:
                case "say", str():
                    usual = value
                    await self._write(value.encode("utf-8", "surrogateescape") + b"\r\n")
                case "wait", asyncio.Event():
                    await value.wait()
                case "close", _:
                    await self.writer.drain()
                    self.writer.close()
                    raise _Closed
                case "drop", _:
                    raise _Closed
                case "hang", _:
                    await asyncio.Event().wait()
                case "pause", float() | int():
                    await asyncio.sleep(value)
                case "endless", _:
                    while True:
                        await self._write(b"250-and another thing\r\n" * 100)
                case "huge", _:
                    while True:
                        await self._write(b"2" * 65536)
                case "drip", float() | int():
                    while True:
                        await self._write(b"250-slowly\r\n")
                        await asyncio.sleep(value)
        return int(usual[:3])

    async def _write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    # One method a verb.

    async def _ehlo(self, line: str) -> None:
        offers = list(self.upstream.extensions)
        if self.upstream.starttls and not self.encrypted:
            offers.insert(0, "STARTTLS")
        lines = ["fake.example", *offers]
        text = "\r\n".join(f"250{' ' if place == len(lines) else '-'}{line}" for place, line in enumerate(lines, 1))
        await self._answer("EHLO", line, text)

    async def _helo(self, line: str) -> None:
        await self._answer("HELO", line, "250 fake.example")

    async def _starttls(self, line: str) -> None:
        if await self._answer("STARTTLS", line, "220 2.0.0 go ahead") == 220:
            await self.writer.start_tls(server_context())

    async def _auth(self, line: str) -> None:
        _, method, *initial = line.split(" ")
        user = await getattr(self, f"_{method.lower().replace('-', '_')}_login")(initial)
        good = bool(user)
        said = await self._answer("AUTH", line, "235 2.7.0 welcome" if good else "535 5.7.8 wrong user or password")
        if said == 235:
            self.user = user or "?"

    async def _plain_login(self, initial: list[str]) -> str:
        _, user, password = _decoded(initial[0] if initial else await self._challenge("")).split("\0")
        return user if self._knows(user, password) else ""

    async def _login_login(self, initial: list[str]) -> str:
        user = _decoded(initial[0] if initial else await self._challenge("Username:"))
        return user if self._knows(user, _decoded(await self._challenge("Password:"))) else ""

    async def _cram_md5_login(self, initial: list[str]) -> str:
        challenge = f"<{self.number}.1@fake.example>"
        user, _, digest = _decoded(await self._challenge(challenge)).rpartition(" ")
        password = self.upstream.users.get(user, "")
        expected = hmac.new(password.encode(), challenge.encode(), "md5").hexdigest()
        return user if password and hmac.compare_digest(digest, expected) else ""

    async def _xoauth2_login(self, initial: list[str]) -> str:
        fields = dict(part.split("=", 1) for part in _decoded(initial[0]).split("\x01") if part)
        user = fields["user"]
        if self._knows(user, fields["auth"].removeprefix("Bearer ")):
            return user
        assert await self._challenge('{"status":"401","schemes":"Bearer","scope":"mail"}') == ""
        return ""

    async def _oauthbearer_login(self, initial: list[str]) -> str:
        header, *pairs = _decoded(initial[0]).split("\x01")
        fields = dict(pair.split("=", 1) for pair in pairs if pair)
        user = header.removeprefix("n,a=").removesuffix(",").replace("=2C", ",").replace("=3D", "=")
        if self._knows(user, fields["auth"].removeprefix("Bearer ")):
            return user
        assert await self._challenge('{"status":"invalid_token","scope":"mail"}') == "AQ=="
        return ""

    def _knows(self, user: str, password: str) -> bool:
        return self.upstream.users.get(user) == password

    async def _challenge(self, text: str) -> str:
        await self._write(b"334 " + base64.b64encode(text.encode()) + b"\r\n")
        return (await self._line()).decode().strip()

    async def _mail(self, line: str) -> None:
        path, _, parameters = line.partition(":")[2].strip().partition(" ")
        if await self._answer("MAIL", line, "250 2.1.0 ok" if self.sender is None else "503 5.5.1 nested MAIL") == 250:
            self._forget()
            self.sender, self.parameters = path.strip("<>"), parameters

    async def _rcpt(self, line: str) -> None:
        path = line.partition(":")[2].strip().partition(" ")[0].strip("<>")
        usual = "250 2.1.5 ok" if self.sender is not None else "503 5.5.1 MAIL first"
        if await self._answer("RCPT", line, usual) // 100 == 2:
            self.recipients.append(path)

    async def _data(self, line: str) -> None:
        usual = "354 go ahead" if self.recipients else "554 5.5.1 no valid recipients"
        if await self._answer("DATA", line, usual) == 354:
            await self._content()

    async def _content(self) -> None:
        lines: list[bytes] = []
        while (line := await self._line()) != b".\r\n":
            if not lines and any(mood.applies("CONTENT", "", self.number) for mood in self.upstream._moods):
                await self._answer("CONTENT", "", "")
            lines.append(line[1:] if line.startswith(b".") else line)
        usual = "250 2.0.0 taken" if self.recipients else "554 5.5.1 no valid recipients"
        code = await self._answer("DOT", "", usual)
        if code == 250 and self.recipients:
            await self.upstream.keep(self._taken(b"".join(lines)))
        self._forget()

    def _taken(self, content: bytes) -> Taken:
        recipients = tuple(self.recipients)
        return Taken(self.sender or "", recipients, content, self.number, self.encrypted, self.user, self.parameters)

    async def _rset(self, line: str) -> None:
        self._forget()
        await self._answer("RSET", line, "250 2.0.0 ok")

    async def _noop(self, line: str) -> None:
        await self._answer("NOOP", line, "250 2.0.0 ok")

    async def _quit(self, line: str) -> None:
        await self._answer("QUIT", line, "221 2.0.0 bye")
        raise _Closed


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


@functools.cache
def certificate() -> tuple[bytes, bytes]:
    """A self-signed certificate for localhost and 127.0.0.1, and its key, as PEM; made once a run."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), secret


@functools.cache
def server_context() -> ssl.SSLContext:
    """TLS for the fake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        chain = Path(folder) / "both.pem"
        chain.write_bytes(b"".join(certificate()))
        context.load_cert_chain(chain)
    return context
