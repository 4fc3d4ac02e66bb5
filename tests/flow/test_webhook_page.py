"""The page on webhooks: its examples run as they stand there, its payloads are those that are posted."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from relay.core import webhook
from relay.core.model import EventType
from relay.settings import Settings
from relay.store import db
from tests.keeping import kept
from tests.notifying import Told
from tests.stack import until
from tests.store.posting import SECRET

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "webhooks.md").read_text()
OTHER = webhook.new_secret(b"k" * 32)


def section(heading: str) -> str:
    """What stands under a heading, up to the next."""
    return re.split(r"^##+ ", PAGE.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def block(text: str, language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"one {language} block is wanted, there are {len(found)}"
    return str(found[0])


@asynccontextmanager
async def receiving(folder: Path, port: int, secret: str) -> AsyncIterator[Path]:
    """The receiver of the page, as it stands there, in a process of its own; what it prints goes to the file."""
    printed = folder / "printed"
    (folder / "receiver.py").write_text(block(section("A receiver in Python"), "python"))
    with printed.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "receiver.py"),
            cwd=folder,
            env={**os.environ, "SECRET": secret, "PORT": str(port)},
            stdout=out,
            stderr=asyncio.subprocess.DEVNULL,
        )
    try:
        with kept(process.pid):
            await until(lambda: _listens(port))
            yield printed
    finally:
        process.kill()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.fixture
async def told(pool: db.Pool, settings: Settings) -> Told:
    told = Told(pool, settings)
    await told.account("a")
    return told


async def test_the_receiver_of_the_page_verifies_what_is_posted(
    told: Told, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    port = free_port()
    await told.endpoint(f"http://127.0.0.1:{port}/")
    event = await told.event(recipient="zoë@there.example")
    async with receiving(tmp_path, port, SECRET) as printed, told.running():
        await told.become(delivered=1)

    assert printed.read_text() == f"evt_{event} messageSent {{'recipient': 'zoë@there.example'}}\n"


async def test_the_receiver_of_the_page_believes_nobody_else(
    told: Told, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """Given another secret, then what we post is refused; and so is what has no signature."""
    port = free_port()
    await told.endpoint(f"http://127.0.0.1:{port}/")
    await told.event()
    async with receiving(tmp_path, port, OTHER) as printed:
        async with told.running():
            await told.become(failed=1)
        async with aiohttp.ClientSession() as http, http.post(f"http://127.0.0.1:{port}/", data=b"{}") as response:
            assert response.status == 401

    assert [row[0] for row in await told.rows("select distinct status from posts")] == [401]
    assert printed.read_text() == ""


def test_the_other_signature_verifies_as_the_page_says() -> None:
    place: dict[str, Any] = {}
    exec(block(section("Coming from EmailEngine"), "python"), place)  # the page's own words

    assert place["verified"](SECRET, b"{}", webhook.sign_body(SECRET, b"{}"))
    assert not place["verified"](SECRET, b"{ }", webhook.sign_body(SECRET, b"{}"))


@pytest.mark.parametrize("event", EventType)
def test_the_payloads_of_the_page_are_those_that_are_posted(event: EventType) -> None:
    golden = json.loads((ROOT / "tests" / "data" / "webhooks" / f"{event}.json").read_text())

    assert json.loads(block(section(event), "json")) == golden["data"]


def test_the_page_tells_of_no_event_that_there_is_not() -> None:
    events = PAGE.partition("\n## Events\n")[2].partition("\n## ")[0]

    assert set(re.findall(r"^### (\w+)$", events, re.MULTILINE)) == set(EventType)
