"""One lease against an upstream with moods: what is sent, what is recorded, what the account learns."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from relay import hands
from relay.admit import BEGINNING, Admission
from relay.core import pixel, splice
from relay.core.errors import StoreAway
from relay.core.vault import Vault
from relay.deliver import Deliverer
from relay.settings import Settings
from relay.store import db, leases, outcomes, turns
from tests.fakes.upstream import Upstream
from tests.stack import until
from tests.store.mail import prepared, stored
from tests.store.test_leases import granted

HTML = (
    b"From: s@example.com\r\nTo: r@example.com\r\nSubject: hi\r\nMessage-ID: <x@example.com>\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>Hello</p></body></html>\r\n"
)


class Line:
    """A production line of one account: accept, lease, deliver, look."""

    def __init__(self, pool: db.Pool, settings: Settings) -> None:
        self.pool, self.settings = pool, settings
        self.deliverer = Deliverer(pool, settings, Vault(settings.secret_keys))
        self.admission = Admission(self.deliverer, settings)

    async def account(self, upstream: Upstream, id: str = "a", **limits: int) -> None:
        config = {
            "smtp": {"host": upstream.host, "port": upstream.port, "secure": False, "tls": {"mode": "none"}},
            "limits": limits,
        }
        async with db.connection(self.pool) as conn:
            await conn.execute("insert into accounts (id, config) values (%s, %s)", (id, Jsonb(config)))

    async def login(self, password: str) -> None:
        """The account logs in as ann with this password."""
        sealed = Vault(self.settings.secret_keys).seal("a", "smtp.auth.pass", password)
        async with db.connection(self.pool) as conn:
            await conn.execute(
                "update accounts set config = jsonb_set(config, '{smtp,auth}', %s), secrets = %s, updated_at = now()",
                (Jsonb({"user": "ann"}), Jsonb({"smtp.auth.pass": sealed})),
            )

    async def accept(self, *recipients: str, attempts: int = 5, lifetime: float = 3600, **options: Any) -> None:
        async with db.connection(self.pool) as conn:
            await stored(conn, prepared(*recipients, **options), attempts=attempts, lifetime=lifetime)

    async def lease(self) -> int | None:
        async with db.connection(self.pool) as conn:
            await turns.promote(conn)
            found = await granted(conn, "a")
        return found[0].id if found else None

    async def delivering(self) -> asyncio.Task[None]:
        """One lease, under way."""
        lease = await self.lease()
        assert lease is not None, "nothing may be leased"
        return asyncio.create_task(self.deliverer.deliver(lease))

    async def lease_one(self, account: str = "a") -> int:
        """A lease of one delivery."""
        async with db.connection(self.pool) as conn:
            return (await granted(conn, account, size=1))[0].id

    async def deliver(self) -> None:
        """One lease, from claim to end."""
        lease = await self.lease()
        assert lease is not None, "nothing may be leased"
        await self.deliverer.deliver(lease)

    async def end(self) -> None:
        """The worker process stops."""
        self.admission.stop()
        await self.admission.close()

    async def rows(self, what: str = "state::text, attempts, category") -> list[tuple[Any, ...]]:
        async with db.connection(self.pool) as conn:
            return await (await conn.execute(f"select {what} from deliveries order by id".encode())).fetchall()

    async def events(self) -> list[str]:
        async with db.connection(self.pool) as conn:
            return [row[0] for row in await (await conn.execute("select type from events order by id")).fetchall()]

    async def recovered(self) -> list[str]:
        """Outcomes of all tries, once the leases that nobody renews any more have been taken back."""
        assert not self.deliverer._hands._held
        async with db.connection(self.pool) as conn:
            await conn.execute("update leases set expires_at = now() - interval '1 s'")
            await leases.recover(conn)
            return [row[0] for row in await (await conn.execute("select outcome::text from attempts")).fetchall()]

    async def account_is(self, id: str = "a") -> tuple[str, int]:
        async with db.connection(self.pool) as conn:
            row = await (
                await conn.execute("select state::text, failures from accounts where id = %s", (id,))
            ).fetchone()
        assert row is not None
        return row[0], row[1]

    async def ready(self) -> None:
        """Mail that waits is due now; the account rests as it did."""
        async with db.connection(self.pool) as conn:
            await conn.execute("update deliveries set due_at = now() where state = 'deferred'")

    async def now(self) -> None:
        """Everything that waits is due now."""
        await self.ready()
        async with db.connection(self.pool) as conn:
            await conn.execute("update accounts set retry_at = now()")


@pytest.fixture
async def line(pool: db.Pool, settings: Settings) -> AsyncIterator[Line]:
    line = Line(pool, settings)
    yield line
    await line.end()


async def test_each_recipient_gets_a_copy_with_a_pixel_of_their_own(line: Line) -> None:
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example", "two@x.example", content=HTML, splice=splice.find(HTML))
        await line.deliver()
        taken = await upstream.wait(2)
    keys = Vault(line.settings.secret_keys).derive("pixel")
    ids = [row[0] for row in await line.rows("id")]
    for mail, recipient, delivery in zip(taken, ("one@x.example", "two@x.example"), ids, strict=True):
        assert mail.recipients == (recipient,)
        before, tag, after = mail.content.partition(b"<img")
        picture, _, after = (tag + after).partition(b">")
        assert before + after == HTML
        token = picture.split(b"/t/")[1].split(b".gif")[0].decode()
        assert pixel.read(keys, token) == delivery
    assert await line.rows() == [("sent", 1, "sent")] * 2
    assert await line.events() == ["messageSent"] * 2


async def test_identical_copies_share_one_transaction(line: Line) -> None:
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example", "two@x.example")
        await line.deliver()
        (mail,) = await upstream.wait(1)
    assert mail.recipients == ("one@x.example", "two@x.example")
    assert await line.rows() == [("sent", 1, "sent")] * 2


async def test_a_lease_and_the_next_one_use_one_connection(line: Line) -> None:
    async with Upstream() as upstream:
        await line.account(upstream)
        for _ in range(2):
            await line.accept("one@x.example")
            await line.accept("two@x.example")
            await line.deliver()
        assert (len(upstream.taken), upstream.connections) == (4, 1)


async def test_a_connection_serves_as_many_messages_as_the_account_wants(line: Line) -> None:
    async with Upstream() as upstream:
        await line.account(upstream, messagesPerConnection=2)
        for _ in range(2):
            await line.accept("one@x.example")
            await line.accept("two@x.example")
            await line.accept("three@x.example")
            await line.deliver()
        per_connection = [sum(mail.connection == number for mail in upstream.taken) for number in (1, 2, 3)]
    assert per_connection == [2, 2, 2]


async def test_the_next_connection_is_made_when_the_last_one_is_gone(line: Line) -> None:
    """However long upstream takes over QUIT: `connections` is what it lets us have at once."""
    async with Upstream() as upstream:
        upstream.when("QUIT").pause(0.1).say("221 bye").close()
        await line.account(upstream, messagesPerConnection=1, connections=1)
        for name in ("one", "two", "three"):
            await line.accept(f"{name}@x.example")
        await line.deliver()
        assert (upstream.connections, upstream.most_open) == (3, 1)


async def test_a_kept_connection_that_died_is_replaced_at_no_attempt(line: Line) -> None:
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.deliver()
        upstream.drop()
        await line.accept("two@x.example")
        await line.deliver()
        assert [mail.connection for mail in upstream.taken] == [1, 2]
    assert await line.rows() == [("sent", 1, "sent")] * 2


async def test_a_refused_recipient_leaves_the_others_alone(line: Line) -> None:
    async with Upstream() as upstream:
        upstream.when("RCPT", "bad@").say("550 5.1.1 no such user")
        upstream.when("RCPT", "later@").say("451 4.3.0 try again")
        await line.account(upstream)
        await line.accept("bad@x.example", "good@x.example", "later@x.example")
        await line.deliver()
        (mail,) = await upstream.wait(1)
    assert mail.recipients == ("good@x.example",)
    assert [row[0] for row in await line.rows()] == ["failed", "sent", "deferred"]
    assert sorted(await line.events()) == ["messageDeliveryError", "messageFailed", "messageSent"]


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "DOT"])
async def test_421_anywhere_defers_and_the_next_message_goes_on_a_new_connection(line: Line, verb: str) -> None:
    async with Upstream() as upstream:
        upstream.when(verb, connection=1).say("421 4.3.2 going down").close()
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.accept("two@x.example")
        await line.deliver()
        if not upstream.taken:
            await line.now()
            await line.deliver()
        await upstream.wait(1)
    states = [row[0] for row in await line.rows()]
    assert "sent" in states
    assert "failed" not in states


async def test_a_reply_lost_after_the_dot_is_unknown_and_tried_again(line: Line) -> None:
    async with Upstream() as upstream:
        upstream.when("DOT", times=1).drop()
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.deliver()
        assert await line.rows() == [("deferred", 1, "unknown")]
        await line.now()
        await line.deliver()
        await upstream.wait(1)
    assert await line.rows() == [("sent", 2, "sent")]
    async with db.connection(line.pool) as conn:
        tries = await (await conn.execute("select outcome::text from attempts order by id")).fetchall()
    assert tries == [("unknown",), ("sent",)]


async def test_a_refused_login_stops_the_account_and_spends_no_attempt(line: Line) -> None:
    async with Upstream(auth=("PLAIN",), users={"ann": "secret"}) as upstream:
        await line.account(upstream)
        await line.login("wrong")
        await line.accept("one@x.example", "two@x.example")
        await line.deliver()
        assert await line.rows("state::text, attempts") == [("queued", 0), ("queued", 0)]
        assert (await line.account_is())[0] == "refused"
        assert await line.events() == ["authenticationError", "accountPaused"]
        assert await line.lease() is None, "nobody is hammered"

        await line.login("secret")
        await line.now()
        await line.deliver()
        assert (await line.account_is()) == ("active", 0)
        assert "accountResumed" in await line.events()


@pytest.mark.parametrize("how", ["454 4.7.0 Too many login attempts", "421 4.7.0 busy", "gone", "no key"])
async def test_a_refused_account_whose_probe_meets_another_trouble_rests_again(line: Line, how: str) -> None:
    """Else it would be probed at once, and again, and each probe take a try: a provider that throttles is hammered."""
    async with Upstream(auth=("PLAIN",), users={"ann": "secret"}) as upstream:
        await line.account(upstream)
        await line.login("wrong")
        await line.accept("one@x.example", "two@x.example")
        await line.deliver()
        await line.now()
        if how == "gone":
            await upstream.stop()
        elif how == "no key":
            async with db.connection(line.pool) as conn:
                await conn.execute('update accounts set secrets = \'{"smtp.auth.pass": "lost"}\'')
        else:
            upstream.when("CONNECT" if how.startswith("421") else "AUTH").say(how).close()
        await line.deliver()
        assert (await line.account_is())[0] == "refused"
        await line.ready()
        assert await line.lease() is None


async def test_a_refusal_in_bytes_that_are_no_text_is_read_as_any_other(line: Line) -> None:
    async with Upstream(auth=("PLAIN",)) as upstream:
        upstream.when("AUTH").say("535 5.7.8 mot de passe refus\udce9")
        await line.account(upstream)
        await line.login("secret")
        await line.accept("one@x.example")
        await line.deliver()
        assert await line.rows("state::text, attempts") == [("queued", 0)]
        assert (await line.account_is())[0] == "refused"


async def test_a_greeting_in_bytes_that_are_no_text_is_read_as_any_other(line: Line) -> None:
    async with Upstream() as upstream:
        upstream.when("CONNECT").say("421 4.7.0 d\udce9pass\udce9").close()
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.deliver()
        assert await line.rows("state::text, attempts, reply") == [("deferred", 1, "d pass")]


async def test_an_upstream_that_is_down_costs_one_try_and_the_account_rests(line: Line) -> None:
    async with Upstream() as upstream:
        await line.account(upstream)
    await line.accept("one@x.example")
    await line.accept("two@x.example")
    await line.deliver()
    assert await line.rows("state::text, attempts") == [("deferred", 1), ("queued", 0)]
    assert await line.account_is() == ("active", 1)
    assert await line.events() == ["messageDeliveryError", "connectError"]
    assert await line.lease() is None


async def test_while_others_reach_an_upstream_the_account_does_not_rest(
    pool: db.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that is cut off, or an upstream that takes no more connections, is no trouble of the account."""
    line = Line(pool, settings)
    monkeypatch.setattr("relay.deliver.PAUSE", 0.05)
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.deliver()
    await line.accept("two@x.example")
    await line.accept("three@x.example")
    async with db.connection(pool) as conn:
        await conn.execute("update deliveries set finished_at = now() + interval '1 minute' where state = 'sent'")
    await line.deliver()
    assert await line.rows("state::text, attempts") == [("sent", 1), ("deferred", 1), ("queued", 0)]
    assert await line.account_is() == ("active", 0)
    # And once nobody does, it rests
    async with db.connection(pool) as conn:
        await conn.execute("update deliveries set finished_at = now() - interval '1 minute' where state = 'sent'")
    await line.deliver()
    assert await line.account_is() == ("active", 1)
    await line.end()


