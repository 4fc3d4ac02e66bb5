"""One pixel goes into one part, any reader gets the original around it, and what is not certain stays as it is."""

import base64
import email
import json
import quopri
import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relay.core.model import Splice
from relay.core.splice import MOST_HTML, dump, find, load, render

TAG = '<img src="https://mail.example.com/t/AbCdEfGhIjKlMnOpQrStUvWxYz012345.gif" width="1" height="1" alt="">'
IMG = re.compile(r"<img\s[^>]*\.gif[^>]*>")
PAGE = "<html><body>\r\n<p>Hello</p>\r\n</body></html>\r\n"


def message(html, encoding="7bit", charset="utf-8", codec=None, more=""):
    """One HTML part, encoded as mail programs do."""
    data = html if isinstance(html, bytes) else html.encode(codec or charset)
    if encoding == "quoted-printable":
        data = quopri.encodestring(data.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")
    if encoding == "base64":
        data = base64.encodebytes(data).replace(b"\n", b"\r\n")
    head = f"Content-Type: text/html; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n{more}\r\n"
    return head.encode() + data


def copy(content, tag=TAG):
    splice = find(content)
    assert splice is not None
    return b"".join(render(content, load(json.loads(json.dumps(dump(splice)))), tag))


def html_of(content, codec="utf-8"):
    part = next(part for part in email.message_from_bytes(content).walk() if part.get_content_type() == "text/html")
    return part.get_payload(decode=True).decode(codec)


def pixel_in(content, codec="utf-8"):
    """The HTML around the pixel, which is there once and says what it should."""
    html = html_of(copy(content), codec)
    found = IMG.search(html)
    assert found is not None
    assert re.sub(r"\s+", " ", found[0]).replace(" >", ">") == TAG
    return html[: found.start()], html[found.end() :]


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "binary", "quoted-printable", "base64"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<html><body>\r\n<p>Grüße</p>\r\n", "</body></html>\r\n"),
        ("<p>x</body><p>y", "</BODY\r\n >z\r\n"),
        ("<p>x</body>y", "</body ></html>\r\n"),
        ("<p>x", "</body/>\r\n"),
        ("<p>x</bodyguard>", "</body\r\n"),
        ("<p>x", "</body></bodyguard>\r\n"),
        ("<p>no end", "\r\n"),
        ("<p>blank lines", "\r\n\r\n\r\n"),
        ("", "</body>\r\n"),
        ("<p>a", "</body><!-- </body> --></html>\r\n"),
        ("<p>a", "</body><!-- <!-- </body> --></html>\r\n"),
        ("<!-- a --><p>a", "</body>\r\n"),
        ("<!--><p>a", "</body>\r\n"),
        ("<p>" + "long line " * 40, "</body></html>\r\n"),
        ("<p>1 < 2", "</body>\r\n"),
        ("<p>a", '</body><p title="</body>"></p>\r\n'),
        ('<p>a<p title="</body>"></p>', "\r\n"),
        ("<p>a<!-- </body> --></html>", "\r\n"),
        ("<p>a", "</body><script>var end = '</body>';</script></html>\r\n"),
        ("<style>/* </body> */</style><p>a", "\r\n"),
        ("<p>a<textarea></body></textarea>", "\r\n"),
        ("<!-- <style> --><p>a", "</body>\r\n"),
        ('<p>a<b title="1 > 0 </body>">b</b>', "</body>\r\n"),
        ("<p>a<b title='1 > 0 </body>'>b</b>", "\r\n"),
        ('<p>a<b title="1 < 2 </body>">b</b>', "\r\n"),
        ('<p>a<b title = "<i></body>">b</b>', "\r\n"),
        ('<p>a<b title="a"c="\'">b</b>', "</body>'\r\n"),
        ("<p>a<b title=a< c </body>b</b>", "\r\n"),
        ("<p>a", "</body><template></body></template></html>\r\n"),
        ("<p>a<TEMPLATE><template></body></template></body></TEMPLATE >", "</body>\r\n"),
        ("<p>a<template-card><p title='<template>'><!-- <template> -->", "</body></template-card>\r\n"),
        ("<p>a</template>", "</body>\r\n"),
        ("<p>a<iframe></body></iframe><noembed></body></noembed><noframes></body></noframes>", "\r\n"),
        ("<style title='>'>a</styles></body></style >", "\r\n"),
        ("<svg><![CDATA[ > </body> ]]></svg>", "\r\n"),
        ("<p>a<script </script></body></script>", "\r\n"),
        ("<p>a<!bogus < x </body></html>", "\r\n"),
        ("<p>a<?php '</body>' ?></html>", "\r\n"),
        ("<p>a</ </body></html>", "\r\n"),
        ("<!DOCTYPE html SYSTEM '</body>'><p>a", "\r\n"),
        ("<p>a<!-- b --!>", "</body>\r\n"),
        ("<p>a<!----!>", "</body><!-- </body> --!></html>\r\n"),
        ("<p>a<script><!-- <script> </script></body> --></script>", "\r\n"),
        ("<script><!-- <script> --></script><p>a", "</body>\r\n"),
        ("<script><!--><script></script><p>a", "</body><script></script>\r\n"),
        ("<body>a<frameset></frameset>", "</body>\r\n"),
        ("<p>a</frameset>", "</body>\r\n"),
    ],
)
def test_the_pixel_stands_before_the_last_body_end_or_at_the_end(before, after, encoding):
    assert pixel_in(message(before + after, encoding)) == (before, after)


