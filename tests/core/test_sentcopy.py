"""Plans for the Sent copy: each case by a table, and that any number of crashes still ends with one clean copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.sentcopy import Candidate, Intent, Plan, Wanted, clean, dump, load, plan, policy
from relay.core.tenant import Copy

HERE = Wanted("Sent")
OLD = b"From: a@b.c\r\n"
NEW = b"From: A <a@b.c>\r\n"
THEIRS = Candidate("Sent", 5, pixel=True, bcc=True, addresses=NEW)
OURS = Candidate("Sent", 6, ours=True, bcc=True, addresses=NEW)
EARLIER = replace(OURS, uid=4, addresses=OLD)


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        # Nobody knows whether the provider files: ours at once, and looked again for a late one.
        (HERE, [], Plan(append=True, again=True)),
        (replace(HERE, last=True), [], Plan(append=True, files=False)),
        # It does not: ours, and that is all.
        (replace(HERE, files=False), [], Plan(append=True)),
        # It does: waited for, until the last look.
        (replace(HERE, files=True), [], Plan(again=True)),
        (replace(HERE, files=True, last=True), [], Plan(append=True, files=False)),
        # ... unless it is to be replaced anyway: no moment without a copy.
        (replace(HERE, files=True, policy=Copy.REPLACE), [], Plan(append=True, again=True)),
        # The provider's has a pixel: ours first, in its words, then it goes.
        (HERE, [THEIRS], Plan(append=True, like=THEIRS, remove=(THEIRS,), files=True)),
        # It has none, and there is no Bcc to show: it is as good as ours.
        (HERE, [replace(THEIRS, pixel=False)], Plan(keep=replace(THEIRS, pixel=False), like=..., files=True)),  # type: ignore[arg-type]
        # It does not show Bcc.
        (
            replace(HERE, bcc=True),
            [replace(THEIRS, pixel=False, bcc=False)],
            Plan(append=True, like=..., remove=(replace(THEIRS, pixel=False, bcc=False),), files=True),  # type: ignore[arg-type]
        ),
        # Ours is there already, of a try that ended before its time.
        (HERE, [THEIRS, OURS], Plan(keep=OURS, like=THEIRS, remove=(THEIRS,), files=True)),
        # A late one came: it goes, and the more so when it was known that it would.
        (
            replace(HERE, written=True, filed=True),
            [OURS, THEIRS],
            Plan(OURS, like=THEIRS, remove=(THEIRS,), files=True),
        ),
        # A late one shows how the provider writes addresses: ours is written anew, once.
        (
            replace(HERE, written=True),
            [EARLIER, THEIRS],
            Plan(append=True, like=THEIRS, remove=(EARLIER, THEIRS), files=True),
        ),
        (
            replace(HERE, written=True, filed=True),
            [EARLIER, THEIRS],
            Plan(EARLIER, like=THEIRS, remove=(THEIRS,), files=True),
        ),
        # As many were sent as there are recipients: more of them may come.
        (
            replace(HERE, expected=2),
            [THEIRS],
            Plan(append=True, like=THEIRS, remove=(THEIRS,), again=True, files=True),
        ),
        # Its owner moved ours away: it is not written again.
        (replace(HERE, written=True), [], Plan(again=True)),
        (replace(HERE, written=True, last=True), [], Plan(files=False)),
        (replace(HERE, written=True, filed=True, last=True), [OURS], Plan(keep=OURS)),
        # One that is marked as deleted is no copy, but it goes with the others.
        (
            replace(HERE, files=False),
            [replace(OURS, deleted=True)],
            Plan(append=True, remove=(replace(OURS, deleted=True),)),
        ),
        # The provider's is in another folder than the message belongs in.
        (
            replace(HERE, path="Mine"),
            [replace(THEIRS, pixel=False)],
            Plan(append=True, like=..., remove=(replace(THEIRS, pixel=False),), files=True),  # type: ignore[arg-type]
        ),
        # A server that rewrites ours drops Bcc from it: it is ours all the same.
        (
            replace(HERE, bcc=True, filed=True),
            [replace(OURS, bcc=False)],
            Plan(keep=replace(OURS, bcc=False), again=True),
        ),
        # append: one of ours, and the provider's are left alone.
        (replace(HERE, policy=Copy.APPEND), [THEIRS], Plan(append=True)),
        (replace(HERE, policy=Copy.APPEND), [THEIRS, OURS], Plan(keep=OURS)),
        (replace(HERE, policy=Copy.APPEND, written=True), [], Plan()),
        (replace(HERE, policy=Copy.NONE), [THEIRS], Plan()),
    ],
)
def test_the_plan(wanted: Wanted, found: list[Candidate], expected: Plan) -> None:
    made = plan(wanted, found)
    like = made.like if expected.like is ... else expected.like  # type: ignore[comparison-overlap]
    assert made == replace(expected, like=like)


def test_the_best_of_several_clean_ones_stays() -> None:
    older = replace(OURS, uid=3, ours=False)
    assert plan(replace(HERE, filed=True), [older, OURS]).keep == OURS
    assert plan(replace(HERE, filed=True), [older, replace(older, uid=9)]).keep == replace(older, uid=9)


@pytest.mark.parametrize(
    ("account", "option", "expected"),
    [
        (Copy.AUTO, None, Copy.AUTO),
        (Copy.NONE, "replace", Copy.REPLACE),
        (Copy.AUTO, "always", Copy.APPEND),
        (Copy.APPEND, "never", Copy.NONE),
        (Copy.APPEND, "a word of the future", Copy.APPEND),
    ],
)
def test_the_message_s_own_policy_counts_more(account: Copy, option: str | None, expected: Copy) -> None:
    assert policy(account, option) is expected


def test_what_is_recorded_says_which_mail_is_ours() -> None:
    intent = Intent("Sent", 1, 7)
    assert intent.covers("Sent", 1, 7)
    assert intent.covers("Sent", 1, 9)
    assert not intent.covers("Sent", 1, 6)
    assert not intent.covers("Sent", 2, 7)
    assert not intent.covers("Other", 1, 7)
    known = intent.written(1, 8)
    assert known.covers("Sent", 1, 8)
    assert not known.covers("Sent", 1, 9)
    assert load(dump(known)) == known
    assert load(dump(None)) is None


# -- Any number of crashes ---------------------------------------------------------------------------------------------


@dataclass
class Box:
    """A mailbox, a provider that files late, and what we recorded: as relay/sentcopy.py works on it, step by step."""

    bcc: bool
    mail: dict[int, Candidate] = field(default_factory=dict)
    late: list[Candidate] = field(default_factory=list)
    next: int = 1
    intent: Intent | None = None
    filed: bool = False
    looks: int = 0

    def arrive(self, one: Candidate) -> None:
        self.mail[self.next] = replace(one, uid=self.next)
        self.next += 1

    @property
    def standing(self) -> list[Candidate]:
        return [one for one in self.mail.values() if not one.deleted]

    def found(self) -> list[Candidate]:
        return [
            replace(one, ours=not one.pixel and bool(self.intent and self.intent.covers("Sent", 1, one.uid)))
            for one in self.mail.values()
        ]

    def work(self, policy: Copy, files: bool | None, most: int) -> Iterator[bool]:
        """One pass. Yields at each point where the process may be killed; at the end, whether it was the last."""
        last = self.looks >= most
        written = bool(self.intent and self.intent.uid)
        known = Wanted("Sent", policy, files, self.bcc, len(self.late) + 1)
        wanted = replace(known, filed=self.filed, begun=self.intent is not None, written=written, last=last)
        made = plan(wanted, self.found())
        assert made.keep or made.append or not made.remove
        yield False
        if made.append:
            self.intent = Intent("Sent", 1, self.next)
            yield False
            self.arrive(Candidate("Sent", 0, bcc=True, addresses=made.like.addresses if made.like else OLD))
            yield False
            self.intent = self.intent.written(1, self.next - 1)
            self.filed |= made.files is True
            yield False
        for one in made.remove:
            if one.uid in self.mail:
                self.mail[one.uid] = replace(self.mail[one.uid], deleted=True)
                yield False
                del self.mail[one.uid]
                yield False
        self.filed |= made.files is True
        self.looks += 1
        yield not made.again


candidates = st.builds(
    Candidate,
    st.just("Sent"),
    st.just(0),
    pixel=st.booleans(),
    bcc=st.booleans(),
    deleted=st.booleans(),
    addresses=st.sampled_from([OLD, NEW]),
)


@given(
    st.lists(candidates, max_size=4),
    st.lists(candidates.map(lambda one: replace(one, deleted=False)), max_size=3),
    st.lists(st.integers(0, 12), max_size=6),
    st.booleans(),
    st.sampled_from([Copy.AUTO, Copy.REPLACE]),
    st.sampled_from([True, None]),
    st.integers(0, 3),
)
def test_whatever_happens_one_clean_copy_is_left_and_never_none(
    there: list[Candidate],
    late: list[Candidate],
    crashes: list[int],
    bcc: bool,
    policy: Copy,
    files: bool | None,
    most: int,
) -> None:
    box = Box(bcc, late=list(late))
    for one in there:
        box.arrive(one)
    had = bool(box.standing)
    for _ in range(60):
        crash = crashes.pop() if crashes else None
        ended = False
        for step, done in enumerate(box.work(policy, files, most)):
            ended = done
            had |= bool(box.standing)
            assert bool(box.standing) or not had  # never none, once there was one
            if step == crash:
                ended = False
                break
        if late:
            box.arrive(late.pop())
        elif ended:
            break
    assert len(box.standing) == 1
    assert clean(Wanted("Sent", bcc=bcc), box.found()[0])
    assert len(box.mail) == 1
