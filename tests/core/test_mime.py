"""A message comes out as it came in, but for what is ours to take off and what was missing."""

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import Refused
from relay.core.mime import MOST_HEADER, MOST_LIST, addressed, date, is_control, tidy

NOW = datetime(2030, 1, 31, 9, 30, tzinfo=UTC)
ADDED = b"Message-ID: <u1@example.com>\r\nDate: Thu, 31 Jan 2030 09:30:00 +0000\r\nMIME-Version: 1.0\r\n"
WHOLE = (
    b"From: Ada <ada@example.com>\r\nTo: bob@example.net\r\nMessage-ID: <m@example.com>\r\n"
    b"Date: Thu, 31 Jan 2030 09:00:00 +0000\r\nMIME-Version: 1.0\r\n"
)


def tidied(raw, **changes):
    return tidy(raw, **{"now": NOW, "domain": "relay.example", "unique": "u1", **changes})


@pytest.mark.parametrize(
    "raw",
    [
        WHOLE + b"\r\nHello\r\n",
        WHOLE + b"subject:no blank\r\nX-Odd :  two  blanks\t\r\nX-Folded:\r\n\tone\r\n two\r\n\r\n\r\n..\r\n\r\n",
        WHOLE + b"X-Latin: \xfc\r\nthis line is no header field\r\n\r\n\x01\x80\xff\r\n",
        WHOLE,
    ],
)
def test_a_complete_message_stays_as_it_is(raw):
    assert tidied(raw).content == raw


def test_missing_fields_are_put_on_top():
    raw = b"From: ada@example.com\r\nSubject: x\r\n\r\nHello\r\n"

    assert tidied(raw).content == ADDED + raw


def test_a_message_id_stands_on_one_line_whatever_is_in_it():
    assert tidied(b"Message-ID: <m\xe2\x80\xa8\x07@x>\r\n\r\nx").message_id == "<m@x>"


@pytest.mark.parametrize(("name", "line"), [(b"Message-ID", 0), (b"DATE", 1), (b"mime-version", 2)])
def test_only_what_is_missing_is_added(name, line):
    raw = b"From: ada@example.com\r\n" + name + b": 1\r\n\r\nx\r\n"

    assert tidied(raw).content == b"".join(ADDED.splitlines(True)[n] for n in range(3) if n != line) + raw


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"\r\nno header\r\n", b"+\r\nno header\r\n"),
        (b"no header field\r\n", b"+no header field\r\n"),
        (b"no end of line", b"+no end of line\r\n"),
        (b"Subject: x", b"+Subject: x\r\n"),
        (b"From ada Thu Jan 31 2030\r\nSubject: x\r\n\r\n", b"From ada Thu Jan 31 2030\r\n+Subject: x\r\n\r\n"),
        (b">From ada Thu Jan 31\r\nSubject: x\r\n\r\n", b">From ada Thu Jan 31\r\n+Subject: x\r\n\r\n"),
        (b" folded at once\r\nSubject: x\r\n\r\n", b" folded at once\r\n+Subject: x\r\n\r\n"),
        (b"Bcc: a@example.com\r\n\r\nx\r\n", b"+\r\nx\r\n"),
    ],
)
def test_added_fields_stand_where_they_are_fields(raw, expected):
    added = ADDED.replace(b"example.com", b"relay.example")

    assert tidied(raw).content == expected.replace(b"+", added, 1)


