-- The metrics tell deferred mail from scheduled mail along the index alone: a million of either is counted in moments.
drop index deliveries_waiting;
create index deliveries_waiting on deliveries (account_id, due_at) include (state)
    where not ready and state in ('queued', 'deferred');
