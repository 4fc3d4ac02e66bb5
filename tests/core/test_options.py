"""What a sender asks for beside the content is read in every spelling we name, and refused with the spellings named."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import Refused
from relay.core.model import Options, Priority
from relay.core.options import FORMS, moment, read_options

NOW = datetime(2029, 12, 1, tzinfo=UTC)
THEN = datetime(2030, 1, 31, 9, 30, tzinfo=UTC)
SPELLINGS = [
    "2030-01-31T09:30:00Z",
    "2030-01-31T10:30:00+01:00",
    "2030-01-31 09:30",
    "20300131T093000Z",
    "2030-01-31T09:30:00.000Z",
    "Thu, 31 Jan 2030 09:30:00 +0000",
    "31 Jan 2030 04:30:00 EST",
    "Thu, 31 Jan 2030 09:30:00 -0000",
    "1896082200",
    "1896082200.0",
    "1896082200000",
    "  2030-01-31T09:30:00Z ",
    "2030-01-31t09:30:00z",
]
NONSENSE = [
    *(
        "tomorrow",
        "0",
        "-1896082200",
        "",
        "2030",
        "2030-13-01",
        "31.01.2030",
        "12:00",
        "nan",
        "inf",
        "1e9",
        "9" * 20,
        "-" + "9" * 20,
        "٣" * 10,
    ),
    *("203001310930", "31 Jan 2030 09:30 PM", "31 Jan 2030 09:30:00 CET", "31 Jan 2030 09:30:00 BST"),
    *("2030-01-31T09:30:00Z; x", "Thu, 99 Jan 2030 09:30:00 +0000", "0001-01-01T00:00:00+23:00", "\u20282030-01-31x"),
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_an_instant_is_read_in_each_of_its_spellings(text):
    assert read_options({"send-at": text}, NOW).send_at == THEN


def test_a_date_has_an_end():
    with pytest.raises(ValueError, match="no date and time"):
        moment("Thu, 31 Jan 2030 09:30:00 +0000" + " " * 100)


def test_a_date_alone_is_its_first_moment_in_utc():
    assert moment("2030-01-31") == moment("20300131") == datetime(2030, 1, 31, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2020-01-01T00:00:00Z", "1000000000", "2029-12-01T00:00:00Z"])
def test_an_instant_that_has_passed_means_at_once(text):
    assert read_options({"send-at": text}, NOW).send_at is None


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_refused_with_the_forms_that_are_taken(text):
    with pytest.raises(Refused, match="X-Send-At") as caught:
        read_options({"send-at": text}, NOW)

    assert FORMS in caught.value.message
    assert caught.value.smtp == "550 5.6.0"


@pytest.mark.parametrize("text", ["2036-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "99999999999"])
def test_the_far_future_is_refused(text):
    with pytest.raises(Refused, match="five years"):
        read_options({"send-at": text}, NOW)


@given(st.text(max_size=40) | st.from_regex(r"[0-9TZ:+., -]{0,30}", fullmatch=True))
def test_any_text_is_an_instant_or_refused(text):
    try:
        send_at = read_options({"send-at": text}, NOW).send_at
    except Refused:
        return
    assert send_at is None or NOW < send_at < NOW + timedelta(days=6 * 366)


@pytest.mark.parametrize(
    ("controls", "options"),
    [
        ({}, Options()),
        ({"account": "a1"}, Options()),
        ({"delivery-attempts": "3"}, Options(attempts=3)),
        ({"priority-class": "High"}, Options(priority=Priority.HIGH)),
        ({"priority-class": "bulk"}, Options(priority=Priority.BULK)),
        ({"track-opens": "TRUE"}, Options(track=True)),
        ({"track-opens": "0"}, Options(track=False)),
        ({"track-opens": "N"}, Options(track=False)),
        ({"email-type": "invoice"}, Options(email_type="invoice")),
        ({"reference-type": "order", "reference-id": "ü7"}, Options(reference_type="order", reference_id="ü7")),
        ({"idempotency-key": "k" * 1024}, Options(idempotency_key="k" * 1024)),
    ],
)
def test_controls_become_options(controls, options):
    assert read_options(controls, NOW) == options


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("delivery-attempts", "0", "1 to 100"),
        ("delivery-attempts", "101", "1 to 100"),
        ("delivery-attempts", "three", "1 to 100"),
        ("delivery-attempts", "٣", "1 to 100"),
        ("priority-class", "urgent", "high, normal or bulk"),
        ("track-opens", "maybe", "true nor false"),
        ("email-type", "x" * 256, "255"),
        ("idempotency-key", "x" * 1025, "1024"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_the_headers_name(name, value, says):
    with pytest.raises(Refused, match=says) as caught:
        read_options({name: value}, NOW)

    assert caught.value.key.lower() == f"x-{name}"