async def test_a_lease_that_pauses_ends_when_the_worker_does(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.deliver.PAUSE", 60)
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.deliver()
    await line.accept("two@x.example")
    working = await line.delivering()
    await until(lambda: any(hand.pauses for hand in line.deliverer._hands._held.values()), 10)
    line.deliverer.stop()
    await working
    assert await line.rows("state::text, attempts") == [("sent", 1), ("deferred", 1)]


@pytest.mark.parametrize("told", ["CONNECT", "AUTH", "gone", "well"])
async def test_an_account_that_somebody_has_locked_keeps_no_connection_to_postgresql_from_others(
    line: Line, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    """The lease pauses, and what there is to tell is told by the next."""
    monkeypatch.setattr("relay.deliver.PAUSE", 0.0)
    async with Upstream(auth=("PLAIN",), users={"ann": "secret"}) as upstream:
        await line.account(upstream)
        await line.login("secret")
        await line.accept("one@x.example", "two@x.example", "three@x.example")
        if told == "gone":
            await upstream.stop()
        elif told == "well":
            async with db.connection(line.pool) as conn:
                await conn.execute("update accounts set failures = 1")
        else:
            upstream.when(told).say("535 5.7.8 no" if told == "AUTH" else "421 4.7.0 busy").close()
        before, lease = await line.account_is(), await line.lease_one()
        async with db.connection(line.pool) as conn, conn.transaction():
            await conn.execute("select from accounts for no key update")
            await line.deliverer.deliver(lease)
            await conn.execute("select 1")  # it was locked all the time: else the server has ended this
        assert await line.account_is() == before
        await line.deliverer.deliver(await line.lease_one())
        assert await line.account_is() != before


async def cut_off(line: Line) -> None:
    """Three accounts whose upstreams are reached by others and not from here, one after the other."""
    for id in "bcd":
        async with Upstream() as upstream:
            await line.account(upstream, id)
        await line.accept("first@x.example", "second@x.example", account=id)
        async with db.connection(line.pool) as conn:
            await conn.execute(
                "update deliveries set state = 'sent', finished_at = now() + interval '1 minute'"
                " where account_id = %s and recipient = 'first@x.example'",
                (id,),
            )
        assert not line.deliverer.cut
        await line.deliverer.deliver(await line.lease_one(id))


async def test_what_a_host_that_is_cut_off_does_not_reach_costs_no_try_and_is_left_to_others(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps few leases from them, each for a moment, until somebody answers."""
    monkeypatch.setattr("relay.deliver.PAUSE", 0.05)
    async with Upstream() as upstream:
        await line.account(upstream, connections=100)
        await upstream.stop()
        await cut_off(line)
        assert line.deliverer.cut
        monkeypatch.setattr("relay.deliver.PAUSE", 60.0)
        await line.accept(*(f"r{number}@x.example" for number in range(BEGINNING + 1)))
        wanted = [await line.lease_one() for _ in range(BEGINNING + 1)]
        taking = [asyncio.create_task(line.admission.take(lease)) for lease in wanted]

        async def back() -> bool:
            rows = await line.rows("account_id, state::text, attempts")
            return rows.count(("a", "queued", 0)) == BEGINNING

        await until(back)
        assert sum(task.done() for task in taking) == BEGINNING
        assert (await line.account_is()) == ("active", 0)
        line.deliverer.stop()
        await asyncio.gather(*taking)


async def test_a_host_that_was_cut_off_sends_once_somebody_answers(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.deliver.PAUSE", 0.0)
    await cut_off(line)
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.deliver()
    assert not line.deliverer.cut
    await line.accept("two@x.example")
    await line.deliver()
    assert (await line.rows("state::text, attempts"))[-2:] == [("sent", 1), ("deferred", 1)]


async def test_a_forbidden_upstream_is_refused_at_dial_with_the_reason(pool: db.Pool, settings: Settings) -> None:
    line = Line(pool, dataclasses.replace(settings, allow_networks=()))
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.deliver()
        assert upstream.connections == 0
    async with db.connection(pool) as conn:
        row = await (await conn.execute("select reason from accounts")).fetchone()
    assert row is not None
    assert "127.0.0.1" in row[0]
    await line.end()


async def test_attempts_exhausted_make_a_dead_letter(line: Line) -> None:
    async with Upstream() as upstream:
        upstream.when("RCPT").say("451 4.3.0 not now")
        await line.account(upstream)
        await line.accept("one@x.example", attempts=2)
        await line.deliver()
        await line.now()
        await line.deliver()
    assert [row[:2] for row in await line.rows()] == [("failed", 2)]
    assert await line.events() == ["messageDeliveryError", "messageFailed"]


async def test_mail_whose_lifetime_ended_is_a_dead_letter_without_a_try(line: Line) -> None:
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        async with db.connection(line.pool) as conn:
            await conn.execute("update deliveries set expires_at = now() - interval '1 s'")
        await line.deliver()
        assert upstream.connections == 0
    assert await line.rows() == [("failed", 0, "expired")]


async def test_an_account_wide_limit_of_the_provider_rests_the_account(line: Line) -> None:
    async with Upstream() as upstream:
        upstream.when("DOT").say("550 5.4.5 Daily user sending limit exceeded.")
        await line.account(upstream)
        await line.accept("one@x.example", lifetime=86400)
        await line.accept("two@x.example")
        await line.deliver()
    assert [row[:2] for row in await line.rows()] == [("deferred", 0), ("queued", 0)]
    assert await line.lease() is None


async def test_the_next_mail_is_told_of_and_handed_over_once_the_last_outcome_is_stored(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, commit = asyncio.Event(), outcomes.commit

    async def slowly(conn: Any, reports: Any) -> list[bool]:
        await stored.wait()
        return await commit(conn, reports)

    monkeypatch.setattr(outcomes, "commit", slowly)
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.accept("two@x.example")
        working = await line.delivering()
        await upstream.heard("RCPT TO:<TWO@")
        assert (len(upstream.taken), await line.rows("state::text")) == (1, [("leased",), ("leased",)])
        stored.set()
        await working
        assert (len(upstream.taken), upstream.connections) == (2, 1)
    assert await line.rows() == [("sent", 1, "sent")] * 2


@pytest.mark.parametrize(("fails", "outcome"), [("classify", "unknown"), ("pixel.tag", "deferred")])
async def test_a_fault_of_ours_tells_what_may_have_been_sent(
    line: Line, monkeypatch: pytest.MonkeyPatch, fails: str, outcome: str
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(f"relay.deliver.{fails}", broken)
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example", content=HTML, splice=splice.find(HTML))
        await line.deliver()
        assert len(upstream.taken) == (outcome == "unknown")
    async with db.connection(line.pool) as conn:
        tries = await (await conn.execute("select outcome::text from attempts")).fetchall()
    assert (tries, await line.rows("state::text, attempts")) == ([(outcome,)], [("deferred", 1)])


async def test_mail_that_was_told_of_and_is_too_late_meanwhile_is_not_sent(line: Line) -> None:
    async with Upstream() as upstream:
        slow = asyncio.Event()
        upstream.when("DOT", times=1).wait(slow).say("250 ok")
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.accept("two@x.example", lifetime=1)
        await line.accept("three@x.example")
        working = await line.delivering()
        await upstream.heard("DATA")
        asyncio.get_running_loop().call_later(1, slow.set)
        await working
        assert [mail.recipients for mail in upstream.taken] == [("one@x.example",), ("three@x.example",)]
    assert await line.rows("state::text") == [("sent",), ("failed",), ("sent",)]


async def test_an_upstream_that_balked_is_told_one_thing_at_a_time(line: Line) -> None:
    async with Upstream() as upstream:
        await line.account(upstream)
        slow, stored = asyncio.Event(), asyncio.Event()
        upstream.when("DOT", connection=1).wait(slow).say("250 ok").close()
        upstream.when("DOT", connection=2, times=1).wait(stored).say("250 ok")
        for name in ("one", "two", "three"):
            await line.accept(f"{name}@x.example")
        working = await line.delivering()
        await upstream.heard("DATA")
        slow.set()
        # On the next connection the third is not told of while the second has no answer
        await until(lambda: (2, "DATA") in upstream.commands, 10)
        assert upstream.said("RCPT TO:<THREE@") == []
        stored.set()
        await working
    assert upstream.connections == 2
    assert await line.rows() == [("sent", 1, "sent")] * 3


async def test_a_lease_gives_back_what_its_budget_does_not_reach(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Upstream() as upstream:
        slow, budget, now = asyncio.Event(), line.settings.lease_budget, asyncio.get_running_loop().time
        monkeypatch.setattr(line.deliverer._hands, "_clock", lambda: now() + budget * slow.is_set())
        upstream.when("DOT", times=1).wait(slow).say("250 ok")
        await line.account(upstream)
        for name in ("one", "two", "three"):
            await line.accept(f"{name}@x.example")
        working = await line.delivering()
        await upstream.heard("DATA")
        slow.set()
        await working
        # The second was told of already: to go then would cost the connection
        assert (len(upstream.taken), upstream.connections, upstream.open) == (2, 1, 1)
    assert [row[:2] for row in await line.rows()] == [("sent", 1), ("sent", 1), ("queued", 0)]


async def test_a_lease_of_a_deleted_account_ends_quietly(line: Line) -> None:
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        lease = await line.lease()
        assert lease is not None
        async with db.connection(line.pool) as conn:
            await conn.execute("delete from deliveries")
            await conn.execute("delete from accounts")
        await line.deliverer.deliver(lease)
        assert upstream.connections == 0


async def test_an_account_that_is_deleted_under_its_lease_ends_it_quietly(
    line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from relay.store import messages

    bodies = messages.bodies

    async def gone(conn: Any, wanted: Any) -> Any:
        for table in ("deliveries", "bodies", "messages", "accounts"):
            await conn.execute(f"delete from {table}".encode())
        return await bodies(conn, wanted)

    monkeypatch.setattr("relay.deliver.messages.bodies", gone)
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("one@x.example")
        await line.deliver()
        assert upstream.taken == []
    assert "a fault of ours" not in caplog.text


@pytest.mark.parametrize(
    "damage",
    ["update bodies set packed = '\\x00'", "update bodies set packed = null", "delete from bodies"],
)
async def test_a_message_whose_content_is_damaged_fails_for_good_and_alone(
    line: Line, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Upstream() as upstream:
        await line.account(upstream)
        await line.accept("bad@x.example", "worse@x.example")
        await line.accept("good@x.example")
        async with db.connection(line.pool) as conn:
            await conn.execute(f"{damage} where message_id = (select min(message_id::text)::uuid from bodies)".encode())
        await line.deliver()
        assert [mail.recipients for mail in upstream.taken] == [("good@x.example",)]
    assert await line.rows() == [("failed", 0, "damaged")] * 2 + [("sent", 1, "sent")]
    assert await line.events() == ["messageFailed", "messageFailed", "messageSent"]
    async with db.connection(line.pool) as conn:
        (data,) = await (await conn.execute("select data from events order by id limit 1")).fetchone() or ({},)
    assert (data["errorCode"], data["job"]["attemptsMade"]) == ("damaged", 0)
    assert "Submit it again" in data["error"]
    assert "a message is given up: Its content in the database is damaged or gone" in caplog.text


async def test_large_mail_is_fetched_one_by_one(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[int] = []
    from relay.store import messages

    bodies = messages.bodies

    async def counted(conn: Any, wanted: Any) -> Any:
        fetched.append(len(list(wanted)))
        return await bodies(conn, wanted)

    monkeypatch.setattr("relay.deliver.messages.bodies", counted)
    large = b"Subject: x\r\n\r\n" + b"x" * 78 * 10_000 + b"\r\n"
    async with Upstream() as upstream:
        await line.account(upstream)
        for recipient in ("one@x.example", "two@x.example", "three@x.example"):
            await line.accept(recipient, content=large)
        await line.deliver()
        taken = await upstream.wait(3)
    assert fetched == [1, 1, 1]
    assert all(mail.content == large for mail in taken)


async def test_a_lease_is_taken_without_waiting_for_its_upstream(line: Line) -> None:
    async with Upstream() as upstream:
        answer = asyncio.Event()
        upstream.when("DOT", times=1).wait(answer).say("250 ok")
        await line.account(upstream)
        await line.accept("one@x.example")
        lease = await line.lease()
        assert lease is not None
        await asyncio.wait_for(line.admission.take(lease), 5)
        assert await line.rows("state::text") == [("leased",)]
        await upstream.heard("DATA")
        answer.set()
        await line.end()
    assert await line.rows("state::text") == [("sent",)]


async def test_no_more_leases_in_hand_than_there_is_room_for(pool: db.Pool, settings: Settings) -> None:
    line = Line(pool, dataclasses.replace(settings, worker_leases=1))
    async with Upstream() as upstream:
        answer = asyncio.Event()
        upstream.when("DOT", times=1).wait(answer).say("250 ok")
        await line.account(upstream)
        for recipient in ("one@x.example", "two@x.example"):
            await line.accept(recipient)
        first, second = await line.lease_one(), await line.lease_one()
        await line.admission.take(first)
        waiting = asyncio.create_task(line.admission.take(second))
        await upstream.heard("DATA")
        assert not waiting.done()
        answer.set()
        await waiting
        await upstream.wait(2)
        await line.end()


async def test_a_lease_that_is_cut_short_at_the_end_is_left_in_doubt(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.admit.GRACE", 0.05)
    async with Upstream() as upstream:
        upstream.when("DOT").hang()
        await line.account(upstream)
        await line.accept("one@x.example")
        lease = await line.lease()
        assert lease is not None
        await line.admission.take(lease)
        await upstream.heard("DATA")
        await line.end()
    assert await line.rows("state::text") == [("leased",)], "it expires, and its recovery records the unknown"


async def test_what_an_old_login_was_told_says_nothing_of_the_new_settings(line: Line) -> None:
    async with Upstream(auth=("PLAIN",), users={"ann": "secret"}) as upstream:
        answer = asyncio.Event()
        upstream.when("AUTH").wait(answer).say("535 5.7.8 wrong password")
        await line.account(upstream)
        await line.login("wrong")
        await line.accept("one@x.example")
        working = await line.delivering()
        await upstream.heard("AUTH")
        await line.login("secret")
        answer.set()
        await working
    assert await line.account_is() == ("active", 0)


async def test_mail_whose_lease_was_lost_meanwhile_is_not_handed_over(pool: db.Pool, settings: Settings) -> None:
    """Whoever recovers the lease counts it against the account's limits, and then sends it himself."""
    line = Line(pool, dataclasses.replace(settings, lease_seconds=0.4))
    answered = asyncio.Event()
    async with Upstream() as upstream:
        upstream.when("RCPT", times=1).wait(answered).say("250 ok")
        await line.account(upstream)
        await line.accept("one@x.example")
        late = await line.delivering()
        await upstream.heard("RCPT")
        async with db.connection(pool) as conn, conn.transaction():  # else it may be renewed between the two
            await conn.execute("update leases set expires_at = now() - interval '1 second'")
            assert len(await leases.recover(conn)) == 1
        await until(lambda: not any(map(line.deliverer._hands.ours, line.deliverer._hands._held.values())), 10)
        answered.set()
        await late
        assert upstream.taken == []
        await line.deliver()
        await upstream.wait(1)
    assert await line.rows() == [("sent", 2, "sent")]
    await line.end()


async def test_a_worker_that_cannot_begin_leases_leaves_the_others_to_the_broker(
    line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut off from PostgreSQL, it would else take all that comes from the workers that are not. Given one that answers,
    and can write nothing, such as a standby, then it is asked with pauses, and told of once a lease.
    """
    monkeypatch.setattr(hands, "AGAIN", 0.01)
    away, asked, start = True, Counter[int](), leases.start

    async def starting(conn: db.Connection, lease: int, **more: Any) -> Any:
        asked[lease] += 1
        if away:
            raise StoreAway("gone")
        return await start(conn, lease, **more)

    monkeypatch.setattr(leases, "start", starting)
    async with Upstream() as upstream:
        await line.account(upstream, connections=100)
        await line.accept(*(f"r{number}@example.org" for number in range(BEGINNING + 3)))
        wanted = [await line.lease_one() for _ in range(BEGINNING + 3)]
        taking = [asyncio.create_task(line.admission.take(lease)) for lease in wanted]
        await until(lambda: sum(task.done() for task in taking) == BEGINNING and asked[wanted[0]] > 3)
        assert set(asked) == set(wanted[:BEGINNING])
        assert caplog.text.count("cannot be worked on yet") == BEGINNING
        away = False
        await until(lambda: len(upstream.taken) == len(wanted))
        await asyncio.gather(*taking)
