"""A sandbox that stands at a time of ours: points reach its alert engine one by one, each at its own time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import httpx
import numpy as np

from plexus_detect.client import Client, Endpoints
from plexus_detect.monitors.firing import EventEngine, Firing, ThresholdEngine
from plexus_detect.sandbox import Sandbox
from plexus_detect.sandbox.points import Point
from plexus_detect.series import F64, I64

T0 = 1_777_593_600_000  # 2026-05-01T00:00:00Z
URL = "http://sandbox"

Opened = list[tuple[int, int | None]]
Row = tuple[str, str, int, float]


class AlarmHouse:
    """A platform whose clock moves only with its points; its loops run whenever 30 s of that went by."""

    def __init__(self, from_ms: int = T0) -> None:
        # The first look of an event monitor, which only sets its cursor, is at the begin.
        self.now_ms = from_ms - 30_000
        self.box = Sandbox(now_ms=lambda: self.now_ms)
        self.from_ms = from_ms
        self._looks = False

    def watch(self, source: str, metric: str, part: str, fields: Mapping[str, Any]) -> None:
        """Make a monitor as its POST would."""
        stores = self.box._plexus.stores
        self._looks |= part == "event"
        self.box.create_source(source)
        defaults: dict[str, Any] = {"severity": "warning", "message": None, "enabled": True}
        more = {"threshold": {"min": None, "max": None}, "event": {"delivery": "digest"}}[part]
        stores.monitors.put(
            self.box.settings.default_org, part, source, metric, defaults | more | dict(fields)
        )

    def live(self, rows: Iterable[Row], to_ms: int) -> None:
        """Let every point arrive at its own time, in order of time, then the rest of the time go by."""
        plexus, org = self.box._plexus, self.box.settings.default_org
        arriving = sorted(rows, key=lambda row: row[2])
        self._until(self.from_ms)
        # A loop would see what has not arrived yet.
        size = 1 if self._looks else max(1, len(arriving))
        for at in range(0, len(arriving), size):
            self._until(arriving[at][2] - 1)
            self.box.load(arriving[at : at + size])
            for row in arriving[at : at + size]:
                self.now_ms = max(self.now_ms, row[2])
                plexus.houston.observe(org, [Point(*row)])
        self._until(to_ms)

    def _until(self, t_ms: int) -> None:
        """Let time go by, in which the loops run if a monitor needs them."""
        if not self._looks:
            self.now_ms = max(self.now_ms, t_ms)
            return
        look_ms = self.now_ms - (self.now_ms - self.from_ms) % 30_000 + 30_000
        while look_ms <= t_ms:
            self.now_ms = look_ms
            self.box.tick()
            look_ms += 30_000
        self.now_ms = max(self.now_ms, t_ms)

    def alerts(self) -> dict[tuple[str, str], Opened]:
        """When alerts opened and closed, in seconds and in order of time, by source and metric."""
        found: defaultdict[tuple[str, str], Opened] = defaultdict(list)
        for alert in self.box.alerts():
            source = self.box._plexus.stores.sources.find(self.box.settings.default_org, alert["source_id"])
            assert source is not None
            closed = alert["closed_at"] and _seconds(alert["closed_at"])
            found[source["slug"], alert["metric"]].append((_seconds(alert["triggered_at"]), closed))
        return {pair: sorted(opened, key=lambda alert: alert[0]) for pair, opened in found.items()}

    def client(self) -> Client:
        """A client of this platform."""
        transport = httpx.ASGITransport(app=self.box.app)
        return Client(Endpoints(URL, URL, URL), self.box.key, transport=transport, requests_per_s=1000)


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def firings(t_ms: I64, value: F64, low: float | None, high: float | None) -> list[Firing]:
    """The alerts of a threshold over a whole history at once."""
    whole = ThresholdEngine(low, high)
    whole.step(t_ms, value)
    return list(whole.finish(int(t_ms[-1]) if len(t_ms) else 0))


def event_firings(t_ms: I64, value: F64, span: tuple[int, int], *, per_row: bool = False) -> list[Firing]:
    """The alerts of an event monitor made at ``span[0]``, over a whole history up to ``span[1]``."""
    whole = EventEngine(span[0], per_row=per_row)
    whole.step(t_ms, value)
    return list(whole.finish(span[1]))


def opened(firings: Iterable[Firing]) -> Opened:
    """When firings opened and closed, in seconds."""
    return [(f.opened_ms // 1000, f.closed_ms and f.closed_ms // 1000) for f in firings]


def rough(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of one of several characters, on a grid of halves so that bounds are hit exactly."""
    rng = np.random.default_rng(seed)
    n = 400
    cadence_ms = (1_000, 5_000, 29_999, 30_000, 300_000)[seed % 5]
    gaps = np.full(n, cadence_ms) if seed % 2 else rng.integers(1, 2 * cadence_ms, n)
    kind = seed % 4
    if kind == 0:
        value = np.cumsum(rng.normal(0, 0.7, n))
    elif kind == 1:
        value = rng.normal(0, 0.5, n) + 8 * (rng.random(n) < 0.05)
    elif kind == 2:
        value = np.repeat(rng.normal(0, 3, n // 20), 20)
    else:
        value = rng.normal(0, 2, n)
    return T0 + 1 + np.cumsum(gaps), np.round(value * 2) / 2


def bounds(seed: int) -> dict[str, float | None]:
    """Bounds of one of several kinds: both, only one, none, and such as contradict each other."""
    rng = np.random.default_rng(1000 + seed)
    low, high = -float(rng.integers(1, 4)), float(rng.integers(1, 4))
    kinds = [(None, high), (low, high), (low, None), (None, 0.5), (high, low), (None, None)]
    chosen = kinds[seed % len(kinds)]
    return {"min": chosen[0], "max": chosen[1]}
