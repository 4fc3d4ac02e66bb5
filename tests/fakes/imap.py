"""A tenant's mailbox, scripted to behave and to misbehave. Runs in the test's own event loop.

    async with Mailserver() as server:                            # user ann, password secret
        ... Imap(server.host, server.port, tls=Tls.NONE, user="ann", password="secret") ...

    Mailserver(starttls=True)  Mailserver(implicit=True)          # self-signed certificate for localhost and 127.0.0.1
    Mailserver(capabilities="IMAP4rev1 AUTH=PLAIN")               # as said before the login; `after=` behind it
    Mailserver(folders=[r'(\\HasNoChildren \\Sent) "/" "Sent"'])    # what LIST answers

Moods answer in place of the usual reply, the one added last first. A verb is that of a command (of AUTHENTICATE too:
`AUTH` is its end), or CONNECT (the greeting). `{tag}` in a reply is the command's; a reply is raw text:

    server.when("LOGIN").say("{tag} NO [AUTHENTICATIONFAILED] no")   server.when("LIST").say("* BYE gone").close()
    server.when("LIST").hang()        .drop()        .endless()      # lines of LIST for ever
    server.when("LIST").literal()                                    # a literal that never ends
    server.when("LIST").drip(0.01)                                   # a byte every so many seconds, for ever
    server.when("LIST", skip=2)                                      # the first two pass

`server.commands` has each line; `server.connections` counts those that came, `server.open` those that are open.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tests.fakes.moods import Steps
from tests.fakes.places import HOST, port_of
from tests.fakes.upstream import server_context

UNCOUNTED = ("CONNECT", "STARTTLS", "CAPABILITY", "LOGIN", "AUTHENTICATE", "AUTH", "LOGOUT")
FOLDERS = (r'(\HasNoChildren) "/" "INBOX"', r'(\HasNoChildren \Sent) "/" "Sent"', r'(\HasNoChildren \Trash) "/" "Bin"')


@dataclass
class Mood(Steps):
    """What to do in place of the usual reply; built by the verbs below."""

    verb: str
    times: int | None
    skip: int = 0

    def say(self, reply: str) -> Mood:
        return self._then("say", reply)

    def close(self) -> Mood:
        return self._then("close")

    def endless(self) -> Mood:
        return self._then("endless")

    def literal(self) -> Mood:
        return self._then("literal")

    def usual(self) -> Mood:
        """Goes on as it would have (tests/fakes/mailbox.py)."""
        return self._then("usual")


class Mailserver:
    """The server; see above."""

    def __init__(
        self,
        *,
        capabilities: str = "IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2",
        after: str | None = None,
        starttls: bool = False,
        implicit: bool = False,
        users: Mapping[str, str] | None = None,
        folders: Sequence[str] = FOLDERS,
        namespace: str = '(("" "/")) NIL NIL',
    ) -> None:
        self.host, self.port = HOST, port_of(self)
        self.capabilities, self.after = capabilities, after or capabilities
        self.starttls, self.implicit = starttls, implicit
        self.users = dict(users or {"ann": "secret"})
        self.folders, self.namespace = list(folders), namespace
        self.commands: list[str] = []
        self.connections = self.open = 0
        self._moods: list[Mood] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Mailserver:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Take connections; after `stop`, on the same port again."""
        self._server = await asyncio.start_server(self._arrive, self.host, self.port)

    async def stop(self) -> None:
        """Refuse new connections and end the open ones."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to close

    def when(self, verb: str, *, times: int | None = None, skip: int = 0) -> Mood:
        """A mood, to be followed by what it does."""
        self._moods.insert(0, Mood(verb, times, skip))
        return self._moods[0]

    def calm(self) -> None:
        """Forget all moods."""
        self._moods.clear()

    def said(self, verb: str) -> list[str]:
        """The lines with this verb, without their tags."""
        return [line for line in self.commands if line.upper().startswith(verb)]

    def mood(self, verb: str) -> Mood | None:
        return self.first(self._moods, verb)

    @staticmethod
    def first(moods: Sequence[Mood], verb: str) -> Mood | None:
        for mood in moods:
            fits = mood.verb == verb or (mood.verb == "*" and verb not in UNCOUNTED)
            if fits and mood.skip:
                mood.skip -= 1
            elif fits and mood.times != 0:
                mood.times = None if mood.times is None else mood.times - 1
                return mood
        return None

    def _arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        task = asyncio.get_running_loop().create_task(self._serve(self._session(reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Session:
        return Session(self, reader, writer)

    async def _serve(self, session: Session) -> None:
        try:
            with suppress(OSError, EOFError, Closed):
                if self.implicit:
                    await session.writer.start_tls(server_context())
                await session.run()
        finally:
            self.open -= 1
            session.writer.transport.abort()


class Closed(Exception):
    """The script ends this connection."""


class Session:
    """One connection. Each verb of `answers` has a method."""

    answers: Collection[str] = ("CAPABILITY", "STARTTLS", "LOGIN", "AUTHENTICATE", "NAMESPACE", "LIST", "LOGOUT")

    def __init__(self, server: Mailserver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer
        self.known = False

    @property
    def encrypted(self) -> bool:
        return self.writer.get_extra_info("ssl_object") is not None

    @property
    def offers(self) -> str:
        if self.known:
            return self.server.after
        return self.server.capabilities + (" STARTTLS" if self.server.starttls and not self.encrypted else "")

    async def run(self) -> None:
        await self._answer("CONNECT", "*", "* OK fake ready")
        while True:
            tag, _, rest = (await self._line()).partition(" ")
            self.server.commands.append(rest)
            verb = rest.partition(" ")[0].upper()
            if verb in self.answers:
                await getattr(self, f"_{verb.lower()}")(tag, rest.partition(" ")[2])
            else:
                await self._other(verb, tag, rest.partition(" ")[2])

    async def _other(self, verb: str, tag: str, rest: str) -> None:
        await self._answer(verb, tag, "{tag} BAD unknown command")

    async def _line(self) -> str:
        line = await self.reader.readline()
        if not line:
            raise EOFError
        return line.decode("utf-8", "surrogateescape").rstrip("\r\n")

    async def _answer(self, verb: str, tag: str, usual: str) -> bool:
        """Reply as the moods say, or as usual; whether that was an OK."""
        mood = self.server.mood(verb)
        return await self._act(mood.steps if mood else [("say", usual)], tag)

    async def _act(self, steps: Sequence[tuple[str, Any]], tag: str) -> bool:
        usual = ""
        for step, value in steps:
            match step:
                case "say":
                    usual = value
                    await self._write(value.replace("{tag}", tag).encode() + b"\r\n")
                case "wait":
                    await value.wait()
                case "close":
                    self.writer.close()
                    raise Closed
                case "drop":
                    raise Closed
                case "hang":
                    while await self.reader.read(1024):
                        pass
                    raise EOFError
                case "endless":
                    while True:
                        await self._write(b'* LIST () "/" "another"\r\n' * 100)
                case "literal":
                    await self._write(b'* LIST () "/" {999999}\r\n')
                    while True:
                        await self._write(b"x" * 4096)
                        await asyncio.sleep(0.01)
                case "drip":
                    while True:
                        await self._write(b"*")
                        await asyncio.sleep(value)
        return usual.startswith("{tag} OK") or "\r\n{tag} OK" in usual

    async def _write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    # One method a verb.

    async def _capability(self, tag: str, rest: str) -> None:
        await self._answer("CAPABILITY", tag, f"* CAPABILITY {self.offers}\r\n{{tag}} OK done")

    async def _starttls(self, tag: str, rest: str) -> None:
        if await self._answer("STARTTLS", tag, "{tag} OK go ahead"):
            await self.writer.start_tls(server_context())

    async def _login(self, tag: str, rest: str) -> None:
        words = await self._words(rest)
        good = len(words) == 2 and self.server.users.get(words[0]) == words[1]
        await self._end("LOGIN", tag, good)

    async def _authenticate(self, tag: str, rest: str) -> None:
        if self.server.mood("AUTHENTICATE"):
            await self._write(f"{tag} BAD no such mechanism\r\n".encode())
            return
        await self._write(b"+ \r\n")
        answer = base64.b64decode(await self._line()).decode()
        if rest.upper() == "PLAIN":
            _, user, password = answer.split("\0")
        elif rest.upper() == "OAUTHBEARER":
            header, *pairs = answer.split("\x01")
            user = header.removeprefix("n,a=").removesuffix(",").replace("=2C", ",").replace("=3D", "=")
            password = dict(pair.split("=", 1) for pair in pairs if pair)["auth"].removeprefix("Bearer ")
        else:
            fields = dict(part.split("=", 1) for part in answer.split("\x01") if part)
            user, password = fields["user"], fields["auth"].removeprefix("Bearer ")
        good = self.server.users.get(user) == password
        if rest.upper() in ("XOAUTH2", "OAUTHBEARER") and not good:
            await self._write(b"+ " + base64.b64encode(b'{"status":"400","schemes":"Bearer"}') + b"\r\n")
            assert await self._line() == ("AQ==" if rest.upper() == "OAUTHBEARER" else "")
        await self._end("AUTH", tag, good)

    async def _end(self, verb: str, tag: str, good: bool) -> None:
        usual = "{tag} OK welcome" if good else "{tag} NO [AUTHENTICATIONFAILED] wrong user or password"
        self.known = await self._answer(verb, tag, usual)

    async def _words(self, rest: str) -> list[str]:
        """Quoted strings, or literals that are asked for."""
        words: list[str] = []
        while rest:
            if rest.startswith("{"):
                await self._write(b"+ go on\r\n")
                words.append((await self.reader.readexactly(int(rest[1:].rstrip("}")))).decode())
                rest = (await self._line()).lstrip()
            elif quoted := re.match(r'"((?:[^"\\]|\\.)*)" ?', rest):
                words.append(re.sub(r"\\(.)", r"\1", quoted[1]))
                rest = rest[quoted.end() :]
            else:
                word, _, rest = rest.partition(" ")
                words.append(word)
        return words

    async def _namespace(self, tag: str, rest: str) -> None:
        await self._answer("NAMESPACE", tag, f"* NAMESPACE {self.server.namespace}\r\n{{tag}} OK done")

    async def _list(self, tag: str, rest: str) -> None:
        lines = "".join(f"* LIST {line}\r\n" for line in self.server.folders)
        await self._answer("LIST", tag, f"{lines}{{tag}} OK done")

    async def _logout(self, tag: str, rest: str) -> None:
        await self._answer("LOGOUT", tag, "* BYE see you\r\n{tag} OK done")
        raise Closed
