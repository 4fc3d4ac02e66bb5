"""What a report comes to: a receipt is none, mail that was given up failed, each recipient has words of its own."""

from __future__ import annotations

import json

import pytest

from relay.core import bounce, report
from relay.core.bounce import Finding
from relay.core.report import Kind
from tests.core.test_report import DAEMON, FAILED, ORIGINAL, dsn, mail, told

RECEIPT = """\
From: Reader <reader@there.example>
To: app@here.example
Subject: {subject}
Content-Type: multipart/report; {parameter}boundary=b

--b
Content-Type: text/plain

{text}
--b
Content-Type: message/disposition-notification

Reporting-UA: pc.there.example; Reader/1
Final-Recipient: rfc822;reader@there.example
Original-Message-ID: <m1@here.example>
Disposition: manual-action/MDN-sent-manually; {what}

--b
Content-Type: message/rfc822

{original}
Hello
--b--
"""


def findings(raw: bytes) -> dict[str, Finding]:
    return {one.recipient: bounce.judge(one) for one in report.read(raw).recipients}


@pytest.mark.parametrize("parameter", ["report-type=disposition-notification; ", ""])
@pytest.mark.parametrize(
    ("subject", "text", "what"),
    [
        ("Read: hello", "Your message was read.", "displayed"),
        ("Not read: hello", "Your message was deleted without being read.", "deleted"),
        ("Undeliverable: hello", "Your message could not be shown.", "failed"),
    ],
)
def test_a_reader_s_receipt_is_no_bounce(parameter: str, subject: str, text: str, what: str) -> None:
    raw = RECEIPT.format(parameter=parameter, subject=subject, text=text, what=what, original=ORIGINAL)
    assert report.read(raw.encode()).kind is Kind.NONE


@pytest.mark.parametrize(
    ("status", "said", "category"),
    [
        ("4.4.1", "X-Postfix; connect to mx.there.example[192.0.2.1]:25: Connection timed out", "unreachable"),
        ("4.4.7", "smtp; 550 4.4.7 QUEUE.Expired; message expired", "expired"),
        ("4.4.7", "smtp; 400 4.4.7 Message delayed", "expired"),
    ],
)
def test_mail_that_was_given_up_has_failed_and_says_nothing_against_the_address(
    status: str, said: str, category: str
) -> None:
    """Its server tried until the time was over: nobody brings it any more."""
    fields = FAILED.replace("5.1.1", status) + f"Diagnostic-Code: {said}\n"
    found = findings(dsn(fields))["reader@there.example"]
    assert (found.failed, found.category, found.suppresses) == (True, category, False)
    late = findings(dsn(fields.replace("failed", "delayed")))["reader@there.example"]
    assert (late.failed, late.action) == (False, "delayed")


def test_words_alone_tell_mail_that_was_given_up_from_mail_that_is_late() -> None:
    gone = mail("failure notice", "<reader@there.example>:\nNo answer.\nit has been in the queue too long.\n")
    late = mail("Delayed mail", "<reader@there.example>: 450 busy\nIt will be retried until it is 5 days old.\n")
    assert [findings(raw)["reader@there.example"].failed for raw in (gone, late)] == [True, False]


@pytest.mark.parametrize(
    "text",
    [
        "<gone@there.example>: 550 5.1.1 User unknown\n<other@there.example>: it was refused\n",
        "<other@there.example>:\nit was refused\n\n<gone@there.example>:\n550 5.1.1 User unknown\n",
        "  gone@there.example\n    550 5.1.1 User unknown\n  other@there.example\n    retry timeout exceeded\n",
    ],
)
def test_what_is_said_of_one_recipient_is_not_held_against_another(text: str) -> None:
    found = findings(mail("failure notice", f"Your message could not be delivered.\n\n{text}"))
    assert {name: one.suppresses for name, one in found.items()} == {
        "gone@there.example": True,
        "other@there.example": False,
    }
    assert found["other@there.example"].status == ""


@pytest.mark.parametrize(
    "text",
    [
        "550 5.1.1 User unknown:\n\n  reader@there.example\n  other@there.example\n",
        "It failed for:\n\n  reader@there.example\n  other@there.example\n\nThe reason: 550 5.1.1 User unknown\n",
    ],
)
def test_what_is_said_of_all_is_said_of_each(text: str) -> None:
    found = findings(mail("failure notice", text, DAEMON))
    assert [(name, one.status, one.suppresses) for name, one in found.items()] == [
        ("reader@there.example", "5.1.1", True),
        ("other@there.example", "5.1.1", True),
    ]


