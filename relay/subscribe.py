"""Take an endpoint on, change it, give it another secret, let it go; show it, and what was posted to it.

`account` is whose it must be; None: anybody's.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from relay.core import endpoint as settings_of
from relay.core import webhook
from relay.core.account import MASK, Faulty
from relay.core.endpoint import Wanted
from relay.core.errors import Refused
from relay.core.vault import Vault
from relay.settings import Settings
from relay.store import endpoints
from relay.store.db import Connection
from relay.store.endpoints import Endpoint
from relay.store.postlog import Posting

VALID = 86_400.0  # seconds that a secret signs beside the one that follows it
LONGEST_VALID = 30 * 86_400.0


async def add(
    conn: Connection, vault: Vault, settings: Settings, account: str | None, given: Mapping[str, Any], secret: str = ""
) -> Endpoint:
    """A new endpoint for an account's events, or for those of all. `secret` "": one is made.

    Raises Faulty with every reason, and Refused: no such account (404), or it has as many as it may (409).
    """
    wanted = settings_of.change(Wanted(), given, settings.allow_networks)
    whose = f"Account {account} has" if account else "There are"
    try:
        id = await endpoints.add(conn, vault, account, wanted, _secret(secret))
    except LookupError:
        raise Refused(f"There is no account {account}", status=404, code="AccountNotFound") from None
    if id is None:
        message = f"{whose} {settings_of.MOST} endpoints already; delete one, or let one take more events"
        raise Refused(message, status=409, code="TooManyEndpoints")
    return await _again(conn, vault, id)


async def change(
    conn: Connection, vault: Vault, settings: Settings, id: int, account: str | None, given: Mapping[str, Any]
) -> Endpoint:
    """Merge `given` into the endpoint. Raises Faulty, and Refused: 404, or 409 where its account leads it."""
    async with conn.transaction():
        old = await found(conn, vault, id, account, lock=True)
        if old.managed and given.get("url", old.url) != old.url:
            raise _managed(old, "To lead it elsewhere, set that")
        wanted = settings_of.change(old.wanted, given, settings.allow_networks)
        await endpoints.change(conn, vault, old, wanted, headers="headers" in given)
    return await _again(conn, vault, id)


async def enable(conn: Connection, vault: Vault, id: int) -> None:
    """Post to it again, whosever it is: past failures are forgotten, what waits goes at once. Raises Refused (404)."""
    async with conn.transaction():
        old = await found(conn, vault, id, None, lock=True)
        await endpoints.change(conn, vault, old, replace(old.wanted, enabled=True), headers=False, afresh=True)


async def rotate(
    conn: Connection, vault: Vault, id: int, account: str | None, secret: str = "", valid: float = VALID
) -> Endpoint:
    """Sign with a new secret, and with the old one for `valid` more seconds. Raises Faulty, Refused (404)."""
    async with conn.transaction():
        old = await found(conn, vault, id, account, lock=True)
        await endpoints.rotate(conn, vault, old, _secret(secret), valid)
    return await _again(conn, vault, id)


async def remove(conn: Connection, vault: Vault, id: int, account: str | None) -> None:
    """Let it go, with its log. Raises Refused: 404, or 409 where it is an account's setting."""
    old = await found(conn, vault, id, account)
    if old.managed:
        raise _managed(old, "To remove it, remove that (null); to hold it for a while, set enabled to false")
    await endpoints.remove(conn, id)


async def found(conn: Connection, vault: Vault, id: int, account: str | None, *, lock: bool = False) -> Endpoint:
    """The endpoint; Refused (404) alike when there is none and when it is somebody else's."""
    one = await endpoints.find(conn, vault, id, account=account, lock=lock)
    if one is None:
        raise Refused(f"There is no webhook {id}", status=404, code="WebhookNotFound")
    return one


def shown(one: Endpoint) -> dict[str, Any]:
    """By the names of the API, without its secret; instants are left to who writes them."""
    return {
        "id": one.id,
        "account": one.account,
        "url": one.url,
        "events": list(one.events),
        "headers": dict.fromkeys(one.headers, MASK),
        "description": one.description,
        "enabled": one.active,
        "reason": one.reason,
        "failures": one.failures,
        "failingSince": one.failing_since,
        "managed": one.managed,
        "oldSecretUntil": one.old_until,
        "created": one.created_at,
        "updated": one.updated_at,
    }


def posted(one: Posting) -> dict[str, Any]:
    """The same of a posting in its log."""
    return {
        "id": one.id,
        "event": one.type,
        "eventId": webhook.event_id(one.event),
        "account": one.account,
        "state": one.state,
        "attempts": one.attempts,
        "created": one.created_at,
        "nextTry": one.due_at if one.state == "pending" else None,
        "finished": one.finished_at,
        "status": one.status,
        "error": one.error,
    }


async def _again(conn: Connection, vault: Vault, id: int) -> Endpoint:
    return await found(conn, vault, id, None)


def _managed(old: Endpoint, advice: str) -> Refused:
    message = f"This endpoint is the setting `webhooks` of account {old.account}. {advice}"
    return Refused(message, status=409, code="ManagedEndpoint")


def _secret(given: str) -> str:
    if not given:
        return webhook.new_secret(secrets.token_bytes(32))
    try:
        webhook.key(given)
    except ValueError as fault:
        raise Faulty([("secret", f"cannot be used: {fault}")], "The endpoint") from None
    return given
