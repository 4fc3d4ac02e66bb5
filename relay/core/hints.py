"""What to do about a step that failed: rules as data, by the server's name and by what it said, each with a sample.

The first that fits counts, so the narrow ones stand first. For SMTP they come before those of core/rules.py, which
know the replies of all servers; here stands what only some providers mean, and all that concerns mailboxes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

LOGIN = frozenset({"auth", "login"})
TLS = frozenset({"tls"})
HELLO = frozenset({"greeting", "login", "folders"})

GOOGLE = r"(^|\.)(gmail|googlemail|google)\.com$"
MICROSOFT = r"(^|\.)(outlook|office365|hotmail|live|office)\.(com|de|fr|cn)$"
YAHOO = r"(^|\.)(yahoo|ymail|rocketmail|aol|verizon|att)\.(com|net|de|fr|it|es|ca|co\.(uk|in|id|nz|th|za))$"


@dataclass(frozen=True, slots=True)
class Hint:
    """One piece of advice. `host` and `said` are searched, ignoring case, in the server's name and in its words."""

    name: str
    steps: frozenset[str]
    sample: tuple[str, str]  # a server and what it says, which this rule must match
    advice: str
    said: str = ""
    host: str = ""
    _host: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _said: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_host", re.compile(self.host, re.IGNORECASE))
        object.__setattr__(self, "_said", re.compile(self.said, re.IGNORECASE))

    def fits(self, step: str, host: str, said: str) -> bool:
        return step in self.steps and bool(self._host.search(host) and self._said.search(said))


def advise(step: str, host: str, said: str) -> str:
    """What to do about this; "" where no rule knows."""
    return next((hint.advice for hint in HINTS if hint.fits(step, host, said)), "")


