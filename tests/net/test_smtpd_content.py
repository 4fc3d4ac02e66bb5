"""DATA's content: one true end of data, found however the bytes arrive, within a limit of memory."""

from __future__ import annotations

import pytest

from relay.ingress.content import Content

MOST = 1000


def fed(stream: bytes, step: int, most: int = MOST) -> tuple[bytes | None, bytes | None]:
    """Feeds the stream in steps; returns (message, rest), or (None, None) when no end was found."""
    content = Content(most)
    for at in range(0, len(stream), step):
        rest = content.feed(stream[at : at + step])
        if rest is not None:
            return content.message(), rest + stream[at + step :]
    return None, None


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 1000])
@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b"a\r\n..\r\n...b\r\n.\r\n", b"a\r\n.\r\n..b\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a\r\r\n\r\n.\r\n", b"a\r\r\n\r\n"),
        (b"a\n.\nb\r\n.\r\n", b"a\n.\nb\r\n"),
        (b"a\r\n.\rb\r\n.\r\n", b"a\r\n\rb\r\n"),
        (b"x" * 900 + b"\r\n.\r\n", b"x" * 900 + b"\r\n"),
    ],
)
def test_the_message_is_what_stands_before_the_end(sent: bytes, meant: bytes, step: int) -> None:
    assert fed(sent + b"QUIT\r\n", step) == (meant, b"QUIT\r\n")


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(
    "lookalike",
    [
        *(b"\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n", b"\r\n.\r"),
        *(b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\r\n .\r\n", b"\r\n. \r\n"),
    ],
)
def test_a_lookalike_ends_nothing(lookalike: bytes, step: int) -> None:
    assert fed(b"body" + lookalike + b"MAIL FROM:<x@y>\r\n", step) == (None, None)


@pytest.mark.parametrize(
    ("end", "false"),
    [
        *((end, True) for end in (b"\n.\n", b"\r.\r", b"\r.\n", b"\n.\r", b"\n.\r\n", b"\r\n.\n", b"\r.\r\n")),
        *((end, True) for end in (b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"\r\n.\r\r\n", b"\r\r\n.\r\r\n")),
        *((end, False) for end in (b"\r\n", b"\r\n.", b"\r\n.\r", b"\r\n..\r\n", b"\r\n.a\r\n", b"\r\n", b"")),
    ],
)
def test_it_knows_when_a_client_believes_it_has_ended(end: bytes, false: bool) -> None:
    content = Content(MOST)
    assert content.feed(b"body" + end) is None
    assert content.ends_falsely is false


@pytest.mark.parametrize("size", [MOST, MOST + 1])
def test_the_limit_is_exact(size: int) -> None:
    content = Content(MOST)
    assert content.feed(b"x" * (size - 2) + b"\r\n.\r\n") == b""
    assert content.too_large is (size > MOST)


@pytest.mark.parametrize("step", [1, 5, 1000])
@pytest.mark.parametrize("lines", [333, 334])
def test_a_doubled_dot_is_no_byte_of_the_message(lines: int, step: int) -> None:
    content = Content(MOST)
    stream = b"..\r\n" * lines + b".\r\n"
    for at in range(0, len(stream), step):
        rest = content.feed(stream[at : at + step])
    assert rest == b""
    assert content.too_large is (3 * lines > MOST)


def test_past_the_limit_nothing_is_kept_and_the_end_is_still_found() -> None:
    content = Content(MOST)
    for _ in range(50):
        assert content.feed(b"y" * 500) is None
    assert len(content._kept) <= 16
    assert content.feed(b"\r\n") is None
    assert content.feed(b".\r\nQUIT") == b"QUIT"
    assert content.too_large
