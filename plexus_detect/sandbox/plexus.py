"""The platform without its doors: stores, engines and the path of a point through them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from plexus_detect.sandbox.alerts import AlertStore
from plexus_detect.sandbox.database import Database
from plexus_detect.sandbox.faults import Faults
from plexus_detect.sandbox.houston import Houston
from plexus_detect.sandbox.monitors import MonitorStore
from plexus_detect.sandbox.notices import Notices
from plexus_detect.sandbox.points import Point, PointStore
from plexus_detect.sandbox.settings import Settings
from plexus_detect.sandbox.slack import Slack
from plexus_detect.sandbox.sources import SourceStore
from plexus_detect.sandbox.stamps import Stamps
from plexus_detect.sandbox.stores import Stores
from plexus_detect.sandbox.traffic import Traffic
from plexus_detect.sandbox.validate import Accepted, storable
from plexus_detect.sandbox.watch import Watch

# Requests or frames of one source closer together than this are dropped by the gateway without a word.
_SOURCE_GAP_S = 1 / 2000


class Plexus:
    """One platform. Every method may be called from any thread."""

    def __init__(self, settings: Settings, now_ms: Callable[[], int]) -> None:
        self.settings = settings
        self.stamps = Stamps(now_ms)
        self.database = Database(settings.path)
        points = PointStore(self.database)
        self.stores = Stores(
            points,
            SourceStore(self.database, points, self.stamps, settings),
            MonitorStore(self.database, self.stamps),
            AlertStore(self.database, self.stamps),
        )
        self.slack = Slack(settings)
        self.notices = Notices(self.slack, self.stamps)
        self.houston = Houston(self.stores, self.notices, self.stamps, settings)
        self.watch = Watch(self.stores, self.houston, self.notices, self.stamps, settings)
        self.faults = Faults()
        self.traffic = Traffic()
        self.sockets: dict[tuple[str, str], Any] = {}
        self._last_s: dict[tuple[str, str], float] = {}

    def accept(self, org: str, batch: Accepted, path: str) -> int:
        """Take in a checked request and return the number of points that were not dropped.

        Accepted is not stored: the source has to be recorded, the time has to exist. Monitors see the point
        either way.
        """
        kept = self._within_rate(org, batch.counts, path)
        points = batch.metrics
        if len(kept) < len(batch.counts):
            points = [point for point in points if point.source in kept]
        recorded = {slug for slug in kept if self.stores.sources.records(org, slug)}
        rows = [point for point in points if point.source in recorded and storable(point)]
        late = self.faults.hit("late", path)
        visible_ms = self.stamps.now_ms() + (late.late_ms if late else 0)
        self.stores.points.add(org, rows, visible_ms)
        if self.faults.hit("duplicate", path):
            self.stores.points.add(org, rows, visible_ms)
        self.houston.observe(org, points)
        return sum(batch.counts[slug] for slug in kept)

    def _within_rate(self, org: str, counts: dict[str, int], path: str) -> set[str]:
        now_s = time.monotonic()
        dropped = set()
        if self.faults.hit("rate_drop", path):
            dropped = set(list(counts)[: (len(counts) + 1) // 2])
        for slug in counts:
            if now_s - self._last_s.get((org, slug), -1.0) < _SOURCE_GAP_S:
                dropped.add(slug)
            else:
                self._last_s[org, slug] = now_s
        return counts.keys() - dropped

    def load(self, org: str, points: Iterable[Point]) -> int:
        """Store points at once, creating their sources with recording on; monitors do not see them."""
        rows = list(points)
        for slug in dict.fromkeys(point.source for point in rows):
            self.stores.sources.create(org, slug, status="online")
        self.stores.points.add(org, rows, self.stamps.now_ms())
        return len(rows)

    def restart_houston(self) -> None:
        """Start the threshold engine anew: what it knew is gone, the alerts it left are in the store."""
        self.houston = Houston(self.stores, self.notices, self.stamps, self.settings)
        self.watch.houston = self.houston

    def close(self) -> None:
        """Stop delivering and close the store."""
        self.slack.close()
        self.database.close()