@pytest.mark.parametrize(
    "header",
    [
        b"Bcc: eve@example.com\r\n",
        b"bcc: eve@example.com,\r\n\tmallory@example.com\r\n",
        b"BCC : eve@example.com\r\n",
        b"X-Account: a1\r\n",
        b"x-send-at: 1895995800\r\n",
        b"X-Delivery-Attempts: 3\r\n",
        b"X-Priority-Class: high\r\n",
        b"X-Track-Opens: false\r\n",
        b"X-Email-Type: invoice\r\n",
        b"X-Reference-Type: order\r\n",
        b"X-Reference-Id: 7\r\n",
        b"X-Idempotency-Key:\r\n\tk\r\n",
        b"X-EE-Account: a1\r\n",
        b"X-EE-Tracking-Enabled: true\r\n",
        b"X-EE-Anything: at all\r\n",
    ],
)
def test_bcc_and_control_headers_come_off_wherever_they_stand(header):
    lines = WHOLE.splitlines(True)
    for place in range(len(lines) + 1):
        raw = b"".join((*lines[:place], header, *lines[place:], b"\r\n", header, b"body\r\n"))

        assert tidied(raw).content == WHOLE + b"\r\n" + header + b"body\r\n"


@pytest.mark.parametrize("header", [b"Resent-Bcc: x@example.com\r\n", b"X-Accounts: x\r\n", b"X-Bcc: x\r\n"])
def test_other_headers_stay(header):
    assert header in tidied(WHOLE + header + b"\r\n").content


def test_bcc_is_told_beside_the_message():
    mail = tidied(
        WHOLE + b"Bcc: Eve <eve@example.com>, =?utf-8?q?=C3=BC?= <u@example.com>\r\nBcc: m@example.com\r\n\r\n"
    )

    assert mail.bcc == ("eve@example.com", "u@example.com", "m@example.com")


@pytest.mark.parametrize(
    ("header", "controls"),
    [
        (b"X-Account: a1\r\n", {"account": "a1"}),
        (b"X-EE-Account:\r\n a1 \r\n", {"account": "a1"}),
        (b"X-Account: a1\r\nX-EE-Account: a1\r\n", {"account": "a1"}),
        (b"X-EE-Tracking-Enabled: true\r\n", {"track-opens": "true"}),
        (b"X-Send-At: Thu,\r\n\t31 Jan 2030 09:30:00 +0000\r\n", {"send-at": "Thu, 31 Jan 2030 09:30:00 +0000"}),
        (b"X-Reference-Id: \xc3\xbc\r\n", {"reference-id": "ü"}),
        (b"X-Account:\r\nX-EE-Unknown: 1\r\n", {}),
    ],
)
def test_controls_are_told_under_one_name(header, controls):
    assert tidied(WHOLE + header + b"\r\n").controls == controls


@pytest.mark.parametrize("name", [b"X-Account", b"X-Send-At", b"X-EE-Account"])
@pytest.mark.parametrize("bad", ["a\x01b", "a\x7fb", "a\u2028b", "a\u2029b", "a\x85b"])
def test_a_control_with_a_control_character_is_refused_by_name(name, bad):
    with pytest.raises(Refused, match=name.decode()) as caught:
        tidied(WHOLE + name + b": " + bad.encode() + b"\r\n\r\n")

    assert caught.value.smtp == "550 5.6.0"


def test_two_controls_that_disagree_are_refused():
    with pytest.raises(Refused, match="more than once"):
        tidied(WHOLE + b"X-Account: a1\r\nX-EE-Account: a2\r\n\r\n")


@pytest.mark.parametrize(
    ("raw", "smtp", "fault"),
    [
        (WHOLE + b"\r\nbare\nfeed\r\n", "550 5.6.11", "line feed"),
        (WHOLE + b"\r\nbare\rreturn\r\n", "550 5.6.11", "carriage return"),
        (WHOLE + b"\r\n\r\r\n", "550 5.6.11", "carriage return"),
        (WHOLE + b"\r\n\n\r\n", "550 5.6.11", "line feed"),
        (b"Subject: a\nBcc: x\r\n\r\n", "550 5.6.11", "line feed"),
        (WHOLE + b"\r\nN\0L\r\n", "550 5.6.11", "NUL"),
        (b"", "550 5.6.0", "no message"),
        (b"\r\n", "550 5.6.0", "no message"),
        (b" \t\r\n\r\n", "550 5.6.0", "no message"),
        (b"Received: x\r\n" * 51 + WHOLE + b"\r\n", "554 5.4.6", "circles"),
        (b"X: " + b"x" * MOST_HEADER + b"\r\n\r\n", "552 5.3.4", "larger"),
    ],
)
def test_what_no_upstream_should_get_is_refused(raw, smtp, fault):
    with pytest.raises(Refused, match=fault) as caught:
        tidied(raw)

    assert caught.value.smtp == smtp