@pytest.mark.parametrize("name", ["utf-8; lesér@there.example", r"utf-8; les\x{E9}r@there.example"])
def test_an_international_report_names_its_recipient_and_its_message(name: str) -> None:
    """RFC 6533: types of its own, and addresses that may be escaped."""
    fields = FAILED.replace("rfc822; reader@there.example", name)
    raw = dsn(fields, "message/global-delivery-status").replace(b"message/rfc822", b"message/global-headers")
    assert list(findings(raw)) == ["lesér@there.example"]
    assert report.read(raw).message_id == "<m1@here.example>"


@pytest.mark.parametrize("code", ["D800", "110000", "0"])
def test_what_is_no_character_is_none(code: str) -> None:
    assert report.read(dsn(FAILED.replace("reader@", rf"\x{{{code}}}reader@"))).kind is Kind.BOUNCE


@pytest.mark.parametrize("sign", ["auto-replied", "auto-generated"])
@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (
            "Thanks for your message",
            "I was not in the office this week.\n\nKind regards\nReader\nreader@there.example\n",
        ),
        ("I have moved", "I do not have access to this mailbox any more. Write to:\nreader@new.example\n"),
        ("Danke für Ihre Nachricht", "Ich bin nicht da. Bei Fehlern hilft mein Kollege:\nother@there.example\n"),
        ("[#7] We have your request", "Your problem report was received: error in invoice.\n\nhelp@there.example\n"),
    ],
)
def test_who_is_away_has_not_failed_whatever_he_writes(sign: str, subject: str, text: str) -> None:
    """Such mail has no sender either (RFC 3834), and names people."""
    head = f"From: Reader <reader@there.example>\nReturn-Path: <>\nTo: app@here.example\nAuto-Submitted: {sign}\n"
    assert report.read(mail(subject, text, head)).kind in (Kind.AUTO_REPLY, Kind.NONE)
    assert report.read(mail("Delivery failed", "550 5.1.1 <lost@there.example> unknown", head)).kind is Kind.BOUNCE


@pytest.mark.parametrize(
    ("answers", "name"),
    [("<m1@here.example>", "<m1@here.example>"), ("<m1@here.example> <m2@here.example>", ""), ("your mail", "")],
)
def test_a_report_without_the_original_is_about_what_it_answers(answers: str, name: str) -> None:
    """So it is matched to this message, and not to the last one that its recipient was sent."""
    raw = mail("failure notice", "<reader@there.example>: 550 5.1.1 unknown", DAEMON + f"In-Reply-To: {answers}\n")
    assert report.read(raw).message_id == name
    other = dsn(FAILED).replace(b"Subject: Und", b"In-Reply-To: <m2@here.example>\nSubject: Und")
    assert report.read(other).message_id == "<m1@here.example>"


@pytest.mark.parametrize("name", ["notificationType", "eventType"])
def test_amazon_tells_of_complaints_and_events_too(name: str) -> None:
    """An identity's notifications and a configuration set's events have the same form, under two names."""
    head = "From: AWS <no-reply@sns.amazonaws.com>\nReturn-Path: <>\n"
    who, original = [{"emailAddress": "reader@there.example"}], {"commonHeaders": {"messageId": "<m1@here.example>"}}
    complaint = {"complainedRecipients": who, "complaintFeedbackType": "not-spam"}
    found = report.read(mail("AWS", json.dumps({name: "Complaint", "complaint": complaint, "mail": original}), head))
    assert (found.kind, found.message_id) == (Kind.COMPLAINT, "<m1@here.example>")
    assert [one.recipient for one in found.recipients] == ["reader@there.example"]
    assert found.feedback.get("feedback-type") == "not-spam"
    assert told(mail("AWS", json.dumps({name: "Bounce", "bounce": {"bouncedRecipients": who}}), head)) == [
        ("reader@there.example", "failed")
    ]
    odd = {name: "Complaint", "complaint": {"complainedRecipients": [None, 1]}, "mail": []}
    assert report.read(mail("AWS", json.dumps(odd), head)).kind is not Kind.COMPLAINT
