"""What an account's `mailgun` settings may be: its one upstream, and a key that stays where it was given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from relay.core import hosts
from relay.core.networks import Network, within
from relay.core.tenant import MAILGUN, MAILGUN_EU

Fields = Mapping[str, Any]
Fault = tuple[str, str]

DOMAIN = r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?"
_VERSION = re.compile(r"/v\d\Z")


def bare(url: str) -> str:
    """Without the version that other programs want in it: each of our calls has its own."""
    return _VERSION.sub("", url.rstrip("/"))


def faults(old: Fields, new: Fields, again: Callable[[str], bool], allowed: Sequence[Network]) -> Iterator[Fault]:
    """`again`: whether a secret was given with this change."""
    if not any(key.startswith("mailgun.") for key in new):
        return
    for key in ("mailgun.domain", "mailgun.apiKey"):
        if key not in new:
            yield key, "is missing"
    if "smtp.host" in new:
        yield "mailgun", "is a second upstream beside smtp: set the one to null that mail is not to go through"
    url = new.get("mailgun.baseUrl", MAILGUN)
    if reason := judge_url(url, allowed):
        yield "mailgun.baseUrl", reason
    # Else whoever may change the address could have the key sent to his own.
    moved = old.get("mailgun.baseUrl", MAILGUN) != url
    if moved and "mailgun.apiKey" in old and "mailgun.apiKey" in new and not again("mailgun.apiKey"):
        yield "mailgun.apiKey", "must be given again, since mailgun.baseUrl changes"


def judge_url(url: str, allowed: Sequence[Network]) -> str:
    """Why nothing may be sent there, in words that follow the field's name; "" when it may.

    In the clear the key goes to an address in a network that the operator opened, and nowhere else.
    """
    if reason := hosts.judge_url(url, allowed):
        return reason
    parts = urlsplit(url)
    if parts.query:
        return "must have no query (?...)"
    address = hosts.literal(parts.hostname or "")
    if url.startswith("https://") or within(address, allowed):
        return ""
    return f"must begin with https:// (Mailgun's own are {MAILGUN} and, for domains of the EU, {MAILGUN_EU})"
