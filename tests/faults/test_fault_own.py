"""A fault of ours in one delivery: it costs that delivery its tries, and nobody else anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.core import splice
from relay.core.errors import StoreAway
from relay.settings import Settings
from relay.store import accounts, db
from tests.fakes.upstream import Upstream
from tests.flow.test_deliver import HTML, Line


@pytest.fixture
async def line(pool: db.Pool, settings: Settings) -> AsyncIterator[Line]:
    line = Line(pool, settings)
    yield line
    await line.end()


async def test_a_message_that_cannot_be_rendered_ends_as_a_dead_letter(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("relay.deliver.splice.render", broken)
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example", content=HTML, splice=splice.find(HTML), attempts=2)
        await line.accept("two@x.example")
        await line.deliver()
        assert await line.rows() == [("deferred", 1, "internal"), ("sent", 1, "sent")]
        await line.now()
        await line.deliver()
    assert await line.rows() == [("failed", 2, "internal"), ("sent", 1, "sent")]


async def test_a_lease_of_an_account_that_was_paused_meanwhile_is_given_back(line: Line) -> None:
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        lease = await line.lease()
        assert lease is not None
        async with db.connection(line.pool) as conn:
            await conn.execute("update accounts set state = 'paused'")
        await line.deliverer.deliver(lease)
        assert upstream.connections == 0
    assert await line.rows("state::text, attempts") == [("queued", 0)]


async def test_what_was_sent_as_we_stopped_without_postgresql_is_left_in_doubt(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given back, once PostgreSQL answers again, it would be sent twice and nobody told."""

    async def away(*_: Any) -> None:
        line.deliverer.stop()
        raise StoreAway("gone")

    monkeypatch.setattr("relay.store.outcomes.commit", away)
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.deliver()
        assert len(upstream.taken) == 1
    assert await line.rows("state::text, attempts") == [("leased", 0)]
    assert await line.recovered() == ["unknown"]


async def test_a_lease_whose_content_cannot_be_read_is_left_to_its_recovery(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renewed for ever, it would keep its mail and its connection from everybody."""

    async def broken(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("relay.deliver.messages.bodies", broken)
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        with pytest.raises(MemoryError):
            await line.deliver()
    assert await line.recovered() == ["unknown"]


async def test_a_fault_after_an_outcome_is_stored_changes_nothing_of_it(
    line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(line.deliverer._trouble, "heed", broken)
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        with caplog.at_level("INFO", "postferry.deliver"):
            await line.deliver()
    assert await line.rows() == [("sent", 1, "sent")]
    assert [record.message for record in caplog.records if hasattr(record, "outcome")] == ["sent"]


async def test_a_lease_that_was_begun_as_postgresql_went_is_given_back(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = accounts.get

    async def gone(*_: Any) -> None:
        monkeypatch.setattr("relay.hands.accounts.get", find)
        raise StoreAway("gone in the middle")

    monkeypatch.setattr("relay.hands.accounts.get", gone)
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.deliver()
        assert await line.rows("state::text, attempts") == [("queued", 0)]
        await line.deliver()
    assert await line.rows() == [("sent", 1, "sent")]
