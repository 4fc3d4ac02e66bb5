"""The folders of a mailbox: LIST with special uses (RFC 6154), namespaces (RFC 2342), names out of modified UTF-7.

It takes what servers send as it comes: a line that is no folder is left out and spoils no other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import imapclient  # type: ignore[import-untyped]
from imapclient import imap_utf7
from imapclient.exceptions import ProtocolError as Nonsense  # type: ignore[import-untyped]

from relay.core.folders import Folder
from relay.net.imapwire import Wire, spoken

__all__ = ["Client", "Nonsense", "decoded", "listed"]
MOST = 4 << 20  # bytes of all lines: there are mailboxes with a folder for each of many thousand cases
UNSPEAKABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_QUOTED = rb'"(?:[^"\\]|\\.)*+"'
_LINE = re.compile(
    rb"\((?P<flags>[^()]*+)\) +(?:NIL|(?P<delimiter>" + _QUOTED + rb")) +"
    rb"(?P<name>" + _QUOTED + rb'|\{\d+\}|[^\s"({][^\s"]*+)(?: *| +\(.*)',  # RFC 5258 may tell more behind it
    re.DOTALL | re.IGNORECASE,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_PLAIN = re.compile(rb"[ -%'-~]*+")  # the same in modified UTF-7
Namespaces = Sequence[tuple[str, bool]]
"""(prefix, personal), the longest prefix first."""


class Client(imapclient.IMAPClient):  # type: ignore[misc]
    """imapclient on a wire that is logged in: it never sees a password."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        super().__init__(wire.host, ssl=False)
        self.folder_encode = False  # names come as bytes: one that cannot be read spoils no other
        self.odd_names: dict[str, bytes] = {}  # of folders whose name came in no modified UTF-7

    def _create_IMAP4(self) -> Wire:
        return self.wire

    def words(self) -> frozenset[str]:
        """The server's capabilities, now that we are logged in."""
        return frozenset(word.decode("ascii", "replace") for word in self.capabilities())

    def _normalise_folder(self, path: str) -> bytes:
        """Quoted, so that nothing in a name is taken for more of the command.

        No control characters, though Base64 would hold them: servers repeat a name in the clear when they refuse it.
        """
        if UNSPEAKABLE.search(path):
            raise Wire.error("[NONEXISTENT] no folder has such a name")
        name = self.odd_names.get(path) or bytes(imap_utf7.encode(path))
        return b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'

    def _check_resp(self, expected: str, command: Any, typ: str, data: Any) -> None:
        """As imapclient's, but with nothing said but what the server says."""
        if typ != expected:
            raise Wire.error(spoken(data))


def listed(client: Client) -> list[Folder]:
    """Every folder. Raises Nonsense where there are lines, and none of them tells of a folder."""
    capabilities = client.words()
    namespaces = _namespaces(client) if "NAMESPACE" in capabilities else ()
    with client.wire.granted(most=MOST):
        answer = _answer(client.wire, capabilities)
    lines = list(_lines(answer))
    if any(answer) and not lines:
        raise Nonsense("nothing that LIST says tells of a folder")
    client.odd_names = {decoded(name): name for *_, name in lines if _odd(name)}
    found = (_folder(*line, namespaces) for line in lines)
    return [folder for folder in found if folder is not None]


def _answer(wire: Wire, capabilities: frozenset[str]) -> Sequence[Any]:
    """With special uses, which some servers tell only on request (RFC 6154 3); without, where that is a lie."""
    typ, said = "NO", ""
    if capabilities >= {"SPECIAL-USE", "LIST-EXTENDED"}:
        typ, said = wire.ask("LIST", '""', '"*"', "RETURN (SPECIAL-USE)")
    if typ != "OK":
        typ, said = wire.ask("LIST", '""', '"*"')
    if typ != "OK":
        raise Wire.error(said)
    return list(wire.untagged_responses.pop("LIST", []))


def _lines(answer: Sequence[Any]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(flags, delimiter, name) of each line that has them (RFC 3501 7.2.2).

    Not by imapclient's parser: it goes byte by byte through what may be 4 MB, and makes an object of each word.
    """
    before, literal = b"", b""
    for part in answer:
        if isinstance(part, tuple):  # the name is a literal: the rest of its line comes next
            before, literal = part
        elif found := _LINE.fullmatch(before + part):
            name = literal if before else _unquoted(found["name"])
            yield found["flags"], _unquoted(found["delimiter"] or b""), name
        if not isinstance(part, tuple):
            before = b""


def _namespaces(client: Client) -> Namespaces:
    """None where the answer makes no sense: then every folder is taken for the mailbox's own."""
    try:
        kinds = zip(client.namespace(), (True, False, False), strict=True)
        found = [(decoded(prefix), personal) for kind, personal in kinds for prefix, _ in kind or ()]
    except Wire.abort:
        raise
    except (Wire.error, ValueError, TypeError, AttributeError):
        return ()
    return sorted(found, key=lambda one: -len(one[0]))


def _folder(flags: bytes, delimiter: bytes, name: bytes, namespaces: Namespaces) -> Folder | None:
    """None for what is no folder, or has a name that nobody could write."""
    path = decoded(name)
    if not path or UNSPEAKABLE.search(path):
        return None
    return Folder(
        path=path,
        delimiter=decoded(delimiter),
        flags=_flags(flags),
        personal=next((personal for prefix, personal in namespaces if path.startswith(prefix)), True),
    )


@lru_cache(maxsize=64)
def _flags(words: bytes) -> frozenset[str]:
    """Most folders have the same few, and share them."""
    return frozenset(words.decode("ascii", "replace").lower().split())


def _unquoted(text: bytes) -> bytes:
    return _ESCAPED.sub(rb"\1", text[1:-1]) if text.startswith(b'"') else text


def _odd(name: bytes) -> bool:
    """A name that must be said as it came, for our spelling of it is another."""
    if _PLAIN.fullmatch(name):
        return False
    path = decoded(name)
    return not UNSPEAKABLE.search(path) and bytes(imap_utf7.encode(path)) != name


def decoded(name: bytes | str) -> str:
    """A name out of modified UTF-7 (RFC 3501 5.1.3), or UTF-8, which some servers send without being asked."""
    if isinstance(name, str):
        return name
    if _PLAIN.fullmatch(name):
        return name.decode("ascii")
    try:
        return str(imap_utf7.decode(name)) if name.isascii() else name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")
