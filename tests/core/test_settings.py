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


def test_dotenv_is_utf_8_with_or_without_a_mark_before_it(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"\xef\xbb\xbfPOSTFERRY_HOSTNAME=z\xc3\xb6e.example\n")
    assert settings.read({}, dotenv=file).hostname == "zöe.example"
    file.write_bytes(b"POSTFERRY_HOSTNAME=z\xf6e.example\n")
    with pytest.raises(settings.SettingsError, match="is no text in UTF-8"):
        settings.read({}, dotenv=file)


@pytest.mark.parametrize("number", ["²", "--5", "5_0", "5.0", "five", "-"])
def test_what_is_no_whole_number_is_told_in_our_words(number: str) -> None:
    with pytest.raises(settings.SettingsError, match="POSTFERRY_RETENTION_DAYS must be a whole number from 0 to 36500"):
        settings.read({"POSTFERRY_RETENTION_DAYS": number}, dotenv=None)


@pytest.mark.parametrize(
    "url",
    ["relay.example", "http:///x", "http://[", "http://h:99999", "https://h/?a=b", "http://my host", 'http://h"><b'],
)
def test_what_no_pixel_can_be_put_behind_is_no_public_url(url: str) -> None:
    with pytest.raises(settings.SettingsError, match="POSTFERRY_PUBLIC_URL must be a URL starting with http://"):
        settings.read({"POSTFERRY_PUBLIC_URL": url}, dotenv=None)


@pytest.mark.parametrize("url", ["https://relay.example", "http://[::1]:8080/mail/", "http://203.0.113.9:3000"])
def test_a_public_url_may_have_port_and_path(url: str) -> None:
    assert settings.read({"POSTFERRY_PUBLIC_URL": url}, dotenv=None).public_url == url.rstrip("/")


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"POSTFERRY_LEASE_SECONDS": "5", "POSTFERRY_LEASE_BUDGET": "5"}, "LEASE_BUDGET must be less"),
        ({"POSTFERRY_WEBHOOK_DAYS": "1"}, "POSTFERRY_WEBHOOK_DAYS end before the last"),
        ({"POSTFERRY_WEBHOOK_RETRIES": "60 31536000"}, "POSTFERRY_WEBHOOK_DAYS end before the last"),
        ({"POSTFERRY_TLS_KEY": __file__}, "go together"),
        ({"POSTFERRY_SMTP_PORT": "3000"}, "POSTFERRY_SMTP_PORT and POSTFERRY_API_PORT are both 3000"),
        ({"POSTFERRY_METRICS_PORT": "3000"}, "POSTFERRY_API_PORT and POSTFERRY_METRICS_PORT are both 3000"),
    ],
)
def test_settings_are_seen_side_by_side(given: dict[str, str], fault: str) -> None:
    with pytest.raises(settings.SettingsError, match=fault):
        settings.read(given, dotenv=None)
