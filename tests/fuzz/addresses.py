"""Addresses under fuzz: one that is judged, and header fields with any number of them."""

from __future__ import annotations

from collections.abc import Iterator
from email.utils import getaddresses

from relay.core import address
from relay.core.address import CONTROLS, Mailbox
from relay.core.errors import Refused
from relay.core.headers import mailboxes
from relay.ingress.envelope import Envelope
from relay.net.envelope import _path, _Unsayable
from tests.fuzz.target import Target, one_line

NEVER = frozenset("\r\n\0<>")
"""What no address may have that was accepted: it would end the command or the path that it is in."""

LOOKED_AT = 20  # addresses of one field, all round: it costs more than to read them


def check(data: bytes) -> None:
    """What is accepted can end no command, stays as it is, and comes back from a header field; reading never raises."""
    text = data.decode("utf-8", "replace").replace("\N{REPLACEMENT CHARACTER}", "\ud800")  # half a character
    if (accepted := judged(text)) is not None:
        travels(accepted)
    for number, box in enumerate(address.parse_list(text)):
        assert "@" in box.address
        assert not CONTROLS.search(box.name)
        if number < LOOKED_AT and (accepted := judged(box.address)) is not None:
            comes_back(Mailbox(box.name, accepted))
    path(text)


def judged(text: str) -> str | None:
    try:
        accepted = address.envelope(text)
    except Refused as refused:
        one_line(refused.reply())
        return None
    assert not NEVER & set(accepted), f"{accepted!r} could end a command"
    assert address.envelope(accepted) == accepted, "it is another one when it is judged again"
    return accepted


def travels(accepted: str) -> None:
    """An upstream can be told what was accepted here, if it takes UTF-8."""
    try:
        said = _path(accepted, utf8=True)
    except _Unsayable as fault:
        raise AssertionError(f"{accepted!r} was accepted, and no upstream can be told: {fault.reply}") from None
    assert said.decode() == accepted


def comes_back(box: Mailbox) -> None:
    """Name and address, out of the field that we write of them, for us and for the standard library."""
    try:
        field = mailboxes("To", [box], "to").decode()
    except Refused:
        return  # a word that no line can hold
    value = field.removeprefix("To: ").replace("\r\n ", " ").removesuffix("\r\n")
    (read,) = address.parse_list(value)
    assert read.name == box.name
    assert address.envelope(read.address) in (box.address, address.envelope(address.ascii_domain(box.address)))
    if box.address.isascii() and "\\" not in box.address:  # it leaves quotes out, and not what they were for
        ((_, there),) = getaddresses([value])
        unread = not there and "[" in box.address  # it reads none with a bracket, from some patch release on
        assert there == box.address or unread, "the standard library reads another address"


def path(text: str) -> None:
    """As the argument of RCPT: what is taken was judged."""
    envelope = Envelope(sender="", smtputf8=True)
    try:
        envelope.rcpt(f"TO:{text}", most=1)
    except Refused as refused:
        refused.reply().encode("utf-8", "replace")
        return
    for recipient in envelope.recipients:
        assert judged(recipient) == recipient


def seeds() -> Iterator[bytes]:
    yield from (text.encode() for text in GOOD)
    yield b", ".join(b"Ada Lovelace <%b>" % text.encode() for text in GOOD)
    yield b'"Lovelace, Ada" <ada@example.com>, (comment (nested)) bob@example.com, Group: a@b.example, c@d.example;'
    yield "=?utf-8?q?J=C3=BCrgen?= <jürgen@exämple.de>".encode()
    yield b"@relay.example,@other.example:ada@example.com"
    yield b"<ada@example.com> SIZE=1"
    yield b'"a<b>c"@example.com'
    yield b"!\xed\xa0\x80@example.com"
    for word in (b'"', b"(", b"<", b"a@b, ", b"=?utf-8?q?a?= ", b"\\", b",", b"[", b":", b'"a" ', b"<<a@b>"):
        yield b"\xfe" + word + b"\xfe"
        yield b"x <a@b.example>, \xfe" + word + b"\xfe@example.com"


GOOD = (
    *("ada@example.com", '"Ada Lovelace"@example.com', '"a@b"@example.com', r'"a\"b"@example.com', "root@localhost"),
    *("ada@[192.0.2.1]", "ada@[IPv6:2001:db8::1]", "jürgen@exämple.de", "用户@例子.广告", "a..b.@docomo.example"),
)
WORDS = (
    *(
        b"@example.com",
        b'"',
        b"\\",
        b"<",
        b">",
        b"(",
        b")",
        b",",
        b";",
        b":",
        b"[",
        b"]",
        b"[IPv6:",
        b"=?utf-8?q?",
        b"?=",
    ),
    *(b"\r\n", b"\0", b"\xc2\x85", b"\xe2\x80\xa8", b"xn--", b".", b" ", b"\xfe", b"\xef\xbc\xa0", b"\xef\xbc\x8e"),
)

TARGETS = (Target("address", check, seeds, WORDS, longest=512),)
