-- The spine: tenants, their mail, what happened to it.
--
-- Foreign keys stand on the cold tables alone. On the path of every message they would cost a look-up a row, and
-- guard nothing: messages, bodies and deliveries are written by one function in one database transaction, and rows
-- leave by one function (retention), messages last.

create type account_state as enum ('active', 'paused', 'refused');
create type delivery_state as enum ('queued', 'leased', 'deferred', 'sent', 'failed', 'cancelled');
create type attempt_outcome as enum ('sent', 'deferred', 'failed', 'unknown');

create table accounts (
    id          text primary key,
    name        text not null default '',
    email       text not null default '',           -- lower case; the envelope sender that means this account
    state       account_state not null default 'active',
    reason      text not null default '',           -- why it is paused or refused
    retry_at    timestamptz,                        -- nothing is leased before: upstream unreachable, throttling or refusing us
    failures    integer not null default 0,         -- connections that failed in a row
    config      jsonb not null default '{}',        -- settings as the API shows them, without secrets
    secrets     jsonb not null default '{}',        -- {"smtp.auth.pass": "<MultiFernet token bound to account and field>"}
    had_upstream boolean not null default false,    -- an upstream was set once: without one now, mail is accepted and waits
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now(),
    -- what the claim reads, so that the scheduler's SQL need not know the shape of `config`
    per_minute  integer generated always as ((config -> 'limits' ->> 'perMinute')::integer) stored,
    per_hour    integer generated always as ((config -> 'limits' ->> 'perHour')::integer) stored,
    per_day     integer generated always as ((config -> 'limits' ->> 'perDay')::integer) stored,
    connections integer generated always as (coalesce((config -> 'limits' ->> 'connections')::integer, 5)) stored
);
create index accounts_email on accounts (email) where email <> '';

create table tokens (
    id          bigint generated always as identity primary key,
    hash        bytea not null unique,              -- SHA-256 of a 256-bit random token
    scopes      text[] not null,                    -- api, smtp, metrics, *
    account_id  text references accounts on delete cascade,  -- null: all accounts
    description text not null default '',
    created_at  timestamptz not null default now()
);

create table messages (
    id              uuid primary key,               -- version 7: its hex is the queueId
    account_id      text not null,
    ingress         text not null,
    message_id      text not null,
    sender          text not null,
    subject         text not null,
    size            integer not null,
    priority        smallint not null,
    splice          jsonb,                          -- where the pixel goes; null: the same bytes for all
    smtputf8        boolean not null,
    eightbit        boolean not null,
    bcc             text[],                         -- for the Sent copy alone
    options         jsonb,                          -- copy, sentMailPath, tz: what later rooms read
    email_type      text,
    reference_type  text,
    reference_id    text,
    created_at      timestamptz not null default now(),
    send_at         timestamptz not null
);
create index messages_account on messages (account_id, id);

create table bodies (
    message_id  uuid primary key,
    content     bytea not null                      -- RFC 5322, CRLF, as accepted
);
-- Most mail is a few KB: kept in the row, without the detour of a TOAST table. What is larger goes there as it is.
alter table bodies alter column content set storage external;
alter table bodies set (toast_tuple_target = 8160);

create table deliveries (
    id              bigint generated always as identity primary key,
    message_id      uuid not null,
    account_id      text not null,
    recipient       text not null,
    name            text,                           -- the recipient's display name, where one is known
    state           delivery_state not null default 'queued',
    ready           boolean not null,               -- due_at has come: the scheduler may lease it
    priority        smallint not null,
    attempts        smallint not null default 0,
    max_attempts    smallint not null,
    due_at          timestamptz not null,           -- earliest moment it may be tried
    expires_at      timestamptz not null,           -- end of its lifetime
    lease_id        bigint,
    created_at      timestamptz not null default now(),
    finished_at     timestamptz,                    -- sent, failed or cancelled
    code            smallint,                       -- of the last reply
    enhanced        text,
    reply           text,
    category        text                            -- of the last reply: classify's word for it
);
-- What is due: one probe finds the next account with work, one range scan its batch.
create index deliveries_ready on deliveries (account_id, priority, due_at, id) where ready and state in ('queued', 'deferred');
-- What will be due: promoted when its time comes.
create index deliveries_scheduled on deliveries (due_at) where not ready and state in ('queued', 'deferred');
-- What an account has waiting, for people who ask. Mail that goes at once never touches these two.
create index deliveries_waiting on deliveries (account_id, due_at) where not ready and state in ('queued', 'deferred');
create index deliveries_leased on deliveries (lease_id) where state = 'leased';
create index deliveries_dead on deliveries (account_id, finished_at, id) where state = 'failed';
create index deliveries_message on deliveries (message_id);

create table leases (
    id          bigint generated always as identity primary key,
    account_id  text not null,
    priority    smallint not null,
    size        smallint not null,
    created_at  timestamptz not null default now(),
    enqueued_at timestamptz not null default now(),
    started_at  timestamptz,                        -- a worker has it
    expires_at  timestamptz not null                -- renewed while the worker lives
);
create index leases_account on leases (account_id);

create table attempts (
    id          bigint generated always as identity primary key,
    delivery_id bigint not null,
    account_id  text not null,
    number      smallint not null,
    at          timestamptz not null default clock_timestamp(),
    seconds     real not null,                      -- from the first byte of the try to its outcome
    outcome     attempt_outcome not null,
    stage       text not null,                      -- connect, tls, ehlo, auth, mail, rcpt, data, dot, lease
    code        smallint,
    enhanced    text,
    reply       text,
    upstream    text                                -- host:port
);
create index attempts_delivery on attempts (delivery_id);

-- One row a group of outcomes, for accounts with a sliding limit: what the windows count.
create table slots (
    account_id  text not null,
    at          timestamptz not null default clock_timestamp(),
    n           integer not null
);
create index slots_window on slots (account_id, at) include (n);

create table events (
    id          bigint generated always as identity primary key,
    at          timestamptz not null default clock_timestamp(),
    account_id  text not null,
    type        text not null,
    delivery_id bigint,
    message_id  uuid,
    data        jsonb not null
);
create index events_message on events (message_id) where message_id is not null;

create table idempotency (
    account_id  text not null,
    key         text not null,
    body_hash   bytea not null,
    queue_id    uuid not null,
    message_id  text not null,
    send_at     timestamptz not null,
    stored_at   timestamptz not null default now(),
    primary key (account_id, key)
);
create index idempotency_age on idempotency (stored_at);

-- Pixel fetches as they came; judging them comes after.
create table fetches (
    id          bigint generated always as identity primary key,
    delivery_id bigint not null,
    at          timestamptz not null default clock_timestamp(),
    method      text not null,
    address     inet,
    user_agent  text not null
);
create index fetches_delivery on fetches (delivery_id);

-- Queue tables live by their vacuum: clean early, by count rather than by share of a large table.
alter table deliveries set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);
alter table leases set (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 500);
