"""The readers of other people's mail under fuzz: reports, and whatever else lies in a mailbox."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from relay.core import bounce, original, report
from relay.core.pieces import PARTS
from relay.core.report import Kind
from tests.fuzz.target import Target, one_line

ACTIONS = ("failed", "delayed", "delivered", "relayed", "expanded", "")


def check_report(raw: bytes) -> None:
    """Nothing raises or takes long; what is told of a report can be stored, and is no longer than it may be."""
    found = report.read(raw)
    assert found.message_id == "" or (found.message_id[0], found.message_id[-1]) == ("<", ">")
    assert found.recipients == () or found.kind in (Kind.BOUNCE, Kind.COMPLAINT)
    made = bounce.reported(found, source="imap", key="k")
    holdable([made.message_id, [asdict(one) for one in made.recipients], bounce.held([made.arf, made.headers])])
    names = [one.recipient.lower() for one in made.recipients]
    assert len(names) == len(set(names)), "a recipient is told of twice"
    for one in made.recipients:
        assert one.action in ACTIONS
        assert "@" in one.recipient
        assert len(one.diagnostic) <= bounce.LONGEST


def holdable(value: Any) -> None:
    """PostgreSQL can hold it: no NUL, and nothing that is no Unicode."""
    match value:
        case str():
            assert "\0" not in value
            value.encode()
        case dict():
            holdable([*value.keys(), *value.values()])
        case list() | tuple():
            for one in value:
                holdable(one)


def check_original(raw: bytes) -> None:
    """Nothing raises or takes long; what is one line is one line, and the files are no more than the mail."""
    found = original.read(raw)
    boxes = (*found.sender, *found.reply_to, *found.to, *found.cc, *found.bcc)
    lines = [found.subject, found.message_id, *found.references, *found.in_reply_to, *(box.name for box in boxes)]
    lines += [text for file in found.files for text in (file.filename, file.cid, file.described)]
    for line in lines:
        one_line(line)
    for text in (found.text, found.html, found.readable):
        text.encode()
        assert "\0" not in text
    assert len(found.files) <= PARTS
    assert sum(file.encoded for file in found.files) <= len(raw)


FAILED = b"Final-Recipient: rfc822; reader@there.example\r\nAction: failed\r\nStatus: 5.1.1\r\n"
DAEMON = b"From: MAILER-DAEMON@mx.example\r\nReturn-Path: <>\r\nTo: app@here.example\r\nSubject: Undeliverable\r\n"
ORIGINAL = (
    b"Return-Path: <app@here.example>\r\nReceived: by mx.example; Fri, 20 Nov 2026 10:00:00 +0000\r\n"
    b"Message-ID: <m1@here.example>\r\nFrom: App <app@here.example>\r\nTo: Reader <reader@there.example>\r\n"
    b"Subject: =?utf-8?q?hell=C3=B6?=\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n"
)


def _report(kind: bytes, *parts: bytes) -> bytes:
    head = DAEMON + b"Content-Type: multipart/report; report-type=%b; boundary=b\r\n\r\n" % kind
    return head + b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def report_seeds() -> Iterator[bytes]:
    said = b"Content-Type: text/plain\r\n\r\n<reader@there.example>: 550 5.1.1 User unknown\r\n"
    enclosed = b"Content-Type: message/rfc822\r\n\r\n" + ORIGINAL + b"\r\nHello"
    status = b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n" + FAILED
    yield _report(b"delivery-status", said, status, enclosed)
    yield _report(b"delivery-status", said, status.replace(b"failed", b"delayed"), enclosed)
    yield _report(b"delivery-status", b"\xfe" + status + b"\r\n\r\n" + FAILED + b"\xfe")
    yield _report(
        b"feedback-report",
        b"Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nVersion: 1\r\n"
        b"Original-Rcpt-To: <reader@there.example>\r\nArrival-Date: Fri, 20 Nov 2026 10:00:00 +0000\r\n",
        enclosed,
    )
    yield DAEMON + b"X-Failed-Recipients: reader@there.example\r\n\r\nThis is a permanent error.\r\n" + ORIGINAL
    yield DAEMON + b"\r\nI'm sorry.\r\n\r\n<reader@there.example>:\r\n192.0.2.1 does not like recipient.\r\n550 no\r\n"
    yield DAEMON + b"\r\n\xfe<reader@there.example> 550 5.1.1 no such user\r\n\xfe"
    yield (
        DAEMON
        + b"Content-Type: text/html; charset=utf-7\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + (base64.encodebytes(b"<p>reader@there.example <b>550</b> User unknown<style>"))
    )
    amazon = b'{"notificationType":"Bounce","bounce":{"bouncedRecipients":[{"emailAddress":"a@b.example",'
    yield DAEMON + b"\r\n" + amazon + b'"action":"failed","status":"5.1.1","diagnosticCode":"smtp; 550"}]}}'
    yield b"From: a@b.example\r\nAuto-Submitted: auto-replied\r\nSubject: Out of office\r\n\r\nBack on Monday"
    for word in (b"<p ", b"&#0;", b"a@b.", b"=?utf-8?q?", b"<style>", b"> From: ", b"5.1.1 ", b"{", b'"a ', b"--b\r\n"):
        yield DAEMON + b"\r\n\xfe" + word + b"\xfe"
        yield DAEMON.replace(b"Undeliverable", b"\xfe" + word + b"\xfe") + b"\r\nfailed"


def original_seeds() -> Iterator[bytes]:
    picture = (
        b"Content-Type: image/png; name=p.png\r\nContent-ID: <pic@x>\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC"
    )
    html = b"Content-Type: text/html; charset=utf-8\r\n\r\n<p>Hi <img src=cid:pic@x></p>"
    file = b"Content-Type: application/pdf\r\nContent-Disposition: attachment; filename*=utf-8''%C3%A4.pdf\r\n\r\nx"
    flowing = b"Content-Type: text/plain; format=flowed; delsp=yes\r\n\r\n> one \r\n> two\r\n-- \r\nAnn"
    yield ORIGINAL + b"\r\nHello"
    yield ORIGINAL + flowing
    for kind in (b"mixed", b"related", b"alternative", b"report", b"digest"):
        head = ORIGINAL + b"References: <a@b> <c@d>\r\nContent-Type: multipart/%b; boundary=b\r\n\r\n" % kind
        yield head + b"".join(b"--b\r\n" + part + b"\r\n" for part in (flowing, html, picture, file)) + b"--b--\r\n"
    mixed = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    yield mixed + b"\xfe--b\r\n\r\n\xfe"
    yield mixed + b"\xfe--b\r\n" + mixed + b"\xfe"
    yield b"Content-Type: text/html\r\n\r\n\xfe<p style='x'>&lt;\xfe"
    for word in (b'"', b"(", b"<", b"=?utf-8?b?", b", ", b"\r\n ,", b'a="', b"a@b, ", b";filename*0=", b"\\"):
        for name in (b"To: ", b"Subject: ", b"Content-Type: text/plain; ", b"References: ", b"Date: "):
            yield name + b"\xfe" + word + b"\xfe\r\n\r\nx"


WORDS = (
    *(b"Content-Type: ", b"multipart/report; report-type=", b"delivery-status", b"message/rfc822", b"text/html"),
    *(b"text/rfc822-headers", b"message/feedback-report", b"; boundary=b", b"--b\r\n", b"--b--", b"\r\n\r\n", b"\xfe"),
    *(b"Final-Recipient: rfc822; ", b"Action: ", b"Status: 5.", b"Diagnostic-Code: smtp; ", b"X-Failed-Recipients: "),
    *(b"550 ", b"421 4.4.7 ", b"<a@b.example>", b"base64", b"quoted-printable", b"charset=utf-7", b"=?utf-8?q?", b"?="),
    *(b"&#0;", b"+AAA-", b"\0", b"Date: ", b"filename*0*=", b"Content-ID: <", b"format=flowed", b"From ", b"-- "),
)

TARGETS = (
    Target("report", check_report, report_seeds, WORDS, share=2),
    Target("original", check_original, original_seeds, WORDS),
)
