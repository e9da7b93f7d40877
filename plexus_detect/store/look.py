"""What a state file holds, read beside the worker that writes it: nothing here changes the file or takes its
lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plexus_detect.closing import Alert, Debt
from plexus_detect.columns import decode_columns
from plexus_detect.errors import StoreError
from plexus_detect.series import SeriesKey
from plexus_detect.store import schema
from plexus_detect.store.database import Database, decoded, size_of
from plexus_detect.store.lock import Holder, holder_of, is_held
from plexus_detect.store.records import decode_derived, decode_points
from plexus_detect.store.soundness import require_sound


@dataclass(frozen=True)
class SnapshotLook:
    """One snapshot; ``intact`` when its checksum holds and it can be read."""

    created_ms: int
    journal_id: int
    fingerprint: str
    bytes: int
    intact: bool


@dataclass(frozen=True)
class JournalLook:
    """What a start would step through again: the ticks after the newest intact snapshot and their points."""

    ticks: int
    points: int


@dataclass(frozen=True)
class OutboxLook:
    """What waits for delivery; ``oldest_ms`` is the time of its oldest sample, None when nothing waits."""

    points: int
    batches: int
    oldest_ms: int | None


@dataclass(frozen=True)
class Look:
    """A state file at one moment; ``snapshots`` are newest first, ``alerts`` those the platform may have
    open. ``held`` with ``holder`` None: a worker that is not known by name."""

    path: str
    bytes: int
    wal_bytes: int
    schema: int
    held: bool
    holder: Holder | None
    series: Mapping[int, SeriesKey]
    snapshots: tuple[SnapshotLook, ...]
    journal: JournalLook
    outbox: OutboxLook
    alerts: Mapping[Alert, Debt]
    tally: Mapping[str, int]
    notes: Mapping[str, str]


@contextmanager
def reading(path: str) -> Iterator[Database]:
    """A state file of this program, open for reading. Raises StoreError when there is none to be read."""
    if not Path(path).exists():
        raise StoreError(
            f"there is no state file {path}; a worker makes it at its first start, where state.path says"
        )
    db = Database(path)
    with db.guard():
        try:
            db.connect_to_read()
            # From here on all that is read is of one moment, whatever the worker writes meanwhile.
            db.execute("BEGIN")
            if (version := schema.version_of(db)) is None:
                raise StoreError(f"state file {path} is empty; a worker that starts fills it")
            require_sound(db, version)
            yield db
        finally:
            db.close()


def look(path: str) -> Look:
    """Read what a state file holds, all of the same moment. Raises StoreError."""
    with reading(path) as db:
        version = schema.version_of(db) or 0
        snapshots = snapshots_in(db)
        since = next((snapshot.journal_id for snapshot in snapshots if snapshot.intact), 0)
        alerts: dict[Alert, Debt] = {}
        notes: dict[str, str] = {}
        if version >= schema.ALERTS_AND_NOTES:
            rows = db.execute("SELECT series, kind, since_ms, calm_ms FROM alerts ORDER BY since_ms")
            alerts = {(series, kind): Debt(since_ms, calm_ms) for series, kind, since_ms, calm_ms in rows}
            notes = dict(db.execute("SELECT name, value FROM notes ORDER BY name"))
        rows = db.execute("SELECT id, source, metric FROM series ORDER BY id")
        return Look(
            path=path,
            bytes=size_of(path),
            wal_bytes=size_of(f"{path}-wal"),
            schema=version,
            held=is_held(path),
            holder=holder_of(path),
            series={number: SeriesKey(source, metric) for number, source, metric in rows},
            snapshots=snapshots,
            journal=_journal(db, since),
            outbox=_outbox(db),
            alerts=alerts,
            tally=dict(db.execute("SELECT name, n FROM tally ORDER BY name")),
            notes=notes,
        )


def snapshots_in(db: Database) -> tuple[SnapshotLook, ...]:
    """The snapshots of a file, newest first, each read to its end."""
    rows = db.execute(
        "SELECT created_ms, journal_id, fingerprint, sha256, body FROM snapshot ORDER BY id DESC"
    )
    return tuple(
        SnapshotLook(created_ms, journal_id, fingerprint, len(body), decode_columns(body, digest) is not None)
        for created_ms, journal_id, fingerprint, digest, body in rows
    )


def _journal(db: Database, since: int) -> JournalLook:
    rows = db.execute("SELECT body FROM journal WHERE id > ?", (since,))
    counts = [len(decoded(db.path, decode_points, body)) for (body,) in rows]
    return JournalLook(len(counts), sum(counts))


def _outbox(db: Database) -> OutboxLook:
    points, batches, oldest_ms = 0, 0, None
    for (body,) in db.execute("SELECT body FROM outbox"):
        derived = decoded(db.path, decode_derived, body)
        if len(derived):
            first_ms = int(derived.t_ms.min())
            oldest_ms = first_ms if oldest_ms is None else min(oldest_ms, first_ms)
        points, batches = points + len(derived), batches + 1
    return OutboxLook(points, batches, oldest_ms)
