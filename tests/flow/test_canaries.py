"""Secrets that sing: given to the running roles, failed with in every way, and then looked for wherever words end up.

The tenants' servers repeat what they were told, in the clear and in base64.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiosmtplib
import pytest
import redis

from relay import local
from relay.store import tokens
from tests.conftest import MakeTenant
from tests.fakes.issuer import Issuer
from tests.fakes.mailbox import MailboxServer
from tests.fakes.mailgun import MailgunServer
from tests.fakes.receiver import Receiver
from tests.fakes.upstream import Upstream
from tests.stack import Stack, until
from tests.tenant import Tenant

SHOWN = ("accounts", "webhooks", "tokens", "outbox", "deadletters", "queue/status", "suppressions", "opens/recent")
OF_ACCOUNT = ("", "/queue/status", "/reports", "/tracking", f"/message/{'A' * 24}")


@dataclass
class Aviary:
    """The canaries, by what they are, and all that was answered."""

    stack: Stack
    canaries: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)

    def new(self, what: str) -> str:
        return self.canaries.setdefault(what, f"Canary-{what}-{secrets.token_hex(8)}")

    def echo(self, *names: str) -> str:
        """What a server repeats."""
        told = [self.canaries[name] for name in names]
        return " ".join([*told, *(base64.b64encode(f"\0ann\0{one}".encode()).decode() for one in told)])

    async def ask(self, tenant: Tenant, method: str, path: str, json: Any = None, **headers: str) -> tuple[int, str]:
        async with tenant.http.request(method, path, json=json, headers=headers, allow_redirects=False) as response:
            text = await response.text()
        self.answers.append(f"{method} {path.partition('?')[0]} {text}")
        return response.status, text

    def sings(self, *where: str) -> list[str]:
        """Which of them are there, in the clear or in base64."""
        text = "\n".join(where)
        return [what for what, secret in self.canaries.items() if any(form in text for form in forms(secret))]


def forms(secret: str) -> Iterator[str]:
    yield secret
    yield base64.b64encode(secret.encode()).decode().rstrip("=")
    yield secret.encode().hex()


@pytest.fixture
async def aviary(stack: Stack, make_tenant: MakeTenant) -> AsyncIterator[Aviary]:
    """Four tenants, each with another way to fail; all have failed."""
    aviary = Aviary(stack)
    async with AsyncExitStack() as opened:
        upstream = await opened.enter_async_context(Upstream(auth=("PLAIN", "LOGIN"), users={"ann": "right"}))
        mailbox = await opened.enter_async_context(MailboxServer())
        mailgun = await opened.enter_async_context(MailgunServer())
        issuer = await opened.enter_async_context(Issuer())
        receiver = await opened.enter_async_context(Receiver())
        one = await _by_smtp(aviary, make_tenant, upstream, mailbox)
        two = await _by_mailgun(aviary, make_tenant, upstream, mailgun)
        three = await _by_oauth2(aviary, make_tenant, upstream, issuer)
        await _subscribed(aviary, one, receiver)
        await _guessed(aviary, one)
        for tenant in (one, two, three):
            await tenant.submit("bob@there.example")
            await _becomes_refused(tenant)
            await aviary.ask(tenant, "POST", f"/v1/account/{tenant.id}/verify")
        await until(lambda: _mailbox_failed(one))
        await receiver.wait(1)
        await until(lambda: _posted(aviary, one))
        for tenant in (one, two, three):
            await _shown(aviary, tenant)
        yield aviary


async def _by_smtp(aviary: Aviary, make: MakeTenant, upstream: Upstream, mailbox: MailboxServer) -> Tenant:
    password, other = aviary.new("smtp"), aviary.new("imap")
    upstream.when("AUTH").say(f"535 5.7.8 no: {aviary.echo('smtp')}")
    mailbox.when("AUTHENTICATE").say("{tag} NO [AUTHENTICATIONFAILED] no: " + aviary.echo("imap"))
    mailbox.when("LOGIN").say("{tag} NO [AUTHENTICATIONFAILED] no: " + aviary.echo("imap"))
    clear = {"secure": False, "tls": {"mode": "none"}}
    smtp = {"host": upstream.host, "port": upstream.port, "auth": {"user": "ann", "pass": password}, **clear}
    imap = {"host": mailbox.host, "port": mailbox.port, "auth": {"user": "ann", "pass": other}, **clear}
    return await make(aviary.stack, upstream, smtp=smtp, imap=imap)


async def _by_mailgun(aviary: Aviary, make: MakeTenant, upstream: Upstream, mailgun: MailgunServer) -> Tenant:
    key, signing = aviary.new("mailgun"), aviary.new("signing")
    mailgun.when().say(401, {"message": f"Invalid private key {aviary.echo('mailgun')}"})
    settings = {**mailgun.settings, "apiKey": key, "webhookSigningKey": signing}
    return await make(aviary.stack, upstream, smtp=None, mailgun=settings)


async def _by_oauth2(aviary: Aviary, make: MakeTenant, upstream: Upstream, issuer: Issuer) -> Tenant:
    refresh, secret = aviary.new("refresh"), aviary.new("client")
    settings = issuer.settings("ann@here.example", refresh) | {"clientSecret": secret}
    tenant = await make(aviary.stack, upstream, oauth2=settings)
    _, begun = await tenant.ask("POST", f"/v1/account/{tenant.id}/oauth2/authorize")
    aviary.canaries["state"] = parse_qs(urlsplit(begun["url"]).query)["state"][0]
    aviary.canaries["link"] = begun["link"].rpartition("/")[2]
    code = aviary.new("code")
    issuer.when().refuse("invalid_grant", f"no: {aviary.echo('code', 'client')}")
    for state in ("not-ours", aviary.canaries["state"]):
        await aviary.ask(tenant, "GET", f"/v1/oauth2/callback?state={state}&code={code}")
    issuer.when().refuse("invalid_grant", f"no: {aviary.echo('refresh', 'client')}")
    return tenant


async def _subscribed(aviary: Aviary, tenant: Tenant, receiver: Receiver) -> None:
    """By an endpoint that repeats its headers, as those for trying things out do."""
    header, secret = aviary.new("header"), f"whsec_{base64.b64encode(os.urandom(24)).decode()}"
    aviary.canaries["webhook"] = secret
    receiver.when().say(500, f"you sent {header} and {aviary.echo('header')}".encode())
    url = receiver.url("/hook")
    given = {"url": url, "account": tenant.id, "headers": {"X-Key": header}, "secret": secret}
    status, answer = await tenant.ask("POST", "/v1/webhooks", given)
    assert status == 200, answer


async def _guessed(aviary: Aviary, tenant: Tenant) -> None:
    """A token is guessed at both doors, and put where it does not belong."""
    guess = aviary.canaries["guess"] = tokens.PREFIX + secrets.token_urlsafe(32)
    await aviary.ask(tenant, "GET", "/v1/accounts", Authorization=f"Bearer {guess}")
    with pytest.raises(aiosmtplib.SMTPAuthenticationError):
        await tenant.mail("bob@there.example", login=(tenant.id, guess))
    _, writer = await asyncio.open_connection("127.0.0.1", aviary.stack.settings.api_port)
    writer.write(f"Authorization: Bearer {guess}\r\n\r\n".encode())
    await writer.drain()
    writer.close()


async def _becomes_refused(tenant: Tenant) -> None:
    async def so() -> bool:
        return (await tenant.ask("GET", f"/v1/account/{tenant.id}"))[1]["state"] == "refused"

    await until(so)


async def _mailbox_failed(tenant: Tenant) -> bool:
    return bool(await tenant.rows("select from mailboxes where account_id = %s and error <> ''"))


async def _posted(aviary: Aviary, tenant: Tenant) -> bool:
    query = "select from posts s join postings p on p.id = s.posting_id join endpoints e on e.id = p.endpoint_id"
    return bool(await tenant.rows(f"{query} where e.account_id = %s"))


async def _shown(aviary: Aviary, tenant: Tenant) -> None:
    """All that is to be had over HTTP."""
    for path in SHOWN:
        await aviary.ask(tenant, "GET", f"/v1/{path}")
    for path in OF_ACCOUNT:
        await aviary.ask(tenant, "GET", f"/v1/account/{tenant.id}{path}")
    await aviary.ask(tenant, "GET", "/metrics")
    for endpoint in (await tenant.ask("GET", f"/v1/webhooks?account={tenant.id}"))[1]["items"]:
        log = f"/v1/webhooks/{endpoint['id']}/log"
        await aviary.ask(tenant, "GET", log)
        for posting in (await tenant.ask("GET", log))[1]["items"]:
            await aviary.ask(tenant, "GET", f"{log}/{posting['id']}")


def logs(stack: Stack) -> str:
    return "\n".join(path.read_text(errors="replace") for path in stack._folder.glob("*.log"))


def family(stack: Stack) -> list[Path]:
    """The folders in /proc of the roles' processes and their children."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
    found = {process.pid for process in stack._processes.values() if process.poll() is None}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return [Path(f"/proc/{pid}") for pid in found]


