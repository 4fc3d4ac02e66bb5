"""Reports in many dialects: who failed, for good or for now; and mail that only looks like one."""

from __future__ import annotations

import json
import re
from textwrap import dedent
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import phrases, prose, report
from relay.core.report import Kind

DAEMON = "From: Mail Delivery System <MAILER-DAEMON@mx.example.com>\nReturn-Path: <>\nTo: app@here.example\n"
ORIGINAL = (
    "Return-Path: <app@here.example>\nReceived: by mx.example.com; Fri, 20 Nov 2026 10:00:00 +0000\n"
    "Message-ID: <m1@here.example>\nFrom: App <app@here.example>\nTo: Reader <reader@there.example>\nSubject: hello\n"
)
DSN = """\
{daemon}Subject: Undelivered Mail Returned to Sender
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

<reader@there.example>: host mx.there.example said: 550 5.1.1 User unknown

--b
Content-Type: {kind}

Reporting-MTA: dns; mx.example.com

{fields}

--b
Content-Type: message/rfc822

{original}
Hello
--b--
"""


def mail(subject: str, text: str, head: str = DAEMON) -> bytes:
    return f"{head}Subject: {subject}\n\n{dedent(text)}".encode()


def dsn(fields: str, kind: str = "message/delivery-status") -> bytes:
    return DSN.format(daemon=DAEMON, kind=kind, fields=fields, original=ORIGINAL).encode()


def told(raw: bytes) -> list[tuple[str, str]]:
    found = report.read(raw)
    assert found.kind is Kind.BOUNCE
    return [(one.recipient, one.action) for one in found.recipients]


FAILED = "Final-Recipient: rfc822; reader@there.example\nAction: failed\nStatus: 5.1.1\n"


def test_a_status_report_says_who_why_and_about_what() -> None:
    found = report.read(
        dsn(FAILED + "Remote-MTA: dns; mx.there.example\nDiagnostic-Code: smtp; 550 5.1.1 User\n unknown")
    )
    (one,) = found.recipients
    assert (found.kind, found.message_id) == (Kind.BOUNCE, "<m1@here.example>")
    assert (one.recipient, one.action, one.status) == ("reader@there.example", "failed", "5.1.1")
    assert (one.diagnostic, one.mta) == ("550 5.1.1 User unknown", "mx.there.example")


@pytest.mark.parametrize(
    "fields",
    [
        FAILED,
        "Final-Recipient: rfc822;reader@there.example\nAction: failed (permanent)\nStatus: 5.1.1 (bad mailbox)",
        "final-recipient : RFC822; <reader@there.example>\naction : failed\nstatus : 5.1.1",
        "Final-Recipient: reader@there.example\nAction: failed\nStatus: 5.1.1",
        "Original-Recipient: rfc822;reader@there.example\nFinal-Recipient: rfc822;r7@inner.example\nAction: failed",
        "> Final-Recipient: rfc822; reader@there.example\n> Action: failed\n> Status: 5.1.1",
    ],
)
def test_status_fields_are_read_however_they_are_written(fields: str) -> None:
    assert told(dsn(fields)) == [("reader@there.example", "failed")]


@pytest.mark.parametrize("kind", ["message/delivery-status", "text/plain", "message/global-delivery-status"])
def test_status_fields_are_found_under_any_type(kind: str) -> None:
    assert told(dsn(FAILED, kind)) == [("reader@there.example", "failed")]


def test_every_recipient_has_its_own_fate() -> None:
    fields = FAILED + "\nFinal-Recipient: rfc822; slow@there.example\nAction: delayed\nStatus: 4.4.1\n"
    assert told(dsn(fields)) == [("reader@there.example", "failed"), ("slow@there.example", "delayed")]


TEXTS = {
    "exim": (
        "Mail delivery failed: returning message to sender",
        """\
        This message was created automatically by mail delivery software.

        A message that you sent could not be delivered to one or more of its
        recipients. This is a permanent error. The following address(es) failed:

          reader@there.example
            host mx.there.example [192.0.2.1]: 550 no mailbox

        ------ This is a copy of the message, including all the headers. ------

        To: other@there.example
        """,
    ),
    "qmail": (
        "failure notice",
        """\
        Hi. This is the qmail-send program at mx.example.com.
        I'm afraid I wasn't able to deliver your message to the following addresses.

        <reader@there.example>:
        Sorry, no mailbox here by that name. (#5.1.1)

        --- Below this line is a copy of the message.

        Return-Path: <app@here.example>
        """,
    ),
    "transcript": (
        "Returned mail: see transcript for details",
        """\
           ----- The following addresses had permanent fatal errors -----
        <reader@there.example>
           ----- Transcript of session follows -----
        ... while talking to mx.there.example.:
        >>> RCPT To:<reader@there.example>
        <<< 550 5.1.1 <reader@there.example>... User unknown
        """,
    ),
    "sentence": (
        "Delivery failure",
        "There was an error delivering your mail to <reader@there.example>.\n\n550 5.7.1 refused\n",
    ),
    "japanese": ("配信エラー", "次の宛先に配信できませんでした。\n\nreader@there.example\n"),
    "german": (
        "Unzustellbar: hello",
        "Ihre Nachricht wurde nicht zugestellt an\n\n   reader@there.example\n\n550 weg\n",
    ),
}


