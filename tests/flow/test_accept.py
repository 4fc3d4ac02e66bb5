"""What accept answers when PostgreSQL goes in the middle, when callers leave, and when an account is removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg.errors import DivisionByZero

from relay import accept, enrol
from relay.accept import Acceptor
from relay.core import mime
from relay.core.errors import Conflict, Doubtful, Refused, StoreAway
from relay.core.model import Accepted, Options, Submission
from relay.core.tenant import Account, AccountState, Limits, Smtp
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import db, messages
from tests.store.mail import account

ANN = Account("a", "", "", AccountState.ACTIVE, Smtp("sandbox", 25), Limits(), track_opens=False)
BEN = replace(ANN, id="b")


def submission(of: Account = ANN, **options: Any) -> Submission:
    mail = mime.tidy(b"Subject: x\r\n\r\nx\r\n", now=datetime.now(UTC), domain="here.example", unique="1")
    return Submission(of, "api", "a@here.example", ("b@there.example",), mail, Options(**options), body_hash=b"1")


@pytest.fixture
async def acceptor(pool: db.Pool, settings: Settings) -> AsyncIterator[Acceptor]:
    acceptor = Acceptor(pool, settings)
    async with db.connection(pool) as conn:
        await account(conn)
    yield acceptor
    await acceptor.close()


async def stored(pool: db.Pool) -> int:
    async with db.connection(pool) as conn:
        row = await (await conn.execute("select count(*) from messages")).fetchone()
    assert row is not None
    return int(row[0])


async def test_a_commit_whose_answer_was_lost_is_asked_for_until_postgresql_is_back(
    acceptor: Acceptor, pool: db.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, it would come again, and be there twice."""
    insert, tries = messages.insert, 0

    async def loses_answers(*given: Any, **more: Any) -> Any:
        nonlocal tries
        tries += 1
        answers = await insert(*given, **more) if tries in (1, 4) else None
        if tries < 4:
            raise StoreAway("gone")
        return answers

    monkeypatch.setattr(messages, "insert", loses_answers)
    monkeypatch.setattr(accept, "AGAIN", 0.001)
    accepted = await acceptor.accept(submission())
    assert (accepted.duplicate, tries, await stored(pool)) == (False, 4, 1)


