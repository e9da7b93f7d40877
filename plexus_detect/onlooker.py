"""A state file seen from outside while a worker may be writing it: nothing is locked, changed or posted.

What is seen is one moment, that of the last committed tick; the worker goes on meanwhile (SQLite's WAL mode,
sqlite.org/wal.html). Running state is found again as a start of the worker would find it: the newest snapshot
that fits and the ticks after it.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from plexus_detect.errors import ModelError, StoreError
from plexus_detect.running import Running
from plexus_detect.series import F64, I64, Points, SeriesKey
from plexus_detect.store import SCHEMA_VERSION, Snapshot, Store

APPLICATION_ID = 0x504C5844
HOLDER_BYTES_MAX = 4096

StoredSeries = tuple[int, SeriesKey, int | None]


@dataclass(frozen=True)
class Holder:
    """Whether a worker has the state file, and which, as far as that is known."""

    held: bool
    pid: int | None = None
    host: str | None = None

    def __str__(self) -> str:
        named = f", pid {self.pid} on host {self.host}" if self.pid is not None else ""
        return f"running{named}" if self.held else "not running"


def holder_of(path: Path | str) -> Holder:
    """Who has the state file; looking takes nothing from a worker."""
    if not _is_held(path):
        return Holder(held=False)
    try:
        with Path(f"{path}.holder").open("rb") as file:
            found = json.loads(file.read(HOLDER_BYTES_MAX))
        pid, host = found["pid"], found["host"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Holder(held=True)
    named = isinstance(pid, int) and isinstance(host, str) and host.isprintable() and len(host) <= 255
    # A name that another worker left behind, which has ended, is not that of the one that holds the lock.
    return Holder(held=True, pid=pid, host=host) if named and _may_live(pid, host) else Holder(held=True)


def _is_held(path: Path | str) -> bool:
    """Whether the worker's lock cannot be shared at this instant."""
    try:
        with closing(sqlite3.connect(_uri(f"{path}.lock"), uri=True, timeout=0.0)) as db:
            db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.DatabaseError:
        return False
    return False


def _may_live(pid: int, host: str) -> bool:
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _uri(path: Path | str) -> str:
    return f"{Path(path).resolve().as_uri()}?mode=ro"


class Onlooker(Store):
    """A state file for reading only, as it was when it was opened. What writes raises StoreError.

    So does the constructor for a file that is missing, not ours, newer than this program or damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self._reading: sqlite3.Connection | None = None
        if not Path(path).exists():
            raise StoreError(
                f"there is no state file {path}; no worker has run here yet, or state.path is another one"
            )
        try:
            with self._guard():
                self._reading = self._connected()
                self._check()
        except BaseException:
            self.close()
            raise

    def _connected(self) -> sqlite3.Connection:
        """A connection that sees one moment, from now until it is closed."""
        for uri in (_uri(self.path), f"{_uri(self.path)}&immutable=1"):
            db = sqlite3.connect(uri, uri=True, isolation_level=None)
            try:
                db.execute("BEGIN")
                db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            except sqlite3.OperationalError as error:
                db.close()
                # A file that no worker has open, in a folder where we may write nothing, not even beside it.
                beside = any(word in str(error) for word in ("unable to open", "readonly"))
                if beside and not Path(f"{self.path}-wal").exists():
                    continue
                raise
            except BaseException:
                db.close()
                raise
            return db
        raise StoreError(f"state file {self.path} cannot be read; check its rights")

    def _check(self) -> None:
        if not self._value("SELECT COUNT(*) FROM sqlite_master"):
            raise StoreError(f"state file {self.path} is empty; a worker fills it with its first start")
        if self._value("PRAGMA application_id") != APPLICATION_ID:
            raise StoreError(f"{self.path} is an SQLite file of another program; choose another state.path")
        if (version := self.schema()) > SCHEMA_VERSION:
            raise StoreError(
                f"state file {self.path} has schema {version}, this program knows {SCHEMA_VERSION}; "
                "run the newer program"
            )

    def _execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:  # noqa: ANN401  as SQLite takes them
        if self._reading is None:
            raise StoreError(f"state file {self.path} is closed")
        return self._reading.execute(sql, values)

    def _value(self, sql: str) -> Any:  # noqa: ANN401  whatever type the one column has
        return self._execute(sql).fetchone()[0]

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"state file {self.path} cannot be read ({error}); check that it is a file you may read"
            ) from None
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"state file {self.path} is damaged ({error}); restore a copy, or move it away to start anew"
            ) from None

    def _transaction(self) -> NoReturn:
        raise StoreError(f"state file {self.path} is open for reading only")

    def close(self) -> None:
        """Close the file; a second time is harmless."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    # -- what only whoever looks wants to know

    def schema(self) -> int:
        """The version of the file's schema."""
        with self._guard():
            return int(self._value("PRAGMA user_version"))

    def damage(self) -> str | None:
        """What SQLite's own check of the whole file finds, None when nothing."""
        with self._guard():
            found = str(self._value("PRAGMA quick_check(1)"))
        return None if found == "ok" else " ".join(found.split())

    def ticks(self) -> list[int]:
        """The numbers of the ticks in the journal, oldest first: those of ``journal(0)``."""
        with self._guard():
            return [number for (number,) in self._execute("SELECT id FROM journal ORDER BY id")]

    def newest_snapshot(self) -> tuple[int, int] | None:
        """Number and time (ms) of the newest snapshot, without reading it."""
        with self._guard():
            row = self._execute("SELECT id, created_ms FROM snapshot ORDER BY id DESC LIMIT 1").fetchone()
        return (int(row[0]), int(row[1])) if row else None

    def outbox_oldest_ms(self) -> int | None:
        """The time of the oldest score of the oldest batch that waits."""
        parcel = self.next_parcel()
        return int(parcel.derived.t_ms.min()) if parcel is not None and len(parcel.derived) else None


