"""What an upstream calls a message that it took, read from its last reply: postmasters ask for this name."""

from __future__ import annotations

import re
from collections.abc import Iterable

NAMES: tuple[tuple[str, str, str], ...] = (
    # What the reply says, a reply that does, and the name in it. The first that fits counts.
    (r"\bqueued (?:mail )?(?:for delivery )?as <?NAME", "Ok: queued as 4F2D41A0B3", "4F2D41A0B3"),  # Postfix, others
    (
        r"\bqueued on \S+ (?:as )?NAME",  # Yandex
        "Ok: queued on sas2-cfcb89.qloud-c.yandex.net as 1622543697-srv70znyOQ-Yuo8qF7L",
        "1622543697-srv70znyOQ-Yuo8qF7L",
    ),
    (r"NAME - gsmtp$", "OK  1644855633 l11si9233120wms.107 - gsmtp", "l11si9233120wms.107"),  # Google
    (
        r"<NAME> .*(?:\bQueued mail for delivery|\[Hostname=)",  # Exchange, Microsoft 365
        "<20261025103822.7F94E@mx.example> [InternalId=274498, Hostname=EX1.mx.example] Queued mail for delivery",
        "20261025103822.7F94E@mx.example",
    ),
    (r"\bid=NAME", "OK id=1gmL1D-0004RA-NF", "1gmL1D-0004RA-NF"),  # Exim; IONOS and GMX say it after other words
    (
        r"^Ok ([0-9a-f]{16}-[0-9a-f-]{36}-[0-9]{6})$",  # Amazon SES
        "Ok 010001727bf05c7f-8ff7cc5f-aea3-4284-91ea-51f2f82c4469-000000",
        "010001727bf05c7f-8ff7cc5f-aea3-4284-91ea-51f2f82c4469-000000",
    ),
    (
        r"^NAME Message accepted for delivery",
        "5AKBx2y3012345 Message accepted for delivery",
        "5AKBx2y3012345",
    ),  # sendmail
    (r"\bMessage Queued \(NAME\)", "Message Queued (0D3F5C6A-7B1E.1)", "0D3F5C6A-7B1E.1"),  # Haraka
    (r"^ok [0-9]+ qp NAME$", "ok 1700000000 qp 12345", "12345"),  # qmail
)
# It has a digit, or capitals alone: "queued as soon as possible" names nothing.
_NAME = r"(?=\S*[0-9]|(?-i:[A-Z]{5}))([A-Z0-9][\w.+=@/~%:$-]{1,198}[A-Z0-9])(?![\w=@/~%$-])"
_READERS = tuple(re.compile(rule.replace("NAME", _NAME), re.IGNORECASE) for rule, _, _ in NAMES)


def message_id(reply: str) -> str | None:
    """The name in the text of a reply, without its codes; None where it gives none."""
    for reader in _READERS:
        if found := reader.search(reply):
            return found[1]
    return None


def message_ids(own: str, replies: Iterable[str]) -> tuple[str, ...]:
    """What a message may be called in the sender's mailbox: by its own Message-ID, or by one that its provider gave it.

    Outlook.com writes another one into what it sends and files; its reply tells which.
    """
    given = (message_id(reply) for reply in replies)
    return tuple(dict.fromkeys((own, *(f"<{name}>" for name in given if name and "@" in name))))
