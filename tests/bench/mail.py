"""What is sent: the same bytes to both systems. Every message bears a mark by which the sink knows it again."""

from __future__ import annotations

import json
import random
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
WORDS = (
    "about again all already answer any ask before begin between budget build call change check choose close come "
    "could customer date day design different done draft early easy every figure find first follow form from give "
    "good group hand happen head help home hour idea invoice keep know large last late leave letter line list little "
    "long look make many meet month move name near need never new next night north note number offer office often old "
    "open order other over page part people place plan point price project question quick read report right room same "
    "send set ship should show side simple small some start still stop such table take team tell test than thing think "
    "time today together turn under until very wait want week well what where while with word work write year yet your"
)
CLOSING = "</body>\r\n</html>\r\n"


def mark(run: str, number: int) -> str:
    """The name of one message: unique in the whole bench, always MARK_SIZE long."""
    return f"{run}-{number:08x}"


def html(size: int) -> str:
    """An HTML document of about that many bytes, always the same. It packs no better than other mail: 4 KB to 40 %."""
    chance = random.Random(size)
    document, left = [OPENING], size - len(OPENING) - len(CLOSING)
    while len(paragraph := _paragraph(chance)) <= left:
        document.append(paragraph)
        left -= len(paragraph)
    return "".join((*document, CLOSING))


def _paragraph(chance: random.Random) -> str:
    words = WORDS.split()
    link = f"https://app.example/items/{chance.getrandbits(64):016x}"
    title, text = (" ".join(chance.choices(words, k=count)).capitalize() for count in (5, chance.randrange(8, 16)))
    return f'<p class="item"><a href="{link}">{title}</a>\r\n{text}.</p>\r\n'


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
