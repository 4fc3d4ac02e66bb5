"""Where in a piece of HTML the pixel goes, and how it is spelled there: before the last </body>, else at the end.

HTML is searched as bytes. That is right for every charset in which ASCII bytes mean ASCII, and for the ones that shift
(ISO-2022, HZ) as long as the place is in their unshifted state. UTF-16 and UTF-32 are decoded first. What shows no sign
of being either is left alone.
"""

from __future__ import annotations

import re

_TAG = b"</body"
_AFTER = frozenset((b">", b"/", b" ", b"\t", b"\r", b"\n", b"\f"))

# In lower case, as all of these. What begins and does not end hides all that follows: the reading stops there, so that
# it is linear in the size.
_MARKUP = re.compile(rb"<(?:[!?a-z]|/(?!>))")
_HOLD = rb"style|textarea|title|xmp|iframe|noembed|noframes"  # what is in these is no markup
_RAW = rb"(?P<raw>(?P<script>script)|" + _HOLD + rb")(?=[\s/>])"
_SCRIPT = (  # within a comment in it, one more <script> takes the next </script> for itself (HTML 13.2.5.26)
    rb"(?:[^<]++|(?!<!--|</script[\s/>])<|<!(?=--)(?:(?!-->|</?script[\s/>])."
    rb"|<script(?=[\s/>])(?:(?!-->|</script[\s/>]).)*+(?:</script)?)*+)*+"
)
_VALUE = rb"(?:\"[^\"]*+\"|'[^']*+'|[^\s\"'>][^\s>]*+|(?=>))"
_REST = rb"(?:[\s/]++|[^\s/>][^\s/>=]*+(?:\s*+=\s*+" + _VALUE + rb"|(?!\s*+=)))*+>"  # of a tag, after its name
_TOKENS = re.compile(
    rb"<!--(?:-?>|.*?--!?>)|<!\[cdata\[.*?\]\]>|<(?!!--|!\[cdata\[)(?:[!?]|/[^a-z>])[^>]*+>"
    rb"|<(?:" + _RAW + _REST + rb"(?(script)" + _SCRIPT + rb"|.*?)(?=</(?P=raw)[\s/>])"
    rb"|(?!(?:script|" + _HOLD + rb"|plaintext)[\s/>])"
    rb"(?P<name>/?+[a-z][^\s/>]*+)" + _REST + rb")|(?P<unfinished>" + _MARKUP.pattern + rb".*)",
    re.DOTALL,
)
# Only with two <script> in a row may a </script> not be the end.
_TWICE = rb"script[\s/>][^<]*+(?:<(?!/?script[\s/>])[^<]*+)*+<script[\s/>]"
_OPENS = re.compile(rb"<(?:" + _TWICE + rb"|" + _RAW + rb"|template|plaintext|frameset|!\[cdata\[)")
# A value may hide what begins or ends a tag. The sets say what may be there: to say what may not takes twice the time.
_QUOTED = re.compile(rb"=\s*+(?:\"[\0-!#-;=?-\xff]*+[<>]|'[\0-&(-;=?-\xff]*+[<>])")
_SIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"  # the HTML itself, without MIME (RFC 9580 7): its </body> is signed too
_ASCII = re.compile(
    rb"(?:us-)?ascii|ansi_x3\S*|utf-?8|iso[-_]?8859[-_]?\d+(?:-[ei])?|latin-?\d|iso-2022-\w+|koi8-\w+|gb2312|gbk|gb18030"
    rb"|(?:windows|cp)-?(?:125\d|874|932|936|949|950)|big5(?:-hkscs)?|euc-\w+|shift[-_]jis|ks_c_5601-1987|tis-620"
)
_WIDE = {
    b"utf-16le": ((b"", "utf-16-le"),),
    b"utf-16be": ((b"", "utf-16-be"),),
    b"utf-16": ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")),
    b"utf-32le": ((b"", "utf-32-le"),),
    b"utf-32be": ((b"", "utf-32-be"),),
    b"utf-32": ((b"\xff\xfe\0\0", "utf-32-le"), (b"\0\0\xfe\xff", "utf-32-be")),
}
"""Codecs by the mark at the beginning of the text. Unmarked UTF-16 is read either way: left alone."""

_CHARACTERS = re.compile(rb"\x1b(?:\((.)|\$\(?([@-~]))", re.DOTALL)  # ISO-2022: what the next bytes mean
_SHIFTED = re.compile(rb"\x1b(?:\$|\((?![BJ]))[^\x1b]*+|\x0e[^\x0f]*+")
_TORN = re.compile(rb"\x1b\$\(?[@-~](?!(?:[!-~]{2})*+\x1b)")  # not in pairs: readers lose step in their own ways


