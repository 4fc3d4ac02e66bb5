"""Messages and accounts for the store's tests, made with the store's own functions."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from relay.accept import new_id
from relay.core.model import Accepted, Options, Prepared, Priority
from relay.store import messages
from relay.store.db import Connection


async def account(conn: Connection, id: str = "a", state: str = "active", **limits: int) -> str:
    """An account with an upstream and these limits (perMinute, connections, ...)."""
    config = {"smtp": {"host": "127.0.0.1", "port": 25}, "limits": limits}
    await conn.execute("insert into accounts (id, config, state) values (%s, %s, %s)", (id, Jsonb(config), state))
    return id


def prepared(
    *recipients: str,
    account: str = "a",
    send_at: datetime | None = None,
    priority: Priority = Priority.NORMAL,
    content: bytes = b"Subject: x\r\n\r\nx\r\n",
    body_hash: bytes = b"",
    **options: Any,
) -> Prepared:
    return Prepared(
        id=new_id(),
        account=account,
        ingress="api",
        message_id="<x@example.com>",
        sender="s@example.com",
        subject=options.pop("subject", "x"),
        recipients=recipients or ("r@example.com",),
        names={},
        bcc=options.pop("bcc", ()),
        content=content,
        splice=options.pop("splice", None),
        smtputf8=False,
        eightbit=False,
        send_at=send_at,
        options=Options(priority=priority, **options),
        body_hash=body_hash,
    )


async def stored(conn: Connection, *batch: Prepared, attempts: int = 3, lifetime: float = 3600) -> list[Accepted]:
    """Stores them, and their accounts where there are none, and returns their answers: no refusal may be one."""
    for item in batch:
        await conn.execute("insert into accounts (id) values (%s) on conflict do nothing", (item.account,))
    answers = await messages.insert(conn, batch, attempts=attempts, lifetime=lifetime)
    assert not [answer for answer in answers if isinstance(answer, Exception)], answers
    return [answer for answer in answers if isinstance(answer, Accepted)]


async def unreadable(conn: Connection, message: UUID) -> None:
    """PostgreSQL fails to read this body, as it does where its disk lost a part of it."""
    await conn.execute(
        "create function lost() returns bytea language plpgsql stable as"
        " $$ begin raise exception 'missing chunk number 0 for toast value 1' using errcode = 'data_corrupted'; end $$"
    )
    await conn.execute("alter table bodies rename to kept")
    await conn.execute(
        "create view bodies as select message_id, content,"
        f" case when message_id = '{message}' then lost() else packed end as packed from kept".encode()
    )
