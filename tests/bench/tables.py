"""What PostgreSQL keeps on its disk: sizes of tables and indexes, and rows that are dead."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

MIB = 1024 * 1024
QUEUE = ("deliveries_ready", "deliveries_scheduled", "deliveries_waiting", "deliveries_leased")
"""The indexes of what waits: they have to stay small, however much has been sent."""

SIZES = """
select relname, n_live_tup, n_dead_tup, pg_table_size(relid), pg_indexes_size(relid) from pg_stat_user_tables
"""
INDEXES = "select relname, pg_relation_size(oid) from pg_class where relname = any(%s)"


@dataclass(frozen=True)
class Size:
    """One table: rows as PostgreSQL estimates them, bytes with TOAST and maps."""

    live: int
    dead: int
    rows: int
    indexes: int

    @property
    def total(self) -> int:
        return self.rows + self.indexes


class Tables:
    """A connection that looks at them."""

    def __init__(self, url: str) -> None:
        self._conn = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        self._conn.close()

    def sizes(self) -> dict[str, Size]:
        return {name: Size(*numbers) for name, *numbers in self._conn.execute(SIZES)}

    def queue_bytes(self) -> int:
        return sum(size for _, size in self._conn.execute(INDEXES, (list(QUEUE),)))

    def count(self, table: str, condition: str = "true") -> int:
        row = self._conn.execute(f"select count(*) from {table} where {condition}").fetchone()  # type: ignore[arg-type]
        return int(row[0]) if row else 0

    def written(self) -> int:
        """Bytes of WAL since the cluster was made."""
        row = self._conn.execute("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
        return int(row[0]) if row else 0

    def settle(self) -> None:
        """As after autovacuum: what is dead is room for what comes."""
        self._conn.execute("vacuum analyze")
