"""`postferry webhook log`, `replay` and `test`: what an endpoint was posted, and what it is posted again."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from relay.commands.installation import asynchronous, opened
from relay.commands.terminal import (
    DATA,
    TEMPFAIL,
    UNAVAILABLE,
    USAGE,
    Stop,
    clean,
    count,
    describe,
    mark,
    note,
    paste,
    seconds,
    span,
    table,
)

if TYPE_CHECKING:
    from datetime import datetime

    from relay.commands.installation import Installation
    from relay.store.postlog import Posting

LOOK_SECONDS = 0.05
MARKS = {"delivered": "ok", "failed": "failed", "pending": "warning"}


def configure(commands: Any) -> None:
    """Adds the three to the commands of `postferry webhook`."""
    _log_arguments(commands.add_parser("log", help="what was posted to an endpoint, and what it answered"))
    _replay_arguments(commands.add_parser("replay", help="post events again, or those that it missed"))
    testing = commands.add_parser("test", help="post a test event to an endpoint and watch it go")
    describe(
        testing,
        asynchronous(_test),
        "Post an event `webhookTest` to an endpoint, and to no other, and wait for its answer.",
        "webhook test 3",
        "webhook test 3 --wait 60",
    )
    testing.add_argument("id", type=int, metavar="NUMBER", help="as `webhook list` shows it")
    testing.add_argument("--wait", type=seconds, default=15, metavar="SECONDS", help="how long (default 15)")


@contextmanager
def told() -> Iterator[None]:
    """What is refused ends the command with the reason, and the way on."""
    from relay.core.account import Faulty
    from relay.core.errors import Refused

    try:
        yield
    except Faulty as faulty:
        faults = "\n".join(f"{key} {message}" for key, message in faulty.faults)
        raise Stop(f"{faulty.what.lower()} cannot be used:", faults, DATA) from None
    except Refused as refused:
        raise Stop(refused.message, f"see: {paste('webhook list')}", DATA) from None


def _log_arguments(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        asynchronous(_log),
        "Show the latest postings of an endpoint, newest first; with --posting one of them, with every try.",
        "webhook log 3",
        "webhook log 3 --state failed --limit 100",
        "webhook log 3 --posting 512",
        "webhook log 3 --json | jq '.[] | select(.status >= 500)'",
    )
    parser.add_argument("id", type=int, metavar="NUMBER", help="as `webhook list` shows it")
    parser.add_argument("--state", choices=MARKS, help="only those in this state")
    parser.add_argument("--event", default="", metavar="NAME", help="only events of this name")
    parser.add_argument("--limit", type=count, default=20, metavar="N", help="how many (default 20)")
    parser.add_argument("--posting", type=int, metavar="NUMBER", help="this one, with every try")
    parser.add_argument("--json", action="store_true", help="as JSON")


def _replay_arguments(parser: argparse.ArgumentParser) -> None:
    describe(
        parser,
        asynchronous(_replay),
        "Post events again. Those of a time are posted even if the endpoint was disabled, or not there yet, when they "
        "came. Receivers tell what they have seen by its `webhook-id`, which stays the same.",
        "webhook replay 3 --failed",
        "webhook replay 3 --since 2026-11-20T08:00:00Z --until 2026-11-20T09:30:00Z",
        "webhook replay 3 --event-id evt_512 --event-id evt_513",
    )
    parser.add_argument("id", type=int, metavar="NUMBER", help="as `webhook list` shows it")
    parser.add_argument("--event-id", action="append", default=[], metavar="ID", help="this event; repeat for more")
    parser.add_argument("--failed", action="store_true", help="what of its log failed for good")
    parser.add_argument("--since", type=_moment, metavar="TIME", help="at or after; ISO 8601 or epoch seconds")
    parser.add_argument("--until", type=_moment, metavar="TIME", help="before")
    parser.add_argument("--event", action="append", default=[], metavar="NAME", help="events of this name alone")


async def _log(args: argparse.Namespace) -> int:
    from relay import subscribe
    from relay.store import postlog

    async with opened(args) as here:
        with told():
            await subscribe.found(here.conn, here.vault, args.id, None)
        if args.posting is not None:
            return await _posting(here, args)
        rows: list[Posting] = []
        wanted, end = postlog.Filter(args.id, state=args.state or "", type=args.event), None
        while len(rows) < args.limit:
            size = min(args.limit - len(rows), 1000)
            _, found, end = await postlog.page(here.conn, wanted, after=end, skip=0, size=size, count=False)
            rows += found
            if end is None:
                break
    if args.json:
        print(json.dumps([subscribe.posted(one) for one in rows], indent=2, default=spelled))
    elif rows:
        head = ("id", "time", "event", "account", "state", "tries", "status", "note")
        print(table(head, [_row(one) for one in rows]))
    else:
        print("nothing was posted yet" + (" that is like this" if args.state or args.event else ""))
    return 0


async def _posting(here: Installation, args: argparse.Namespace) -> int:
    from relay import subscribe
    from relay.core import webhook
    from relay.store import postlog

    found = await postlog.show(here.conn, args.id, args.posting)
    if found is None:
        raise Stop(
            f"there is no posting {args.posting} of webhook {args.id}", f"see: {paste(f'webhook log {args.id}')}"
        )
    one, data, tries = found
    body = webhook.body(here.settings.public_url, one.account, one.event_at, one.type, data).decode()
    if args.json:
        told = [{"date": each.at, **_answer(each)} for each in tries]
        print(json.dumps(subscribe.posted(one) | {"body": body, "tries": told}, indent=2, default=spelled))
        return 0
    print(f"{one.type} {webhook.event_id(one.event)}: {one.state}{_again(one)}")
    print(clean(body))
    for each in tries:
        sign = mark("failed" if each.error else "ok")
        print(
            f"  {sign} {spelled(each.at)}  {span(each.seconds):>7}  {each.status or '-'}  {clean(each.error)}".rstrip()
        )
        if each.response:
            print(f"      {clean(each.response[:200])}")
    return 0


async def _replay(args: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from relay import repost

    ids = tuple(_event_id(text) for text in args.event_id)
    if bool(ids) == bool(args.failed or args.since or args.until):
        raise Stop(
            "say what to replay: --event-id, or a time, or --failed", "see: postferry webhook replay --help", USAGE
        )
    wish = repost.Wish(ids, args.failed, tuple(args.event), args.since, args.until)
    total, now, after = 0, datetime.now(UTC), None
    async with opened(args) as here:
        while True:
            with told():
                count, after = await repost.repost(here.conn, here.vault, args.id, None, wish, now, after)
            total += count
            if after is None:
                break
            note(f"  {total} ...")
        absent = await repost.absent(here.conn, here.vault, args.id, None, wish)
    if total or not ids:
        print(f"{mark('ok')} {total} event{'s' * (total != 1)} will be posted to webhook {args.id}")
    elif not absent:
        print(f"nothing to do: it is about to be posted to webhook {args.id} anyway")
    if absent:
        raise _absent(args.id, absent)
    return 0


def _absent(id: int, events: Sequence[int]) -> Stop:
    from relay.core.webhook import event_id

    names = ", ".join(map(event_id, events[:5])) + (f" and {len(events) - 5} more" if len(events) > 5 else "")
    return Stop(
        f"there is no {names} for webhook {id}",
        "an event may be gone, another account's, or of a kind that it is not subscribed to; what was posted: "
        + paste(f"webhook log {id}"),
    )


async def _test(args: argparse.Namespace) -> int:
    from relay import repost
    from relay.store import postlog

    begun = time.monotonic()
    async with opened(args) as here:
        with told():
            _, posting = await repost.test(here.conn, here.vault, args.id, None)
        while True:
            found = await postlog.show(here.conn, args.id, posting)
            if found is None:
                raise Stop(f"webhook {args.id} was removed meanwhile")
            if found[2] or time.monotonic() - begun > args.wait:
                break
            await asyncio.sleep(LOOK_SECONDS)
    if not found[2]:
        raise Stop(
            f"nothing was posted within {span(args.wait)}; it will be when somebody posts",
            "is a `postferry notify` (or `postferry up`) running?",
            TEMPFAIL,
        )
    last = found[2][-1]
    answer = f"{last.status} in {span(last.seconds)}" if last.status else span(last.seconds)
    print(f"{mark('failed' if last.error else 'ok')} {answer}{': ' if last.error else ''}{clean(last.error)}")
    if last.error:
        note(f"  what was posted and answered:  {paste(f'webhook log {args.id} --posting {posting}')}")
    return UNAVAILABLE if last.error else 0


def _moment(text: str) -> datetime:
    from relay.core.options import moment

    try:
        return moment(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None


def _event_id(text: str) -> int:
    digits = text.removeprefix("evt_")
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 1 << 63):
        raise Stop(f"{text!r} is no event's id", "it is the `webhook-id` of a post, such as evt_512", USAGE)
    return int(digits)


def _answer(one: Any) -> dict[str, Any]:
    about = {"url": one.url, "status": one.status, "error": one.error, "response": one.response}
    return {"seconds": round(one.seconds, 3), **about}


def _row(one: Posting) -> tuple[str, ...]:
    told = f"{one.error}{_again(one)}".strip()
    status = str(one.status) if one.status else "-"
    return (
        str(one.id),
        f"{one.created_at:%Y-%m-%d %H:%M:%S}",
        one.type,
        one.account or "-",
        one.state,
        str(one.attempts),
        status,
        told,
    )


def _again(one: Posting) -> str:
    return f" (again {spelled(one.due_at)})" if one.state == "pending" and one.attempts else ""


def spelled(instant: datetime | None) -> str | None:
    """As the API writes it."""
    from relay.core import options

    return options.spelled(instant) if instant else None
