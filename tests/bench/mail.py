"""What is sent: the same bytes to both systems. Every message bears a mark by which the sink knows it again."""

from __future__ import annotations

import json
from collections.abc import Callable

SENDER = "app@sender.example"  # of the account that tracks opens
PLAIN_SENDER = "app@plain.example"  # of the one that does not
MARK = b"X-Bench: "
MARK_SIZE = 17  # run and number, eight hex digits each, and a dash

HEADER = (
    f"From: The application <{SENDER}>\r\n"
    "To: A reader <reader@readers.example>\r\n"
    "Subject: What happened in your project this week\r\n"
    "Date: Mon, 02 Nov 2026 09:00:00 +0000\r\n"
    "Message-ID: <{mark}@sender.example>\r\n"
    "MIME-Version: 1.0\r\n"
    "Content-Type: text/html; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 7bit\r\n"
    "X-Bench: {mark}\r\n"
    "\r\n"
)
OPENING = "<!doctype html>\r\n<html><head><title>This week</title></head>\r\n<body>\r\n"
PARAGRAPH = '<p class="item"><a href="https://app.example/items/1">One more item</a> was moved to done by Ada.</p>\r\n'
CLOSING = "</body>\r\n</html>\r\n"


def mark(run: str, number: int) -> str:
    """The name of one message: unique in the whole bench, always MARK_SIZE long."""
    return f"{run}-{number:08x}"


def html(size: int) -> str:
    """An HTML document of about that many bytes."""
    paragraphs = max(size - len(OPENING) - len(CLOSING), 0) // len(PARAGRAPH)
    return OPENING + PARAGRAPH * paragraphs + CLOSING


def content(run: str, size: int) -> Callable[[int], bytes]:
    """Gives message n of a run as the client writes it after 354: `size` bytes and the final dot."""
    whole = HEADER + html(size - len(HEADER))
    pieces = [piece.encode() for piece in whole.split("{mark}")]

    def number(n: int) -> bytes:
        return mark(run, n).encode().join(pieces) + b".\r\n"

    return number


def submission(run: str, size: int) -> Callable[[int], bytes]:
    """Gives message n of a run as the JSON of an API submit."""
    body = {
        "from": {"name": "The application", "address": SENDER},
        "to": [{"name": "A reader", "address": recipients(1)[0]}],
        "subject": "What happened in your project this week",
        "html": html(size - len(HEADER)),
        "headers": {"X-Bench": "{mark}"},
    }
    before, after = (piece.encode() for piece in json.dumps(body).split("{mark}"))

    def number(n: int) -> bytes:
        return before + mark(run, n).encode() + after

    return number


def recipients(count: int, domain: str = "readers.example") -> list[str]:
    """The envelope recipients of one message."""
    return [f"reader{number}@{domain}" for number in range(count)]
