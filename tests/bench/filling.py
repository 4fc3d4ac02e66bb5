"""A database with very much mail, without waiting for it to be sent: mail that is due, or that went long ago."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import psycopg

from tests.bench import mail

RUN = "pile"  # what the sink knows this mail by
AT_ONCE = 50_000  # messages in one database transaction
OPENED = 4  # of so many old messages, one was opened


@dataclass(frozen=True)
class Pile:
    """So many messages of an account, each to so many of its `readers`."""

    account: str
    messages: int
    recipients: int = 1
    size: int = 1024
    readers: int = 10_000
    days_ago: float = 0.0


MESSAGES = """
create temp table pile on commit drop as
select uuidv7(-%(days_ago)s * interval '1 day') as id, n from generate_series(%(first)s, %(last)s) n;
insert into messages
    (id, account_id, ingress, message_id, sender, subject, size, priority, smtputf8, eightbit, bcc, created_at, send_at)
select id, %(account)s, 'smtp', '<' || id || '@sender.example>', 'app@sender.example',
    'What happened in your project this week', %(size)s, 1, false, false, '{}',
    now() - %(days_ago)s * interval '1 day', now() - %(days_ago)s * interval '1 day'
from pile order by id;
insert into bodies select id, convert_to(%(head)s || repeat('x', %(size)s - length(%(head)s) - 2) || E'\\r\\n', 'UTF8')
from pile order by id;
"""

DUE = """
insert into deliveries (message_id, account_id, recipient, ready, priority, max_attempts, due_at, expires_at)
select id, %(account)s, 'reader' || (n * %(recipients)s + r) %% %(readers)s || '@readers.example', true, 1, 10, now(),
    now() + interval '3 days'
from pile, generate_series(0, %(recipients)s - 1) r order by id;
"""

# As they are after a life: sent by one attempt, with the event that told of it; some were opened.
SENT = """
insert into deliveries (message_id, account_id, recipient, state, ready, priority, attempts, max_attempts, due_at,
    expires_at, created_at, finished_at, code, enhanced, reply, category)
select id, %(account)s, 'reader' || (n * %(recipients)s + r) %% %(readers)s || '@readers.example', 'sent', false, 1,
    1, 10, gone, gone + interval '3 days', gone, gone, 250, '2.0.0', 'taken', ''
from pile, generate_series(0, %(recipients)s - 1) r,
    lateral (select now() - %(days_ago)s * interval '1 day' + n * interval '1 millisecond') t(gone)
order by id;
create temp table gone on commit drop as
select d.id, d.message_id, d.recipient, d.finished_at from deliveries d join pile on d.message_id = pile.id;
insert into attempts (delivery_id, account_id, number, at, seconds, outcome, stage, code, enhanced, reply, upstream)
select id, %(account)s, 1, finished_at, 0.1, 'sent', 'dot', 250, '2.0.0', 'taken', '127.0.0.1:25' from gone;
insert into events (at, account_id, type, delivery_id, message_id, data)
select finished_at, %(account)s, 'messageSent', id, message_id, jsonb_build_object('queueId', message_id, 'messageId',
    '<' || message_id || '@sender.example>', 'recipient', recipient, 'response', '250 2.0.0 taken', 'envelope',
    jsonb_build_object('from', 'app@sender.example', 'to', jsonb_build_array(recipient)))
from gone;
with came as (
    insert into fetches (delivery_id, at, method, address, user_agent, account_id, opener, client)
    select id, finished_at + interval '1 hour', 'GET', '192.0.2.1', 'Mozilla/5.0', %(account)s, 'person', 'Apple Mail'
    from gone where id %% %(opened)s = 0 returning id, delivery_id, at
)
insert into opens (delivery_id, account_id, fetches, judged, opens, any_opens, first_at, last_at, any_first_at,
    any_last_at, first_fetch, last_fetch, any_first_fetch, any_last_fetch, sent_at)
select delivery_id, %(account)s, 1, '{"person": 1}', 1, 1, at, at, at, at, id, id, id, id, at - interval '1 hour'
from came;
insert into recipients as r (account_id, address, sent, first_sent_at, last_sent_at)
select %(account)s, recipient, count(*), min(finished_at), max(finished_at) from gone group by recipient
on conflict (account_id, address) do update set sent = r.sent + excluded.sent;
"""


def fill(url: str, pile: Pile) -> None:
    """Puts the mail there: due now, or sent `days_ago`. Then the database is as after a night without mail."""
    head = mail.HEADER.replace("{mark}", f"{RUN}-".ljust(mail.MARK_SIZE, "0")).replace("text/html", "text/plain")
    given = {**asdict(pile), "head": head, "size": max(pile.size, len(head) + 2), "opened": OPENED}
    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.ClientCursor) as conn:
        for first in range(1, pile.messages + 1, AT_ONCE):
            part = {**given, "first": first, "last": min(first + AT_ONCE - 1, pile.messages)}
            with conn.transaction():
                conn.execute(MESSAGES + (SENT if pile.days_ago else DUE), part)
        conn.execute("vacuum analyze")
        conn.execute("checkpoint")
