"""OAuth2 as values: settings that fit together, what is asked of issuers, what they answer, and links to mend."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from relay.core import mendlink, oauth
from relay.core.account import MASK, Faulty, Rules, build, change, flatten
from relay.core.issuers import BadMetadata, Endpoints, judge_url, known, metadata_urls, read_metadata, wanted_scopes
from relay.core.oauth import Client, Denied
from relay.core.oauthsettings import fingerprint
from relay.core.tenant import Account, AccountState, OAuth2, Tls

OPEN = (ip_network("127.0.0.0/8"),)
ZONES = frozenset({"UTC"})
RULES = Rules((), sandbox=False, zones=ZONES, applications=frozenset({"google", "microsoft"}))
LOCAL = Rules(OPEN, sandbox=False, zones=ZONES)
MINE = {"clientId": "mine", "clientSecret": "its-secret"}
CUSTOM: dict[str, Any] = {"provider": "custom", "issuer": "https://id.example.com", **MINE}
GMAIL = {"email": "ann@example.com", "oauth2": {"provider": "google"}}


def fields(*given: dict[str, Any], rules: Rules = RULES) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in given:
        found = change(found, one, rules)
    return found


def account(*given: dict[str, Any], rules: Rules = RULES) -> Account:
    return build("a", AccountState.ACTIVE, "", fields(*given, rules=rules))


def faults(given: dict[str, Any], old: dict[str, Any] | None = None, rules: Rules = RULES) -> list[str]:
    with pytest.raises(Faulty) as caught:
        change(fields(old, rules=rules) if old else {}, given, rules)
    return [key for key, _ in caught.value.faults]


# -- settings --------------------------------------------------------------------------------------------------------


def test_an_address_and_a_provider_are_enough() -> None:
    made = account(GMAIL)
    assert made.smtp is not None
    assert made.imap is not None
    assert (made.smtp.label, made.smtp.tls, made.smtp.user) == ("smtp.gmail.com:465", Tls.IMPLICIT, "ann@example.com")
    assert (made.imap.host, made.imap.port, made.imap.tls) == ("imap.gmail.com", 993, Tls.IMPLICIT)
    assert made.imap.user == "ann@example.com"


def test_microsofts_servers_insist_on_tls() -> None:
    made = account({"oauth2": {"provider": "microsoft", "auth": {"user": "ann@contoso.example"}}})
    assert made.smtp is not None
    assert made.imap is not None
    assert (made.smtp.label, made.smtp.tls) == ("smtp.office365.com:587", Tls.STARTTLS)
    assert (made.imap.host, made.imap.tls, made.smtp.user) == (
        "outlook.office365.com",
        Tls.IMPLICIT,
        "ann@contoso.example",
    )


def test_what_was_said_of_a_server_stays() -> None:
    made = account({**GMAIL, "smtp": {"port": 587, "auth": {"user": "alias@example.com"}}, "imap": None})
    assert made.smtp is not None
    assert (made.smtp.label, made.smtp.tls) == ("smtp.gmail.com:587", Tls.STARTTLS)
    assert made.smtp.user == "alias@example.com"
    assert made.imap is None


def test_a_server_that_was_taken_away_does_not_come_back_by_itself() -> None:
    made = account(GMAIL, {"imap": None}, {"name": "Ann"})
    assert made.imap is None
    assert made.smtp is not None


def test_another_provider_brings_its_servers() -> None:
    made = account(GMAIL, {"oauth2": {"provider": "microsoft"}})
    assert made.smtp is not None
    assert made.imap is not None
    assert (made.smtp.label, made.smtp.tls) == ("smtp.office365.com:587", Tls.STARTTLS)
    assert made.imap.host == "outlook.office365.com"


@pytest.mark.parametrize(
    ("oauth2", "wrong"),
    [
        ({"clientId": "x"}, "oauth2.provider"),
        ({"provider": "google", "clientId": "x"}, "oauth2.clientSecret"),
        ({"provider": "google", "clientSecret": "x"}, "oauth2.clientId"),
        ({"provider": "google", "tokenUrl": "https://id.example.com/token"}, "oauth2.tokenUrl"),
        ({"provider": "google", "issuer": "https://id.example.com"}, "oauth2.issuer"),
        ({"provider": "google", "tenant": "common"}, "oauth2.tenant"),
        ({"provider": "microsoft", "tenant": "../x"}, "oauth2.tenant"),
        ({"provider": "custom", "issuer": "https://id.example.com"}, "oauth2.clientId"),
        ({"provider": "custom", **MINE}, "oauth2.issuer"),
        ({"provider": "custom", **MINE, "tokenUrl": "https://id.example.com/token"}, "oauth2.issuer"),
        ({**CUSTOM, "issuer": "http://id.example.com"}, "oauth2.issuer"),
        ({**CUSTOM, "issuer": "https://10.0.0.1"}, "oauth2.issuer"),
        ({**CUSTOM, "issuer": "https://localhost/"}, "oauth2.issuer"),
        ({**CUSTOM, "issuer": "https://id.example.com/?a=b"}, "oauth2.issuer"),
        ({**CUSTOM, "tokenUrl": "https://169.254.169.254/token"}, "oauth2.tokenUrl"),
        ({**CUSTOM, "authorizeUrl": "ftp://id.example.com"}, "oauth2.authorizeUrl"),
    ],
)
def test_settings_that_cannot_be_are_named(oauth2: dict[str, Any], wrong: str) -> None:
    assert faults({"email": "ann@example.com", "oauth2": oauth2}) == [wrong]


def test_without_an_application_of_ours_there_must_be_one() -> None:
    assert faults(GMAIL, rules=LOCAL) == ["oauth2.clientId"]
    assert fields({**GMAIL, "oauth2": {"provider": "google", **MINE}}, rules=LOCAL)


def test_whose_mailbox_it_is_must_be_said() -> None:
    assert faults({"oauth2": {"provider": "google"}}) == ["oauth2.auth.user"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://keycloak:8080", "https://id.example.com"])
def test_without_tls_only_what_the_operator_opened(url: str) -> None:
    assert judge_url(url, OPEN) == ""


@pytest.mark.parametrize("url", ["http://8.8.8.8/", "http://10.0.0.1/"])
def test_without_tls_nothing_else(url: str) -> None:
    assert judge_url(url, OPEN)


def test_xoauth2_is_for_accounts_whose_tokens_are_had() -> None:
    method = {"smtp": {"auth": {"method": "oauthbearer"}}}
    assert account({**GMAIL, **method})
    assert faults({"smtp": {"host": "mx.example.com", "auth": {"user": "u", "method": "oauthbearer"}}}) == [
        "smtp.auth.accessToken"
    ]


# -- secrets stay where they were given ------------------------------------------------------------------------------

HELD: dict[str, Any] = {
    "email": "ann@example.com",
    "smtp": {"host": "mx.example.com"},
    "imap": {"host": "mx.example.com"},
    "oauth2": {**CUSTOM, "refreshToken": "held"},
}


@pytest.mark.parametrize(
    "turned",
    [
        {"issuer": "https://evil.example"},
        {"tokenUrl": "https://evil.example/token"},
        {"provider": "google", "issuer": None},
    ],
)
def test_another_issuer_wants_both_secrets_again(turned: dict[str, Any]) -> None:
    wanted = ["oauth2.clientSecret", "oauth2.refreshToken"]
    if "provider" in turned:
        turned = {**turned, "clientId": "other"}
        HELD_BARE = {**HELD, "smtp": None, "imap": None}
        assert faults({"oauth2": turned}, HELD_BARE) == wanted
        return
    assert faults({"oauth2": turned}, HELD) == wanted
    assert faults({"oauth2": {**turned, "clientSecret": MASK, "refreshToken": MASK}}, HELD) == wanted
    assert change(fields(HELD), {"oauth2": {**turned, "clientSecret": "s", "refreshToken": None}}, RULES)


@pytest.mark.parametrize("server", ["smtp", "imap"])
def test_a_host_that_would_be_told_tokens_wants_the_refresh_token_again(server: str) -> None:
    evil = {server: {"host": "evil.example"}}
    assert faults(evil, HELD) == ["oauth2.refreshToken"]
    assert change(fields(HELD), {**evil, "oauth2": {"refreshToken": "anew"}}, RULES)
    assert change(fields(HELD), {**evil, "oauth2": {"refreshToken": None}}, RULES)


def test_a_host_cannot_be_changed_by_taking_it_away_first() -> None:
    old = fields(HELD, {"smtp": None})
    with pytest.raises(Faulty):
        change(old, {"smtp": {"host": "evil.example"}}, RULES)


def test_a_host_cannot_be_changed_behind_a_password() -> None:
    old = fields(HELD, {"smtp": {"host": "evil.example", "auth": {"user": "u", "pass": "p"}}})
    with pytest.raises(Faulty):
        change(old, {"smtp": {"auth": {"pass": None}}}, RULES)


def test_a_host_cannot_be_changed_while_the_mailbox_is_off() -> None:
    off = fields(HELD, {"imap": {"disabled": True}})
    with pytest.raises(Faulty):
        change(off, {"imap": {"host": "evil.example"}}, RULES)


def test_hosts_of_the_provider_itself_may_change() -> None:
    held = {"email": "ann@example.com", "oauth2": {"provider": "google", **MINE, "refreshToken": "held"}}
    assert change(fields(held), {"smtp": {"host": "smtp-relay.gmail.com"}}, RULES)
    assert faults({"smtp": {"host": "evil.example"}}, held) == ["oauth2.refreshToken"]


def test_the_installations_application_is_for_the_providers_servers() -> None:
    assert faults({**GMAIL, "smtp": {"host": "evil.example"}}) == ["smtp.host"]
    own = {**GMAIL, "smtp": {"host": "mx.example.com", "auth": {"user": "u", "pass": "p"}}}
    assert fields(own)["smtp.host"] == "mx.example.com"


def test_an_authorisation_is_of_the_settings_it_was_begun_with() -> None:
    old = fields(HELD)
    same = change(old, {"name": "Ann", "oauth2": {"refreshToken": "anew"}}, RULES)
    assert fingerprint(same) == fingerprint(old)
    for turned in ({"smtp": {"auth": {"user": "bob"}}, "email": "bob@example.com"}, {"oauth2": {"scopes": ["x"]}}):
        assert fingerprint(change(old, turned, RULES)) != fingerprint(old)


def test_no_secret_shows_in_what_is_logged() -> None:
    shown = repr(account({**GMAIL, "oauth2": {"provider": "google", **MINE, "refreshToken": "held-fast"}}))
    assert "its-secret" not in shown
    assert "held-fast" not in shown


# -- what is asked ---------------------------------------------------------------------------------------------------


def test_the_challenge_is_that_of_the_rfc() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636, appendix B
    assert oauth.challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def authorization(endpoint: str, **more: Any) -> dict[str, str]:
    asked: dict[str, Any] = {"client_id": "c&d", "redirect_uri": "https://us.example/cb", "scopes": ("a", "b")}
    url = oauth.authorization_url(endpoint, **asked, state="st", verifier="v" * 43, **more)
    assert url.startswith(endpoint)
    return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))


def test_an_authorisation_asks_with_pkce_and_state() -> None:
    asked = authorization("https://id.example/a", user="ann@x.example", more={"prompt": "consent"})
    assert (asked["client_id"], asked["scope"], asked["state"]) == ("c&d", "a b", "st")
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert asked["code_challenge"] == oauth.challenge("v" * 43)
    assert (asked["login_hint"], asked["prompt"]) == ("ann@x.example", "consent")


def test_the_endpoints_own_query_stays() -> None:
    assert authorization("https://id.example/a?policy=mail")["policy"] == "mail"


def test_google_is_asked_for_a_lasting_grant() -> None:
    google = OAuth2("google")
    endpoints = known(google)
    assert endpoints is not None
    assert urlsplit(endpoints.token).hostname == "oauth2.googleapis.com"
    assert wanted_scopes(google, endpoints) == ("https://mail.google.com/", "openid", "email")


def test_microsofts_endpoints_are_its_tenants() -> None:
    endpoints = known(OAuth2("microsoft", tenant="contoso.example"))
    assert endpoints is not None
    assert endpoints.token == "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token"


@pytest.mark.parametrize("basic", [False, True])
def test_the_client_tells_its_secret_in_one_way(basic: bool) -> None:
    body, headers = oauth.request(oauth.refresh_form("r+t"), Client("a:b", "s/ä", basic))
    form = parse_qs(body.decode())
    assert form["refresh_token"] == ["r+t"]
    if basic:
        assert headers["Authorization"] == "Basic " + base64.b64encode(b"a%3Ab:s%2F%C3%A4").decode()
        assert "client_secret" not in form
    else:
        assert (form["client_id"], form["client_secret"]) == (["a:b"], ["s/ä"])
        assert "Authorization" not in headers


# -- what comes back -------------------------------------------------------------------------------------------------


def answered(status: int = 200, **told: Any) -> oauth.Granted:
    return oauth.read_answer(status, json.dumps({"access_token": "t", "token_type": "Bearer", **told}))


def denied(status: int, text: str) -> Denied:
    with pytest.raises(Denied) as caught:
        oauth.read_answer(status, text)
    return caught.value


@pytest.mark.parametrize(
    ("told", "seconds"), [(3599, 3599), ("600", 600), (None, 3600), (-1, 3600), ("soon", 3600), (1e300, 86400)]
)
def test_the_life_of_a_token_is_read_with_care(told: object, seconds: float) -> None:
    assert answered(expires_in=told).seconds == seconds


@pytest.mark.parametrize("token", ["", "a b", "a\x01b", "ü", 7, None, "x" * 20_000])
def test_a_token_that_no_server_could_be_told_is_none(token: object) -> None:
    assert denied(200, json.dumps({"access_token": token, "token_type": "bearer"})).away
    assert denied(200, json.dumps({"access_token": "t", "refresh_token": token})) if token is not None else True


def test_a_token_of_another_kind_is_none() -> None:
    assert not denied(200, json.dumps({"access_token": "t", "token_type": "mac"})).away


@pytest.mark.parametrize(
    ("code", "away", "final", "words"),
    [
        ("invalid_grant", False, True, "Connect the account again"),
        ("interaction_required", False, True, "sign in once more"),
        ("invalid_client", False, False, "oauth2.clientSecret"),
        ("invalid_scope", False, False, "oauth2.scopes"),
        ("temporarily_unavailable", True, False, "usually passes"),
        ("never_heard_of", False, False, "own words"),
    ],
)
def test_an_error_says_what_to_do(code: str, away: bool, final: bool, words: str) -> None:
    fault = denied(400, json.dumps({"error": code, "error_description": "AADSTS700082:\r\nexpired\x00"}))
    assert (fault.code, fault.away, fault.final) == (code, away, final)
    assert words in str(fault)
    assert "AADSTS700082: expired" in str(fault)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_bad_day_of_the_issuer_passes(status: int) -> None:
    assert denied(status, json.dumps({"error": "invalid_grant"})).away


@pytest.mark.parametrize("text", ["", "<html>", "[]", "null", "[" * 100_000, '{"error": 7}', "{}", '{"error": ["x"]}'])
@pytest.mark.parametrize("status", [200, 400, 404])
def test_garbage_is_no_refusal(status: int, text: str) -> None:
    fault = denied(status, text)
    assert not fault.final
    assert fault.away or status == 200


def test_what_an_issuer_says_has_a_bound() -> None:
    assert len(str(denied(400, json.dumps({"error": "invalid_grant", "error_description": "x" * 100_000})))) < 600


def id_token(**claims: Any) -> str:
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b'=').decode()}.x"


@pytest.mark.parametrize(
    ("wanted", "claims", "other"),
    [
        ("Ann@Example.com", {"email": "ann@example.com"}, ""),
        ("ann@example.com", {"email": "bob@example.com"}, "bob@example.com"),
        ("ann@example.com", {"email": "a@personal.example", "preferred_username": "ann@example.com"}, ""),
        ("a.nn@gmail.com", {"email": "ann@googlemail.com"}, ""),
        ("ann@example.com", {"sub": "12"}, ""),
        ("ann", {"email": "bob@example.com"}, ""),
        ("ann", {"preferred_username": "bob"}, "bob"),
    ],
)
def test_whoever_signed_in_is_compared(wanted: str, claims: dict[str, str], other: str) -> None:
    assert oauth.somebody_else(wanted, oauth.signed_in_as(id_token(**claims))) == other


@pytest.mark.parametrize("token", ["", "a.b", "a.!!.c", "a.bnVsbA.c", "e30.W10.x", "x" * 100])
def test_an_id_token_that_cannot_be_read_tells_nothing(token: str) -> None:
    assert oauth.signed_in_as(token) == frozenset()


# -- metadata --------------------------------------------------------------------------------------------------------

TOLD: dict[str, Any] = {
    "issuer": "https://id.example.com/t",
    "authorization_endpoint": "https://id.example.com/a",
    "token_endpoint": "https://id.example.com/t",
}
ASKED = OAuth2("custom", issuer="https://id.example.com/t/")


def test_an_issuer_is_asked_where_both_standards_say() -> None:
    assert metadata_urls("https://id.example.com/t/") == (
        "https://id.example.com/t/.well-known/openid-configuration",
        "https://id.example.com/.well-known/oauth-authorization-server/t",
    )


def test_metadata_is_read() -> None:
    scopes = {"scopes_supported": ["email", "offline_access", "root"]}
    told = read_metadata(
        json.dumps({**TOLD, **scopes, "token_endpoint_auth_methods_supported": ["client_secret_post"]}), ASKED, ()
    )
    assert told == Endpoints(
        "https://id.example.com/a",
        "https://id.example.com/t",
        "https://id.example.com/t",
        scopes=("email", "offline_access"),
    )
    assert read_metadata(json.dumps(TOLD), ASKED, ()).basic


@pytest.mark.parametrize(
    "told",
    [
        {**TOLD, "issuer": "https://evil.example"},
        {**TOLD, "issuer": None},
        {**TOLD, "token_endpoint": "http://id.example.com/t"},
        {**TOLD, "token_endpoint": "https://10.0.0.1/t"},
        {**TOLD, "token_endpoint": 7},
        {**TOLD, "authorization_endpoint": None},
        [],
        None,
    ],
)
def test_metadata_that_cannot_be_used_is_not(told: object) -> None:
    with pytest.raises(BadMetadata):
        read_metadata(json.dumps(told), ASKED, ())


# -- links -----------------------------------------------------------------------------------------------------------

KEYS = (b"new" * 10, b"old" * 10)
MADE = datetime(2026, 11, 20, 9, 30, 0, 123456, tzinfo=UTC)


def test_a_link_is_for_its_account_until_its_end() -> None:
    token = mendlink.sign(KEYS, "tenant/ü@x", MADE, 1000)
    assert mendlink.read(KEYS, token, 999) == ("tenant/ü@x", MADE)
    assert mendlink.read(KEYS, token, 1000) is None
    assert mendlink.read(KEYS, mendlink.sign(KEYS[1:], "a", MADE, 1000), 1) == ("a", MADE)
    assert mendlink.read(KEYS[:1], mendlink.sign(KEYS[1:], "a", MADE, 1000), 1) is None


def test_a_link_that_was_touched_is_none() -> None:
    token = mendlink.sign(KEYS, "shop", MADE, 1000)
    for place in range(len(token) - 1):
        other = "A" if token[place] != "A" else "B"
        assert mendlink.read(KEYS, token[:place] + other + token[place + 1 :], 1) is None


def test_a_link_has_one_spelling() -> None:
    tokens = [mendlink.sign(KEYS, "shop" + "x" * length, MADE, 1000 + length) for length in range(30)]
    assert any("-" in token for token in tokens)
    for token in tokens:
        last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(token[-1])
        near = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last ^ 1]
        others = {token.replace("-", "+"), token.replace("_", "/"), token + "=", token[:-1] + near} - {token}
        assert {mendlink.read(KEYS, other, 1) for other in others} == {None}


@pytest.mark.parametrize("token", ["", "x", "ü", "A" * 22, "A" * 5000, "a.b.c"])
def test_any_other_text_is_none(token: str) -> None:
    assert mendlink.read(KEYS, token, 1) is None


def test_the_fields_are_all_known() -> None:
    assert {key for key, _ in flatten({"oauth2": CUSTOM})} <= set(fields({"email": "a@b.example", "oauth2": CUSTOM}))


@pytest.mark.parametrize("said", ["It was revoked", "It was revoked."])
def test_what_a_provider_says_is_a_sentence_to_which_more_may_be_added(said: str) -> None:
    assert str(oauth.denial("invalid_grant", said)).endswith(" The provider said: invalid_grant: It was revoked.")
