"""No setting of a tenant's makes us talk to our own network: every field that names a host, in every spelling."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from api import quota
from relay.core import issuers
from relay.core.hosts import REASONS
from relay.core.issuers import CUSTOM, BadMetadata
from relay.core.tenant import OAuth2
from relay.net import guard
from relay.settings import Settings, read
from tests.api.client import Client
from tests.api.fields import DOCUMENT, Path, grown, spelt, taken, texts

CALLS = [
    ("POST", "/v1/account"),
    ("PUT", "/v1/account/{account}"),
    ("POST", "/v1/webhooks"),
    ("PUT", "/v1/webhooks/{endpoint}"),
]
HOSTS = frozenset({"host"})
URLS = frozenset({"baseUrl", "issuer", "authorizeUrl", "tokenUrl", "webhooks", "url"})
NOWHERE = frozenset({"mailgun.domain", "smtp.tls.name", "imap.sentMailPath", "sentMailPath"})
"""Fields whose names sound as if they led somewhere: a part of a path, what we call ourselves, folders of a mailbox."""
SPELLINGS = [
    *("127.0.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "0", "127.0.0.1.", "localhost"),
    *("LOCALHOST.", "a.localhost", "localhost.localdomain", "10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1"),
    *("169.254.169.254", "169.254.169.254.", "2852039166", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"),
    *("[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[::127.0.0.1]"),
    *("[fd00::1]", "[fe80::1]", "[fd00:ec2::254]"),
]
FOREIGN = ["１２７.0.0.1", "127。0。0。1", "fe80::1%eth0", "::1", "::ffff:10.0.0.1", "①②⑦.0.0.1"]
"""Spellings that a host may have, and a URL not."""


@pytest.fixture
def settings(environ: dict[str, str]) -> Settings:
    """Nothing of the own network is opened."""
    return read({**environ, "POSTFERRY_ALLOW_NETWORKS": ""}, dotenv=None)


def named(method: str, path: str, last: Iterable[str]) -> list[tuple[str, str, Path]]:
    return [(method, path, field) for field in texts(taken(method, path)) if field[-1] in last]


FIELDS = [one for call in CALLS for one in named(*call, HOSTS | URLS)]
TRIED = named("POST", "/v1/verifyAccount", HOSTS | URLS)


def test_every_field_that_names_a_host_is_known() -> None:
    """One that is added is attacked if its name is in HOSTS or URLS; if it sounds like one, say so, or why not."""
    asked = [
        (method, path, field)
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
        for field in texts(taken(method, path))
    ]
    words = ("host", "url", "uri", "domain", "server", "issuer", "endpoint", "webhook", "proxy", "callback", "path")
    sounding = [one for one in asked if any(word in str(one[2][-1]).lower() for word in (*words, "file", "mmdb"))]
    known = {(method.lower(), path, field) for method, path, field in (*FIELDS, *TRIED)}
    files = {"attachments.0.filename"}
    assert {spelt(one[2]) for one in sounding if one not in known} <= NOWHERE | files | {"mailgun.webhookSigningKey"}


@pytest.mark.parametrize(("method", "path", "field"), FIELDS, ids=[f"{m} {p} {spelt(f)}" for m, p, f in FIELDS])
async def test_what_spells_out_our_own_network_is_refused_at_save(
    admin: Client, method: str, path: str, field: Path
) -> None:
    """Given each spelling, then the refusal names the field and the reason."""
    await admin.ok("POST", "/v1/account", {"account": "shop"})
    endpoint = (await admin.ok("POST", "/v1/webhooks", {"url": "https://x.example/"}))["id"]
    address = path.format(account="shop", endpoint=endpoint)
    taken_in = []
    for host in [*SPELLINGS, *(FOREIGN if field[-1] in HOSTS else [])]:
        value = host.strip("[]") if field[-1] in HOSTS else f"https://{host}/x"
        given = grown(taken(method, path), field, value)
        if field[0] == "oauth2":
            given["oauth2"]["provider"] = CUSTOM
        status, answer = await admin.ask(method, address, given)
        found = [fault["message"] for fault in answer.get("fields", ()) if fault["key"] == spelt(field)]
        if status != 400 or not found:
            taken_in.append((value, status, found))
    assert taken_in == []


@pytest.mark.parametrize(("method", "path", "field"), TRIED, ids=[spelt(field) for _, _, field in TRIED])
async def test_a_verification_does_not_go_there(
    admin: Client, monkeypatch: pytest.MonkeyPatch, method: str, path: str, field: Path
) -> None:
    monkeypatch.setattr(quota, "UNBOUND", 1000)
    gone = []
    for host in SPELLINGS:
        given = grown(taken(method, path), field, host.strip("[]") if field[-1] in HOSTS else f"https://{host}/x")
        if field[0] == "mailgun":
            given["mailgun"] |= {"domain": "mg.x.example", "apiKey": "k"}
        status, answer = await admin.ask(method, path, given)
        steps = [step for server in ("smtp", "imap") for step in ((answer.get(server) or {}).get("steps", ()))]
        if status not in (200, 400) or [one for one in steps if one["step"] == "connect" and one["state"] != "skipped"]:
            gone.append((host, status, steps))
    assert gone == []


@pytest.mark.parametrize("host", [*SPELLINGS, *FOREIGN])
async def test_it_is_refused_as_it_is_dialled_too(host: str) -> None:
    """What was saved before, or comes another way: a redirect, a document, an older version."""

    async def here(host: str, port: int) -> list[tuple[Any, ...]]:
        return [(2, 1, 6, "", ("127.0.0.1", port))]

    with pytest.raises(guard.Forbidden):
        await guard.resolve(host.strip("[]"), 443, (), resolver=here)


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.parametrize("field", ["authorization_endpoint", "token_endpoint"])
def test_an_issuer_cannot_send_us_there(host: str, field: str) -> None:
    """By the document in which it tells of itself (RFC 8414)."""
    issuer = "https://issuer.example"
    urls = {"authorization_endpoint": f"{issuer}/a", "token_endpoint": f"{issuer}/t", field: f"https://{host}/x"}
    oauth2 = OAuth2(provider=CUSTOM, user="ann@x.example", issuer=issuer)
    with pytest.raises(BadMetadata):
        issuers.read_metadata(json.dumps({"issuer": issuer, **urls}), oauth2, ())


def test_every_kind_of_inner_address_has_a_spelling_here() -> None:
    reasons = {reason for _, reason in REASONS}
    assert {"loopback address", "private address", "link-local address", "cloud metadata address"} <= reasons
