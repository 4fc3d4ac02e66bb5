"""A name counts when it leads back to its address; DNS that is slow, lies or fails is no name."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from relay.net import rdns
from relay.net.rdns import Names

GATE = ip_address("148.163.139.74")
NAME = "mx0b-00364e01.pphosted.com"


class Dns:
    """A scripted DNS that counts who asks, and how many at once."""

    def __init__(self, name: str = NAME, *addresses: str, slow: asyncio.Event | None = None) -> None:
        self.name, self.addresses, self.slow = name, addresses or (str(GATE),), slow
        self.asked: list[str] = []
        self.now = self.most = 0

    async def reverse(self, address: str) -> str:
        self.asked.append(address)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.slow:
                await self.slow.wait()
        finally:
            self.now -= 1
        if not self.name:
            raise socket.gaierror(socket.EAI_NONAME, "no name")
        return self.name

    async def forward(self, name: str) -> Sequence[str]:
        if name != NAME:
            raise socket.gaierror(socket.EAI_NONAME, "no host")
        return self.addresses

    def names(self) -> Names:
        return Names(self.reverse, self.forward)


async def test_a_name_that_leads_back_is_confirmed() -> None:
    assert await Dns().names().of(GATE) == NAME


async def test_it_is_told_in_lower_case_without_its_dot() -> None:
    assert await Dns(NAME.upper() + ".").names().of(GATE) == NAME


async def test_an_address_written_as_ipv6_is_the_same() -> None:
    dns = Dns()
    assert await dns.names().of(ip_address("::ffff:148.163.139.74")) == NAME
    assert dns.asked == [str(GATE)]


async def test_a_name_that_leads_elsewhere_is_none() -> None:
    assert await Dns(NAME, "67.231.144.1").names().of(GATE) == ""


async def test_one_of_several_addresses_is_enough() -> None:
    assert await Dns(NAME, "67.231.144.1", "2001:4860::1%eth0", str(GATE)).names().of(GATE) == NAME


@pytest.mark.parametrize(
    "name",
    ["", "148.163.139.74", "a b.example", "x" * 64 + ".example", "a." * 130 + "example", "localhost", "é.example"],
)
async def test_what_is_no_name_is_none(name: str) -> None:
    assert await Dns(name).names().of(GATE) == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "fe80::1", "192.0.2.1"])
async def test_inner_addresses_are_not_asked_about(address: str) -> None:
    dns = Dns()
    assert await dns.names().of(ip_address(address)) == ""
    assert dns.asked == []


async def test_the_answer_is_remembered() -> None:
    dns = Dns()
    names = dns.names()
    assert [await names.of(GATE), await names.of(GATE)] == [NAME, NAME]
    assert len(dns.asked) == 1


async def test_that_there_is_none_is_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    dns = Dns("")
    names = dns.names()
    assert [await names.of(GATE), await names.of(GATE)] == ["", ""]
    assert len(dns.asked) == 1
    monkeypatch.setattr(rdns, "KEPT_FAILED", 0.0)
    other = ip_address("67.231.144.1")
    assert [await names.of(other), await names.of(other)] == ["", ""]
    assert len(dns.asked) == 3


async def test_those_who_ask_at_once_share_a_look_up() -> None:
    dns = Dns()
    names = dns.names()
    assert await asyncio.gather(*(names.of(GATE) for _ in range(20))) == [NAME] * 20
    assert len(dns.asked) == 1


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rdns, "KEPT", 3)
    names = Dns("").names()
    for last in range(10):
        await names.of(ip_address(f"67.231.144.{last}"))
    assert len(names._known) == 3


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Dns:
    """A DNS that never answers; look-ups are given up after 50 ms."""
    monkeypatch.setattr(rdns, "TIMEOUT", 0.05)
    return Dns(slow=asyncio.Event())


async def test_a_dns_that_hangs_costs_its_time_once_for_all_who_wait(hanging: Dns) -> None:
    names = hanging.names()
    found = await asyncio.gather(*(names.of(ip_address(f"67.231.145.{last}")) for last in range(200)))
    assert set(found) == {""}
    assert hanging.most == rdns.AT_ONCE


async def test_too_many_are_not_looked_up(hanging: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rdns, "MOST_WAITING", 1)
    names = hanging.names()
    waiting = asyncio.ensure_future(names.of(GATE))
    await asyncio.sleep(0)
    assert await names.of(ip_address("67.231.144.1")) == ""
    assert await waiting == ""
    assert hanging.asked == [str(GATE)]


async def test_closing_ends_those_who_wait() -> None:
    names = Dns(slow=asyncio.Event()).names()
    waiting = asyncio.ensure_future(names.of(GATE))
    await asyncio.sleep(0)
    await names.close()
    assert await waiting == ""


async def test_the_systems_resolver_is_asked_in_threads_that_end_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    def reverse(address: tuple[str, int], flags: int) -> tuple[str, str]:
        assert (address, flags) == ((str(GATE), 0), socket.NI_NAMEREQD)
        return NAME, "0"

    def forward(host: str, port: None, type: int) -> list[tuple[object, ...]]:
        assert host == NAME + "."  # whole: no search domain is tried
        return [(socket.AF_INET, type, 6, "", (str(GATE), 0))]

    monkeypatch.setattr(socket, "getnameinfo", reverse)
    monkeypatch.setattr(socket, "getaddrinfo", forward)
    assert await Names().of(GATE) == NAME


async def test_the_systems_resolver_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def reverse(address: tuple[str, int], flags: int) -> tuple[str, str]:
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getnameinfo", reverse)
    assert await Names().of(GATE) == ""
