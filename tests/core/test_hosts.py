"""Hosts inside our own network are recognised in every spelling."""

from ipaddress import ip_address, ip_network

import pytest

from relay.core.hosts import judge, judge_literal, literal

FORBIDDEN = [
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("0.0.0.0", "unspecified"),
    ("10.1.2.3", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.1.1", "private"),
    ("100.64.0.1", "carrier-grade"),
    ("169.254.1.1", "link-local"),
    ("169.254.169.254", "metadata"),
    ("168.63.129.16", "metadata"),
    ("224.0.0.1", "multicast"),
    ("255.255.255.255", "broadcast"),
    ("250.0.0.1", "reserved"),
    ("192.0.2.1", "documentation"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("fe80::1", "link-local"),
    ("fd00::1", "private"),
    ("fd00:ec2::254", "metadata"),
    ("ff02::1", "multicast"),
    ("4000::1", "reserved"),
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:0:10.0.0.1", "private"),
    ("::ffff:169.254.169.254", "metadata"),
    ("::10.0.0.1", "private"),
    ("2002:7f00:1::", "loopback"),
    ("2002:c0a8:101::1", "private"),
    ("64:ff9b::7f00:1", "loopback"),
    ("64:ff9b:1::808:808", "reserved"),
    ("2001::1", "reserved"),
]
PUBLIC = ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
SPELLINGS = [
    ("2130706433", "127.0.0.1"),
    ("0x7f000001", "127.0.0.1"),
    ("0x7f.1", "127.0.0.1"),
    ("0177.0.0.1", "127.0.0.1"),
    ("127.1", "127.0.0.1"),
    ("127.0.1", "127.0.0.1"),
    ("10.65535", "10.0.255.255"),
    ("0", "0.0.0.0"),
    ("0x", "0.0.0.0"),
    ("127.0.0.1.", "127.0.0.1"),
    ("１２７.0.0.1", "127.0.0.1"),
    ("127。0。0。1", "127.0.0.1"),
    ("[::1]", "::1"),
    ("fe80::1%eth0", "fe80::1"),
    ("FE80::1", "fe80::1"),
]
NAMES = [
    "smtp.example.com",
    "256.1",
    "1.2.3.4.5",
    "4294967296",
    "09.1",
    "",
    ".",
    "a.1",
    "::g",
    "1.2.3.256",
    "1..2",
    "-1",
]


@pytest.mark.parametrize(("address", "reason"), FORBIDDEN)
def test_an_inner_address_is_refused_with_its_reason(address: str, reason: str) -> None:
    assert reason in judge(ip_address(address), ())


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_dialled(address: str) -> None:
    assert judge(ip_address(address), ()) == ""


@pytest.mark.parametrize(
    ("address", "network"),
    [("10.1.2.3", "10.0.0.0/8"), ("::1", "::1/128"), ("::ffff:10.1.2.3", "10.0.0.0/8"), ("fd00::1", "fd00::/8")],
)
def test_what_the_operator_opened_may_be_dialled(address: str, network: str) -> None:
    assert judge(ip_address(address), [ip_network(network)]) == ""


def test_what_the_operator_opened_opens_nothing_else() -> None:
    assert judge(ip_address("192.168.1.1"), [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]) == "private address"


@pytest.mark.parametrize(("host", "address"), SPELLINGS)
def test_every_spelling_of_an_address_is_read(host: str, address: str) -> None:
    assert literal(host) == ip_address(address)


@pytest.mark.parametrize("host", NAMES)
def test_a_name_is_not_an_address(host: str) -> None:
    assert literal(host) is None


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "mail.localhost", "localhost.", "localhost.localdomain"])
def test_names_of_this_machine_are_refused_at_save(host: str) -> None:
    assert judge_literal(host, ()) == "loopback address"
    assert judge_literal(host, [ip_network("127.0.0.0/8")]) == ""


@pytest.mark.parametrize("host", ["smtp.gmail.com", "sandbox", "notlocalhost", "8.8.8.8"])
def test_other_hosts_are_judged_when_dialled(host: str) -> None:
    assert judge_literal(host, ()) == ""
