"""Encoded words: what we write is legal and comes back; what others wrote is read as far as it can be."""

import re
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.words import LONGEST, decode, encode, text_of

WRITTEN_BY_OTHERS = [
    ("plain", "plain"),
    ("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
    ("=?ISO-8859-1?Q?Gr=FC=DFe_aus?= Berlin", "Grüße aus Berlin"),
    ("=?utf-8?b?R3LDvMOfZQ==?=", "Grüße"),
    ("=?utf-8?B?R3LDvMOfZQ?=", "Grüße"),  # padding forgotten
    ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
    ("=?utf-8?q?a?=\t=?iso-8859-1?q?=FC?=", "aü"),
    ("=?utf-8?b?R3LDvA==?= =?utf-8?b?w58=?= end", "Grüß end"),
    ("=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),  # a character divided between two words
    ("=?utf-8*de?q?=C3=BC?=", "ü"),
    ("=?iso-2022-jp?b?GyRCRnxLXBsoQg==?=", "日本"),
    ("=?no-such-charset?q?x?=", "=?no-such-charset?q?x?="),
    ("=?idna?q?x?=", "=?idna?q?x?="),
    ("=?utf-8?b?A?=", "=?utf-8?b?A?="),
    ("=?utf-8?q?=FF?=", "\N{REPLACEMENT CHARACTER}"),
    ("=?utf-8?x?a?=", "=?utf-8?x?a?="),
    ("a=?b?c", "a=?b?c"),
]


@pytest.mark.parametrize(("text", "expected"), WRITTEN_BY_OTHERS)
def test_words_of_others_are_read(text, expected):
    assert decode(text) == expected


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=300), st.integers(30, LONGEST))
def test_what_is_written_is_legal_and_comes_back(text, first):
    written = encode(text, first)

    assert all(re.fullmatch(r"=\?utf-8\?[qb]\?[!->@-~]*\?=", word) for word in written)
    assert all(len(word) <= room for word, room in zip(written, [first, *[LONGEST] * len(written)], strict=False))
    for word in written:
        make_header(decode_header(word)).__str__().encode()  # whole characters alone
    assert decode(" ".join(written)) == text


@given(st.text(max_size=100) | st.from_regex(r"(=\?[a-z0-9-]+\?[bq]\?[!-~]{0,12}\?= ?){1,4}"))
def test_reading_takes_any_text(text):
    decode(text).encode("utf-8", "surrogatepass")


def test_half_a_character_spelled_in_utf_7_does_not_come_out():
    assert decode("=?utf-7?q?+2AA-?=").isprintable()


def test_reading_is_linear():
    decode("=?utf-8?q?" * 50_000)
    decode("=?utf-8?q?a?= " * 20_000)


def test_header_bytes_are_utf_8_else_latin_1():
    assert text_of("ü".encode()) == text_of("ü".encode("latin-1")) == "ü"
