"""Replies are read tolerantly and within bounds."""

import pytest

from relay.core.reply import MOST_TEXT, NotAReply, Reply, compose, is_last, parse


@pytest.mark.parametrize(
    ("lines", "reply"),
    [
        ([b"250 2.1.0 Ok"], Reply(250, "2.1.0", "Ok")),
        ([b"250 Ok"], Reply(250, "", "Ok")),
        ([b"250"], Reply(250, "", "")),
        ([b"250 "], Reply(250, "", "")),
        ([b"550-5.1.1 no such user;", b"550 5.1.1 try harder"], Reply(550, "5.1.1", "no such user; try harder")),
        ([b"550-go to", b"550 5.7.26 the manual"], Reply(550, "5.7.26", "go to the manual")),
        ([b"250-first", b"550 the last code counts"], Reply(550, "", "first the last code counts")),
        ([b"550 5.1.1"], Reply(550, "5.1.1", "")),
        ([b"250 1.2.3.4 is my address"], Reply(250, "", "1.2.3.4 is my address")),
        ([b"550 5.1.1.1 not a status code"], Reply(550, "", "5.1.1.1 not a status code")),
        ([b"550 caf\xc3\xa9 \xff\x00\tand\x1b[31m"], Reply(550, "", "café \ufffd and [31m")),
    ],
)
def test_a_reply_is_code_enhanced_code_and_one_line_of_text(lines: list[bytes], reply: Reply) -> None:
    assert parse(lines) == reply


@pytest.mark.parametrize(
    "lines", [[], [b""], [b"25"], [b"HTTP/1.1 400 Bad Request"], [b"650 x"], [b"250x"], [b"250 a", b""]]
)
def test_what_is_not_a_reply_is_said_to_be_none(lines: list[bytes]) -> None:
    with pytest.raises(NotAReply):
        parse(lines)


def test_a_reply_can_be_stored_whatever_its_bytes_were() -> None:
    text = b"5.7.8 refus\xe9".decode("utf-8", "surrogateescape")
    assert compose(535, [text]) == Reply(535, "5.7.8", "refus")


def test_the_text_is_bounded() -> None:
    assert len(parse([b"550-" + b"x" * 5_000, b"550 end"]).text) == MOST_TEXT


@pytest.mark.parametrize(("line", "last"), [(b"250-a", False), (b"250 a", True), (b"250", True), (b"", True)])
def test_a_hyphen_promises_another_line(line: bytes, last: bool) -> None:
    assert is_last(line) is last


def test_a_reply_reads_as_it_was_said() -> None:
    assert str(Reply(550, "5.1.1", "no such user")) == "550 5.1.1 no such user"
    assert str(Reply(250, "", "")) == "250"