def said(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(errors="replace")
    except OSError:
        return ""


def dumped(stack: Stack) -> str:
    """The whole database, as a thief of a backup has it."""
    program = local._postgres_program("pg_dump")
    dump = subprocess.run([program, stack.settings.database_url], capture_output=True, check=True)
    return dump.stdout.decode()


def carried(stack: Stack) -> str:
    """All that Valkey holds."""
    with redis.Redis.from_url(stack.settings.redis_url) as client:
        return "\n".join(repr(client.dump(key)) + repr(key) for key in client.scan_iter())


async def test_no_canary_sings(aviary: Aviary) -> None:
    """In logs, answers of the API, command lines, and environments of the processes."""
    texts = logs(aviary.stack)
    assert "a login was refused" in texts
    assert "Mailgun refuses the API key" in texts
    assert aviary.sings(texts) == []
    answers = "\n".join(aviary.answers)
    assert "***" in answers  # what the servers repeated is shown, without it
    # The link that mends an account is there for whoever may ask for it.
    assert [answer for answer in aviary.answers if set(aviary.sings(answer)) - {"link"}] == []
    processes = family(aviary.stack)
    lines = [said(folder, "cmdline") for folder in processes]
    assert len(list(filter(None, lines))) >= 6
    assert aviary.sings(*lines, *(said(folder, "environ") for folder in processes)) == []
    ours = [*aviary.stack.settings.secret_keys, aviary.stack.settings.database_url, aviary.stack.settings.redis_url]
    assert [line for line in lines if any(secret in line for secret in ours)] == []


async def test_no_role_leaves_a_core_dump(aviary: Aviary) -> None:
    """It would have passwords and keys in it."""
    ours = [
        folder for folder in family(aviary.stack) if re.search("-m\0?.?(relay|api|workers)", said(folder, "cmdline"))
    ]
    assert len(ours) >= 6
    for folder in ours:
        assert re.search(r"Max core file size +0 +0 ", said(folder, "limits")), said(folder, "cmdline")


async def test_a_stolen_database_gives_no_credential(aviary: Aviary) -> None:
    """Without the keys: passwords, keys and tokens are sealed; API tokens and states of sign-ins are hashes.

    The link that mends an account stands in its reason: it begins a sign-in, and opens nothing by itself.
    """
    dump = dumped(aviary.stack)
    assert len(re.findall(r"gAAAA[\w=-]{40,}", dump)) >= 7  # sealed by the vault
    assert set(aviary.sings(dump, carried(aviary.stack))) - {"link"} == set()
    assert not re.search(rf"{tokens.PREFIX}[\w-]{{43}}", dump)
    assert "whsec_" not in dump
    assert [key for key in aviary.stack.settings.secret_keys if key in dump] == []


def test_a_canary_that_sings_is_heard() -> None:
    aviary = Aviary(None, {"a": "Canary-a", "b": "Canary-b"})  # type: ignore[arg-type]
    encoded = base64.b64encode(b"Canary-b").decode()
    assert aviary.sings("nothing", "xCanary-ax") == ["a"]
    assert aviary.sings(f"{encoded}") == ["b"]
