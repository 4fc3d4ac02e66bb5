"""Where a mail is in a mailbox, as one opaque word: the id of a message in the API.

It stays true while the folder's UIDVALIDITY does.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

LONGEST = 8192  # characters of an id
MOST = 1 << 63


@dataclass(frozen=True, slots=True)
class Place:
    """A folder's path, its UIDVALIDITY, and the mail's UID in it."""

    path: str
    uidvalidity: int
    uid: int


def spell(place: Place) -> str:
    """The id: base64url, without padding."""
    text = json.dumps([place.uidvalidity, place.uid, place.path], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def read(text: str) -> Place:
    """The place that `spell` wrote. Raises ValueError for everything else."""
    try:
        if len(text) > LONGEST or not text.isascii():
            raise ValueError
        whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        uidvalidity, uid, path = json.loads(whole.decode("utf-8", "surrogatepass"))
        place = Place(path, uidvalidity, uid)
        good = type(uid) is int and type(uidvalidity) is int and isinstance(path, str) and path != ""
        if not good or not 0 < uid < MOST or not 0 <= uidvalidity < MOST or spell(place) != text:
            raise ValueError
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise ValueError("is no id of a message") from None
    return place
