"""One SQLite connection behind one lock, and its tables."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS series (
    id INTEGER PRIMARY KEY, org TEXT NOT NULL, source TEXT NOT NULL, metric TEXT NOT NULL,
    UNIQUE (org, source, metric));
CREATE TABLE IF NOT EXISTS points (
    org TEXT NOT NULL, t_ms INTEGER NOT NULL, seq INTEGER NOT NULL, series INTEGER NOT NULL,
    metric TEXT NOT NULL, value REAL, tags TEXT NOT NULL, visible_ms INTEGER NOT NULL,
    PRIMARY KEY (org, t_ms, seq)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS points_by_series ON points (series, t_ms, seq);
CREATE TABLE IF NOT EXISTS sources (
    id TEXT PRIMARY KEY, org TEXT NOT NULL, slug TEXT NOT NULL, row TEXT NOT NULL,
    created_us INTEGER NOT NULL, UNIQUE (org, slug));
CREATE TABLE IF NOT EXISTS monitors (
    id TEXT PRIMARY KEY, org TEXT NOT NULL, kind TEXT NOT NULL, source TEXT NOT NULL, metric TEXT NOT NULL,
    row TEXT NOT NULL, rule_id TEXT NOT NULL, created_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS alerts (
    id TEXT PRIMARY KEY, org TEXT NOT NULL, row TEXT NOT NULL, triggered_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS alert_events (
    id TEXT PRIMARY KEY, alert_id TEXT NOT NULL, row TEXT NOT NULL, created_us INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS annotations (
    id TEXT PRIMARY KEY, org TEXT NOT NULL, row TEXT NOT NULL, start_ms INTEGER NOT NULL,
    created_us INTEGER NOT NULL);
"""


class Database:
    """A connection that any thread may use, one at a time.

    The lock is held for the length of a statement or of one ``transaction``; a stand-in needs no more.
    """

    def __init__(self, path: str) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA temp_store=MEMORY;"
        )
        self._connection.executescript(SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the lock and commit at the end, or roll back on an error. Nests by joining the outer one."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return every row of a query."""
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Execute one statement and return the number of rows it changed."""
        with self._lock:
            return self._connection.execute(sql, values).rowcount

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Execute one statement for many rows in one transaction."""
        with self.transaction():
            self._connection.executemany(sql, rows)

    def close(self) -> None:
        """Close the connection; an in-memory store is gone."""
        with self._lock:
            self._connection.close()
