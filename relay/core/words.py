"""Encoded words: how header fields spell what is not ASCII (RFC 2047). Reading is tolerant, writing is strict."""

from __future__ import annotations

import binascii
import re
from itertools import groupby

LONGEST = 75  # characters of one encoded word (RFC 2047 2)
_FRAME = len("=?utf-8?q??=")
_LITERAL = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/ ")
_WORD = re.compile(r"=\?([^?\s]{1,60})\?([bq])\?([^?\s]*)\?=", re.IGNORECASE)
_RUN = re.compile(rf"{_WORD.pattern}(?:\s*{_WORD.pattern})*", re.IGNORECASE)
_CODECS = re.compile(  # only these: Python has codecs that are not charsets, and some that are slow
    r"(?:us-)?ascii|utf-?(?:7|8|16(?:be|le)?)|iso[-_]?8859[-_]?\d{1,2}|(?:windows|cp)-?\d{3,4}|koi8-[rut]|gb2312|gbk|gb18030"
    r"|big5(?:-hkscs)?|hz-gb-2312|euc-(?:jp|kr)|iso-2022-(?:jp(?:-[123])?|kr)|shift_jis|ks_c_5601-1987|tis-620|macintosh",
    re.IGNORECASE,
)


def decode(text: str) -> str:
    """The text with its encoded words read; what cannot be read stays as it is. Never raises."""
    return _RUN.sub(lambda run: _read(run[0]), text) if "=?" in text else text


def encode(text: str, first: int = LONGEST) -> list[str]:
    """UTF-8 words, to be set apart by blanks. `first` is the room for the first one. No character is divided."""
    packed = 3 * sum(char not in _LITERAL for char in text) > len(text)
    found, piece, size, room = [], "", 0, first - _FRAME
    for char in text:
        cost = len(char.encode()) if packed else len(_quoted(char))
        if piece and (size + cost + 2) // 3 * 4 > room if packed else size + cost > room:
            found.append(piece)
            piece, size, room = "", 0, LONGEST - _FRAME
        piece, size = piece + char, size + cost
    found.append(piece)
    return [_word(piece, packed) for piece in found]


def text_of(raw: bytes) -> str:
    """Header bytes as text: UTF-8, else Latin-1, which reads anything."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def decoded(raw: bytes, charset: str) -> str:
    """Text in this charset, else UTF-8, else Latin-1. Never raises."""
    if _CODECS.fullmatch(charset):
        try:
            return raw.decode(charset, "replace").encode("utf-8", "replace").decode()
        except LookupError:
            pass
    return text_of(raw)


def _word(piece: str, packed: bool) -> str:
    if packed:
        return f"=?utf-8?b?{binascii.b2a_base64(piece.encode(), newline=False).decode()}?="
    return f"=?utf-8?q?{_quoted(piece)}?="


def _quoted(text: str) -> str:
    return "".join(
        char.replace(" ", "_") if char in _LITERAL else "".join(f"={byte:02X}" for byte in char.encode())
        for char in text
    )


def _read(run: str) -> str:
    """Words of one charset are joined before they are decoded: some senders divide a character between two."""
    words = [(match[1].partition("*")[0].lower(), _bytes(match[2], match[3])) for match in _WORD.finditer(run)]
    if not all(raw is not None and _CODECS.fullmatch(charset) for charset, raw in words):
        return run
    try:
        text = "".join(
            b"".join(raw or b"" for _, raw in group).decode(charset, "replace")
            for charset, group in groupby(words, key=lambda word: word[0])
        )
    except LookupError:
        return run
    return text.encode("utf-8", "replace").decode()  # UTF-7 can spell half a character


def _bytes(kind: str, text: str) -> bytes | None:
    try:
        raw = text.encode("ascii")
        return binascii.a2b_qp(raw, header=True) if kind in "qQ" else binascii.a2b_base64(raw + b"==")
    except ValueError:
        return None
