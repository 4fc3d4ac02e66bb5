"""A mail stored in a mailbox (APPEND). Runs in the connection's thread.

Not by imapclient, whose way through imaplib copies the mail and changes line ends in it: ours is stored byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime

from imapclient.datetime_util import datetime_to_INTERNALDATE  # type: ignore[import-untyped]

from relay.net.imapanswers import MOST, Appended
from relay.net.imapfolders import Client
from relay.net.imapmail import SLOWEST, agreed, checked
from relay.net.imapwire import Wire

APPENDUID = re.compile(r"\[APPENDUID (\d{1,20}) (\d{1,20})\]", re.ASCII)
LIMIT = re.compile(r"APPENDLIMIT=(\d{1,20})", re.ASCII)


def append(client: Client, path: str, content: bytes, flags: Collection[str], date: datetime) -> Appended | None:
    """See Mailbox."""
    folder, words = client._normalise_folder(path), f"({' '.join(checked(flags))})"
    limit = _limit(client, path)
    if limit is not None and len(content) > limit:
        raise Wire.error(f"[TOOBIG] a mail may have {limit} bytes there, this one has {len(content)}")
    written = datetime_to_INTERNALDATE(date.astimezone(UTC))
    with client.wire.granted(more=len(content) / SLOWEST):
        typ, said = client.wire.ask("APPEND", folder, words, f'"{written}"', literal=content)
    agreed(typ, said)
    return _place(said)


def _limit(client: Client, path: str) -> int | None:
    """The most bytes of a mail, of all folders or of this one (RFC 7889); None: nobody says."""
    words = client.words()
    if "APPENDLIMIT" in words:
        try:
            found = client.folder_status(path, ("APPENDLIMIT",)).get(b"APPENDLIMIT")
        except Wire.abort:
            raise
        except Wire.error:  # APPEND itself will say why
            found = None
        return found if isinstance(found, int) else None
    return min((int(told[1]) for told in map(LIMIT.fullmatch, words) if told), default=None)


def _place(said: str) -> Appended | None:
    found = APPENDUID.search(said)
    validity, uid = map(int, found.groups()) if found else (0, 0)
    return Appended(validity, uid) if 0 < validity < MOST and 0 < uid < MOST else None
