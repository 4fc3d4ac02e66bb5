"""What is composed says for any reader what the draft said, and no value can say more than its field."""

import email
import re
import time
from datetime import UTC, datetime
from email import policy
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import headers, splice
from relay.core.address import Mailbox
from relay.core.compose import Attachment, Draft, compose
from relay.core.errors import Refused
from relay.core.mime import tidy

NOW = datetime(2030, 1, 31, 9, 30, tzinfo=UTC)
ADA = Mailbox("Ada", "ada@example.com")
PNG = b"\x89PNG\r\n\x1a\n\0"
ANY = st.text(st.characters(exclude_categories=("Cs",)), max_size=200)


def composed(**draft):
    return compose(Draft(**{"sender": ADA, **draft}), now=NOW, domain="relay.example", unique="0123456789abcdef" * 2)


def parsed(**draft):
    raw = composed(**draft)
    assert raw.count(b"\r\n") == raw.count(b"\n") == raw.count(b"\r")
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    head = raw.partition(b"\r\n\r\n")[0]
    assert all(re.match(rb"[!-9;-~]+: |[ ]\S", line) for line in head.split(b"\r\n"))
    message = email.message_from_bytes(raw, policy=policy.default)
    assert not any(part.defects for part in message.walk())
    return message


def kinds(message):
    if not message.is_multipart() or message.get_content_type() == "message/rfc822":
        return message.get_content_type()
    return (message.get_content_subtype(), *map(kinds, message.iter_parts()))


FILE = Attachment(b"%PDF", "a.pdf")
IMAGE = Attachment(PNG, "a.png", cid="logo@example.com")


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        ({}, "text/plain"),
        ({"text": "t"}, "text/plain"),
        ({"html": "<p>h"}, "text/html"),
        ({"text": "", "html": "<p>h"}, "text/html"),
        ({"text": "t", "html": "<p>h"}, ("alternative", "text/plain", "text/html")),
        ({"html": "<p>h", "attachments": [IMAGE]}, ("related", "text/html", "image/png")),
        (
            {"text": "t", "html": "h", "attachments": [IMAGE]},
            ("alternative", "text/plain", ("related", "text/html", "image/png")),
        ),
        ({"text": "t", "attachments": [FILE]}, ("mixed", "text/plain", "application/pdf")),
        ({"text": "t", "attachments": [IMAGE]}, ("mixed", "text/plain", "image/png")),
        ({"attachments": [FILE]}, ("mixed", "text/plain", "application/pdf")),
        (
            {"text": "t", "html": "h", "attachments": [FILE, IMAGE]},
            ("mixed", ("alternative", "text/plain", ("related", "text/html", "image/png")), "application/pdf"),
        ),
    ],
)
def test_the_structure_is_what_the_draft_has(draft, expected):
    assert kinds(parsed(**draft)) == expected


TEXTS = [
    "",
    "Hello\nworld\n",
    "Hello\r\nworld\rand\n\nall",
    "Grüße 日本 😀\n" * 20,
    "日本語だけ" * 200,
    "x" * 5000,
    "trailing blanks  \t\n.\n..\nFrom me\n" + "ü",
    "=?utf-8?q?no?= =20 =\nü",
    "--=_0123456789abcdef\n",
    "ends with a blank ü ",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_and_html_come_back(text):
    lines = re.sub(r"\r\n|\r|\n", "\n", text)
    message = parsed(text=text + "t", html=text + "h")

    for kind, end in (("plain", "t"), ("html", "h")):
        part = message.get_body((kind,))
        assert part.get_payload(decode=True).decode().replace("\r\n", "\n") == lines + end
        assert max(map(len, part.get_payload().split("\r\n"))) <= (
            998 if part["content-transfer-encoding"] == "7bit" else 76
        )
        assert part.get_payload().isascii()


@given(ANY.filter(lambda text: "\0" not in text))
def test_any_text_comes_back(text):
    part = parsed(text=text)

    assert part.get_payload(decode=True).decode() == re.sub(r"\r\n|\r|\n", "\r\n", text)


SUBJECTS = [
    "Hello",
    "Grüße aus Köln",
    "日本語" * 100,
    "😀" * 50,
    "word " * 200 + "end",
    "x" * 3000,
    "=?utf-8?q?not_encoded?=",
    "two  blanks",
    " blanks around ",
    "tab\there",
    'quotes " and \\ and <angles>',
]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_comes_back(subject):
    raw = composed(subject=subject)
    value = email.message_from_bytes(raw)["subject"]

    assert str(make_header(decode_header(value.replace("\r\n", "")))) == subject.replace("\t", " ")
    assert all(len(line) <= 76 for line in raw.split(b"\r\n") if b"=?utf-8?" in line)
    assert tidy(raw, now=NOW, domain="x", unique="x").subject == subject.replace("\t", " ").strip()[:998]


@given(st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=300))
def test_any_subject_comes_back(subject):
    assert tidy(composed(subject=subject), now=NOW, domain="x", unique="x").subject == subject.strip()[:998].strip()


