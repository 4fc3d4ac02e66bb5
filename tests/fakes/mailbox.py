r"""A mailbox with mail in it, in the odd ways of other people's servers. Runs in the test's own event loop.

    async with MailboxServer() as server:                       # user ann, password secret; folders of PLAIN
        server.put("INBOX", b"Subject: hi\r\n\r\n")            # delivered, while clients watch; gives its UID
        imap = server.imap()                                    # settings of an account that is at home here
        server.mails("Sent")                                    # [Mail(content, flags, date)], by UID

    MailboxServer(uidplus=False)  (move=False)  (idle=False)    # never learnt that
    MailboxServer(layout=UNFLAGGED)  (layout=FOREIGN)           # no special uses; odd names
    MailboxServer(layout=WRONG)                                 # special uses that are wrong
    MailboxServer(layout=prefixed(), prefix="INBOX.")           # everything below INBOX
    MailboxServer(store=Labels(GMAIL))                          # Gmail
    MailboxServer(store=Labels(GMAIL_GERMAN, dedupe=True, hasty=False))
    MailboxServer(store=Store(EXCHANGE, lag=3, rewrite=True))   # finds late, changes what is appended
    MailboxServer(store=Store(PLAIN, keeps=1000))               # of what is appended it stores so many bytes
    MailboxServer(store=Store(PLAIN, crowd=100_000))            # mail 1 to 100,000 in INBOX: <7@crowd> has UID 7
    MailboxServer(searching="words")                            # whole ones; "ignored": it finds all; "unknown": BAD
    MailboxServer(quota=5000)                                   # APPEND of more: NO [OVERQUOTA]
    MailboxServer(biggest=1000)                                 # NO [TOOBIG], before the literal
    MailboxServer(more="APPENDLIMIT=1000")                      # said in CAPABILITY, and nothing else
    server.chatter = ["* 1 FETCH (FLAGS (\\Seen))"]             # said unasked before every answer

    server.later(3, "Sent", content, flags=["\\Seen"])          # a provider's copy: there after three more commands
    server.renumber("Sent")                                     # UIDVALIDITY changes, and UIDs mean other mail

The moods of tests/fakes/imap.py do for every command, by its verb without UID (FETCH), and `*` is any command after the
login but LOGOUT. `when` comes before anything is done (for APPEND: before its literal is taken), `when_done` when all
is, in place of the answer; `usual()` goes on as if nothing were:

    server.when("APPEND").say("{tag} NO [TRYCREATE] no such folder")
    server.when_done("APPEND", times=1).drop()                  # stored, and nobody was told
    server.when("*", skip=4, times=1).drop()                    # dies before it does the fifth command
    server.when("MOVE").wait(event).usual()

`server.verbs` are the commands after the login, in order.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from imapclient import imap_utf7  # type: ignore[import-untyped]

from relay.core.tenant import Imap, Tls
from tests.fakes.imap import Closed, Mailserver, Mood, Session
from tests.fakes.mailsearch import search, uid_set
from tests.fakes.mailstore import DATE, PLAIN, Folder, Labels, Layout, Mail, Store

GMAIL_WORDS = "UNSELECT NAMESPACE ID XLIST CHILDREN X-GM-EXT-1 ENABLE ESEARCH LIST-EXTENDED SPECIAL-USE"
TOKEN = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|\{(\d+)(\+?)\}$|([()])|((?:[^\s()"\[]|\[[^\]]*\])+))')


class MailboxServer(Mailserver):
    """The server; see above."""

    def __init__(
        self,
        *,
        layout: Layout = PLAIN,
        store: Store | None = None,
        uidplus: bool = True,
        move: bool = True,
        idle: bool = True,
        more: str = "",
        prefix: str = "",
        quota: int | None = None,
        biggest: int | None = None,
        searching: str = "substring",
        **mailserver: Any,
    ) -> None:
        self.store = store or Store(layout)
        offered = {
            "UIDPLUS": uidplus,
            "MOVE": move,
            "IDLE": idle,
            GMAIL_WORDS: isinstance(self.store, Labels),
            more: True,
        }
        words = [
            "IMAP4rev1",
            "NAMESPACE",
            "AUTH=PLAIN",
            "AUTH=XOAUTH2",
            *(word for word, yes in offered.items() if yes),
        ]
        self.delimiter = "." if prefix.endswith(".") else "/"
        super().__init__(
            capabilities=" ".join(filter(None, words)),
            namespace=f'(("{prefix}" "{self.delimiter}")) NIL NIL',
            **mailserver,
        )
        self.quota, self.biggest, self.searching = quota, biggest, searching
        self.chatter: list[str] = []
        self.verbs: list[str] = []
        self.stirred = asyncio.Event()
        self._when_done: list[Mood] = []

    def imap(self, **more: Any) -> Imap:
        return Imap(self.host, self.port, Tls.NONE, **{"user": "ann", "password": "secret", **more})

    def folder(self, path: str) -> Folder:
        return self.store.folders[path]

    def mails(self, path: str) -> list[Mail]:
        folder = self.folder(path)
        return [folder.mail(uid) for uid in folder.uids]

    def flags(self, path: str, uid: int) -> set[str]:
        return self.folder(path).flags(uid)

    def put(self, path: str, content: bytes, flags: Iterable[str] = (), date: datetime | None = None) -> int:
        """Comes now, or at this time."""
        uid = self.store.put(self.folder(path), Mail(content, set(flags), date or datetime.now(UTC)))
        self.stir()
        return uid

    def later(self, commands: int, path: str, content: bytes, flags: Iterable[str] = ()) -> None:
        self.store.later(commands, lambda: self.put(path, content, flags))

    def renumber(self, path: str) -> None:
        self.folder(path).renumber()

    def when_done(self, verb: str, *, times: int | None = None, skip: int = 0) -> Mood:
        """A mood for when the command is done."""
        self._when_done.insert(0, Mood(verb, times, skip))
        return self._when_done[0]

    def calm(self) -> None:
        super().calm()
        self._when_done.clear()

    def mood_after(self, verb: str) -> Mood | None:
        return self.first(self._when_done, verb)

    def stir(self) -> None:
        """Whoever is idle looks again."""
        self.stirred.set()
        self.stirred = asyncio.Event()

    def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Session:
        return MailSession(self, reader, writer)


class Refusal(Exception):
    """How a command ends that is not done: `NO [CODE] words` or `BAD words`."""


class MailSession(Session):
    server: MailboxServer
    answers = ("CAPABILITY", "STARTTLS", "LOGIN", "AUTHENTICATE", "LOGOUT")

    def __init__(self, server: MailboxServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(server, reader, writer)
        self.selected: Folder | None = None
        self.readonly = False
        self.seen: list[int] = []  # UIDs by sequence, as this client was told

    async def _other(self, verb: str, tag: str, rest: str) -> None:
        """Every command that needs a login."""
        uid = verb == "UID"
        if uid:
            verb, _, rest = rest.partition(" ")
            verb = verb.upper()
        self.server.verbs.append(verb)
        if not await self._moody(self.server.mood(verb), tag):
            return
        try:
            handler = getattr(self, f"do_{verb.lower()}", None)
            if handler is None or not self.known:
                raise Refusal("BAD unknown command")
            lines, end = await handler(await self._parse(rest, verb, tag), uid)
        except Refusal as refusal:
            lines, end = [], str(refusal)
        self.server.store.tick()
        self.server.stir()
        if await self._moody(self.server.mood_after(verb), tag):
            chatter = [line.encode() for line in self.server.chatter]
            news = self._news() if verb not in ("FETCH", "STORE", "SEARCH") or uid else []
            await self._write(b"".join(line + b"\r\n" for line in [*chatter, *lines, *news, f"{tag} {end}".encode()]))

    async def _moody(self, mood: Mood | None, tag: str) -> bool:
        """Whether things take their usual course."""
        if mood is None:
            return True
        usual = Mood(mood.verb, None, steps=[step for step in mood.steps if step[0] != "usual"])
        await self._act(usual.steps, tag)
        return len(usual.steps) < len(mood.steps)

    async def _parse(self, rest: str, verb: str, tag: str) -> list[Any]:
        """Atoms and strings as text, literals as bytes, lists as lists."""
        stack: list[list[Any]] = [[]]
        while rest.strip():
            found = TOKEN.match(rest)
            if found is None:
                raise Refusal("BAD syntax")
            quoted, literal, plus, bracket, atom = found.groups()
            rest = rest[found.end() :]
            if literal is not None:
                stack[-1].append(await self._literal(int(literal), plus, verb))
                rest = await self._line()
            elif bracket == "(":
                stack.append([])
            elif bracket == ")":
                if len(stack) < 2:
                    raise Refusal("BAD parentheses")
                whole = stack.pop()
                stack[-1].append(whole)
            else:
                stack[-1].append(atom if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        if len(stack) > 1:
            raise Refusal("BAD parentheses")
        return stack[0]

    async def _literal(self, size: int, plus: str, verb: str) -> bytes:
        if verb == "APPEND" and self.server.biggest is not None and size > self.server.biggest:
            raise Refusal("NO [TOOBIG] that is too much")
        if not plus:
            await self._write(b"+ go on\r\n")
        return await self.reader.readexactly(size)

    def _news(self) -> list[bytes]:
        """What changed in the selected folder since this client was told."""
        if self.selected is None:
            return []
        now = set(self.selected.uids)
        gone = [at for at, uid in enumerate(self.seen, 1) if uid not in now]
        lines = [b"* %d EXPUNGE" % at for at in reversed(gone)]
        if len(self.selected.uids) > len(self.seen) - len(gone):
            lines.append(b"* %d EXISTS" % len(self.selected.uids))
        self.seen = list(self.selected.uids)
        return lines

    def _folder(self, name: Any) -> Folder:
        text = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        path = "INBOX" if text.upper() == "INBOX" else str(imap_utf7.decode(text.encode()))
        folder = self.server.store.folders.get(path)
        if folder is None or "\\Noselect" in folder.attributes.split():
            raise Refusal("NO [NONEXISTENT] there is no such folder")
        return folder

    def _target(self, name: Any) -> Folder:
        try:
            return self._folder(name)
        except Refusal:
            raise Refusal("NO [TRYCREATE] there is no such folder") from None

    def _here(self, write: bool = False) -> Folder:
        if self.selected is None:
            raise Refusal("BAD no folder is selected")
        if write and self.readonly:
            raise Refusal("NO [READ-ONLY] it may only be read")
        return self.selected

    def _uids(self, text: str, uid: bool) -> list[int]:
        return [one for one in uid_set(text, self.seen, uid) if self._here().holds(one)]

    # One method a command: lines of the answer, and its end.

    async def do_list(self, words: list[Any], uid: bool) -> Answer:
        delimiter = self.server.delimiter
        lines = []
        for folder in self.server.store.folders.values():
            name = folder.name.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'* LIST ({folder.attributes}) "{delimiter}" "{name}"'.encode())
        return lines, "OK done"

    async def do_status(self, words: list[Any], uid: bool) -> Answer:
        folder, limit = self._folder(words[0]), re.search(r"APPENDLIMIT=(\d+)", self.offers)
        told = {"MESSAGES": len(folder.uids), "UIDNEXT": folder.uidnext, "UIDVALIDITY": folder.uidvalidity}
        told["APPENDLIMIT"] = int(limit[1]) if limit else "NIL" if self.server.biggest is None else self.server.biggest
        asked = " ".join(f"{word} {told[word]}" for word in words[1])
        return [f'* STATUS "{folder.name}" ({asked})'.encode()], "OK done"

    async def do_select(self, words: list[Any], uid: bool, readonly: bool = False) -> Answer:
        self.selected = None
        folder = self.selected = self._folder(words[0])
        self.readonly, self.seen = readonly, list(folder.uids)
        keeps = "()" if readonly else r"(\Answered \Flagged \Deleted \Seen \Draft \*)"
        lines = [
            rb"* FLAGS (\Answered \Flagged \Deleted \Seen \Draft)",
            f"* OK [PERMANENTFLAGS {keeps}] kept".encode(),
            b"* %d EXISTS" % len(folder.uids),
            b"* 0 RECENT",
            b"* OK [UIDVALIDITY %d] valid" % folder.uidvalidity,
            b"* OK [UIDNEXT %d] next" % folder.uidnext,
        ]
        return lines, f"OK [READ-{'ONLY' if readonly else 'WRITE'}] selected"

    async def do_examine(self, words: list[Any], uid: bool) -> Answer:
        return await self.do_select(words, uid, readonly=True)

    async def do_unselect(self, words: list[Any], uid: bool) -> Answer:
        self.selected = None
        return [], "OK done"

    async def do_create(self, words: list[Any], uid: bool) -> Answer:
        path = str(imap_utf7.decode(str(words[0]).encode()))
        if path in self.server.store.folders:
            raise Refusal("NO [ALREADYEXISTS] there is such a folder")
        self.server.store.folders[path] = Folder(path, "", 5000 + len(self.server.store.folders))
        return [], "OK done"

    async def do_namespace(self, words: list[Any], uid: bool) -> Answer:
        return [f"* NAMESPACE {self.server.namespace}".encode()], "OK done"

    async def do_noop(self, words: list[Any], uid: bool) -> Answer:
        return [], "OK done"

    async def do_search(self, words: list[Any], uid: bool) -> Answer:
        if self.server.searching == "unknown" and "HEADER" in words:
            raise Refusal("BAD what is HEADER")
        folder = self._here()
        try:
            found = search(self.server.store, folder, self.seen, words, self.server.searching)
        except LookupError:
            raise Refusal("BAD unknown search key") from None
        told = found if uid else [self.seen.index(one) + 1 for one in found]
        return [b" ".join([b"* SEARCH", *(b"%d" % one for one in told)])], "OK done"

    async def do_fetch(self, words: list[Any], uid: bool) -> Answer:
        folder, items = self._here(), words[1] if isinstance(words[1], list) else [words[1]]
        at = {one: number for number, one in enumerate(self.seen, 1)}
        wanted = self._uids(words[0], uid)
        if any(item.startswith(folder.mail(one).deadly) for one in wanted for item in items):
            raise Closed
        told = [one for one in wanted if not folder.mail(one).broken]
        return [
            b"* %d FETCH (" % at[one] + b" ".join(_item(folder, one, item.upper()) for item in items) + b")"
            for one in told
        ], "OK done" if told == wanted else "NO Some messages could not be FETCHed (Failure)"

    async def do_store(self, words: list[Any], uid: bool) -> Answer:
        folder, (what, flags) = self._here(write=True), words[1:]
        given = set(flags if isinstance(flags, list) else [flags])
        for one in self._uids(words[0], uid):
            match what.upper().split("."):
                case ["+FLAGS", *_]:
                    self.server.store.mark(folder, one, given, set())
                case ["-FLAGS", *_]:
                    self.server.store.mark(folder, one, set(), given)
                case _:
                    self.server.store.mark(folder, one, given, folder.flags(one) - given)
        return [], "OK done"

    async def do_copy(self, words: list[Any], uid: bool) -> Answer:
        return self._placed(words, uid, self._here(), self.server.store.copy, untagged=False)

    async def do_move(self, words: list[Any], uid: bool) -> Answer:
        self._offered("MOVE")
        return self._placed(words, uid, self._here(write=True), self.server.store.move, untagged=True)

    def _placed(self, words: list[Any], uid: bool, folder: Folder, work: Any, untagged: bool) -> Answer:
        target, uids = self._target(words[1]), self._uids(words[0], uid)
        new = work(folder, uids, target)
        told = f"[COPYUID {target.uidvalidity} {_set(uids)} {_set(new)}] " if uids and self._has("UIDPLUS") else ""
        return ([f"* OK {told}".encode()], "OK done") if untagged and told else ([], f"OK {told}done")

    async def do_expunge(self, words: list[Any], uid: bool) -> Answer:
        if uid:
            self._offered("UIDPLUS")
        folder = self._here(write=True)
        self.server.store.expunge(folder, self._uids(words[0], True) if uid else list(folder.uids))
        return [], "OK done"

    async def do_append(self, words: list[Any], uid: bool) -> Answer:
        name, *between, content = words
        folder = self._target(name)
        flags = next((set(one) for one in between if isinstance(one, list)), set())
        date = next((datetime.strptime(one, "%d-%b-%Y %H:%M:%S %z") for one in between if isinstance(one, str)), DATE)
        held = sum(len(mail.content) for path in self.server.store.folders for mail in self.server.mails(path))
        if self.server.quota is not None and held + len(content) > self.server.quota:
            raise Refusal("NO [OVERQUOTA] no room is left")
        uid_of = self.server.store.append(folder, Mail(content, flags, date))
        return [], f"OK [APPENDUID {folder.uidvalidity} {uid_of}] done" if self._has("UIDPLUS") else "OK done"

    async def do_idle(self, words: list[Any], uid: bool) -> Answer:
        self._offered("IDLE")
        await self._write(b"+ idling\r\n")
        line = asyncio.create_task(self._line())
        while not line.done():
            stirred = asyncio.create_task(self.server.stirred.wait())
            await self._write(b"".join(one + b"\r\n" for one in self._news()))
            await asyncio.wait({line, stirred}, return_when=asyncio.FIRST_COMPLETED)
            stirred.cancel()
        if line.result().upper() != "DONE":
            raise Refusal("BAD that was no DONE")
        return [], "OK done"

    def _has(self, word: str) -> bool:
        return word in self.offers.split()

    def _offered(self, word: str) -> None:
        if not self._has(word):
            raise Refusal("BAD unknown command")


Answer = tuple[list[bytes], str]


def _set(uids: Sequence[int]) -> str:
    return ",".join(map(str, uids))


def _item(folder: Folder, uid: int, item: str) -> bytes:
    mail = folder.mail(uid)
    match item:
        case "UID":
            return b"UID %d" % uid
        case "FLAGS":
            return f"FLAGS ({' '.join(sorted(folder.flags(uid)))})".encode()
        case "RFC822.SIZE":
            return b"RFC822.SIZE %d" % len(mail.content)
        case "INTERNALDATE":
            return f'INTERNALDATE "{mail.date:%d-%b-%Y %H:%M:%S %z}"'.encode()
    found = re.fullmatch(r"BODY(?:\.PEEK)?\[(.*)\](?:<(\d+)\.(\d+)>)?", item)
    if found is None:
        raise Refusal("BAD unknown item")
    part, start, most = found.groups()
    text = _part(mail, part)
    label = f"BODY[{part}]" + (f"<{start}>" if start else "")
    if start:
        text = text[int(start) : int(start) + int(most)]
    return label.encode() + b" {%d}\r\n" % len(text) + text


def _part(mail: Mail, part: str) -> bytes:
    if part in ("", "HEADER"):
        return mail.header if part else mail.content
    if part == "TEXT":
        return mail.content[len(mail.header) :]
    names = part.partition("(")[2].rstrip(")").lower().split()
    fields = re.split(rb"\r\n(?![ \t])", mail.header)
    kept = [one for one in fields if one.partition(b":")[0].strip().decode("latin-1").lower() in names]
    return b"".join(one + b"\r\n" for one in kept) + b"\r\n"
