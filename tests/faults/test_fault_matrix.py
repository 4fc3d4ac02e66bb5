"""The kill matrix: wherever a role dies, what was acknowledged is sent, and what may be doubled is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.dovecot import Dovecot
from tests.fakes.receiver import Receiver
from tests.fakes.upstream import Upstream
from tests.matrix.play import Row, broken, play
from tests.matrix.points import MAILBOX, POINTS, Point
from tests.stack import ALL, Stack
from tests.tenant import living


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
async def test_a_death_loses_nothing_and_doubles_nothing_in_silence(
    point: Point, own: Stack, request: pytest.FixtureRequest
) -> None:
    dovecot = request.getfixturevalue("dovecot") if point.needs in MAILBOX else None
    assert broken(await died(point, own, dovecot)) == []


GOOD = Row("", "250", "0", "2 queued", "2 sent", 2, 0, 0, 1.0)
BAD = {
    "mail is lost": replace(GOOD, after="1 sent"),
    "copies came again, and nobody was told": replace(GOOD, copies=3),
    "more was in doubt than one connection": replace(GOOD, copies=3, unknowns=2),
}


@pytest.mark.parametrize(("fault", "row"), BAD.items(), ids=BAD)
def test_a_row_that_breaks_a_promise_is_seen(fault: str, row: Row) -> None:
    assert broken(GOOD) == broken(replace(GOOD, copies=3, unknowns=1)) == []
    assert broken(row) == [fault]


async def died(point: Point, stack: Stack, dovecot: Dovecot | None) -> Row:
    await stack.start(*ALL)
    async with Upstream() as upstream, Receiver() as receiver, living(stack, "mortal", upstream) as tenant:
        return await play(point, stack, tenant, receiver, dovecot)
