"""What the failures that are reported mean: rules as data, each beside words that it must match.

The first rule that matches wins. What a server says goes before the status it gives, since many give the same status to
everything: so the rules about words stand first, the narrow ones before the wide, and those about statuses after them.
A category whose rules suppress says that no mail will ever arrive at that address, whoever sends it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from relay.core import phrases


class Advice(StrEnum):
    """What the sender had best do: the `recommendedAction` of events."""

    REMOVE = "remove"  # the address from the list
    RETRY = "retry"  # later
    FIX_CONFIGURATION = "fix_configuration"  # of the sender's domain, server or application
    REMOVE_CONTENT = "remove_content"  # what the receiver objects to
    REVIEW = "review"  # read the reply


@dataclass(frozen=True, slots=True)
class Rule:
    """One meaning. `pattern` is searched, ignoring case, in "status words", with addresses and paths left out.

    The status is the one within the words, where they have a telling one. `status` and `sample` are such a report's.
    """

    category: str
    advice: Advice
    status: str
    sample: str
    pattern: str
    suppresses: bool = False
    regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", re.compile(self.pattern, re.IGNORECASE))


_WHO = r"(?:users?|recipients?|mailbox(?:es)?|addressees?|address(?:es)?|accounts?|person|alias(?:es)?)"

_SENDER = (
    r"(?:\bsender|\bmail ?from\b|\bfrom:|\bheader from\b|\bfrom (?:address|domain|header)|\breturn[- ]?path"
    r"|\benvelope[- ]from)"
)

RULES: tuple[Rule, ...] = (
    # -- Words: the sender, the message, the way ---------------------------------------------------------------------
    Rule(
        "expired",
        Advice.RETRY,
        "4.4.7",
        "554 4.4.7 Message expired: unable to deliver in 840 minutes.<421 4.4.2 Connection timed out>",
        phrases.EXPIRED.pattern + r"|^[45]\.4\.(?:7|31[2-7]) ",
    ),
    Rule(
        "throttled",
        Advice.RETRY,
        "5.1.1",
        "550 5.1.1 <ann@example.com> - 203.0.113.222 has sent to too many recipients this hour. IB607",
        r"too many (?:recipients|messages|e?-?mails|connections|requests|concurrent)|rate[- ]?limit|throttl"
        r"|frequency limited|(?:daily|hourly|sending|message) (?:sending )?(?:limit|quota)"
        r"|receiving e?-?mail (?:at a rate|too)|^[45]\.7\.28 ",
    ),
    Rule(
        "greylisted",
        Advice.RETRY,
        "4.2.0",
        "450 4.2.0 <ann@example.com>: Recipient address rejected: Greylisted for 5 minutes",
        r"gr[ea]y-?list",
    ),
    Rule(
        "domain_authentication",
        Advice.FIX_CONFIGURATION,
        "5.7.26",
        "550-5.7.26 Unauthenticated email from example.jp is not accepted due to domain's DMARC policy.",
        r"\b(?:spf|dkim|dmarc|arc)\b|unauthenticated|required authentication level|^[45]\.7\.(?:2[0-467]|509|515) ",
    ),
    Rule(
        "reverse_dns",
        Advice.FIX_CONFIGURATION,
        "5.7.25",
        "550-5.7.25 The IP address sending this message does not have a PTR record setup",
        r"\bPTR\b|(?:reverse|\br)[- ]?dns|reverse hostname|dns ptr|client ip|invalid ip for sending|^[45]\.7\.25 "
        r"|\b(?:helo|ehlo)\b.{0,30}(?:reject|unknown|not found|invalid)|client host.{0,40}(?:unknown|not found)",
    ),
    Rule(
        "blocklisted",
        Advice.REVIEW,
        "5.7.1",
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
        r"spamhaus|spamcop|sorbs|barracudacentral|block(?:ed)? (?:using|list|for abuse)|black-? ?list|deny-?list"
        r"|\brbl\b|dnsbl|banned sending ip|part of their network is on|client host rejected"
        r"|ipcheck\.proofpoint",
    ),
    Rule(
        "reputation",
        Advice.REVIEW,
        "5.7.1",
        "550-5.7.1 Our system has detected that this message is likely suspicious due to the very low reputation of the"
        " sending IP address",
        r"reputation|user complaints|temporarily deferred(?! due to unresolvable)|host network not allowed",
    ),
    Rule(
        "dangerous_content",
        Advice.REMOVE_CONTENT,
        "5.0.0",
        "550 Virus Detected; Content Rejected",
        r"virus|malware|infected|security issue|phish|(?:attachment|file type).{0,60}(?:not allowed|blocked|rejected)",
    ),
    Rule(
        "spam",
        Advice.REMOVE_CONTENT,
        "5.7.1",
        "554 5.7.1 Email cannot be delivered. Reason: Email flagged as Spam.",
        r"spam|unsolicited|\bUBE\b|\bUCE\b|\bjunk\b|bulk mail"
        r"|content (?:was )?(?:rejected|refused|denied|filter)|\bDT:SPM\b",
    ),
    Rule(
        "too_large",
        Advice.REMOVE_CONTENT,
        "5.2.3",
        "552 5.2.3 <ann@example.com>: Recipient address rejected: Message length exceeds administrative limit",
        r"(?:message|mail|e-?mail)(?:'s)? (?:is )?(?:size|length|too (?:large|big|long))|(?<!box )size limit"
        r"|larger than|maximum permitted|(?<!box )(?<!folder )exceed\w* (?:(?!box|folder).){0,40}(?:size|length)",
    ),
    Rule(
        "loop",
        Advice.REVIEW,
        "5.4.6",
        "554 5.4.6 Hop count exceeded - possible mail loop",
        r"too many hops|hop count|(?:mail|routing|message) loop|^[45]\.4\.(?:6|14) ",
    ),
    Rule(
        "malformed",
        Advice.FIX_CONFIGURATION,
        "5.7.1",
        "550-5.7.1 This message is not RFC 5322 compliant. There are multiple Subject headers.",
        r"rfc ?-?(?:2822|5322|822)|non-?compliant|malformed (?:message|mail|header)|header error|missing .{0,20}header"
        r"|bare (?:lf|cr|linefeed|newline)|line (?:is )?too long|invalid .{0,20}\bheaders?\b",
    ),
    Rule(
        "sender_refused",
        Advice.FIX_CONFIGURATION,
        "5.1.0",
        "550 5.1.0 <ann@example.com> sender rejected.",
        r"sender.{0,40}(?:reject|denied|failed|not (?:owned|allowed|verified|valid)|blocked|invalid|does not exist)"
        r"|(?:unrout[e]?able|invalid|unknown|unverified) sender|mail ?from.{0,40}(?:reject|denied)|send ?as\b"
        r"|is not verified|not allowed to send from|^[45]\.1\.[78] |^[45]\.7\.60 |invalid dns mx"
        r"|mx for (?:the )?sender|unresolvable .{0,20}from domain"
        r"|(?<!recipient )(?<!address )verification failed for "
        rf"|{_SENDER}(?:(?!recip|rcpt|to:|user |mailbox)[^.;]){{0,40}}(?:un(?:known|resolv)(?! {_WHO})|invalid"
        r"|not (?:be )?(?:found|exist|valid|resolve)|n't (?:exist|resolve))"
        r"|\byour (?:e-?mail )?(?:account|mailbox) (?:is|was|has been) ",
    ),
    Rule(
        "relay_denied",
        Advice.REVIEW,
        "5.0.0",
        "550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain",
        r"relay(?:ing)?(?: access)?(?: is)? (?:denied|not (?:permitted|allowed)|prohibited)"
        r"|unable to relay|not a relay|\brcpthosts\b",
    ),
    Rule(
        "restricted",
        Advice.REVIEW,
        "5.7.1",
        "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required",
        r"resolver\.rst|authentication (?:required|failed|unsuccessful)|not authori[sz]ed|members only"
        r"|only accepts? (?:mail|messages)"
        r"|moderated",
    ),
    # -- Words: the mailbox ------------------------------------------------------------------------------------------
    Rule(
        "mailbox_full",
        Advice.RETRY,
        "5.0.0",
        "550-'5.2.2 <ann@example.jp>... Mailbox Full' (delivery attempts: 0)",
        r"over ?quota|quota (?:usage )?(?:is )?exceeded|exceed\w* .{0,30}(?:quota|local limit|storage|disk space)"
        r"|exceed\w* .{0,30}box size|out of storage"
        r"|(?:box|folder) (?:size )?(?:limit )?(?:is )?exceed"
        r"|storage (?:limit|quota)|(?:mailbox|mailfolder|inbox|folder|disk|account|box) (?:is |was )?(?:full|over)"
        r"|too much mail|postfach .{0,40}voll|bo[iî]te .{0,40}pleine|buz[oó]n .{0,40}lleno"
        r"|cas(?:ell|sett)a .{0,40}piena|caixa .{0,40}cheia|postvak .{0,40}vol\b|ящик .{0,40}переполнен"
        r"|ボックスが.{0,20}いっぱい|邮箱.{0,10}已满|容量",
    ),
    Rule(
        "temporary",
        Advice.RETRY,
        "5.7.1",
        "550 5.7.1 <ann@example.com>: Recipient address rejected: User temporary locked. Please try again later!",
        r"temporar|verification in progress|try (?:again )?later|not found, try again"
        r"|internal (?:system|server)? ?error",
    ),
    Rule(
        "mailbox_suspended",
        Advice.REVIEW,
        "5.5.0",
        "550 5.5.0 Le compte du destinataire est bloque. The recipient account is blocked. LPN007_426",
        rf"{_WHO} (?:is |was |has been |est )?(?:currently )?(?:suspended|blocked|locked|frozen)",
    ),
    Rule(
        "mailbox_disabled",
        Advice.REMOVE,
        "5.2.1",
        "550-5.2.1 The email account that you tried to reach is inactive.",
        rf"{_WHO}\b.{{0,40}}\b(?:disabled|inactive|deactivated|discontinued|terminated|closed|cancell?ed)"
        r"|(?:disabled|deactivated|inactive) (?:recipient|address|mailbox|account)"
        r"|no longer (?:in use|active|valid)|^5\.7\.13 ",
        suppresses=True,
    ),
    Rule(
        "unknown_domain",
        Advice.REMOVE,
        "5.4.4",
        "Host or domain name not found. Name service error for name=example.jp type=A: Host not found",
        r"\b(?:domain|host)(?: name)?(?: \S{1,100})? (?:is )?(?:not found|unknown|invalid|does(?: not|n't) exist)"
        r"|(?:unknown|invalid|no such) (?:domain|host)|nxdomain|null mx|no mx (?:record|host)|no valid mx"
        r"|indicated no smtp service"
        r"|(?:doesn't|does not) (?:receive|accept) (?:e?-?mail|any mail)|bad destination system"
        r"|type=MX: Malformed or unexpected|had no relevant answers",
        suppresses=True,
    ),
    Rule(
        "unknown_user",
        Advice.REMOVE,
        "5.0.0",
        "550 <ann@example.org>... User unknown (in reply to RCPT TO command)",
        rf"(?:unknown|no such|invalid|illegal) (?:or illegal |local )?(?:e-?mail )?{_WHO}\b"
        rf"|\bno (?:mailbox|user|account (?:by|with))\b|\bnon-?existent {_WHO}\b"
        rf"|{_WHO}\b[^.;]{{0,60}}?\b(?:un(?:known|recognized)|invalid|has moved|(?:does(?: not|n't)|did not) exist"
        r"|not (?:be )?(?:found|known|recogni[sz]ed|exist|listed|valid|here))"
        rf"|not our (?:user|customer)|not an? (?:valid|known) (?:local )?{_WHO}\b|no longer (?:on|at|with) "
        r"|not listed in (?:the )?(?:domino|public|directory|address book)"
        r"|doesn't have an? \S{1,100} account|recip(?:ient)?notfound|recipient not found"
        r"|^5\.4\.1 .{0,20}recipient address(?:es)? rejected ?: access denied"
        rf"|{phrases.NO_SUCH_USER}",
        suppresses=True,
    ),
    Rule(
        "bad_address",
        Advice.REVIEW,
        "5.1.3",
        "501 5.1.3 <ann@example.com>: Recipient address rejected: Bad destination mailbox address syntax",
        r"address syntax|syntax error.{0,40}address|malformed (?:recipient )?address|not a valid rfc",
    ),
    Rule(
        "unreachable",
        Advice.RETRY,
        "4.4.2",
        "lost connection with mx.example.com[192.0.2.86] while performing the HELO handshake",
        phrases.UNREACHABLE.pattern + r"|lost connection|not reachable|unable to contact|multiple retries"
        r"|service (?:currently )?unavailable",
    ),
    Rule(
        "policy",
        Advice.REVIEW,
        "5.2.3",
        "554 5.2.3 MailPolicy violation Error delivering to mailboxes",
        r"policy violation|violat\w* .{0,40}polic(?:y|ies)",
    ),
    # -- Statuses ----------------------------------------------------------------------------------------------------
    Rule("mailbox_full", Advice.RETRY, "4.2.2", "", r"^[45]\.2\.2 "),
    Rule("too_large", Advice.REMOVE_CONTENT, "5.3.4", "554 5.3.4 refused", r"^[45]\.(?:2\.3|3\.4) "),
    Rule("mailbox_disabled", Advice.REMOVE, "5.2.1", "550 5.2.1 refused", r"^5\.2\.1 ", suppresses=True),
    Rule("unknown_domain", Advice.REMOVE, "5.1.2", "", r"^5\.1\.2 ", suppresses=True),
    Rule(
        "unknown_user",
        Advice.REMOVE,
        "5.1.1",
        "550 5.1.1 Requested action not taken: mailbox unavailable",
        r"^5\.1\.(?:1|6|10|351) ",
        suppresses=True,
    ),
    Rule("bad_address", Advice.REVIEW, "5.1.3", "", r"^[45]\.1\.3 "),
    Rule("unreachable", Advice.RETRY, "4.4.1", "", r"^[45]\.4\.[12] "),
    Rule(
        "routing",
        Advice.REVIEW,
        "",
        "all relevant MX records point to non-existent hosts",
        r"^[45]\.4\.|unroute?able address|relevant mx records",
    ),
    Rule("malformed", Advice.FIX_CONFIGURATION, "5.6.0", "", r"^[45]\.6\."),
    Rule("server_trouble", Advice.RETRY, "4.3.0", "", r"^[45]\.3\."),
    Rule(
        "policy",
        Advice.REVIEW,
        "5.7.9",
        "554 5.7.9 Message not accepted for policy reasons.",
        r"^[45]\.7\.|polic(?:y|ies)|access denied|not (?:permitted|allowed|accepted)|prohibited|forbidden|reject"
        r"|blocked|refused",
    ),
)

OTHER = ("refused", Advice.REVIEW)
"""Category and advice of what no rule knows."""

SUPPRESSING = frozenset(rule.category for rule in RULES if rule.suppresses)
"""The categories that speak of the address itself, for good."""
