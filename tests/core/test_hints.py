"""Every rule knows its own sample, and what the large providers say is answered as a person would."""

from __future__ import annotations

import pytest

from relay.core.hints import HINTS, Hint, advise


@pytest.mark.parametrize("hint", HINTS, ids=lambda hint: hint.name)
def test_a_rule_is_the_one_that_knows_its_sample(hint: Hint) -> None:
    for step in hint.steps:
        assert advise(step, *hint.sample) == hint.advice


@pytest.mark.parametrize("hint", HINTS, ids=lambda hint: hint.name)
def test_advice_is_sentences(hint: Hint) -> None:
    assert hint.advice[0].isupper()
    assert hint.advice.endswith(".")


def test_names_are_given_once() -> None:
    assert len({hint.name for hint in HINTS}) == len(HINTS)


@pytest.mark.parametrize(
    ("step", "host", "said", "word"),
    [
        ("auth", "smtp.gmail.com", "535 5.7.8 Username and Password not accepted. BadCredentials", "app password"),
        ("auth", "smtp.gmail.com", "534 5.7.9 Application-specific password required.", "app password"),
        ("auth", "smtp.gmail.com", "534 5.7.14 Please log in via your web browser and then try again.", "web browser"),
        ("login", "imap.gmail.com", "[AUTHENTICATIONFAILED] Invalid credentials (Failure)", "OAuth2"),
        ("login", "imap.gmail.com", "[ALERT] Application-specific password required: https://...", "app password"),
        ("login", "imap.gmail.com", "[ALERT] Too many simultaneous connections. (Failure)", "connections"),
        ("login", "imap.gmail.com", "imap.gmail.com did not answer in time", "firewall"),
        (
            "auth",
            "smtp.office365.com",
            "535 5.7.139 Authentication unsuccessful, basic authentication is disabled",
            "OAuth2",
        ),
        ("auth", "smtp.office365.com", "535 5.7.3 Authentication unsuccessful [AM0PR01CA0001]", "basic authentication"),
        (
            "auth",
            "smtp-mail.outlook.com",
            "535 5.7.139 SmtpClientAuthentication is disabled for the Mailbox.",
            "SMTP AUTH",
        ),
        ("login", "outlook.office365.com", "AUTHENTICATE failed.", "OAuth2"),
        ("login", "imap.mail.yahoo.co.jp", "[AUTHENTICATIONFAILED] Incorrect username or password.", "two-step"),
        ("login", "imap.aol.com", "[AUTHENTICATIONFAILED] LOGIN Invalid credentials", "app password"),
        ("auth", "smtp.mail.me.com", "535 5.7.8 Error: authentication failed:", "app-specific"),
        ("login", "mail.evilgmail.com.example.org", "[AUTHENTICATIONFAILED] no", "two-step"),
        ("login", "notgmail.com", "[AUTHENTICATIONFAILED] no", "two-step"),
        ("login", "imap.example.com", "[ALERT] Password expired", "expired"),
        ("auth", "smtp.example.com", "535 5.7.8 authentication failed", ""),
    ],
)
def test_what_providers_say_is_answered(step: str, host: str, said: str, word: str) -> None:
    found = advise(step, host, said)
    assert word in found
    assert bool(found) == bool(word)
