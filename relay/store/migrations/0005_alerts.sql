-- The reminder of unopened mail finds the accounts that ask for it without a look at all the others.
create index accounts_reminded on accounts (id) where (config #>> '{tracking,alerts,unopened}') = 'true';

-- Accounts share what is sent of the notices that are due.
drop index notices_due;
create index notices_due on notices (account_id, due_at);
