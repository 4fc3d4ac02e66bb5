"""Which providers file what is sent through them in the sender's own mailbox: a table, each line with its source.

Only what is known for sure. Of all others it is learned, mailbox by mailbox, from what is found there; and whatever is
thought beforehand, one copy is left in the end. It only decides whether to wait for the provider's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from relay.core.tenant import Account, Mailgun


@dataclass(frozen=True, slots=True)
class Filer:
    """A provider. `smtp` and `imap` are searched, ignoring case, in the names of the servers; "" fits every mailbox.

    `files`: None where both is seen, for reasons that nobody sees from outside.
    """

    name: str
    smtp: str
    files: bool | None
    sample: tuple[str, str]  # an SMTP and an IMAP server that this line is about
    source: str
    seen: str  # the day on which the source was read
    imap: str = ""
    _smtp: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _imap: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_smtp", re.compile(self.smtp, re.IGNORECASE))
        object.__setattr__(self, "_imap", re.compile(self.imap, re.IGNORECASE))

    def fits(self, smtp: str, imap: str) -> bool:
        return bool(self._smtp.search(smtp) and self._imap.search(imap))


def files(account: Account) -> bool | None:
    """Whether what the account sends is filed in its mailbox without us; None: nobody knows beforehand."""
    match account.upstream:
        case Mailgun():
            return False  # it has no way into the mailbox
        case None:
            return None
        case smtp:
            imap = account.imap.host if account.imap else ""
            return next((filer.files for filer in FILERS if filer.fits(smtp.host, imap)), None)


GOOGLE_MAILBOX = r"^imap\.(gmail|googlemail|google)\.com$"
MICROSOFT_MAILBOX = r"^(outlook\.office365\.com|imap-mail\.outlook\.com|outlook\.office\.com)$"
SERVICE = "It sends on behalf of domains, and has no access to mailboxes: its documentation asks for none."

FILERS: tuple[Filer, ...] = (
    # -- These file: mailbox and submission belong together. ----------------------------------------------------
    Filer(
        "Gmail, Google Workspace",
        r"^smtp\.(gmail|googlemail|google)\.com$",
        True,
        ("smtp.gmail.com", "imap.gmail.com"),
        "https://support.google.com/mail/answer/78892: sent through Gmail's SMTP server, copied to Sent by itself",
        "2026-11-20",
        imap=GOOGLE_MAILBOX,
    ),
    Filer(
        "Microsoft 365, Outlook.com",
        r"^(smtp\.office365\.com|smtp-mail\.outlook\.com|outlook\.office365\.com)$",
        True,
        ("smtp.office365.com", "outlook.office365.com"),
        "https://learn.microsoft.com/powershell/module/exchange/set-mailbox: "
        "MessageCopyForSMTPClientSubmissionEnabled, which an administrator may switch off",
        "2026-11-20",
        imap=MICROSOFT_MAILBOX,
    ),
    # -- These are said to file and not to file, or let the user choose: it is learned. -------------------------
    Filer(
        "Google Workspace's SMTP relay",
        r"^smtp-relay\.gmail\.com$",
        None,
        ("smtp-relay.gmail.com", "imap.gmail.com"),
        "https://support.google.com/a/answer/2956491: depends on the organisation's comprehensive mail storage",
        "2026-11-20",
    ),
    Filer(
        "iCloud",
        r"^smtp\.mail\.(me|icloud)\.com$",
        None,
        ("smtp.mail.me.com", "imap.mail.me.com"),
        "https://support.apple.com/102525 does not say; reports of mail programs say both",
        "2026-11-20",
    ),
    Filer(
        "Fastmail",
        r"(^|\.)(fastmail\.com|messagingengine\.com)$",
        None,
        ("smtp.fastmail.com", "imap.fastmail.com"),
        "https://www.fastmail.help/hc/en-us/articles/1500000279921 does not say; identities have a choice",
        "2026-11-20",
    ),
    Filer(
        "Yahoo, AOL",
        r"(^|\.)mail\.(yahoo|aol)\.(com|de|co\.\w\w|co\.jp)$",
        None,
        ("smtp.mail.yahoo.com", "imap.mail.yahoo.com"),
        "https://help.yahoo.com/kb/SLN4075.html does not say",
        "2026-11-20",
    ),
    Filer(
        "Zoho",
        r"^smtp(pro)?\.zoho\.(com|eu|in|com\.au|jp|com\.cn)$",
        None,
        ("smtp.zoho.eu", "imap.zoho.eu"),
        "https://www.zoho.com/mail/help/imap-access.html: each mailbox has a setting",
        "2026-11-20",
    ),
    # -- These do not: they send for a domain, and know no mailbox. ---------------------------------------------
    Filer(
        "Amazon SES",
        r"^email-smtp(-fips)?\.[a-z0-9-]+\.amazonaws\.com$",
        False,
        ("email-smtp.eu-central-1.amazonaws.com", "imap.example.com"),
        f"https://docs.aws.amazon.com/ses/latest/dg/send-email-smtp.html: {SERVICE}",
        "2026-11-20",
    ),
    Filer(
        "Mailgun by SMTP",
        r"^smtp(\.eu)?\.mailgun\.org$",
        False,
        ("smtp.eu.mailgun.org", "imap.example.com"),
        f"https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/send-smtp: {SERVICE}",
        "2026-11-20",
    ),
    Filer(
        "SendGrid",
        r"^smtp(\.eu)?\.sendgrid\.net$",
        False,
        ("smtp.sendgrid.net", "imap.example.com"),
        f"https://www.twilio.com/docs/sendgrid/for-developers/sending-email/integrating-with-the-smtp-api: {SERVICE}",
        "2026-11-20",
    ),
    Filer(
        "Postmark",
        r"^smtp(-broadcasts)?\.postmarkapp\.com$",
        False,
        ("smtp.postmarkapp.com", "imap.example.com"),
        f"https://postmarkapp.com/developer/user-guide/send-email-with-smtp: {SERVICE}",
        "2026-11-20",
    ),
    Filer(
        "Brevo",
        r"^smtp-relay\.(brevo|sendinblue)\.com$",
        False,
        ("smtp-relay.brevo.com", "imap.example.com"),
        f"https://developers.brevo.com/docs/smtp-integration: {SERVICE}",
        "2026-11-20",
    ),
    Filer(
        "Mailjet",
        r"^in(-v3)?\.mailjet\.com$",
        False,
        ("in-v3.mailjet.com", "imap.example.com"),
        f"https://dev.mailjet.com/smtp-relay/overview/: {SERVICE}",
        "2026-11-20",
    ),
)
"""The first that fits counts. A server of one's own (cPanel, Postfix with Dovecot) is in no table: it is learned."""
