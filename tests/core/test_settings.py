"""Settings are validated whole, and every fault is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay import settings


def test_defaults_stand_without_an_environment() -> None:
    assert settings.read({}, dotenv=None).smtp_port == 2525


def test_every_fault_is_listed_at_once() -> None:
    with pytest.raises(settings.SettingsError) as error:
        settings.read({"POSTFERRY_SMTP_PORT": "x", "POSTFERRY_TRUSTED_NETWORKS": "10.0.0.0/99"}, dotenv=None)
    assert [fault.split()[0] for fault in error.value.faults] == ["POSTFERRY_SMTP_PORT", "POSTFERRY_TRUSTED_NETWORKS"]


def test_a_misspelt_setting_is_a_fault() -> None:
    with pytest.raises(settings.SettingsError, match="POSTFERRY_SMPT_PORT is not a setting"):
        settings.read({"POSTFERRY_SMPT_PORT": "25"}, dotenv=None)


def test_a_secret_is_never_shown_in_a_fault() -> None:
    with pytest.raises(settings.SettingsError) as error:
        settings.read({"POSTFERRY_SECRET_KEYS": "hunter2"}, dotenv=None)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:6379", "http://x", "redis://h:x", "redis://h:70000", "redis://:hunter2/@h", "unix://", "REDIS://h"],
)
def test_what_is_no_address_of_redis_is_a_fault(url: str) -> None:
    with pytest.raises(settings.SettingsError, match="REDIS_URL must be a URL such as redis://") as error:
        settings.read({"REDIS_URL": url}, dotenv=None)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("url", ["localhost", "mysql://x", "db:5432/postferry", " "])
def test_what_is_no_address_of_postgresql_is_a_fault(url: str) -> None:
    with pytest.raises(settings.SettingsError, match="DATABASE_URL must be a URL such as postgresql://"):
        settings.read({"DATABASE_URL": url}, dotenv=None)


@pytest.mark.parametrize(
    "given",
    [
        {"REDIS_URL": "redis://"},
        {"REDIS_URL": "rediss://user:p%40ss@h:6380/1?ssl_cert_reqs=none"},
        {"REDIS_URL": "unix:///run/valkey.sock?db=2"},
        {"DATABASE_URL": "postgres://u:p@h1:1,h2:2/db"},
        {"DATABASE_URL": "postgresql:///db?host=/run/postgresql"},
        {"DATABASE_URL": "host=/run/postgresql dbname='my mail'"},
    ],
)
def test_addresses_as_the_libraries_take_them(given: dict[str, str]) -> None:
    read = settings.read(given, dotenv=None)
    assert given == {name: getattr(read, name.lower()) for name in given}


@pytest.mark.parametrize(
    ("name", "words"), [("LOG_LEVEL", "debug, info, warning, error"), ("LOG_FORMAT", "json, text")]
)
def test_a_word_that_is_none_of_them_is_shown_among_the_other_faults(name: str, words: str) -> None:
    with pytest.raises(settings.SettingsError) as error:
        settings.read({f"POSTFERRY_{name}": "loud", "POSTFERRY_SMTP_PORT": "x"}, dotenv=None)
    (fault,) = (one for one in error.value.faults if name in one)
    assert f"must be one of {words}" in fault
    assert fault.endswith("(is 'loud')")


def test_dotenv_fills_what_the_environment_leaves_out(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# ports\nexport POSTFERRY_SMTP_PORT='2626'\nPOSTFERRY_API_PORT=4000\n")
    read = settings.read({"POSTFERRY_API_PORT": "5000"}, dotenv=file)
    assert (read.smtp_port, read.api_port) == (2626, 5000)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"POSTFERRY_LEASE_SECONDS": "5", "POSTFERRY_LEASE_BUDGET": "5"}, "LEASE_BUDGET must be less"),
        ({"POSTFERRY_WEBHOOK_DAYS": "1"}, "POSTFERRY_WEBHOOK_DAYS end before the last"),
        ({"POSTFERRY_WEBHOOK_RETRIES": "60 31536000"}, "POSTFERRY_WEBHOOK_DAYS end before the last"),
        ({"POSTFERRY_TLS_KEY": __file__}, "go together"),
    ],
)
def test_settings_are_seen_side_by_side(given: dict[str, str], fault: str) -> None:
    with pytest.raises(settings.SettingsError, match=fault):
        settings.read(given, dotenv=None)
