"""Mail in a mailbox, looked for: by Message-ID, by UID, by what is to be removed. Runs in the connection's thread.

What SEARCH finds is what the server's index knows: some find parts of words, some whole words only, some ignore what
they do not understand, and some need a while until they find what just came. So what is found is looked at, and so is
the newest mail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from relay.net.imapanswers import number
from relay.net.imapfaults import Misunderstood
from relay.net.imapfolders import Client
from relay.net.imapmail import LONG, headers, noop
from relay.net.imapwire import Wire, spoken

CANDIDATES = 200  # that are looked at, the newest: a server that finds more did not search
NEWEST = 50  # mails that are looked at whether they are found or not
CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
SINGULAR = re.compile(r"[^\s\"'(){}\\]+")  # a word of Gmail's search language
WORD = re.compile(rb"[^ ]+")
FOLD = re.compile(rb"\r?\n(?=[ \t])")
FIELD = re.compile(rb"^message-id[ \t]*:(.*)$", re.IGNORECASE | re.MULTILINE)


def find(client: Client, message_id: str) -> list[int]:
    """See Mailbox, here as below."""
    wanted = _plain(message_id.encode("utf-8", "replace"))
    if not wanted or CONTROLS.search(message_id):
        return []
    candidates = _candidates(client, message_id.strip().removeprefix("<").removesuffix(">"))
    newest = _last(client, 1, NEWEST)
    told = headers(client, {*candidates[-CANDIDATES:], *newest}, ("Message-ID",), partly=True)  # one may be broken
    return sorted(uid for uid, header in told.items() if wanted in _ids(header))


def since(client: Client, uid: int, most: int, below: int | None) -> list[int]:
    wire = _selected(client)
    if not wire.exists:
        noop(client)
    wire.seen = wire.changes
    if most < 1:
        return []
    return _last(client, uid, most) if below is None else _between(client, uid, below)[-most:]


def deleted(client: Client) -> list[int]:
    return _search(client, b"DELETED")


def _last(client: Client, uid: int, most: int) -> list[int]:
    """One search for mail that is both new and among the last: no server lists a whole folder for it."""
    exists = _selected(client).exists
    if not exists:
        return []
    among = [b"%d:*" % (exists - most + 1)] if exists > most else []
    found = _search(client, *among, b"UID", b"%d:*" % number(uid, 1))
    return [one for one in found if one >= uid][-most:]  # where all are older, * finds the last nevertheless


def _between(client: Client, uid: int, below: int) -> list[int]:
    """The server lists all of them: it is for the caller not to make the range too wide."""
    if not client.wire.exists or below <= uid:
        return []
    return [one for one in _search(client, b"UID", b"%d:%d" % (number(uid, 1), below - 1)) if uid <= one < below]


def _candidates(client: Client, plain: str) -> list[int]:
    """First as a whole, then without the brackets, which are no word to an index of words.

    A server that does not know how to search finds nothing; one that cannot just now refuses, which is raised.
    """
    ways: list[tuple[bytes, ...]] = [
        (b"HEADER", b"Message-ID", _string(f"<{plain}>")),
        (b"HEADER", b"Message-ID", _string(plain)),
    ]
    if "X-GM-EXT-1" in client.words() and SINGULAR.fullmatch(plain):
        ways.insert(0, (b"X-GM-RAW", _string(f"rfc822msgid:{plain}")))
    for way in ways:
        with suppress(Misunderstood):
            if found := _search(client, *way):
                return found
    return []


def _search(client: Client, *criteria: bytes) -> list[int]:
    """Ascending. imapclient sends what is not ASCII as a literal; some servers answer in several lines."""
    wire, charset = _selected(client), () if b"".join(criteria).isascii() else (b"CHARSET", b"UTF-8")
    with wire.granted(most=LONG):
        typ, data = client._raw_command(b"SEARCH", [*charset, *criteria])
    if typ != "OK":
        raise Wire.error(spoken(data))
    lines = wire.untagged_responses.pop("SEARCH", ())
    return sorted({uid for line in lines for uid in _numbers(line)})


def _numbers(line: bytes | tuple[bytes, ...]) -> Iterator[int]:
    """One by one, without what some say in parentheses behind them (RFC 7162).

    imapclient's pattern takes a hundred times an answer's size in memory, and lets nobody else run meanwhile.
    """
    if isinstance(line, tuple):
        raise ValueError("a literal where numbers belong")
    return (number(word[0], 1) for word in WORD.finditer(line.partition(b"(")[0]))


def _selected(client: Client) -> Wire:
    """Its wire. Where no folder is selected no mail is looked for, which is not to say that there is none."""
    if client.wire.state != "SELECTED":
        raise Wire.error("no folder is selected")
    return client.wire


def _string(text: str) -> bytes:
    """Quoted whenever it can be (RFC 3501 4.3): imapclient leaves parentheses bare."""
    encoded = text.encode("utf-8", "replace")
    return b'"' + encoded.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"' if encoded.isascii() else encoded


def _ids(header: bytes) -> set[bytes]:
    """Of a header, however it is folded, and whatever stands beside the brackets."""
    values = FIELD.findall(FOLD.sub(b"", header))
    return {_plain(id) for value in values for id in re.findall(rb"<[^<>]*>", value) or [value]}


def _plain(message_id: bytes) -> bytes:
    return b"".join(message_id.split()).removeprefix(b"<").removesuffix(b">")
