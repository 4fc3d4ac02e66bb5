"""Applications that keep sending through a bad day, and the reckoning afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count

import aiohttp
import aiosmtplib

from tests.stack import PATIENCE, until
from tests.tenant import Tenant

PAUSE = 0.02  # s between two messages of one application


class Load:
    """Applications of a tenant, half over SMTP and half over HTTP, each message to a recipient of its own.

    `async with`: they send while its body runs. What was refused is not sent again: who was acknowledged must be sent
    to once; who was not may be sent to, once, since the acknowledgement itself may have been lost.
    """

    def __init__(self, tenant: Tenant, applications: int = 4) -> None:
        self.tenant = tenant
        self.acknowledged: list[str] = []
        self.doubtful: list[str] = []
        self.answers: Counter[int] = Counter()  # 250 and 200, 451 and 503; 0 is no answer at all
        self._numbers = count()
        self._applications = applications
        self._stopping = False

    async def __aenter__(self) -> Load:
        ways = [self._over_smtp, self._over_http]
        self._tasks = [asyncio.create_task(self._send(ways[place % 2])) for place in range(self._applications)]
        return self

    async def __aexit__(self, *fault: object) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def more(self, number: int = 20) -> None:
        """Until so many more were acknowledged."""
        target = len(self.acknowledged) + number
        await until(lambda: len(self.acknowledged) >= target)

    async def refused(self, *codes: int) -> None:
        """Until each of these answers was given once more."""
        before = Counter(self.answers)
        await until(lambda: all(self.answers[code] > before[code] for code in codes))

    async def all_arrived(self, unknown: int = 0, seconds: float = PATIENCE) -> None:
        """Who was acknowledged got one copy; at most `unknown` got one more, and then an attempt says so."""
        tenant = self.tenant

        async def finished() -> bool:
            states = await tenant.states()
            return set(states) == {"sent"} and states["sent"] >= len(self.acknowledged)

        try:
            await until(finished, seconds)
        except AssertionError:
            raise AssertionError(f"{dict(await tenant.states())} of {len(self.acknowledged)} acknowledged") from None
        received = tenant.received()
        assert set(self.acknowledged) <= set(received), "something is lost"
        assert set(received) <= {*self.acknowledged, *self.doubtful}
        assert received.total() - len(received) <= unknown
        assert {recipient for recipient, copies in received.items() if copies > 1} <= await tenant.unknowns()

    async def _send(self, way: Callable[[str], Awaitable[int]]) -> None:
        while not self._stopping:
            recipient = f"n{next(self._numbers)}@there.example"
            code = await way(recipient)
            self.answers[code] += 1
            (self.acknowledged if code in (200, 250) else self.doubtful).append(recipient)
            await asyncio.sleep(PAUSE)

    async def _over_smtp(self, recipient: str) -> int:
        try:
            await self.tenant.mail(recipient)
        except aiosmtplib.SMTPResponseException as refusal:
            return refusal.code
        except aiosmtplib.SMTPRecipientsRefused as refusal:
            return refusal.recipients[0].code
        except (aiosmtplib.SMTPException, OSError):
            return 0
        return 250

    async def _over_http(self, recipient: str) -> int:
        path = f"/v1/account/{self.tenant.id}/submit"
        try:
            return (await self.tenant.ask("POST", path, self.tenant.body(recipient)))[0]
        except (aiohttp.ClientError, OSError):
            return 0
