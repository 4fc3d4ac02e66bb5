"""Every rule knows its sample; what is not the address's fault never suppresses; complaints are told as they came."""

from __future__ import annotations

import re
import time
from itertools import pairwise
from pathlib import Path

import pytest

from relay.core import advice, complaint
from relay.core.advice import RULES, SUPPRESSING, Advice, Rule
from relay.core.bounce import MOST, Finding, held, judge, reported
from relay.core.letter import Fields
from relay.core.prose import Told
from relay.core.report import Kind, Report, read


def told(diagnostic: str, status: str = "", action: str = "failed", source: str = "smtp") -> Finding:
    return judge(Told("ann@example.com", action, status, diagnostic, source=source))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.category}: {rule.sample or rule.status}")
def test_a_rule_is_the_one_that_knows_its_sample(rule: Rule) -> None:
    found = told(rule.sample, rule.status)
    first = next(one for one in RULES if one.regex.search(f"{rule.status} {rule.sample}"))
    assert (found.category, found.advice) == (rule.category, rule.advice)
    assert first.category == rule.category
    assert found.suppresses == rule.suppresses


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.category}: {rule.sample or rule.status}")
def test_no_rule_is_made_of_what_a_server_calls_itself_or_its_pages(rule: Rule) -> None:
    assert told("<no-such-user-spam@mailbox-full.example> https://help.example/unknown-user").category == "refused"
    assert rule.regex.search("5.0.0 ") is None


def test_one_category_has_one_advice() -> None:
    for category in {rule.category for rule in RULES}:
        assert len({(rule.advice, rule.suppresses) for rule in RULES if rule.category == category}) == 1, category


def test_the_categories_that_suppress() -> None:
    """Of the address itself, and for good. Whoever adds one here takes recipients away from people."""
    assert {"unknown_user", "unknown_domain", "mailbox_disabled"} == SUPPRESSING
    assert all((rule.advice is Advice.REMOVE) == rule.suppresses for rule in RULES)


