"""The kill matrix: wherever a role dies, what was acknowledged is sent, and what may be doubled is told."""

from __future__ import annotations

import pytest

from tests.dovecot import Dovecot
from tests.fakes.receiver import Receiver
from tests.fakes.upstream import Upstream
from tests.matrix.play import TWO, Row, play
from tests.matrix.points import POINTS, Point
from tests.stack import ALL, Stack
from tests.tenant import living

SLOW = ("webhook: claimed", "webhook: before it is posted")  # a claim lasts half a minute; `make matrix` plays them


@pytest.mark.parametrize("point", [one for one in POINTS if one.name not in SLOW], ids=lambda point: point.name)
async def test_a_death_loses_nothing_and_doubles_nothing_in_silence(point: Point, own: Stack, dovecot: Dovecot) -> None:
    row = await died(point, own, dovecot)
    assert row.copies <= len(TWO) + row.unknowns
    assert row.unknowns <= 1
    assert row.after.startswith(("2 sent", "1 bounced, 1 sent")) or (
        row.after == "nothing" and row.client == "no answer"
    )


async def died(point: Point, stack: Stack, dovecot: Dovecot) -> Row:
    await stack.start(*ALL)
    async with Upstream() as upstream, Receiver() as receiver, living(stack, "mortal", upstream) as tenant:
        return await play(point, stack, tenant, receiver, dovecot)
