"""An account's settings: merged, judged, and turned into what the relay works with."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from relay.core.account import MASK, READERS, SECRETS, Faulty, Rules, build, change, flatten, nest
from relay.core.tenant import AccountState, Imap, Limits, Smtp, Tls

RULES = Rules(allowed=(), sandbox=False, zones=frozenset({"UTC", "Europe/Berlin"}))
OLD = {"name": "Shop", "smtp.host": "mx.example.com", "smtp.auth.user": "u", "smtp.auth.pass": "secret"}


def faults(given: dict[str, Any], old: dict[str, Any] | None = None, rules: Rules = RULES) -> list[str]:
    with pytest.raises(Faulty) as caught:
        change(old or {}, given, rules)
    return [key for key, _ in caught.value.faults]


def smtp(**fields: Any) -> Smtp | None:
    return build("a", AccountState.ACTIVE, "", {key.replace("_", "."): value for key, value in fields.items()}).smtp


def test_what_is_left_out_stays() -> None:
    assert change(OLD, {"tz": "Europe/Berlin"}, RULES) == {**OLD, "tz": "Europe/Berlin"}


def test_null_removes_a_field_or_a_whole_object() -> None:
    assert change(OLD, {"smtp": None, "name": None}, RULES) == {}
    assert change(OLD, {"smtp": {"auth": None}}, RULES) == {"name": "Shop", "smtp.host": "mx.example.com"}


def test_the_mask_means_as_it_was() -> None:
    assert change(OLD, {"smtp": {"auth": {"pass": MASK}}}, RULES) == OLD


def test_a_secret_stays_with_its_host() -> None:
    assert faults({"smtp": {"host": "other.example.com"}}, OLD) == ["smtp.auth.pass"]
    assert faults({"smtp": {"host": "other.example.com", "auth": {"pass": MASK}}}, OLD) == ["smtp.auth.pass"]
    moved = change(OLD, {"smtp": {"host": "other.example.com", "auth": {"pass": "new"}}}, RULES)
    assert moved["smtp.auth.pass"] == "new"


def test_a_secret_does_not_wait_for_the_next_host() -> None:
    """Given a mailbox that is switched off and loses its host, when it is given another one."""
    old = {"imap.host": "mail.example.com", "imap.auth.user": "ann", "imap.auth.pass": "s3cret"}
    off = change(old, {"imap": {"host": None, "disabled": True}}, RULES)
    assert faults({"imap": {"host": "theirs.example.com", "disabled": False}}, off) == ["imap.auth.pass"]


def test_a_secret_is_given_again_before_it_goes_in_the_clear() -> None:
    old = OLD | {"smtp.secure": True}
    for weaker in (
        {"secure": False},
        {"tls": {"rejectUnauthorized": False}},
        {"secure": False, "tls": {"mode": "none"}},
    ):
        assert faults({"smtp": weaker}, old) == ["smtp.auth.pass"], weaker
        change(old, {"smtp": {**weaker, "auth": {"pass": "again"}}}, RULES)
    change(old, {"smtp": {"secure": False, "port": 587, "tls": {"mode": "required"}}}, RULES)


def test_a_private_host_is_refused_unless_it_is_allowed() -> None:
    given = {"smtp": {"host": "10.1.2.3"}}
    assert faults(given) == ["smtp.host"]
    allowed = Rules(allowed=(ip_network("10.0.0.0/8"),), sandbox=False, zones=RULES.zones)
    assert change({}, given, allowed)["smtp.host"] == "10.1.2.3"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "::1", "::ffff:10.0.0.1"])
def test_every_spelling_of_a_private_host_is_seen(host: str) -> None:
    assert faults({"smtp": {"host": host}}) == ["smtp.host"]


def test_nobody_waits_for_an_open_longer_than_mail_is_kept() -> None:
    """Given mail that is kept for 30 days, then no reminder after those; what was set before stands in nobody's way."""
    kept = replace(RULES, kept_days=30)
    late = {"tracking": {"alerts": {"unopened": True, "unopenedDays": 30}}}
    before = change({}, late, RULES)
    assert faults(late, rules=kept) == ["tracking.alerts.unopenedDays"]
    assert faults({"tracking": {"alerts": {"unopened": True}}}, before, kept) == ["tracking.alerts.unopenedDays"]
    assert change(before, {"name": "New"}, kept)["name"] == "New"
    change(before, {"tracking": {"alerts": {"unopenedDays": 29}}}, kept)


@pytest.mark.parametrize("control", ["\n", "\0", "\x1b", "\x7f", "\x85", "\x9b", "\u2028"])
def test_no_text_has_a_control_character(control: str) -> None:
    assert faults({"name": f"a{control}b"}) == ["name"]


