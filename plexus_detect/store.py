"""Cursors, snapshots, journal and outbox in one SQLite file.

What a tick took in and what it gives out are one transaction: the journal entry (the points, exactly as
accepted), the coverage of the cursors and the derived points to post. Running state is the newest snapshot
plus a replay of the journal after it, so a killed worker continues with the same bits and without asking
the platform again. Durable against power loss: ``synchronous=FULL`` (sqlite.org/pragma.html).
"""

from __future__ import annotations

import hashlib
import io
import sqlite3
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plexus_detect.errors import StoreError
from plexus_detect.series import I64, Derived, Points, SeriesKey

SCHEMA_VERSION = 1

# "PLXD": by this a file says whose it is, before anything in it is read or changed.
APPLICATION_ID = 0x504C5844

_SCHEMA = """
CREATE TABLE series (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL, metric TEXT NOT NULL, emit_from_ms INTEGER
);
CREATE TABLE coverage (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL);
CREATE TABLE journal (id INTEGER PRIMARY KEY AUTOINCREMENT, now_ms INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE snapshot (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created_ms INTEGER NOT NULL, journal_id INTEGER NOT NULL,
    fingerprint TEXT NOT NULL, sha256 TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER NOT NULL, sent_ms INTEGER, body BLOB NOT NULL
);
CREATE TABLE tally (name TEXT PRIMARY KEY, n INTEGER NOT NULL);
"""

_POINT = np.dtype([("series", "<i4"), ("t_ms", "<i8"), ("value", "<f8"), ("late", "?")])
_DERIVED = np.dtype([("series", "<i4"), ("kind", "i1"), ("t_ms", "<i8"), ("value", "<f8")])

Columns = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Parcel:
    """A batch of derived points in the outbox; ``sent_ms`` is set when a post of it was begun before."""

    id: int
    derived: Derived
    sent_ms: int | None


@dataclass(frozen=True)
class Snapshot:
    """Running state as it was after journal entry ``journal_id``."""

    journal_id: int
    fingerprint: str
    columns: dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Commit:
    """Everything one tick changes; ``series`` are rows (id, key, emit_from_ms or None) not stored before."""

    now_ms: int
    points: Points
    covered_ms: I64
    batches: Sequence[Derived] = ()
    series: Sequence[tuple[int, SeriesKey, int | None]] = ()
    tally: Mapping[str, int] = field(default_factory=dict)


