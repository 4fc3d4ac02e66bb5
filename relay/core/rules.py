"""What the replies of the world's mail servers mean: rules as data, each beside a reply that it must match.

The first rule that matches wins, so the narrow ones stand first. What no rule knows is read by its code (classify).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from relay.core import phrases
from relay.core.model import Outcome
from relay.core.reply import Stage

MINUTE, HOUR = 60.0, 3600.0
LOGIN = frozenset({Stage.AUTH})
ANYWHERE = frozenset(Stage)
HOST = frozenset({Stage.CONNECT, Stage.TLS, Stage.EHLO})  # before any mail: what is said here is about us or the host


@dataclass(frozen=True, slots=True)
class Rule:
    """One meaning. `pattern` is searched, ignoring case, in "code enhanced text"; `outcome` None: as the code says.

    A group `seconds` in it is the wait that the reply itself asks for.
    """

    category: str
    sample: str
    pattern: str
    advice: str
    outcome: Outcome | None = None
    wait: float | None = None  # seconds, where the reply asks for a wait of its own
    stages: frozenset[Stage] = ANYWHERE
    pauses: bool = False  # upstream refuses this account, not this mail
    rests: bool = False  # the account's next mail would get the same reply: let it all rest for `wait`
    regex: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "regex", re.compile(self.pattern, re.IGNORECASE))


RULES: tuple[Rule, ...] = (
    # -- Mailgun, in the words that core/mailgun.py puts its answers into ------------------------------------
    Rule(
        "mailgun_sandbox",
        "550 5.7.1 Domain sandbox1.mailgun.org is not allowed to send: Sandbox subdomains are for test purposes only.",
        r"sandbox subdomains are for test",
        "Mailgun's sandbox writes to authorised recipients alone: add this address there, or use a domain of your own.",
    ),
    Rule(
        "asked_to_wait",
        "451 4.7.0 Too Many Requests; retry after 30 s",
        r"^4.*; retry after (?P<seconds>\d{1,9}) s$",
        "Upstream says when it takes mail again; it resumes by itself. Set the account's limits below upstream's.",
        Outcome.HELD,
        wait=MINUTE,
        rests=True,
    ),
    Rule(
        "mailgun_limit",
        "452 4.7.0 Domain mg.example.com is not allowed to send: recipient limit exceeded",
        r"^4.*(not allowed to send: .*limit exceeded|sending too fast|on probation|domains are limited to)",
        "Mailgun's limit for this domain is used up (new accounts have low ones): mail resumes by itself.",
        Outcome.HELD,
        wait=HOUR,
        rests=True,
    ),
    Rule(
        "mailgun_key",
        "535 5.7.8 Mailgun refuses the API key: Invalid private key",
        r"mailgun refuses the api key",
        "Set mailgun.apiKey to a key of the Mailgun account that has this domain, in the region of mailgun.baseUrl.",
        Outcome.HELD,
        stages=LOGIN,
        pauses=True,
    ),
    Rule(
        "mailgun_domain",
        "550 5.7.1 Mailgun has no such domain here: Domain not found: mg.example.com",
        r"mailgun has no such domain",
        "Check mailgun.domain, and its region: domains of the EU want mailgun.baseUrl https://api.eu.mailgun.net.",
        Outcome.HELD,
        stages=LOGIN,
        pauses=True,
    ),
    Rule(
        "mailgun_disabled",
        "550 5.7.1 Mailgun does not let this domain send: Domain a.example is not allowed to send: Account disabled",
        r"mailgun does not let this domain send",
        "Mailgun's dashboard says what is missing (activation, DNS records, a payment): mend it, then resume.",
        Outcome.HELD,
        stages=LOGIN,
        pauses=True,
    ),
    Rule(
        "not_mailgun",
        "451 4.5.0 this is no answer of Mailgun's: 200 Mailgun Magnificent API",
        r"^4.* no answer of mailgun's",
        "Something else answers there: check mailgun.baseUrl, and proxies on the way.",
        Outcome.HELD,
        wait=15 * MINUTE,
        rests=True,
    ),
    # -- Login -----------------------------------------------------------------------------------------------
    Rule(
        "login_throttled",
        "454 4.7.0 Too many login attempts, please try again later.",
        r"^4.*too many.*(login|auth)|^4.*(login|auth\w*) (rate|attempts)",
        "The upstream saw too many logins: wait, and lower the account's limit of connections if it happens again.",
        wait=15 * MINUTE,
        stages=LOGIN,
        rests=True,
    ),
    Rule(
        "app_password",
        "534 5.7.9 Application-specific password required. For more information, go to https://support.google.com/mail/",
        r"^53[45] 5\.7\.9|app(lication)?[- ](specific )?password|authorization code",
        "This mailbox has two-step sign-in: make an app password with the provider and use it here.",
        Outcome.HELD,
        stages=LOGIN,
        pauses=True,
    ),
    Rule(
        "web_login",
        "534 5.7.14 Please log in via your web browser and then try again.",
        r"^53[45] 5\.7\.14|log ?in (via|with|using|through) (your|a) (web )?browser",
        "The provider wants this login confirmed: sign in with a web browser, allow the access, then resume.",
        Outcome.HELD,
        stages=LOGIN,
        pauses=True,
    ),
    Rule(
        "smtp_auth_disabled",
        "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.",
        r"smtp ?client ?authentication is disabled|smtp_auth_disabled",
        "Microsoft 365 has SMTP AUTH switched off: an administrator must enable it for this mailbox or for the tenant.",
        Outcome.HELD,
        stages=LOGIN,
        pauses=True,
    ),
    Rule(
        "basic_auth_disabled",
        "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.",
        r"basic authentication is disabled|5\.7\.139.*(security defaults|conditional)",
        "The provider takes no passwords any more: connect the account with OAuth2 (an access token) instead.",
        Outcome.HELD,
        stages=LOGIN,
        pauses=True,
    ),
    Rule(
        "token_refused",
        '535 5.7.8 XOAUTH2 refused: {"status":"401","schemes":"Bearer","scope":"https://mail.google.com/"}',
        r"(xoauth2|oauthbearer) refused|access ?token|oauth.*(expired|invalid)",
        "The access token is expired, revoked or lacks the mail scope: connect the account again.",
        Outcome.HELD,
        stages=LOGIN,
        pauses=True,
    ),
    Rule(
        "auth_method",
        "504 5.7.4 Unrecognized authentication type",
        r"^50[0-4]|unrecognized auth|mechanism|no (common )?login method",
        "Upstream offers no way to log in that this account can use: check host, port, TLS and the login method.",
        Outcome.HELD,
        stages=LOGIN,
        pauses=True,
    ),
    Rule(
        "tls_required",
        "530 5.7.0 Must issue a STARTTLS command first.",
        r"^538|^5(?!.*recipient).*"
        r"(must issue a starttls|(encryption|encrypted connection|tls) (is )?required|requires? tls)",
        "Upstream speaks to encrypted connections only: set the account's TLS to starttls (587) or implicit (465).",
        Outcome.HELD,
        pauses=True,
    ),
    Rule(
        "login_blocked",
        "535 5.7.0 (#AUTH005) Too many bad auth attempts.",
        r"^5.*(too many (bad |failed )?(auth|login)|account (is |has been )?(locked|blocked|suspended|disabled))",
        "The provider has locked this login: sign in with a browser, clear the lock, then resume the account.",
        Outcome.HELD,
        stages=LOGIN,
        pauses=True,
    ),
    Rule(
        "login_trouble",
        "535 5.7.0 Error: authentication failed: Connection lost to authentication server",
        r"^5.*(connection lost to auth|temporar\w* (auth\w* )?(fail|error|problem|unavail)|system (is )?busy"
        r"|internal .*error)",
        "Upstream could not look the login up, which usually passes: it is tried again.",
        Outcome.DEFERRED,
        wait=5 * MINUTE,
        stages=LOGIN,
        rests=True,
    ),
    Rule(
        "login_refused",
        "535 5.7.8 Username and Password not accepted. https://support.google.com/mail/?p=BadCredentials",
        r"^5",
        "Upstream refuses this user and password: correct them (Gmail, Yahoo, iCloud: an app password), then resume.",
        Outcome.HELD,
        stages=LOGIN,
        pauses=True,
    ),
    Rule(
        "login_required",
        "530 5.7.57 Client not authenticated to send mail.",
        r"^5(25|3[05])|5\.7\.57|not authenticated to send|^(?!.*(resolver\.|5\.7\.(13|2)\d|\b(spf|dkim|dmarc)\b)).*"
        r"((authentication|smtp auth) (is )?required|need auth|turn on smtp auth|without authentication)",
        "Upstream wants a login before mail: set the account's user and password.",
        Outcome.HELD,
        pauses=True,
    ),
    Rule(
        "account_blocked",
        "554 Message rejected: Sending paused for this account.",
        r"sending paused for this account|bad outbound sender|outgoing blocked|outgoing mail from .*suspended"
        r"|\byour account (is|has been) (suspended|blocked|locked|disabled)(?! by )",
        "The provider has stopped this account from sending: its dashboard says why; mend that, then resume.",
        Outcome.HELD,
        pauses=True,
    ),
    # -- The host, before any mail ---------------------------------------------------------------------------
    Rule(
        "forbidden_host",
        "550 5.7.1 10.0.0.5 refused: private address",
        r"refused: .*address",
        "The upstream lives in a private network: the operator may allow it with POSTFERRY_ALLOW_NETWORKS.",
        stages=frozenset({Stage.CONNECT}),
    ),
    Rule(
        "dns",
        "451 4.4.3 smtp.example.com: no such host",
        r"^\d+ [45]\.4\.3 .*(host|name|look)",
        "The upstream's name has no address: check the host name for typing mistakes, or the DNS of this machine.",
        stages=frozenset({Stage.CONNECT}),
    ),
    Rule(
        "certificate",
        "451 4.7.5 certificate of smtp.example.com not trusted: self-signed certificate",
        r"certificate",
        "The upstream's certificate is not valid for this host name: use the name it was made for, or have it renewed.",
        stages=frozenset({Stage.TLS}),
    ),
    Rule(
        "tls",
        "454 4.7.0 TLS not available due to local problem",
        r".",
        "TLS could not be agreed on: check that the port and the TLS mode go together (465 implicit, 587 starttls).",
        stages=frozenset({Stage.TLS}),
    ),
    Rule(
        "unreachable",
        "451 4.4.1 connection to smtp.example.com:587 refused",
        r"^451 4\.4\.[12] ",
        "Upstream does not answer: check host and port, and whether a firewall lets this machine out.",
    ),
    # -- Limits of upstream ----------------------------------------------------------------------------------
    Rule(
        "greylisted",
        "450 4.2.0 <ann@example.com>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/",
        r"gr[ea]y-?list|4\.7\.1 .*(come back|try again) later",
        "The recipient's server asks first-time senders to come back: the next try usually passes.",
        Outcome.DEFERRED,
        wait=5 * MINUTE,
    ),
    Rule(
        "daily_limit",
        "550 5.4.5 Daily user sending limit exceeded. https://support.google.com/a/answer/166852",
        r"^(?!\d+ [45]\.2\.(2|12[12]) ).*(5\.4\.5"
        r"|(daily|hourly|per (day|hour)).*(limit|quota|max)|(limit|quota|max).*(daily|hourly|per (day|hour))"
        r"|too many (recipients|messages|e?mails) .*(today|(this|an?|last) (hour|day))"
        r"|sending (limit|quota)|submissionquotaexceeded|exceeded (the|your) max|5\.1\.90|credits exceeded)",
        "The provider's own sending limit is used up: mail resumes by itself; set the account's limits below it.",
        Outcome.HELD,
        wait=HOUR,
        rests=True,
    ),
    Rule(
        "too_many_connections",
        "421 4.7.0 mail.example.com Error: too many connections from 192.0.2.1",
        r"too many (concurrent |simultaneous )*(smtp )*(connections|sessions)|connections? limit|thread limit",
        "Upstream allows fewer connections at once: lower the account's limit of connections.",
        Outcome.DEFERRED,
        wait=MINUTE,
        rests=True,
    ),
    Rule(
        "too_many_recipients",
        "452 4.5.3 Error: too many recipients",
        r"[45]\.5\.3|too many recipients|(recipient|rcpt) limit",
        "Upstream takes fewer recipients in one transaction: the rest goes in the next one.",
        Outcome.DEFERRED,
        wait=10.0,
    ),
    Rule(
        "recipient_throttled",
        "450 4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages",
        r"receiving e?-?mail (at a rate|too quickly)|5\.2\.12[12] ",
        "This recipient's mailbox is getting mail too fast: it is tried again later.",
        Outcome.DEFERRED,
        wait=15 * MINUTE,
    ),
    Rule(
        "throttled",
        "451 4.7.500 Server busy. Please try again later from [192.0.2.1]. (AS761)",
        r"^4.*(throttl|rate[- ]?limit|too (fast|quickly|much mail|many (messages|e?mails|requests))|unusual rate"
        r"|sending rate)|frequency limited"
        r"|4\.7\.(28|500)|server busy|try again later.*\bAS\d+|5\.7\.705|unusual sending activity",
        "Upstream asks for a slower pace: set the account's perMinute limit below what it allows.",
        Outcome.DEFERRED,
        wait=5 * MINUTE,
        rests=True,
    ),
    Rule(
        "reputation",
        "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints",
        r"\[?TSS?0\d\]?|temporarily deferred|user complaints",
        "The receiving provider distrusts this sender for now: send less, and only to people who expect the mail.",
        Outcome.DEFERRED,
        wait=2 * HOUR,
    ),
    # -- Message ---------------------------------------------------------------------------------------------
    Rule(
        "too_large",
        "552 5.3.4 Message size exceeds fixed limit",
        r"[45]\.(3\.4|2\.3) |(message|mail)('s)? (size|too (large|big))|(?<!box )size limit"
        r"|larger than|maximum permitted",
        "The message is larger than upstream or the recipient takes: send a link instead of the attachment.",
    ),
    Rule(
        "smtputf8",
        "553 5.6.7 ärger@example.com: upstream does not offer SMTPUTF8, and the address cannot be written in ASCII",
        r"[45]\.6\.[79] |smtputf8|internationali[sz]ed",
        "Upstream cannot write to addresses with non-ASCII characters before the @: use another address.",
    ),
    Rule(
        "dangerous_content",
        "552 5.7.0 This message was blocked because its content presents a potential security issue.",
        r"security issue|virus|malware|infected|(attachment|file type).*(not allowed|blocked|rejected)",
        "The content looks dangerous to the receiver: remove the attachment or the link that it names.",
    ),
    Rule(
        "domain_authentication",
        "550 5.7.26 This mail has been blocked because the sender is unauthenticated. SPF and DKIM did not pass.",
        r"[45]\.7\.(2[0-7]|515)|\b(spf|dkim|dmarc)\b",
        "The sender's domain does not authenticate this mail: add the provider to its SPF record, switch DKIM on.",
    ),
    Rule(
        "blocklisted",
        "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
        r"spamhaus|spamcop|barracuda|block(ed)? (using|list)|black ?list|rbl|dnsbl|banned sending ip"
        r"|ipcheck\.proofpoint|5\.7\.60[56]",
        "The sending server's address is on a block list: ask the provider, or have it removed at the list named.",
    ),
    Rule(
        "spam",
        "550 5.7.1 Our system has detected that this message is likely unsolicited mail.",
        r"spam|unsolicited|junk|bulk mail|5\.7\.35[0-9]|content (rejected|denied|was refused|filter)|5\.7\.509",
        "The content was taken for spam: look at subject, links and attachments, and at who receives it.",
    ),
    Rule(
        "malformed",
        "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal; message contains bare linefeeds",
        r"[45]\.6\.\d+ |bare l|line (is )?too long|rfc ?2?[58]?[28]22|non-?compliant|malformed|missing .*header",
        "Upstream finds the message's form wrong: check the headers and line lengths of the application that made it.",
    ),
    Rule(
        "loop",
        "554 5.4.6 Error: too many hops",
        r"[45]\.4\.(6|14) |too many hops|mail loop|routing loop|looping",
        "The mail goes round in a circle: look for a forwarding that points back.",
    ),
    # -- Sender ----------------------------------------------------------------------------------------------
    Rule(
        "sender_refused",
        "553 5.7.1 <sales@example.com>: Sender address rejected: not owned by user ann@example.com",
        r"sender (address|verify|domain)?.*(reject|denied|failed|not (owned|allowed|verified))|send ?as|[45]\.1\.[78] "
        r"|not (allowed|permitted|authorized) to send|5\.7\.60 |is not verified|from address|mail ?from.* must ",
        "Upstream does not let this login send as this sender: use its own address, or have the alias allowed.",
    ),
    Rule(
        "relay_denied",
        "554 5.7.1 <ann@example.org>: Relay access denied",
        r"relay(ing)?( access)?( is)? (denied|not permitted|prohibited)|unable to relay|not a relay"
        r"|allowed rcpthosts|5\.7\.54",
        "Upstream delivers only its own mail without a login: set the account's user and password.",
    ),
    # -- Recipient -------------------------------------------------------------------------------------------
    Rule(
        "mailbox_full",
        "552 5.2.2 The email account that you tried to reach is over quota.",
        r"[45]\.2\.2 |over ?quota|mailbox (is )?(full|over)|quota exceeded|out of storage|storage (limit|quota|alloc)"
        r"|box size limit",
        "The recipient's mailbox is full: reach them another way.",
    ),
    Rule(
        "mailbox_disabled",
        "550 5.2.1 The email account that you tried to reach is disabled.",
        r"5\.2\.1 |^5.*(account|mailbox|user).*(disabled|inactive|suspended|deactivated|discontinued)",
        "The recipient's mailbox is switched off: take the address out of the list.",
    ),
    Rule(
        "unknown_domain",
        "550 5.1.2 <ann@exmaple.com>: Recipient address rejected: Domain not found",
        r"[45]\.1\.2 |[45]\.4\.4 |5\.4\.310|domain (name )?(not found|does not exist)"
        r"|host (unknown|or domain name)|no mx|unrouteable|null mx|5\.1\.10 .*null",
        "The recipient's domain does not exist or takes no mail: look for a typing mistake after the @.",
    ),
    Rule(
        "unknown_user",
        "550 5.1.1 The email account that you tried to reach does not exist.",
        r"[45]\.1\.1 |5\.1\.(0|6|10) |5\.4\.1 |5\.5\.0 |(user|mailbox|recipient|account|address|person).*(unknown"
        r"|not? (found|exist)|doesn'?t (exist|have)|does not|unavailable|invalid|undeliverable)|no such|no mailbox"
        r"|(unknown|invalid) (user|recipient|mailbox|address)|^5\d\d (?!5\.7\.).*recipient (address )?rejected"
        rf"|not our (user|customer)|in my validrcptto|{phrases.NO_SUCH_USER}",
        "There is no such mailbox: take the address out of the list or correct it.",
    ),
    Rule(
        "bad_address",
        "501 5.1.3 Bad recipient address syntax",
        r"[45]\.1\.3 |address syntax|syntax error in.*address|not a valid rfc|malformed address",
        "Upstream cannot read this address: correct it.",
    ),
    # -- The host, again -------------------------------------------------------------------------------------
    Rule(
        "upstream_full",
        "452 4.3.1 Insufficient system storage",
        r"^4.*( 4\.3\.1 |insufficient (system|disk)|disk (is )?full)",
        "Upstream has no room left: its operator must act; mail is tried again.",
    ),
    Rule(
        "upstream_trouble",
        "451 4.3.0 Temporary lookup failure",
        r"^421|^4.*(4\.3\.\d|temporar|local (error|problem)|service (not |un)available|internal.* error|timed? ?out)",
        "Upstream has a trouble of its own that usually passes: mail is tried again.",
    ),
    Rule(
        "policy",
        "550 5.7.1 Message rejected due to local policy",
        r"^\d+ [45]\.7\.|policy|access denied|not permitted|prohibited|rejected|blocked",
        "The receiver's policy refuses this mail: its reply names the reason; ask its postmaster.",
    ),
)
