"""What makes a mail a report: letters that tell of one are none. What a report leaves out stands elsewhere in it."""

from __future__ import annotations

import pytest

from relay.core import bounce, report
from relay.core.report import Kind
from tests.core.test_report import DAEMON, FAILED, ORIGINAL, dsn, mail, told

PERSON = "From: Reader <reader@there.example>\nTo: app@here.example\n"
NOBODY = f"Return-Path: <>\n{PERSON}"
RETURNED = """\
My mail to your colleague could not be delivered:

550 5.1.1 User unknown
colleague@here.example
"""


def categories(raw: bytes) -> list[tuple[str, str]]:
    return [(one.recipient, bounce.judge(one).category) for one in report.read(raw).recipients]


# -- letters -----------------------------------------------------------------------------------------------------------


def test_who_encloses_a_report_passes_it_on() -> None:
    inner = dsn(FAILED).decode()
    head = f"{PERSON}Subject: Undeliverable: hello\nContent-Type: multipart/mixed; boundary=letter\n"
    raw = (
        f"{head}\n--letter\n\n{RETURNED}\n--letter\nContent-Type: message/rfc822\n\n{inner}\n--letter\n\n--letter--\n"
    ).encode()
    assert report.read(raw).kind is Kind.NONE
    assert told(raw.replace(b"Reader <reader@", b"Mail Delivery <mailer-daemon@"))


@pytest.mark.parametrize("subject", ["Offer", "I have left", "Neue Adresse"])
def test_who_has_left_tells_whom_to_write_to(subject: str) -> None:
    """Such an answer has no sender, as a report has none, and may not say what it is."""
    text = "I do not work here any more. Your mail was not delivered to me. Please write to:\nother@there.example\n"
    assert report.read(mail(subject, text, NOBODY)).kind is Kind.NONE
    assert told(mail(subject, text + "550 5.1.1 Unknown\n", NOBODY)) == [("other@there.example", "failed")]
    assert told(mail(subject, text, NOBODY.replace("reader@", "no-reply@"))) == [("other@there.example", "failed")]


@pytest.mark.parametrize("subject", ["Automatic reply: Delivery failed", "Réponse automatique : échec de livraison"])
def test_who_is_away_answers_mail_of_any_subject(subject: str) -> None:
    head = NOBODY + "Auto-Submitted: auto-replied\n"
    assert report.read(mail(subject, RETURNED, head)).kind is Kind.AUTO_REPLY
    assert told(mail(subject.rpartition(": ")[2], RETURNED, head))


def test_a_postmaster_who_answers_is_a_person() -> None:
    head = "Return-Path: <postmaster@there.example>\nFrom: <postmaster@there.example>\nTo: app@here.example\n"
    assert report.read(mail("Re: delivery problems", RETURNED, head)).kind is Kind.NONE
    assert told(mail("Delivery problems", "<reader@there.example>: 550 5.1.1 unknown\n", head))


@pytest.mark.parametrize(
    "text",
    [
        "Your message to team@there.example is waiting for approval by a moderator.",
        "Your message to team@there.example has been held until you confirm.",
        "Ihre Nachricht an team@there.example wartet auf Freigabe.",
    ],
)
def test_mail_that_is_held_has_not_failed(text: str) -> None:
    """By the list's own server, so that nothing else tells it from a report."""
    head = DAEMON + "Auto-Submitted: auto-replied\n"
    assert report.read(mail("Your message", text, head)).kind is Kind.AUTO_REPLY
    assert told(mail("Your message", text + "\nIt was rejected.", head)) == [("team@there.example", "failed")]


def test_a_digest_of_held_mail_is_no_bounce() -> None:
    assert report.read(mail("End user digest: 2 new messages", RETURNED, DAEMON)).kind is Kind.NONE
    assert told(mail("Undeliverable: weekly digest", RETURNED, DAEMON))


@pytest.mark.parametrize(("about", "kind"), [("tlsrpt", Kind.NONE), ("recall", Kind.NONE), ("", Kind.BOUNCE)])
def test_a_report_of_another_type_is_of_no_delivery(about: str, kind: Kind) -> None:
    head = f"{NOBODY}Content-Type: multipart/report; report-type={about}; boundary=b\n"
    text = "--b\n\nIt could not be done for:\nreader@other.example\n--b--\n"
    assert report.read(mail("Report", text, head)).kind is kind


@pytest.mark.parametrize("sender", ["postoffice", '"" (Mail System)', "mail.there.example"])
def test_who_has_no_address_is_no_person(sender: str) -> None:
    head = f"From: {sender}\nTo: app@here.example\n"
    assert told(mail("Undelivered mail", "It could not be delivered to:\nreader@there.example\n", head))
    assert report.read(mail("Undelivered mail", RETURNED.replace("550", "")[:60], PERSON)).kind is Kind.NONE


# -- refusals that look like receipts ----------------------------------------------------------------------------------

