"""The trail of a verification: which steps were taken, how long each took, and where it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from relay.core.folders import Folder
from relay.core.hints import advise
from relay.core.verification import Fault, Result, Step, StepState

PATIENCE = 10.0  # seconds a step may take: a person is waiting
WHOLE = 25.0  # ... and all of them
CODES = {
    "forbidden": "EFORBIDDEN",
    "dns": "EDNS",
    "unreachable": "ECONNECTION",
    "lost": "ECONNECTION",
    "tls": "ETLS",
    "certificate": "ETLS",
    "protocol": "EPROTOCOL",
    "refused": "EPROTOCOL",
}
"""What went wrong, for programs: the words of the mail library that EmailEngine hands on, and one of ours."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why it ended. `code`: a word for programs; `said`: the server's own words, if any."""

    step: str
    code: str
    text: str
    advice: str
    said: str = ""


@dataclass(frozen=True, slots=True)
class Telling:
    """What is told of steps: of those that went well, and (detail, advice) of those that were not asked for."""

    details: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class Trail:
    """`names`: the steps in their order, `never` those of them that are not asked for; `clock` tells seconds."""

    def __init__(self, names: Sequence[str], clock: Callable[[], float], *, never: Sequence[str] = ()) -> None:
        self._names, self._clock, self._never = names, clock, never
        self._last = clock()
        self._taken: dict[str, float] = {}

    def passed(self, step: str) -> None:
        """The step went well, just now."""
        now = self._clock()
        self._taken[step] = now - self._last
        self._last = now

    def next(self) -> str:
        """The step after the last that was taken."""
        last = max((self._names.index(name) for name in self._taken), default=-1)
        return next((name for name in self._names[last + 1 :] if name not in self._never), self._names[-1])

    def misjudged(self, faults: Sequence[Fault]) -> Result:
        """It ended before it began: the settings cannot be right."""
        text = "; ".join(fault for fault, _ in faults)
        advice = " ".join(dict.fromkeys(tip for _, tip in faults))
        return self.ended(Failure("settings", "ESETTINGS", text, advice), Telling())

    def ended(self, failure: Failure | None, telling: Telling, folders: Sequence[Folder] | None = None) -> Result:
        """What was found. `failure` None: nothing failed."""
        end = self._names.index(failure.step) if failure else len(self._names)
        steps = [self._step(name, place < end, telling) for place, name in enumerate(self._names)]
        if failure:
            seconds = self._clock() - self._last
            steps[end] = Step(failure.step, StepState.FAILED, failure.text, failure.advice, seconds)
        kept = None if folders is None else tuple(folders)
        return Result(tuple(steps), failure.code if failure else "", failure.said if failure else "", kept)

    def _step(self, name: str, before: bool, telling: Telling) -> Step:
        if name not in self._taken:
            detail, advice = telling.passed_over.get(name, ("", "")) if before else ("", "")
            return Step(name, StepState.SKIPPED, detail, advice)
        detail, advice = telling.details.get(name, ""), telling.remarks.get(name, "")
        return Step(name, StepState.OK, detail, advice, self._taken[name])


def forbidden(host: str) -> Failure:
    """Nothing is said of the address: whoever asks must not learn our network from it."""
    text = f"{host} may not be used as a host here"
    return Failure("resolve", CODES["forbidden"], text, advise("resolve", host, text))


def late(host: str, trail: Trail) -> Failure:
    """All steps together took longer than they may."""
    step, text = trail.next(), f"{host} took too long: all steps together have {WHOLE:g} seconds"
    return Failure(step, "ETIMEDOUT", text, advise(step, host, text))


def code(kind: str, text: str) -> str:
    """The word for an error of this kind that was told in this text."""
    slow = kind in ("lost", "unreachable", "dns") and ("in time" in text or "too long" in text)
    return "ETIMEDOUT" if slow else CODES[kind]
