"""A running worker as it is seen from outside: its figures, its probes, its signs to a service manager."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from plexus_detect import clock
from plexus_detect.bucket import RetryBudget
from plexus_detect.config import Config
from plexus_detect.health import Health, serve_health
from plexus_detect.meters import Meters, Traffic
from plexus_detect.notify import Notifier
from plexus_detect.provision.figures import Provisioned
from plexus_detect.provision.manifestfile import manifest_file
from plexus_detect.redaction import redact
from plexus_detect.vitals import Vitals, liveness, readiness

# How often the event loop shows that it turns.
TURN_S = 1.0


class Outside:
    """Made once the state file is open and locked; as a context manager it is seen until its end.

    A worker that is not to be seen (``run --once``) fills the same vitals and nobody looks.
    """

    def __init__(self, config: Config, stop: asyncio.Event, environ: Mapping[str, str] = os.environ) -> None:
        self.vitals = Vitals(
            config.poll.interval_ms,
            config.state.outbox_points_max,
            config.state.series_max,
            state_open=True,
            lock_held=True,
        )
        self.vitals.started(clock.monotonic_s(), clock.now_ms())
        self.meters = Meters(self.vitals)
        self.meters.registry.register(Provisioned(manifest_file(config)))
        self.notifier = Notifier(environ)
        self._listen = config.health.listen
        self._files = [Path(f"{config.state.path}{end}") for end in ("", "-wal")]
        self._stop = stop
        self._health: Health | None = None
        self._turning: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._health = serve_health(self._listen, self.vitals, self.meters)
        self._turning = asyncio.create_task(self._turn())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if self._turning is not None:
            self._turning.cancel()
            await asyncio.wait([self._turning])
        if self._health is not None:
            self._health.close()

    def ready(self, traffic: Traffic, budget: RetryBudget) -> None:
        """The worker has started: its key is accepted and its state loaded."""
        self.meters.attach(traffic, budget)
        self.notifier.ready()

    def _leave(self) -> None:
        if not self.vitals.stopping:
            self.vitals.stopping = True
            self.notifier.stopping()

    async def _turn(self) -> None:
        """Show that the loop turns, until cancelled. When it does not, neither does this: hence no sign."""
        watchdog_s = self.notifier.watchdog_s
        period_s = TURN_S if watchdog_s is None else min(TURN_S, watchdog_s / 2)
        while True:
            now_s = clock.monotonic_s()
            self.vitals.turned_s = now_s
            self.vitals.state_bytes = sum(_size(file) for file in self._files)
            if self._stop.is_set():
                self._leave()
            if not liveness(self.vitals, now_s):
                self.notifier.alive()
            troubles = readiness(self.vitals, now_s)
            text = troubles[0].what if troubles else f"watching {self.vitals.series} series"
            self.notifier.status(redact(text))
            if self._stop.is_set():
                await clock.sleep_s(period_s)
            else:
                await clock.wait_s(self._stop, period_s)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
