-- What became of mail, for people who look at it: judged opens, and the sums that statistics are read from.
--
-- Sums are kept in the database transaction of their facts. `tallies` and `open_tallies` only grow there (a row that all
-- wrote to would queue their commits); whoever reads adds up, and a chore folds the news together. The account '' is
-- all accounts.

create type opener as enum ('person', 'proxy', 'prefetch', 'scanner', 'self', 'unknown');

-- Every fetch of a pixel as it came, with its judgement. After the first 200 of a delivery they are only counted.
alter table fetches
    add column account_id text,
    add column opener     opener not null default 'unknown',
    add column client     text not null default '',  -- Gmail, Apple Mail, Outlook, Chrome, ...; '' when nothing tells
    add column reason     text not null default '',  -- why it was judged so
    add column country    text not null default '',  -- ISO 3166 code of two letters; '' is unknown
    add column city       text not null default '';
update fetches f set account_id = d.account_id, reason = 'It came before opens were judged'
    from deliveries d where d.id = f.delivery_id;
delete from fetches where account_id is null;
alter table fetches alter column account_id set not null;
create index fetches_account on fetches (account_id, id);

-- One row a delivery whose pixel was fetched. Counted are persons and proxies; `any_` counts machines too, and what is
-- unknown: all but the sender's own looks.
create table opens (
    delivery_id     bigint primary key,
    account_id      text not null,
    fetches         integer not null,               -- all, whoever came
    judged          jsonb not null,                 -- {"person": 2, "prefetch": 1}
    opens           integer not null,
    any_opens       integer not null,
    first_at        timestamptz,
    last_at         timestamptz,
    any_first_at    timestamptz,
    any_last_at     timestamptz,
    first_fetch     bigint,                         -- rows of `fetches`: who it was, and where
    last_fetch      bigint,
    any_first_fetch bigint,
    any_last_fetch  bigint,
    sent_at         timestamptz                     -- its delivery's, where its opens count in the sums; null while it is
) with (fillfactor = 80);                           -- not known as sent: they are counted (by the books) once it is
create index opens_early on opens (delivery_id) where sent_at is null;

-- Deliveries by the quarter of an hour in which they were finished; opens count where their delivery was sent.
create table tallies (
    account_id  text not null,
    quarter     timestamptz not null,
    email_type  text not null,                      -- '' is none
    sent        integer not null default 0,
    tracked     integer not null default 0,         -- of those: with a pixel
    failed      integer not null default 0,
    bounced     integer not null default 0,
    opened      integer not null default 0,         -- deliveries
    any_opened  integer not null default 0,
    opens       integer not null default 0,         -- fetches
    any_opens   integer not null default 0,
    folded      boolean not null default false
);
-- With the sums in it: the rows of one account lie between those of all others, and reading each would cost its page.
create index tallies_quarter on tallies (account_id, quarter)
    include (email_type, sent, tracked, failed, bounced, opened, any_opened, opens, any_opens);
create index tallies_news on tallies (account_id, quarter) where not folded;
create unique index tallies_folded on tallies (account_id, quarter, email_type) where folded;

-- Opens by the quarter of an hour in which they came.
create table open_tallies (
    account_id  text not null,
    quarter     timestamptz not null,
    email_type  text not null,
    opener      opener not null,
    client      text not null,
    country     text not null,
    opens       integer not null,                   -- fetches
    firsts      integer not null,                   -- of those: the first one of its delivery that counted
    any_firsts  integer not null,                   -- ... the first one at all, but for the sender's own
    folded      boolean not null default false
);
-- As with tallies.
create index open_tallies_quarter on open_tallies (account_id, quarter)
    include (email_type, opener, country, opens, firsts, any_firsts);
create index open_tallies_news on open_tallies (account_id, quarter) where not folded;
create unique index open_tallies_folded on open_tallies (account_id, quarter, email_type, opener, client, country)
    where folded;
alter table tallies set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
alter table open_tallies set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);

create table recipients (
    account_id          text not null,
    address             text not null,              -- lower case
    name                text,                       -- as it was last written
    sent                integer not null default 0,
    tracked             integer not null default 0,
    failed              integer not null default 0,
    bounced             integer not null default 0,
    opened              integer not null default 0, -- deliveries
    any_opened          integer not null default 0,
    opens               integer not null default 0,
    any_opens           integer not null default 0,
    first_sent_at       timestamptz,
    last_sent_at        timestamptz,
    last_opened_at      timestamptz,
    any_last_opened_at  timestamptz,
    gone                jsonb not null default '{}',  -- what retention took of the counts above: {"sent": 3, ...}
    primary key (account_id, address)
) with (fillfactor = 70);
-- Who was written to last comes first where recipients are listed.
create index recipients_last on recipients (account_id, coalesce(last_sent_at, '-infinity'), address);

-- How far the books' chores have come: one row.
create table books (
    one             boolean primary key default true check (one),
    purged_until    timestamptz not null default 'epoch',  -- retention has taken mail that was finished up to here
    erased_fetch    bigint not null default 0,             -- up to here addresses and user agents are erased
    erased_event    bigint not null default 0              -- ... and those in events
);
insert into books default values;

