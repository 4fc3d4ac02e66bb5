-- What may become of a delivery after it was sent. Apart from what uses them: PostgreSQL takes new values of an enum into
-- use with the next database transaction.
alter type delivery_state add value 'bounced';
alter type delivery_state add value 'complained';
