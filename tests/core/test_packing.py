"""What is stored of content, and what comes back of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import packing

CONTENT = b"".join(b"line %d\r\n" % number for number in range(100))
(GOOD,) = packing.pack([CONTENT])


@given(st.lists(st.binary(max_size=5000), max_size=5))
def test_content_of_any_bytes_comes_back(contents: list[bytes]) -> None:
    packed = packing.pack(contents)
    assert packing.unpack(packed) == contents
    assert list(map(packing.size, packed)) == list(map(len, contents))


def test_what_does_not_pack_takes_hardly_more_room() -> None:
    (frame,) = packing.pack([bytes(range(256))])
    assert len(frame) <= 256 + 16


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, GOOD[:-1], GOOD[:5], GOOD + b"x", GOOD[:-20] + bytes(20)])
def test_what_is_damaged_is_told_beside_what_is_not(damage: bytes) -> None:
    assert packing.unpack([damage, GOOD]) == [None, CONTENT]


@pytest.mark.parametrize("damage", [b"", b"\0" * 40, GOOD[:2]])
def test_what_is_no_frame_tells_no_size(damage: bytes) -> None:
    assert packing.size(damage) is None
