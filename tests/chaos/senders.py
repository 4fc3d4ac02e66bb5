"""Applications that hand mail over all the while, and write down what they were told."""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

import aiohttp
import aiosmtplib

from tests.chaos.ledger import Answer, Handed
from tests.chaos.sink import LATER, NOBODY

QUEUED = re.compile(r"queued for delivery as ([0-9a-f]{32})")
TIMEOUT = 12.0  # s that an application waits for an answer
MOST_TRIES = 60
TEXT = "Hello. " * 40


@dataclass
class Senders:
    """`ledger` has every mail that was handed over. Ports are those of cables, not of the roles themselves."""

    seed: int
    smtp_port: int
    api_port: int
    token: str
    accounts: list[str]
    limited: dict[str, int]  # account -> how many deliveries it hands over at most
    pause: float  # s between two mails of one application
    ledger: list[Handed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = count(1)
        self._stopping = False
        self._given = dict.fromkeys(self.limited, 0)

    async def run(self) -> None:
        ways = [self._reused, self._fresh, self._http, self._http]
        async with asyncio.TaskGroup() as group:
            for place, way in enumerate(ways):
                group.create_task(way(random.Random(self.seed * 1000 + place)))

    def stop(self) -> None:
        self._stopping = True

    # -- three kinds of application ------------------------------------------------------------------------------------

    async def _reused(self, rng: random.Random) -> None:
        """One connection for as long as it lasts."""
        client: aiosmtplib.SMTP | None = None
        while not self._stopping:
            mail, key, bad = self._next(rng)
            for _ in range(MOST_TRIES if key else 1):
                try:
                    if client is None or not client.is_connected:
                        client = self._client()
                        await client.connect()
                    answer, queue_id = await self._smtp(client, mail, key, bad)
                except (aiosmtplib.SMTPException, OSError):
                    answer, queue_id, client = Answer.DOUBTFUL, "", None
                if self._noted(mail, answer, queue_id):
                    break
                await asyncio.sleep(self.pause * 10)
            await asyncio.sleep(self.pause)

    async def _fresh(self, rng: random.Random) -> None:
        """A connection a mail. What is doubtful is handed over again as a mail of its own."""
        while not self._stopping:
            mail, key, bad = self._next(rng)
            try:
                async with self._client() as client:
                    answer, queue_id = await self._smtp(client, mail, key, bad)
            except (aiosmtplib.SMTPException, OSError):
                answer, queue_id = Answer.DOUBTFUL, ""
            self._noted(mail, answer, queue_id)
            await asyncio.sleep(self.pause)

    async def _http(self, rng: random.Random) -> None:
        """Over HTTP with an idempotency key: asked again until there is an answer."""
        headers = {"Authorization": f"Bearer {self.token}"}
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        url = f"http://127.0.0.1:{self.api_port}"
        async with aiohttp.ClientSession(url, headers=headers, timeout=timeout) as http:
            while not self._stopping:
                mail, _, bad = self._next(rng)
                key = mail.recipients[0]
                for _ in range(MOST_TRIES):
                    answer, queue_id = await self._posted(http, mail, key, bad)
                    if self._noted(mail, answer, queue_id):
                        break
                    await asyncio.sleep(self.pause * 10)
                await asyncio.sleep(self.pause)

    # -- one mail ------------------------------------------------------------------------------------------------------

    def _next(self, rng: random.Random) -> tuple[Handed, str, bool]:
        """The mail, its idempotency key ("" for none), and whether it is one that must be refused."""
        number = next(self._numbers)
        account = rng.choice([name for name in self.accounts if self._given.get(name, 0) < self.limited.get(name, 1)])
        bad = rng.random() < 0.05
        kinds = rng.choices(["p", NOBODY, LATER], [90, 3, 7], k=rng.choice([1, 1, 1, 2, 4]))
        names = tuple(f"{kind}{number}.{place}@there.example" for place, kind in enumerate(kinds))
        mail = Handed(account, names)
        self.ledger.append(mail)
        if account in self._given:
            self._given[account] += len(names)
        return mail, names[0] if rng.random() < 0.5 else "", bad

    def _noted(self, mail: Handed, answer: Answer, queue_id: str) -> bool:
        """Writes the answer down; whether it is one to go by."""
        mail.answers.append(answer)
        if queue_id:
            mail.queue_ids.add(queue_id)
        return answer is not Answer.DOUBTFUL

    def _client(self) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(hostname="127.0.0.1", port=self.smtp_port, timeout=TIMEOUT)

    async def _smtp(self, client: aiosmtplib.SMTP, mail: Handed, key: str, bad: bool) -> tuple[Answer, str]:
        sender = f"{mail.account}@here.example"
        lines = [f"From: {sender}", f"To: {mail.recipients[0]}", "Subject: chaos", f"X-Account: {mail.account}"]
        lines += [f"X-Idempotency-Key: {key}"] if key else []
        lines += ["X-Send-At: the day after never"] if bad else []
        content = "\r\n".join([*lines, "", TEXT, ""]).encode()
        try:
            _, said = await client.sendmail(sender, list(mail.recipients), content)
        except aiosmtplib.SMTPResponseException as refusal:
            return _by_code(refusal.code), ""
        except aiosmtplib.SMTPRecipientsRefused as refusal:
            return _by_code(max(one.code for one in refusal.recipients)), ""
        found = QUEUED.search(said)
        return Answer.ACKNOWLEDGED, found[1] if found else ""

    async def _posted(self, http: aiohttp.ClientSession, mail: Handed, key: str, bad: bool) -> tuple[Answer, str]:
        to = [{"address": address} for address in mail.recipients]
        body = {"to": to, "subject": "chaos", "text": TEXT} | ({"sendAt": "the day after never"} if bad else {})
        with suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            path = f"/v1/account/{mail.account}/submit"
            async with http.post(path, json=body, headers={"Idempotency-Key": key}) as response:
                if response.status == 200:
                    return Answer.ACKNOWLEDGED, (await response.json())["queueId"]
                again = response.status in (409, 429) or response.status >= 500
                return Answer.DOUBTFUL if again else Answer.REFUSED, ""
        return Answer.DOUBTFUL, ""


def _by_code(code: int) -> Answer:
    return Answer.REFUSED if 500 <= code < 600 else Answer.DOUBTFUL
