"""Access tokens are live when they are needed: had once, ahead of time, kept, and refused in words that help."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from relay import enrol
from relay.core.errors import StoreAway
from relay.core.tenant import Account
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import accounts, db, grants
from relay.tokens import TokenError, Tokens
from relay.trial import try_account
from relay.upstreams import Upstreams
from tests.fakes.imap import Mailserver
from tests.fakes.issuer import CLIENT, SECRET, Issuer
from tests.fakes.upstream import Upstream
from tests.stack import until

ANN = "ann@here.example"
NOWHERE = {"host": "127.0.0.1", "port": 1}


class Bench:
    """An account `a` whose tokens an issuer of the test's gives; `tokens()` stands for a process."""

    def __init__(self, pool: db.Pool, settings: Settings, issuer: Issuer) -> None:
        self.pool, self.settings, self.issuer = pool, settings, issuer
        self.vault = Vault(settings.secret_keys)

    async def save(self, **given: Any) -> None:
        await enrol.save(self.pool, self.vault, self.settings, "a", given)

    async def connected(self, **servers: Any) -> None:
        """The account, as if somebody had agreed."""
        oauth2 = self.issuer.settings(ANN, self.issuer.grant())
        await self.save(email=ANN, oauth2=oauth2, **(servers or {"smtp": NOWHERE}))

    async def account(self) -> Account:
        async with db.connection(self.pool) as conn:
            found = await accounts.get(conn, self.vault, "a")
        assert found is not None
        return found

    @asynccontextmanager
    async def tokens(self, **settings: Any) -> AsyncIterator[Tokens]:
        tokens = Tokens(self.pool, replace(self.settings, **settings), self.vault)
        try:
            yield tokens
        finally:
            await tokens.close()

    async def sql(self, query: str) -> list[tuple[Any, ...]]:
        async with db.connection(self.pool) as conn:
            cursor = await conn.execute(query.encode())
            return await cursor.fetchall() if cursor.description else []

    async def aged(self, left: int) -> None:
        """The token of an hour has so many seconds left."""
        await self.sql(
            f"update grants set expires_at = now() + interval '{left} s',"
            f" updated_at = now() + interval '{left - 3600} s'"
        )


@pytest.fixture
async def bench(pool: db.Pool, settings: Settings) -> AsyncIterator[Bench]:
    async with Issuer() as issuer:
        yield Bench(pool, settings, issuer)


def said(account: Account) -> str:
    """The token in the account's upstream."""
    assert account.smtp is not None
    return account.smtp.access_token


async def refusal(tokens: Tokens, account: Account) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await tokens.armed(account)
    return caught.value


async def test_an_account_without_oauth2_costs_nothing(settings: Settings, bench: Bench) -> None:
    await bench.save(smtp={"host": "127.0.0.1", "auth": {"user": "u", "accessToken": "its-own"}})
    account = await bench.account()
    tokens = Tokens(cast(db.Pool, None), settings, bench.vault)
    assert await tokens.armed(account) is account


async def test_a_token_is_had_and_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.connected(smtp=NOWHERE, imap=NOWHERE)
    async with bench.tokens() as tokens:
        account = await bench.account()
        armed = await tokens.armed(account)
        monkeypatch.setattr(grants, "look", None)  # nobody looks again
        assert await tokens.armed(account) == armed
    assert said(armed) == bench.issuer.access[0]
    assert armed.imap is not None
    assert armed.imap.access_token == bench.issuer.access[0]
    assert len(bench.issuer.asked) == 1


