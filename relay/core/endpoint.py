"""What an endpoint may be: its URL, the events it wants, custom headers. As the API speaks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from relay.core import hosts, webhook
from relay.core.account import MASK, Faulty
from relay.core.address import CONTROLS
from relay.core.model import EventType
from relay.core.networks import Network

MOST = 20  # endpoints of one account, and as many for all accounts together
LONGEST_DESCRIPTION = 1000
EVENTS = tuple(event.value for event in EventType if event is not EventType.WEBHOOK_TEST)
ALL = ["*"]  # as EmailEngine spells it


@dataclass(frozen=True, slots=True)
class Wanted:
    """An endpoint as somebody wants it. `events` empty: all of them."""

    url: str = ""
    events: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    description: str = ""
    enabled: bool = True


def change(old: Wanted, given: Mapping[str, Any], allowed: Iterable[Network]) -> Wanted:
    """`old` with `given` (fields of Wanted, as the API's JSON has them) in their places; null is the default.

    A header whose value is `******` stays as it is. Raises Faulty with every reason.
    """
    faults: list[tuple[str, str]] = []
    new, default = old, Wanted()
    for key, value in given.items():
        try:
            read = getattr(default, key) if value is None else READERS[key](value)
            new = replace(new, **{key: read})
        except ValueError as fault:
            faults.append((key, str(fault)))
    judged = new.enabled or not new.url or new.url != old.url  # what is allowed no more can still be disabled
    if judged and "url" not in dict(faults) and (reason := hosts.judge_url(new.url, allowed)):
        faults.append(("url", reason))
    headers, found = ({}, []) if faults else _kept(old, new, "headers" in given)
    if faults or found:
        raise Faulty(faults or found, "The endpoint")
    return replace(new, headers=headers)


def same_place(one: str, other: str) -> bool:
    """Both go to the same server, by the same scheme: what is sent to one may be sent to the other."""
    return _origin(one) == _origin(other)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _kept(old: Wanted, new: Wanted, given: bool) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """The headers with those that were given masked as they were; and why some cannot be.

    Their values stay with the server they were given for: whoever may change the URL could have them sent to his own.
    """
    before = {name.lower(): value for name, value in old.headers.items()}
    moved = bool(old.url) and not same_place(old.url, new.url)
    headers, faults = dict(new.headers), []
    for name, value in headers.items():
        masked = value == MASK
        if moved and (masked or not given):
            faults.append((f"headers.{name}", "must be given again, or headers be {}, since the host of url changes"))
        elif masked and name.lower() not in before:
            faults.append((f"headers.{name}", f"is {MASK}, and there is no value of before to keep"))
        elif masked:
            headers[name] = before[name.lower()]
    return headers, faults


def _events(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise ValueError("must be a list of names of events; empty means all of them")
    if list(value) == ALL:
        return ()
    unknown = [name for name in value if name not in EVENTS]
    if unknown:
        raise ValueError(f"has {_shown(unknown[0])}, which is no event; there are: {', '.join(EVENTS)}")
    return tuple(dict.fromkeys(value))


def _headers(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(part, str) for pair in value.items() for part in pair):
        raise ValueError("must be an object of names and values, both text")
    try:
        webhook.check_headers(value)
    except ValueError as fault:
        raise ValueError(f"cannot be sent: {fault}") from None
    return dict(value)


def _description(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_DESCRIPTION or CONTROLS.search(value):
        raise ValueError(f"must be one line of up to {LONGEST_DESCRIPTION} characters")
    return value


def _url(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def _enabled(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _shown(name: str) -> str:
    """Somebody's word in an error: short, and in one line."""
    return repr(CONTROLS.sub(" ", name[:60]))


READERS: Mapping[str, Callable[[Any], Any]] = {
    "url": _url,
    "events": _events,
    "headers": _headers,
    "description": _description,
    "enabled": _enabled,
}
"""How each field is read. A reader raises ValueError with what is wrong, to follow the field's name."""
