"""Reports find the delivery that they are about, and no other; each changes it once, with all that follows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay import bounces
from relay.core.bounce import Finding, Reported, judge
from relay.core.model import EventType, State
from relay.core.prose import Told
from relay.core.report import Kind
from relay.store import db, matching, retention, search, suppressions
from relay.store.bounces import Early
from relay.store.suppressions import Suppression
from tests.store.mail import account, prepared, stored

UNKNOWN = "550 5.1.1 User unknown"
FULL = "552 5.2.2 Mailbox full"


async def rows(conn: db.Connection, query: str, *given: Any) -> list[tuple[Any, ...]]:
    return await (await conn.execute(query.encode(), given)).fetchall()


async def sent(
    conn: db.Connection,
    *recipients: str,
    header: str = "<m@x.example>",
    ago: timedelta = timedelta(hours=1),
    reply: str = "Ok",
    account: str = "a",
    state: str = "sent",
    **options: Any,
) -> list[int]:
    """Deliveries that upstream took so long ago; their sums are not kept."""
    message = replace(prepared(*recipients, account=account, **options), message_id=header)
    await stored(conn, message)
    found = await rows(
        conn,
        "update deliveries set state = %s, ready = false, reply = %s, finished_at = case when %s in"
        " ('queued', 'deferred') then null else now() - %s end where message_id = %s returning id",
        *(state, reply, state, ago, message.id),
    )
    return sorted(id for (id,) in found)


def told(address: str, diagnostic: str = UNKNOWN, action: str = "failed", status: str = "") -> Finding:
    return judge(Told(address, action, status, diagnostic, "mx.there.example", "smtp"))


def bounce(*said: str | Finding, message_id: str = "<m@x.example>", key: str = "k1", **given: Any) -> Reported:
    findings = tuple(told(one) if isinstance(one, str) else one for one in said)
    return Reported(Kind.BOUNCE, "imap", key, message_id, findings, place="place-1", **given)


def complaint(*addresses: str, message_id: str = "<m@x.example>", key: str = "c1", **given: Any) -> Reported:
    findings = tuple(judge(Told(address)) for address in addresses)
    arf = {"feedbackType": "abuse", "userAgent": "Loop/1.0"}
    return Reported(Kind.COMPLAINT, "imap", key, message_id, findings, place="place-2", arf=arf, **given)


async def states(conn: db.Connection) -> list[str]:
    return [state for (state,) in await rows(conn, "select state::text from deliveries order by id")]


async def suppressed(conn: db.Connection) -> list[tuple[str, str]]:
    return await rows(conn, "select address, reason from suppressions order by address")


async def events(conn: db.Connection) -> list[tuple[str, dict[str, Any]]]:
    return await rows(conn, "select type, data from events where type <> 'messageSent' order by id")


# -- what a report changes ---------------------------------------------------------------------------------------------


async def test_a_failure_makes_a_delivery_bounced_and_its_recipient_suppressed(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        first, second = await sent(conn, "Ann@there.example", "bob@there.example")
        assert await bounces.record(conn, "a", bounce("ann@THERE.example")) == 1
        assert await states(conn) == ["bounced", "sent"]
        assert await suppressed(conn) == [("ann@there.example", "bounce")]
        ((suppression,),) = await rows(conn, "select delivery_id from suppressions")
        ((asks,),) = await rows(conn, "select suppresses from accounts")
        ((finished, reported, report),) = await rows(
            conn,
            "select finished_at < now() - interval '50 min', reported_at, report from deliveries where id = %s",
            first,
        )
        assert await rows(conn, "select reported_at, report from deliveries where id = %s", second) == [(None, None)]
    assert (suppression, asks, finished, reported is not None) == (first, True, True, True)
    at = datetime.fromisoformat(report.pop("at"))
    assert at - reported < timedelta(seconds=5)
    assert report == {
        "kind": "bounce",
        "action": "failed",
        "status": "",
        "diagnostic": UNKNOWN,
        "mta": "mx.there.example",
        "category": "unknown_user",
        "recommendedAction": "remove",
    }


async def test_a_report_about_what_is_being_sent_is_early(pool: db.Pool) -> None:
    """Who cannot wait records it, and it changes nothing; it is no wait of other recipients', or of other accounts."""
    async with db.connection(pool) as conn:
        await account(conn)
        await account(conn, "b")
        await sent(conn, "ann@müller.example", "bob@there.example")
        await rows(conn, "update deliveries set state = 'leased' where recipient like 'ann@%%' returning id")
        report = bounce("ann@xn--mller-kva.example")
        with pytest.raises(Early):
            await bounces.record(conn, "a", report, patient=True)
        assert await rows(conn, "select from reports") == []
        for other in (bounce("eve@there.example"), bounce("ann@müller.example", message_id="<n@x>", key="k2")):
            assert await bounces.record(conn, "a", other, patient=True) == 0
        assert await bounces.record(conn, "b", report, patient=True) == 0
        assert await bounces.record(conn, "a", bounce("bob@there.example", key="k3"), patient=True) == 1
        assert await bounces.record(conn, "a", report) == 0