WORLD = """
suppressed unknown_user       5.1.1   550-5.1.1 The email account that you tried to reach does not exist. Please try
suppressed unknown_user       5.4.1   550 5.4.1 Recipient address rejected: Access denied. AS(201806281)
suppressed unknown_user       5.1.10  550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address
suppressed unknown_user       5.1.351 550 5.1.351 Remote server returned unknown recipient or mailbox unavailable
suppressed unknown_user       5.2.1   550 5.2.1 <ann@example.com>... User Unknown
suppressed unknown_user       5.7.1   550 5.7.1 <ann@example.com>: Recipient address rejected: User unknown
suppressed unknown_user       5.5.0   550 5.5.0 Adresse destinataire invalide. Invalid recipient. LPN007_416
suppressed unknown_user       5.0.0   554 delivery error: This user doesn't have a yahoo.com account (a@yahoo.com)
suppressed unknown_user       5.0.0   550 Empfaenger unbekannt
suppressed unknown_user       -       553 sorry, no mailbox here by that name. (#5.7.1)
suppressed unknown_user       5.0.0   554 delivery error: dd Not a valid recipient - atlas1.mail.example
suppressed unknown_user       5.1.1   550 5.1.1 Mail From:<x@y.example> To:<ann@example.com> unknown user
suppressed unknown_user       5.1.6   550 5.1.6 recipient no longer on server: ann@example.go.jp
suppressed unknown_user       -       550 Recipient Rejected: No account by that name here
suppressed unknown_user       -       User Ann Example (ann@example.com) not listed in Domino Directory
suppressed unknown_user       5.0.0   550 The address may be that of a non-existent account
suppressed unknown_domain     5.0.0   no valid MX hosts found
suppressed unknown_domain     5.4.4   550 5.4.4 Invalid domain
suppressed unknown_domain     5.4.4   Name service error for name=x.example type=MX: Malformed or unexpected
suppressed unknown_domain     -       550 Host unknown (Authoritative answer from name server)
suppressed mailbox_disabled   5.2.1   550 5.2.1 The email account that you tried to reach is disabled.
suppressed mailbox_disabled   5.0.0   551 <ann@example.com> is a deactivated mailbox
suppressed mailbox_disabled   -       Sorry. This account has been disabled or discontinued.
kept       mailbox_full       5.1.1   552 5.2.2 Over quota
kept       mailbox_full       5.2.2   552-5.2.2 The recipient's inbox is out of storage space and inactive.
kept       mailbox_full       4.2.2   452 4.2.2 The email account that you tried to reach is over quota.
kept       mailbox_full       5.7.0   The mailbox has exceeded its disk space limit
kept       mailbox_full       -       Mailbox quota usage exceeded
kept       blocklisted        5.1.1   550 5.7.1 IP address blacklisted by recipient
kept       blocklisted        5.1.0   550-5.1.0 MailFrom domain is listed in Spamhaus. To request removal
kept       blocklisted        5.1.3   553 http://www.spamhaus.org/query/bl?ip=192.0.2.222
kept       spam               5.0.0   554 email rejected due to security policies - MCSpamSignature.sa.2.2
kept       domain_authentication 5.7.1 550 5.7.1 This message was not accepted due to DMARC policy (RFC 7489)
kept       throttled          5.1.1   550 5.1.1 <ann@example.com> - 192.0.2.7 has sent to too many recipients this hour.
kept       throttled          5.0.0   550 Connection frequency limited
kept       throttled          4.2.1   450-4.2.1 The user you are trying to contact is receiving email too quickly.
kept       greylisted         5.7.1   554 5.7.1 greylisted, please try again; unknown user is not why
kept       too_large          5.3.4   552 5.3.4 Message too large
kept       loop               5.4.6   554 5.4.6 Hop count exceeded - possible mail loop
kept       expired            5.4.312 550 5.4.312 Message expired, DNS query failed
kept       expired            5.0.0   501 Invalid domain name. This message has been in the queue too long.
kept       expired            -       all hosts have been failing for a long time
kept       expired            -       retry time not reached for any host after a long failure period
kept       temporary          5.7.1   550 5.7.1 Recipient address rejected: User temporary locked. Try again later!
kept       temporary          -       Name service error for domain example.com: Host not found, try again
kept       mailbox_suspended  5.2.1   550 5.2.1 Your message cannot be delivered: the account is suspended
kept       relay_denied       5.0.0   550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain
kept       relay_denied       5.0.0   553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)
kept       restricted         5.7.1   550 5.7.1 RESOLVER.RST.AuthRequired; authentication required
kept       routing            5.4.4   (#5.4.4)
kept       routing            -       Unrouteable address
kept       refused            5.0.0   550 the account or domain is missing the proper dns entries
kept       unreachable        5.0.0   554 could not connect and send the mail to 192.0.2.84
kept       unreachable        4.4.1   connect to example.com[192.0.2.1]: Connection timed out
kept       sender_refused     5.1.1   550-Verification failed for <app@here.example>
kept       sender_refused     4.0.0   451 Message temporarily deferred due to unresolvable RFC.5321 from domain
kept       sender_refused     5.1.0   550 5.1.0 <x@amazonses.com> sender rejected.
kept       sender_refused     5.1.8   553 5.1.8 <x@example.com>... Domain of sender address x@example.com does not exist
kept       sender_refused     5.1.1   511 sorry, can't find a valid MX for sender domain (#5.1.1 - chkuser)
kept       sender_refused     5.0.0   550 mailbox unavailable invalid DNS MX or A/AAAA resource record
kept       sender_refused     5.7.1   550 5.7.1 unknown user: sender x@example.com is unknown here
kept       sender_refused     5.7.1   550 5.7.1 From address domain does not exist
kept       sender_refused     5.0.0   550 MAIL FROM domain not found
kept       sender_refused     5.0.0   550 Return path address does not exist
kept       sender_refused     5.7.1   550 5.7.1 Your account has been disabled for sending mail
kept       reverse_dns        5.7.1   550 5.7.1 <web1>: Helo command rejected: Host not found
kept       reverse_dns        5.7.1   550 5.7.1 Client host [192.0.2.9] unknown host
kept       reverse_dns        5.7.1   550 5.7.1 Client host rejected: cannot find your reverse hostname, [192.0.2.9]
kept       spam               5.0.0   550 Mail content denied
kept       spam               5.0.0   554 DT:SPM mx12,X--.1S2 1700000000
kept       malformed          5.7.1   550 5.7.1 Message contains invalid address in header: To: does not exist
kept       restricted         5.7.8   535 5.7.8 Authentication failed: user not found
kept       temporary          5.1.1   550 5.1.1 unverified address: Address verification in progress
kept       policy             5.7.1   550 5.7.1 Access denied
kept       policy             5.0.0   550 <ann@example.com>: Recipient address rejected.
kept       refused            5.5.0   550 Requested action not taken: mailbox unavailable
kept       refused            5.0.0   554 Transaction failed
kept       refused            -       -
"""


