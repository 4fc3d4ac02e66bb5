"""HTML with no more than can be cleaned in time: known tags, known attributes, well nested, levels up to a limit.

What parses HTML as browsers do takes quadratic time, and more, for elements that nothing ends, tags that cross each
other, or attributes by the thousand; and mail comes from anybody. What is written here has none of these, in linear
time. It is no cleaning yet: values are as they were.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

LEVELS = 100  # elements that are open at once; deeper ones lose their tags
VOID = frozenset({"br", "col", "hr", "img", "wbr"})
RAW = frozenset(
    {"script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes", "noscript", "template", "xml"}
    | {"svg", "math", "object", "applet", "audio", "video", "select"}
)
"""Elements whose content is no text of the page: it goes with them."""

CELLS = frozenset({"table", "td", "th", "caption"})
_BLOCKS = (
    *("address", "article", "aside", "blockquote", "center", "details", "div", "dl", "figure", "figcaption", "footer"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre", "section", "table", "ul"),
)
_SECTIONS = frozenset({"thead", "tbody", "tfoot", "caption", "colgroup"})
_INSIDE = frozenset({"table"})

ENDS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    **dict.fromkeys(_BLOCKS, (frozenset({"p"}), CELLS)),
    "li": (frozenset({"li"}), CELLS | {"ul", "ol"}),
    **dict.fromkeys(("dt", "dd"), (frozenset({"dt", "dd"}), CELLS | {"dl"})),
    **dict.fromkeys(("td", "th"), (frozenset({"td", "th", "caption"}), _INSIDE)),
    "tr": (frozenset({"tr", "caption", "colgroup"}), _INSIDE),
    **dict.fromkeys(_SECTIONS, (_SECTIONS, _INSIDE)),
    "a": (frozenset({"a"}), CELLS),
}
"""What an element ends that was not ended before it, and how far out (HTML, "optional tags")."""

_NAME = re.compile(r"[a-zA-Z][^\s/>]*+")
_ATTRIBUTE = re.compile(
    r"[\s/]*+(?:(>)|([^\s/>][^\s/>=]*+)(?:\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|((?![\"'])[^\s>]*+)))?+)"
)
_UNENDED = re.compile(r"\s*+=\s*+[\"']")
_RAW_ENDS = {name: re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE) for name in RAW}


def trimmed(html: str, allowed: Mapping[str, Collection[str]]) -> str:
    """The page's elements that are `allowed`, with those of their attributes that are; others' content stays."""
    return "".join(_nested(html, allowed))


def _nested(html: str, allowed: Mapping[str, Collection[str]]) -> Iterator[str]:
    opened: list[str] = []
    dropped: Counter[str] = Counter()
    for text, name, closing, attributes in _tokens(html):
        yield text
        if name not in allowed:
            continue
        if closing:
            if dropped[name]:
                dropped[name] -= 1
            else:
                inside = _INSIDE if name in ENDS and ENDS[name][1] is _INSIDE else CELLS
                yield _end(opened, frozenset({name}), inside - {name})
            continue
        yield _end(opened, *ENDS[name]) if name in ENDS else ""
        if len(opened) >= LEVELS and name not in VOID:
            dropped[name] += 1
            continue
        yield _tag(name, attributes, allowed[name])
        if name not in VOID:
            opened.append(name)
    yield _end(opened, frozenset(opened[:1]), frozenset())


def _end(opened: list[str], names: Collection[str], bounds: Collection[str]) -> str:
    """The tags that end the outermost of these, within the bounds, and all that is in it."""
    found = len(opened)
    for at in range(len(opened) - 1, -1, -1):
        if opened[at] in bounds:
            break
        if opened[at] in names:
            found = at
            if len(names) == 1:
                break
    ended = opened[found:]
    del opened[found:]
    return "".join(f"</{name}>" for name in reversed(ended))


def _tag(name: str, attributes: Mapping[str, str], allowed: Collection[str]) -> str:
    kept = (f' {key}="{_value(value)}"' for key, value in attributes.items() if key in allowed)
    return f"<{name}{''.join(kept)}>"


def _value(text: str) -> str:
    return text.replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def _tokens(html: str) -> Iterator[tuple[str, str, bool, dict[str, str]]]:
    """(text before it, name of a tag, whether it closes, its attributes); at last the text behind all tags."""
    at = kept = 0
    while (at := html.find("<", at)) >= 0:
        text = html[kept:at].replace(">", "&gt;")
        closing = html.startswith("/", at + 1)
        name = _NAME.match(html, at + 1 + closing)
        if name is None:
            end = _remark(html, at, closing)
            yield text if end else f"{text}&lt;", "", False, {}
            kept = at = end or at + 1
            continue
        attributes, end = _attributes(html, name.end())
        lower = name[0].lower()
        yield text, lower, closing, attributes
        if lower in RAW and not closing:
            found = _RAW_ENDS[lower].search(html, end)
            end = found.start() if found else len(html)
        kept = at = end
    yield html[kept:].replace(">", "&gt;"), "", False, {}


def _remark(html: str, at: int, closing: bool) -> int:
    """Behind a comment, or what readers take for one; 0 where it is text."""
    if html.startswith("<!--", at):
        end = html.find("-->", at + 2)  # <!--> is one too
        return end + 3 if end >= 0 else len(html)
    if closing or html.startswith(("!", "?"), at + 1):
        end = html.find(">", at)
        return end + 1 if end >= 0 else len(html)
    return 0


def _attributes(html: str, at: int) -> tuple[dict[str, str], int]:
    """The first of each name; and where the tag ends. One that never ends takes the rest with it."""
    found: dict[str, str] = {}
    while match := _ATTRIBUTE.match(html, at):
        if match[1]:
            return found, match.end()
        found.setdefault(match[2].lower(), match[3] or match[4] or match[5] or "")
        at = match.end()
        if _UNENDED.match(html, at):  # else its value would have been read
            break
    return found, len(html)