async def test_of_very_many_tokens_the_newest_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of accounts that are long gone stayed until the process ended."""
    monkeypatch.setattr("relay.tokens.KEPT", 2)
    await bench.connected()
    account = await bench.account()
    async with bench.tokens() as tokens:
        token = (await tokens.armed(account)).smtp
        live = tokens._live["a"]
        for id in ("b", "c"):
            tokens._kept(replace(account, id=id), live)
        assert list(tokens._live) == ["b", "c"]
        assert (await tokens.armed(account)).smtp == token  # the store has it
        assert list(tokens._live) == ["c", "a"]


async def test_a_server_with_credentials_of_its_own_keeps_them(bench: Bench) -> None:
    await bench.connected(smtp={**NOWHERE, "auth": {"user": "u", "accessToken": "its-own"}}, imap=NOWHERE)
    async with bench.tokens() as tokens:
        armed = await tokens.armed(await bench.account())
    assert said(armed) == "its-own"
    assert armed.imap is not None
    assert armed.imap.access_token == bench.issuer.access[0]


async def test_another_process_finds_it(bench: Bench) -> None:
    await bench.connected()
    async with bench.tokens() as one, bench.tokens() as other:
        account = await bench.account()
        assert await one.armed(account) == await other.armed(account)
    assert len(bench.issuer.asked) == 1


async def test_processes_that_want_it_at_once_ask_once(bench: Bench) -> None:
    """Given two processes and several callers in each, when the issuer takes its time, then all wait for one answer."""
    go = asyncio.Event()
    bench.issuer.when().wait(go)
    await bench.connected()
    async with bench.tokens() as one, bench.tokens() as other:
        account = await bench.account()
        waiting = [asyncio.create_task(tokens.armed(account)) for tokens in (one, other, one, other)]
        await bench.issuer.heard(1)
        go.set()
        found = {said(await task) for task in waiting}
    assert found == set(bench.issuer.access)
    assert len(bench.issuer.asked) == 1


async def test_it_is_renewed_ahead_while_the_old_one_is_used(bench: Bench) -> None:
    await bench.connected()
    async with bench.tokens() as one:
        await one.armed(await bench.account())
    await bench.aged(200)
    go = asyncio.Event()
    bench.issuer.when().wait(go)
    async with bench.tokens() as one, bench.tokens() as other:
        account = await bench.account()
        assert {said(await tokens.armed(account)) for tokens in (one, other)} == {bench.issuer.access[0]}
        await bench.issuer.heard(2)
        assert {said(await tokens.armed(account)) for tokens in (one, other)} == {bench.issuer.access[0]}
        go.set()
        await until(lambda: len(bench.issuer.access) == 2)

        async def renewed() -> bool:
            return {said(await tokens.armed(account)) for tokens in (one, other)} == {bench.issuer.access[1]}

        await until(renewed)
    assert len(bench.issuer.asked) == 2


async def test_a_token_with_time_left_is_not_renewed(bench: Bench) -> None:
    await bench.connected()
    async with bench.tokens() as one:
        await one.armed(await bench.account())
    await bench.aged(400)
    async with bench.tokens() as one:
        await one.armed(await bench.account())
    assert len(bench.issuer.asked) == 1


async def test_an_old_token_does_while_the_issuer_is_away(bench: Bench) -> None:
    await bench.connected()
    async with bench.tokens() as one:
        await one.armed(await bench.account())
    await bench.aged(200)
    await bench.issuer.stop()
    async with bench.tokens(upstream_retry=60.0) as one:
        account = await bench.account()
        assert said(await one.armed(account)) == bench.issuer.access[0]
        assert said(await one.armed(account)) == bench.issuer.access[0]


async def test_without_one_an_issuer_that_is_away_is_away(bench: Bench) -> None:
    await bench.connected()
    await bench.issuer.stop()
    async with bench.tokens(upstream_retry=60.0) as one, bench.tokens() as other:
        account = await bench.account()
        first, second = await refusal(one, account), await refusal(other, account)
    assert (first.kind, second.kind, first.link) == ("away", "away", "")
    assert await bench.sql("select state::text from accounts") == [("active",)]


async def test_a_rotated_refresh_token_takes_the_old_ones_place(bench: Bench) -> None:
    bench.issuer.rotates = True
    await bench.connected()
    for number in range(3):
        async with bench.tokens() as tokens:
            await tokens.armed(await bench.account())
            await bench.aged(0)
        assert len(bench.issuer.access) == number + 1


async def test_a_refresh_token_that_another_process_has_just_used_is_not_used_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between one's look and its claim: an issuer that takes each just once would end the grant."""
    bench.issuer.rotates = True
    await bench.connected()
    claim = grants.claim
    async with bench.tokens() as one, bench.tokens() as other:
        account = await bench.account()

        async def late(*args: Any, **more: Any) -> Any:
            monkeypatch.setattr(grants, "claim", claim)
            await other.armed(account)
            await bench.aged(0)
            return await claim(*args, **more)

        monkeypatch.setattr(grants, "claim", late)
        assert said(await one.armed(account)) == bench.issuer.access[1]
    assert await bench.sql("select state::text from accounts") == [("active",)]


async def test_whoever_comes_too_late_with_a_refresh_token_stops_no_account(bench: Bench) -> None:
    """Its claim has ended while it stood still, and another process has used the token, and has the next."""
    bench.issuer.rotates = True
    await bench.connected()
    go = asyncio.Event()
    bench.issuer.when(times=1).wait(go)
    async with bench.tokens() as one, bench.tokens() as other:
        account = await bench.account()
        late = asyncio.create_task(one.armed(account))
        await bench.issuer.heard(1)
        await bench.sql("update grants set claimed_until = now()")
        assert said(await other.armed(account)) == bench.issuer.access[0]
        go.set()
        with pytest.raises(TokenError) as caught:
            await late
        assert caught.value.kind == "away"
        assert await bench.sql("select state::text from accounts") == [("active",)]
        assert said(await one.armed(account)) == bench.issuer.access[0]


