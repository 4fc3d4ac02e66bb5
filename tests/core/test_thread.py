"""Replies and forwards: subject, recipients, thread, quotations that nothing gets out of, files and pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core import compose, prefixes, quoting, tags
from relay.core.address import Mailbox
from relay.core.cleaning import clean
from relay.core.original import Original, read
from relay.core.thread import MOST_REFERENCES, Action, Made, Mine, Wish, make, recipients, subject, thread

ME = "me@shop.example"
OWN = frozenset({ME, "info@shop.example"})


def original(*fields: str, body: str = "Hello.\r\nBye.", kind: str = "text/plain; charset=utf-8") -> Original:
    given = "".join(f"{field}\r\n" for field in fields)
    return read(f"{given}Content-Type: {kind}\r\n\r\n{body}".encode())


def letter(**changed: Any) -> Original:
    fields = {
        "From": "Ada <ada@example.com>",
        "To": ME,
        "Subject": "Hat",
        "Date": "Thu, 31 Jan 2030 09:30:00 +0000",
        "Message-ID": "<1@example.com>",
    } | {name.replace("_", "-"): value for name, value in changed.items() if name not in ("body", "kind")}
    return original(
        *(f"{name}: {value}" for name, value in fields.items() if value is not None),
        **{key: changed[key] for key in ("body", "kind") if key in changed},
    )


def made(it: Original, action: Action = Action.REPLY, *, mine: Mine | None = None, **wished: Any) -> Made:
    return make(it, mine or Mine(OWN, text="Yes."), Wish(action, **wished))


def addresses(boxes: tuple[Mailbox, ...]) -> list[str]:
    return [box.address for box in boxes]


@pytest.mark.parametrize(
    ("before", "reply", "forward"),
    [
        ("Hat", "Re: Hat", "Fwd: Hat"),
        ("", "Re:", "Fwd:"),
        ("Re: Hat", "Re: Hat", "Fwd: Re: Hat"),
        ("RE: re: Hat", "Re: Hat", "Fwd: RE: re: Hat"),
        ("RE[2]: Hat", "Re: Hat", "Fwd: RE[2]: Hat"),
        ("Re^3: Hat", "Re: Hat", "Fwd: Re^3: Hat"),
        ("Re(4): Hat", "Re: Hat", "Fwd: Re(4): Hat"),
        ("Re : Hat", "Re: Hat", "Fwd: Re : Hat"),
        ("AW: Hut", "Re: Hut", "Fwd: AW: Hut"),
        ("AW: WG: Hut", "Re: WG: Hut", "Fwd: AW: WG: Hut"),
        ("SV: Hatt", "Re: Hatt", "Fwd: SV: Hatt"),
        ("WG: Hut", "Re: WG: Hut", "Fwd: Hut"),
        ("TR: Chapeau", "Re: TR: Chapeau", "Fwd: Chapeau"),
        ("Fwd: FW: Hat", "Re: Fwd: FW: Hat", "Fwd: Hat"),
        ("Отв: Шляпа", "Re: Шляпа", "Fwd: Отв: Шляпа"),
        ("回复：帽子", "Re: 帽子", "Fwd: 回复：帽子"),
        ("转发: 帽子", "Re: 转发: 帽子", "Fwd: 帽子"),
        ("Regarding: Hat", "Re: Regarding: Hat", "Fwd: Regarding: Hat"),
        ("Re Hat", "Re: Re Hat", "Fwd: Re Hat"),
    ],
)
def test_the_subject_says_once_what_it_is(before: str, reply: str, forward: str) -> None:
    assert subject(before, Action.REPLY) == reply
    assert subject(before, Action.FORWARD) == forward


@given(st.text(max_size=200))
def test_a_prefix_is_never_doubled(before: str) -> None:
    once = prefixes.answering(before)
    assert prefixes.answering(once) == once


WHO = [
    ({}, Action.REPLY, ["ada@example.com"], []),
    ({"Reply_To": "desk@example.com"}, Action.REPLY, ["desk@example.com"], []),
    ({"Reply_To": "undisclosed:;"}, Action.REPLY, ["ada@example.com"], []),
    ({"Reply_To": "one@-bad-.example"}, Action.REPLY, ["ada@example.com"], []),
    ({"Reply_To": "a@example.com, A@example.com, b@example.com"}, Action.REPLY, ["a@example.com", "b@example.com"], []),
    ({"From": f"Me <{ME.upper()}>", "To": "x@example.com"}, Action.REPLY, ["x@example.com"], []),
    ({"From": ME, "To": f"x@example.com, {ME}", "Reply_To": "y@example.com"}, Action.REPLY, ["x@example.com"], []),
    ({"From": ME, "To": ME, "Reply_To": "visitor@example.com"}, Action.REPLY, ["visitor@example.com"], []),
    ({"From": ME, "To": ME}, Action.REPLY, [ME], []),
    ({"From": ME, "To": None, "Cc": None}, Action.REPLY, [ME], []),
    ({"From": None}, Action.REPLY, [], []),
    (
        {"To": f"{ME}, bob@example.com, ada@example.com", "Cc": "c@example.com, BOB@example.com, info@shop.example"},
        Action.REPLY_ALL,
        ["ada@example.com", "bob@example.com"],
        ["c@example.com"],
    ),
    (
        {"Reply_To": "list@example.com", "To": "list@example.com", "Cc": "c@example.com"},
        Action.REPLY_ALL,
        ["list@example.com"],
        ["c@example.com"],
    ),
    (
        {"From": ME, "To": "x@example.com", "Cc": f"c@example.com, {ME}", "Bcc": "hidden@example.com"},
        Action.REPLY_ALL,
        ["x@example.com"],
        ["c@example.com"],
    ),
    ({"From": ME, "To": ME}, Action.REPLY_ALL, [ME], []),
    ({"Mail_Followup_To": "trap@example.com"}, Action.REPLY_ALL, ["ada@example.com"], []),
    ({"Cc": "c@example.com"}, Action.FORWARD, [], []),
]


@pytest.mark.parametrize(("fields", "action", "to", "cc"), WHO)
def test_who_gets_it(fields: dict[str, str | None], action: Action, to: list[str], cc: list[str]) -> None:
    found = recipients(letter(**fields), OWN, action)
    assert (addresses(found[0]), addresses(found[1])) == (to, cc)


def test_names_go_with_the_addresses() -> None:
    assert made(letter()).to == (Mailbox("Ada", "ada@example.com"),)


THREADS = [
    ({}, "<1@example.com>", "<1@example.com>"),
    ({"References": "<a@x> <b@x>", "In_Reply_To": "<c@x>"}, "<1@example.com>", "<a@x> <b@x> <1@example.com>"),
    ({"In_Reply_To": "<c@x>"}, "<1@example.com>", "<c@x> <1@example.com>"),
    ({"In_Reply_To": "<c@x> <d@x>"}, "<1@example.com>", "<1@example.com>"),
    ({"References": "<a@x> <1@example.com> <b@x>"}, "<1@example.com>", "<a@x> <b@x> <1@example.com>"),
    ({"References": "<a@x>", "Message_ID": None}, None, "<a@x>"),
    ({"Message_ID": "no brackets"}, None, None),
    ({"References": f"<{'l' * 600}@x>"}, "<1@example.com>", "<1@example.com>"),
]


@pytest.mark.parametrize(("fields", "parent", "references"), THREADS)
def test_the_thread_goes_on(fields: dict[str, str | None], parent: str | None, references: str | None) -> None:
    headers = thread(letter(**fields))
    assert (headers.get("In-Reply-To"), headers.get("References")) == (parent, references)


def test_a_long_thread_keeps_its_first_and_its_last() -> None:
    known = thread(letter(References=" ".join(f"<{n}@x>" for n in range(100))))["References"].split()
    assert len(known) == MOST_REFERENCES
    assert (known[0], known[-2:]) == ("<0@x>", ["<99@x>", "<1@example.com>"])


def test_without_inline_nothing_is_quoted() -> None:
    for action in Action:
        found = made(letter(), action, mine=Mine(OWN, "Yes.", "<p>Yes.</p>"))
        assert (found.text, found.html, found.attachments) == ("Yes.", "<p>Yes.</p>", ())


def test_a_reply_quotes_text() -> None:
    found = made(letter(body="Hello,\r\n\r\n> old\r\n  in\r\n"), inline=True)
    assert (
        found.text
        == "Yes.\n\nOn Thu, 31 Jan 2030 at 09:30, Ada <ada@example.com> wrote:\n\n> Hello,\n>\n>> old\n>   in\n"
    )
    assert found.html is None


def test_a_paragraph_is_broken_into_lines_that_fit() -> None:
    found = made(letter(body=f"{'word ' * 60}{'x' * 100} end"), inline=True)
    quoted = [line for line in (found.text or "").split("\n") if line.startswith(">")]
    assert max(len(line) for line in quoted if "xx" not in line) <= quoting.LINE + 2
    assert " ".join(" ".join(line[2:] for line in quoted).split()) == f"{'word ' * 60}{'x' * 100} end"


def test_flowed_text_is_quoted_whole() -> None:
    found = made(letter(body="> one \r\n> two\r\nthree \r\nfour", kind="text/plain; format=flowed"), inline=True)
    assert (found.text or "").endswith("\n>> one two\n> three four\n")


def test_a_forward_has_the_header_and_the_text_as_it_is() -> None:
    found = made(letter(Cc="c@example.com", body="> as it is\r\nbye"), Action.FORWARD, inline=True)
    assert found.text == (
        "Yes.\n\n---------- Forwarded message ----------\n"
        "From: Ada <ada@example.com>\nDate: Thu, 31 Jan 2030 at 09:30\n"
        "Subject: Hat\nTo: <me@shop.example>\nCc: <c@example.com>\n\n> as it is\nbye\n"
    )


def test_time_is_told_in_the_zone_that_is_asked_for() -> None:
    found = made(letter(), inline=True, zone=timezone(timedelta(hours=-10)))
    assert "On Wed, 30 Jan 2030 at 23:30," in (found.text or "")


@pytest.mark.parametrize("day", [datetime.min, datetime.max])
def test_no_date_is_at_fault(day: datetime) -> None:
    assert quoting.moment(day.replace(tzinfo=UTC), timezone(timedelta(hours=-10))) or True
    assert quoting.moment(day.replace(tzinfo=UTC), timezone(timedelta(hours=10))) or True


def test_who_is_quoted_may_be_unknown() -> None:
    assert "somebody wrote:" in (made(letter(From=None, Date=None), inline=True).text or "")


HTML = "<html><head><title>t</title><style>p{}</style></head><body><p>Hi &lt;b&gt;</p></body></html>"


def test_a_reply_quotes_html_before_the_end_of_mine() -> None:
    mine = Mine(OWN, html="<html><body><p>Yes.</p></body></html>")
    html = made(letter(body=HTML, kind="text/html"), mine=mine, inline=True).html or ""
    assert html.startswith("<html><body><p>Yes.</p><br><div>On Thu, 31 Jan 2030 at 09:30, Ada &lt;ada@example.com&gt;")
    assert '<blockquote type="cite"' in html
    assert html.endswith("><p>Hi &lt;b&gt;</p></blockquote></body></html>")


def test_text_is_quoted_in_html_as_text() -> None:
    found = made(letter(body="a < b\r\n  c"), mine=Mine(OWN, html="<p>Yes.</p>"), inline=True)
    assert '<div style="white-space:pre-wrap">a &lt; b\n  c</div></blockquote>' in (found.html or "")
    assert found.text is None


def test_html_is_quoted_in_text_as_text() -> None:
    found = made(letter(body="<p>a</p><p>b &amp; c</p>", kind="text/html"), inline=True)
    assert "> a" in (found.text or "")
    assert "> b & c" in (found.text or "")
    assert found.html is None


def test_a_forward_of_html_is_html_whatever_i_write() -> None:
    found = made(letter(body=HTML, kind="text/html"), Action.FORWARD, inline=True, mine=Mine(OWN, text="<look>"))
    assert (found.html or "").startswith('<div style="white-space:pre-wrap">&lt;look&gt;</div><br><div>----------')
    assert (found.text or "").startswith("<look>\n\n----------")


def test_silence_forwards_what_there_is() -> None:
    rich = made(letter(body=HTML, kind="text/html"), Action.FORWARD, inline=True, mine=Mine(OWN))
    plain = made(letter(), Action.FORWARD, inline=True, mine=Mine(OWN))
    assert "<p>Hi" in (rich.html or "")
    assert "Hi <b>" in (rich.text or "")
    assert (plain.html, "Hello." in (plain.text or "")) == (None, True)


def related(html: str, cid: str = "pic@x") -> Original:
    return letter(
        kind="multipart/related; boundary=b",
        body=f"--b\r\nContent-Type: text/html\r\n\r\n{html}\r\n--b\r\nContent-Type: image/png; name=p.png\r\n"
        f"Content-ID: <{cid}>\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--b--",
    )


@pytest.mark.parametrize("action", list(Action))
def test_pictures_come_along_with_their_cids(action: Action) -> None:
    found = made(related('<img src="CID:pic%40x"><img src="cid:none">'), action, mine=Mine(OWN, html="x"), inline=True)
    assert (found.html or "").count("<img") == 1
    assert 'src="cid:pic@x"' in (found.html or "")
    (picture,) = found.attachments
    assert (picture.cid, picture.disposition, picture.content) == ("pic@x", "inline", b"\0\1\2")


def test_a_cid_that_is_mine_too_is_another() -> None:
    mine = Mine(OWN, html='<img src="cid:pic@x">', cids=("pic@x",))
    found = made(related('<img src="cid:pic@x">'), mine=mine, inline=True)
    (picture,) = found.attachments
    assert picture.cid not in (None, "pic@x")
    assert f'<img src="cid:{picture.cid}">' in (found.html or "")
    assert (found.html or "").startswith('<img src="cid:pic@x">')


FILES = (
    "--b\r\n\r\ntext\r\n--b\r\nContent-Type: text/plain; charset=koi8-r; name=a.txt\r\n\r\nA\r\n"
    "--b\r\nContent-Type: application/pgp-signature\r\n\r\nsigned\r\n"
    "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\n--b--"
)


def test_a_forward_has_the_files_where_they_are_wanted() -> None:
    it = letter(kind="multipart/mixed; boundary=b", body=FILES)
    found = made(it, Action.FORWARD, files=True)
    facts = [(file.filename, file.content_type, file.disposition, file.content) for file in found.attachments]
    assert facts == [
        ("a.txt", "text/plain; charset=koi8-r", "attachment", b"A"),
        ("", "message/rfc822", "attachment", b"Subject: in\r\n"),
    ]
    assert made(it, Action.FORWARD).attachments == ()
    assert made(it, Action.REPLY, files=True).attachments == ()


def test_a_picture_that_is_shown_is_no_file_too() -> None:
    found = made(related('<img src="cid:pic@x">'), Action.FORWARD, mine=Mine(OWN, html="x"), inline=True, files=True)
    assert [file.disposition for file in found.attachments] == ["inline"]
    unshown = made(related("no picture"), Action.FORWARD, mine=Mine(OWN, html="x"), inline=True, files=True)
    assert [file.disposition for file in unshown.attachments] == ["attachment"]


@pytest.mark.parametrize(
    ("html", "gone"),
    [
        ("<script>alert(1)</script>", "alert"),
        ("<p onclick='alert(1)'>x</p>", "alert"),
        ("<a href='javascript:alert(1)'>x</a>", "alert"),
        ("<a href=' JaVa\nScript:alert(1)'>x</a>", "alert"),
        ("<a href='&#106;avascript:alert(1)'>x</a>", "alert"),
        ("<a href='data:text/html,alert(1)'>x</a>", "alert"),
        ("<img src='data:image/svg+xml,alert(1)'>", "alert"),
        ("<a href='\x02data:text/html,alert(1)'>x</a>", "alert"),  # browsers leave such characters out
        ("<img src='\x02\x01 da\nta:text/html,alert(1)'>", "alert"),
        ("<svg onload=alert(1)><p>x</svg>", "alert"),
        ("<form action=/alert><input name=alert></form>", "alert"),
        ("<iframe src=alert></iframe>", "alert"),
        ("<style>alert</style>", "alert"),
        ("<title>alert</title>", "alert"),
        ("<!-- alert -->", "alert"),
        ("<meta http-equiv=refresh content='0;alert'>", "alert"),
        ("<base href=//alert>", "alert"),
        ("<link rel=stylesheet href=alert>", "alert"),
        ("<p style='position:fixed;top:0'>x</p>", "fixed"),
        ("<p style='background:url(//alert)'>x</p>", "alert"),
        ("<p style='color:\\65xpression(alert)'>x</p>", "alert"),
        ("<p style='margin-top:-400px;height:400px'>x</p>", "-400"),
        ("<p style='Margin: 0 calc(0px - 400px)'>x</p>", "400"),
        ("<p style='text-indent:-.5em'>x</p>", "indent"),
        ("</blockquote></div></body><p>x", "</body"),
        ("<math><mi><style><img src=x onerror=alert(1)></style></mi></math>", "alert"),
        ("<noscript><p title='</noscript><img src=x onerror=alert(1)>'>", "onerror="),
        ("<a title='<img onerror=alert(1) src=x>'>x</a>", "<img"),
    ],
)
def test_what_acts_or_escapes_is_taken_out(html: str, gone: str) -> None:
    cleaned = clean(html)
    assert gone not in cleaned
    quoted = made(letter(body=html, kind="text/html"), mine=Mine(OWN, html="mine"), inline=True).html or ""
    assert quoted.endswith("</blockquote>")
    assert quoted.count("</blockquote>") == 1


@pytest.mark.parametrize(
    "html",
    [
        '<p style="color:red;font-family:Arial">x</p>',
        '<table width="100" cellpadding="0" bgcolor="#ffffff"><tbody><tr><td align="left">x</td></tr></tbody></table>',
        '<a href="https://example.com/?a=1&amp;b=2">x</a>',
        '<img src="https://example.com/a.png" width="10" alt="a &gt; b">',
        '<font color="red">x</font><center>y</center>',
        "<ul><li>a</li><li>b</li></ul>",
    ],
)
def test_what_mail_looks_like_stays(html: str) -> None:
    assert clean(html).replace('"a > b"', '"a &gt; b"') == html


@pytest.mark.parametrize(
    ("html", "nested"),
    [
        ("<p>a<p>b<div>c", "<p>a</p><p>b</p><div>c</div>"),
        ("<ul><li>a<li>b<ul><li>c</ul></ul>", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"),
        ("<b><i>x</b>y</i>", "<b><i>x</i></b>y"),
        ("<table><tr><td>x</div></table>", "<table><tr><td>x</td></tr></table>"),
        ("a < b > c & d", "a &lt; b &gt; c & d"),
        ("<br/><hr>", "<br><hr>"),
    ],
)
def test_html_is_well_nested_before_it_is_cleaned(html: str, nested: str) -> None:
    allowed = dict.fromkeys(("p", "div", "ul", "li", "b", "i", "table", "tr", "td", "br", "hr"), ())
    assert tags.trimmed(html, allowed) == nested


def test_our_own_pixel_is_not_quoted() -> None:
    ours: Callable[[str], bool] = lambda url: url.startswith("https://relay/t/")  # noqa: E731
    body = '<p>a</p><img src="https://relay/t/x.gif" width="1" height="1" alt=""><img src="https://other/x.gif">'
    for action in (Action.REPLY, Action.FORWARD):
        found = made(letter(body=body, kind="text/html"), action, mine=Mine(OWN, html="x"), inline=True, ours=ours)
        assert "relay/t" not in (found.html or "")
        assert (found.html or "").count("<img") == 1


SIZE = 1 << 18
CROSSED = "".join(f"<b><font color=a{number}></b>" for number in range(SIZE // 26))
HOSTILE = {
    "levels": "<div>" * (SIZE // 5),
    "unended": "<i></p>" * (SIZE // 7),
    "crossed": CROSSED,
    "items": "<dt><li>" * (SIZE // 8),
    "attributes": "<p " + " ".join(f"a{number}" for number in range(SIZE // 8)) + ">",
    "quotes": "<a b='" * (SIZE // 6),
    "less": "<" * SIZE,
    "comments": "<!--" * (SIZE // 4),
    "pictures": '<img alt="" ' + 'title="" ' * (SIZE // 9) + ">",
    "raw": "<script></script" * (SIZE // 16),
    "words": "x" * SIZE,
    "blanks": " " * SIZE,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_html_is_quoted_in_a_moment(name: str) -> None:
    it = letter(body=HOSTILE[name], kind="text/html")
    begun = time.process_time()
    made(it, mine=Mine(OWN, "x", "x"), inline=True)
    assert time.process_time() - begun < 10  # under one, where nobody else wants the processor


FRAGMENTS = st.sampled_from(
    (
        *("<p>", "</p>", "<b ", "a='", '"', ">", "<", "</", "<!--", "-->", "<script>", "</script>", "x", "&lt;"),
        *("<td>", "</table>", "<img src=", "cid:a", "javascript:", "style=", "=", "/", "<svg>", "</svg>", "\0"),
        *("<a href=x>", "<table>", "<blockquote>", "</blockquote>"),
    )
)


@given(st.lists(FRAGMENTS, max_size=60))
@settings(max_examples=200, deadline=None)
def test_whatever_is_quoted_ends_with_its_quotation(pieces: list[str]) -> None:
    it = letter(body="".join(pieces), kind="text/html")
    html = made(it, mine=Mine(OWN, html="mine"), inline=True).html or ""
    assert html.count("<blockquote") == html.count("</blockquote>")
    assert html.endswith("</blockquote>")
    assert "<script" not in html


@given(st.binary(max_size=600), st.sampled_from(Action))
@settings(max_examples=150, deadline=None)
def test_what_is_made_of_anything_can_be_composed(raw: bytes, action: Action) -> None:
    found = make(read(raw), Mine(OWN), Wish(action, inline=True, files=True))
    draft = compose.Draft(
        sender=Mailbox("", ME),
        to=found.to,
        cc=found.cc,
        subject=found.subject,
        text=found.text,
        html=found.html,
        attachments=found.attachments,
        headers=found.headers,
    )
    assert compose.compose(draft, now=datetime.now(UTC), domain="x.example", unique="u")
