"""Replies and forwards of any mail, and HTML that is quoted in them, under fuzz."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser

from relay.core import cleaning, compose, mime, original
from relay.core.address import Mailbox
from relay.core.errors import Refused
from relay.core.tags import VOID
from relay.core.thread import Action, Made, Mine, Wish, make
from tests.fuzz.reading import WORDS as MAIL
from tests.fuzz.reading import original_seeds
from tests.fuzz.target import Target

NOW = datetime(2030, 1, 31, 9, 30, tzinfo=UTC)
ME = "me@here.example"
PAGE = ("<html><body>mine", "</body></html>")
_SCHEME = re.compile(r"\s*([a-z][a-z0-9+.-]*)\s*:", re.IGNORECASE)
_ACTS = re.compile(r"expression\s*\(|@import|url\s*\(", re.IGNORECASE)


def check_thread(data: bytes) -> None:
    """A reply and a forward of any mail can be composed, sent and tidied; what is quoted cannot end its quotation."""
    read = original.read(data)
    silent, rich = Mine({ME}), Mine({ME}, html="".join(PAGE), cids=("pic@x",))
    for action, mine in ((Action.REPLY, rich), (Action.REPLY_ALL, silent), (Action.FORWARD, rich)):
        made = make(read, mine, Wish(action, inline=True, files=True, ours=lambda url: "/t/" in url))
        if made.html:
            sound(made.html.removeprefix(PAGE[0]).removesuffix(PAGE[1]))
        sent(made)


def sent(made: Made) -> None:
    draft = compose.Draft(
        sender=Mailbox("", ME),
        to=made.to,
        cc=made.cc,
        subject=made.subject,
        text=made.text,
        html=made.html,
        attachments=made.attachments,
        headers=made.headers,
    )
    try:
        content = compose.compose(draft, now=NOW, domain="x.example", unique="u")
    except Refused as refused:
        if not refused.key.startswith(("to", "cc")):  # names that no line can hold
            raise
        return
    mail = mime.tidy(content, now=NOW, domain="x.example", unique="u")
    assert mail.content == content.removesuffix(b"\r\n") + b"\r\n", "what we composed is not tidy"
    assert mail.sender == ME


def check_cleaning(data: bytes) -> None:
    """HTML of any kind comes out balanced, with allowed tags and attributes alone, and nothing that acts or fetches."""
    html = data.decode("utf-8", "replace")
    asked: list[str] = []

    def replaced(url: str) -> str | None:
        asked.append(url)
        return None if "gone" in url else url

    cleaned = cleaning.clean(html, replaced)
    shown = sound(f"<blockquote>{cleaned}</blockquote>")
    assert not any("gone" in url for url in shown), "a picture stays that was to go"
    assert sum(url.startswith("cid:") for url in shown) <= sum(url.lower().startswith("cid:") for url in asked)


class _Judge(HTMLParser):
    """Reads what was cleaned as a plain reader would, and holds it to what is allowed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.pictures: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in cleaning.TAGS, f"<{tag}> is not allowed"
        for name, value in attrs:
            assert name in cleaning.ALLOWED[tag], f"<{tag} {name}> is not allowed"
            self._value(tag, name, value or "")
        if tag not in VOID:
            self.open.append(tag)

    def _value(self, tag: str, name: str, value: str) -> None:
        if name in ("href", "src"):
            scheme = _SCHEME.match(value)
            assert scheme is not None, f"{name}={value[:60]!r} leads who knows where"
            assert scheme[1].lower() in cleaning.SCHEMES, f"{name}={value[:60]!r} is not allowed"
            if name == "src":
                self.pictures.append(value)
        if name == "style":
            assert not _ACTS.search(value), f"style={value[:60]!r} acts"

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> ends nothing of its own"
        assert self.open.pop() == tag, f"</{tag}> crosses another"

    def handle_comment(self, data: str) -> None:
        raise AssertionError("a comment")

    def handle_decl(self, decl: str) -> None:
        raise AssertionError("a declaration")

    def handle_pi(self, data: str) -> None:
        raise AssertionError("an instruction")


def sound(html: str) -> list[str]:
    """It is allowed and balanced, all of it; its pictures."""
    judge = _Judge()
    judge.feed(html)
    judge.close()
    assert judge.open == [], f"{judge.open[:5]} are not ended"
    return judge.pictures


PAGES = (
    '<p style="color:red">Hi <b>you</b> <img src="cid:pic@x" alt="x"><a href="https://x.example/">link</a>',
    "<table><tr><td>a<td>b<tr><th>c</table><ul><li>1<li>2</ul><p>one<p>two",
    "<script>alert(1)</script><style>p{}</style><svg onload=x><math><mi xlink:href='javascript:x'></math></svg>",
    '<img src="https://x.example/gone.gif" onerror=x><img src="data:image/png;base64,AA"><img src="data:text/html,x">',
    "<div style=\"background:url(x);position:fixed;width:expression(1)\">x</div><a href='java&#10;script:x'>y</a>",
    "</blockquote></div><b><i></b></i><!-- <p> --><![CDATA[x]]><?x?><!doctype html><p title='a>b'>",
)


def cleaning_seeds() -> Iterator[bytes]:
    yield from (page.encode() for page in PAGES)
    yield "".join(PAGES).encode()
    for word in (
        *("<p>", "<b ", "<", "</p>", "<a href=x>", "<table><td>", "<!--", "<svg>", "<img src=cid:a>", 'a="', "&lt;"),
        *("<font><p>", "<i><b>", "<li>", "<tr>", "<select>", "</", " style=x", "<template>", "=", "<x"),
    ):
        yield b"<p>\xfe" + word.encode() + b"\xfe"


def thread_seeds() -> Iterator[bytes]:
    yield from original_seeds()
    for page in PAGES:
        yield b"From: a@b.example\r\nSubject: Re: x\r\nContent-Type: text/html\r\n\r\n" + page.encode()


HTML = (
    *(
        b"<blockquote>",
        b"</blockquote>",
        b"<table>",
        b"<td>",
        b"</table>",
        b"<script>",
        b"</script>",
        b"<style>",
        b"<svg>",
    ),
    *(
        b"<!--",
        b"-->",
        b"<![CDATA[",
        b"]]>",
        b"<img src=",
        b"cid:pic@x",
        b"javascript:",
        b" style=",
        b" onload=",
        b"<a href=",
    ),
    *(
        b"&#",
        b"&lt;",
        b"data:",
        b"url(",
        b"expression(",
        b"'",
        b'"',
        b">",
        b"</",
        b"/>",
        b"<template>",
        b"<noscript>",
        b"\0",
    ),
    *(b"<select>", b"<form>", b"<math>", b"<p>", b"<b>", b"</b>", b"<font>", b"<textarea>", b"<plaintext>", b"<xmp>"),
)

TARGETS = (
    Target("thread", check_thread, thread_seeds, (*MAIL, *HTML)),
    Target("cleaning", check_cleaning, cleaning_seeds, HTML, longest=1024),
)
