"""A mail read as a person sees it: charsets, encodings, forms, files; hostile mail costs little and never raises."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.core import flowed
from relay.core.address import Mailbox
from relay.core.original import Original, read
from relay.core.pieces import DEPTH, PARTS


def mail(*lines: str | bytes) -> Original:
    return read(b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))


def parts(kind: str, *pieces: str, boundary: str = "b") -> str:
    body = "".join(f"--{boundary}\r\n{piece}\r\n" for piece in pieces)
    return f"Content-Type: multipart/{kind}; boundary={boundary}\r\n\r\npreamble\r\n{body}--{boundary}--\r\nepilogue"


def leaf(kind: str, body: str, *fields: str) -> str:
    return "\r\n".join((f"Content-Type: {kind}", *fields, "", body))


def test_the_header_is_decoded() -> None:
    found = mail(
        "From: =?utf-8?q?Zo=C3=AB?= <zoe@example.com>",
        'To: "Doe, Ann" <ann@example.com>,',
        " bob@example.com",
        "Cc: Team: c@example.com, d@example.com;",
        "Reply-To: desk@example.com",
        "Subject: =?iso-8859-1?q?Gr=FC=DFe?=",
        " aus =?utf-8?b?4oKs?=",
        "Date: Thu, 31 Jan 2030 09:30:00 +0200",
        "Message-ID:",
        " <1@example.com>",
        "In-Reply-To: Your message <0@example.com>",
        "References: <a@x> junk <b@x>",
        "",
        "Hi",
    )
    assert found.sender == (Mailbox("Zoë", "zoe@example.com"),)
    assert found.to == (Mailbox("Doe, Ann", "ann@example.com"), Mailbox("", "bob@example.com"))
    assert [box.address for box in found.cc] == ["c@example.com", "d@example.com"]
    assert found.reply_to == (Mailbox("", "desk@example.com"),)
    assert found.subject == "Grüße aus €"
    assert found.date is not None
    assert found.date.utcoffset() == timedelta(hours=2)
    assert (found.message_id, found.in_reply_to) == ("<1@example.com>", ("<0@example.com>",))
    assert found.references == ("<a@x>", "<b@x>")
    assert found.text == "Hi"


def test_the_sender_stands_in_for_a_missing_from() -> None:
    assert mail("Sender: s@example.com", "", "").sender == (Mailbox("", "s@example.com"),)


@pytest.mark.parametrize(
    ("kind", "encoding", "body", "text"),
    [
        ("text/plain; charset=utf-8", "quoted-printable", b"Gr=C3=BC=C3=9F=\r\ne", "Grüße"),
        ("text/plain; charset=iso-8859-1", "8bit", b"Gr\xfc\xdfe \x80", "Grüße €"),
        ("text/plain; charset=utf-8", "base64", b"R3LDvMOfZQ==", "Grüße"),
        ("text/plain; charset=utf-8", "base64", b"R3LD\r\nvMOf!ZQ", "Grüße"),
        ("text/plain; charset=us-ascii", "8bit", "Grüße".encode(), "Grüße"),
        ("text/plain; charset=utf-8", "8bit", "Grüße".encode("cp1252"), "Grüße"),
        ("text/plain; charset=koi8-r", "8bit", "Привет".encode("koi8-r"), "Привет"),
        ("text/plain; charset=no-such", "8bit", "Grüße".encode(), "Grüße"),
        ("text/plain", "7bit", b"\x1b$B%F\x1b(B", "テ"),
        ("text/plain; charset=gb2312", "8bit", "你好".encode("gb2312"), "你好"),
        ("text", "nonsense", b"still read", "still read"),
        ("text/plain", "quoted-printable", b"a=ZZb=", "a=ZZb"),
    ],
)
def test_text_comes_out_of_its_encoding_and_charset(kind: str, encoding: str, body: bytes, text: str) -> None:
    assert mail(f"Content-Type: {kind}", f"Content-Transfer-Encoding: {encoding}", "", body).text == text


def test_the_whole_of_a_message_is_no_file_though_it_has_a_name() -> None:
    assert mail("Content-Type: text/html; name=a.html", "", "<p>").html == "<p>"
    found = mail("Content-Type: text/html; name=a.html", "Content-Disposition: attachment", "", "<p>")
    assert (found.html, found.files[0].filename) == ("", "a.html")


def test_html_may_name_its_charset_itself() -> None:
    html = b'<meta http-equiv="x" content="text/html; charset=koi8-r">' + "Привет".encode("koi8-r")
    assert mail("Content-Type: text/html", "", html).html.endswith("Привет")


def test_text_and_html_are_two_forms_of_one() -> None:
    found = mail(parts("alternative", leaf("text/plain", "plain"), leaf("text/html", "<p>rich</p>")))
    assert (found.text, found.html, found.files) == ("plain", "<p>rich</p>", ())


def test_a_footer_beside_the_two_forms_stands_in_both() -> None:
    inner = parts("alternative", leaf("text/plain", "plain"), leaf("text/html", "<p>rich</p>"), boundary="c")
    found = mail(parts("mixed", inner, leaf("text/plain", "the <list>")))
    assert found.text == "plain\nthe <list>"
    assert found.html == '<p>rich</p>\n<div style="white-space:pre-wrap">the &lt;list&gt;</div>'


def test_files_keep_their_bytes_names_and_cids() -> None:
    picture = leaf("image/png", "AAEC", "Content-Transfer-Encoding: base64", "Content-ID: <pic@x>")
    named = leaf(
        "text/plain; charset=koi8-r", "a\r\nb", 'Content-Disposition: attachment; filename="=?utf-8?q?=C3=A4?="'
    )
    coded = leaf("application/pdf", "x", "Content-Disposition: attachment; filename*=iso-8859-1''%E4.pdf")
    other = leaf("image/gif", "y", "Content-Disposition: inline; filename*0=a; filename*1=b.gif")
    found = mail(
        parts("mixed", parts("related", leaf("text/html", "<img>"), picture, boundary="c"), named, coded, other)
    )
    facts = [(file.kind, file.filename, file.cid, file.inline, file.content) for file in found.files]
    assert facts == [
        ("image/png", "", "pic@x", True, b"\0\1\2"),
        ("text/plain", "ä", "", False, b"a\r\nb"),
        ("application/pdf", "ä.pdf", "", False, b"x"),
        ("image/gif", "ab.gif", "", True, b"y"),
    ]
    assert found.files[1].charset == "koi8-r"
    assert (found.text, found.html) == ("", "<img>")


def test_an_enclosed_message_is_a_file_and_none_of_its_parts_are() -> None:
    inside = "Subject: in\r\nContent-Type: multipart/mixed; boundary=z\r\n\r\n--z\r\n\r\nhidden\r\n--z--"
    found = mail(parts("mixed", leaf("text/plain", "out"), leaf("message/rfc822", inside)))
    assert found.text == "out"
    assert [(file.kind, file.content.decode()) for file in found.files] == [("message/rfc822", inside)]


def test_an_invitation_is_kept_and_another_form_of_the_text_is_not() -> None:
    forms = (leaf("text/plain", "a"), leaf("text/x-amp-html", "b"), leaf("text/calendar; method=REQUEST", "c"))
    found = mail(parts("alternative", *forms))
    assert [(file.kind, file.method) for file in found.files] == [("text/calendar", "request")]


def test_a_boundary_that_begins_like_another_is_another() -> None:
    inner = parts("alternative", leaf("text/plain", "in"), boundary="b2")
    assert mail(parts("mixed", inner, leaf("text/plain", "out"))).text == "in\nout"


def test_a_last_part_without_its_delimiter_is_read() -> None:
    assert mail("Content-Type: multipart/mixed; boundary=b", "", "--b", "", "cut sho").text == "cut sho"


def test_a_multipart_without_parts_is_text() -> None:
    assert mail("Content-Type: multipart/mixed", "", "just text").text == "just text"


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_either_line_end_will_do(end: bytes) -> None:
    lines = (
        b"From x\nSubject: s\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n\n<p>\n--b--\n"
    )
    found = read(lines.replace(b"\n", end))
    assert (found.subject, found.html) == ("s", "<p>")


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("one \ntwo\nthree", "one two\nthree"),
        ("> a \n> b\nc", "> a b\nc"),
        (">> a \n> b", ">> a \n> b".replace(" \n", "\n")),
        (" > no mark\n From here", "> no mark\nFrom here"),
        ("x \n-- \nAnn", "x \n-- \nAnn"),
        ("end ", "end "),
    ],
)
def test_soft_line_breaks_are_none(sent: str, shown: str) -> None:
    assert flowed.joined(sent) == shown


def test_delsp_takes_the_blank_away() -> None:
    assert flowed.joined("日 \n本", delsp=True) == "日本"


def test_flowed_text_is_read_so_in_a_mail() -> None:
    assert mail("Content-Type: text/plain; format=Flowed", "", "a ", "b").text == "a b"


@pytest.mark.parametrize("control", [b"\0", b"\x07", b"\x7f", "\x85".encode()])
def test_an_id_with_a_control_character_in_it_is_none(control: bytes) -> None:
    """The store could not hold some, and no header field may."""
    found = mail(
        b"Message-ID: <a%b@x>" % control, b"In-Reply-To: <b%b@x>" % control, b"References: <a@x> <c%b>" % control
    )
    assert (found.message_id, found.in_reply_to, found.references) == ("", (), ("<a@x>",))


@given(st.binary(max_size=2000))
@settings(max_examples=150, deadline=None)
def test_nothing_makes_it_raise(raw: bytes) -> None:
    read(raw)


PIECES = st.sampled_from(
    (
        *(
            b"\r\n",
            b"\n",
            b" ",
            b"--b",
            b"--",
            b"Content-Type: ",
            b"multipart/mixed; boundary=b",
            b"text/html",
            b'"',
            b";",
        ),
        *(
            b"message/rfc822",
            b"Content-Transfer-Encoding: base64",
            b"charset=",
            b"utf-7",
            b"=?utf-8?q?",
            b"?=",
            b"\xff",
        ),
        *(b"From: ", b"<a@b>", b"(", b",", b"Date: ", b"Thu, 31 Jan 2030 09:30:00 +9999", b"filename*0*=", b"%ff"),
        *(b"format=flowed", b"> ", b"Content-Disposition: ", b"References: ", b"\0"),
    )
)


@given(st.lists(PIECES, max_size=80))
@settings(max_examples=150, deadline=None)
def test_no_mail_made_of_mail_makes_it_raise(pieces: list[bytes]) -> None:
    read(b"".join(pieces))


def nested(levels: int) -> bytes:
    head = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(levels))
    return head + b"\r\nin"


HOSTILE = {
    "levels": nested(20_000),
    "parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 200_000,
    "almost parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + b"--bb\r\n" * 200_000,
    "same boundary": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    + b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" * 30_000,
    "fields": b"a: b\r\n" * 200_000,
    "folds": b"To: a" + b"\r\n ," * 300_000,
    "words": b"Subject: " + b"=?utf-8?q?" * 100_000,
    "references": b"References: " + b"<" * 1_000_000,
    "addresses": b"To: " + b'"' * 100_000 + b"(" * 100_000 + b"<" * 100_000,
    "flowed": b"Content-Type: text/plain; format=flowed\r\n\r\n" + b"> \r\n" * 250_000,
    "blank lines": b"a: b\r\n" + b" \r\n" * 300_000,
    "parameters": b"Content-Type: multipart/mixed" + b';a="' * 200_000,
    "base64": b"Content-Transfer-Encoding: base64\r\n\r\n" + b"=" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mail_is_read_in_a_moment(name: str) -> None:
    begun = time.process_time()
    found = read(HOSTILE[name])
    found.readable  # noqa: B018
    assert time.process_time() - begun < 10  # under one, where nobody else wants the processor
    assert len(found.files) <= PARTS


def test_what_lies_too_deep_is_not_looked_at() -> None:
    assert "--b" in read(nested(DEPTH + 2)).text
    assert read(nested(DEPTH)).text == "in"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<head><style>p{}</style></head><body><p>Red?</p><script>x()</script></body>", "Red?"),
        ("İ<STYLE >p{}</Style\r\n><p>Red?</p>", "İ\nRed?"),
        (
            "<body>\r\n  <div>\r\n    <p>Hello   there,</p>\r\n    <p>\r\n      red?\r\n    </p>\r\n  </div>",
            "Hello there,\n\nred?",
        ),
    ],
)
def test_html_reads_as_text_does(html: str, text: str) -> None:
    assert mail("Content-Type: text/html; charset=utf-8", "", html).readable == text
