"""The rules of the ledger run can fail: each broken promise is seen, and a kept one is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.ledger import Answer, Books, Fate, Handed, Taken, reconcile

MAIL = Handed("ann", ("bob@there.example",), [Answer.ACKNOWLEDGED], {"q1"})
SENT = Fate("ann", "bob@there.example", "q1", "sent", "250 ok", 0)
COPY = Taken("ann", "bob@there.example", 100.0)
GOOD = Books(
    handed=[MAIL],
    taken=[COPY],
    fates=[SENT],
    per_minute={"ann": 1},
    in_doubt=0,
    events=frozenset({"evt_1"}),
    posted=frozenset({"evt_1"}),
)
REFUSED = Handed("ann", ("carl@there.example",), [Answer.REFUSED])
TWICE = [COPY, replace(COPY, at=500.0)]
UNKNOWN = replace(SENT, unknowns=1)

KEPT = {
    "all is well": GOOD,
    "what was acknowledged died with a reason": replace(
        GOOD, taken=[], fates=[replace(SENT, state="failed", reason="550 no")]
    ),
    "what was refused is not there": replace(GOOD, handed=[MAIL, REFUSED]),
    "what was doubtful may be sent": replace(GOOD, handed=[replace(MAIL, answers=[Answer.DOUBTFUL], queue_ids=set())]),
    "a copy beyond one that is told": replace(GOOD, taken=TWICE, fates=[UNKNOWN], in_doubt=1),
    "a limit is a sliding window": replace(GOOD, taken=[COPY, replace(COPY, at=160.0)], fates=[UNKNOWN], in_doubt=1),
}
BROKEN = {
    "the store knows nothing of it": replace(GOOD, taken=[], fates=[]),
    "upstream never took it": replace(GOOD, taken=[]),
    "unfinished": replace(GOOD, fates=[replace(SENT, state="leased")]),
    "silent": replace(GOOD, taken=[], fates=[replace(SENT, state="failed", reason="")]),
    "refused, and sent": replace(GOOD, handed=[MAIL, REFUSED], taken=[COPY, Taken("ann", "carl@there.example", 500.0)]),
    "with 0 attempts told": replace(GOOD, taken=TWICE, in_doubt=1),
    "only 0 could be in doubt": replace(GOOD, taken=TWICE, fates=[UNKNOWN]),
    "stored twice": replace(GOOD, fates=[SENT, replace(SENT, queue_id="q2")]),
    "over its limit": replace(GOOD, taken=[COPY, replace(COPY, at=159.9)], fates=[UNKNOWN], in_doubt=1),
    "untold": replace(GOOD, posted=frozenset()),
}


@pytest.mark.parametrize("books", KEPT.values(), ids=KEPT)
def test_a_kept_promise_is_not_blamed(books: Books) -> None:
    assert reconcile(books) == []


@pytest.mark.parametrize(("words", "books"), BROKEN.items(), ids=BROKEN)
def test_a_broken_promise_is_seen(words: str, books: Books) -> None:
    [fault] = reconcile(books)
    assert words in fault
