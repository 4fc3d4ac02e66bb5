"""Scores follow their formula; intervals are those of the books; nothing is called best without evidence."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import score
from relay.core.score import Confidence, Figures, Slot

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TWO_SIDED = NormalDist().inv_cdf(0.975)


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def figures(tracked: int, opened: int = 0, opens: int | None = None, days: float = 0, **more: int) -> Figures:
    last = ago(days) if opened else None
    opens = opened if opens is None else opens
    return replace(Figures(tracked, tracked, opened, opens, last_opened_at=last), **more)


@pytest.mark.parametrize(
    ("of", "points"),
    [
        (figures(10, 8, 12, days=30, failed=1), 49),  # the docstring's
        (figures(1, 1), 28),  # 0.85 * 1/3
        (figures(10, 10), 71),  # 0.85 * 10/12
        (figures(10, 10, 13), 78),  # ... + 0.15 * 3/6
        (figures(10, 10, 13, days=60), 55),  # ... * 0.7
        (figures(10, 10, 13, days=100_000), 31),  # ... * 0.4
        (figures(1000, 1000, 100_000), 100),
        (figures(10, 10, bounced=5), 35),  # 0.85 * 10/12 * 0.5
        (figures(10, 10, bounced=10), 0),
        (figures(3), 0),
    ],
)
def test_engagement_is_what_its_formula_says(of: Figures, points: int) -> None:
    assert score.engagement(of, NOW) == points


def test_without_tracked_mail_nothing_is_said() -> None:
    assert score.engagement(Figures(sent=5, tracked=0, opened=0, opens=0), NOW) is None


@st.composite
def people(draw: st.DrawFn) -> Figures:
    sent = draw(st.integers(1, 500))
    tracked = draw(st.integers(1, sent))
    opened = draw(st.integers(0, tracked))
    opens = opened + (draw(st.integers(0, 500)) if opened else 0)
    failed, bounced = draw(st.integers(0, 500)), draw(st.integers(0, sent))
    last = ago(draw(st.floats(0, 5000))) if opened else None
    return Figures(sent, tracked, opened, opens, failed, bounced, last_opened_at=last)


def points(of: Figures, now: datetime = NOW) -> int:
    found = score.engagement(of, now)
    assert found is not None
    return found


@given(people())
def test_engagement_stays_between_nothing_and_a_hundred(of: Figures) -> None:
    assert 0 <= points(of) <= 100
    assert of.opened or points(of) == 0


@given(people(), st.integers(1, 50))
def test_more_opens_never_cost_points(of: Figures, more: int) -> None:
    if of.opened:
        assert points(replace(of, opens=of.opens + more)) >= points(of)
        assert points(replace(of, last_opened_at=NOW)) >= points(of)
    assert points(
        replace(
            of,
            sent=of.sent + more,
            tracked=of.tracked + more,
            opened=of.opened + more,
            opens=of.opens + more,
            last_opened_at=NOW,
        )
    ) >= points(of)


@given(people(), st.integers(1, 50))
def test_silence_failures_and_time_never_give_points(of: Figures, more: int) -> None:
    assert points(replace(of, tracked=min(of.tracked + more, of.sent))) <= points(of)
    assert points(replace(of, failed=of.failed + more)) <= points(of)
    assert points(replace(of, bounced=of.bounced + more)) <= points(of)
    assert points(of, NOW + timedelta(days=more)) <= points(of)


def test_doubts_are_drawn_from_facts() -> None:
    """Given somebody mailed for long, when all was tracked and failed, then only blocked pictures are left to blame."""
    plain = Figures(9, 9, 0, 0, failed=1, first_sent_at=ago(90), last_sent_at=ago(40))
    assert len(score.doubts(plain, NOW)) == 1
    for facts, words in (
        ({"any_opened": 1}, "the pictures of 1 message, as Apple Mail"),
        ({"tracked": 2, "sent": 2}, "Only 2 messages could show an open"),
        ({"sent": 10}, "1 message had no pixel"),
        ({"last_sent_at": ago(0.9)}, "younger than a day"),
        ({"failed": 0}, "none came back"),
    ):
        more = score.doubts(replace(plain, **facts), NOW)
        assert len(more) == 2
        assert words in more[1]


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718), (0, 0, 0, 1)],
)
def test_wilsons_interval_is_the_one_in_newcombes_table(part: int, whole: int, low: float, high: float) -> None:
    assert score.wilson(part, whole, TWO_SIDED) == pytest.approx((low, high), abs=0.00005)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        (Slot(70, 56), Slot(80, 48), 0.0524, 0.3339),
        (Slot(10, 9), Slot(10, 3), 0.1705, 0.8090),
        (Slot(56, 5), Slot(29, 0), -0.0381, 0.1926),
        (Slot(10, 10), Slot(20, 0), 0.6791, 1.0000),
    ],
)
def test_the_difference_is_the_one_in_newcombes_table(one: Slot, other: Slot, low: float, high: float) -> None:
    assert score.difference(one, other, TWO_SIDED) == pytest.approx((low, high), abs=0.00005)


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0.1, 5))
def test_an_interval_holds_its_rate(whole: int, share: float, deviations: float) -> None:
    part = round(share * whole)
    low, high = score.wilson(part, whole, deviations)
    assert 0 <= low <= part / whole <= high <= 1


def day(**hours: Slot) -> list[Slot]:
    """24 hours of nothing, but for those given as h9=..."""
    return [hours.get(f"h{hour}", Slot()) for hour in range(24)]


@pytest.mark.parametrize(
    ("nine", "ten", "confidence"),
    [
        (Slot(19, 19), Slot(500, 5), Confidence.NONE),  # too little mail then
        (Slot(500, 400), Slot(19, 0), Confidence.NONE),  # ... or at all other times
        (Slot(500, 400), Slot(), Confidence.NONE),  # all mail goes then: nothing to compare with
        (Slot(100, 40), Slot(100, 40), Confidence.NONE),  # no better
        (Slot(100, 30), Slot(100, 40), Confidence.NONE),
        (Slot(100, 45), Slot(100, 40), Confidence.WEAK),
        (Slot(100, 54), Slot(1000, 400), Confidence.WEAK),  # sure, were it the only hour; among 24 one looks so
        (Slot(200, 110), Slot(1000, 400), Confidence.FAIR),
        (Slot(400, 240), Slot(1000, 400), Confidence.STRONG),
    ],
)
def test_an_hour_is_as_sure_as_its_evidence(nine: Slot, ten: Slot, confidence: Confidence) -> None:
    judged = score.by_rate(day(h9=nine, h10=ten))
    assert judged[9].confidence is confidence
    assert all(judged[hour].confidence is Confidence.NONE for hour in range(24) if hour not in (9, 10))
    assert [one.place for one in score.best(judged) if one.place == 9] == ([] if confidence.rank == 0 else [9])


def test_the_one_that_would_be_sure_alone_is_weak_among_many() -> None:
    one, rest = Slot(100, 54), Slot(1000, 400)
    assert score.difference(one, rest, TWO_SIDED)[0] > 0
    assert score.by_rate(day(h9=one, h10=rest))[9].confidence is Confidence.WEAK


@pytest.mark.parametrize(
    ("own", "elsewhere", "confidence"),
    [
        (0, 9, Confidence.NONE),
        (1, 0, Confidence.WEAK),
        (4, 0, Confidence.WEAK),  # all of them, and too few
        (5, 0, Confidence.FAIR),
        (2, 10, Confidence.WEAK),
        (19, 0, Confidence.FAIR),
        (20, 0, Confidence.STRONG),
        (10, 30, Confidence.STRONG),
        (5, 40, Confidence.WEAK),
    ],
)
def test_a_habit_needs_opens_of_ones_own(own: int, elsewhere: int, confidence: Confidence) -> None:
    others = {f"h{10 + hour % 10}": Slot(opens=elsewhere // 10 + (hour < elsewhere % 10)) for hour in range(10)}
    judged = score.by_opens(day(h9=Slot(opens=own), **others), [0] * 24)
    assert judged[9].confidence is confidence


def test_a_persons_few_opens_are_drawn_towards_the_accounts() -> None:
    """Given an account that is read at eight, when a person opens once at nine, then eight is worth more."""
    account = [1000 if hour == 8 else 0 for hour in range(24)]
    once = score.by_opens(day(h9=Slot(opens=1)), account)
    often = score.by_opens(day(h9=Slot(opens=30)), account)
    assert once[8].worth > once[9].worth
    assert often[9].worth > often[8].worth
    assert sum(one.worth for one in once) == pytest.approx(1)


def test_at_most_three_are_best_and_the_surest_come_alone() -> None:
    good = {f"h{hour}": Slot(1000, 500 + hour) for hour in (7, 8, 9, 10)}
    judged = score.by_rate(day(**good, h20=Slot(30_000, 3000), h21=Slot(40, 5)))
    assert judged[21].confidence is Confidence.NONE
    assert [one.place for one in score.best(judged)] == [10, 9, 8]


def test_without_evidence_nothing_is_best() -> None:
    assert score.best(score.by_rate(day())) == []
    assert score.best(score.by_opens(day(), [0] * 24)) == []


def test_percent_has_two_decimals_and_is_nothing_of_nothing() -> None:
    assert (score.percent(1, 3), score.percent(2, 3), score.percent(0, 0)) == (33.33, 66.67, 0.0)
