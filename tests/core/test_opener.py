"""Judging opens: every rule has a sample that it takes, and near-misses that it must leave alone."""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.model import Opener
from relay.core.opener import Judgement, Look, judge
from relay.core.openers import RULES, Rule
from relay.core.readers import BARE, CHROME, CLIENTS, Client

HOME = ip_address("84.115.20.7")  # somebody's line
GOOGLE = ip_address("66.249.93.10")
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"
MAIL_RU = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/32.0.1700.2 Safari/537.36"
HOUR = 3600.0


def opener(agent: str = CHROME, address: Any = HOME, **known: Any) -> Opener:
    return judge(Look(agent, address, **{"since_sent": HOUR} | known)).opener


def look_of(rule: Rule) -> Look:
    """A fetch with just the signs that the rule asks for."""
    return Look(
        rule.sample,
        rule.networks[0][1] if rule.networks else HOME,
        method="HEAD" if rule.other_method else "GET",
        since_sent=HOUR if rule.soon is None else rule.soon / 2,
        earlier=rule.burst,
        burst=rule.burst,
        host=rule.hosts[0].replace("*", "66-249-93-10") if rule.hosts else "",
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_takes_its_sample(rule: Rule) -> None:
    found = judge(look_of(rule))
    assert (found.opener, found.reason) == (rule.opener, rule.reason)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_says_why_and_where_it_is_known_from(rule: Rule) -> None:
    assert rule.reason.endswith(".")
    assert len(rule.reason) < 160
    assert any(part.isdigit() for part in rule.source)


def test_no_two_rules_have_the_same_name() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: f"{client.name} {client.sample[:20]}")
def test_a_client_is_known_by_its_sample(client: Client) -> None:
    assert judge(Look(client.sample, HOME, since_sent=HOUR)) == Judgement(
        Opener.PERSON, client.name, f"It was shown in {client.name}, which people read mail with."
    )


# -- Agents in the wild ------------------------------------------------------------------------------------------

AGENTS = [
    tuple(line.split("\t", 2))
    for line in (Path(__file__).parent.parent / "data" / "agents.tsv").read_text().splitlines()
    if not line.startswith("#")
]
NOBODY = [
    "Mozilla/5.0 (compatible)",
    "Mozilla/4.0",
    "Mozilla/5.0 (X11; Linux x86_64)",
    "Lynx/2.8.9rel.1",
    "x",
    "浏览器",
]


@pytest.mark.parametrize(("expected", "client", "agent"), AGENTS)
def test_agents_as_they_are_met(expected: str, client: str, agent: str) -> None:
    found = judge(Look(agent, HOME, since_sent=HOUR))
    assert found.opener == expected
    assert client == "*" or found.client == client.strip("-")


@pytest.mark.parametrize("agent", ["", "-", "   ", "\t()"])
def test_who_says_nothing_is_a_machine(agent: str) -> None:
    assert opener(agent) is Opener.SCANNER


@pytest.mark.parametrize("agent", NOBODY)
def test_what_nothing_tells_is_unknown(agent: str) -> None:
    assert judge(Look(agent, HOME)) == Judgement(
        Opener.UNKNOWN, "", "Nothing tells whether a person or a machine fetched it."
    )


# -- Apple, which fetches ahead ----------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", ["Mozilla/5.0 ", " Mozilla/5.0"])
def test_apples_agent_is_that_whole_word(agent: str) -> None:
    assert opener(agent) is Opener.PREFETCH


@pytest.mark.parametrize("agent", ["Mozilla/5.01", "Mozilla/5.0 (compatible)", "XMozilla/5.0", "Mozilla/4.0"])
def test_almost_apples_agent_is_not_apple(agent: str) -> None:
    assert opener(agent) is not Opener.PREFETCH


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        *((-0.3, Opener.PREFETCH), (0.0, Opener.PREFETCH), (8.0, Opener.PREFETCH)),
        *((30.0, Opener.PERSON), (1440.0, Opener.PERSON), (None, Opener.PERSON)),
    ],
)
def test_the_agent_of_apple_and_outlook_is_told_by_its_time(since: float | None, expected: Opener) -> None:
    assert opener(BARE, since_sent=since) is expected


# -- Time alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("since", [None, -5.0, -0.01, 0.0, 0.2, 3.0])
def test_time_alone_makes_nobody_a_machine(since: float | None) -> None:
    assert opener(CHROME, since_sent=since) is Opener.PERSON
    assert opener(GMAIL, since_sent=since) is Opener.PROXY


@pytest.mark.parametrize(
    ("since", "burst", "expected"),
    [
        (3.0, 4, Opener.PERSON),
        (3.0, 5, Opener.SCANNER),
        (60.0, 5, Opener.PERSON),
        (None, 5, Opener.PERSON),
        (HOUR, 29, Opener.PERSON),
        (HOUR, 30, Opener.SCANNER),
        (None, 30, Opener.SCANNER),
    ],
)
def test_many_at_once(since: float | None, burst: int, expected: Opener) -> None:
    assert opener(CHROME, since_sent=since, earlier=burst, burst=burst) is expected


def test_many_over_the_days_are_somebody_who_comes_back() -> None:
    assert opener(CHROME, earlier=1000) is Opener.PERSON


def test_gmail_may_fetch_for_several_at_once() -> None:
    assert opener(GMAIL, since_sent=3.0, burst=5) is Opener.PROXY


# -- Where it came from ------------------------------------------------------------------------------------------

OWN = (ip_network("203.0.113.0/24"), ip_network("2001:db8:7::/48"))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.200", Opener.SELF),
        ("::ffff:203.0.113.200", Opener.SELF),
        ("2001:db8:7:1::5", Opener.SELF),
        ("203.0.114.1", Opener.PERSON),
        ("2001:db8:8::1", Opener.PERSON),
    ],
)
def test_the_senders_own_look(address: str, expected: Opener) -> None:
    assert opener(CHROME, ip_address(address), own=OWN) is expected