@pytest.mark.parametrize("name", ["<m@x.example>", ""], ids=["named", "nameless"])
@pytest.mark.parametrize(
    ("written", "reported"),
    [
        ("ann@müller.example", "ann@xn--mller-kva.example"),
        ("ann@xn--mller-kva.example", "ann@Müller.example"),
        ("ann@müller.example", "ann@MÜLLER.example"),
    ],
)
async def test_a_domain_is_the_same_in_ascii_and_as_people_write_it(
    pool: db.Pool, written: str, reported: str, name: str
) -> None:
    """A server that knows no SMTPUTF8 was told it in ASCII, and so it reports it."""
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, written, "bob@there.example")
        assert await bounces.record(conn, "a", bounce(reported, message_id=name)) == 1
        assert await states(conn) == ["bounced", "sent"]
        assert await suppressed(conn) == [("ann@xn--mller-kva.example", "bounce")]


async def test_its_event_tells_what_was_reported(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (delivery,) = await sent(conn, "ann@there.example")
        await bounces.record(conn, "a", bounce(told("ann@there.example", status="5.1.1")))
        ((kind, data),) = await events(conn)
        ((of, message),) = await rows(
            conn, "select delivery_id, replace(message_id::text, '-', '') from events where type = 'messageBounce'"
        )
    assert (kind, of) == (EventType.MESSAGE_BOUNCE, delivery)
    assert data == {
        "bounceMessage": "place-1",
        "recipient": "ann@there.example",
        "action": "failed",
        "response": {
            "source": "smtp",
            "message": UNKNOWN,
            "status": "5.1.1",
            "category": "unknown_user",
            "recommendedAction": "remove",
        },
        "mta": "mx.there.example",
        "queueId": message,
        "messageId": "<m@x.example>",
        "envelope": {"from": "s@example.com", "to": ["ann@there.example"]},
    }


async def test_a_complaint_makes_it_complained_and_tells_of_it(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        headers = {"messageId": "<m@x.example>", "subject": "Bad \0 news"}
        assert await bounces.record(conn, "a", complaint("ann@there.example", headers=headers)) == 1
        ((kind, data),) = await events(conn)
        assert await states(conn) == ["complained"]
        assert await rows(conn, "select address, reason, detail from suppressions") == [
            ("ann@there.example", "complaint", "Marked as spam, by Loop/1.0")
        ]
        ((report,),) = await rows(conn, "select report from deliveries")
    assert kind == EventType.MESSAGE_COMPLAINT
    assert data["complaintMessage"] == "place-2"
    assert data["arf"] == {"feedbackType": "abuse", "userAgent": "Loop/1.0"}
    assert data["headers"] == {"messageId": "<m@x.example>", "subject": "Bad   news"}
    assert (data["recipient"], data["messageId"]) == ("ann@there.example", "<m@x.example>")
    assert (report["kind"], report["category"], report["recommendedAction"]) == ("complaint", "complaint", "remove")


@pytest.mark.parametrize("said", [FULL, "550 5.7.1 Spam", "554 5.3.4 Message too large", "450 4.1.1 User unknown"])
async def test_what_is_not_the_addresss_fault_bounces_and_suppresses_nobody(pool: db.Pool, said: str) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        assert await bounces.record(conn, "a", bounce(told("ann@there.example", said))) == 1
        assert await states(conn) == ["bounced"]
        assert await suppressed(conn) == []


@pytest.mark.parametrize("action", ["delayed", "delivered", "relayed", "expanded"])
async def test_what_has_not_failed_is_noted_and_changes_nothing(pool: db.Pool, action: str) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        said = told("ann@there.example", "4.4.1 still trying", action)
        assert await bounces.record(conn, "a", bounce(said)) == 0
        assert await rows(conn, "select state::text, reported_at, report ->> 'action' from deliveries") == [
            ("sent", None, action)
        ]
        assert await rows(conn, "select matched, changed from reports") == [(1, 0)]
        assert await events(conn) == []
        assert await bounces.record(conn, "a", bounce("ann@there.example", key="k2")) == 1


@pytest.mark.parametrize("state", [one for one in State if one is not State.SENT])
async def test_only_what_was_sent_changes(pool: db.Pool, state: State) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example", state=state)
        assert await bounces.record(conn, "a", bounce("ann@there.example")) == 0
        assert await states(conn) == [state]
        assert (await events(conn), await suppressed(conn)) == ([], [])


async def test_a_report_is_counted_where_its_mail_was_sent(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example", ago=timedelta(days=3), email_type="news")
        await bounces.record(conn, "a", bounce("ann@there.example"))
        counted = await rows(
            conn,
            "select t.account_id, email_type, bounced, quarter = date_bin('15 minutes', finished_at, 'epoch')"
            " from tallies t, deliveries where bounced > 0 order by 1",
        )
        people = await rows(conn, "select address, bounced from recipients where bounced > 0")
    assert counted == [("", "news", 1, True), ("a", "news", 1, True)]
    assert people == [("ann@there.example", 1)]


async def test_a_complaint_counts_as_no_bounce(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        await bounces.record(conn, "a", complaint("ann@there.example"))
        assert await rows(conn, "select from tallies where bounced > 0") == []


# -- which delivery it is ----------------------------------------------------------------------------------------------

MATCHES = {
    "by Message-ID and recipient": (bounce("ann@there.example"), "bounced", True),
    "without angle brackets": (bounce("ann@there.example", message_id="m@x.example"), "bounced", True),
    "passed on to somebody else, who is not suppressed": (bounce("ann@home.example"), "bounced", False),
    "another's Message-ID": (bounce("ann@there.example", message_id="<other@x.example>"), "sent", False),
    "no Message-ID, but the recipient": (bounce("ann@there.example", message_id=""), "bounced", True),
    "no Message-ID, and somebody else": (bounce("eve@there.example", message_id=""), "sent", False),
    "a Message-ID of nothing": (bounce("ann@there.example", message_id="<>"), "bounced", True),
    "what a Message-ID ends with": (bounce("ann@home.example", message_id="<x.example>"), "sent", False),
    "patterns are letters": (bounce("ann@there.example", message_id="<%@x.example>"), "sent", False),
}


@pytest.mark.parametrize("case", MATCHES)
async def test_a_report_is_about(pool: db.Pool, case: str) -> None:
    report, state, suppresses = MATCHES[case]
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        assert await bounces.record(conn, "a", report) == (state == "bounced")
        assert await states(conn) == [state]
        assert bool(await suppressed(conn)) is suppresses
        assert await rows(conn, "select matched, changed from reports") == [(int(state != "sent"),) * 2]


async def test_of_several_recipients_those_that_are_named(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        people = [f"{name}@there.example" for name in ("ann", "bob", "cid", "dan")]
        await sent(conn, *people)
        report = bounce("dan@there.example", told("ann@there.example", FULL), told("bob@there.example", "", "delayed"))
        assert await bounces.record(conn, "a", report) == 2
        assert await states(conn) == ["bounced", "sent", "sent", "bounced"]
        assert await suppressed(conn) == [("dan@there.example", "bounce")]
        assert len(await events(conn)) == 2


async def test_a_forward_of_a_message_to_several_is_nobodys(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example", "bob@there.example")
        assert await bounces.record(conn, "a", bounce("ann@home.example")) == 0
        assert await states(conn) == ["sent", "sent"]


async def test_one_address_told_of_twice_has_failed_if_one_says_so(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        report = bounce(told("ann@there.example", "later", "delayed"), told("ANN@there.example"))
        assert await bounces.record(conn, "a", report) == 1


async def test_a_message_sent_again_is_the_one_that_bounced(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example", ago=timedelta(hours=2))
        await sent(conn, "ann@there.example", ago=timedelta(hours=1))
        assert await bounces.record(conn, "a", bounce("ann@there.example")) == 1
        assert await states(conn) == ["sent", "bounced"]
        assert await bounces.record(conn, "a", bounce("ann@there.example", key="k2")) == 0
        assert await states(conn) == ["sent", "bounced"]


SES = "010001727bf05c7f-8ff7cc5f-aea3-4284-91ea-51f2f82c4469-000000"
OWN_NAMES = [
    (f"Ok {SES}", f"<{SES}@email.amazonses.com>", True),
    (
        "<20261025103822.7F94E@mx.example> [InternalId=274498, Hostname=EX1.mx.example] Queued mail for delivery",
        "<20261025103822.7F94E@mx.example>",
        True,
    ),
    (f"Ok {SES}", f"<{SES[:-1]}@email.amazonses.com>", False),
    ("Ok nice to meet m2", "<m2@x.example>", False),
]


@pytest.mark.parametrize(("reply", "message_id", "found"), OWN_NAMES)
async def test_the_name_that_the_provider_gave_it_counts(
    pool: db.Pool, reply: str, message_id: str, found: bool
) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example", reply=reply)
        assert await bounces.record(conn, "a", bounce("ann@there.example", message_id=message_id)) == found


async def test_without_a_message_id_it_is_the_last_that_was_sent_before_the_report(pool: db.Pool) -> None:
    at = datetime.now(UTC)
    async with db.connection(pool) as conn:
        await account(conn)
        for days in (9, 3, 2):
            await sent(conn, "ann@there.example", header=f"<{days}@x>", ago=timedelta(days=days))
        late = bounce("ann@there.example", message_id="", at=at - timedelta(days=2, hours=12))
        assert await bounces.record(conn, "a", late) == 1
        assert await states(conn) == ["sent", "bounced", "sent"]


@pytest.mark.parametrize(("days", "found"), [(6, True), (8, False)])
async def test_without_a_message_id_a_week_is_the_most(pool: db.Pool, days: int, found: bool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example", ago=timedelta(days=days))
        assert await bounces.record(conn, "a", bounce("ann@there.example", message_id="")) == found


async def test_without_a_message_id_one_that_bounced_leaves_the_earlier_ones_alone(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example", ago=timedelta(hours=2))
        await sent(conn, "ann@there.example", ago=timedelta(hours=1))
        for key in ("k1", "k2", "k3"):
            await bounces.record(conn, "a", bounce("ann@there.example", message_id="", key=key))
        assert await states(conn) == ["sent", "bounced"]


@pytest.mark.parametrize(("message_id", "state"), [("<m@x.example>", "complained"), ("<other@x.example>", "sent")])
async def test_a_complaint_that_hides_who_it_is_from_is_known_by_its_message(
    pool: db.Pool, message_id: str, state: str
) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        await bounces.record(conn, "a", complaint(message_id=message_id))
        assert await states(conn) == [state]
        assert bool(await suppressed(conn)) is (state == "complained")


# -- forged and repeated -----------------------------------------------------------------------------------------------


async def test_another_accounts_mail_is_out_of_reach(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await account(conn, "b")
        await sent(conn, "ann@there.example")
        for message_id in ("<m@x.example>", ""):
            assert (
                await bounces.record(conn, "b", bounce("ann@there.example", message_id=message_id, key=message_id)) == 0
            )
        assert await states(conn) == ["sent"]
        assert await suppressed(conn) == []
        told = await (await conn.execute("select matched, recipients->0->>'queueId' from reports")).fetchall()
        assert told == [(0, None)] * 2


@pytest.mark.parametrize("message_id", ["<m@x.example>", "<forged@x.example>", ""])
async def test_a_forged_report_about_two_thousand_suppresses_nobody_whom_it_does_not_know(
    pool: db.Pool, message_id: str
) -> None:
    everybody = tuple(told(f"r{number}@there.example") for number in range(2000))
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example", "bob@there.example", header="<m@x.example>")
        await sent(conn, "r7@there.example", header="<else@x.example>")
        assert await bounces.record(conn, "a", bounce(*everybody, message_id=message_id)) == 0
        assert await states(conn) == ["sent"] * 3
        assert await suppressed(conn) == []
        assert await rows(conn, "select jsonb_array_length(recipients), matched from reports") == [(100, 0)]


async def test_one_of_ours_among_many_is_found_and_stands_first(pool: db.Pool) -> None:
    everybody = [told(f"r{number}@there.example") for number in range(900)]
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example", "bob@there.example")
        assert await bounces.record(conn, "a", bounce(*everybody, told("bob@there.example"))) == 1
        ((first,),) = await rows(conn, "select recipients -> 0 from reports")
    assert (first["recipient"], first["sentTo"], first["changed"]) == ("bob@there.example", "bob@there.example", True)


async def test_work_is_bounded_by_what_is_looked_through(pool: db.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "DEPTH", 3)
    monkeypatch.setattr(matching, "LEAST", 2)
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example", ago=timedelta(hours=9))
        for number in range(3):
            await sent(conn, "ann@there.example", header=f"<{number}@x>")
        assert await bounces.record(conn, "a", bounce("ann@there.example")) == 0
        two = bounce("ann@there.example", "bob@there.example", message_id="<0@x>", key="k2")
        assert await bounces.record(conn, "a", two) == 1  # by its message alone
        assert await suppressed(conn) == []
        assert await bounces.record(conn, "a", bounce("ann@there.example", message_id="<1@x>", key="k3")) == 1
        assert await suppressed(conn) == [("ann@there.example", "bounce")]


async def test_the_same_report_met_again_does_nothing(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        report = bounce("ann@there.example")
        assert [await bounces.record(conn, "a", report) for _ in range(3)] == [1, 0, 0]
        await suppressions.lift(conn, "a", "ann@there.example")
        assert await bounces.record(conn, "a", report) == 0
        assert await suppressed(conn) == []
        assert len(await events(conn)) == len(await rows(conn, "select from reports")) == 1


async def test_a_later_report_is_recorded_and_changes_nothing_more(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        await bounces.record(conn, "a", bounce(told("ann@there.example", FULL)))
        assert await bounces.record(conn, "a", bounce("ann@there.example", key="k2")) == 0
        assert await suppressed(conn) == []
        assert await bounces.record(conn, "a", complaint("ann@there.example")) == 0
        assert await states(conn) == ["bounced"]
        assert await rows(conn, "select report ->> 'category' from deliveries") == [("mailbox_full",)]
        assert await suppressed(conn) == [("ann@there.example", "complaint")]
        assert [kind for kind, _ in await events(conn)] == ["messageBounce"]
        assert await rows(conn, "select key, matched, changed from reports order by id") == [
            ("k1", 1, 1),
            ("k2", 1, 0),
            ("c1", 1, 0),
        ]


async def test_a_bounce_after_a_complaint_changes_nothing(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        await bounces.record(conn, "a", complaint("ann@there.example"))
        assert await bounces.record(conn, "a", bounce("ann@there.example")) == 0
        assert await states(conn) == ["complained"]
        assert await rows(conn, "select sum(bounced) from tallies") == [(None,)]


async def at_once(pool: db.Pool, reports: Sequence[Reported]) -> list[int]:
    async def one(report: Reported) -> int:
        async with db.connection(pool) as conn:
            return await bounces.record(conn, "a", report)

    return await asyncio.gather(*(one(report) for report in reports))


@pytest.mark.parametrize("keys", ["same", "different"])
async def test_two_processes_with_a_report_at_the_same_time_change_one_delivery_once(pool: db.Pool, keys: str) -> None:
    people = [f"r{number}@there.example" for number in range(30)]
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, *people)
    there = bounce(*people, key="there")
    back = bounce(*reversed(people), key="there" if keys == "same" else "back")
    assert sorted(await at_once(pool, [there, back])) == [0, 30]
    async with db.connection(pool) as conn:
        assert len(await events(conn)) == 30
        assert await rows(conn, "select sum(bounced) from tallies where account_id = 'a'") == [(30,)]
        assert await rows(conn, "select distinct bounced from recipients") == [(1,)]
        assert await rows(conn, "select count(*) from reports") == [(1 if keys == "same" else 2,)]


async def test_a_report_that_cannot_be_finished_leaves_nothing(pool: db.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> int:
        raise RuntimeError("lost")

    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        with monkeypatch.context() as broken:
            broken.setattr(suppressions, "add", fail)
            with pytest.raises(RuntimeError, match="lost"):
                await bounces.record(conn, "a", bounce("ann@there.example"))
        assert (await states(conn), await events(conn)) == (["sent"], [])
        assert await rows(conn, "select from reports") == []
        assert await bounces.record(conn, "a", bounce("ann@there.example")) == 1


async def test_an_account_that_is_gone_is_said(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        with pytest.raises(LookupError, match="no account gone"):
            await bounces.record(conn, "gone", bounce("ann@there.example"))


async def test_mail_that_retention_takes_meanwhile_is_nobodys(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        while await retention.forget_mail(conn, "a", 5):
            pass
        assert await bounces.record(conn, "a", bounce("ann@there.example")) == 0


async def test_what_is_reported_may_be_anything(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        await sent(conn, "ann@there.example")
        odd = bounce(told("ann@there.example", "no\0such user \ud800"), message_id="<m@x.example>", key="k\0")
        assert await bounces.record(conn, "a", odd) == 1
        assert await suppressions.among(conn, [("a", "ann@there.example")]) != {}


async def test_the_suppression_says_why(pool: db.Pool) -> None:
    async with db.connection(pool) as conn:
        await account(conn)
        (delivery,) = await sent(conn, "ann@there.example")
        await bounces.record(conn, "a", bounce("ann@there.example"))
        ((found),) = (await suppressions.among(conn, [("a", "ann@there.example")])).values()
    assert isinstance(found, Suppression)
    assert (found.reason, found.detail, found.delivery_id) == ("bounce", UNKNOWN, delivery)


# -- what it costs -----------------------------------------------------------------------------------------------------

PLANS = {
    "by recipient": (
        matching.BY_RECIPIENT,
        {"places": [0], "addresses": ["ann@x.example"], "names": ["m"], "local": "m", "depth": 20_000},
        "deliveries_recipient",
    ),
    "by name": (matching.BY_NAME, {"names": ["m"], "depth": 20_000}, "messages_account"),
    "being sent": (
        matching.SENDING,
        {"addresses": ["ann@x.example"], "names": ["m"], "depth": 20_000},
        "deliveries_message",
    ),
    "lately": (matching.LATELY, {"places": [0], "addresses": ["ann@x.example"], "at": None}, "deliveries_recipient"),
}


async def many(conn: db.Connection) -> None:
    """Enough mail for an index to be worth it, all of one account."""
    await account(conn)
    await conn.execute(
        "insert into messages (id, account_id, ingress, message_id, sender, subject, size, priority, smtputf8,"
        " eightbit, send_at) select md5(n::text)::uuid, 'a', 'api', n::text, 's@x', '', 1, 1, false, false, now()"
        " from generate_series(1, 3000) n"
    )
    await conn.execute(
        "insert into deliveries (message_id, account_id, recipient, state, ready, priority, max_attempts, due_at,"
        " expires_at, finished_at) select md5(n::text)::uuid, 'a', 'r' || n || '@x', 'sent', false, 1, 1, now(), now(),"
        " now() - n * interval '1 minute' from generate_series(1, 3000) n"
    )
    await conn.execute("analyze messages, deliveries")


@pytest.mark.parametrize("status", ["bounced", "complained"])
async def test_what_was_reported_is_found_among_millions(pool: db.Pool, status: str) -> None:
    async with db.connection(pool) as conn:
        await many(conn)
        await conn.execute("update deliveries set state = %s where id %% 500 = 0", (status,))
        await conn.execute("analyze deliveries")
        wanted = search.Filter(account="a", status=status)
        query = f"explain select d.id from deliveries d where {wanted.indexed} {search.NEWEST} limit 21"
        plan = "\n".join(row[0] for row in await (await conn.execute(query.encode(), wanted.given)).fetchall())
        found = await search.find(conn, wanted, size=20)
    assert "using deliveries_reported" in plan
    assert found.total == 6


@pytest.mark.parametrize("name", PLANS)
async def test_a_search_goes_along_an_index(pool: db.Pool, name: str) -> None:
    query, given, index = PLANS[name]
    async with db.connection(pool) as conn:
        await many(conn)
        cursor = await conn.execute(f"explain {query}".encode(), {"account": "a", **given})
        plan = "\n".join(row[0] for row in await cursor.fetchall())
    assert f"using {index}" in plan
    assert "Seq Scan" not in plan
