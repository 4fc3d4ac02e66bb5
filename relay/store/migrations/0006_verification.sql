-- Verifications: what was last found of each account's servers, and whose are to be looked at.

-- A save that changes an account's servers raises `wanted` and makes the row due. Whoever claims it looks at the servers;
-- what was found is kept only if it is of the settings that still stand. A claim ends by itself, so that a process that
-- dies loses nothing, and there is one at a time, however often an account is saved.
create table verifications (
    account_id      text primary key references accounts on delete cascade,
    wanted          bigint not null default 1,      -- counts the changes
    found           bigint not null default 0,      -- the `wanted` that the results are of
    due_at          timestamptz default now(),      -- null: nothing is to be done before the next change
    claimed_until   timestamptz,
    tries           integer not null default 0,     -- that found a fault, in a row
    at              timestamptz,                    -- when the results were found
    smtp            jsonb,                          -- {success, error?, code?, responseText?, steps[...]}
    imap            jsonb                           -- the same, with {folders}
);
create index verifications_due on verifications (due_at) where due_at is not null;