@pytest.mark.parametrize("dialect", TEXTS)
def test_what_people_are_told_is_read(dialect: str) -> None:
    assert told(mail(*TEXTS[dialect])) == [("reader@there.example", "failed")]


def test_html_alone_is_read() -> None:
    body = "<html><head><style>p {}</style></head><p>Delivery failed to:</p><p>reader@there.example</p>550 5.1.1 gone"
    raw = f"{DAEMON}Subject: Undeliverable: hello\nContent-Type: text/html\n\n{body}".encode()
    assert told(raw) == [("reader@there.example", "failed")]


def test_base64_in_a_japanese_charset_is_read() -> None:
    import base64

    text = "次の宛先に配信できませんでした。\nreader@there.example\n550 5.1.1 no\n".encode("iso-2022-jp")
    head = "Content-Type: text/plain; charset=iso-2022-jp\nContent-Transfer-Encoding: base64\n"
    raw = f"{DAEMON}Subject: Returned mail\n{head}\n{base64.encodebytes(text).decode()}".encode()
    assert told(raw) == [("reader@there.example", "failed")]


def test_the_header_names_recipients_that_the_text_does_not() -> None:
    head = DAEMON + "X-Failed-Recipients: reader@there.example, two@there.example\n"
    assert told(mail("Mail delivery failed", "Something went wrong.", head)) == [
        ("reader@there.example", "failed"),
        ("two@there.example", "failed"),
    ]


def test_who_wrote_and_who_helps_did_not_fail() -> None:
    text = """\
    Your message from app@here.example could not be delivered to:

    reader@there.example: 550 no such user

    For help write to support@example.com, or to postmaster@example.com.
    """
    assert told(mail("Delivery failure", text)) == [("reader@there.example", "failed")]


def test_the_only_recipient_of_the_original_is_meant_where_nobody_is_named() -> None:
    text = f"Your message could not be delivered. 550 no such user\n\n--- The original message follows.\n\n{ORIGINAL}"
    assert told(mail("Undeliverable mail", text)) == [("reader@there.example", "failed")]


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Warning: message 1abc delayed 24 hours", "has not yet been delivered to:\n\n  reader@there.example\n"),
        (
            "Delayed Mail (still being retried)",
            "It will be retried until it is 5 days old.\n<reader@there.example>: 450 busy",
        ),
        ("Delivery failure", "reader@there.example: Envelope expired\n"),
        ("failure notice", "<reader@there.example>:\nNo answer. (#4.4.1)\nit has been in the queue too long.\n"),
    ],
)
def test_what_time_did_is_no_verdict_on_the_address(subject: str, text: str) -> None:
    assert told(mail(subject, text)) == [("reader@there.example", "delayed")]


def test_a_full_mailbox_is_a_failure_however_long_it_was_tried() -> None:
    text = "<reader@there.example>:\nmailbox is full: retry timeout exceeded\n"
    assert told(mail("failure notice", text)) == [("reader@there.example", "failed")]


def test_amazon_tells_by_json() -> None:
    one = {"emailAddress": "reader@there.example", "action": "failed", "status": "5.1.1", "diagnosticCode": "550"}
    notice = {"notificationType": "Bounce", "bounce": {"bouncedRecipients": [one]}}
    head = "From: AWS <no-reply@sns.amazonaws.com>\nReturn-Path: <>\n"
    for body in (notice, {"Type": "Notification", "Message": json.dumps(notice)}):
        assert told(mail("AWS Notification Message", json.dumps(body), head)) == [("reader@there.example", "failed")]


ARF = """\
From: Complaints <fbl@provider.example>
Subject: complaint
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: text/plain

This is an email abuse report.
--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: Provider/1
Original-Rcpt-To: <reader@there.example>

--b
Content-Type: message/rfc822

{original}
--b--
"""


def test_a_complaint_says_who_and_about_what() -> None:
    found = report.read(ARF.format(original=ORIGINAL).encode())
    assert (found.kind, found.message_id) == (Kind.COMPLAINT, "<m1@here.example>")
    assert [one.recipient for one in found.recipients] == ["reader@there.example"]
    assert found.feedback.get("feedback-type") == "abuse"


def test_hotmail_complains_with_the_original_alone() -> None:
    raw = (
        "From: staff@hotmail.com\nSubject: complaint about message from 192.0.2.1\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n"
        f"X-HmXmrOriginalRecipient: reader@there.example\n{ORIGINAL}\nHi\n--b--\n"
    )
    found = report.read(raw.encode())
    assert (found.kind, [one.recipient for one in found.recipients]) == (Kind.COMPLAINT, ["reader@there.example"])


