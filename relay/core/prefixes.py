"""What mail programs put before a subject when they answer and forward, in the languages that they speak.

Read as it is written by the programs named; a word of one letter, or one that people begin subjects with, is not here:
taking off too much harms more than a prefix too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

ANSWERED = "Re"
FORWARDED = "Fwd"

_ANSWERS = (
    *("re", "aw", "antw", "antwort", "sv", "vs", "odp", "rif", "ynt", "cevap", "bls", "atb", "vá"),  # Latin
    *("αη", "απ", "σχετ", "отв", "ответ", "на", "відп"),  # Greek, Russian, Ukrainian
    *("回复", "答复", "回覆", "答覆", "返信", "회신", "답장"),  # Chinese, Japanese, Korean
    *("رد", "השב", "תגובה"),  # Arabic, Hebrew
)
_FORWARDS = (
    *("fwd", "fw", "wg", "tr", "vb", "vl", "vs", "rv", "enc", "pd", "doorst", "i̇lt", "ilt", "trs", "yml", "továbbítás"),
    *("πρθ", "пересл", "перес"),
    *("转发", "轉寄", "轉發", "転送", "전달"),
    *("إعادة توجيه", "הועבר"),
)


def _run(words: Iterable[str]) -> re.Pattern[str]:
    """One prefix or several: counted as in RE[2], Re(2) and Re^2, with a blank before the colon as the French write."""
    any_of = "|".join(re.escape(word) for word in sorted(set(words), key=len, reverse=True))
    return re.compile(rf"(?:\s*(?:{any_of})(?:\[\d{{1,3}}\]|\(\d{{1,3}}\)|\^\d{{1,3}})?\s?[:：])+\s*", re.IGNORECASE)


_ANSWER_RUN, _FORWARD_RUN = _run(_ANSWERS), _run(_FORWARDS)


_ANY_RUN = re.compile(
    rf"(?:\s*\[[^\[\]]{{1,40}}\])?(?:\s*[ri]:|{_ANSWER_RUN.pattern}|{_FORWARD_RUN.pattern})", re.IGNORECASE
)


def prefixed(subject: str) -> bool:
    """Whether it answers or forwards, behind a word in brackets maybe, as gateways put there: `[EXTERNAL] Re: `.

    Italian's single letters count: nothing is taken off here.
    """
    return bool(_ANY_RUN.match(subject))


def answering(subject: str) -> str:
    """`Re:` before it, once, whatever said so before."""
    return _prefixed(ANSWERED, _ANSWER_RUN, subject)


def forwarding(subject: str) -> str:
    """`Fwd:` before it, once, whatever said so before."""
    return _prefixed(FORWARDED, _FORWARD_RUN, subject)


def _prefixed(prefix: str, run: re.Pattern[str], subject: str) -> str:
    found = run.match(subject)
    rest = subject[found.end() :] if found else subject
    return f"{prefix}: {rest.strip()}".rstrip()