@pytest.mark.parametrize("line", WORLD.strip().splitlines())
def test_reports_of_the_world_are_read_as_a_person_would(line: str) -> None:
    fate, category, status, said = line.split(maxsplit=3)
    found = told("" if said == "-" else said, "" if status == "-" else status)
    assert (found.category, found.suppresses) == (category, fate == "suppressed")


@pytest.mark.parametrize("action", ["delayed", "delivered", "relayed", "expanded", ""])
def test_only_a_failure_suppresses(action: str) -> None:
    found = told("550 5.1.1 User unknown", "5.1.1", action)
    assert (found.category, found.failed, found.suppresses) == ("unknown_user", False, False)


@pytest.mark.parametrize(
    ("status", "said"),
    [("4.1.1", ""), ("4.4.4", "Host or domain name not found"), ("5.1.1", "450 4.1.1 User unknown in local table")],
)
def test_what_may_pass_does_not_suppress(status: str, said: str) -> None:
    assert not told(said, status).suppresses


@pytest.mark.parametrize(
    ("source", "expected"),
    [("smtp", "smtp"), ("SMTP", "smtp"), ("X-Unix", "x-unix"), ("", "text"), ("host said 550", "text")],
)
def test_a_diagnostic_has_a_type_or_is_text(source: str, expected: str) -> None:
    assert told("550 no", source=source).source == expected


def test_the_type_of_a_diagnostic_is_read_from_the_report() -> None:
    report = read(
        b'From: MAILER-DAEMON@x.example\r\nContent-Type: multipart/report; report-type=delivery-status; boundary="b"'
        b"\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.x.example\r\n\r\n"
        b"Final-Recipient: rfc822; ann@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n"
        b"Diagnostic-Code: X-Postfix; unknown user\r\n\r\n--b--\r\n"
    )
    (found,) = reported(report, source="imap", key="1").recipients
    assert (found.source, found.diagnostic, found.mta) == ("x-postfix", "unknown user", "mx.x.example")


def test_what_postgresql_cannot_hold_is_left_out_at_any_depth() -> None:
    assert held({"a\0": ["\ud800x", {"b": "\0"}], "n": 7}) == {"a ": [" x", {"b": " "}], "n": 7}
    found = judge(Told("a\0@x.example", "failed", "5.1.1", "\ud800 no\r\n such user\0", "mx\0"))
    assert (found.recipient, found.diagnostic, found.mta) == ("a @x.example", "no such user", "mx")


