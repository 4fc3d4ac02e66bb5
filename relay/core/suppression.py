"""What whoever writes to a suppressed address is told: why, since when, and how the suppression is lifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from relay.core.address import CONTROLS
from relay.core.errors import Refused
from relay.core.model import Reason, Suppressed
from relay.core.options import spelled

CATEGORY = "suppressed"
ENHANCED = "5.7.1"
MOST_NAMED = 50  # addresses that a refusal names one by one
LONGEST_DETAIL = 200

WHY: Mapping[Reason, str] = {
    "bounce": "mail to it bounced",
    "complaint": "its owner complained of mail from here",
    "unsubscribe": "its owner wants no more mail",
    "manual": "it was put on the list by hand",
}


def words(one: Suppressed) -> str:
    """Why and since when, in a line that follows the address."""
    detail = CONTROLS.sub(" ", one.detail[:LONGEST_DETAIL]).strip()
    return f"suppressed since {spelled(one.since)}: {WHY[one.reason]}" + (f" ({detail})" if detail else "")


def lifting(account: str, recipient: str) -> str:
    """How it is lifted, in a line."""
    return f"DELETE /v1/suppressions/{quote(account, safe='@')}/{quote(recipient, safe='@')} lifts it"


def refused(account: str, one: Suppressed) -> Refused:
    """The answer to RCPT TO."""
    text = f"<{one.recipient}> is {words(one)}; {lifting(account, one.recipient)}"
    return Refused(text, smtp=f"550 {ENHANCED}", status=422, code="RecipientsSuppressed")


def left_out(suppressed: Sequence[Suppressed]) -> str:
    """Who of a message's recipients is skipped, in a line that follows its acceptance."""
    first, more = suppressed[0], len(suppressed) - 1
    return f"not to <{first.recipient}>, {words(first)}" + (f", nor to {more} more" if more else "")


class AllSuppressed(Refused):
    """Every recipient of a message is suppressed: nothing was stored. `suppressed` has each, one at least."""

    def __init__(self, account: str, suppressed: Sequence[Suppressed]) -> None:
        first, more = suppressed[0], len(suppressed) - 1
        others = f"; so {'are' if more > 1 else 'is'} {more} more" if more else ""
        text = f"Nobody is left to send to: <{first.recipient}> is {words(first)}{others}."
        text = f"{text} {lifting(account, first.recipient)}"
        super().__init__(text, smtp=f"550 {ENHANCED}", status=422, key="to", code="RecipientsSuppressed")
        self.account, self.suppressed = account, tuple(suppressed)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """(field, message) for each address, the first MOST_NAMED of them."""
        return [("to", f"<{one.recipient}> is {words(one)}") for one in self.suppressed[:MOST_NAMED]]

    def reply(self) -> str:
        """One reply of several lines (RFC 5321, 4.2.1), a line break between them."""
        lines = [f"<{one.recipient}> is {words(one)}" for one in self.suppressed[:MOST_NAMED]]
        if len(self.suppressed) > MOST_NAMED:
            lines.append(f"and so are {len(self.suppressed) - MOST_NAMED} more")
        lines.append(f"Nobody is left to send to; {lifting(self.account, self.suppressed[0].recipient)}")
        *others, last = (f"{ENHANCED} {line}" for line in lines)
        return "\n".join([*(f"550-{line}" for line in others), f"550 {last}"])
