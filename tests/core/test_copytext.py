"""The Sent copy as bytes: Bcc and the provider's addresses go in, all else stays; pixels are found in any coat."""

from __future__ import annotations

import base64
import quopri
from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import copytext, pixel, splice

HEAD = b"Received: x\r\nFrom: ann@example.com\r\nTo: bo@example.org,\r\n cy@example.org\r\nSubject: Hi\r\n"
MAIL = HEAD + b"Cc: di@example.org\r\nMessage-ID: <1@x>\r\n\r\nTo: is no field here\r\n"
TOKEN = pixel.sign([b"k" * 32], 7)
TAG = pixel.tag("https://mail.example.com", TOKEN)
NAME = frozenset({TOKEN.encode()})


def test_without_bcc_and_provider_the_copy_is_the_stored_message() -> None:
    assert copytext.write(MAIL, ()) == MAIL


def test_bcc_stands_behind_the_last_address_field_and_nothing_else_changes() -> None:
    copy = copytext.write(MAIL, ("eve@example.net", "fay@example.net"))
    assert copy == MAIL.replace(b"di@example.org\r\n", b"di@example.org\r\nBcc: eve@example.net, fay@example.net\r\n")


def test_a_long_bcc_is_folded_and_reads_as_it_was_given() -> None:
    given = [f"somebody-{number}@example.net" for number in range(200)]
    copy = copytext.write(MAIL, given)
    assert max(map(len, copy.split(b"\r\n"))) < 100
    read = message_from_bytes(copy, policy=policy.default)["Bcc"]
    assert [box.addr_spec for box in read.addresses] == given


def test_a_bcc_beyond_ascii_stays_an_address() -> None:
    copy = copytext.write(MAIL, ("zoë@exämple.net",))
    assert "Bcc: zoë@exämple.net\r\n".encode() in copy
    assert copytext.names_all(copy, ("zoë@exämple.net",))


def test_without_address_fields_bcc_ends_the_header() -> None:
    assert copytext.write(b"Subject: x\r\n\r\nbody\r\n", ("a@b.c",)) == b"Subject: x\r\nBcc: a@b.c\r\n\r\nbody\r\n"


def test_a_message_without_header_gets_one() -> None:
    assert copytext.write(b"\r\nbody\r\n", ("a@b.c",)) == b"Bcc: a@b.c\r\n\r\nbody\r\n"


def test_the_provider_s_address_fields_take_the_place_of_ours_byte_for_byte() -> None:
    theirs = b'FROM:  "Ann"\t<ann@corp.example>\r\nTo: bo@example.org, \r\n\tcy@example.org\r\n'
    copy = copytext.write(MAIL, ("e@x.y",), theirs)
    assert copy == (
        b'Received: x\r\nFROM:  "Ann"\t<ann@corp.example>\r\nTo: bo@example.org, \r\n\tcy@example.org\r\n'
        b"Subject: Hi\r\nCc: di@example.org\r\nBcc: e@x.y\r\nMessage-ID: <1@x>\r\n\r\nTo: is no field here\r\n"
    )


def test_a_field_that_only_the_provider_has_is_added() -> None:
    mail = b"From: a@b.c\r\nSubject: s\r\n\r\nb\r\n"
    copy = copytext.write(mail, (), b"From: A <a@b.c>\r\nTo: u@v.w\r\n")
    assert copy == b"From: A <a@b.c>\r\nTo: u@v.w\r\nSubject: s\r\n\r\nb\r\n"


def test_two_fields_of_a_name_become_what_the_provider_made_of_them() -> None:
    mail = b"To: a@b.c\r\nSubject: s\r\nTo: d@e.f\r\n\r\nb\r\n"
    assert copytext.write(mail, (), b"To: a@b.c, d@e.f\r\n") == b"To: a@b.c, d@e.f\r\nSubject: s\r\n\r\nb\r\n"


def test_addresses_are_read_from_the_header_alone_and_whole() -> None:
    assert copytext.addresses(HEAD + b"\r\n") == b"From: ann@example.com\r\nTo: bo@example.org,\r\n cy@example.org\r\n"