@pytest.mark.parametrize("encoding", ["7bit", "quoted-printable", "base64"])
@pytest.mark.parametrize(
    "html",
    [
        "<p><template></body>",
        "<p><iframe></body>",
        "<p><plaintext></body>",
        "<p><script><!-- <script></script></body>",
        "<frameset><frame src=x></frameset>",
        "<html><frameset><noframes><body>x</body></noframes></frameset></html>",
        "<p><template><body></template><frameset></frameset>",
    ],
)
def test_html_whose_end_nobody_is_shown_stays_as_it_is(html, encoding):
    assert find(message(html + "\r\n", encoding)) is None


def test_what_is_shifted_is_no_markup():
    """In ISO-2022-JP the two bytes of 社 read `<R`, those of 就 `="`."""
    before = "<template></template><p>社就社社"

    content = message(before + "</body>\r\n", "7bit", "iso-2022-jp")
    assert pixel_in(content, "iso-2022-jp") == (before, "</body>\r\n")


@pytest.mark.parametrize("encoding", ["7bit", "quoted-printable", "base64"])
@pytest.mark.parametrize(
    "html",
    [
        "<p>cut off <img src=x",
        "<p>cut off </bod",
        "<p><!",
        "<p><!-- <b>x</b>",
        "<p><style>x {}",
        "<p></",
        "<p title='x>y</body>",
    ],
)
def test_html_that_ends_inside_a_tag_or_a_comment_stays_as_it_is(html, encoding):
    assert find(message(html + "\r\n", encoding)) is None


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("us-ascii", "x"),
        ("iso-8859-1", "Grüße"),
        ("windows-1251", "Привет"),
        ("koi8-r", "Привет"),
        ("gb18030", "你好"),
        ("shift_jis", "表示ソ"),
        ("euc-kr", "안녕"),
        ("big5", "功許蓋"),
        ("iso-2022-jp", "日本"),
        ("utf-7", "日本"),
        ("hz", "你好"),
    ],
)
@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
def test_the_pixel_is_written_in_the_charset_of_the_part(charset, text, encoding):
    before, after = f"<p>{text}</p>{text} a", f"</body>{text}</html>"

    assert pixel_in(message(before + after + "\r\n", encoding, charset), charset) == (before, after + "\r\n")
    assert pixel_in(message(before + "\r\n", encoding, charset), charset) == (before, "\r\n")


