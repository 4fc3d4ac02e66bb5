"""Applications that hand mail over all the while, and write down what they were told."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

import aiohttp
import aiosmtplib

from tests.chaos.ledger import Answer, Handed
from tests.chaos.sink import ANGRY, GONE, LATER, NOBODY

HandOver = Callable[["Door", Handed, str, bool], Awaitable[tuple[Answer, str]]]

QUEUED = re.compile(r"queued for delivery as ([0-9a-f]{32})")
MOST_TRIES = 60
TEXT = "Hello. " * 40
HTML = f"<p>{TEXT}</p>"


@dataclass(frozen=True)
class Door:
    """Where one host takes mail."""

    host: str
    smtp: int
    api: int


@dataclass
class Senders:
    """`ledger` has every mail that was handed over.

    With several doors half of the mails begin at any of them, the others at the first. What got no answer at one
    is handed over at another, where its idempotency key must be known as well.
    """

    seed: int
    doors: list[Door]
    token: str
    accounts: list[str]
    limited: dict[str, int]  # account -> how many deliveries it hands over at most
    pause: float  # s between two mails of one application
    timeout: float = 12.0  # s that one waits for an answer
    applications: int = 4
    owner: str = ""  # the account that has a mailbox, where reports come back
    ledger: list[Handed] = field(default_factory=list)
    elsewhere: int = 0  # tries of a mail at another door than its last

    def __post_init__(self) -> None:
        self._numbers = count(1)
        self._stopping = False
        self._given = dict.fromkeys(self.limited, 0)

    async def run(self) -> None:
        """Until `stop`; then each ends the mail it is at."""
        ways = [self._reused, self._fresh, self._http, self._http]
        async with asyncio.TaskGroup() as group:
            for place in range(self.applications):
                group.create_task(ways[place % len(ways)](random.Random(self.seed * 1000 + place)))

    def stop(self) -> None:
        self._stopping = True

    # -- three kinds of application ------------------------------------------------------------------------------------

    async def _reused(self, rng: random.Random) -> None:
        """One connection to each door, for as long as it lasts."""
        clients: dict[Door, aiosmtplib.SMTP] = {}

        async def hand_over(door: Door, mail: Handed, key: str, bad: bool) -> tuple[Answer, str]:
            try:
                if door not in clients or not clients[door].is_connected:
                    clients[door] = self._client(door)
                    await clients[door].connect()
                return await _smtp(clients[door], mail, key, bad)
            except (aiosmtplib.SMTPException, OSError):
                if client := clients.pop(door, None):
                    client.close()
                return Answer.DOUBTFUL, ""

        while not self._stopping:
            mail, key, bad = self._next(rng)
            await self._tries(rng, mail, key, bad, hand_over)

    async def _fresh(self, rng: random.Random) -> None:
        """A connection a mail."""

        async def hand_over(door: Door, mail: Handed, key: str, bad: bool) -> tuple[Answer, str]:
            client = self._client(door)
            try:
                await client.connect()
                return await _smtp(client, mail, key, bad)
            except (aiosmtplib.SMTPException, OSError):
                return Answer.DOUBTFUL, ""
            finally:
                client.close()

        while not self._stopping:
            mail, key, bad = self._next(rng)
            await self._tries(rng, mail, key, bad, hand_over)

    async def _http(self, rng: random.Random) -> None:
        """Over HTTP, always with a key."""
        headers = {"Authorization": f"Bearer {self.token}"}
        timeout = aiohttp.ClientTimeout(total=self.timeout)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as http:

            async def hand_over(door: Door, mail: Handed, key: str, bad: bool) -> tuple[Answer, str]:
                return await _posted(http, door, mail, key, bad)

            while not self._stopping:
                mail, _, bad = self._next(rng)
                await self._tries(rng, mail, mail.recipients[0], bad, hand_over)

    async def _tries(self, rng: random.Random, mail: Handed, key: str, bad: bool, hand_over: HandOver) -> None:
        """With a key until there is an answer, at one door after the other; without one a single time."""
        place = rng.randrange(len(self.doors)) if rng.random() < 0.5 else 0
        for turn in range(MOST_TRIES if key else 1):
            self.elsewhere += turn > 0 and len(self.doors) > 1
            answer, queue_id = await hand_over(self.doors[(place + turn) % len(self.doors)], mail, key, bad)
            mail.answers.append(answer)
            if queue_id:
                mail.queue_ids.add(queue_id)
            if answer is not Answer.DOUBTFUL:
                break
            await asyncio.sleep(self.pause * 10)
        await asyncio.sleep(self.pause)

    def _client(self, door: Door) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(hostname=door.host, port=door.smtp, timeout=self.timeout)

    # -- one mail ------------------------------------------------------------------------------------------------------

    def _next(self, rng: random.Random) -> tuple[Handed, str, bool]:
        """The mail, its idempotency key ("" for none), and whether it is one that must be refused."""
        number = next(self._numbers)
        account = rng.choice([name for name in self.accounts if self._given.get(name, 0) < self.limited.get(name, 1)])
        bad = rng.random() < 0.05
        back = 5 * (account == self.owner)
        kinds = rng.choices(["p", NOBODY, LATER, GONE, ANGRY], [90, 3, 7, back, back], k=rng.choice([1, 1, 1, 2, 4]))
        names = tuple(f"{kind}{number}.{place}@there.example" for place, kind in enumerate(kinds))
        mail = Handed(account, names)
        self.ledger.append(mail)
        if account in self._given:
            self._given[account] += len(names)
        return mail, names[0] if rng.random() < 0.5 else "", bad


async def _smtp(client: aiosmtplib.SMTP, mail: Handed, key: str, bad: bool) -> tuple[Answer, str]:
    sender = f"{mail.account}@here.example"
    lines = [f"From: {sender}", f"To: {mail.recipients[0]}", "Subject: chaos", f"X-Account: {mail.account}"]
    lines += [f"X-Idempotency-Key: {key}"] if key else []
    lines += ["X-Send-At: the day after never"] if bad else []
    content = "\r\n".join([*lines, "", TEXT, ""]).encode()
    try:
        refused, said = await client.sendmail(sender, list(mail.recipients), content)
    except aiosmtplib.SMTPResponseException as refusal:
        return _by_code(refusal.code), ""
    except aiosmtplib.SMTPRecipientsRefused as refusal:
        return _by_code(min(one.code for one in refusal.recipients)), ""
    found = QUEUED.search(said)
    if refused:
        return Answer.DOUBTFUL, ""
    return Answer.ACKNOWLEDGED, found[1] if found else ""


async def _posted(http: aiohttp.ClientSession, door: Door, mail: Handed, key: str, bad: bool) -> tuple[Answer, str]:
    to = [{"address": address} for address in mail.recipients]
    body = {"to": to, "subject": "chaos", "text": TEXT, "html": HTML} | (
        {"sendAt": "the day after never"} if bad else {}
    )
    with suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
        url = f"http://{door.host}:{door.api}/v1/account/{mail.account}/submit"
        async with http.post(url, json=body, headers={"Idempotency-Key": key}) as response:
            if response.status == 200:
                return Answer.ACKNOWLEDGED, (await response.json())["queueId"]
            again = response.status in (409, 429) or response.status >= 500
            return Answer.DOUBTFUL if again else Answer.REFUSED, ""
    return Answer.DOUBTFUL, ""


def _by_code(code: int) -> Answer:
    return Answer.REFUSED if 500 <= code < 600 else Answer.DOUBTFUL
