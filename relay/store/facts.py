"""What events say, where SQL says it: the part that all events about a delivery share, and those about a login."""

from __future__ import annotations

import json
from typing import Any

from relay.core.reply import Reply

# Of a delivery `d` and its message `m`; the same as relay/reading.py tells after a try.
DELIVERY = """
jsonb_build_object('queueId', replace(m.id::text, '-', ''), 'messageId', m.message_id, 'recipient', d.recipient,
    'envelope', jsonb_build_object('from', m.sender, 'to', jsonb_build_array(d.recipient)))
"""


def trouble(reason: str, reply: Reply | None) -> str:
    """Data of connectError and authenticationError, as JSON: why in our words, and what upstream said."""
    data: dict[str, Any] = {"reason": reason, "response": reason, "serverResponseCode": None}
    if reply is not None:
        data |= {"response": str(reply), "serverResponseCode": str(reply.code) if reply.code else None}
    return json.dumps(data)
