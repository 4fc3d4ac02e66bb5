"""`make profile`: where each role's time goes under load, and PostgreSQL's, as tables.

Needs py-spy, Dovecot for the mailbox's table, and to be allowed to look at other processes.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator

from tests.bench import drive, profile, proof, report
from tests.bench.figures import ACCEPTS, CONNECTIONS, FLOWS, Load, Stage
from tests.bench.ports import free_port
from tests.bench.postferry import TRACKED, Postferry
from tests.dovecot import Dovecot

TOP = 10
LOADS: dict[str, Load] = {load.name: load for load in (*ACCEPTS, *FLOWS)}
OURS = re.compile(r"\((relay|workers|api)/")
FRAME = re.compile(r"relay/(role|processes|smtpd)\.py|__main__\.py|serve \(|(<module>|main) \(workers/")
"""In everything: says nothing."""

Stacks = Counter[tuple[str, ...]]


@contextlib.contextmanager
def as_it_is(system: Postferry) -> Iterator[None]:
    """The role has work anyway."""
    yield


@contextlib.contextmanager
def subscribed(system: Postferry) -> Iterator[None]:
    """An endpoint on this machine, which answers 204, is told of each delivery."""
    port = free_port()
    receiver = subprocess.Popen([sys.executable, "-m", "tests.bench.webhooks", "--receive", str(port)])
    hook = {"url": f"http://127.0.0.1:{port}/", "events": ["messageSent"]}
    try:
        id = system.ask("POST", "/v1/webhooks", hook)["id"]
        system.start("notify")
        yield
        system.stop("notify")
        system.ask("DELETE", f"/v1/webhooks/{id}")
    finally:
        receiver.kill()
        receiver.wait()


@contextlib.contextmanager
def filed(system: Postferry) -> Iterator[None]:
    """The account has a mailbox, in whose Sent folder each message is put."""
    server = Dovecot(free_port(), free_port())
    imap = server.imap("ann")
    login = {"user": imap.user, "pass": imap.password}
    mailbox = {"host": imap.host, "port": imap.port, "secure": False, "tls": {"mode": "none"}, "auth": login}
    try:
        system.ask("PUT", f"/v1/account/{TRACKED}", {"imap": mailbox})
        system.start("mailbox")
        yield
        system.stop("mailbox")
        system.ask("PUT", f"/v1/account/{TRACKED}", {"imap": None})
    finally:
        server.stop()


Setting = Callable[[Postferry], contextlib.AbstractContextManager[None]]
ROLES: dict[str, tuple[str, Setting]] = {
    "smtp": ("relay", as_it_is),
    "worker": ("relay", as_it_is),
    "scheduler": ("relay", as_it_is),
    "api": ("api", as_it_is),
    "notify": ("relay", subscribed),
    "mailbox": ("relay", filed),
}
"""Each role, the load during which it is looked at, and what gives it work then."""


def table(role: str, load: str, stacks: Stacks) -> proof.Table:
    """Functions by their own time, whoever's they are; and ours by the time within them."""
    total = stacks.total()
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[spoken(stack[-1])] += count
        for function in set(stack):
            if OURS.search(function) and not FRAME.search(function):
                within[spoken(function)] += count
    rows: list[proof.Row] = [("own time", "", "ours, time within", "")]
    for (one, mine), (other, inside) in zip(own.most_common(TOP), within.most_common(TOP), strict=False):
        rows.append((one, f"{mine / total:.1%}", other, f"{inside / total:.1%}"))
    busy = total / profile.RATE / profile.SECONDS
    return proof.Table(rows, f"{role}, during `{load}`: at work in {busy:.0%} of the looks")


def spoken(frame: str) -> str:
    """`Wire.send (relay/net/wire.py)`: without the line."""
    return re.sub(r":\d+\)$", ")", frame)


def statements(stage: Stage) -> proof.Table:
    rows: list[proof.Row] = [("PostgreSQL, for 1,000 messages", "calls", "ms", "of which planning")]
    for calls, total, planned, _, text in profile.costs(stage, LOADS["relay"])[:TOP]:
        short = " ".join(text.split())
        short = short if len(short) < 70 else short[:67] + "..."
        rows.append((f"`{short}`", f"{calls:,.0f}", f"{total + planned:,.0f}", f"{planned:,.0f}"))
    return proof.Table(rows, "postgres, during `relay`")


def main() -> int:
    parser = proof.parser("profiles", __doc__)
    given = parser.parse_args()
    if not profile.spy():
        print("py-spy is not here: `make profile` installs it", file=sys.stderr)
        return 1
    progress = report.Progress()
    with proof.workplace(given.dir, given.keep) as folder, contextlib.ExitStack() as stack:
        found = proof.begin("profiles", folder)
        sink = stack.enter_context(drive.sink())
        system = stack.enter_context(Postferry(folder / "postferry", sink.port, CONNECTIONS, counting_statements=True))
        stage = Stage(system, None, sink, progress)
        with system.delivering():
            for role, (load, setting) in ROLES.items():
                if role == "mailbox" and Dovecot.missing():
                    found.faults.append(f"mailbox was not looked at: {Dovecot.missing()}")
                    continue
                progress(f"looking at {role}\n")
                with setting(system):
                    stacks = profile.stacks(stage, role, LOADS[load])
                if not stacks:
                    found.faults.append(f"py-spy saw nothing of {role}: may it look at other processes here?")
                    continue
                found.tables.append(table(role, load, stacks))
            found.tables.append(statements(stage))
        progress.clear()
    found.notes.append(
        "Shares are of the looks in which the role held Python's lock; what PostgreSQL, the kernel and "
        "native code do without it is not among them."
    )
    return proof.end(found, given)


if __name__ == "__main__":
    sys.exit(main())
