-- Of a delivery with more fetches than are kept as rows: when the newest of the others came. A flood is known by them.
alter table opens add column lately timestamptz[];
