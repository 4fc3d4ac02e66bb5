"""The splice under fuzz: any bytes, and what every reader finds around the pixel."""

from __future__ import annotations

import binascii
import email
import json
import re
from collections.abc import Iterator

from relay.core import splice
from relay.core.model import Splice
from relay.core.parts import Leaf, leaves
from tests.fuzz.target import Target

TAG = '<img src="https://mail.example.com/t/AbCdEfGhIjKlMnOpQrStUvWxYz012345.gif" width="1" height="1" alt="">'
_WORDS = TAG.split(" ")


def check(content: bytes) -> None:
    """Nothing raises; in a message that is let in, the pixel alone comes in, where HTML is shown, for every reader."""
    found = splice.find(content)
    if found is None:
        return
    assert 0 <= found.start <= found.end <= len(content)
    assert splice.load(json.loads(json.dumps(splice.dump(found)))) == found
    before, pixel, after = splice.render(content, found, TAG)
    assert content.startswith(before)
    assert content.endswith(after)
    assert len(before) == found.start
    assert len(after) == len(content) - found.end
    _kept(content, found)
    if b"\0" not in content and content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n"):
        made = before + pixel + after
        _lines(content, made)
        ours(content, made, found)
        theirs(content, made)


def _kept(content: bytes, found: Splice) -> None:
    """What is cut out between the slices is in the pixel's own piece again."""
    cut = content[found.start : found.end]
    match found.encoding:
        case "base64":
            assert binascii.a2b_base64(cut) == found.before + found.after
        case "quoted-printable":
            assert cut == found.before
        case _:
            assert cut == found.before == found.after == b""


def _lines(content: bytes, made: bytes) -> None:
    """CRLF stays the only end of a line, and no line that was short becomes too long."""
    assert made.count(b"\r") == made.count(b"\n") == made.count(b"\r\n")
    longest = max(map(len, content.split(b"\r\n")))
    assert max(map(len, made.split(b"\r\n"))) <= max(998, longest + len("<img"))


def ours(content: bytes, made: bytes, found: Splice) -> None:
    """Both have the same parts; one of them differs, by the tag alone, once it is decoded."""
    pairs = list(zip(leaves(content), leaves(made), strict=True))
    bodies = [(body(content, one), body(made, other)) for one, other in pairs]
    changed = [place for place, (one, other) in enumerate(bodies) if one != other]
    assert len(changed) == 1, f"{len(changed)} parts differ"
    leaf = pairs[changed[0]][0]
    assert leaf.head.kind == b"text/html"
    assert not leaf.head.attachment
    one, other = (decoded(leaf, text) for text in bodies[changed[0]])
    tag = rb"\s+".join(re.escape(word).encode() for word in _WORDS).replace(rb"\>", rb"\s*>").replace(rb">", rb"\s*>")
    if found.charset not in ("ascii", "utf-7"):
        one, other = (text.decode(found.charset).encode("utf-8", "surrogatepass") for text in (one, other))
    elif found.charset == "utf-7":
        other = other.replace(b"+-", b"+") if b"+-" not in one else other
    assert any(other[: at.start()] + other[at.end() :] == one for at in re.finditer(tag, other)), "not the tag alone"


def body(content: bytes, leaf: Leaf) -> bytes:
    return content[leaf.start : leaf.end] if leaf.end > leaf.start else b""


def decoded(leaf: Leaf, text: bytes) -> bytes:
    match leaf.head.encoding:
        case b"base64":
            return binascii.a2b_base64(text)
        case b"quoted-printable":
            return binascii.a2b_qp(text)
    return text


def theirs(content: bytes, made: bytes) -> None:
    """The standard library, where it finds nothing wrong with the mail, sees the same two messages."""
    one, other = email.message_from_bytes(content), email.message_from_bytes(made)
    if any(part.defects for part in one.walk()):
        return
    assert not any(part.defects for part in other.walk()), "the pixel breaks the message"
    pairs = list(zip(one.walk(), other.walk(), strict=True))
    assert all(a.items() == b.items() for a, b in pairs), "a header changes"
    changed = [a for a, b in pairs if not a.is_multipart() and a.get_payload() != b.get_payload()]
    assert len(changed) <= 1, "more than one part changes"


def seeds() -> Iterator[bytes]:
    page = b"<html><body>\r\n<p>Hello</p>\r\n</body></html>\r\n"
    for encoding, html in (
        (b"7bit", page),
        (b"8bit", "<p>Grüße</p>\r\n".encode()),
        (b"quoted-printable", b"<p>Gr=C3=BC=\r\n=C3=9Fe=3C/body>=20\r\n"),
        (b"base64", b"PGh0bWw+PGJvZHk+DQo8cD5IZWxsbzwvcD4N\r\nCjwvYm9keT48L2h0bWw+DQo=\r\n"),
        (b"base64", binascii.b2a_base64("<p>日本</body>".encode("utf-16"), newline=False) + b"\r\n"),
    ):
        for charset in (b"utf-8", b"us-ascii", b"utf-16", b"iso-2022-jp", b"hz-gb-2312", b"utf-7", b"x-nobody"):
            html_part = b"Content-Type: text/html; charset=%b\r\nContent-Transfer-Encoding: %b\r\n\r\n%b"
            part = html_part % (charset, encoding, html)
            yield part
            forms = b"From: a@b\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\n"
            yield forms + b"Content-Type: text/plain\r\n\r\nHello\r\n--b\r\n" + part + b"--b--\r\n"
    nested = b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n"
    yield b"".join(nested % (n, n) for n in range(5)) + b"Content-Type: text/html\r\n\r\n" + page
    yield b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n" + page
    yield b"Content-Type: multipart/mixed; boundary=b\r\n\r\n\xfe--b\r\nContent-Type: text/html\r\n\r\n<p>\r\n\xfe"
    yield b"Content-Type: text/html\r\n\r\n\xfe</body><!--\xfe"
    yield b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\xfe<=\r\n/=62\xfe"
    yield b"Content-Type: text/html\r\nContent-Disposition: attachment\r\n\r\n" + page


WORDS = (
    *(b"Content-Type: ", b"text/html", b"multipart/mixed; boundary=", b"multipart/digest", b"message/rfc822"),
    *(b"Content-Transfer-Encoding: ", b"quoted-printable", b"base64", b"binary", b"Content-Disposition: inline"),
    *(
        b"; charset=",
        b"utf-16le",
        b"utf-32",
        b"iso-2022-kr",
        b"hz",
        b"utf-7",
        b"\r\n",
        b"\r\n\r\n",
        b"--",
        b"\r\n--b--\r\n",
    ),
    *(b"</body>", b"<!--", b"-->", b"=\r\n", b"=3C", b"\x1b$B", b"\x1b(B", b"~{", b"~}", b"\x0e", b"\x0f", b"\xff\xfe"),
)

TARGETS = (Target("splice", check, seeds, WORDS, share=2),)
