"""Monitors as the app keeps them: thresholds, event and offline monitors, and their targets."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, field
from typing import Any

from plexus_detect.sandbox.database import Database
from plexus_detect.sandbox.javascript import pg_text
from plexus_detect.sandbox.sources import Row
from plexus_detect.sandbox.stamps import Stamps, new_id


@dataclass
class Monitor:
    """One row. ``kind`` is threshold, event or offline; ``fields`` are its own columns.

    ``rule_id`` is what alerts carry; it is another id than the one that the list shows.
    """

    id: str
    org: str
    kind: str
    source: str
    metric: str
    fields: dict[str, Any]
    targets: list[str] | None
    rule_id: str
    created_us: int
    version: int = field(default=0)

    def shown(self) -> dict[str, Any]:
        """Return the sub-object of this monitor in the list."""
        return {"id": self.id, **self.fields, "notification_target_ids": self.targets}


class MonitorStore:
    """The monitor tables, kept in memory and written through."""

    def __init__(self, database: Database, stamps: Stamps) -> None:
        self._db = database
        self._stamps = stamps
        self._lock = threading.RLock()
        self._all: dict[str, Monitor] = {}
        for (row,) in database.rows("SELECT row FROM monitors ORDER BY created_us"):
            monitor = Monitor(**json.loads(row))
            self._all[monitor.id] = monitor
        # (kind, org, source, metric) of threshold and event monitors: their upsert key.
        self._keyed = {_key(m): m for m in self._all.values() if m.kind != "offline"}

    def _write(self, monitor: Monitor) -> None:
        self._db.run(
            "INSERT OR REPLACE INTO monitors VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                monitor.id,
                monitor.org,
                monitor.kind,
                monitor.source,
                monitor.metric,
                json.dumps(asdict(monitor)),
                monitor.rule_id,
                monitor.created_us,
            ),
        )
        self._all[monitor.id] = monitor
        if monitor.kind != "offline":
            self._keyed[_key(monitor)] = monitor

    def put(self, org: str, kind: str, source: str, metric: str, fields: dict[str, Any]) -> Monitor:
        """Replace the fields of a threshold or event monitor, or add one. Offline is always added.

        The ids survive a replacement, and so do the targets; an event monitor starts a new version, since
        writing it again resets its cursor.
        """
        with self._lock:
            monitor = None if kind == "offline" else self.find(org, kind, source, metric)
            if monitor is None:
                monitor = Monitor(
                    new_id(), org, kind, source, metric, fields, None, new_id(), self._stamps.now_us()
                )
            monitor.fields = fields
            monitor.version += 1
            self._write(monitor)
            return monitor

    def find(self, org: str, kind: str, source: str, metric: str) -> Monitor | None:
        """Return the threshold or event monitor of a metric."""
        return self._keyed.get((kind, org, source, metric))

    def of_kind(self, kind: str, org: str | None = None) -> list[Monitor]:
        """Return the monitors of one kind, oldest first."""
        return [m for m in list(self._all.values()) if m.kind == kind and org in {None, m.org}]

    def get(self, org: str, monitor_id: str) -> Monitor | None:
        """Return a monitor by the id that the list shows."""
        monitor = self._all.get(monitor_id)
        return monitor if monitor is not None and monitor.org == org else None

    def target(self, monitor: Monitor, targets: list[str] | None) -> None:
        """Set the integrations that a monitor notifies; None is the default fan-out."""
        with self._lock:
            monitor.targets = targets
            self._write(monitor)

    def remove(self, monitors: list[Monitor]) -> None:
        """Delete monitors; unknown ones are no error."""
        with self._lock:
            for monitor in monitors:
                self._db.run("DELETE FROM monitors WHERE id = ?", (monitor.id,))
                self._all.pop(monitor.id, None)
                self._keyed.pop(_key(monitor), None)

    def listed(self, org: str, sources: dict[str, Row]) -> list[dict[str, Any]]:
        """Return ``GET /api/monitors``: threshold and event of one metric share an entry, newest first."""
        entries: dict[tuple[str, str] | str, list[Monitor]] = {}
        for monitor in sorted(self._all.values(), key=lambda m: m.created_us):
            if monitor.org == org:
                offline = monitor.kind == "offline"
                entries.setdefault(monitor.id if offline else (monitor.source, monitor.metric), []).append(
                    monitor
                )
        newest_first = sorted(entries.values(), key=lambda group: group[0].created_us, reverse=True)
        return [_entry(group, sources[group[0].source]) for group in newest_first]


def _key(monitor: Monitor) -> tuple[str, str, str, str]:
    return monitor.kind, monitor.org, monitor.source, monitor.metric


def _entry(group: list[Monitor], source: Row) -> dict[str, Any]:
    kinds = {monitor.kind: monitor.shown() for monitor in group}
    offline = "offline" in kinds
    connection = source["source_type"] == "connection"
    entry: dict[str, Any] = {
        # Offline monitors alone name their source by slug; the others by id.
        "source_id": source["slug"] if offline else source["id"],
        "source_slug": source["slug"],
        "source_name": source["name"] or source["slug"],
        "metric": group[0].metric,
        "threshold": kinds.get("threshold"),
        "event": kinds.get("event"),
        "unpinned": connection,
        "created_at": pg_text(group[0].created_us),
        "type": "both" if len(kinds) > 1 else group[0].kind,
        "health": None if offline else _health(connection),
        "offline": kinds.get("offline"),
    }
    return entry


def _health(connection: bool) -> dict[str, Any]:
    if connection:
        reason = "Not scanning \u2014 the metric isn't pinned to a table"
        return {"state": "skipped", "reason": reason, "checked_at": None}
    # Only the poll loop writes health, and a device's threshold is not its business: pending for ever.
    return {"state": "pending", "reason": None, "checked_at": None}
