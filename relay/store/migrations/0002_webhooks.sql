-- Webhooks: who wants to be told, what each is still to be told, and how every try went.

create type endpoint_state as enum ('active', 'disabled');
create type posting_state as enum ('pending', 'delivered', 'failed');

create table endpoints (
    id              bigint generated always as identity primary key,
    account_id      text references accounts on delete cascade,  -- null: the events of all accounts
    url             text not null,
    events          text[] not null default '{}',   -- empty: all of them
    description     text not null default '',
    headers         text not null default '',       -- custom headers as JSON, sealed: they may hold a password
    secret          text not null,                  -- "whsec_...", sealed; signs
    old_secret      text,                           -- sealed; signs too while `old_until` has not come
    old_until       timestamptz,
    managed         boolean not null default false, -- it is the account's own setting `webhooks`
    state           endpoint_state not null default 'active',
    reason          text not null default '',       -- why it is disabled, or what its last failure was
    failures        integer not null default 0,     -- tries that failed in a row
    failing_since   timestamptz,                    -- the first of them
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now()
);
create index endpoints_account on endpoints (account_id);
create unique index endpoints_managed on endpoints (account_id) where managed;

-- One row an event and subscribed endpoint. A claim moves `due_at` ahead, so that a process that dies loses nothing.
create table postings (
    id              bigint generated always as identity primary key,
    endpoint_id     bigint not null,
    event_id        bigint not null,
    account_id      text not null,                  -- the event's
    state           posting_state not null default 'pending',
    attempts        smallint not null default 0,
    due_at          timestamptz not null default now(),
    created_at      timestamptz not null default now(),
    finished_at     timestamptz
);
create index postings_due on postings (endpoint_id, due_at, id) where state = 'pending';
-- The log, newest first, and what of it failed for good.
create index postings_endpoint on postings (endpoint_id, created_at, id);
create index postings_failed on postings (endpoint_id, created_at, id) where state = 'failed';
create index postings_event on postings (event_id);

create table posts (
    id              bigint generated always as identity primary key,
    posting_id      bigint not null,
    endpoint_id     bigint not null,
    at              timestamptz not null default clock_timestamp(),
    seconds         real not null,
    url             text not null,
    status          smallint,                       -- null: no answer
    error           text not null default '',       -- why there is none, or why the answer is no success
    response        text not null default ''        -- the beginning of its body
);
create index posts_posting on posts (posting_id);

alter table postings set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);

-- Whoever writes an event, its postings stand in the same database transaction; none where nobody subscribes.
create function post_events() returns trigger language plpgsql as $$
begin
    insert into postings (endpoint_id, event_id, account_id)
    select w.id, e.id, e.account_id from fresh e join endpoints w on w.account_id = e.account_id
    where w.state = 'active' and (w.events = '{}' or e.type = any(w.events)) and e.type <> 'webhookTest'
    union all
    select w.id, e.id, e.account_id from fresh e join endpoints w on w.account_id is null
    where w.state = 'active' and (w.events = '{}' or e.type = any(w.events)) and e.type <> 'webhookTest';
    return null;
end $$;
create trigger post_events after insert on events
    referencing new table as fresh for each statement execute function post_events();

-- Events have a life of their own (their log and replay), and are looked for by account and time.
create index events_account on events (account_id, at);
drop index events_message;
