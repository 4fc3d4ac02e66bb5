"""A tenant of a running stack: an account with an upstream of the test's, its mail in, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

import aiohttp
import aiosmtplib

from relay import enrol
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import db, tokens
from tests.fakes.upstream import Upstream
from tests.stack import PATIENCE, Stack, until

HTML = "<html><body><p>Hello</p></body></html>"


@dataclass(frozen=True)
class Tenant:
    """`id` is the account; its mail comes from `sender`."""

    id: str
    sender: str
    upstream: Upstream
    settings: Settings
    pool: db.Pool
    http: aiohttp.ClientSession

    async def change(self, **given: Any) -> None:
        """Settings of the account, as the API takes them; private upstreams are allowed, whatever the stack says."""
        vault = Vault(self.settings.secret_keys)
        await enrol.save(self.pool, vault, self.settings, self.id, given)

    # -- mail in -------------------------------------------------------------------------------------------------

    async def mail(
        self,
        *to: str,
        sender: str | None = None,
        html: bool = False,
        login: tuple[str, str] | None = None,
        **headers: str,
    ) -> str:
        """One message over SMTP, `X_Send_At=…` being a header; the reply. Raises aiosmtplib.SMTPResponseException."""
        content = message(self.sender, to, html=html, **headers)
        async with aiosmtplib.SMTP(hostname="127.0.0.1", port=self.settings.smtp_port, timeout=30) as client:
            if login:
                await client.login(*login)
            return (await client.sendmail(sender or self.sender, list(to), content))[1]

    async def submit(self, *to: str, **fields: Any) -> Any:
        """One message over HTTP; the answer, which is a 200."""
        status, answer = await self.ask("POST", f"/v1/account/{self.id}/submit", self.body(*to, **fields))
        assert status == 200, answer
        return answer

    def body(self, *to: str, **fields: Any) -> dict[str, Any]:
        addresses = [{"address": address} for address in to]
        return {"from": {"address": self.sender}, "to": addresses, "subject": "hello", "text": "Hello"} | fields

    async def ask(
        self, method: str, path: str, json: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        async with self.http.request(method, path, json=json, headers=headers) as response:
            return response.status, await response.json()

    async def status(self) -> Any:
        return (await self.ask("GET", f"/v1/account/{self.id}/queue/status"))[1]

    async def metrics(self) -> Counter[str]:
        """Every sample of all roles by its name and labels, such as `postferry_accepted_total{ingress="api"}`."""
        async with self.http.get("/metrics") as response:
            assert response.status == 200
            samples = [line.rpartition(" ") for line in (await response.text()).splitlines() if line[0] != "#"]
        found: Counter[str] = Counter()
        found.update({name: float(value) for name, _, value in samples})  # type: ignore[dict-item]
        return found

    # -- what became of it ---------------------------------------------------------------------------------------

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Of this test's database; `%s` is the account when no values are given."""
        async with db.connection(self.pool) as conn:
            return await (await conn.execute(query.encode(), values or (self.id,))).fetchall()

    async def states(self) -> Counter[str]:
        """How many deliveries are in each state."""
        return Counter(
            dict(await self.rows("select state::text, count(*) from deliveries where account_id = %s group by 1"))
        )

    async def becomes(self, seconds: float = PATIENCE, **states: int) -> None:
        """Waits until the deliveries are in just these states; a state may have none."""

        async def so() -> bool:
            return await self.states() == Counter(states)  # to a Counter, none and zero are the same

        try:
            await until(so, seconds)
        except AssertionError:
            raise AssertionError(f"deliveries are {dict(await self.states())}, and not {states}") from None

    async def attempts(self) -> list[str]:
        """The outcomes of all tries, in their order."""
        found = await self.rows("select outcome::text from attempts where account_id = %s order by id")
        return [row[0] for row in found]

    async def unknowns(self) -> set[str]:
        """Who may have been sent to without our knowing."""
        found = await self.rows(
            "select d.recipient from attempts a join deliveries d on d.id = a.delivery_id"
            " where a.account_id = %s and a.outcome = 'unknown'"
        )
        return {row[0] for row in found}

    def received(self) -> Counter[str]:
        """How many times each recipient was sent to."""
        return Counter(recipient for taken in self.upstream.taken for recipient in taken.recipients)

    async def all_sent_once(self, recipients: Iterable[str], seconds: float = PATIENCE) -> None:
        """Everything is known as sent, and every recipient got one copy."""
        expected = Counter(recipients)
        await self.becomes(seconds, sent=expected.total())
        assert self.received() == expected


@asynccontextmanager
async def living(stack: Stack, id: str, upstream: Upstream, **given: Any) -> AsyncIterator[Tenant]:
    """The tenant for as long as its test takes; then its account goes, with its mail."""
    allowed = replace(stack.settings, allow_networks=(ip_network("127.0.0.0/8"),))
    pool = await db.open_pool(stack.settings, most=2)
    async with db.connection(pool) as conn:
        token = await tokens.create(conn, ["*"])
    headers = {"Authorization": f"Bearer {token}"}
    api, patience = f"http://127.0.0.1:{stack.settings.api_port}", aiohttp.ClientTimeout(30)
    async with aiohttp.ClientSession(api, headers=headers, timeout=patience) as http:
        tenant = Tenant(id, f"{id}@here.example", upstream, allowed, pool, http)
        smtp = {"host": upstream.host, "port": upstream.port, "secure": False, "tls": {"mode": "none"}}
        await tenant.change(**{"email": tenant.sender, "smtp": smtp, "tracking": {"opens": False}} | given)
        yield tenant
    await enrol.delete(pool, id)
    await pool.close()


def message(sender: str, to: Iterable[str], *, html: bool = False, **headers: str) -> bytes:
    lines = [f"From: {sender}", f"To: {', '.join(to)}", "Subject: hello", "MIME-Version: 1.0"]
    lines += [f"Content-Type: text/{'html' if html else 'plain'}; charset=utf-8"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", HTML if html else "Hello", ""]).encode()


def people(number: int, name: str = "p") -> list[str]:
    """So many recipients."""
    return [f"{name}{place}@there.example" for place in range(number)]
