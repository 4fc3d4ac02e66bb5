-- Mail leaves by retention, a thirtieth of it a day: by default PostgreSQL would clear it away when it is a fifth of the
-- table, which is days of mail that take room on the disk. Recipients are written to with every outcome, each time with a
-- new entry in their index of who was written to last.
alter table messages set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
alter table bodies set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000,
    toast.autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_threshold = 5000);
alter table attempts set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
alter table events set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
alter table fetches set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
alter table opens set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
alter table recipients set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000);
