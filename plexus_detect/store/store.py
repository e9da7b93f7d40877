"""Cursors, snapshots, journal and outbox in one SQLite file.

What a tick took in and what it gives out are one transaction: the journal entry (the points, exactly as
accepted), the coverage of the cursors and the derived points to post. Running state is the newest snapshot
plus a replay of the journal after it, so a killed worker continues with the same bits and without asking
the platform again. Durable against power loss: ``synchronous=FULL`` (sqlite.org/pragma.html).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from plexus_detect.closing import Alert, AlertChanges, Debt
from plexus_detect.columns import decode_columns, encode_columns
from plexus_detect.logs import event
from plexus_detect.series import I64, Derived, Points, SeriesKey
from plexus_detect.store import schema
from plexus_detect.store.database import Database, decoded, one_sentence
from plexus_detect.store.lock import WorkerLock
from plexus_detect.store.records import (
    Columns,
    Commit,
    Dropped,
    Parcel,
    Snapshot,
    can_wait,
    decode_derived,
    decode_points,
    decode_times,
    encode_derived,
    encode_points,
    encode_times,
)
from plexus_detect.store.soundness import require_sound

log = logging.getLogger(__name__)

# What is left of the WAL when it has been written back.
WAL_BYTES_MAX = 16 * 1024 * 1024


class Store:
    """One worker's state file. Raises StoreError for a file that cannot be used, with what to do."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self._lock: WorkerLock | None = None
        self._db = Database(self.path)
        self._damaged: set[int] = set()
        try:
            with one_sentence(self.path):
                if self.path != ":memory:":
                    self._lock = WorkerLock(self.path)
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._db.connect()
        version = schema.version_of(self._db)
        self._execute("PRAGMA journal_mode=WAL")
        # A snapshot passes through the WAL, which would keep that size for good.
        self._execute(f"PRAGMA journal_size_limit={WAL_BYTES_MAX}")
        self._execute("PRAGMA synchronous=FULL")
        if version is None:
            schema.create(self._db)
        found = self._db.value("PRAGMA quick_check(1)")
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(found.split()))
        if version is not None and (copy := schema.migrate(self._db, version)):
            event(log, logging.INFO, "state_migrated", schema=schema.SCHEMA_VERSION, was=version, copy=copy)
        require_sound(self._db, schema.SCHEMA_VERSION)

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        return self._db.execute(sql, values)

    def _guard(self) -> AbstractContextManager[None]:
        return self._db.guard()

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._db.transaction()

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # -- ticks

    def commit(self, tick: Commit) -> None:
        """Record one tick, all or nothing.

        A tick without points is journalled too: time alone can have moved the detectors.
        """
        points = encode_points(tick.points)
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO series VALUES (?,?,?,?)",
                [(i, key.source, key.metric, emit_from) for i, key, emit_from in tick.series],
            )
            db.execute("INSERT OR REPLACE INTO coverage VALUES (1,?)", (encode_times(tick.covered_ms),))
            db.execute("INSERT INTO journal(now_ms, body) VALUES (?,?)", (tick.now_ms, points))
            for batch in tick.batches:
                self._put(batch)
            self._add_tally(tick.tally)

    def series(self) -> list[tuple[int, SeriesKey, int | None]]:
        """Every series ever interned, in order of its index."""
        with self._guard():
            rows = self._execute("SELECT id, source, metric, emit_from_ms FROM series ORDER BY id")
            return [(i, SeriesKey(source, metric), emit_from) for i, source, metric, emit_from in rows]

    def covered_ms(self) -> I64:
        """The coverage of the last tick, a column over series; empty before the first."""
        with self._guard():
            row = self._execute("SELECT body FROM coverage").fetchone()
        return decoded(self.path, decode_times, row[0] if row else b"")

    def journal(self, after: int) -> Iterator[tuple[int, Points]]:
        """(now_ms, points) of every tick after journal entry ``after``, oldest first."""
        with self._guard():
            rows = self._execute("SELECT now_ms, body FROM journal WHERE id > ? ORDER BY id", (after,))
            for now_ms, body in rows:
                yield now_ms, decoded(self.path, decode_points, body)

    # -- snapshots

    def save_snapshot(self, created_ms: int, fingerprint: str, columns: Columns) -> None:
        """Keep the running state as of the last tick; the snapshot before it stays as a reserve."""
        blob, digest = encode_columns(columns)
        with self._transaction():
            last = self._execute("SELECT seq FROM sqlite_sequence WHERE name='journal'").fetchone()
            self._execute(
                "INSERT INTO snapshot(created_ms, journal_id, fingerprint, sha256, body) VALUES (?,?,?,?,?)",
                (created_ms, last[0] if last else 0, fingerprint, digest, blob),
            )
            self._execute(
                "DELETE FROM snapshot WHERE id NOT IN (SELECT id FROM snapshot ORDER BY id DESC LIMIT 2)"
            )
            self._execute("DELETE FROM journal WHERE id <= (SELECT MIN(journal_id) FROM snapshot)")

    def snapshots(self) -> Iterator[Snapshot]:
        """The kept snapshots whose checksum holds, newest first."""
        with self._guard():
            rows = self._execute(
                "SELECT id, journal_id, fingerprint, sha256, body FROM snapshot ORDER BY id DESC"
            ).fetchall()
        for number, journal_id, fingerprint, digest, blob in rows:
            if (columns := decode_columns(blob, digest)) is None:
                self._damaged.add(number)
            else:
                yield Snapshot(number, journal_id, fingerprint, columns)

    def distrust(self, snapshot: Snapshot) -> None:
        """Count a snapshot among the damaged: its checksum holds, and yet nobody can use it."""
        self._damaged.add(snapshot.id)

    def drop_damaged(self) -> int:
        """Remove the snapshots that ``snapshots`` passed over, so that the next ones push out no good one.

        Returns how many there were.
        """
        gone, self._damaged = self._damaged, set()
        if gone:
            with self._transaction() as db:
                db.executemany("DELETE FROM snapshot WHERE id=?", [(number,) for number in gone])
        return len(gone)

    # -- outbox

    def next_parcel(self, after: int = 0) -> Parcel | None:
        """The oldest batch in the outbox behind ``after``; what is for the record only comes last."""
        with self._guard():
            row = self._execute(
                "SELECT id, sent_ms, body FROM outbox WHERE id > ? ORDER BY late, id LIMIT 1", (after,)
            ).fetchone()
        return Parcel(row[0], decoded(self.path, decode_derived, row[2]), row[1]) if row else None

    def mark_sent(self, parcel_id: int, sent_ms: int) -> None:
        """Record, before the post, that it may now have been stored: a later start must ask first."""
        with self._transaction():
            self._execute("UPDATE outbox SET sent_ms=? WHERE id=?", (sent_ms, parcel_id))

    def settle(
        self,
        parcel_id: int,
        left: Derived | None = None,
        tally: Mapping[str, int] | None = None,
        alerts: AlertChanges | None = None,
    ) -> None:
        """The batch is done, but for the points ``left``, which stay in its place as not yet sent.

        What its delivery did to the open alerts is recorded with it.
        """
        with self._transaction():
            if left is not None and len(left):
                self._replace(parcel_id, left)
            else:
                self._execute("DELETE FROM outbox WHERE id=?", (parcel_id,))
            self._add_tally(tally or {})
            if alerts is not None:
                self._change_alerts(alerts)

    def split(self, parcel_id: int, first: Derived, rest: Derived) -> None:
        """Make two batches of one, neither of them sent, in the place of the old one.

        Ids are spaced by AUTOINCREMENT, so the first half takes over the id and the rest moves to the end.
        """
        with self._transaction():
            self._replace(parcel_id, first)
            self._put(rest)

    def _put(self, batch: Derived) -> None:
        row = (len(batch), can_wait(batch), encode_derived(batch))
        self._execute("INSERT INTO outbox(n, late, body) VALUES (?,?,?)", row)

    def _replace(self, parcel_id: int, batch: Derived) -> None:
        row = (len(batch), can_wait(batch), encode_derived(batch), parcel_id)
        self._execute("UPDATE outbox SET n=?, late=?, sent_ms=NULL, body=? WHERE id=?", row)

    def outbox_points(self) -> int:
        """Derived points waiting for delivery."""
        with self._guard():
            return int(self._execute("SELECT COALESCE(SUM(n), 0) FROM outbox").fetchone()[0])

    def drop_oldest(self, points_max: int) -> Dropped | None:
        """Keep the outbox at ``points_max`` points: what is for the record only goes first, then the oldest.

        Returns what was dropped; None when nothing was.
        """
        excess = self.outbox_points() - points_max
        dropped: list[Derived] = []
        with self._transaction():
            while excess > 0:
                row = self._execute("SELECT id, body FROM outbox ORDER BY late DESC, id LIMIT 1").fetchone()
                if row is None:
                    break
                dropped.append(decoded(self.path, decode_derived, row[1]))
                excess -= len(dropped[-1])
                self._execute("DELETE FROM outbox WHERE id=?", (row[0],))
            self._add_tally({"dropped": sum(map(len, dropped))})
        return Dropped.of(Derived.concat(dropped)) if dropped else None

    # -- alerts

    def change_alerts(self, changes: AlertChanges) -> None:
        """Record what became of open alerts without a delivery."""
        with self._transaction():
            self._change_alerts(changes)

    def _change_alerts(self, changes: AlertChanges) -> None:
        for series, kind in changes.gone:
            self._execute("DELETE FROM alerts WHERE series=? AND kind=?", (int(series), int(kind)))
        for (series, kind), (since_ms, calm_ms) in changes.put.items():
            # SQLite would keep an integer of NumPy as bytes.
            row = (int(series), int(kind), int(since_ms), None if calm_ms is None else int(calm_ms))
            self._execute("INSERT OR REPLACE INTO alerts VALUES (?,?,?,?)", row)

    def alerts(self) -> dict[Alert, Debt]:
        """The alerts that the platform may have open, by series and kind.

        Each with the time since when a value above 0 was posted, and when the first in-bounds value after it
        was posted, None if none was yet.
        """
        with self._guard():
            rows = self._execute("SELECT series, kind, since_ms, calm_ms FROM alerts ORDER BY series, kind")
            return {(series, kind): Debt(since_ms, calm_ms) for series, kind, since_ms, calm_ms in rows}

    # -- notes

    def note(self, name: str, value: str) -> None:
        """Keep a small fact for whoever looks at the file; a new value takes the place of the old one."""
        with self._transaction():
            self._execute("INSERT OR REPLACE INTO notes VALUES (?,?)", (name, value))

    def notes(self) -> dict[str, str]:
        """Every small fact, by name."""
        with self._guard():
            return dict(self._execute("SELECT name, value FROM notes ORDER BY name"))

    # -- tally

    def _add_tally(self, tally: Mapping[str, int]) -> None:
        for name, n in tally.items():
            if n:
                self._execute(
                    "INSERT INTO tally VALUES (?,?) ON CONFLICT(name) DO UPDATE SET n = n + excluded.n",
                    (name, n),
                )

    def tally(self) -> dict[str, int]:
        """Totals since the file was made, by name."""
        with self._guard():
            return dict(self._execute("SELECT name, n FROM tally ORDER BY name"))
