"""Waiting for mail (IDLE, RFC 2177). Runs in the connection's thread.

Not by imapclient, which takes what a server says before it agrees for a refusal, and loses lines under TLS.
"""

from __future__ import annotations

import time

from relay.net.imapfaults import Unsupported
from relay.net.imapfolders import Client
from relay.net.imapmail import agreed
from relay.net.imapwire import Wire, spoken

LONGEST = 29 * 60.0  # seconds, after which a server may take us for gone


def wait(client: Client, seconds: float) -> bool:
    """See Mailbox. The connection is always left ready for the next command, or lost."""
    wire = client.wire
    if "IDLE" not in client.words():
        raise Unsupported("does not offer IDLE")
    if wire.changes == wire.seen:
        _idle(wire, min(seconds, LONGEST))
    changed, wire.seen = wire.changes != wire.seen, wire.changes
    return changed


def _idle(wire: Wire, seconds: float) -> None:
    tag, until = wire._command("IDLE"), time.monotonic() + seconds
    while wire._get_response():  # until it says +
        if wire.tagged_commands[tag]:
            return _end(wire, tag)
    while wire.changes == wire.seen and wire.stirs(until):
        wire._get_response()
        if wire.tagged_commands[tag]:  # it ends this by itself
            return _end(wire, tag)
    wire.renew()
    wire.send(b"DONE\r\n")
    return _end(wire, tag)


def _end(wire: Wire, tag: bytes) -> None:
    typ, data = wire._get_tagged_response(tag)
    agreed(typ, spoken(data))
