"""What a report comes to: a reader's receipt is none."""

from __future__ import annotations

import pytest

from relay.core import report
from relay.core.report import Kind
from tests.core.test_report import ORIGINAL

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
