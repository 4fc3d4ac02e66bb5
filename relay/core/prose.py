"""Bounces as people are told of them: which addresses a notice says have failed, and what it says of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from relay.core import phrases


@dataclass(frozen=True, slots=True)
class Told:
    """What a report says of one recipient. `action` and `status` as in RFC 3464; "" is not told.

    `source` is the type of the diagnostic code: `smtp`, `x-unix`; "" where the words stand alone. `given_up`: it is
    tried no more, though it may be `delayed`, since nothing but time was against it.
    """

    recipient: str
    action: str = ""
    status: str = ""
    diagnostic: str = ""
    mta: str = ""
    source: str = ""
    given_up: bool = False


_UNSPACED = r"\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef"  # scripts that set no blank before an address
_WORD = rf"(?:(?![{_UNSPACED}])\w)"
_SIGNS = "!#$%&*+/=?^`{|}~-"
_ATOM = rf"(?:{_WORD}|['{_SIGNS}])"
_LOCAL = rf"(?<![.@{_SIGNS}])(?<!{_WORD})(?<!{_WORD}')(?!'){_ATOM}(?:{_ATOM}|\.){{0,63}}"
_QUOTED_LOCAL = r"\"[^\"\s@<>]{1,64}(?: [^\"@<>\s]{1,64}){0,3}\""
_NAMED = rf"{_WORD}(?:(?:{_WORD}|-){{0,62}}\.){{1,10}}(?![\d_]){_WORD}(?:{_WORD}|-){{0,61}}(?!_){_WORD}"
_DOMAIN = rf"(?:\[(?:\d{{1,3}}\.){{3}}\d{{1,3}}\]|{_NAMED})"
_BRACKETED = rf"(?<=<)(?!')[.\w'{_SIGNS}]{{1,64}}@(?:[\w-]{{1,63}}\.){{1,10}}[^\W\d_][\w-]{{0,61}}[^\W_](?=>)"
ADDRESS = re.compile(rf"(?:{_BRACKETED}|(?:{_QUOTED_LOCAL}|{_LOCAL})@{_DOMAIN}(?!{_WORD}|@))")
"""An address (RFC 5322, RFC 6531). One in letters that stand unspaced is known by its brackets alone."""

SAID = re.compile(
    r"(?:^|[\s:(\[<>])(?:[45]\d\d[ -](?:#?[45]\.\d{1,3}\.\d{1,3}\b|[^\d\s])|#?[45]\.\d{1,2}\.\d{1,3}\b)", re.MULTILINE
)
"""Where an SMTP reply is quoted."""

_STATUS = re.compile(r"(?<![\d.])([45]\.\d{1,2}\.\d{1,3})(?![.]?\d)")
_REFUSED = re.compile(r"\b5[0-5]\d[ -]")
_RCPT = re.compile(r"rcpt to\s?:?\s?<?$", re.IGNORECASE)
_EXPANDED = re.compile(r"(?:generated|expanded) from\s?<?$", re.IGNORECASE)
_DESCRIBED = re.compile(r"^[ \t>*]{0,20}(?:to|cc|bcc|an|à|para|a)\s?:\s", re.IGNORECASE)
_ALONE = re.compile(r"^[ \t>*•·–—-]*(?:smtp:\s?|mailto:\s?)?[<\"'\[(]*$", re.IGNORECASE)
_AFTER = re.compile(
    r"[>\"'\])]*\s*(?:$|[:;,…(\[]|\.{3}|-\s|<mailto|(?:failed|unknown|user|on \w|was|is)\b)", re.IGNORECASE
)
_FIELD = re.compile(
    r"(?:>[ ]?|[ \t]{1,8})?(?:return-path|received|dkim-signature|domainkey-signature|message-id|from|to|subject|date"
    r"|mime-version|content-type|x-[\w-]{2,40}|sender|reply-to|delivered-to|user-agent|arc-[\w-]+"
    r"|authentication-results)[ \t]*:",
    re.IGNORECASE,
)
_TRACE = re.compile(r"[>\s]{0,8}(?:return-path|received|message-id|mime-version|dkim-signature)[ \t]*:", re.IGNORECASE)
_QUOTED = re.compile(r"^(?:>[ ]?|[ \t]{1,8}(?=[\w-]+\s?:))")
_SUMMARY = re.compile(r"^(?:from|to|subject)\s?:.*\n(?:[\w-]+\s?:.*\n|[ \t].*\n)+", re.IGNORECASE | re.MULTILINE)

_SAYING = re.compile(r"[^ \t\n<>()\[\]\"',;:*-]")  # none of these is between addresses of which the same is said
MOST = 400  # addresses that are looked at
REACH = 1500  # characters after an address that may speak of it


def before_original(text: str) -> str:
    """The notice, without the copy of the original message that follows it."""
    lines = text.split("\n")
    header = _header_at(lines)
    kept = text if header is None else "\n".join(lines[:header])
    first = ADDRESS.search(kept)
    cut = phrases.ORIGINAL.search(kept, first.end()) if first else None
    return kept[: cut.start()] if cut else kept


def original_header(text: str) -> str:
    """The header fields of the original message, where the text has them; "" where not."""
    lines = text.split("\n")
    header = _header_at(lines)
    if header is not None:
        return "\n".join(_QUOTED.sub("", line) for line in lines[header : header + 300])
    for cut in islice(phrases.ORIGINAL.finditer(text), 20):
        if found := _SUMMARY.search(text[cut.end() : cut.end() + 4000].lstrip("\n -=")):
            return found[0]
    return ""


def read(text: str, others: frozenset[str]) -> Iterator[Told]:
    """The recipients that a notice says something of. `others` are the addresses (lower case) it is from and to."""
    seen = [one for one in _seen(text, others) if one.weight > 0]
    if not seen:
        return
    least = min(3, max(one.weight for one in seen))
    firsts: dict[str, _Seen] = {}
    for one in seen:
        if one.weight >= least:
            firsts.setdefault(one.address.lower(), one)
    places = sorted(one.start for one in firsts.values())
    common = text if len(places) == 1 else text[: places[0]]  # what is said of another is not said of this one
    common_status = status_in(common)
    heads = [place for place in places if not _EXPANDED.search(text, max(0, place - 20), place)]  # of each one's part
    for one in firsts.values():
        after = one.start + len(one.address)
        begins = _SAYING.search(text, after)
        following = next((place for place in heads if begins and place > begins.start()), len(text))
        said = text[after : min(following, after + REACH)]
        if not SAID.search(said) and following == len(text):
            said += " " + common[:REACH]
        yield Told(one.address, status=status_in(said) or common_status, diagnostic=_diagnostic(said))


def names(text: str, others: frozenset[str]) -> bool:
    """Whether some address is surely meant."""
    return any(one.weight >= 3 for one in _seen(text, others))


def status_in(text: str) -> str:
    """The first enhanced status code that tells of a failure or a delay; "" without one."""
    found = _STATUS.search(text)
    return found[1] if found else ""


def judged(told: Iterable[Told], subject: str, text: str) -> Iterator[Told]:
    """Each with an action: `delivered` where it says so; `failed`; or `delayed` where time is the fault, which says
    nothing against the address: of mail that is still tried, or was given up for want of an answer.

    A report may name very many: what is said of all of them is searched once.
    """
    delayed = bool(phrases.DELAYED.search(text[:4000]) or phrases.DELAYED.search(subject))
    arrived = _arrived(text[:4000])
    why = _why(text[:3000])
    for one in told:
        if one.action not in ("", "failed"):
            yield one
        elif not one.action and delayed:
            yield replace(one, action="delayed")
        elif not one.action and arrived and not one.status:
            yield replace(one, action="delivered")
        else:
            ran_out = _ran_out(one.status, _why(one.diagnostic) if one.diagnostic else why)
            yield replace(one, action="delayed" if ran_out else "failed", given_up=True)


def _arrived(text: str) -> bool:
    """It says so, and nothing that it says beside tells of a failure."""
    rest = phrases.DELIVERED.sub("", text)
    return rest != text and not (SAID.search(text) or phrases.FAILED.search(rest))


def _why(said: str) -> str:
    """What the words have against the address, or for it: "address", "time", "answer", or "" for nothing of these."""
    if phrases.AGAINST_ADDRESS.search(said):
        return "address"
    if phrases.EXPIRED.search(said):
        return "time" if "expired" in said.lower() or not _REFUSED.search(said) else "address"
    return "answer" if phrases.UNREACHABLE.search(said) and not _REFUSED.search(said) else ""


def _ran_out(status: str, why: str) -> bool:
    if why in ("address", "time"):
        return why == "time"
    return status == "4.4.7" or (why == "answer" and status[:4] in ("", "4.4."))


@dataclass(frozen=True, slots=True)
class _Seen:
    address: str
    start: int
    weight: int


def _seen(text: str, others: frozenset[str]) -> Iterator[_Seen]:
    text = text.replace("SMTP=", "SMTP:")
    for match in islice(ADDRESS.finditer(text), MOST):
        begin, end = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.end())
        before = text[max(begin, match.start() - 200) : match.start()]
        after = text[match.end() : end if end >= 0 else len(text)][:200]
        yield _Seen(match[0], match.start(), _weight(match[0], before, after, match[0].lower() in others))


def _weight(address: str, before: str, after: str, other: bool) -> int:
    """How surely the notice is about the address, by what stands around it on its line: 4 surely, 0 not at all."""
    if _RCPT.search(before):
        weight = 4
    elif _EXPANDED.search(before):
        weight = 3
    elif phrases.NOT_MEANT.search(before) or before.endswith("//"):
        weight = 0
    elif _DESCRIBED.match(before):
        weight = 2
    elif _ALONE.match(before) and _AFTER.match(after):
        weight = 4
    elif phrases.MEANT.search(before) or _ALONE.match(before) or SAID.search(before):
        weight = 3
    else:
        weight = 1
    if other:
        return 2 if weight == 4 else 0
    return min(weight, 1) if weight < 4 and phrases.SERVICE.match(address) else weight


def _diagnostic(said: str) -> str:
    """The reply, where one is quoted; else what follows the address."""
    text = " ".join(said.split()).strip(" :;>-\"'")
    found = SAID.search(text)
    return text[found.start() :][:500].strip() if found else text[:500].strip()


def _header_at(lines: list[str]) -> int | None:
    """The line where a block of header fields begins: three in a row, one of them such as only servers write."""
    first, fields, trace = 0, 0, False
    for number, line in enumerate(lines[:4000]):
        if _FIELD.match(line):
            first, fields = (first, fields + 1) if fields else (number, 1)
            trace = trace or bool(_TRACE.match(line))
            if fields >= 3 and trace:
                return first
        elif not (line[:1] in (" ", "\t", ">") and line.strip()):
            fields, trace = 0, False
    return None
