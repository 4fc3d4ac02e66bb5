"""Reports that anybody could have written: who knows our recipients, and no message, changes so much in an hour."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from relay import bounces
from relay.core.bounce import Reported
from relay.store import db
from relay.store.bounces import NAMELESS
from tests.store.mail import account
from tests.store.test_bounces import bounce, complaint, rows, sent, states, suppressed

MANY = NAMELESS + 30
NOW = datetime.now(UTC)


@pytest.fixture
async def conn(pool: db.Pool) -> AsyncIterator[db.Connection]:
    """An account that has just written to many."""
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, *map(recipient, range(MANY)))
        yield conn


def recipient(number: int) -> str:
    return f"r{number:03}@there.example"


async def flooded(conn: db.Connection, reports: Sequence[Reported]) -> int:
    """How many deliveries they change."""
    return sum([await bounces.record(conn, "a", one) for one in reports])


@pytest.mark.parametrize("made", [bounce, complaint])
@pytest.mark.parametrize("name", ["", "  ", "<>", "< >", "\0"])
async def test_a_flood_of_reports_that_name_no_message_is_believed_so_far(
    conn: db.Connection, made: type[Reported], name: str
) -> None:
    flood = [made(recipient(n), message_id=name, key=f"{n}") for n in range(MANY)]
    assert await flooded(conn, flood) == NAMELESS
    assert (await states(conn)).count("sent") == MANY - NAMELESS
    assert len(await suppressed(conn)) == NAMELESS
    assert await rows(conn, "select count(*), sum(matched), sum(changed) from reports") == [(MANY, MANY, NAMELESS)]


async def test_ten_at_a_time_is_no_way_around_it(conn: db.Connection) -> None:
    tens = [
        bounce(*map(recipient, range(start, start + 10)), message_id="", key=f"{start}") for start in range(0, MANY, 10)
    ]
    assert await flooded(conn, tens) == NAMELESS
    assert len(await suppressed(conn)) == NAMELESS


async def test_what_names_a_message_is_believed_beside_it(conn: db.Connection) -> None:
    await flooded(conn, [bounce(recipient(n), message_id="", key=f"{n}") for n in range(NAMELESS)])
    assert await bounces.record(conn, "a", bounce(recipient(MANY - 1), key="named")) == 1


async def test_what_names_a_message_takes_none_of_its_room(conn: db.Connection) -> None:
    await flooded(conn, [bounce(recipient(n), key=f"{n}") for n in range(NAMELESS)])
    assert await bounces.record(conn, "a", bounce(recipient(MANY - 1), message_id="", key="nameless")) == 1


async def test_an_hour_later_they_are_believed_again(conn: db.Connection) -> None:
    await conn.execute("update deliveries set finished_at = now() - interval '1 day'")
    ago = NOW - timedelta(minutes=70)
    flood = [bounce(recipient(n), message_id="", key=f"{n}", at=ago) for n in range(NAMELESS)]
    assert await flooded(conn, flood) == NAMELESS
    assert await bounces.record(conn, "a", bounce(recipient(MANY - 2), message_id="", key="x", at=NOW)) == 1


async def test_a_backlog_is_counted_by_when_it_came(conn: db.Connection) -> None:
    """What came in one hour of yesterday, and is read today, is no more than what comes in an hour."""
    await conn.execute("update deliveries set finished_at = now() - interval '2 days'")
    came = [NOW - timedelta(days=1, seconds=n) for n in range(MANY)]
    flood = [bounce(recipient(n), message_id="", key=f"{n}", at=came[n]) for n in range(MANY)]
    assert await flooded(conn, flood) == NAMELESS


async def test_each_account_has_room_of_its_own(conn: db.Connection) -> None:
    await account(conn, "b")
    await sent(conn, "zoe@there.example", account="b", header="<b@x.example>")
    await flooded(conn, [bounce(recipient(n), message_id="", key=f"{n}") for n in range(NAMELESS)])
    assert await bounces.record(conn, "b", bounce("zoe@there.example", message_id="")) == 1


async def test_a_stranger_who_was_never_written_to_is_nobodys(conn: db.Connection) -> None:
    strangers = [bounce(f"s{n}@else.example", message_id=name, key=f"{name}{n}") for n in range(5) for name in NAMES]
    assert await flooded(conn, strangers) == 0
    assert await suppressed(conn) == []


NAMES = ("", "<m@x.example>", "<forged@x.example>")


async def test_who_got_a_message_can_speak_of_its_recipients_and_of_nobody_else(conn: db.Connection) -> None:
    """The forger knows the Message-ID of what he received; other mail of the account is out of his reach."""
    await sent(conn, "zoe@there.example", header="<other@x.example>")
    assert await bounces.record(conn, "a", bounce("zoe@there.example", message_id="<m@x.example>")) == 0
    assert await suppressed(conn) == []


async def test_how_much_was_believed_is_looked_up_along_an_index(conn: db.Connection) -> None:
    await conn.execute(
        "insert into reports (account_id, key, kind, source, matched, changed, at) select 'a', 'k' || n, 'bounce',"
        " 'imap', 1, (n % 100 = 0)::int, now() - n * interval '1 second' from generate_series(1, 5000) n"
    )
    await conn.execute("analyze reports")
    cursor = await conn.execute(
        "explain select sum(changed) from reports where account_id = 'a' and at between now() - interval '1 hour' and"
        " now() and changed > 0 and message_id = '' and source <> 'mailgun'"
    )
    assert "reports_nameless" in "\n".join(row[0] for row in await cursor.fetchall())
