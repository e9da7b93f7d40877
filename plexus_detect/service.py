"""A worker that runs until it is told to stop, and takes new settings while it does.

A reload is staged: the files are read, the settings are checked, the key is tried, and only then does the
worker in force end and another take its place over the same state. Whatever is wrong with the new settings,
the old ones stay in force, and that is said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from plexus_detect import clock
from plexus_detect.config import Config
from plexus_detect.cursor import PollParams
from plexus_detect.errors import ApiError, ConfigError, PlexusDetectError
from plexus_detect.logs import event, setup_logging
from plexus_detect.loops import unless_stopped
from plexus_detect.options import client_of, warn
from plexus_detect.outside import Outside
from plexus_detect.policy import policy_of
from plexus_detect.reader import Reader
from plexus_detect.redaction import redact
from plexus_detect.retraining import Retraining
from plexus_detect.retraining import require as require_training
from plexus_detect.retry import retried
from plexus_detect.series import SeriesTable
from plexus_detect.store import Store
from plexus_detect.worker import Worker, open_worker

log = logging.getLogger(__name__)


class Service:
    """``load`` reads the settings anew, from ``config_paths`` among others; ``config`` are those in force."""

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        store: Store,
        outside: Outside,
        config_paths: Sequence[Path] = (),
    ) -> None:
        self.config = config
        self._load = load
        self._config_paths = config_paths
        self._store = store
        self._outside = outside
        self._retraining = Retraining(outside.vitals, config_paths)
        # The settings to go back to while the newest have not yet started a worker.
        self._before: Config | None = None

    async def run(self, stop: asyncio.Event, reload: asyncio.Event) -> None:
        """Run until ``stop`` is set; whenever ``reload`` is, take new settings if they are good.

        Raises what ``open_worker`` and ``Worker.run`` raise.
        """
        require_training(self.config)
        while not stop.is_set():
            try:
                await self._run_one(stop, reload)
            except ApiError as error:
                if self._before is None:
                    raise
                # The settings passed every check a moment ago, and yet the worker does not start with them.
                self._failed(str(error))
                self.config, self._before = self._before, None

    async def _run_one(self, stop: asyncio.Event, reload: asyncio.Event) -> None:
        """Run a worker under the settings in force until others take their place."""
        leave = asyncio.Event()
        async with client_of(self.config) as client:
            opening = open_worker(
                self.config, client, self._store, self._outside.meters.absorb, vitals=self._outside.vitals
            )
            worker: Worker | None = await unless_stopped(opening, stop)
            if worker is None:
                return
            self._before = None
            self._outside.ready(client, worker.budget)
            beside = {
                asyncio.create_task(self._watch(stop, reload, leave)),
                asyncio.create_task(self._retraining.run(self.config, leave)),
            }
            try:
                await worker.run(leave)
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.wait(beside)

    async def _watch(self, stop: asyncio.Event, reload: asyncio.Event, leave: asyncio.Event) -> None:
        """Let the worker leave when it is to stop, or when new settings have passed all checks."""
        while not leave.is_set():
            waiting = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(reload.wait())]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
            if stop.is_set() or await self._reloaded(reload):
                leave.set()

    async def _reloaded(self, reload: asyncio.Event) -> bool:
        """Check new settings, and put them in force if they are good."""
        reload.clear()
        self._outside.notifier.reloading()
        try:
            config = self._load()
            self._check_fixed(config)
            await self._try(config)
        except PlexusDetectError as error:
            self._failed(str(error))
            self._outside.notifier.ready()
            return False
        setup_logging(config.log.level, config.log.format)
        self._before, self.config = self.config, config
        vitals = self._outside.vitals
        vitals.interval_ms = config.poll.interval_ms
        vitals.outbox_max, vitals.series_max = config.state.outbox_points_max, config.state.series_max
        vitals.config_error, vitals.config_reloaded_ms = "", clock.now_ms()
        event(log, logging.INFO, "reloaded")
        warn(config, self._config_paths)
        return True

    def _failed(self, error: str) -> None:
        self._outside.vitals.config_error = redact(error)
        event(log, logging.ERROR, "reload_failed", err=error, kept="the settings before")

    def _check_fixed(self, config: Config) -> None:
        """What is open for as long as the process lives cannot be another one. Raises ConfigError."""
        pairs = [
            ("state.path", self.config.state.path, config.state.path),
            ("health.listen", self.config.health.listen, config.health.listen),
        ]
        for key, old, new in pairs:
            if old != new:
                raise ConfigError(
                    f"{key}: {new} cannot take the place of {old} while running; restart the worker"
                )

    async def _try(self, config: Config) -> None:
        """Everything that a start would find wrong. Raises ConfigError and ApiError."""
        _ = policy_of(config)
        require_training(config)
        async with client_of(config) as client:
            await Reader(client, SeriesTable(), PollParams()).check()
            await retried(client.check_write)
