-- Bodies are stored packed from now on, those of before stay as they are until they leave. A column of its own: a role
-- of before that is still running finds nothing, and sends nothing, where it would else have sent what it cannot read.
alter table bodies alter column content drop not null, add column packed bytea;
alter table bodies alter column packed set storage external;
comment on column bodies.packed is 'the content, as a Zstandard frame; null: it is in content, as it is';