def test_a_header_that_was_cut_off_has_none() -> None:
    assert copytext.addresses(HEAD) == b""


def test_bcc_counts_when_it_names_everybody() -> None:
    header = b"Bcc: Eve <EVE@example.net>,\r\n fay@example.net\r\n\r\n"
    assert copytext.names_all(header, ("eve@example.net", "Fay@example.net"))
    assert not copytext.names_all(header, ("eve@example.net", "gus@example.net"))
    assert copytext.names_all(b"Subject: x\r\n\r\n", ())


@pytest.mark.parametrize(
    ("header", "same"),
    [
        (b"Message-ID: <1@x>\r\n\r\n", True),
        (b"message-id:\r\n <1@x>\r\n\r\n", True),
        (b"Message-ID: 1@x\r\n\r\n", True),
        (b"Message-ID: <11@x>\r\n\r\n", False),
        (b"In-Reply-To: <1@x>\r\n\r\n", False),
        (b"Subject: x\r\n\r\n", False),
    ],
)
def test_a_message_is_known_by_its_id(header: bytes, same: bool) -> None:
    assert copytext.has_id(header, "<1@x>") is same


def test_no_message_has_no_id() -> None:
    assert not copytext.has_id(b"Message-ID: \r\n\r\n", "")


def test_what_came_in_here_says_so() -> None:
    assert copytext.delivered(b"Subject: x\r\nDelivered-To: ann@example.com\r\n\r\n")
    assert not copytext.delivered(b"Received: x\r\nSubject: Delivered-To: x\r\n\r\n")


HTML = f"<html><body><p>Grüße = hier</p>{TAG}</body></html>"


@pytest.mark.parametrize(
    "body",
    [
        HTML.encode(),
        quopri.encodestring(HTML.encode()),
        base64.encodebytes(HTML.encode()),
        base64.encodebytes(HTML.encode()).replace(b"\n", b"\r\n"),
        base64.b64encode(HTML.encode()),
        base64.encodebytes(HTML.encode("utf-16")),
        HTML.encode("utf-16-le"),
        HTML.replace("https://mail.example.com", "http://other.example").encode(),
    ],
    ids=["plain", "quoted", "base64", "base64 with CRLF", "one line", "utf-16 in base64", "utf-16", "another host"],
)
def test_a_pixel_is_found_however_it_is_encoded(body: bytes) -> None:
    assert (
        copytext.pixels(b"Subject: x\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n" + body + b"\r\n--b--\r\n") == NAME
    )


@given(st.text(max_size=400), st.sampled_from(["7bit", "quoted-printable", "base64"]))
def test_a_pixel_that_we_put_in_is_found(text: str, encoding: str) -> None:
    html = f"<html><body>{text.replace('<', '')}</body></html>".encode(errors="replace").replace(b"\r", b"")
    body = {
        "7bit": html.replace(b"\n", b"\r\n").replace(b"\0", b""),
        "quoted-printable": quopri.encodestring(html).replace(b"\n", b"\r\n"),
        "base64": base64.encodebytes(html).replace(b"\n", b"\r\n"),
    }[encoding]
    head = f"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode()
    found = splice.find(head + body)
    if found is not None:
        assert copytext.pixels(b"".join(splice.render(head + body, found, TAG))) == NAME
    assert copytext.pixels(head + body) == frozenset()


def test_other_pictures_are_no_pixels() -> None:
    assert copytext.pixels(b'<img src="https://x/t/logo.gif"><img src="/t/%b.png">' % TOKEN.encode()) == frozenset()


@given(st.binary(max_size=300), st.lists(st.emails(), max_size=3), st.binary(max_size=100))
def test_nothing_makes_it_raise(content: bytes, bcc: list[str], theirs: bytes) -> None:
    copy = copytext.write(content, bcc, copytext.addresses(theirs))
    assert len(copy) >= len(content) - len(content.partition(b"\r\n\r\n")[0]) - 4
    copytext.pixels(content)
    copytext.has_id(content, "<1@x>")
    copytext.delivered(content)
