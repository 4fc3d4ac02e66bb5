"""A pixel's name leads back to its delivery, for us alone."""

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.pixel import GIF, read, sign, tag

NEW, OLD = b"n" * 32, b"o" * 32
NUMBERS = st.integers(0, (1 << 63) - 1)


@given(NUMBERS)
def test_a_token_leads_back_to_its_delivery(delivery):
    assert read((NEW,), sign((NEW, OLD), delivery)) == delivery


@given(NUMBERS)
def test_a_token_of_an_older_key_is_still_read(delivery):
    assert read((NEW, OLD), sign((OLD,), delivery)) == delivery


def test_a_token_of_another_key_is_not_ours():
    assert read((NEW,), sign((OLD,), 7)) is None
    assert read((), sign((OLD,), 7)) is None


@given(NUMBERS, st.integers(0, 191))
def test_a_token_with_one_bit_changed_is_not_ours(delivery, bit):
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    token = sign((NEW,), delivery)
    place = bit // 6
    forged = token[:place] + alphabet[alphabet.index(token[place]) ^ 1 << bit % 6] + token[place + 1 :]

    assert read((NEW,), forged) is None


@given(st.text(max_size=60) | st.text("ABCabc012-_", min_size=32, max_size=32))
def test_any_other_text_is_not_ours(token):
    assert read((NEW, OLD), token) is None


@pytest.mark.parametrize(
    "token", ["", "x", "=" * 32, "A" * 31, "A" * 33, "ü" * 32, "A" * 31 + "\n", "+" * 32, "A" * 100_000]
)
def test_malformed_tokens_are_not_ours(token):
    assert read((NEW,), token) is None


def test_a_token_has_one_spelling():
    token = next(token for number in range(100) if "-" in (token := sign((NEW,), number)) and "_" in token)

    assert read((NEW,), token) is not None
    assert read((NEW,), token.replace("-", "+")) is None
    assert read((NEW,), token.replace("_", "/")) is None


def test_a_token_fits_in_a_url_and_does_not_show_its_number():
    first, second = sign((NEW,), 1), sign((NEW,), 2)

    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", first)
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 12


def test_the_tag_is_ascii_html_without_surprises():
    assert tag("https://mail.example.com/", "TOKEN") == (
        '<img src="https://mail.example.com/t/TOKEN.gif" width="1" height="1" alt="" style="border:0">'
    )
    assert tag('https://ä.example/?a="b"&c=<d>', "T").isascii()
    assert tag('https://ä.example/?a="b"&c=<d>', "T").count(">") == 1


def test_the_picture_is_one_transparent_dot():
    width, height = struct.unpack("<HH", GIF[6:10])

    assert GIF.startswith(b"GIF89a")
    assert (width, height) == (1, 1)
    assert GIF.endswith(b";")
    assert b"!\xf9\x04\x01" in GIF  # a graphic control extension with its transparency flag
    assert len(GIF) < 50
