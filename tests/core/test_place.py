"""Ids of messages: opaque, true to what they were made of, and nothing else is one."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.place import MOST, Place, read, spell

NUMBERS = st.integers(1, MOST - 1)
PLACES = st.builds(Place, st.text(min_size=1, max_size=200), st.integers(0, MOST - 1), NUMBERS)


def spelt(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


@given(PLACES)
def test_a_place_is_read_as_it_was_spelt(place: Place) -> None:
    assert read(spell(place)) == place


@given(PLACES)
def test_an_id_can_stand_in_a_path(place: Place) -> None:
    assert spell(place).replace("-", "").replace("_", "").isalnum()
    assert spell(place).isascii()


@given(PLACES, PLACES)
def test_two_places_have_two_ids(one: Place, other: Place) -> None:
    assert (spell(one) == spell(other)) is (one == other)


@given(st.text(max_size=100) | st.text("ABCabc0189-_=", max_size=40))
def test_what_is_no_id_is_refused(text: str) -> None:
    try:
        place = read(text)
    except ValueError as fault:
        assert str(fault) == "is no id of a message"  # noqa: PT017
    else:
        assert spell(place) == text


@pytest.mark.parametrize(
    "text",
    [
        spelt([1, 2]),
        spelt([1, 2, "INBOX", 3]),
        spelt([1, 0, "INBOX"]),
        spelt([1, -1, "INBOX"]),
        spelt([-1, 1, "INBOX"]),
        spelt([1, MOST, "INBOX"]),
        spelt([1, True, "INBOX"]),
        spelt([1, 1.0, "INBOX"]),
        spelt([1, "1", "INBOX"]),
        spelt([1, 1, ""]),
        spelt([1, 1, ["INBOX"]]),
        spelt({"path": "INBOX"}),
        spelt(None),
        "[" * 8000,
        base64.urlsafe_b64encode(b"[" * 5000).decode(),
        base64.urlsafe_b64encode(b"[1,1" + b"9" * 5000 + b',"INBOX"]').decode(),
        base64.urlsafe_b64encode(b'[1, 1, "INBOX"]').decode(),
        spell(Place("INBOX", 1, 1)) + "=",
        spell(Place("INBOX", 1, 1)) + "\n",
        "A" * 9000,
        "",
        "ä",
    ],
)
def test_a_damaged_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is no id of a message$"):
        read(text)


def test_a_folder_of_any_name_has_an_id_that_is_not_too_long() -> None:
    place = Place("\u65e5" * 1000, MOST - 1, MOST - 1)
    assert read(spell(place)) == place
