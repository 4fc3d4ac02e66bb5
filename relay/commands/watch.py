"""Follow one message until it is sent, failed or put off, and say what to do when it does not get there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from relay.commands.terminal import TEMPFAIL, UNAVAILABLE, clean, complain, mark, note, paint, paste, span

if TYPE_CHECKING:
    from relay.store.db import Connection
    from relay.store.overview import Progress

LOOK_SECONDS = 0.03
SOON = 1.0  # s; what comes back sooner is waited for
SENT = ("sent", "bounced", "complained")  # upstream took it, whatever was reported after
SETTLED = {**dict.fromkeys(SENT, "ok"), "failed": "failed", "deferred": "warning", "cancelled": "skipped"}


class Watch:
    """Prints each step as it is seen, with the seconds since the message was handed over."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet, self._begun, self._seen = quiet, time.monotonic(), dict[str, tuple[str, int]]()

    async def follow(self, conn: Connection, message: UUID, seconds: float) -> Sequence[Progress]:
        """The deliveries as they last were: all settled, or the time is over."""
        from relay.store import overview

        while True:
            last = await overview.progress(conn, message)
            for one in last:
                self._tell(one)
            if all(settled(one) for one in last) or time.monotonic() - self._begun > seconds:
                return last
            await asyncio.sleep(LOOK_SECONDS)

    def say(self, sign: str, text: str) -> None:
        if not self._quiet:
            waited = f"{time.monotonic() - self._begun:6.2f} s"
            print(f"{mark(sign)} {paint(waited, 'dim')}  {text}", flush=True)

    def _tell(self, one: Progress) -> None:
        now = (one.state, one.attempts)
        if self._seen.get(one.recipient) == now or (one.state == "queued" and not one.attempts):
            return
        self._seen[one.recipient] = now
        reply = f": {clean(one.reply)}" if one.reply and one.state != "leased" else ""
        self.say(SETTLED.get(one.state, "busy"), f"{one.state} {one.recipient}{reply}")


def settled(one: Progress) -> bool:
    """Nothing more is going to happen soon."""
    waits = one.due_in > SOON or one.resting > SOON or one.account_state != "active"
    return one.state in (*SENT, "failed", "cancelled") or (one.state in ("queued", "deferred") and waits)


def judge(last: Sequence[Progress], account: str, queue_id: str, seconds: float) -> int:
    """The exit code; what did not arrive is explained on stderr, once for each reason."""
    late = [one for one in last if one.state not in SENT]
    if not late:
        return 0
    for reason, advice in dict.fromkeys(_explain(one, account, seconds) for one in late):
        complain(reason, advice)
    if any(one.state in ("queued", "leased", "deferred") for one in late):
        note(
            f"  what waits stays queued as {queue_id}, and goes by itself when it can; see: {paste(f'queue {account}')}"
        )
        return TEMPFAIL
    return UNAVAILABLE


def _explain(one: Progress, account: str, seconds: float) -> tuple[str, str]:
    """What is wrong, and what to do about it."""
    verify = f"try its upstream step by step: {paste(f'account verify {account}')}"
    again = f"it is tried again in {span(max(one.resting, one.due_in, 0))}"
    match one.state:
        case "failed" if one.category == "suppressed":
            lifted = f"DELETE /v1/suppressions/{account}/{one.recipient} lifts it"
            return f"not sent to {one.recipient}: {clean(one.text)}", lifted
        case "failed":
            return f"failed for good at {one.stage or 'its upstream'}: {clean(one.reply)}", _advice(one)
        case "cancelled":
            return "it was cancelled", ""
        case _ if one.account_state == "paused":
            return (
                f"account {account} is paused: {clean(one.reason)}",
                f"let it send: {paste(f'account resume {account}')}",
            )
        case _ if one.account_state == "refused":
            return f"upstream refuses the login of account {account}: {clean(one.reason)}", verify
        case _ if one.resting:
            return f"the upstream of account {account} is in trouble: {clean(one.reason)}; {again}", verify
        case "deferred":
            return f"put off at {one.stage or 'its upstream'}: {clean(one.reply)}; {again}", _advice(one)
        case "leased":
            return f"a worker has it, and has not said within {span(seconds)} what became of it", verify
        case _:
            return (
                f"nobody took it within {span(seconds)}",
                f"are a scheduler and a worker running? see: {paste('doctor')}",
            )


def _advice(one: Progress) -> str:
    from relay.core.classify import classify
    from relay.core.reply import Reply, Stage

    try:
        return classify(Reply(one.code or 0, one.enhanced, one.text), Stage(one.stage)).advice
    except ValueError:  # a stage that this version does not know
        return ""
