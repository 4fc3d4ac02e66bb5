"""Mail in a mailbox: selected, fetched, flagged, copied, moved, removed. Runs in the connection's thread."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from relay.net.imapanswers import Attributes, Brief, Selected, Status, body, brief, fetched, number
from relay.net.imapfaults import Unsupported
from relay.net.imapfolders import Client
from relay.net.imapwire import Wire

AT_ONCE = 100  # mails in one command
HEADER = 64 * 1024  # bytes of a header
SLOWEST = 32 * 1024  # bytes a second that a mail comes or goes with at least
SPARE = 4 * 1024  # bytes that come with a mail's own: attributes
LONG = 8 << 20  # bytes of an answer with a word for each mail of a large folder
WORDS = ("UIDVALIDITY", "UIDNEXT", "MESSAGES")
FIELD = re.compile(r"[A-Za-z0-9-]+")
FLAG = re.compile(r"\\?[A-Za-z0-9$_.-]+")
ANY, FORWARDED = b"\\*", b"$forwarded"


def create(client: Client, path: str) -> None:
    """See Mailbox, here as below. Subscribed too, where that can be: some mail programs show no other folders."""
    client.create_folder(path)
    try:
        client.subscribe_folder(path)
    except Wire.abort:
        raise
    except Wire.error:
        pass


def status(client: Client, path: str) -> Status:
    told = {str(key, "ascii", "replace").upper(): value for key, value in client.folder_status(path, WORDS).items()}
    if missing := [word for word in WORDS if word not in told]:
        raise Unsupported(f"does not tell {' and '.join(missing)} of a folder")
    return Status(*(number(told[word]) for word in WORDS))


def select(client: Client, path: str, readonly: bool) -> Selected:
    client.wire.exists = 0
    told = client.select_folder(path, readonly=readonly)
    client.wire.seen = client.wire.changes
    exists, keeps = client.wire.exists, told.get(b"PERMANENTFLAGS", (ANY,))  # none told: all are kept (RFC 3501 7.1)
    return Selected(
        path=path,
        uidvalidity=number(told.get(b"UIDVALIDITY", 0)),
        uidnext=number(told[b"UIDNEXT"]) if b"UIDNEXT" in told else _uidnext(client),
        exists=exists,
        flags_kept=any(flag.lower() in (ANY, FORWARDED) for flag in keeps),
    )


def _uidnext(client: Client) -> int:
    """By the last mail, where the server does not tell."""
    return max(_fetch(client, "*", "(UID)"), default=0) + 1 if client.wire.exists else 1


def headers(client: Client, uids: Collection[int], names: Collection[str], *, partly: bool = False) -> dict[int, bytes]:
    """`partly`: those of some of the mails will do."""
    if not all(map(FIELD.fullmatch, names)):
        raise Wire.error("a header field of such a name cannot be asked for")
    part = f"HEADER.FIELDS ({' '.join(names).upper()})" if names else "HEADER"
    found: dict[int, bytes] = {}
    for some in batches(uids):
        told = _fetch(client, _list(some), f"(UID BODY.PEEK[{part}]<0.{HEADER}>)", len(some) * (HEADER + SPARE), partly)
        texts = ((uid, body(told[uid])) for uid in some if uid in told)
        found.update((uid, text[:HEADER]) for uid, text in texts if text is not None)
    return found


def briefs(client: Client, uids: Collection[int]) -> dict[int, Brief]:
    found: dict[int, Brief] = {}
    for some in batches(uids):
        told = _fetch(client, _list(some), "(UID RFC822.SIZE FLAGS INTERNALDATE)", len(some) * SPARE)
        each = ((uid, brief(uid, told[uid])) for uid in some if uid in told)
        found.update((uid, one) for uid, one in each if one is not None)
    return found


def content(client: Client, uid: int, most: int) -> bytes | None:
    with client.wire.granted(more=most / SLOWEST):
        told = _fetch(client, _list([number(uid, 1)]), f"(UID BODY.PEEK[]<0.{number(most, 1)}>)", most)
    text = body(told.get(uid, {}))
    return text if text is None else text[:most]


def flag(client: Client, uids: Collection[int], flags: Collection[str]) -> None:
    for some in batches(uids):
        client.add_flags(some, checked(flags), silent=True)


def copy(client: Client, uids: Collection[int], path: str) -> None:
    for some in batches(uids):
        client.copy(some, path)


def move(client: Client, uids: Collection[int], path: str) -> None:
    _need(client, "MOVE")
    for some in batches(uids):
        client.move(some, path)


def expunge(client: Client, uids: Collection[int]) -> None:
    _need(client, "UIDPLUS")
    for some in batches(uids):
        client.uid_expunge(some)


def expunge_all(client: Client) -> None:
    with client.wire.granted(most=LONG):
        typ, said = client.wire.ask("EXPUNGE")
    agreed(typ, said)


def noop(client: Client) -> None:
    agreed(*client.wire.ask("NOOP"))


def _need(client: Client, word: str) -> None:
    if word not in client.words():
        raise Unsupported(f"does not offer {word}")


def _fetch(client: Client, uids: str, items: str, most: int = 0, partly: bool = False) -> dict[int, Attributes]:
    """Some servers say NO where one of the mails is gone, and tell of the others (RFC 5530 EXPUNGEISSUED).

    So they do where they cannot read one of them, which they may later: that is for the caller to know.
    """
    with client.wire.granted(literals=most):
        typ, said = client.wire.ask("UID", "FETCH", uids, items)
    found = fetched(client.wire.untagged_responses.pop("FETCH", ()))
    if "[EXPUNGEISSUED]" not in said and not (partly and found):
        agreed(typ, said)
    return found


def agreed(typ: str, said: str) -> None:
    """Raises what imaplib does unless it is OK."""
    if typ != "OK":
        raise Wire.error(said)


def checked(flags: Collection[str]) -> list[str]:
    """Flags that may be said. Raises imaplib's error for what is none."""
    if not all(map(FLAG.fullmatch, flags)):
        raise Wire.error("there are no such flags")
    return list(flags)


def batches(uids: Collection[int]) -> Iterator[list[int]]:
    """Each once, ascending."""
    whole = sorted({number(uid, 1) for uid in uids})
    yield from (whole[start : start + AT_ONCE] for start in range(0, len(whole), AT_ONCE))


def _list(uids: Collection[int]) -> str:
    return ",".join(map(str, uids))