def place(html: bytes, charset: bytes) -> tuple[int, str] | None:
    """The offset of the pixel in the decoded part, and the codec to write it in. None: better leave it alone."""
    if charset in _WIDE:
        return _place_wide(html, charset)
    if b"\0" in html or _SIGNED in html or not (_ASCII.fullmatch(charset) or _MARKUP.search(html.lower())):
        return None
    at = _position(_masked(html))
    if at is None or _shifted(html, at, charset):
        return None
    return at, "utf-7" if charset.endswith(b"utf-7") else "ascii"


def _position(html: bytes) -> int | None:
    """Where the last </body> begins that is markup, in no comment, tag, script or template; else the end, likewise."""
    html = html.lower()
    at = html.rfind(_TAG)
    while at >= 0 and not _is_body(html, at):
        at = html.rfind(_TAG, 0, at)
    end = len(html.rstrip(b"\r\n"))
    at = at if at >= 0 else end
    return _read(html, end) if _hidden(html, at) else at


def _is_body(html: bytes, at: int) -> bool:
    return html.startswith(_TAG, at) and html[at + len(_TAG) : at + len(_TAG) + 1] in _AFTER


def _hidden(html: bytes, at: int) -> bool:
    """Whether what stands there may be no markup. To be sure takes reading all before it, at twenty times the cost."""
    return (
        _in_comment(html, at)
        or _MARKUP.search(html, html.rfind(b">", 0, at) + 1, at) is not None
        or _enclosed(html, at)
        or _QUOTED.search(html, 0, at + 1) is not None
    )


def _in_comment(html: bytes, at: int) -> bool:
    begin = html.rfind(b"<!--", 0, at)
    return begin >= 0 and html.find(b"-->", begin + 2, at) < 0


def _enclosed(html: bytes, at: int) -> bool:
    """In a script or the like that has not ended; or there is something in which markup is not shown."""
    last = {found["raw"]: html.find(b">", found.end()) for found in _OPENS.finditer(html, 0, at)}
    return None in last or any(html.find(b"</" + name + b">", end, at) < 0 for name, end in last.items())


def _read(html: bytes, end: int) -> int | None:
    """As `_position`, from the beginning, a tag at a time, as HTML 13.2.5 says; None where something does not end."""
    found, templates, has_body = None, 0, False
    for token in _TOKENS.finditer(html):
        name = token["name"]
        if not templates and _is_body(html, token.start()):
            found = token.start()
        elif token["unfinished"] is not None:
            return found
        elif name == b"template":  # what is in one is shown to nobody
            templates += 1
        elif name == b"/template":
            templates = max(templates - 1, 0)
        elif name == b"body":
            has_body = has_body or not templates
        elif name == b"frameset" and not has_body and found is None:  # frames instead of a body: they show no more
            return None
    return end if found is None and not templates else found


def _masked(html: bytes) -> bytes:
    """Without what is shifted: half of a character there may look like `<` or a quote."""
    shifts = b"\x1b" in html or b"\x0e" in html
    return _SHIFTED.sub(lambda found: b"." * len(found[0]), html) if shifts else html


def _place_wide(html: bytes, charset: bytes) -> tuple[int, str] | None:
    codec = next((codec for mark, codec in _WIDE[charset] if html.startswith(mark)), None)
    try:
        text = html.decode(codec) if codec else ""
    except UnicodeDecodeError:
        return None
    if codec is None or "<" not in text:
        return None
    at = _position(text.encode("latin-1", "replace"))  # a byte a character, so that offsets stay
    return None if at is None else (len(text[:at].encode(codec)), codec)


def _shifted(html: bytes, at: int, charset: bytes) -> bool:
    """Whether the bytes at `at` do not mean ASCII, in a charset that shifts."""
    if html.rfind(b"\x0e", 0, at) > html.rfind(b"\x0f", 0, at):
        return True
    if charset.startswith(b"hz"):
        return html.rfind(b"~{", 0, at) > html.rfind(b"~}", 0, at)
    if b"\x1b" not in html:
        return False
    if _TORN.search(html):
        return True
    meanings = [match[1] for match in _CHARACTERS.finditer(html, 0, at)]
    return bool(meanings) and meanings[-1] not in (b"B", b"J")