async def test_one_that_nobody_can_tell_of_is_said_to_be_doubtful(
    acceptor: Acceptor, pool: db.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = messages.insert

    async def loses_answers(*given: Any, **more: Any) -> Any:
        await insert(*given, **more)
        raise StoreAway("gone")

    monkeypatch.setattr(messages, "insert", loses_answers)
    monkeypatch.setattr(accept, "PATIENCE", 0.0)
    with pytest.raises(Doubtful):
        await acceptor.accept(submission())


async def test_whoever_stops_does_not_wait_out_a_doubt(acceptor: Acceptor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gets its answer before the process is ended."""
    tried = asyncio.Event()

    async def loses_answers(*given: Any, **more: Any) -> Any:
        tried.set()
        raise StoreAway("gone")

    monkeypatch.setattr(messages, "insert", loses_answers)
    monkeypatch.setattr(accept, "PATIENCE", 1e9)
    monkeypatch.setattr(accept, "LAST_LOOKS", 0.0)
    monkeypatch.setattr(accept, "AGAIN", 0.001)
    accepting = asyncio.create_task(acceptor.accept(submission()))
    await tried.wait()
    assert not accepting.done()
    acceptor.stop()
    with pytest.raises(Doubtful):
        await accepting


@pytest.fixture
async def hasty(settings: Settings, pool: db.Pool, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Acceptor]:
    """One that a lock keeps out for a moment."""
    monkeypatch.setitem(db.PROMPT, "lock_timeout", "50ms")
    async with db.pooled(settings, most=2, prompt=True) as prompt, db.connection(pool) as conn:
        await account(conn)
        acceptor = Acceptor(prompt, settings)
        yield acceptor
        await acceptor.close()


@asynccontextmanager
async def locked(pool: db.Pool, table: str = "messages") -> AsyncIterator[None]:
    async with db.connection(pool) as conn, conn.transaction():
        await conn.execute(f"lock table {table}".encode())
        yield


@pytest.mark.parametrize("options", [{}, {"idempotency_key": "k"}])
async def test_what_a_lock_kept_out_is_refused_without_doubt_and_may_come_again(
    hasty: Acceptor, pool: db.Pool, options: dict[str, Any]
) -> None:
    async with locked(pool):
        with pytest.raises(StoreAway) as away:
            await hasty.accept(submission(**options))
    assert not isinstance(away.value, Doubtful)
    assert await stored(pool) == 0
    assert not (await hasty.accept(submission(**options))).duplicate
    assert await stored(pool) == 1


async def test_a_lock_that_comes_while_a_group_is_stored_one_by_one_refuses_what_is_not_stored_alone(
    hasty: Acceptor, pool: db.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, lock, group = messages._write, locked(pool), 0

    async def meets_a_lock(conn: db.Connection, batch: Any, *given: Any) -> Any:
        nonlocal group
        group = max(group, len(batch))
        if len(batch) > 1:
            raise DivisionByZero
        answer = await write(conn, batch, *given)
        await lock.__aenter__()
        return answer

    monkeypatch.setattr(messages, "_write", meets_a_lock)
    first, second = await asyncio.gather(hasty.accept(submission()), hasty.accept(submission()), return_exceptions=True)
    await lock.__aexit__(None, None, None)
    assert group == 2
    assert isinstance(first, Accepted)
    assert type(second) is db.Locked
    assert await stored(pool) == 1


@pytest.fixture
async def groups(hasty: Acceptor, pool: db.Pool, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what is stored together, of two accounts; a key of the first and one of its recipients are known."""
    insert, sizes = messages.insert, []

    async def counted(conn: db.Connection, batch: Any, **more: Any) -> Any:
        sizes.append(len(batch))
        return await insert(conn, batch, **more)

    monkeypatch.setattr(messages, "insert", counted)
    async with db.connection(pool) as conn:
        await account(conn, "b")
        await conn.execute(
            "insert into suppressions (account_id, address, reason) values ('a', 'c@there.example', 'manual')"
        )
    await hasty.accept(submission(idempotency_key="k"))
    await hasty.accept(suppressing())
    sizes.clear()
    return sizes


def suppressing() -> Submission:
    return replace(submission(replace(ANN, suppresses=True)), recipients=("b@there.example", "c@there.example"))


@asynccontextmanager
async def held(pool: db.Pool, row: str) -> AsyncIterator[None]:
    """Locked by another session."""
    async with db.connection(pool) as conn, conn.transaction():
        assert (await conn.execute(f"select from {row} for update".encode())).rowcount
        yield


@pytest.mark.parametrize(
    ("row", "one"),
    [
        ("idempotency where account_id = 'a'", submission(idempotency_key="k")),
        ("recipients where account_id = 'a'", suppressing()),
    ],
)
async def test_a_row_that_is_locked_keeps_out_mail_of_its_own_account_alone(
    hasty: Acceptor, groups: list[int], pool: db.Pool, row: str, one: Submission
) -> None:
    accepting = hasty.accept(one), hasty.accept(submission(BEN)), hasty.accept(submission(BEN))
    async with held(pool, row):
        first, second, third = await asyncio.gather(*accepting, return_exceptions=True)
    assert (groups[0], sorted(groups[1:])) == (3, [1, 2])
    assert type(first) is db.Locked
    assert isinstance(second, Accepted)
    assert isinstance(third, Accepted)
    async with hasty._pool.connection() as conn:
        assert await db.scalar(conn, "show lock_timeout") == "50ms"


@pytest.mark.parametrize("one", [submission(), submission(idempotency_key="k"), suppressing()])
async def test_the_row_of_the_account_itself_may_be_locked(
    hasty: Acceptor, groups: list[int], pool: db.Pool, one: Submission
) -> None:
    async with held(pool, "accounts where id = 'a'"):
        assert isinstance(await hasty.accept(one), Accepted)


async def test_suppressions_that_are_locked_keep_out_those_alone_who_have_some(
    hasty: Acceptor, groups: list[int], pool: db.Pool
) -> None:
    async with locked(pool, "suppressions"):
        accepting = hasty.accept(suppressing()), hasty.accept(submission(BEN))
        first, second = await asyncio.gather(*accepting, return_exceptions=True)
    assert groups == [1]
    assert type(first) is db.Locked
    assert isinstance(second, Accepted)


async def test_all_accounts_of_a_group_together_wait_once_more_and_not_each_so_long(
    hasty: Acceptor, groups: list[int], pool: db.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeout, waits = db.lock_timeout, []

    def noted(conn: db.Connection, seconds: float) -> Any:
        waits.append(seconds)
        return timeout(conn, seconds)

    monkeypatch.setattr(db, "lock_timeout", noted)
    async with locked(pool):
        accepting = hasty.accept(submission()), hasty.accept(submission(BEN))
        answers = await asyncio.gather(*accepting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [db.Locked] * 2
    assert (groups, waits) == ([2, 1, 1], [accept.APART / 2])


async def test_what_a_lock_keeps_out_after_a_lost_answer_is_doubtful(
    hasty: Acceptor, pool: db.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert, lost = messages.insert, False

    async def loses_one_answer(*given: Any, **more: Any) -> Any:
        nonlocal lost
        if not lost:
            lost = True
            raise StoreAway("gone")
        return await insert(*given, **more)

    monkeypatch.setattr(messages, "insert", loses_one_answer)
    async with locked(pool):
        with pytest.raises(Doubtful):
            await hasty.accept(submission())


async def test_a_key_stays_in_flight_when_whoever_asked_leaves(
    acceptor: Acceptor, pool: db.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it might come twice in one statement, which would cost all others of the group their answer."""
    insert, asked, gate = messages.insert, asyncio.Event(), asyncio.Event()

    async def slowly(*given: Any, **more: Any) -> Any:
        asked.set()
        await gate.wait()
        return await insert(*given, **more)

    monkeypatch.setattr(messages, "insert", slowly)
    leaving = asyncio.create_task(acceptor.accept(submission(idempotency_key="k")))
    await asked.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    with pytest.raises(Conflict):
        await acceptor.accept(submission(idempotency_key="k"))
    gate.set()
    await acceptor.close()
    assert (await acceptor.accept(submission(idempotency_key="k"))).duplicate
    assert await stored(pool) == 1


async def test_mail_of_an_account_that_was_removed_a_moment_ago_is_refused(acceptor: Acceptor, pool: db.Pool) -> None:
    """Though the directory of this process still knows the account."""
    await enrol.delete(pool, "a")
    with pytest.raises(Refused) as refused:
        await acceptor.accept(submission())
    assert (refused.value.status, refused.value.smtp) == (404, "550 5.1.8")
    assert await stored(pool) == 0


async def test_whoever_is_given_the_id_of_a_removed_account_sees_nothing_of_it(
    acceptor: Acceptor, pool: db.Pool, settings: Settings
) -> None:
    """Given mail that came in at the very moment when the account was removed."""
    await acceptor.accept(submission())
    async with db.connection(pool) as conn:
        await conn.execute("delete from accounts")
    assert await stored(pool) == 1
    sandbox = replace(settings, sandbox_port=25)
    await enrol.save(pool, Vault(settings.secret_keys), sandbox, "a", {"smtp": {"host": "sandbox"}})
    assert await stored(pool) == 0
