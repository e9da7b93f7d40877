"""From the state file to running state: the newest snapshot that fits, and a replay of what came after."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from plexus_detect import clock
from plexus_detect.errors import ModelError
from plexus_detect.logs import event
from plexus_detect.running import Running
from plexus_detect.series import I64, Points, SeriesKey
from plexus_detect.store import Store, damaged

log = logging.getLogger(__name__)

# A worker that is killed again and again never lives to its next snapshot: after so many ticks of replay a
# start writes one, so that the journal is bounded and no start takes longer than the ones before.
REPLAYED_TICKS_MAX = 60


def load_running(store: Store, make: Callable[[], Running]) -> Running:
    """The state that ``store`` holds, with the same bits as the run that wrote it had.

    A snapshot under other settings does not fit: then every series is cold and warms up from the
    platform's history, and nothing that was posted before is posted again.
    """
    rows, added = _stored_series(store, make())
    covered, owed = store.covered_ms(), store.alerts()
    for snapshot in store.snapshots():
        _drop_damaged(store)
        running = make()
        running.owed = owed
        if snapshot.fingerprint != running.fingerprint():
            break
        try:
            running.restore(rows, snapshot.columns, covered)
        except (ValueError, ModelError) as error:
            event(log, logging.WARNING, "state_does_not_fit", err=str(error))
            break
        except (LookupError, TypeError, AttributeError) as error:
            # Its checksum holds, and yet it is not what we write: a column is missing, or of another type.
            event(log, logging.WARNING, "state_does_not_fit", err=f"snapshot: {error!r}")
            store.distrust(snapshot)
            continue
        replayed = ticks = 0
        for now_ms, points in store.journal(snapshot.journal_id):
            _require_known(store, points, len(rows))
            running.replay(points, now_ms)
            replayed, ticks = replayed + len(points), ticks + 1
        event(log, logging.INFO, "state_loaded", series=running.series_count(), replayed=replayed)
        if added or ticks >= REPLAYED_TICKS_MAX:
            store.save_snapshot(clock.now_ms(), running.fingerprint(), running.dump())
        return running
    _drop_damaged(store)
    running = make()
    running.owed = owed
    if rows:
        running.restore(rows, None, covered)
        running.chill(_last_ms(store, len(rows)))
        event(log, logging.WARNING, "warming_anew", reason="no snapshot fits the settings")
    store.save_snapshot(clock.now_ms(), running.fingerprint(), running.dump())
    return running


def _require_known(store: Store, points: Points, n: int) -> None:
    """Raise StoreError for points of a series that is not stored."""
    if len(points) and not 0 <= points.series.min() <= points.series.max() < n:
        raise damaged(
            store.path, f"the journal has points of series {points.series.max()}, and {n} are known"
        )


def _drop_damaged(store: Store) -> None:
    """Say it when a snapshot did not keep its checksum: the disk deserves a look."""
    if dropped := store.drop_damaged():
        event(log, logging.WARNING, "snapshot_damaged", snapshots=dropped)


def _stored_series(store: Store, running: Running) -> tuple[list[tuple[int, SeriesKey, int | None]], int]:
    """The stored series, and how many of them the configuration wants scored for the first time.

    Those are posted from now on, like any new series, and not for the time when nobody wanted it.
    """
    now_ms, added = clock.now_ms(), 0
    rows: list[tuple[int, SeriesKey, int | None]] = []
    for index, key, emit_from_ms in store.series():
        first = emit_from_ms is None and running.wants(key)
        added += first
        rows.append((index, key, now_ms if first else emit_from_ms))
    return rows, added


def _last_ms(store: Store, n: int) -> I64:
    """The newest sample of each series that was ever taken, whatever the settings were."""
    last = np.full(n, -1, np.int64)
    snapshots = list(store.snapshots())
    # Without a readable snapshot only this is left: nothing newer than what was covered can have been posted.
    columns = [s.columns["cursors.last_ms"] for s in snapshots if "cursors.last_ms" in s.columns]
    for held in [c for c in columns if c.dtype == np.int64 and c.ndim == 1] or [store.covered_ms()]:
        held = held[:n]
        last[: len(held)] = np.maximum(last[: len(held)], held)
    for _now_ms, points in store.journal(0):
        _require_known(store, points, n)
        np.maximum.at(last, points.series, points.t_ms)
    return last
