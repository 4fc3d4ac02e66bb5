"""What reports change is counted, once: by account, by category, and what is about nothing of ours."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from relay import bounces, scrape
from relay.core.report import Kind
from relay.store import db
from tests.store.mail import account
from tests.store.test_bounces import bounce, complaint, sent, told

METRIC = re.compile(r"^postferry_(reported|bounces|reports_unmatched)_total\{(.*)\} (\S+)$", re.MULTILINE)


def counted() -> Counter[tuple[str, str]]:
    return Counter({(name, labels): int(float(n)) for name, labels, n in METRIC.findall(scrape.page().decode())})


async def test_what_a_report_changes_is_counted_once(pool: db.Pool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "postferry.bounces")
    async with db.connection(pool) as conn:
        await account(conn, "counted")
        await sent(conn, "ann@there.example", "bob@there.example", "cid@there.example", account="counted")
        before = counted()
        report = bounce("ann@there.example", told("bob@there.example", "552 5.2.2 Mailbox full"))
        assert [await bounces.record(conn, "counted", report) for _ in range(2)] == [2, 0]
        assert await bounces.record(conn, "counted", complaint("cid@there.example")) == 1
        assert await bounces.record(conn, "counted", bounce("eve@there.example", message_id="<n@x>", key="n")) == 0
    assert counted() - before == {
        ("reported", 'account="counted",kind="bounce"'): 2,
        ("reported", 'account="counted",kind="complaint"'): 1,
        ("bounces", 'category="unknown_user"'): 1,
        ("bounces", 'category="mailbox_full"'): 1,
        ("reports_unmatched", 'source="imap"'): 1,
    }
    assert [one.getMessage() for one in caplog.records] == [
        f"{Kind.BOUNCE}: 2 of counted",
        f"{Kind.COMPLAINT}: 1 of counted",
    ]
    assert "@" not in caplog.text
