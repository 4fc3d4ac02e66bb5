"""The skeleton is read as the standard library reads it; where readers would differ, reading stops; never slowly."""

import email
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import parameters
from relay.core.parts import leaves


def crlf(text):
    return text.replace("\n", "\r\n").encode()


def read(text):
    content = text if isinstance(text, bytes) else crlf(text)
    return [(leaf.head.kind.decode(), content[leaf.start : leaf.end]) for leaf in leaves(content)]


def multipart(boundary, *parts, kind="mixed", closed=True):
    body = "".join(f"--{boundary}\n{part}\n" for part in parts)
    return f'Content-Type: multipart/{kind}; boundary="{boundary}"\n\n{body}' + (f"--{boundary}--\n" if closed else "")


PLAIN = "Content-Type: text/plain\n\nplain"
HTML = "Content-Type: text/html\n\n<p>html"
BOTH = [("text/plain", b"plain"), ("text/html", b"<p>html")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Subject: x\n\nbody\n", [("text/plain", b"body\r\n")]),
        ("\nbody\n", [("text/plain", b"body\r\n")]),
        ("Content-Type: TEXT/HTML; charset=x\n\nbody\n", [("text/html", b"body\r\n")]),
        ("content-type:\n text/html\n\nbody\n", [("text/html", b"body\r\n")]),
        ("Content-Type: html\n\nbody\n", [("text/plain", b"body\r\n")]),
        ("From ada Thu Jan 31\nContent-Type: text/html\n\nbody\n", [("text/html", b"body\r\n")]),
        (multipart("b", PLAIN, HTML), BOTH),
        (multipart("b", "\nplain", HTML), BOTH),
        (multipart("b", multipart("c", PLAIN, HTML)), BOTH),
        (multipart("b", multipart("bb", PLAIN, HTML)), BOTH),  # one boundary begins with the other
        (multipart("bb", multipart("b", PLAIN, HTML)), BOTH),
        (multipart("b", PLAIN, HTML).replace("--b\n", "--b  \t\n").replace("--b--\n", "--b-- \n"), BOTH),
        (multipart("b", PLAIN, HTML) + "epilogue\n--b\n" + HTML, BOTH),
        (multipart("b", PLAIN, HTML).replace("\n--b", "\npreamble\n--b", 1), BOTH),
        (multipart("b", multipart("c", PLAIN, closed=False).rstrip(), HTML), BOTH),
        (multipart("b", PLAIN, HTML, kind="alternative (of two)"), BOTH),
        (multipart("b", "Subject: x\n\nenclosed", HTML, kind="digest"), [("message/rfc822", b"enclosed"), BOTH[1]]),
        ("Content-Type: multipart/mixed; boundary*0=b; boundary*1=c\n\n--bc\n" + HTML + "\n--bc--\n", BOTH[1:]),
        ("Content-Type: multipart/mixed; boundary*=us-ascii''b%5Fc\n\n--b_c\n" + HTML + "\n--b_c--\n", BOTH[1:]),
        ("Content-Type: multipart/mixed;\n\tboundary=b\n\n--b\n" + HTML + "\n--b--\n", BOTH[1:]),
    ],
)
def test_leaves_are_found(text, expected):
    assert read(text) == expected


def test_a_part_that_is_not_closed_goes_to_the_end():
    assert read(multipart("b", PLAIN, HTML, closed=False)) == [BOTH[0], ("text/html", b"<p>html\r\n")]


@pytest.mark.parametrize("kind", ["signed; protocol=x", "encrypted", "SIGNED"])
def test_what_is_signed_or_encrypted_is_one_leaf(kind):
    head, _, rest = multipart("c", PLAIN, HTML, kind="x").partition("x")
    inner = head + kind + rest

    assert [found for found, _ in read(multipart("b", inner, PLAIN))] == [
        f"multipart/{kind.split(';')[0].lower()}",
        "text/plain",
    ]


@pytest.mark.parametrize("kind", ["message/rfc822", "message/partial", "message/global"])
def test_an_enclosed_message_is_one_leaf(kind):
    enclosed = f"Content-Type: {kind}\n\n" + multipart("c", HTML)

    assert [found for found, _ in read(multipart("b", enclosed, PLAIN))] == [kind, "text/plain"]


@pytest.mark.parametrize(
    "text",
    [
        "Content-Type: text/html\nContent-Type: text/plain\n\nx\n",
        "Content-Type: text/html\nContent-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\n\nx\n",
        "Subject: x\nContent-Type : text/html\n\nx\n",
        "Subject: x\nno field\nContent-Type: text/html\n\nx\n",
        "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\n--b\n" + HTML + "\n--b--\n",
        'Content-Type: multipart/mixed; boundary="b" (comment)\n\n--b\n' + HTML + "\n--b--\n",
        'Content-Type: multipart/mixed; x="; boundary=b\n\n--b\n' + HTML + "\n--b--\n",
        'Content-Type: multipart/mixed; boundary="a\n b"\n\n--a b\n' + HTML + "\n--a b--\n",
        "Content-Type: multipart/mixed; boundary=b\n--b\n" + HTML + "\n--b--\n",
        multipart("b--", multipart("b----", HTML)),
    ],
)
def test_where_readers_would_differ_reading_stops(text):
    assert read(text) == []