REFUSAL = """\
From: {sender}
To: app@here.example
Return-Path: <>
Subject: {subject}
Auto-Submitted: auto-replied (rejected)
Content-Type: multipart/report; report-type=disposition-notification; boundary=b

--b
Content-Type: text/plain

Your message to <reader@there.example> was automatically rejected:
{why}
--b
Content-Type: message/disposition-notification

Final-Recipient: rfc822; reader@there.example
Original-Message-ID: <m1@here.example>
Disposition: automatic-action/MDN-sent-automatically; deleted

--b--
"""


@pytest.mark.parametrize("subject", ["Rejected: hello", "Automatically rejected mail"])
@pytest.mark.parametrize(
    ("why", "category"),
    [("Quota exceeded (mailbox for user is full)", "mailbox_full"), ("I take no mail of shops.", "policy")],
)
def test_a_server_refuses_by_a_disposition_notice(subject: str, why: str, category: str) -> None:
    """RFC 5429 2.1.2: a filter's `reject`, and a mailbox without room, say so after the mail was accepted."""
    raw = REFUSAL.format(sender="Mail Delivery <postmaster@there.example>", subject=subject, why=why).encode()
    assert told(raw) == [("reader@there.example", "failed")]
    assert categories(raw) == [("reader@there.example", category)]
    assert report.read(raw).message_id == "<m1@here.example>"


def test_a_reader_who_deletes_has_received_and_so_has_a_postmaster_who_reads() -> None:
    raw = REFUSAL.format(sender="Reader <reader@there.example>", subject="Rejected: hello", why="").encode()
    assert report.read(raw).kind is Kind.NONE
    read = REFUSAL.format(sender="postmaster@there.example", subject="Read: Delivery failed", why="")
    assert report.read(read.replace("; deleted", "; displayed").encode()).kind is Kind.NONE


# -- what stands elsewhere ---------------------------------------------------------------------------------------------


def test_the_original_s_name_may_be_beside_the_recipient_or_in_the_header() -> None:
    notice = "<reader@there.example>: 550 5.1.1 unknown"
    named = mail("failure notice", notice, DAEMON + "X-CM-Original-Message-ID: <m1@here.example>\n")
    field = b"X-Original-Message-ID: <m1@here.example>\nReporting-MTA:"
    beside = dsn(FAILED).replace(ORIGINAL.encode(), b"").replace(b"Reporting-MTA:", field)
    assert [report.read(raw).message_id for raw in (named, beside)] == ["<m1@here.example>"] * 2


@pytest.mark.parametrize("why", ["Your message wasn't delivered", "Your message was refused"])
def test_a_sentence_about_the_message_does_not_begin_its_copy(why: str) -> None:
    text = f"Delivery has failed to:\n\nReader<mailto:reader@there.example>\n{why}.\n\n#550 5.7.1 RST.NotAuthorized\n"
    assert [one.status for one in report.read(mail("Undeliverable", text)).recipients] == ["5.7.1"]
    copied = mail("Undeliverable", "<reader@there.example>\n\nYour message was:\n550 5.7.1 is what I got\n")
    assert [one.status for one in report.read(copied).recipients] == [""]


@pytest.mark.parametrize(
    ("fields", "category"),
    [
        (FAILED.replace("5.1.1", "5.0.0"), "mailbox_full"),
        (FAILED.replace("Status: 5.1.1\n", ""), "mailbox_full"),
        (FAILED, "unknown_user"),
        (FAILED.replace("5.1.1", "5.0.0") + "Diagnostic-Code: smtp; 554 spam\n", "spam"),
    ],
)
def test_the_notice_tells_why_where_the_status_fields_do_not(fields: str, category: str) -> None:
    raw = dsn(fields).replace(b"host mx.there.example said: 550 5.1.1 User unknown", b"the quota is exceeded")
    assert categories(raw) == [("reader@there.example", category)]


def test_what_an_alias_became_is_said_of_the_alias_too() -> None:
    text = """\
        The following addresses failed:

          reader@inner.example
            (generated from reader@there.example)
            all hosts have been failing for a long time
          gone@there.example
            550 5.1.1 User unknown
        """
    assert dict(categories(mail("Mail delivery failed", text))) == {
        "reader@inner.example": "expired",
        "reader@there.example": "expired",
        "gone@there.example": "unknown_user",
    }


def test_whom_a_notice_calls_the_sender_did_not_fail() -> None:
    text = "Sender Address:  app+7@here.example\nRecipient Address:  reader@there.example\n550 5.1.10 not found\n"
    assert told(mail("Undeliverable: hello", text)) == [("reader@there.example", "failed")]


def test_a_subject_says_automatic_answer_in_either_order() -> None:
    for subject in ("Automatyczna odpowiedź: oferta", "Odpowiedź automatyczna: oferta"):
        assert report.read(mail(subject, "Nie ma mnie.", PERSON)).kind is Kind.AUTO_REPLY