-- Opens in `open_tallies` after `purged_until` that have no row in `fetches`: retention took it with its mail, or it was
-- one too many of its delivery to be kept. With them the sums can be verified.
create table rowless_opens (
    account_id  text not null,
    quarter     timestamptz not null,
    email_type  text not null,
    opener      opener not null,
    client      text not null,
    country     text not null,
    opens       integer not null,
    firsts      integer not null,
    any_firsts  integer not null,
    folded      boolean not null default false
);
create index rowless_opens_account on rowless_opens (account_id, quarter);
create index rowless_opens_quarter on rowless_opens (quarter);
create index rowless_opens_news on rowless_opens (account_id, quarter) where not folded;
create unique index rowless_opens_folded on rowless_opens (account_id, quarter, email_type, opener, client, country)
    where folded;

-- What people say about a delivery.
create table notes (
    delivery_id bigint primary key,
    account_id  text not null,
    pinned      boolean not null default false,
    notes       text not null default '',
    updated_at  timestamptz not null default now()
);
create index notes_account on notes (account_id, delivery_id);

-- Mail to an account about its own mail: written with its event, sent after, once.
create table notices (
    delivery_id bigint not null,
    kind        text not null,                      -- opened, unopened
    account_id  text not null,
    attempts    smallint not null default 0,
    due_at      timestamptz not null default now(),
    created_at  timestamptz not null default now(),
    primary key (delivery_id, kind)
);
create index notices_due on notices (due_at);

-- Deliveries finished before have been looked at for the reminder of unopened mail; null: the account did not ask.
alter table accounts add column reminded_until timestamptz;

-- The lists of what was sent, and one recipient's history. Partial: mail on its way does not touch them.
create index deliveries_done on deliveries (account_id, finished_at desc, id desc) where state in ('sent', 'failed');
create index deliveries_recipient on deliveries (account_id, lower(recipient), finished_at) where state in ('sent', 'failed');
create index messages_reference on messages (account_id, reference_id) where reference_id is not null;

-- The sums of what is there already. Its fetches were never judged: machines may have made them.
insert into opens (delivery_id, account_id, fetches, judged, opens, any_opens, any_first_at, any_last_at,
    any_first_fetch, any_last_fetch, sent_at)
select f.delivery_id, f.account_id, count(*), jsonb_build_object('unknown', count(*)), 0, count(*), min(f.at), max(f.at),
    min(f.id), max(f.id), d.finished_at
from fetches f left join deliveries d on d.id = f.delivery_id and d.state = 'sent'
group by f.delivery_id, f.account_id, d.finished_at;

insert into tallies (account_id, quarter, email_type, sent, tracked, failed, any_opened, any_opens, folded)
select coalesce(account_id, ''), quarter, email_type, count(*) filter (where state = 'sent'),
    count(*) filter (where state = 'sent' and tracked), count(*) filter (where state = 'failed'),
    count(delivery_id), coalesce(sum(any_opens), 0), true
from (
    select d.account_id, date_bin('15 minutes', d.finished_at, 'epoch') as quarter, d.state, o.delivery_id, o.any_opens,
        coalesce(m.email_type, '') as email_type, m.splice is not null as tracked
    from deliveries d join messages m on m.id = d.message_id
    left join opens o on o.delivery_id = d.id and o.sent_at is not null
    where d.state in ('sent', 'failed')) done
group by grouping sets ((account_id, quarter, email_type), (quarter, email_type));

insert into recipients (account_id, address, name, sent, tracked, failed, any_opened, any_opens, first_sent_at,
    last_sent_at, any_last_opened_at)
select d.account_id, lower(d.recipient), max(d.name), count(*) filter (where d.state = 'sent'),
    count(*) filter (where d.state = 'sent' and m.splice is not null), count(*) filter (where d.state = 'failed'),
    count(o.delivery_id), coalesce(sum(o.any_opens), 0), min(d.finished_at) filter (where d.state = 'sent'),
    max(d.finished_at) filter (where d.state = 'sent'), max(o.any_last_at)
from deliveries d join messages m on m.id = d.message_id
left join opens o on o.delivery_id = d.id and o.sent_at is not null
where d.state in ('sent', 'failed') group by d.account_id, lower(d.recipient);

insert into open_tallies (account_id, quarter, email_type, opener, client, country, opens, firsts, any_firsts, folded)
select coalesce(account_id, ''), quarter, email_type, 'unknown', '', '', count(*), 0, count(*) filter (where first), true
from (
    select f.account_id, date_bin('15 minutes', f.at, 'epoch') as quarter, coalesce(m.email_type, '') as email_type,
        f.id = o.any_first_fetch as first
    from fetches f join opens o on o.delivery_id = f.delivery_id
    join deliveries d on d.id = f.delivery_id join messages m on m.id = d.message_id) seen
group by grouping sets ((account_id, quarter, email_type), (quarter, email_type));