def test_fifty_hops_are_no_loop():
    assert tidied(b"Received: x\r\n" * 50 + WHOLE + b"\r\nReceived: x\r\n").sender == "ada@example.com"


def test_ten_thousand_headers_are_taken():
    raw = b"".join(b"X-%d: value\r\n" % number for number in range(10_000)) + WHOLE + b"\r\nx\r\n"

    assert tidied(raw).content == raw


@pytest.mark.parametrize(
    ("header", "sender"),
    [
        (b"From: Ada <Ada@Example.com>\r\n", "Ada@Example.com"),
        (b"From: ada@example.com, bob@example.com\r\n", "ada@example.com"),
        (b"From: nobody\r\nSender: ada@example.com\r\n", "ada@example.com"),
        (b"Subject: x\r\n", ""),
    ],
)
def test_the_sender_is_read_from_the_header(header, sender):
    assert tidied(header + b"\r\nx\r\n").sender == sender


@pytest.mark.parametrize(
    ("header", "domain"),
    [
        (b"From: ada@example.com\r\n", "example.com"),
        (b"From: ada@ex\xc3\xa4mple.com\r\n", "relay.example"),
        (b"From: ada@[192.0.2.1]\r\n", "relay.example"),
        (b"From: ada@example.com>x\r\n", "relay.example"),
        (b"", "relay.example"),
    ],
)
def test_a_new_message_id_is_in_the_domain_of_from(header, domain):
    mail = tidied(header + b"\r\nx\r\n")

    assert mail.message_id == f"<u1@{domain}>"
    assert f"Message-ID: <u1@{domain}>\r\n".encode() in mail.content


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"Message-ID:\r\n <a@b> (comment)\r\n", "<a@b>"),
        (b"message-id: a@b\r\n", "<a@b>"),
        (b"Message-ID: \r\n", ""),
        (b"Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\n", "<a@b>"),
    ],
)
def test_a_message_id_that_is_there_is_told(header, expected):
    mail = tidied(header + b"\r\nx\r\n")

    assert mail.message_id == expected
    assert mail.content.endswith(header + b"\r\nx\r\n")
    assert mail.content.lower().count(b"message-id:") == header.lower().count(b"message-id:")


@pytest.mark.parametrize(
    ("value", "subject"),
    [
        (b" Hello", "Hello"),
        (b" =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?q?_an_alle?=", "Grüße an alle"),
        (b" a\r\n b\x01\xe2\x80\xa8c", "a b  c"),
        (b" \xfc", "ü"),
        (b" =?utf-8?q?a=0D=0Ab?=", "a  b"),
        (b" " + b"x" * 2000, "x" * 998),
        (b"", ""),
    ],
)
def test_the_subject_is_one_decoded_line(value, subject):
    assert tidied(b"Subject:" + value + b"\r\n\r\nx\r\n").subject == subject


def test_names_of_recipients_are_told_by_address():
    mail = tidied(b"To: Bob <Bob@Example.net>, c@example.net\r\nCc: =?utf-8?q?D=C3=BC?= <d@example.net>\r\n\r\n")

    assert mail.names == {"bob@example.net": "Bob", "d@example.net": "Dü"}


