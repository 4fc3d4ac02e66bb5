"""SEARCH for tests/fakes/mailbox.py: what a server finds, and what it says it finds."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from tests.fakes.mailstore import Folder, Mail, Store


def uid_set(text: str, seen: Sequence[int], uid: bool) -> list[int]:
    """The UIDs that a set names, of UIDs or of sequence numbers; * is the last of both."""
    found: set[int] = set()
    last = (seen[-1] if uid else len(seen)) if seen else 0
    for part in text.split(","):
        low, high = sorted(last if one == "*" else int(one) for one in (part.split(":") * 2)[:2])
        if uid:
            found.update(seen[bisect_left(seen, low) : bisect_right(seen, high)])
        else:
            found.update(seen[max(low, 1) - 1 : high])
    return sorted(found)


def search(store: Store, folder: Folder, seen: Sequence[int], words: Sequence[Any], how: str) -> list[int]:
    """Raises LookupError for a key that is unknown here."""
    left = iter(words)
    found = [uid for uid in seen if folder.holds(uid)]
    for key in left:
        found = _kept(store, folder, seen, str(key).upper(), left, found, how)
    return found


def _kept(
    store: Store, folder: Folder, seen: Sequence[int], key: str, left: Iterator[Any], found: list[int], how: str
) -> list[int]:
    match key:
        case "ALL":
            return found
        case "CHARSET":
            next(left)
            return found
        case "UID":
            among = set(uid_set(next(left), seen, True))
            return [uid for uid in found if uid in among]
        case "DELETED":
            return [uid for uid in found if uid in folder.deleted]
        case "SEEN" | "UNSEEN":
            return [uid for uid in found if ("\\Seen" in folder.flags(uid)) is (key == "SEEN")]
        case "HEADER":
            name, value = _text(next(left)), _text(next(left))
            if how == "ignored":
                return found
            mails = ((uid, folder.mail(uid)) for uid in found)
            return [uid for uid, mail in mails if _findable(store, mail) and _matches(mail.field(name), value, how)]
        case "X-GM-RAW":
            wanted = _text(next(left)).removeprefix("rfc822msgid:")
            mails = ((uid, folder.mail(uid)) for uid in found)
            return [
                uid for uid, mail in mails if _findable(store, mail) and mail.field("Message-ID").strip("<>") == wanted
            ]
    if not re.fullmatch(r"[\d,:*]+", key):
        raise LookupError(key)
    among = set(uid_set(key, seen, False))
    return [uid for uid in found if uid in among]


def _findable(store: Store, mail: Mail) -> bool:
    return mail.findable <= store.ticks


def _matches(text: str, value: str, how: str) -> bool:
    if how == "words":  # whole ones, as an index has them: punctuation between them is none
        return set(re.findall(r"\w+", value.lower())) <= set(re.findall(r"\w+", text.lower())) and "<" not in value
    return value.lower() in text.lower()


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
