"""The rules of the ledger run can fail: each broken promise is seen, and a kept one is not."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from tests.chaos.box import SENT as SENT_FOLDER
from tests.chaos.box import judged as judged_copy
from tests.chaos.doubt import Mail, Strike, judged
from tests.chaos.ledger import Answer, Books, Fate, Filed, Handed, Taken, reconcile
from tests.fakes.receiver import Receiver

MAIL = Handed("ann", ("bob@there.example",), [Answer.ACKNOWLEDGED], {"q1"})
SENT = Fate("ann", "bob@there.example", "q1", "sent", "250 ok", ())
COPY = Taken("ann", "bob@there.example", 100.0)
GOOD = Books(
    handed=[MAIL],
    taken=[COPY],
    fates=[SENT],
    per_minute={"ann": 1},
    events=frozenset({"evt_1"}),
    posted=frozenset({"evt_1"}),
    owed=frozenset({"<1@here.example>"}),
    filed=[Filed("<1@here.example>")],
)
BOUNCED = replace(
    GOOD,
    fates=[replace(SENT, state="bounced")],
    reported={"bob@there.example": "bounced"},
    told={("bob@there.example", "bounced"): 1},
)
COMPLAINED = replace(
    GOOD,
    fates=[replace(SENT, state="complained")],
    reported={"bob@there.example": "complained"},
    told={("bob@there.example", "complained"): 1},
)
REFUSED = Handed("ann", ("carl@there.example",), [Answer.REFUSED])
DOUBTFUL = replace(COPY, doubtful=True)
TWICE = [DOUBTFUL, replace(COPY, at=500.0)]
UNKNOWN = replace(SENT, unknowns=(300.0,))
DEAD = replace(SENT, recipient="nobody@there.example", state="failed", reason="550 no")

KEPT = {
    "all is well": GOOD,
    "a bounce is believed": BOUNCED,
    "a complaint is believed": COMPLAINED,
    "what was acknowledged died with a reason": replace(
        GOOD, handed=[replace(MAIL, recipients=("nobody@there.example",))], taken=[], fates=[DEAD]
    ),
    "what was refused is not there": replace(GOOD, handed=[MAIL, REFUSED]),
    "what was doubtful may be sent": replace(
        GOOD, handed=[MAIL, Handed("ann", ("dora@there.example",), [Answer.DOUBTFUL])]
    ),
    "a copy beyond one that is told": replace(GOOD, taken=TWICE, fates=[UNKNOWN]),
    "which of two copies was in doubt does not matter": replace(
        GOOD, taken=[COPY, replace(DOUBTFUL, at=500.0)], fates=[UNKNOWN]
    ),
    "a limit is a sliding window": replace(
        GOOD, taken=[DOUBTFUL, replace(COPY, at=160.0)], fates=[replace(SENT, unknowns=(101.0,))]
    ),
}
BROKEN = {
    "the store knows nothing of it": replace(GOOD, taken=[], fates=[]),
    "upstream never took it": replace(GOOD, taken=[]),
    "unfinished": replace(GOOD, fates=[replace(SENT, state="leased")]),
    "silent": replace(
        GOOD,
        handed=[replace(MAIL, recipients=("nobody@there.example",))],
        taken=[],
        fates=[replace(DEAD, reason="")],
    ),
    "given up": replace(GOOD, taken=[], fates=[replace(SENT, state="failed", reason="it was too long away")]),
    "refused, and sent": replace(GOOD, handed=[MAIL, REFUSED], taken=[COPY, Taken("ann", "carl@there.example", 500.0)]),
    "sent: carl@there.example of ann": replace(
        GOOD,
        handed=[MAIL, replace(REFUSED, answers=[Answer.DOUBTFUL, Answer.REFUSED])],
        taken=[COPY, Taken("ann", "carl@there.example", 500.0)],
    ),
    "with 0 attempts told": replace(GOOD, taken=TWICE),
    "0 attempts told as unknown before": replace(GOOD, taken=TWICE, fates=[replace(SENT, unknowns=(501.0,))]),
    "2 times, 0 of them in doubt": replace(GOOD, taken=[COPY, replace(COPY, at=500.0)], fates=[UNKNOWN]),
    "3 times, 1 of them in doubt": replace(
        GOOD, taken=[*TWICE, replace(COPY, at=600.0)], fates=[replace(SENT, unknowns=(300.0, 550.0))]
    ),
    "stored twice": replace(GOOD, fates=[SENT, replace(SENT, queue_id="q2")]),
    "over its limit": replace(
        GOOD, taken=[DOUBTFUL, replace(COPY, at=159.9)], fates=[replace(SENT, unknowns=(101.0,))]
    ),
    "untold": replace(GOOD, posted=frozenset()),
    "did not become bounced": replace(GOOD, reported=BOUNCED.reported),
    "did not become complained": replace(GOOD, reported=COMPLAINED.reported),
    "bounced without a report": replace(GOOD, fates=BOUNCED.fates),
    "complained without a report": replace(GOOD, fates=COMPLAINED.fates),
    "complained without a report: carl@": replace(COMPLAINED, told={**COMPLAINED.told, ("carl@", "complained"): 1}),
    "bounced was told 2 times": replace(BOUNCED, told={("bob@there.example", "bounced"): 2}),
    "complained was told 0 times": replace(COMPLAINED, told={}),
    "complained was told 2 times": replace(COMPLAINED, told={("bob@there.example", "complained"): 2}),
    "filed 0 times": replace(GOOD, filed=[]),
    "filed 2 times": replace(GOOD, filed=[*GOOD.filed] * 2),
    "filed, and not sent": replace(GOOD, filed=[*GOOD.filed, Filed("<2@here.example>")]),
    "filed with a pixel": replace(GOOD, filed=[Filed("<1@here.example>", ("with a pixel",))]),
    "not one mail was acknowledged": replace(GOOD, handed=[replace(MAIL, answers=[Answer.DOUBTFUL])]),
    "not one event": replace(GOOD, events=frozenset(), posted=frozenset()),
}


@pytest.mark.parametrize("books", KEPT.values(), ids=KEPT)
def test_a_kept_promise_is_not_blamed(books: Books) -> None:
    assert reconcile(books) == []


@pytest.mark.parametrize(("words", "books"), BROKEN.items(), ids=BROKEN)
def test_a_broken_promise_is_seen(words: str, books: Books) -> None:
    [fault] = reconcile(books)
    assert words in fault


TALK = Mail("up", "ann", began=99.0, recipients=["bob@there.example"], at=100.0, next=110.0)
DURING = {
    "it began while the mail was under way": Strike(["up"], 99.5, 130.0),
    "it began before the next mail": Strike(["up"], 109.0, 130.0),
    "it was over while the mail was under way": Strike(["up"], 80.0, 99.5),
    "it struck all": Strike(None, 99.5, 130.0),
    "what had been begun was heard a moment later": Strike(["up"], 98.5, 98.5),
}
ASIDE = {
    "the next mail had begun": Strike(["up"], 111.0, 130.0),
    "it was over before": Strike(["up"], 80.0, 90.0),
    "it struck another host": Strike(["beside"], 99.5, 130.0),
    "the connection came and went meanwhile": Strike(["up"], 80.0, 130.0),
}


@pytest.mark.parametrize("strike", DURING.values(), ids=DURING)
def test_what_a_strike_parts_is_in_doubt(strike: Strike) -> None:
    [copy] = judged([TALK], [strike])
    assert copy.doubtful


@pytest.mark.parametrize("strike", ASIDE.values(), ids=ASIDE)
def test_what_it_does_not_part_is_certain(strike: Strike) -> None:
    [copy] = judged([TALK], [strike])
    assert not copy.doubtful


def test_what_upstream_kept_to_itself_is_in_doubt_and_what_it_never_took_is_no_copy() -> None:
    [copy] = judged([replace(TALK, told=False), replace(TALK, at=None)], [])
    assert copy.doubtful


PLAIN = b"Message-ID: <1@here.example>\r\nSubject: x\r\n\r\nHello.\r\n"
ENCODED = b"""Message-ID: <1@here.example>\r
Content-Type: text/html\r
Content-Transfer-Encoding: base64\r
\r
"""
SHOWN = ENCODED + base64.b64encode(b'<img src="https://mail.example/t/abc.gif">') + b"\r\n"


@pytest.mark.parametrize(
    ("name", "content", "flaws"),
    [
        (f"{SENT_FOLDER}/cur/1.host:2,S", PLAIN, ()),
        (f"{SENT_FOLDER}/cur/1.host:2,RS", PLAIN, ()),
        (f"{SENT_FOLDER}/cur/1.host:2,S", SHOWN, ("with a pixel",)),
        (f"{SENT_FOLDER}/cur/1.host:2,R", PLAIN, ("unseen",)),
        (f"{SENT_FOLDER}/new/1.host", PLAIN, ("unseen",)),
        ("Ablage/cur/1.host:2,S", PLAIN, ("elsewhere",)),
    ],
)
def test_a_copy_is_judged_as_it_lies_there(name: str, content: bytes, flaws: tuple[str, ...]) -> None:
    assert judged_copy(Path("Maildir", name), content) == Filed("<1@here.example>", flaws)


async def test_what_was_answered_badly_is_not_posted() -> None:
    async with Receiver() as receiver, aiohttp.ClientSession() as http:
        receiver.when(times=1).say(500)
        for _ in range(2):
            async with http.post(receiver.url("/hook"), data=b"x"):
                pass
        assert (len(receiver.posts), len(receiver.taken)) == (2, 1)
