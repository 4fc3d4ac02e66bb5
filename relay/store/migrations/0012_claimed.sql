-- Until when somebody posts it: a posting that is due then and no sooner is in that process's hands, and no retry that waits.
alter table postings add column claimed_until timestamptz;
