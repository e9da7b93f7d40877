"""A store with an outbox, a platform with the samples behind it, and the delivery between the two."""

from __future__ import annotations

import asyncio

import numpy as np
from fake_platform import START_MS, FakeClock, FakePlatform, Row

from plexus_detect import clock, outbox
from plexus_detect.delivery import Delivery, DeliveryParams
from plexus_detect.series import Derived, Points, SeriesKey
from plexus_detect.store import Commit, Store

KEYS = [SeriesKey("dev-1", "t"), SeriesKey("dev-2", "t"), SeriesKey("dev-3", "t")]


class Yard:
    """The three of them; ``ahead_ms`` is what the worker knows of the platform's clock."""

    def __init__(self, stopped: FakeClock, **params) -> None:
        self.stopped = stopped
        self.store = Store(":memory:")
        self.platform = FakePlatform()
        self.params = DeliveryParams(**params)
        self.ahead_ms = 0
        self.restart()

    def restart(self) -> None:
        """A new process over the same store."""
        self.delivery = Delivery(self.platform, self.store, KEYS, self.params, self.now_ms)

    def now_ms(self) -> int:
        """The platform's clock as the worker knows it."""
        return clock.now_ms() + self.ahead_ms

    def fill(self, n: int, *, points_max: int = 10_000, age_ms: int = 0) -> list[Row]:
        """Put scores of ``n`` times of every device in the outbox; the newest is ``age_ms`` old."""
        times = [START_MS - age_ms - 10 * (n - 1 - k) for k in range(n)]
        column = np.array([t for t in times for _ in KEYS], np.int64)
        index = np.tile(np.arange(len(KEYS)), n)
        value = np.arange(len(column)) / 4
        derived = Derived(index, np.zeros(len(column), np.int8), column, value)
        batches = outbox.pack(derived, points_max)
        self.store.commit(Commit(START_MS, Points.empty(), np.zeros(0, np.int64), batches))
        samples = [(KEYS[i].source, KEYS[i].metric, int(t), 20.0) for i, t in zip(index, column, strict=True)]
        self.platform.rows += samples
        return sorted(
            (KEYS[i].source, "t.zscore", int(t), float(v))
            for i, t, v in zip(index, column, value, strict=True)
        )

    def deliver(self) -> bool:
        """One run over the outbox."""
        return asyncio.run(self.delivery.deliver_all())

    def scores(self) -> list[Row]:
        """What the platform has stored of ours."""
        return self.platform.stored(".zscore")