HINTS: tuple[Hint, ...] = (
    # -- Login: what is said outright -------------------------------------------------------------------------
    Hint(
        "token",
        LOGIN,
        ("imap.gmail.com", 'XOAUTH2 refused: {"status":"400","schemes":"Bearer"} [AUTHENTICATIONFAILED] Invalid'),
        "The access token is expired, revoked or lacks the mail scope: connect the account with OAuth2 again.",
        said=r"(xoauth2|oauthbearer) refused|access ?token (is )?(expired|invalid)",
    ),
    Hint(
        "token_not_taken",
        LOGIN,
        ("mail.example.com", "the server takes no access token: it does not offer XOAUTH2 or OAUTHBEARER"),
        "This server knows no OAuth2: give it the mailbox's password instead of an access token.",
        said=r"does not offer xoauth2",
    ),
    Hint(
        "browser",
        LOGIN,
        ("imap.gmail.com", "[ALERT] Please log in via your web browser: https://support.google.com/mail/78754"),
        "The provider wants this login confirmed: sign in with a web browser, allow the access, then try again.",
        said=r"web ?browser|log ?in via your browser|WEBALERT",
    ),
    Hint(
        "russia",
        LOGIN,
        ("imap.yandex.ru", "[AUTHENTICATIONFAILED] LOGIN invalid credentials or IMAP is disabled"),
        "Allow mail programs in the web mail's settings, make an app password for mail there, and use it.",
        said=r"or imap is disabled|invalid credentials|authentication (failed|credentials invalid)|^5",
        host=r"(^|\.)(yandex\.\w+(\.\w\w)?|mail\.ru|bk\.ru|list\.ru|inbox\.ru|rambler\.ru)$",
    ),
    Hint(
        "imap_off",
        LOGIN,
        ("imap.gmail.com", "[ALERT] Your account is not enabled for IMAP use. Please visit your Gmail settings page"),
        "IMAP is switched off for this mailbox: switch it on in the provider's web mail, under its settings.",
        said=r"not enabled for imap|imap (access )?(is )?(disabled|not (enabled|allowed|activated))|enable imap"
        r"|imap (service|access)? ?(has been )?(turned off|deactivated)|yet to enable imap",
    ),
    Hint(
        "microsoft_smtp_off",
        LOGIN,
        ("smtp.office365.com", "535 5.7.139 SmtpClientAuthentication is disabled for the Tenant."),
        "Microsoft 365 has SMTP AUTH switched off: an administrator must enable it for this mailbox or for the tenant.",
        said=r"smtp ?client ?authentication is disabled|smtp_auth_disabled",
    ),
    Hint(
        "too_many",
        HELLO | LOGIN,
        ("imap.example.com", "[LIMIT] Too many simultaneous connections."),
        "The mailbox has too many connections open: end some in other programs, or wait; it is tried again by itself.",
        said=r"too many (simultaneous |concurrent |open |user )*(connections|sessions)|\[(LIMIT|INUSE)\]"
        r"|maximum number of",
    ),
    Hint(
        "locked",
        LOGIN,
        ("imap.example.com", "[ALERT] Account locked: too many failed logins"),
        "The provider has locked this login: sign in with a browser, clear the lock, and wait before you try again.",
        said=r"too many (failed |bad |invalid )?(login|auth)"
        r"|account (is |has been )?(temporarily )?(locked|blocked|suspended)",
    ),
    Hint(
        "expired",
        LOGIN,
        ("imap.example.com", "[EXPIRED] That password isn't valid any more"),
        "The password has expired: set a new one with the provider, then here.",
        said=r"\[EXPIRED\]|password (has |is )?expired",
    ),
    Hint(
        "privacy",
        LOGIN,
        ("imap.example.com", "[PRIVACYREQUIRED] Plaintext authentication disallowed on non-secure connections."),
        "The server takes logins under TLS only: set secure to true (port 993 or 465), or leave STARTTLS switched on.",
        said=r"\[PRIVACYREQUIRED\]|plaintext auth\w* disallowed|takes no login without tls|must issue a starttls",
    ),
    Hint(
        "unavailable",
        LOGIN,
        ("imap.example.com", "[UNAVAILABLE] Temporary authentication failure."),
        "The server cannot check passwords just now: it is tried again by itself.",
        said=r"\[(UNAVAILABLE|SERVERBUG)\]|temporary (auth|system|server)|try again later|server (is )?busy",
    ),
    Hint(
        "admin",
        LOGIN,
        ("imap.example.com", "[CONTACTADMIN] Your account needs attention."),
        "The provider wants to hear from you: ask its support what is wrong with this mailbox.",
        said=r"\[(CONTACTADMIN|AUTHORIZATIONFAILED)\]",
    ),
    Hint(
        "no_imap",
        HELLO,
        ("mail.example.com", "mail.example.com does not speak IMAP that we understand"),
        "Something else than a mailbox answers on this port: check host and port (IMAP is mostly on 993).",
        said=r"does not speak imap",
    ),
    Hint(
        "silent",
        HELLO | LOGIN | TLS | frozenset({"ehlo"}),
        ("mail.example.com", "mail.example.com did not answer in time"),
        "Something took the connection and fell silent: check port and secure, and whether a firewall looks into it.",
        said=r"in time|too long",
    ),
    Hint(
        "ended",
        HELLO | LOGIN,
        ("mail.example.com", "mail.example.com ended the session: Maintenance"),
        "The server hung up: its own words, if it said any, tell why; it is tried again by itself.",
        said=r"ended the session|closed the connection",
    ),
    # -- Login: what a provider means by a refusal ------------------------------------------------------------
    Hint(
        "google",
        LOGIN,
        ("smtp.gmail.com", "535 5.7.8 Username and Password not accepted."),
        "Google takes no account passwords here: make an app password at https://myaccount.google.com/apppasswords "
        "(2-Step Verification must be on) and use it, or connect the account with OAuth2.",
        host=GOOGLE,
    ),
    Hint(
        "microsoft",
        LOGIN,
        ("outlook.office365.com", "LOGIN failed."),
        "Microsoft takes no passwords for mail programs any more (basic authentication is off): connect the account "
        "with OAuth2. Where an administrator still allows SMTP AUTH, check user and password.",
        host=MICROSOFT,
    ),
    Hint(
        "yahoo",
        LOGIN,
        ("imap.mail.yahoo.com", "[AUTHENTICATIONFAILED] LOGIN Invalid credentials"),
        "Yahoo and AOL take no account passwords here: make an app password under Account security and use it.",
        host=YAHOO,
    ),
    Hint(
        "apple",
        LOGIN,
        ("imap.mail.me.com", "[AUTHENTICATIONFAILED] Authentication failed"),
        "Apple takes app-specific passwords only: make one at https://account.apple.com, under Sign-In and Security.",
        host=r"(^|\.)(me|icloud|mac)\.com$",
    ),
    Hint(
        "fastmail",
        LOGIN,
        ("imap.fastmail.com", "[AUTHENTICATIONFAILED] Incorrect username, password or access token."),
        "Fastmail takes app passwords only: make one under Settings, Privacy & Security, and use it.",
        host=r"(^|\.)(fastmail|messagingengine)\.(com|fm)$",
    ),
    Hint(
        "zoho",
        LOGIN,
        ("imap.zoho.eu", "[AUTHENTICATIONFAILED] Invalid credentials(Failure)"),
        "Zoho: switch IMAP access on in the mail settings, use the host of your data centre (.com, .eu, .in ...), and "
        "an app password where two-factor sign-in is on.",
        host=r"(^|\.)zoho(cloud)?\.\w+(\.\w\w)?$",
    ),
    Hint(
        "germany",
        LOGIN,
        ("imap.gmx.net", "[AUTHENTICATIONFAILED] authentication failed"),
        "GMX and WEB.DE: allow access over POP3 and IMAP in the web mail's settings, and use an app password where "
        "two-factor sign-in is on.",
        host=r"(^|\.)(gmx\.\w+|web\.de|mail\.com)$",
    ),
    Hint(
        "china",
        LOGIN,
        ("imap.qq.com", "Login fail. Account is abnormal, service is not open, password is incorrect"),
        "Switch IMAP/SMTP on in the web mail's settings, and use the authorization code that it shows as the password.",
        host=r"(^|\.)(qq|foxmail|163|126|yeah|sina|aliyun)\.(com|net|cn)$",
    ),
    Hint(
        "login",
        frozenset({"login"}),
        ("imap.example.com", "[AUTHENTICATIONFAILED] Authentication failed."),
        "The server refuses this user and password: correct them. Most want the full address as the user, and with "
        "two-step sign-in an app password.",
    ),
    # -- TLS --------------------------------------------------------------------------------------------------
    Hint(
        "certificate_host",
        TLS,
        ("mail.example.com", "certificate of mail.example.com not trusted: it is for another host"),
        "The certificate is made for another name: use that one as the host; the provider's help pages name it.",
        said=r"certificate .* for another (host|address)",
    ),
    Hint(
        "certificate_time",
        TLS,
        ("mail.example.com", "certificate of mail.example.com not trusted: it is expired"),
        "The server's operator must renew the certificate; check also that the clock of this machine is right.",
        said=r"certificate .* (expired|not valid yet)",
    ),
    Hint(
        "certificate_authority",
        TLS,
        ("mail.example.com", "certificate of mail.example.com not trusted: it is self-signed"),
        "The server's operator should get a certificate that everybody trusts. If the server is yours, set "
        "tls.rejectUnauthorized to false: then nobody checks whom the password is given to.",
        said=r"certificate",
    ),
    Hint(
        "no_starttls",
        TLS,
        ("mail.example.com", "mail.example.com does not offer STARTTLS"),
        "Use the port with TLS from the start (993 for IMAP, 465 for SMTP) and set secure to true.",
        said=r"does not offer starttls|before tls could begin",
    ),
    Hint(
        "no_tls",
        TLS,
        ("mail.example.com", "no TLS with mail.example.com: WRONG_VERSION_NUMBER"),
        "There is no TLS from the first byte on this port: set secure to false (STARTTLS), or correct the port.",
        said=r"wrong_version|unknown_protocol|http_request|packet_length|record_layer",
    ),
    Hint(
        "old_tls",
        TLS,
        ("mail.example.com", "no TLS with mail.example.com: TLSV1_ALERT_PROTOCOL_VERSION"),
        "The server speaks only old versions of TLS, or weak ciphers: its operator must bring it up to date.",
        said=r"protocol_version|unsupported_protocol|handshake_failure|dh_key_too_small|no_(shared_)?cipher|legacy",
    ),
    # -- Mailboxes: the rest ----------------------------------------------------------------------------------
    Hint(
        "resolve",
        frozenset({"resolve"}),
        ("imap.exmaple.com", "imap.exmaple.com: no such host"),
        "The host has no address: check its name for typing mistakes, or the DNS of this machine.",
        said=r"no such host|look-up",
    ),
    Hint(
        "forbidden",
        frozenset({"resolve"}),
        ("mail.internal", "mail.internal may not be used as a host here"),
        "Hosts inside private networks are refused, unless the operator allows them with POSTFERRY_ALLOW_NETWORKS.",
        said=r"may not be used",
    ),
    Hint(
        "connect",
        frozenset({"connect"}),
        ("mail.example.com", "mail.example.com port 993: connection refused"),
        "Nobody answers there: check host and port, and whether a firewall here or there blocks the way.",
    ),
    Hint(
        "folders",
        frozenset({"folders"}),
        ("mail.example.com", "NO permission denied"),
        "The login is good, but the server does not list the mailbox's folders: ask its operator.",
    ),
)