def test_of_a_list_without_end_the_first_names_are_told_and_every_byte_is_kept():
    """What is judged is bounded; what is sent is not."""
    readers = b",\r\n ".join(b"Reader %d <r%d@there.example>" % (number, number) for number in range(6000))
    raw = WHOLE.replace(b"\r\nTo: ", b"\r\nX-To: ") + b"To: " + readers + b"\r\n\r\nHello\r\n"
    mail = tidied(raw)
    assert len(readers) > MOST_LIST
    assert mail.content == raw
    assert mail.names["r0@there.example"] == "Reader 0"
    assert 3000 < len(mail.names) < 6000


@pytest.mark.parametrize(
    ("raw", "eightbit", "smtputf8"),
    [
        (WHOLE + b"\r\nascii\r\n", False, False),
        (WHOLE + b"\r\n\xc3\xbc\r\n", True, False),
        (WHOLE + b"Subject: \xc3\xbc\r\n\r\nascii\r\n", True, True),
        (WHOLE + b"Bcc: \xc3\xbc@example.com\r\n\r\nascii\r\n", False, False),
    ],
)
def test_bytes_beyond_ascii_are_told(raw, eightbit, smtputf8):
    mail = tidied(raw)

    assert (mail.eightbit, mail.smtputf8) == (eightbit, smtputf8)


LINES = st.lists(
    st.sampled_from(
        [
            b"",
            b" ",
            b"\tfold",
            b"From: a@example.com",
            b"Bcc: b@example.com",
            b"X-EE-X: 1",
            b"X-Account: a",
            b"Date: x",
            b"MIME-Version: 1.0",
            b"no",
        ]
    )
    | st.binary(max_size=20).map(lambda line: re.sub(rb"[\0\r\n]", b"", line)),
    max_size=12,
)


@given(LINES)
def test_whatever_comes_every_other_byte_is_still_there(lines):
    raw = b"\r\n".join(lines) + b"\r\n"
    try:
        content = tidied(raw).content
    except Refused as refused:
        assert re.search("no message|more than once|control character", refused.message)  # noqa: PT017
        return
    _, blank, body = (b"", b"\r\n", raw[2:]) if raw.startswith(b"\r\n") else raw.partition(b"\r\n\r\n")
    dropped = re.compile(rb"^(bcc|x-account|x-ee-[a-z]+)[ \t]*:.*\n([ \t].*\n)*", re.IGNORECASE | re.MULTILINE)
    kept = dropped.sub(b"", raw[: len(raw) - len(body)] if blank else raw)
    for line in {*ADDED.replace(b"example.com", b"relay.example").splitlines(True), *ADDED.splitlines(True)}:
        if line not in kept.splitlines(True):
            content = content.replace(line, b"", 1)
    assert content == kept + (body if blank else b"")


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-7)), timezone(timedelta(hours=5, minutes=30))])
def test_dates_are_spelled_as_the_standard_library_does(zone):
    for month in range(1, 13):
        moment = datetime(2031, month, 3, 4, 5, 6, tzinfo=zone)
        assert date(moment) == format_datetime(moment.astimezone(UTC))


def test_control_headers_are_known_by_name():
    assert is_control("x-account")
    assert is_control("x-ee-send-at")
    assert not is_control("x-mailer")


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (b"To: a@x.example\r\nthis is no field\r\nCc: b@x.example", ["a@x.example", "b@x.example"]),
        (b"To: a@x.example\r\nCc : b@x.example", ["a@x.example", "b@x.example"]),
        (b"To: a@x.example\r\nto: b@x.example", ["a@x.example", "b@x.example"]),
        (b"To: A <a@x.example>,\r\n B <b@x.example>", ["a@x.example", "b@x.example"]),
        ("To: jörg@x.example".encode(), ["jörg@x.example"]),
        (b"Subject: To: a@x.example\r\nResent-To: b@x.example", []),
    ],
)
def test_whom_a_message_is_addressed_to_is_read_as_upstreams_read_it(head: bytes, found: list[str]) -> None:
    assert addressed(head + b"\r\n\r\nTo: body@x.example\r\n") == found
