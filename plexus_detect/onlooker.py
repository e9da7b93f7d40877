"""A state file seen from outside while a worker may be writing it: nothing is locked, changed or posted.

What is seen is one moment, that of the last committed tick; the worker goes on meanwhile (SQLite's WAL mode,
sqlite.org/wal.html). Running state is found again as a start of the worker would find it: the newest snapshot
that fits and the ticks after it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from plexus_detect.errors import ModelError, StoreError
from plexus_detect.running import Running
from plexus_detect.series import F64, I64, Points, SeriesKey
from plexus_detect.store import Snapshot, Store, damaged, schema
from plexus_detect.store.database import Database, size_of
from plexus_detect.store.lock import Holder, holder_of, is_held

StoredSeries = tuple[int, SeriesKey, int | None]


class Presence(NamedTuple):
    """Whether a worker has a state file, and which, as far as it is known."""

    held: bool
    holder: Holder | None = None

    def __str__(self) -> str:
        if not self.held:
            return "not running"
        if self.holder is None:
            return "running"
        where = "" if self.holder.host == socket.gethostname() else f" on {self.holder.host}"
        return f"running (pid {self.holder.pid}{where})"


def presence_of(path: Path | str) -> Presence:
    """Who has the state file; looking takes nothing from a worker."""
    holder = holder_of(str(path))
    return Presence(holder is not None or is_held(str(path)), holder)


class Onlooker(Store):
    """A state file for reading only, as it was when it was opened. What writes raises StoreError.

    So does the constructor for a file that is missing, not ours, newer than this program or damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = str(path)
        self._lock = None
        self._damaged = set()
        self._db = Database(self.path)
        if not Path(path).exists():
            raise StoreError(
                f"there is no state file {path}; no worker has run here yet, or state.path is another one"
            )
        if not Path(path).is_file():
            raise StoreError(f"state file {path} is no file; choose another state.path")
        try:
            with self._guard():
                self._db.connect_to_read()
                if schema.version_of(self._db) is None:
                    raise StoreError(f"state file {path} is empty; a worker fills it with its first start")
                self._execute("BEGIN")
                # The moment begins with the first reading.
                self._execute("SELECT COUNT(*) FROM series")
        except BaseException:
            self.close()
            raise

    def _transaction(self) -> NoReturn:
        raise StoreError(f"state file {self.path} is open for reading only")

    # -- what only whoever looks wants to know

    def schema(self) -> int:
        """The version of the file's schema."""
        with self._guard():
            return int(self._db.value("PRAGMA user_version"))

    def damage(self) -> str | None:
        """What SQLite's own check of the whole file finds, None when nothing."""
        with self._guard():
            found = str(self._db.value("PRAGMA quick_check(1)"))
        return None if found == "ok" else " ".join(found.split())

    def bytes_held(self) -> int:
        """The size of the file and of what is not yet written into it."""
        return size_of(self.path) + size_of(f"{self.path}-wal")

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
        held = list[Snapshot]()
        for snapshot in store.snapshots():
            held.append(snapshot)
            try:
                self.misfit = self._restore(snapshot, rows, covered)
            except (LookupError, TypeError, AttributeError):
                # Its checksum holds, and yet it is not what we write: a start takes the one before it.
                continue
            if self.misfit is None:
                self._follow(store, numbers, snapshot.journal_id)
                return
            break
        self.running = self._make()
        self.running.restore(rows, None, covered)
        self._follow(store, numbers, 0)
        self._take_times(held)

    def _take_times(self, held: Sequence[Snapshot]) -> None:
        """The newest sample of each series, whatever the settings were."""
        last = self.running.cursors.last_ms
        for column in (s.columns.get("cursors.last_ms") for s in held):
            if column is not None and column.dtype == np.int64 and column.ndim == 1:
                n = min(len(last), len(column))
                last[:n] = np.maximum(last[:n], column[:n])
        n = len(self._value_ms)
        last[:n] = np.maximum(last[:n], self._value_ms)

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
            n = len(self.value)
            if len(points) and not 0 <= points.series.min() <= points.series.max() < n:
                raise damaged(store.path, f"the journal has points of a series beyond the {n} that are known")
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
