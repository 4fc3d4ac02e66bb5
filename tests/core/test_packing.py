"""What is stored of content, and what comes back of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from relay.core import packing


@given(st.lists(st.binary(max_size=5000), max_size=5))
def test_content_of_any_bytes_comes_back(contents: list[bytes]) -> None:
    packed = packing.pack(contents)
    assert packing.unpack(packed) == contents
    assert packing.size(packed) == sum(map(len, contents))


def test_what_does_not_pack_takes_hardly_more_room() -> None:
    (frame,) = packing.pack([bytes(range(256))])
    assert len(frame) <= 256 + 16