class Recall:
    """What the worker of a state file knows, looked at again and again.

    ``running`` is exact as of the last committed tick when ``misfit`` is None; else the settings changed
    since, and only its cursors say something. ``value`` has the newest sample of each series as far as the
    journal reaches (NaN: it does not), ``tick_ms`` is the time of the last tick that took something in.
    """

    def __init__(self, path: Path, make: Callable[[], Running]) -> None:
        self._path = path
        self._make = make
        self._seen: tuple[int, int] | None = None
        self._at = 0
        self.running = make()
        self.misfit: str | None = None
        self.value: F64 = np.zeros(0)
        self._value_ms: I64 = np.zeros(0, np.int64)
        self.tick_ms: int | None = None
        self.saved_ms: int | None = None
        self.outbox_points = 0
        self.outbox_oldest_ms: int | None = None

    def look(self) -> None:
        """See what is there now. Raises StoreError."""
        with closing(Onlooker(self._path)) as store:
            newest, rows, numbers = store.newest_snapshot(), store.series(), store.ticks()
            known = (newest[0] if newest else 0, len(rows))
            # What is not in the journal (a new model, say) comes with a snapshot.
            if known == self._seen:
                self._follow(store, [number for number in numbers if number > self._at], self._at)
                covered, known_to = store.covered_ms(), self.running.cursors.covered_ms
                np.maximum(known_to[: len(covered)], covered, out=known_to[: len(covered)])
            else:
                self._load(store, rows, numbers)
            self._seen, self._at = known, numbers[-1] if numbers else 0
            self.saved_ms = newest[1] if newest else None
            self.outbox_points, self.outbox_oldest_ms = store.outbox_points(), store.outbox_oldest_ms()

    def _load(self, store: Onlooker, rows: Sequence[StoredSeries], numbers: list[int]) -> None:
        """Begin with the newest snapshot, or without any when it does not fit."""
        self.value, self._value_ms = np.full(len(rows), np.nan), np.full(len(rows), -1, np.int64)
        self.misfit, covered = "no worker has saved anything yet", store.covered_ms()
        snapshot = next(store.snapshots(), None)
        if snapshot is not None:
            self.misfit = self._restore(snapshot, rows, covered)
        if snapshot is not None and self.misfit is None:
            self._follow(store, numbers, snapshot.journal_id)
            return
        self.running = self._make()
        self.running.restore(rows, None, covered)
        last = self.running.cursors.last_ms
        if snapshot is not None:
            held = snapshot.columns["cursors.last_ms"][: len(last)]
            last[: len(held)] = held
        self._follow(store, numbers, 0)
        last[: len(rows)] = np.maximum(last[: len(rows)], self._value_ms)

    def _restore(self, snapshot: Snapshot, rows: Sequence[StoredSeries], covered: I64) -> str | None:
        """Take over a snapshot; what does not fit if it cannot be."""
        running = self._make()
        if snapshot.fingerprint != running.fingerprint():
            return "the settings changed since the worker saved it"
        try:
            running.restore(rows, snapshot.columns, covered)
        except (ValueError, ModelError) as error:
            return f"what the worker saved does not fit the settings: {error}"
        self.running = running
        return None

    def _follow(self, store: Onlooker, numbers: list[int], at: int) -> None:
        """Take ticks by their ``numbers``, those up to number ``at`` for their values only."""
        since = numbers[0] - 1 if numbers else self._at
        for number, (now_ms, points) in zip(numbers, store.journal(since), strict=True):
            self._take_values(points)
            # A tick at 0 recorded series, when no time had passed.
            self.tick_ms = now_ms or self.tick_ms
            if number > at and self.misfit is None:
                self.running.replay(points, now_ms)

    def _take_values(self, points: Points) -> None:
        at = np.flatnonzero(~points.late)
        at = at[np.argsort(points.t_ms[at], kind="stable")]
        at = at[points.t_ms[at] >= self._value_ms[points.series[at]]]
        self.value[points.series[at]] = points.value[at]
        self._value_ms[points.series[at]] = points.t_ms[at]
