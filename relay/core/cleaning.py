"""HTML of a mail made fit to stand in another one: without scripts, style sheets, forms, or pictures not wanted there.

`nh3` knows what browsers make of HTML; here is said what mail may have: what mail programs show, nothing that acts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import nh3

from relay.core.tags import trimmed

Replaced = Callable[[str], str | None]
"""From a picture's URL to the one that is to stand there; None takes the picture out."""

LONGEST = 1 << 20  # characters that are read
_GENERAL = frozenset({"align", "bgcolor", "dir", "height", "lang", "style", "title", "valign", "width"})
_MORE: Mapping[str, frozenset[str]] = {
    "a": frozenset({"href"}),
    "img": frozenset({"src", "alt", "border", "hspace", "vspace"}),
    "font": frozenset({"color", "face", "size"}),
    "blockquote": frozenset({"type"}),
    "ol": frozenset({"start", "type"}),
    "ul": frozenset({"type"}),
    "hr": frozenset({"size", "color", "noshade"}),
    "table": frozenset({"border", "cellpadding", "cellspacing", "role"}),
    **dict.fromkeys(("td", "th"), frozenset({"colspan", "rowspan", "nowrap"})),
    **dict.fromkeys(("col", "colgroup"), frozenset({"span"})),
}
TAGS = frozenset(nh3.ALLOWED_TAGS - {"area", "map"} | {"address", "big", "font", "main", "section", "tfoot"})
ALLOWED = {name: _GENERAL | _MORE.get(name, frozenset()) for name in TAGS}
SCHEMES = frozenset({"http", "https", "mailto", "tel", "cid", "data"})
STYLES = frozenset(
    {"background", "background-color", "clear", "color", "direction", "display", "float", "height", "letter-spacing"}
    | {"line-height", "list-style", "list-style-type", "max-width", "min-width", "opacity", "overflow-wrap", "width"}
    | {"table-layout", "text-align", "text-decoration", "text-indent", "text-transform", "vertical-align"}
    | {"white-space", "word-break", "word-spacing", "word-wrap", "border-collapse", "border-spacing", "border-radius"}
    | {"font", *(f"font-{part}" for part in ("family", "size", "stretch", "style", "variant", "weight"))}
    | {f"{box}{side}" for box in ("margin", "padding") for side in ("", "-top", "-right", "-bottom", "-left")}
    | {
        f"border{side}{part}"
        for side in ("", "-top", "-right", "-bottom", "-left")
        for part in ("", "-color", "-style")
    }
    | {f"border{side}-width" for side in ("", "-top", "-right", "-bottom", "-left")}
)
"""What may be said of how a thing looks; nothing of where: it could lie over what is not its own."""

_OUT = "cid:-"  # no picture has it: it marks those that are taken out
_GONE = re.compile(rf'<img(?: [a-z-]+="[^"]*")*? src="{_OUT}"(?: [a-z-]+="[^"]*")*>')
_PICTURE = re.compile(r"data:image/(?:png|jpe?g|gif|webp)[;,]", re.IGNORECASE)
_PROPERTY = re.compile(r"\A[\s]*[\w-]+")
_LEFT_OUT = dict.fromkeys(map(ord, "\t\n\r"))
_AROUND = "".join(map(chr, range(0x21)))
_MOVES = re.compile(
    r"\s*(?:margin|text-indent|letter-spacing|word-spacing)\b[^:]*:.*-\s*[\d.]", re.IGNORECASE | re.DOTALL
)
_FETCHES = re.compile(r"url|image|expression|\\|@", re.IGNORECASE)  # a backslash spells any of them


def clean(html: str, replaced: Replaced = lambda url: url) -> str:
    """The fragment, balanced. `replaced` is asked for each picture; its URLs come as they were meant, unescaped."""

    def judged(tag: str, name: str, value: str) -> str | None:
        if name == "style":
            return _declared(value)
        if name == "src":
            meant = _meant(value)
            url = None if _is_data(meant) and not _PICTURE.match(meant) else replaced(meant)
            return _OUT if url is None else url
        if name == "href":
            meant = _meant(value)
            return None if _is_data(meant) else meant
        return value

    cleaner = nh3.Cleaner(
        tags=set(TAGS),
        clean_content_tags=set(),
        attributes={name: set(allowed) for name, allowed in ALLOWED.items()},
        attribute_filter=judged,
        link_rel=None,
        url_schemes=set(SCHEMES),
        filter_style_properties=set(STYLES),
        url_relative="deny",
    )
    return _GONE.sub("", cleaner.clean(trimmed(html[:LONGEST], ALLOWED)))


def _declared(style: str) -> str:
    """Without what fetches something, or lies over what stands before it; names in lower case, as `STYLES` has them."""
    kept = (part for part in style.split(";") if not _FETCHES.search(part) and not _MOVES.match(part))
    return ";".join(_PROPERTY.sub(lambda name: name[0].lower(), part) for part in kept)


def _meant(url: str) -> str:
    """As browsers take it: without what they leave out before they read it (WHATWG URL 4.4)."""
    return url.translate(_LEFT_OUT).strip(_AROUND)


def _is_data(url: str) -> bool:
    return url[:5].lower() == "data:"
