"""Nothing that is submitted ends its own message early at the next server, whatever that server takes for an end."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from relay.store import db
from tests.api.client import Client
from tests.api.test_api_submit import HELLO, SUBMIT, stored

ENDS = ["\r\n.\r\n", "\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r.\n", "\n\n.\n\n"]
SMUGGLED = "MAIL FROM:<eve@evil.example>\r\nRCPT TO:<ann@x.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n"
BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
LETTER = "From: shop@example.com\r\nTo: ann@x.example\r\nSubject: x\r\n\r\n"


def given(place: str, end: str) -> dict[str, Any]:
    text = f"one{end}{SMUGGLED}"
    packed = base64.b64encode((LETTER + text).encode()).decode()
    match place:
        case "raw":
            return {"raw": packed}
        case "enclosed":
            return {**HELLO, "attachments": [{"content": packed, "contentType": "message/rfc822"}]}
        case _:
            return {**HELLO, place: text}


@pytest.mark.parametrize("place", ["raw", "text", "html", "enclosed"])
async def test_no_content_has_a_line_end_that_is_not_crlf(admin: Client, shop: str, pool: db.Pool, place: str) -> None:
    """Without one, CRLF.CRLF is the only end there is; and of that the dot is doubled as it is sent (RFC 5321)."""
    offenders = []
    for end in ENDS:
        status, answer = await admin.ask("POST", SUBMIT, given(place, end))
        if status != 400 and BARE.search((await stored(pool, answer["queueId"]))["content"]):
            offenders.append((end, status))
    assert offenders == []
    assert (await admin.ask("POST", SUBMIT, given(place, "\r\n.\r\n")))[0] == 200