PERSON = "From: Reader <reader@there.example>\nTo: app@here.example\n"


def test_an_answer_of_a_machine_is_no_bounce() -> None:
    head = PERSON + "Auto-Submitted: auto-replied\n"
    assert report.read(mail("Out of office: hello", "I am away until Monday.", head)).kind is Kind.AUTO_REPLY


@pytest.mark.parametrize(
    "raw",
    [
        mail("Re: mail delivery failed", "Did you see this?\n> 550 5.1.1 <x@there.example> unknown", PERSON),
        mail("hello", f"My server said:\n\n{FAILED}", PERSON),
        mail("Your order has shipped", "Delivery to: Reader, 1 Street", "From: Shop <noreply@shop.example>\n"),
        mail("Cron", "backup was not finished: 5.2.1 installed", "From: root@host.example\n"),
        b"",
        b"\n\n\n",
        b"\xff\xfe\x00",
    ],
)
def test_other_mail_reports_nothing(raw: bytes) -> None:
    assert report.read(raw).kind is Kind.NONE


@given(
    st.lists(
        st.sampled_from(
            [
                *("From: MAILER-DAEMON@x.example\n", "Subject: Undeliverable\n", "Return-Path: <>\n", "\n", "\r", "\0"),
                *("Content-Type: multipart/report; boundary=b\n", "--b\n", "--b--\n", "Content-Type: message/rfc822\n"),
                *(
                    "Content-Type: text/html; charset=utf-7\n",
                    "Content-Transfer-Encoding: base64\n",
                    "+AAA-",
                    "=?utf-8?q?",
                ),
                *(
                    "Final-Recipient: rfc822;",
                    "Action: failed\n",
                    "Status: 5.1.1\n",
                    "<",
                    ">",
                    "a@b.example",
                    '"',
                    " ",
                    "é",
                ),
                *(
                    "550 ",
                    "{",
                    '{"notificationType":"Bounce","bounce":[]}',
                    "Feedback-Type: abuse\n",
                    "<style>",
                    "&#0;",
                ),
            ]
        ),
        max_size=60,
    )
)
def test_nothing_makes_the_reader_raise(pieces: list[str]) -> None:
    report.read("".join(pieces).encode())


@given(st.binary(max_size=2000))
def test_no_bytes_make_the_reader_raise(raw: bytes) -> None:
    report.read(raw)
    report.read(DAEMON.encode() + raw)


def test_amazon_with_half_a_character_reports_nothing() -> None:
    told = rb'{"notificationType":"Bounce","bounce":{"bouncedRecipients":[{"emailAddress":"v@x.example"%s}]}}'
    head = b"From: x@sns.amazonaws.com\r\n\r\n"
    assert report.read(head + told % b"").recipients
    assert not report.read(head + told % rb',"diagnosticCode":"\ud800"').recipients


def test_what_is_said_of_all_recipients_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report of 100 KB may name two thousand: searched for each of them, it took ten seconds."""
    searched: list[str] = []

    class Noted:
        def search(self, text: str) -> None:
            searched.append(text)

    for name in ("DELAYED", "AGAINST_ADDRESS", "EXPIRED", "UNREACHABLE"):
        monkeypatch.setattr(phrases, name, Noted())
    told = [prose.Told(f"r{number}@there.example", ("", "failed")[number % 2]) for number in range(100)]
    assert len(list(prose.judged(told, "Undeliverable", "It did not arrive"))) == 100
    assert len(searched) <= 5


def test_a_notice_of_many_addresses_is_gone_through_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 KB with 400 addresses took two seconds: what is before them, and between them, was read for each anew."""
    read = 0

    class Noted(str):
        def __getitem__(self, key: Any) -> str:
            nonlocal read
            piece = super().__getitem__(key)
            read += len(piece)
            return piece

    def noted(text: str) -> str:
        nonlocal read
        read += len(text)
        return ""

    monkeypatch.setattr(prose, "status_in", noted)
    addresses = "".join(f"<r{number}@there.example>\n{'-' * 100}\n" for number in range(400))
    notice = Noted("It did not arrive. " * 2500 + "\n" + addresses)
    assert len(list(prose.read(notice, frozenset()))) == 400
    assert read < 4 * len(notice) + 400 * 2 * prose.REACH


def test_no_word_of_a_phrase_may_be_without_end_in_the_midst_of_it() -> None:
    """Of `deliveryafaildeliveryafail…` each beginning was read to the end, and back: 6,000 characters took 1.6 s."""
    for one in (phrases.FAILED, phrases.FAILURE_SUBJECT, phrases.DELAYED, phrases.MEANT, phrases.NOT_MEANT):
        assert not re.search(r"\\w\*(?!\||\)|$)", one.pattern)