async def test_a_rotation_waits_for_the_store(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the issuer gave once is not lost with a commit that could not be made."""
    bench.issuer.rotates = True
    await bench.connected()
    keep, tries = grants.keep, []

    async def away(*args: Any) -> bool:
        tries.append(args)
        if len(tries) == 1:
            raise StoreAway("gone")
        return await keep(*args)

    monkeypatch.setattr(grants, "keep", away)
    async with bench.tokens() as tokens:
        assert said(await tokens.armed(await bench.account())) == bench.issuer.access[0]
    assert len(tries) == 2


async def test_whoever_gives_up_waiting_ends_nothing(bench: Bench) -> None:
    bench.issuer.rotates = True
    await bench.connected()
    go = asyncio.Event()
    bench.issuer.when().wait(go)
    async with bench.tokens() as tokens:
        task = asyncio.create_task(tokens.armed(await bench.account()))
        await bench.issuer.heard(1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        go.set()
    async with bench.tokens() as tokens:
        assert said(await tokens.armed(await bench.account())) == bench.issuer.access[0]


async def test_a_withdrawn_grant_pauses_the_account_once(bench: Bench) -> None:
    await bench.connected()
    bench.issuer.revoke()
    async with bench.tokens() as one, bench.tokens() as other:
        account = await bench.account()
        errors = [await refusal(tokens, account) for tokens in (one, other, one)]
    assert {error.kind for error in errors} == {"refused"}
    assert len(bench.issuer.asked) == 1  # with this refresh token nobody asks again
    [(state, reason)] = await bench.sql("select state::text, reason from accounts")
    assert state == "refused"
    assert "Connect the account again" in reason
    assert f"{bench.settings.public_url}/v1/oauth2/start/" in reason
    events = await bench.sql("select type from events order by id")
    assert events == [("authenticationError",), ("accountPaused",)]


async def test_a_grant_that_is_for_the_mailbox_alone_stops_no_mail(bench: Bench) -> None:
    await bench.connected(smtp={**NOWHERE, "auth": {"user": "u", "pass": "p"}}, imap=NOWHERE)
    bench.issuer.revoke()
    async with bench.tokens() as tokens:
        assert (await refusal(tokens, await bench.account())).kind == "refused"
    assert await bench.sql("select state::text from accounts") == [("active",)]


async def test_mended_settings_heal(bench: Bench) -> None:
    await bench.connected()
    bench.issuer.revoke()
    async with bench.tokens() as tokens:
        old = await bench.account()
        await refusal(tokens, old)
        await bench.save(oauth2={"refreshToken": bench.issuer.grant()})
        assert (await refusal(tokens, old)).kind == "away"  # of settings gone by
        assert said(await tokens.armed(await bench.account())) == bench.issuer.access[0]
    assert await bench.sql("select state::text from accounts") == [("active",)]


async def test_a_wrong_client_is_asked_again_once_it_may_be_right(bench: Bench) -> None:
    await bench.connected()
    bench.issuer.when(times=1).refuse("invalid_client", status=401)
    async with bench.tokens() as tokens:
        account = await bench.account()
        error = await refusal(tokens, account)
        assert (error.kind, "oauth2.clientSecret" in str(error)) == ("refused", True)
        assert said(await tokens.armed(account)) == bench.issuer.access[0]


async def test_an_account_that_was_never_connected_says_so(bench: Bench) -> None:
    await bench.save(email=ANN, smtp=NOWHERE, oauth2=bench.issuer.settings(ANN))
    async with bench.tokens() as tokens:
        error = await refusal(tokens, await bench.account())
        link = tokens.linked(error.link.rpartition("/")[2])
    assert link is not None
    assert link.account == "a"
    assert error.kind == "refused"
    assert error.link in error.reason
    assert error.link not in str(error)
    assert bench.issuer.asked == []


async def test_a_spurned_token_is_replaced_once_for_all(bench: Bench) -> None:
    await bench.connected()
    async with bench.tokens() as one, bench.tokens() as other:
        account = await bench.account()
        first = said(await one.armed(account))
        await other.armed(account)
        again = [await tokens.again(account, first) for tokens in (one, other)]
        assert {said(found) for found in again if found} == {bench.issuer.access[1]}
        assert said(await one.armed(account)) == bench.issuer.access[1]
    assert len(bench.issuer.asked) == 2


async def test_a_refused_password_asks_for_no_token(bench: Bench) -> None:
    await bench.connected(smtp=NOWHERE, imap={**NOWHERE, "auth": {"user": "u", "accessToken": "its-own"}})
    async with bench.tokens() as tokens:
        account = await bench.account()
        assert await tokens.again(account, "its-own") is None
        assert await tokens.again(account, "") is None
    assert bench.issuer.asked == []


async def test_settings_that_are_not_stored_use_up_no_grant(bench: Bench) -> None:
    await bench.connected()
    async with bench.tokens() as tokens:
        error = await refusal(tokens, replace(await bench.account(), updated_at=None))
    assert error.kind == "refused"
    assert bench.issuer.asked == []


# -- connections -----------------------------------------------------------------------------------------------------


def plain(upstream: Upstream) -> dict[str, Any]:
    return {"host": upstream.host, "port": upstream.port, "tls": {"mode": "none"}}


async def test_a_new_token_leaves_connections_alone_and_new_settings_do_not(bench: Bench) -> None:
    async with Upstream(auth=("XOAUTH2",)) as upstream, bench.tokens() as tokens:
        bench.issuer.on_token = lambda token: upstream.users.update({ANN: token})
        await bench.connected(smtp=plain(upstream))
        upstreams = Upstreams(bench.settings, tokens)
        account = await bench.account()
        upstreams.give_back(account, first := await upstreams.take(account))
        assert await tokens.again(account, bench.issuer.access[0])
        account = await bench.account()
        upstreams.give_back(account, second := await upstreams.take(account))
        await bench.save(oauth2={"refreshToken": bench.issuer.grant()})
        account = await bench.account()
        await upstreams.leave(account, third := await upstreams.take(account))
        await upstreams.close()
    assert first is second
    assert third is not first


async def test_a_token_that_upstream_refuses_is_replaced_once(bench: Bench) -> None:
    async with Upstream(auth=("XOAUTH2",), users={}) as upstream, bench.tokens() as tokens:
        bench.issuer.on_token = lambda token: (
            upstream.users.update({ANN: token}) if len(bench.issuer.access) == 2 else None
        )
        await bench.connected(smtp=plain(upstream))
        upstreams = Upstreams(bench.settings, tokens)
        account = await bench.account()
        await upstreams.leave(account, await upstreams.take(account))
        await upstreams.close()
        assert len(upstream.said("AUTH")) == 2
    assert len(bench.issuer.asked) == 2


async def test_a_verification_logs_in_with_a_live_token(bench: Bench) -> None:
    async with Upstream(auth=("XOAUTH2",), users={}) as upstream, Mailserver(users={}) as server:

        def told(token: str) -> None:
            if len(bench.issuer.access) == 2:  # the first is refused, although it should live
                upstream.users[ANN] = server.users[ANN] = token

        bench.issuer.on_token = told
        imap = {"host": server.host, "port": server.port, "secure": False}
        await bench.connected(smtp=plain(upstream), imap=imap)
        async with bench.tokens() as tokens:
            report = await try_account(await bench.account(), tokens, bench.settings)
    assert report.success
    assert len(bench.issuer.asked) == 2


async def test_a_verification_tells_where_to_connect(bench: Bench) -> None:
    async with Upstream(auth=("PLAIN",), users={"u": "p"}) as upstream:
        await bench.connected(smtp={**plain(upstream), "auth": {"user": "u", "pass": "p"}}, imap=NOWHERE)
        bench.issuer.revoke()
        async with bench.tokens() as tokens:
            report = await try_account(await bench.account(), tokens, bench.settings)
    assert report.smtp is not None
    assert report.smtp.success
    assert report.imap is not None
    assert report.imap.failed is not None
    assert (report.imap.failed.name, report.imap.code) == ("login", "EAUTH")
    assert "/v1/oauth2/start/" in report.imap.failed.advice


async def test_no_secret_is_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "postferry")
    await bench.connected()
    async with bench.tokens() as tokens:
        account = await bench.account()
        armed = await tokens.armed(account)
        bench.issuer.revoke()
        with pytest.raises(TokenError) as caught:
            await tokens.again(account, said(armed))
    assert account.oauth2 is not None
    for secret in (SECRET, account.oauth2.refresh_token, *bench.issuer.access):
        assert secret not in f"{caplog.text} {caught.value!r} {caught.value.reason} {armed!r} {account!r}"
    assert CLIENT in repr(account)