@pytest.mark.parametrize(
    ("kept", "alerts", "fits"),
    [
        (30, {"unopened": True}, True),
        (30, {"unopened": True, "unopenedDays": 29}, True),
        (30, {"unopened": True, "unopenedDays": 30}, False),  # the mail is gone by then
        (30, {"unopenedDays": 60}, True),  # nobody asks
        (3, {"unopened": True}, False),  # 3 unless told
        (0, {"unopened": True, "unopenedDays": 365}, True),  # mail is kept for ever
    ],
)
def test_a_reminder_comes_before_its_mail_goes(kept: int, alerts: dict[str, object], fits: bool) -> None:
    rules = replace(RULES, kept_days=kept)
    given = {"tracking": {"alerts": alerts}}
    if fits:
        change(OLD, given, rules)
    else:
        assert faults(given, OLD, rules) == ["tracking.alerts.unopenedDays"]


def test_a_reminder_that_was_asked_for_before_holds_up_no_other_change() -> None:
    old = change(OLD, {"tracking": {"alerts": {"unopened": True, "unopenedDays": 60}}}, RULES)
    assert change(old, {"name": "Other"}, replace(RULES, kept_days=30))["name"] == "Other"


def test_all_faults_are_told_together() -> None:
    given = {"name": 1, "tz": 2, "limits": {"perDay": 0}, "smtp": {"port": "x"}, "nope": 1, "mailgun": {"x": 1}}
    assert sorted(faults(given)) == ["limits.perDay", "mailgun.x", "name", "nope", "smtp.port", "tz"]


def test_the_old_settings_are_not_touched() -> None:
    old = dict(OLD)
    change(old, {"name": None}, RULES)
    assert old == OLD


@pytest.mark.parametrize(
    ("fields", "tls", "port"),
    [
        ({}, Tls.OPPORTUNISTIC, 587),
        ({"smtp_secure": True}, Tls.IMPLICIT, 465),
        ({"smtp_secure": False, "smtp_tls_mode": "required"}, Tls.STARTTLS, 587),
        ({"smtp_tls_mode": "opportunistic"}, Tls.OPPORTUNISTIC, 587),
        ({"smtp_tls_mode": "none", "smtp_port": 25}, Tls.NONE, 25),
    ],
)
def test_how_a_connection_is_protected(fields: dict[str, Any], tls: Tls, port: int) -> None:
    found = smtp(smtp_host="mx.example.com", **fields)
    assert found is not None
    assert (found.tls, found.port) == (tls, port)


def test_without_a_host_there_is_no_upstream() -> None:
    assert smtp(smtp_port=25) is None


def test_defaults() -> None:
    found = build("a", AccountState.ACTIVE, "", {})
    assert (found.limits, found.track_opens, found.tz, found.locale, found.copy) == (
        Limits(),
        True,
        "UTC",
        "en",
        "auto",
    )


@pytest.mark.parametrize(
    ("given", "means"), [(True, "append"), (False, "none"), ("auto", "auto"), ("replace", "replace"), ("none", "none")]
)
def test_copy(given: bool | str, means: str) -> None:
    assert build("a", AccountState.ACTIVE, "", change({}, {"copy": given}, RULES)).copy == means


def test_flat_and_nested_are_the_same() -> None:
    nested = {"a": 1, "b": {"c": {"d": 2}, "e": 3}}
    assert nest(dict(flatten(nested))) == nested


def test_secrets_are_fields() -> None:
    assert set(READERS) >= SECRETS


def mailbox(**fields: Any) -> Imap | None:
    given = {"imap.host": "imap.example.com", **{key.replace("_", "."): value for key, value in fields.items()}}
    return build("a", AccountState.ACTIVE, "", given).imap


@pytest.mark.parametrize(
    ("given", "port", "tls"),
    [
        ({}, 993, Tls.IMPLICIT),
        ({"imap_port": 993}, 993, Tls.IMPLICIT),
        ({"imap_port": 143}, 143, Tls.OPPORTUNISTIC),
        ({"imap_secure": False}, 143, Tls.OPPORTUNISTIC),
        ({"imap_secure": False, "imap_tls_mode": "required"}, 143, Tls.STARTTLS),
        ({"imap_port": 10993, "imap_secure": True}, 10993, Tls.IMPLICIT),
    ],
)
def test_a_mailbox_has_tls_as_its_port_has_unless_it_says_so(given: dict[str, Any], port: int, tls: Tls) -> None:
    assert mailbox(**given) == Imap("imap.example.com", port, tls)


def test_a_mailbox_that_is_switched_off_is_none() -> None:
    assert mailbox(imap_disabled=True) is None
    assert build("a", AccountState.ACTIVE, "", {}).imap is None


def test_the_secrets_of_a_mailbox_do_not_show() -> None:
    shown = repr(mailbox(imap_auth_pass="hidden-1", imap_auth_accessToken="hidden-2", imap_sentMailPath="Gesendet"))
    assert "Gesendet" in shown
    assert "hidden" not in shown


@pytest.mark.parametrize("more", [{}, {"port": 993}, {"secure": True}])
def test_how_starttls_is_used_is_not_for_mailboxes_with_tls_from_the_start(more: dict[str, Any]) -> None:
    assert faults({"imap": {"host": "imap.example.com", "tls": {"mode": "none"}, **more}}) == ["imap.tls.mode"]
