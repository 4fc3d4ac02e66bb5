-- The account's mailbox: the one copy of what was sent, reports about it, and whom it sends to no longer.

-- A delivery that bounced or was complained about was sent before: `finished_at` stays the time at which it was.
alter table deliveries
    add column reported_at timestamptz,             -- when we learnt of the bounce or the complaint
    add column report jsonb;                        -- of the last one: {action, status, diagnostic, category, ...}
drop index deliveries_done;
create index deliveries_done on deliveries (account_id, finished_at desc, id desc)
    where state in ('sent', 'failed', 'bounced', 'complained');
drop index deliveries_recipient;
create index deliveries_recipient on deliveries (account_id, lower(recipient), finished_at)
    where state in ('sent', 'failed', 'bounced', 'complained');
create index deliveries_reported on deliveries (account_id, finished_at desc, id desc)
    where state in ('bounced', 'complained');

alter table accounts
    -- There is a mailbox, and it is switched on.
    add column mailbox boolean generated always as ((config #>> '{imap,host}') is not null
        and coalesce((config #>> '{imap,disabled}')::boolean, false) = false) stored,
    -- An address was suppressed once: accept asks. Never unset; where it is false, suppressions cost accept nothing.
    add column suppresses boolean not null default false;
-- Whom the first answer to a key said to be skipped.
alter table idempotency add column suppressed jsonb;

-- How each mailbox is watched. A claim ends by itself, so that a process that dies loses nothing.
create table mailboxes (
    account_id      text primary key references accounts on delete cascade,
    due_at          timestamptz default now(),      -- when it is to be looked at, or a claim ends; null: it is not watched
    claim           bigint not null default 0,      -- counts the claims: the fence of whoever has it
    claimed_until   timestamptz,
    failures        integer not null default 0,     -- looks that failed in a row
    looked_at       timestamptz,                    -- the last look that succeeded
    error           text not null default '',       -- why the last one did not
    folders         jsonb not null default '{}',    -- {"INBOX": {"uidvalidity": 1, "uidnext": 7}}: seen up to there
    listed_at       timestamptz,                    -- when its folders were last asked for
    files           boolean,                        -- the provider files what is sent by itself; null: not known yet
    copies_at       timestamptz,                    -- no Sent copy is tried before: the mailbox could not be used
    copy_failures   integer not null default 0      -- times that it could not, in a row
);
create index mailboxes_due on mailboxes (due_at) where due_at is not null;
insert into mailboxes (account_id, due_at)
    select id, case when coalesce((config #>> '{imap,watch}')::boolean, true) then now() end from accounts where mailbox;

-- Sent copies that are owed: a row from the first recipient that a message was sent to (written with that outcome, for
-- accounts with a mailbox), worked on after its last outcome. `original` is flagged by the same hand.
create type copy_state as enum ('owed', 'done', 'failed');  -- done: it is there; while due_at is set it is looked at again
create table sent_copies (
    message_id      uuid primary key,
    account_id      text not null,
    state           copy_state not null default 'owed',
    due_at          timestamptz default now(),      -- null: nothing is to be done any more
    claim           bigint not null default 0,
    claimed_until   timestamptz,
    tries           integer not null default 0,     -- that failed, in a row
    looks           smallint not null default 0,    -- for provider's copies that come late, so far
    place           jsonb,                          -- of our copy, or of where it was about to be written
    filed           boolean not null default false, -- a copy of the provider's was met
    flagged         boolean not null default false, -- the message that it answers has its flag, or is gone
    error           text not null default '',
    created_at      timestamptz not null default now(),
    finished_at     timestamptz
);
create index sent_copies_due on sent_copies (account_id, due_at) where due_at is not null;
create index sent_copies_any on sent_copies (due_at) where due_at is not null;
alter table sent_copies set (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);

-- Reports that were read, matched or not: each once, however often it is met.
create table reports (
    id              bigint generated always as identity primary key,
    account_id      text not null references accounts on delete cascade,
    key             text not null,                  -- tells the same report met again
    kind            text not null,                  -- bounce, complaint
    source          text not null,                  -- imap, mailgun
    place           text,                           -- the id of the report's own message in the mailbox
    message_id      text not null default '',       -- of the original, as the report names it
    recipients      jsonb not null default '[]',    -- as read and understood, at most 100 of them
    matched         integer not null default 0,     -- deliveries of ours that it is about
    changed         integer not null default 0,     -- ... and that it changed
    at              timestamptz not null default now(),
    unique (account_id, key)
);
create index reports_at on reports (at);
create index reports_account on reports (account_id, at desc, id desc);
-- What those that name no message changed: anybody can forge them, and so much in an hour is believed.
create index reports_nameless on reports (account_id, at) where changed > 0 and message_id = '';

-- Addresses that an account sends to no longer.
create table suppressions (
    account_id      text not null references accounts on delete cascade,
    address         text collate "C" not null,      -- lower case; byte by byte, so that its beginning is looked up
    reason          text not null check (reason in ('bounce', 'complaint', 'unsubscribe', 'manual')),
    detail          text not null default '',       -- why, in words: what the provider said
    delivery_id     bigint,                         -- that taught us
    message_id      uuid,
    created_at      timestamptz not null default now(),
    primary key (account_id, address)
);
create index suppressions_since on suppressions (account_id, created_at desc, address);
create index suppressions_reason on suppressions (account_id, reason, created_at desc, address);

-- OAuth2: the access token of each account, refreshed ahead of its end by whoever has the claim.
create table grants (
    account_id      text primary key references accounts on delete cascade,
    token           text,                           -- sealed; null: none yet
    expires_at      timestamptz,
    claimed_until   timestamptz,                    -- somebody is refreshing it; with an error: it rests after that
    refused         text,                           -- hash of the refresh token that the provider refused for good
    error           text not null default '',
    updated_at      timestamptz not null default now()  -- of the token
);

-- Authorisations that somebody began in a browser: one use, and an end.
create table authorisations (
    state           bytea primary key,              -- SHA-256 of the `state` that travels
    account_id      text not null references accounts on delete cascade,
    verifier        text not null,                  -- PKCE's, sealed
    settings        text not null,                  -- hash of the account's oauth2 settings: what was begun with others is void
    expires_at      timestamptz not null
);
create index authorisations_account on authorisations (account_id, expires_at);
create index authorisations_expire on authorisations (expires_at);

-- Webhooks of providers that were taken: each token once.
create table provider_posts (
    account_id      text not null references accounts on delete cascade,
    token           text not null,
    at              timestamptz not null default now(),
    primary key (account_id, token)
);
create index provider_posts_at on provider_posts (at);