@pytest.mark.parametrize(
    "filename",
    [
        "a.pdf",
        "Übersicht 2030.pdf",
        "日本語のファイル名" * 10 + ".txt",
        'a"b\\c;d.txt',
        "x" * 200,
        "100%.txt",
        "a'b*c.txt",
    ],
)
def test_a_filename_comes_back(filename):
    part = next(parsed(attachments=[Attachment(b"x", filename)]).iter_attachments())

    assert part.get_filename() == filename
    old = part.get_param("name", header="content-type", unquote=True)
    assert str(make_header(decode_header(re.sub(r"\r\n", "", old)))) == filename
    assert all(len(line) <= 78 for line in str(part).split("\n"))


@given(st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=255))
def test_any_filename_comes_back(filename):
    raw = composed(attachments=[Attachment(b"x", filename)])
    part = next(part for part in email.message_from_bytes(raw).walk() if part.get_content_disposition() == "attachment")

    assert email.utils.collapse_rfc2231_value(part.get_param("filename", header="content-disposition")) == filename


@pytest.mark.parametrize(
    ("attachment", "kind", "disposition"),
    [
        (Attachment(b"x"), "application/octet-stream", "attachment"),
        (Attachment(b"x", "a.PDF"), "application/pdf", "attachment"),
        (Attachment(b"x", "a.xlsx"), "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "attachment"),
        (Attachment(b"x", "a.csv", "text/plain; charset=utf-8"), "text/plain", "attachment"),
        (Attachment(b"x", "a.png", disposition="inline"), "image/png", "inline"),
        (Attachment(b"x", "a.png", cid="<a@b>"), "image/png", "inline"),
        (Attachment(b"x", "a.png", cid="a@b", disposition="attachment"), "image/png", "attachment"),
    ],
)
def test_a_file_says_what_it_is(attachment, kind, disposition):
    message = parsed(html="<p>h", attachments=[attachment])
    part = message.get_payload()[-1]

    assert (part.get_content_type(), part.get_content_disposition()) == (kind, disposition)
    assert part["content-id"] == ("<a@b>" if attachment.cid else None)
    assert part.get_payload(decode=True) == b"x"


@given(st.binary(max_size=300))
def test_any_file_comes_back(content):
    part = next(parsed(attachments=[Attachment(content)]).iter_attachments())

    assert part.get_payload(decode=True) == content


def test_an_enclosed_message_is_not_encoded_again():
    enclosed = Attachment(b"Subject: in\n\nsi\xc3\xa8de\n", "m.eml")
    part = next(parsed(text="t", attachments=[enclosed]).iter_attachments())

    assert part.get_content_type() == "message/rfc822"
    assert part["content-transfer-encoding"] == "8bit"
    assert part.get_payload(0)["subject"] == "in"


def test_an_enclosed_message_whose_lines_cannot_travel_is_a_mere_file():
    content = b"Subject: in\n\n" + b"x" * 2000
    part = next(parsed(text="t", attachments=[Attachment(content, "m.eml")]).iter_attachments())

    assert (part.get_content_type(), part.get_payload(decode=True)) == ("application/octet-stream", content)


def test_addresses_come_back():
    many = [Mailbox(f"Nöme {n}", f"n{n}@example.com") for n in range(50)]
    message = parsed(to=many, cc=[Mailbox("Doe, Jane", "j@example.com")], reply_to=[Mailbox("", "r@example.com")])

    assert message["from"] == "Ada <ada@example.com>"
    assert [(box.display_name, box.addr_spec) for box in message["to"].addresses] == [(m.name, m.address) for m in many]
    assert message["cc"].addresses[0].display_name == "Doe, Jane"
    assert message["reply-to"] == "r@example.com"


def test_mail_to_hidden_recipients_has_a_to_field():
    assert parsed()["to"] == "undisclosed-recipients:;"
    assert parsed(headers={"Cc": "bob@example.com"})["to"] is None


def test_date_and_message_id_are_made():
    message = parsed()

    assert message["date"].datetime == NOW
    assert message["message-id"] == "<0123456789abcdef0123456789abcdef@example.com>"
    assert parsed(message_id="mine@example.com")["message-id"] == "<mine@example.com>"
    assert parsed(headers={"Message-ID": "<other@example.com>"}).get_all("message-id") == ["<other@example.com>"]


@pytest.mark.parametrize(("local", "flagged"), [("adä", True), ("ada", False)])
def test_smtputf8_is_wanted_only_when_nothing_else_will_do(local, flagged):
    raw = composed(to=[Mailbox("Ä", f"{local}@exämple.de")], subject="Grüße", text="Grüße")

    assert tidy(raw, now=NOW, domain="x", unique="x").smtputf8 is flagged


def test_tidy_finds_nothing_to_add():
    raw = composed(text="t", html="<p>h", attachments=[FILE, IMAGE])

    assert tidy(raw, now=NOW, domain="x", unique="x").content == raw


@pytest.mark.parametrize("html", ["<p>plain</body>", "<p>Grüße</body>", "<p>" + "日本" * 99 + "</body>", "<p>no end"])
def test_the_pixel_has_its_place_in_the_html(html):
    raw = composed(text="t", html=html, attachments=[FILE, IMAGE, Attachment(b"<p>x</body>", "x.html")])
    made = b"".join(splice.render(raw, splice.find(raw), "<img src=1>"))
    body = email.message_from_bytes(made, policy=policy.default).get_body(("html",))

    assert re.sub(r"<img src=1 *>", "", body.get_content().rstrip("\r\n")) == html


def test_headers_of_ones_own_come_through():
    links = f"<https://example.com/{'x' * 300}>, <mailto:leave@example.com>"
    references = " ".join(f"<{number}@example.com>" for number in range(40))
    message = parsed(
        headers={
            "List-Unsubscribe": links,
            "References": references,
            "X-Encoded": "=?utf-8?q?=C3=BC?=",
            "X-Comment": "Grüße",
            "Reply-To": "Zoë <zoe@example.com>, b@example.com",
            "Sender": "s@example.com",
            "X-Empty": "",
        }
    )

    raw = email.message_from_bytes(message.as_bytes())
    assert message["list-unsubscribe"] == links
    assert message["references"] == references
    assert message["x-encoded"] == message["x-comment"][:1].replace("G", "ü")
    assert message["x-comment"] == "Grüße"
    assert message["reply-to"].addresses[0].display_name == "Zoë"
    assert message["sender"] == "s@example.com"
    assert raw["x-empty"] == ""


BREAKS = ["\r\nBcc: eve@example.com", "\n", "\r", "\0", "\x0b", "\x85", "\u2028", "\u2029", "\x1b", "\ud800"]


@pytest.mark.parametrize("break_", BREAKS)
@pytest.mark.parametrize(
    ("draft", "key"),
    [
        (lambda bad: {"subject": bad}, "subject"),
        (lambda bad: {"sender": Mailbox(bad, "a@example.com")}, "from.name"),
        (lambda bad: {"to": [ADA, Mailbox(bad, "a@example.com")]}, "to[1].name"),
        (lambda bad: {"cc": [Mailbox(bad, "a@example.com")]}, "cc[0].name"),
        (lambda bad: {"reply_to": [Mailbox(bad, "a@example.com")]}, "replyTo[0].name"),
        (lambda bad: {"to": [Mailbox("", f"a{bad}@example.com")]}, "to"),
        (lambda bad: {"message_id": f"<a{bad}@example.com>"}, "messageId"),
        (lambda bad: {"headers": {"X-A": bad}}, "headers.X-A"),
        (lambda bad: {"headers": {f"X-A{bad}": "v"}}, "headers"),
        (lambda bad: {"headers": {"Reply-To": f"a{bad}@example.com"}}, "headers.Reply-To"),
        (lambda bad: {"attachments": [Attachment(b"", bad)]}, "attachments[0].filename"),
        (lambda bad: {"attachments": [Attachment(b"", content_type=f"a/b{bad}")]}, "attachments[0].contentType"),
        (lambda bad: {"attachments": [Attachment(b"", content_type=f'a/b; c="{bad}"')]}, "attachments[0].contentType"),
        (
            lambda bad: {"attachments": [Attachment(b"", content_type=f"a/b;{bad[1:-1]}c=d")]},
            "attachments[0].contentType",
        ),
        (lambda bad: {"attachments": [Attachment(b"", cid=f"a{bad}")]}, "attachments[0].cid"),
        (
            lambda bad: {"attachments": [Attachment(b"", disposition=f"inline{bad}")]},
            "attachments[0].contentDisposition",
        ),
    ],
)
def test_no_value_can_begin_another_field(draft, key, break_):
    with pytest.raises(Refused) as caught:
        composed(**draft(f"x{break_}y"))

    assert caught.value.key == key
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("draft", "key"),
    [
        ({"text": "a\0b"}, "text"),
        ({"html": "a\ud800b"}, "html"),
        ({"subject": "x" * 10_001}, "subject"),
        ({"message_id": "no at sign"}, "messageId"),
        ({"message_id": "<a@b> <c@d>"}, "messageId"),
        ({"headers": {"Bcc": "a@example.com"}}, "headers.Bcc"),
        ({"headers": {"content-type": "text/html"}}, "headers.content-type"),
        ({"headers": {"Content-Anything": "x"}}, "headers.Content-Anything"),
        ({"headers": {"MIME-Version": "1.0"}}, "headers.MIME-Version"),
        ({"headers": {"Received": "x"}}, "headers.Received"),
        ({"headers": {"X-Send-At": "2030-01-31"}}, "headers.X-Send-At"),
        ({"headers": {"From": "eve@example.com"}}, "headers.From"),
        ({"headers": {"To": "eve@example.com"}, "to": [ADA]}, "headers.To"),
        ({"headers": {"Subject": "x"}, "subject": "y"}, "headers.Subject"),
        ({"headers": {"Message-Id": "<x@y>"}, "message_id": "<y@x>"}, "headers.Message-Id"),
        ({"headers": {"Reply-To": "nobody"}}, "headers.Reply-To"),
        ({"headers": {"Reply-To": "a b@example.com, c@"}}, "headers.Reply-To"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers"),
        ({"headers": {"X A": "1"}}, "headers"),
        ({"headers": {"X-A:": "1"}}, "headers"),
        ({"headers": {"": "1"}}, "headers"),
        ({"headers": {"Ünï": "1"}}, "headers"),
        ({"headers": {"X-A": "x" * 999}}, "headers.X-A"),
        ({"headers": {"Reply-To": "a@example.com," * 1001}}, "headers.Reply-To"),
        ({"attachments": [Attachment(b"", "x" * 256)]}, "attachments[0].filename"),
        ({"attachments": [Attachment(b"", content_type="pdf")]}, "attachments[0].contentType"),
        ({"attachments": [Attachment(b"", content_type="multipart/mixed; boundary=x")]}, "attachments[0].contentType"),
        ({"attachments": [Attachment(b"", disposition="form-data")]}, "attachments[0].contentDisposition"),
        ({"attachments": [FILE, Attachment(b"", cid="a b")]}, "attachments[1].cid"),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_key(draft, key):
    with pytest.raises(Refused) as caught:
        composed(**draft)

    assert caught.value.key == key


@pytest.mark.parametrize(
    "draft",
    [
        {"headers": {"X-A": "é " * 600_000}},
        {"headers": {f"X-{number}": "x" * 100 for number in range(12_000)}},
        {"to": [Mailbox("é" * 1_100_000, "a@example.com")]},
        {"sender": Mailbox("x " * 20_000_000, "a@example.com")},
    ],
)
def test_a_header_of_megabytes_is_refused_at_once(draft):
    begun = time.process_time()
    with pytest.raises(Refused, match="header"):
        composed(**draft)

    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("x" * 998, b"7bit"),
        ("x" * 999, b"quoted-printable"),
        ("x" * 998 + "\n" + "x" * 998, b"7bit"),
        ("x\n" + "x" * 999, b"quoted-printable"),
        ("\n" * 2000 + "x" * 999 + "\n", b"quoted-printable"),
        ("x" * 998 + "\n" + "x" * 999 + "\nx", b"quoted-printable"),
        ("\r" * 5_000_000, b"7bit"),
    ],
)
def test_a_line_that_cannot_travel_is_found(text, encoding):
    head = composed(text=text).partition(b"\r\n\r\n")[0]

    assert head.endswith(b"Content-Transfer-Encoding: " + encoding)


def test_a_field_whose_meaning_is_unknown_is_bounded() -> None:
    """Encoding a megabyte of it takes a second of everybody's."""
    headers.custom("X-Thing", "ü " * 1000, "headers.X-Thing")
    with pytest.raises(Refused, match="longer than 32768"):
        headers.custom("X-Thing", "ü" * 32_769, "headers.X-Thing")