def test_nothing_takes_long_to_judge_nor_is_kept_whole() -> None:
    begun = time.process_time()
    for piece in ("user ", "unknown ", "<", "a@", "550-5.1.1 ", "http://", "address not ", "мейл ", "5.1.1", "\n"):
        found = told(piece * (200_000 // len(piece)))
        assert len(found.diagnostic) <= 2000
    assert time.process_time() - begun < 20  # it would be minutes if a rule looked back


@pytest.mark.parametrize(("number", "category"), [(1, "unknown_user"), (100, "unknown_user"), (1000, "refused")])
def test_of_many_recipients_the_first_words_count(number: int, category: str) -> None:
    said = "550 " + "na " * 100 + "no such user " + "na " * 600
    many = tuple(Told(f"a{at}@x.example", "failed", "", said) for at in range(number))
    found = reported(Report(Kind.BOUNCE, "", many), source="imap", key="1").recipients
    assert {(one.category, len(one.diagnostic)) for one in found} == {(category, 2000)}


def test_a_report_with_more_recipients_than_any_of_ours_has_is_cut() -> None:
    many = tuple(Told(f"r{number}@x.example", "failed") for number in range(10_000))
    found = reported(Report(Kind.BOUNCE, "<m@x>", many), source="imap", key="k")
    assert len(found.recipients) == MOST


ARF = Fields(
    (
        ("feedback-type", "abuse"),
        ("user-agent", "SomeGenerator/1.0"),
        ("version", "1"),
        ("original-mail-from", "<sales@example.com>"),
        ("original-rcpt-to", "<ann@example.net>"),
        ("original-rcpt-to", "bob@example.net"),
        ("arrival-date", "Tue, 8 Mar 2005 14:00:00 EDT"),
        ("source-ip", "192.0.2.1"),
        ("reported-domain", "example.com"),
    )
)


def test_the_fields_of_a_feedback_report_are_told() -> None:
    assert complaint.arf(ARF, Fields()) == {
        "feedbackType": "abuse",
        "userAgent": "SomeGenerator/1.0",
        "originalMailFrom": "<sales@example.com>",
        "originalRcptTo": ["ann@example.net", "bob@example.net"],
        "arrivalDate": "2005-03-08T18:00:00.000Z",
        "sourceIp": "192.0.2.1",
        "reportedDomain": ["example.com"],
    }


def test_hotmails_complaints_say_who_it_was_in_the_original() -> None:
    original = Fields((("x-hmxmroriginalrecipient", "<ann@hotmail.example>"),))
    assert complaint.arf(Fields(), original) == {
        "feedbackType": "abuse",
        "source": "Hotmail",
        "originalRcptTo": ["ann@hotmail.example"],
    }


def test_the_original_is_told_as_far_as_it_was_sent_along() -> None:
    original = Fields(
        (
            ("message-id", "<m@x.example>"),
            ("from", "Sales <sales@x.example>"),
            ("to", "Ann <ann@y.example>, bob@y.example"),
            ("subject", "=?utf-8?q?Gr=C3=BC=C3=9Fe?="),
            ("date", "nonsense"),
        )
    )
    assert complaint.headers(original) == {
        "messageId": "<m@x.example>",
        "from": "sales@x.example",
        "to": ["ann@y.example", "bob@y.example"],
        "subject": "Grüße",
    }
    assert complaint.headers(Fields()) == {}


@pytest.mark.parametrize("date", ["", "Mon, 99 Xxx 99999", "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_a_date_that_nobody_can_read_is_left_out(date: str) -> None:
    assert "arrivalDate" not in complaint.arf(Fields((("arrival-date", date),)), Fields())


def test_rules_about_words_stand_before_those_about_statuses() -> None:
    statuses = [rule.pattern.startswith("^") for rule in advice.RULES]
    assert all(later or not earlier for earlier, later in pairwise(statuses))


def test_the_page_tells_of_every_category() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "bounces.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (yes|no) \|", page, re.MULTILINE)
    known = {(rule.category, rule.advice.value, "yes" if rule.suppresses else "no") for rule in RULES}
    category, what = advice.OTHER
    assert len(told) == len(set(told))
    assert set(told) == known | {(category, what.value, "no")}
