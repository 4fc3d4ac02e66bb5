-- The reminder of unopened mail finds the accounts that ask for it without a look at all the others.
create index accounts_reminded on accounts (id) where (config #>> '{tracking,alerts,unopened}') = 'true';