@pytest.mark.parametrize(
    "head",
    ["multipart/mixed", 'multipart/mixed; boundary=""', 'multipart/mixed; boundary=" "', "multipart/mixed; charset=b"],
)
def test_a_multipart_without_a_boundary_is_a_leaf(head):
    assert [kind for kind, _ in read(f"Content-Type: {head}\n\n--b\n{HTML}\n--b--\n")] == ["multipart/mixed"]


def test_a_boundary_used_again_inside_belongs_to_the_outer_multipart():
    kinds = [kind for kind, _ in read(multipart("b", multipart("b", PLAIN), HTML))]

    assert kinds == ["multipart/mixed", "text/plain"]


def _nested(depth):
    return b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (level, level) for level in range(depth)
    )


@pytest.mark.parametrize(
    "content",
    [
        _nested(1000) + b"Content-Type: text/html\r\n\r\nx\r\n",
        _nested(1000) + b"\r\n".join(b"--b%d--" % level for level in reversed(range(1000))) + b"\r\n",
        _nested(1000) + b"--b\r\n" * 20_000,
        crlf(multipart("b", *["\nx"] * 10_000)),
        crlf("Content-Type: multipart/mixed; boundary=b\n\n") + b"--b\r\n" * 100_000,
        crlf("Content-Type: multipart/mixed; boundary=b\n\n") + b"--c\r\n" * 100_000,
        crlf("Content-Type: multipart/mixed; boundary=b\n\n") + b"--b\r\nX: y\r\n" * 50_000,
        crlf("Content-Type: multipart/mixed; boundary=b\n\n") + b"--b\r\n" * 4_000_000,
        crlf("Content-Type: multipart/mixed; boundary=b\n\n") + b"--\r\n" * 4_000_000,
        b"Content-Type: multipart/x" + b";a*1=b" * 3_000_000 + b"\r\n\r\n",
        b"X: y\r\n" * 100_000,
        b"X:\r\n" + b" y\r\n" * 100_000,
        b"Content-Type: x/y" + b";a" * 100_000 + b"\r\n\r\n",
        b"Content-Type: multipart/x" + b'; a="' * 50_000 + b"\r\n\r\n",
        b"Content-Type: multipart/x;" + b"boundary*1=a;" * 50_000 + b"\r\n\r\n",
        b"Content-Type: multipart/x; boundary=" + b"b" * 1_000_000 + b"\r\n\r\n" + b"--" + b"b" * 1_000_000,
    ],
)
def test_time_is_linear_in_the_size(content):
    begun = time.process_time()
    sum(1 for _ in leaves(content))

    assert time.process_time() - begun < 2


LINES = st.sampled_from(
    ["--a", "--b", "--a--", "--b--", "--ab", "", "text", "Subject: x", " folded", "Content-Type: text/html", "--"]
    + [
        f'Content-Type: multipart/{kind}; boundary="{name}"'
        for kind in ("mixed", "digest")
        for name in ("a", "b", "ab")
    ]
    + ["Content-Type: message/rfc822", "Content-Transfer-Encoding: base64"]
)


@given(st.lists(LINES, max_size=25).map("\n".join))
def test_the_html_that_is_found_is_html_for_the_standard_library_too(text):
    content = crlf(text + "\n")
    theirs = [
        part.get_payload()
        for part in email.message_from_bytes(content).walk()
        if part.get_content_type() == "text/html" and isinstance(part.get_payload(), str)
    ]
    for leaf in leaves(content):
        if leaf.head.kind == b"text/html" and leaf.start < leaf.end:
            assert content[leaf.start : leaf.end].decode() in theirs


@given(st.binary(max_size=300))
def test_any_bytes_are_taken(content):
    assert all(leaf.start >= 0 and leaf.end <= len(content) for leaf in leaves(content))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"text/html", {}),
        (b"text/html; charset=utf-8", {b"charset": b"utf-8"}),
        (b'text/html;CHARSET = "utf-8" ; x=y', {b"charset": b"utf-8", b"x": b"y"}),
        (b'a/b; x="a\\"b;c"; y=1', {b"x": b'a"b;c', b"y": b"1"}),
        (b"a/b; x=1; x=2", {b"x": b"1"}),
        (b"a/b; x*=utf-8''%C3%BC", {b"x": "ü".encode()}),
        (b"a/b; x*1=b; x*0=a; x*2*=%63", {b"x": b"abc"}),
        (b"a/b; x=plain; x*=utf-8''other", {b"x": b"plain"}),
        (b"a/b;;; =x; y", {}),
    ],
)
def test_parameters_are_read(value, expected):
    assert parameters.read(value) == expected