@pytest.mark.parametrize("charset", ["utf-16", "utf-16le", "utf-16be", "utf-32", "utf-32le", "utf-32be"])
@pytest.mark.parametrize("text", ["x", "xy", "日本😀", "İ"])  # what lower() would make longer
def test_wide_charsets_are_written_too(charset, text):
    content = message(f"<p>{text}</BODY>\r\n", "base64", charset)

    assert pixel_in(content, charset) == (f"<p>{text}", "</BODY>\r\n")


def test_a_plus_in_the_tag_is_no_shift_in_utf_7():
    content = message("<p>日本</body>\r\n", "7bit", "utf-7")

    assert TAG.replace(".com", ".com+1") in html_of(copy(content, TAG.replace(".com", ".com+1")), "utf-7")


@pytest.mark.parametrize(
    "content",
    [
        message("<p>x</body>\r\n", "base64", "utf-16", codec="utf-16-le"),  # no mark: read either way
        message("<p>x</body>\r\n", "base64", "utf-8", codec="utf-16-le"),  # mislabelled
        message("<p>x</body>\r\n", "7bit", "utf-16le", codec="ascii"),
        message("<p>x</body>\r\n", "quoted-printable", "utf-16le"),
        message("<p>x</body>\r\n", "base64", "cp037"),
        message("<p>x\r\n", "base64", "x-nobody-knows", codec="cp037"),
        message(b"<p>\x1b$BF|K\\</body>\r\n", "7bit", "iso-2022-jp"),  # never shifted back
        message(b"<p>\x1b$BF|K\x1b(B</body>\r\n", "7bit", "iso-2022-jp"),  # half a character
        message(b"<p>\x0e</body>\r\n", "7bit", "iso-2022-kr"),
        message(b"<p>~{</body>\r\n", "7bit", "hz-gb-2312"),
        message("<p>x</body>\r\n", "x-uuencode"),
        message("<p>x</body>\r\n", "utf-8"),
        message("<p>x</body>\r\n", "base64 ", codec="utf-8"),
        message("<p>x</body>\r\n", "7bit", more="Content-Disposition: attachment\r\n"),
        message("<p>x</body>\r\n", "7bit", more='Content-Disposition: ATTACHMENT; filename="a"\r\n'),
        message("<p>x</body>\r\n", "7bit", more="Content-Disposition: form-data\r\n"),
        message("<p>x</body>\r\n" + "<p>y</p>\r\n" * (MOST_HTML // 10 + 1), "7bit"),
        message("", "7bit"),
        b"Content-Type: text/html\r\n",
        b"Content-Type: text/plain\r\n\r\n<p>x</body>\r\n",
        b"Content-Type: application/pkcs7-mime\r\n\r\n<p>x</body>\r\n",
        b"",
    ],
)
def test_what_is_not_certain_stays_as_it_is(content):
    assert find(content) is None


@pytest.mark.parametrize("charset", ["x-nobody-knows", '"wrong name"', "utf-8mb4", "idna", "\xfc"])
def test_a_wrong_charset_name_does_not_matter_where_ascii_is_seen_to_be_ascii(charset):
    assert find(message("<p>x</body>\r\n", "7bit", charset, codec="ascii")) is not None


def test_a_disposition_of_inline_is_no_attachment():
    assert find(message(PAGE, more="Content-Disposition: inline; filename=x.html\r\n")) is not None


@pytest.mark.parametrize(
    "body",
    [
        b"PHA+eDwvYm9keT4\r\n",  # padding missing
        b"PHA+eDwv!Ym9keT4=\r\n",
        b"PHA+eDwvYm9keT4=\r\nList footer\r\n",
        b"PHA+eA==PC9ib2R5Pg==\r\n",
        b"PHA+eDwvYm9keT4= \r\n",
        b"=\r\n",
        b"\r\n",
    ],
)
def test_base64_that_is_not_stays_as_it_is(body):
    assert find(message(body, "7bit").replace(b"7bit", b"base64")) is None


@pytest.mark.parametrize("split", range(1, 4))
def test_base64_whose_divided_bytes_stand_on_two_lines_stays_as_it_is(split):
    whole, divided = base64.b64encode(b"<p>x"), 4 + split
    content = message(whole[:divided] + b"\r\n" + whole[divided:] + b"\r\n", "7bit").replace(b"7bit", b"base64")

    assert find(content.replace(b"\r\n" + whole[divided:], whole[divided:])) is not None
    assert find(content) is None


@pytest.mark.parametrize("width", [4, 6, 10, 60, 64, 75, 76, 80, 1000])
@pytest.mark.parametrize("size", range(7))
def test_base64_lines_that_are_not_touched_stay(width, size):
    html = b"<p>" + b"x" * (100 + size) + b"</body></html>" + b"y" * 50
    flat = base64.b64encode(html)
    lines = [flat[at : at + width] for at in range(0, len(flat), width)]
    content = message(b"\r\n".join(lines) + b"\r\n", "7bit").replace(b"7bit", b"base64")
    splice = find(content)
    if splice is None:
        assert width % 4  # the quantum that would be opened goes over a line end
        return
    made = b"".join(render(content, splice, TAG))

    assert content.startswith(made[: splice.start])
    assert made.endswith(content[splice.end :])
    assert splice.end - splice.start in (0, 4)
    assert "".join(IMG.split(html_of(made))) == html.decode()
    new = made.split(b"\r\n\r\n", 1)[1].split(b"\r\n")
    assert max(map(len, new)) <= max(76, width)
    assert b"".join(new[:-1]).count(b"=") <= 2


@pytest.mark.parametrize("column", [0, 1, 60, 69, 70, 71, 72, 73, 74, 75, 76])
@pytest.mark.parametrize("filler", [b"x", b"=C3=BC"])
def test_quoted_printable_lines_stay_within_76(column, filler):
    line = re.sub(rb"=[0-9A-F]?\Z", lambda cut: b"x" * len(cut[0]), (filler * column)[:column])
    for after in (b"</body>\r\n", b"=\r\n</body>\r\n", b"\r\n", b"", b"  \r\n", b"=\r\n"):
        content = message(b"<p>=20=\r\n" + line + after, "7bit").replace(b"7bit", b"quoted-printable")
        made = copy(content)

        assert max(map(len, made.split(b"\r\n"))) <= max(76, *map(len, content.split(b"\r\n")))
        assert "".join(IMG.split(html_of(made, "latin-1"))) == html_of(content, "latin-1")


@pytest.mark.parametrize(
    "end",
    [
        b"</body>",
        b"</body=3E",
        b"=3C/body>",
        b"=3c=2Fbody=3e",
        b"</bo=\r\ndy>",
        b"<=\r\n/=\r\nb=\r\no=\r\ndy =\r\n>",
        b"</=42ody>",
    ],
)
@pytest.mark.parametrize("after", [b"</html>\r\n", b"x" * 60 + b"=\r\n" * 300 + b"\r\n"])
def test_a_body_end_in_quoted_printable_is_found_in_every_spelling(end, after):
    content = message(b"<p>=C3=BC" + end + after, "7bit").replace(b"7bit", b"quoted-printable")

    assert pixel_in(content)[0] == "<p>ü"


@pytest.mark.parametrize("body", [b"<p>x=</body>\r\n", b"<p>x==\r\n", b"<p>x=4</body>\r\n", b"<p>=XY</body>\r\n"])
def test_malformed_quoted_printable_comes_back_or_stays_as_it_is(body):
    content = message(body, "7bit").replace(b"7bit", b"quoted-printable")

    assert find(content) is None or "".join(pixel_in(content)) == html_of(content)


@pytest.mark.parametrize("length", [0, 800, 900, 950, 980, 994, 995, 998, 999, 5000])
@pytest.mark.parametrize("rest", [0, 10, 900])
def test_no_line_becomes_too_long(length, rest):
    content = message("<p>" + "x" * length + "</body>" + "y" * rest + "\r\n")
    splice = find(content)
    was = max(map(len, content.split(b"\r\n")))
    if splice is None:
        assert 990 < was <= 998
        return
    made = b"".join(render(content, splice, TAG))
    assert max(map(len, made.split(b"\r\n"))) <= max(998, was + len("<img"))
    assert "".join(pixel_in(content)) == html_of(content)


def multipart(*parts, kind="mixed", boundary="b"):
    body = b"".join(b"--%b\r\n%b\r\n" % (boundary.encode(), part) for part in parts)
    head = f"Content-Type: multipart/{kind}; boundary={boundary}\r\n\r\n"
    return head.encode() + body + f"--{boundary}--\r\n".encode()


TEXT = b"Content-Type: text/plain\r\n\r\nplain"


@pytest.mark.parametrize("end", ["", "\r\n", "\r\n\r\n", "</body>"])
@pytest.mark.parametrize("encoding", ["7bit", "quoted-printable", "base64"])
def test_the_first_html_of_several_is_taken_and_its_boundary_stays(end, encoding):
    first, second = message("<p>first" + end, encoding), message("<p>second", encoding)
    content = multipart(TEXT, multipart(first.removesuffix(b"\r\n"), second, boundary="c"), TEXT)
    before, after = (email.message_from_bytes(one) for one in (content, copy(content)))
    pairs = list(zip(before.walk(), after.walk(), strict=True))

    changed = [(a, b) for a, b in pairs if not a.is_multipart() and a.get_payload() != b.get_payload()]
    assert len(changed) == 1
    assert "first" in changed[0][0].get_payload(decode=True).decode()
    assert [a.items() for a, _ in pairs] == [b.items() for _, b in pairs]


@pytest.mark.parametrize("kind", ["signed", "encrypted", "SIGNED; micalg=x"])
def test_signed_and_encrypted_mail_stays_as_it_is(kind):
    assert find(multipart(message(PAGE), TEXT, kind=kind)) is None
    assert find(multipart(TEXT, multipart(message(PAGE), TEXT, kind=kind, boundary="c"))) is None


@pytest.mark.parametrize("encoding", ["7bit", "quoted-printable", "base64"])
def test_html_that_was_signed_as_text_stays_as_it_is(encoding):
    armoured = "-----BEGIN PGP SIGNED MESSAGE-----\r\nHash: SHA256\r\n\r\n{}-----BEGIN PGP SIGNATURE-----\r\n"
    assert find(message(armoured.format(PAGE), encoding)) is None
    assert find(multipart(TEXT, message(armoured.format(PAGE), encoding), kind="alternative")) is None


def test_an_enclosed_message_stays_as_it_is():
    assert find(multipart(TEXT, b"Content-Type: message/rfc822\r\n\r\n" + message(PAGE))) is None
    assert find(multipart(TEXT, b"\r\n" + message(PAGE), kind="digest")) is None


def test_a_signature_of_the_senders_own_server_is_no_reason():
    assert find(b"DKIM-Signature: v=1; a=x\r\n" + message(PAGE)) is not None


@pytest.mark.parametrize("more", ["Content-Disposition: inline; filename=contract.html\r\n", ""])
def test_an_html_file_beside_the_text_is_passed_over(more):
    """Many programs say `inline` of files, or nothing but their name."""
    file = message(PAGE, more=more)
    file = file if more else file.replace(b"text/html", b"text/html; name=contract.html")
    assert find(multipart(TEXT, file)) is None


def test_an_attached_html_is_passed_over():
    attached = message("<p>attached", more="Content-Disposition: attachment\r\n")
    content = multipart(TEXT, attached, message("<p>shown</body>"))

    assert content[: find(content).start].endswith(b"shown")


def test_the_pieces_are_slices_around_the_pixel():
    content = message(PAGE)
    before, pixel, after = render(content, find(content), TAG)

    assert before + after == content
    assert pixel == TAG.encode()


def test_a_splice_survives_json():
    splice = Splice(3, 7, "base64", "ascii", b"\x00\xff", b"x")

    assert load(json.loads(json.dumps(dump(splice)))) == splice


@pytest.mark.parametrize(
    "body",
    [
        b"</body" * 100_000,
        b"</body>" * 100_000 + b"<!--",
        b"<!--" + b"</body>" * 100_000,
        b"<!--</body>" * 50_000,
        b"<a </body>" * 50_000,
        b"<style>" * 70_000 + b"</body>",
        b"<style " * 70_000 + b"></body>",
        b"<script " * 70_000 + b"></body>",
        b"<script><!-- " * 40_000 + b"</body>",
        b"<script><!-- <script></script>" * 20_000 + b"</body>",
        b"<!-- <style> --><style></styl" * 20_000 + b"</body>",
        b'<a b="' * 80_000 + b"'</body>",
        b"<!--><![CDATA[>" * 40_000 + b"</body>",
        b"<template><iframe>" * 30_000 + b"</body>",
        b"<template></" + b"a=<'=" * 100_000 + b"</body>",
        b"<a " + b"= " * 250_000 + b"</body>",
        b"<" * 500_000,
        b"<=\r\n" * 100_000,
        b"=3C" * 200_000,
        b"\x1b$B" * 100_000,
        b"\r\n" * 300_000 + b"x",
        b" " * 500_000,
        b"A" * 500_000,
        b"QUJD\r\n" * 100_000,
        b"~{</body>" * 50_000,
        b"PHA+PC9ib2R5Pnh4\r\n" + b"Q\r\n" * 2_000_000 + b"\r\n" * 4_000_000,
    ],
)
@pytest.mark.parametrize("encoding", [b"7bit", b"quoted-printable", b"base64"])
def test_time_is_linear_in_the_size(body, encoding):
    content = message(body, "7bit").replace(b"7bit", encoding, 1)
    begun = time.process_time()
    splice = find(content)
    if splice:
        render(content, splice, TAG)

    assert time.process_time() - begun < 2


PIECES = [
    "<p>",
    "x",
    "ü",
    "日本",
    " ",
    "\r\n",
    "</body>",
    "</BODY >",
    "<!--",
    "-->",
    "=",
    "</",
    "body>",
    ".",
    "--b",
    "<",
    ">",
    '"',
]


@given(
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
    st.sampled_from(["8bit", "quoted-printable", "base64"]),
    st.sampled_from(["utf-8", "utf-16", "iso-2022-jp", "gb18030", "utf-7"]),
    st.integers(0, 200),
)
def test_whatever_the_html_the_original_is_around_the_pixel(html, encoding, charset, padding):
    assume(encoding == "base64" or charset != "utf-16")
    try:
        data = ("<p>" + "y" * padding + html + "\r\n").encode(charset)
    except UnicodeEncodeError:
        return
    content = multipart(TEXT, message(data, encoding, charset))
    assume(b"\r\n--b" not in data)
    if find(content) is None:
        return
    made = copy(content)
    original, tracked = html_of(content, charset), html_of(made, charset)

    assert any(tracked[: at.start()] + tracked[at.end() :] == original for at in IMG.finditer(tracked))
    assert made.count(b"\r\n") == made.count(b"\n")
    assert TEXT in made


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: message(PAGE, "base64") + tail))
def test_any_bytes_are_taken(content):
    splice = find(content)
    if splice:
        before, _, after = render(content, splice, TAG)
        assert content.startswith(before)
        assert content.endswith(after)