class Store:
    """One worker's state file. Raises StoreError for a file that cannot be used, with what to do."""

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self._lock: sqlite3.Connection | None = None
        self._db: sqlite3.Connection | None = None
        try:
            with self._guard():
                if self.path != ":memory:":
                    self._lock = self._take_lock()
                self._db = sqlite3.connect(self.path, isolation_level=None)
                self._open()
        except BaseException:
            self.close()
            raise

    def _take_lock(self) -> sqlite3.Connection:
        """Hold a lock beside the file for as long as this process lives, however it ends."""
        lock = sqlite3.connect(f"{self.path}.lock", timeout=0.0, isolation_level=None)
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            lock.close()
            if "locked" in str(error):
                raise StoreError(
                    f"state file {self.path} is in use by another worker; stop it, or give this one "
                    "another state.path"
                ) from None
            raise
        except BaseException:
            lock.close()
            raise
        return lock

    def _open(self) -> None:
        tables = self._value("SELECT COUNT(*) FROM sqlite_master")
        if tables and self._value("PRAGMA application_id") != APPLICATION_ID:
            raise StoreError(f"{self.path} is an SQLite file of another program; choose another state.path")
        version = self._value("PRAGMA user_version") if tables else SCHEMA_VERSION
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"state file {self.path} has schema {version}, this program knows {SCHEMA_VERSION}; "
                "run the newer program, or move the file away to start anew"
            )
        self._execute("PRAGMA journal_mode=WAL")
        self._execute("PRAGMA synchronous=FULL")
        if not tables:
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    self._execute(statement)
                self._execute(f"PRAGMA application_id={APPLICATION_ID}")
                self._execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        found = self._value("PRAGMA quick_check(1)")
        if found != "ok":
            raise sqlite3.DatabaseError(" ".join(found.split()))

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        if self._db is None:
            raise StoreError(f"state file {self.path} is closed")
        return self._db.execute(sql, values)

    def _value(self, sql: str) -> Any:  # noqa: ANN401  whatever type the one column has
        return self._execute(sql).fetchone()[0]

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Turn the database's errors into one sentence that says what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            text = str(error)
            if "full" in text or "I/O" in text:
                raise StoreError(
                    f"state file {self.path} cannot be written ({text}); free some space and start again: "
                    "nothing is lost, what was not recorded is read again"
                ) from None
            raise StoreError(
                f"state file {self.path} cannot be used ({text}); check that it is a file in a folder that "
                "exists and is writable"
            ) from None
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"state file {self.path} is damaged ({error}); restore a copy, or move it away to start "
                "anew: the platform's history warms the detectors up again"
            ) from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._guard():
            db = self._execute("BEGIN IMMEDIATE").connection
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file and give the lock back."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock is not None:
            # The lock file stays: unlinking it could give two workers a lock each, on two files of one name.
            self._lock.close()
            self._lock = None

    # -- ticks

    def commit(self, tick: Commit) -> None:
        """Record one tick, all or nothing.

        A tick without points is journalled too: time alone can have moved the detectors.
        """
        points = np.empty(len(tick.points), _POINT)
        for name in ("series", "t_ms", "value", "late"):
            points[name] = getattr(tick.points, name)
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO series VALUES (?,?,?,?)",
                [(i, key.source, key.metric, emit_from) for i, key, emit_from in tick.series],
            )
            coverage = tick.covered_ms.astype("<i8").tobytes()
            db.execute("INSERT OR REPLACE INTO coverage VALUES (1,?)", (coverage,))
            db.execute("INSERT INTO journal(now_ms, body) VALUES (?,?)", (tick.now_ms, points.tobytes()))
            for batch in tick.batches:
                db.execute("INSERT INTO outbox(n, body) VALUES (?,?)", (len(batch), _encode_derived(batch)))
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
        return np.frombuffer(row[0] if row else b"", "<i8").astype(np.int64)

    def journal(self, after: int) -> Iterator[tuple[int, Points]]:
        """(now_ms, points) of every tick after journal entry ``after``, oldest first."""
        with self._guard():
            rows = self._execute("SELECT now_ms, body FROM journal WHERE id > ? ORDER BY id", (after,))
            for now_ms, body in rows:
                raw = np.frombuffer(body, _POINT)
                series = raw["series"].astype(np.int64)
                yield now_ms, Points(series, raw["t_ms"].copy(), raw["value"].copy(), raw["late"].copy())

    # -- snapshots

    def save_snapshot(self, created_ms: int, fingerprint: str, columns: Columns) -> None:
        """Keep the running state as of the last tick; the snapshot before it stays as a reserve."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **dict(columns))
        blob = buffer.getvalue()
        digest = hashlib.sha256(blob).hexdigest()
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
                "SELECT journal_id, fingerprint, sha256, body FROM snapshot ORDER BY id DESC"
            ).fetchall()
        for journal_id, fingerprint, digest, blob in rows:
            if hashlib.sha256(blob).hexdigest() != digest:
                continue
            try:
                with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
                    columns = {name: archive[name] for name in archive.files}
            except (ValueError, OSError, zipfile.BadZipFile):
                continue
            yield Snapshot(journal_id, fingerprint, columns)

    # -- outbox

    def next_parcel(self, after: int = 0) -> Parcel | None:
        """The oldest batch in the outbox behind ``after``."""
        with self._guard():
            row = self._execute(
                "SELECT id, sent_ms, body FROM outbox WHERE id > ? ORDER BY id LIMIT 1", (after,)
            ).fetchone()
        return Parcel(row[0], _decode_derived(row[2]), row[1]) if row else None

    def mark_sent(self, parcel_id: int, sent_ms: int) -> None:
        """Record, before the post, that it may now have been stored: a later start must ask first."""
        with self._transaction():
            self._execute("UPDATE outbox SET sent_ms=? WHERE id=?", (sent_ms, parcel_id))

    def settle(
        self, parcel_id: int, left: Derived | None = None, tally: Mapping[str, int] | None = None
    ) -> None:
        """The batch is done, but for the points ``left``, which stay in its place as not yet sent."""
        with self._transaction():
            if left is not None and len(left):
                self._execute(
                    "UPDATE outbox SET n=?, sent_ms=NULL, body=? WHERE id=?",
                    (len(left), _encode_derived(left), parcel_id),
                )
            else:
                self._execute("DELETE FROM outbox WHERE id=?", (parcel_id,))
            self._add_tally(tally or {})

    def split(self, parcel_id: int, first: Derived, rest: Derived) -> None:
        """Make two batches of one, neither of them sent, in the place of the old one.

        Ids are spaced by AUTOINCREMENT, so the first half takes over the id and the rest moves to the end.
        """
        with self._transaction():
            self._execute(
                "UPDATE outbox SET n=?, sent_ms=NULL, body=? WHERE id=?",
                (len(first), _encode_derived(first), parcel_id),
            )
            self._execute("INSERT INTO outbox(n, body) VALUES (?,?)", (len(rest), _encode_derived(rest)))

    def outbox_points(self) -> int:
        """Derived points waiting for delivery."""
        with self._guard():
            return int(self._execute("SELECT COALESCE(SUM(n), 0) FROM outbox").fetchone()[0])

    def drop_oldest(self, points_max: int) -> int:
        """Keep the outbox at ``points_max`` points; returns how many of the oldest were dropped."""
        excess = self.outbox_points() - points_max
        dropped = 0
        while excess > 0 and (parcel := self.next_parcel()) is not None:
            self.settle(parcel.id, tally={"dropped": len(parcel.derived)})
            dropped += len(parcel.derived)
            excess -= len(parcel.derived)
        return dropped

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


def _encode_derived(derived: Derived) -> bytes:
    raw = np.empty(len(derived), _DERIVED)
    for name in ("series", "kind", "t_ms", "value"):
        raw[name] = getattr(derived, name)
    return raw.tobytes()


def _decode_derived(body: bytes) -> Derived:
    raw = np.frombuffer(body, _DERIVED)
    return Derived(
        raw["series"].astype(np.int64), raw["kind"].copy(), raw["t_ms"].copy(), raw["value"].copy()
    )
