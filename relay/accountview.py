"""An account as it is shown, over HTTP and by the commands: settings, with what applies where none is; no secret."""

from __future__ import annotations

from typing import Any

from relay.core import account as settings_of
from relay.core.tenant import Account
from relay.store import mailboxes, verifications
from relay.store.accounts import Row
from relay.store.db import Connection
from relay.store.mailboxes import Standing
from relay.store.verifications import Verification


def shown(row: Row) -> dict[str, Any]:
    """By the names of the API; instants are left to who writes them."""
    fields = row.fields(None)
    nested = settings_of.nest(fields)
    sees = settings_of.build(row.id, row.state, row.reason, fields)
    return {
        "account": row.id,
        "name": row.name,
        "email": row.email,
        "state": row.state,
        "reason": row.reason,
        "retryAt": row.retry_at,
        "smtp": nested.get("smtp"),
        "imap": nested.get("imap"),
        "mailgun": nested.get("mailgun"),
        "oauth2": nested.get("oauth2"),
        "copy": fields.get("copy", "auto"),
        "locale": sees.locale,
        "tz": sees.tz,
        "webhooks": fields.get("webhooks") or None,
        "limits": {
            "connections": sees.limits.connections,
            "messagesPerConnection": sees.limits.messages_per_connection,
            **nested.get("limits", {}),
        },
        "tracking": _tracking(sees),
        "created": row.created_at,
        "updated": row.updated_at,
    }


async def whole(conn: Connection, row: Row) -> dict[str, Any]:
    """The same, and how its servers fare."""
    watch = await mailboxes.find(conn, row.id)
    found = await verifications.find(conn, row.id)
    return {**shown(row), "mailbox": watch and _watch(watch), "verification": found and _known(found)}


def _tracking(account: Account) -> dict[str, Any]:
    alerts = account.alerts
    return {
        "opens": account.track_opens,
        "own": [str(network) for network in account.own],
        "alerts": {
            "opened": alerts.opened,
            "unopened": alerts.unopened,
            "unopenedDays": alerts.unopened_days,
            "unopenedMail": alerts.unopened_mail,
            "to": alerts.to or None,
        },
    }


def _watch(found: Standing) -> dict[str, Any]:
    return {"lookedAt": found.looked_at, "nextAt": found.next_at, "error": found.error or None}


def _known(found: Verification) -> dict[str, Any]:
    return {"at": found.at, "pending": found.pending, "smtp": found.smtp, "imap": found.imap}