def test_the_senders_own_look_is_known_whatever_it_comes_with() -> None:
    assert opener("", OWN[0][9], own=OWN, method="HEAD") is Opener.SELF


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("188.93.56.77", Opener.PROXY),
        ("185.30.177.1", Opener.PROXY),
        ("188.93.57.1", Opener.PERSON),
        ("185.30.178.1", Opener.PERSON),
    ],
)
def test_mail_ru_is_an_old_browser_in_its_own_networks(address: str, expected: Opener) -> None:
    assert opener(MAIL_RU, ip_address(address)) is expected


def test_a_new_browser_in_the_networks_of_mail_ru_is_a_person() -> None:
    assert opener(CHROME, ip_address("188.93.56.77")) is Opener.PERSON


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("mx0b-00364e01.pphosted.com", "Proofpoint"),
        ("MX0B-00364E01.PPHOSTED.COM.", "Proofpoint"),
        ("pphosted.com", "Proofpoint"),
        ("mail-am6eur05lp2104.outbound.protection.outlook.com", "Microsoft"),
        ("outbound-ip168b.ess.barracuda.com", "Barracuda"),
    ],
)
def test_gateways_by_their_confirmed_names(host: str, client: str) -> None:
    found = judge(Look(CHROME, HOME, since_sent=HOUR, host=host))
    assert (found.opener, found.client) == (Opener.SCANNER, client)


@pytest.mark.parametrize(
    "host",
    ["", "notpphosted.com", "pphosted.com.example.net", "barracuda.com.evil.example", "outlook.com", "a7.isp.example"],
)
def test_other_names_say_nothing(host: str) -> None:
    assert opener(CHROME, host=host) is Opener.PERSON


def test_a_failed_look_up_never_means_a_machine() -> None:
    assert all(opener(client.sample, host="") is Opener.PERSON for client in CLIENTS)


@pytest.mark.parametrize("host", ["google-proxy-66-249-93-10.google.com"])
def test_gmail_by_its_confirmed_name(host: str) -> None:
    assert opener("Mozilla/5.0", GOOGLE, host=host) is Opener.PROXY


@pytest.mark.parametrize(
    "host", ["google-proxy-.google.com", "crawl-66-249-66-1.googlebot.com", "google-proxy-1.google.com.example"]
)
def test_almost_gmails_name(host: str) -> None:
    assert opener(CHROME, GOOGLE, host=host) is Opener.PERSON


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("148.163.139.74", Opener.SCANNER),
        ("148.163.160.1", Opener.PERSON),
        ("64.235.159.255", Opener.SCANNER),
        ("64.235.160.0", Opener.PERSON),
        ("::ffff:104.47.0.1", Opener.SCANNER),
        ("104.47.128.0", Opener.PERSON),
    ],
)
def test_gateways_by_their_networks(address: str, expected: Opener) -> None:
    assert opener(CHROME, ip_address(address)) is expected


# -- Where signs contradict each other ---------------------------------------------------------------------------


def test_a_confirmed_name_is_stronger_than_an_agent() -> None:
    assert opener(GMAIL, host="gate1.pphosted.com") is Opener.SCANNER


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS", "head"])
def test_nobody_reads_by_another_method(method: str) -> None:
    assert opener(GMAIL, method=method) is Opener.SCANNER


def test_get_is_get() -> None:
    assert opener(CHROME, method="get") is Opener.PERSON


# -- Bad input ---------------------------------------------------------------------------------------------------

HOSTILE = [
    *("a" * 100_000, "Mozilla/5.0 (" * 10_000, "android" * 20_000, "applewebkit/ version/ " * 5000, "\0\ud800" * 9000),
    *("http://" * 15_000, "(khtml, like gecko)" * 6000, "AppleWebKit/" + "1." * 50_000, " " * 100_000, "-_" * 50_000),
    *("mail/1" * 16_000, "iphone applewebkit/ mobile" * 4000, "rv:" + "1" * 100_000, "image proxy" * 9000),
]  # fmt: skip


@pytest.mark.parametrize("agent", HOSTILE, ids=lambda agent: repr(agent[:20]))
def test_a_hostile_agent_costs_nothing(agent: str) -> None:
    begun = time.process_time()
    for turn in range(5):
        judge(Look(f"{agent[:-1]}{turn}" if turn else agent, HOME))
        judge(Look(f"{turn}{agent}", HOME))
    assert time.process_time() - begun < 1  # 10 judgements of 2 ms, each for the first time


def test_the_agents_of_a_flood_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading an agent that nobody had before costs more than sending it does."""
    monkeypatch.delattr("relay.core.opener._read")
    found = {judge(Look(f"{number} " * 250, HOME, burst=30)) for number in range(20)}
    assert {(one.opener, one.client) for one in found} == {(Opener.SCANNER, "")}


@given(
    agent=st.text(),
    address=st.one_of(st.none(), st.ip_addresses()),
    method=st.text(max_size=8),
    since=st.one_of(st.none(), st.floats()),
    burst=st.integers(min_value=0),
    host=st.text(max_size=50),
)
def test_it_never_raises(
    agent: str, address: IPv4Address | IPv6Address | None, method: str, since: float | None, burst: int, host: str
) -> None:
    found = judge(Look(agent, address, method, since, burst, burst, OWN, host))
    assert found.reason


def test_the_page_names_whoever_a_rule_names() -> None:
    page = (Path(__file__).parents[2] / "docs" / "opens.md").read_text()
    named = {rule.client.split()[0] for rule in RULES if rule.client}
    assert {name for name in named if name not in page} == set()
