"""Endpoints: who wants to be told what, with secrets and custom headers sealed with the vault."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from relay.core.vault import Vault, VaultError
from relay.store.db import Connection

COLUMNS = (
    "id, account_id as account, url, events, description, headers, secret,"
    " case when old_until > now() then old_secret end as old_secret, managed, state::text, reason, failures,"
    " failing_since, created_at, updated_at"
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where events go. `account` None: those of all accounts; `events` empty: all of them."""

    id: int
    account: str | None
    url: str
    events: tuple[str, ...]
    description: str
    headers: Mapping[str, str] = field(repr=False)  # custom ones, as they were given
    secret: str = field(repr=False)  # "whsec_..."
    old_secret: str | None = field(repr=False)  # signs too: its time is not over
    managed: bool  # it is the account's own setting `webhooks`
    state: str  # active or disabled
    reason: str  # why it is disabled, or what its last failure was
    failures: int  # tries that failed in a row
    failing_since: datetime | None  # the first of them
    created_at: datetime
    updated_at: datetime

    @property
    def active(self) -> bool:
        return self.state == "active"


async def opened(conn: Connection, vault: Vault, ids: Sequence[int]) -> dict[int, Endpoint]:
    """These endpoints by id, ready to sign. Left out: what is gone, and what was sealed with a key that is lost."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(f"select {COLUMNS} from endpoints where id = any(%b)".encode(), (list(ids),))  # noqa: S608
        found = {}
        for row in await cursor.fetchall():
            try:
                found[row["id"]] = _open(row, vault)
            except VaultError:
                continue
        return found


def _open(row: Mapping[str, Any], vault: Vault) -> Endpoint:
    place = f"endpoint/{row['id']}"
    old = row["old_secret"] and vault.open(place, "oldSecret", row["old_secret"])
    headers = json.loads(vault.open(place, "headers", row["headers"])) if row["headers"] else {}
    secret = vault.open(place, "secret", row["secret"])
    return Endpoint(**{**row, "events": tuple(row["events"]), "headers": headers, "secret": secret, "old_secret": old})
