"""Accounts are verified after each change, in the background; faults are looked at again, told once, and heal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from relay import enrol
from relay.core.vault import Vault
from relay.reverify import Verifier
from relay.settings import Settings
from relay.store import db, verifications
from relay.store.verifications import Verification
from tests.fakes.imap import Mailserver
from tests.fakes.upstream import Upstream
from tests.faulty import once
from tests.stack import until


class Bench:
    """An account `a` with the servers of the test; `found` is what was found of it."""

    def __init__(self, pool: db.Pool, settings: Settings, upstream: Upstream, server: Mailserver) -> None:
        self.pool = pool
        self.settings = replace(settings, verify_accounts=4, verify_retries=(0.2,), connect_timeout=20.0)
        self.upstream, self.server = upstream, server

    def imap(self, **more: Any) -> dict[str, Any]:
        login = {"user": "ann", "pass": "secret"}
        return {"host": self.server.host, "port": self.server.port, "secure": False, "auth": login, **more}

    async def save(self, account: str = "a", **given: Any) -> None:
        await enrol.save(self.pool, Vault(self.settings.secret_keys), self.settings, account, given)

    async def begin(self, account: str = "a", **imap: Any) -> None:
        smtp = {"host": self.upstream.host, "port": self.upstream.port}
        await self.save(account, smtp=smtp, imap=self.imap(**imap))

    async def found(self, account: str = "a") -> Verification:
        async with db.connection(self.pool) as conn:
            found = await verifications.find(conn, account)
        assert found is not None
        return found

    async def state(self) -> tuple[bool | None, bool | None]:
        found = await self.found()
        return tuple(server and server["success"] for server in (found.smtp, found.imap))  # type: ignore[return-value]

    async def soon(self) -> None:
        """A change just made is looked at now: the pause between two looks is over."""
        async with db.connection(self.pool) as conn:
            await conn.execute("update verifications set due_at = now() where due_at is not null")

    @asynccontextmanager
    async def running(self, **more: Any) -> AsyncIterator[Verifier]:
        stopping = asyncio.Event()
        settings = replace(self.settings, **more)
        verifier = Verifier(self.pool, settings, Vault(settings.secret_keys), look=0.02)
        task = asyncio.create_task(verifier.run(stopping))
        yield verifier
        stopping.set()
        await task


@pytest.fixture
async def bench(pool: db.Pool, settings: Settings, upstream: Upstream) -> AsyncIterator[Bench]:
    async with Mailserver() as server:
        yield Bench(pool, settings, upstream, server)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Any:
    """A function that gives the lines about verifications."""
    caplog.set_level(logging.INFO, "postferry.verify")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "postferry.verify"]


async def test_a_saved_account_is_verified_once(bench: Bench, told: Any) -> None:
    await bench.begin()
    async with bench.running():
        await until(lambda: seen(bench, (True, True)))
        await bench.save(name="another name")
        await asyncio.sleep(0.1)
    assert (bench.upstream.connections, bench.server.connections) == (1, 1)
    assert bench.upstream.said("MAIL") == []
    found = await bench.found()
    assert found.imap is not None
    assert found.imap["folders"] == {"sent": "Sent", "trash": "Bin"}
    assert told() == []


async def test_a_fault_is_stored_told_once_and_heals(bench: Bench, told: Any) -> None:
    bench.server.when("AUTH").say("{tag} NO [AUTHENTICATIONFAILED] wrong")
    await bench.begin()
    async with bench.running():
        await until(lambda: seen(bench, (True, False)))
        await until(lambda: bench.server.connections >= 3)
        assert bench.upstream.connections == 1  # of the good server nobody asks again
        assert told() == ["the mailbox of a cannot be used: [AUTHENTICATIONFAILED] wrong"]
        bench.server.calm()
        await until(lambda: seen(bench, (True, True)))
        await until(lambda: len(told()) == 2)
    assert told()[1] == "the mailbox of a is well again"
    found = await bench.found()
    assert found.smtp is not None
    assert found.smtp["success"]


async def test_mended_settings_heal_at_once(bench: Bench, told: Any) -> None:
    await bench.begin(auth={"user": "ann", "pass": "not-this"})
    async with bench.running(verify_retries=(3600.0,)):
        await until(lambda: seen(bench, (True, False)))
        await bench.save(imap={"auth": {"pass": "secret"}})
        assert await bench.state() == (None, None)
        await bench.soon()
        await until(lambda: seen(bench, (True, True)))
        await until(lambda: len(told()) == 2)


async def test_no_retries_means_none(bench: Bench) -> None:
    await bench.begin(auth={"user": "ann", "pass": "not-this"})
    async with bench.running(verify_retries=()):
        await until(lambda: seen(bench, (True, False)))
        await asyncio.sleep(0.1)
    assert bench.server.connections == 1


async def test_a_mailbox_that_is_taken_away_is_forgotten(bench: Bench) -> None:
    await bench.begin(auth={"user": "ann", "pass": "not-this"})
    async with bench.running():
        await until(lambda: seen(bench, (True, False)))
        await bench.save(imap={"disabled": True})
        await bench.soon()
        await until(lambda: seen(bench, (True, None)))


async def test_a_crash_loses_nothing(bench: Bench) -> None:
    # Given a process that ends while it verifies
    bench.server.when("LIST", times=1).hang()
    await bench.begin()
    async with bench.running():
        await until(lambda: bench.server.said("LIST") != [])
    assert (await bench.found()).pending
    # When its claim has ended
    async with db.connection(bench.pool) as conn:
        await conn.execute("update verifications set claimed_until = now()")
    # Then another does it
    async with bench.running():
        await until(lambda: seen(bench, (True, True)))


async def test_only_so_many_are_verified_at_once(bench: Bench) -> None:
    gate = asyncio.Event()
    bench.server.when("CONNECT").wait(gate).say("* OK ready")
    for number in range(5):
        await bench.save(f"a{number}", imap=bench.imap())
    async with bench.running(verify_accounts=2):
        await until(lambda: bench.server.connections == 2)
        await asyncio.sleep(0.1)
        assert bench.server.connections == 2
        gate.set()
        await until(lambda: bench.server.connections == 5)


async def test_secrets_that_cannot_be_opened_are_told_and_stop_nobody(bench: Bench, told: Any) -> None:
    await bench.begin()
    lost = replace(bench.settings, secret_keys=("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",))
    async with bench.running(secret_keys=lost.secret_keys):
        await until(lambda: seen(bench, (False, False)))
    found = await bench.found()
    assert found.imap is not None
    assert found.imap["code"] == "ESETTINGS"
    assert bench.server.connections == 0
    assert len(told()) == 2


@pytest.mark.parametrize("verb", ["EHLO", "CONNECT"])
async def test_whatever_a_server_says_can_be_stored(bench: Bench, verb: str) -> None:
    code = "250" if verb == "EHLO" else "554"
    bench.upstream.when(verb).say(f"{code}-\x00\x1b[2J\x85 FAKE\r\n{code} {'x' * 3000}")
    bench.server.when("CONNECT").say("* BYE \x00\x1b[31m\x85 no")
    await bench.begin()
    async with bench.running():
        await until(lambda: seen(bench, (verb == "EHLO", False)))
    found = await bench.found()
    assert "\x1b" not in str(found)
    assert found.imap is not None
    assert "no" in found.imap["responseText"]


async def test_an_account_that_goes_meanwhile_is_no_fault(bench: Bench, told: Any) -> None:
    gate = asyncio.Event()
    bench.server.when("CONNECT").wait(gate).say("* OK ready")
    await bench.begin()
    async with bench.running() as verifier:
        await until(lambda: bench.server.connections == 1)
        await enrol.delete(bench.pool, "a")
        gate.set()
        await until(lambda: not verifier._running)
    assert told() == []


async def seen(bench: Bench, state: tuple[bool | None, bool | None]) -> bool:
    return await bench.state() == state


async def test_a_fault_of_ours_puts_verifications_off_and_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They run in the role that posts webhooks, which must not end with them."""
    again = once(monkeypatch, verifications, "claim")
    async with bench.running():
        await asyncio.wait_for(again.wait(), 20)
    assert "put off by a fault of ours" in caplog.text
