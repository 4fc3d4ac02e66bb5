"""A reply becomes an outcome, a category, and a sentence that says who can do what about it."""

from __future__ import annotations

from dataclasses import dataclass

from relay.core.model import Outcome
from relay.core.reply import Reply
from relay.core.reply import Stage as Stage
from relay.core.rules import HOST, RULES, Rule

LONGEST = 86_400.0  # s that a reply may ask us to wait


@dataclass(frozen=True, slots=True)
class Verdict:
    """Our reading of a reply.

    HELD costs no attempt. `wait`: seconds the reply asks for; None = the usual backoff. `pauses`: upstream refuses the
    account, so the account stops. `rests`: the account's next mail would get the same, so what is left waits as long.
    """

    outcome: Outcome
    category: str
    advice: str = ""
    wait: float | None = None
    pauses: bool = False
    rests: bool = False


SENT = Verdict(Outcome.SENT, "sent")
BEARER = frozenset({"token_refused", "login_refused"})
"""Categories of a login that another access token may mend."""


def classify(reply: Reply, stage: Stage) -> Verdict:
    """What this reply at this stage means. Never raises; what nobody knows is temporary."""
    if stage is Stage.DOT and 200 <= reply.code < 300:
        return SENT
    rule = find(reply, stage)
    if rule is None:
        return _by_code(reply, stage)
    outcome = rule.outcome or _outcome(reply, stage)
    return Verdict(outcome, rule.category, rule.advice, _wait(rule, reply), rule.pauses, rule.rests)


def find(reply: Reply, stage: Stage) -> Rule | None:
    """The first rule that knows this reply."""
    if not 400 <= reply.code < 600:
        return None
    said = _said(reply)
    return next((rule for rule in RULES if stage in rule.stages and rule.regex.search(said)), None)


def _said(reply: Reply) -> str:
    return f"{reply.code} {reply.enhanced} {reply.text}"


def _wait(rule: Rule, reply: Reply) -> float | None:
    """As the rule says, or as long as the reply asks for."""
    if "seconds" not in rule.regex.groupindex:
        return rule.wait
    found = rule.regex.search(_said(reply))
    return min(float(found["seconds"]), LONGEST) if found else rule.wait


def _outcome(reply: Reply, stage: Stage) -> Outcome:
    """By the code: 5xx is final, but not before any mail was offered, where it speaks of the host."""
    final = 500 <= reply.code < 600 and stage not in HOST and stage not in (Stage.AUTH, Stage.LEASE)
    return Outcome.FAILED if final else Outcome.DEFERRED


def _by_code(reply: Reply, stage: Stage) -> Verdict:
    if _outcome(reply, stage) is Outcome.FAILED:
        return Verdict(
            Outcome.FAILED, "refused", "Upstream refuses this mail for good; its reply is all there is to go by."
        )
    return Verdict(Outcome.DEFERRED, "temporary", "Upstream could not take it now; it is tried again.")
