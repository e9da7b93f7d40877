"""What the routes share: the detectors, buffers and models of one server, and its life from start to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

from plexus_detect import clock
from plexus_detect.learn.job import Fit, Job, Ticket, Trainer
from plexus_detect.logs import event
from plexus_detect.serve.buffers import Buffers
from plexus_detect.serve.metrics import Metrics
from plexus_detect.serve.models import BatchModels
from plexus_detect.serve.registry import Registry
from plexus_detect.serve.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

# So many first fits may be waited for at once; more wait for their turn.
WAITING_MAX = 32


class Process(Trainer, Protocol):
    """A trainer that also runs other functions where it fits."""

    def call(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Run a function there."""
        ...

    def restart(self) -> None:
        """End whatever runs there."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Service:
    """``trainer`` fits the streaming detectors, ``batch`` the batch models: a long batch fit must not keep
    detectors from learning."""

    def __init__(self, settings: Settings, trainer: Process, batch: Process) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.trainer = _Timed(trainer, self.metrics)
        self.registry = Registry(settings, self.trainer)
        self.buffers = Buffers(settings)
        self.models = BatchModels(settings.state / "models" / "anomaly", batch)
        self._processes = (trainer, batch)
        self._threads = ThreadPoolExecutor(WAITING_MAX, "first-fit")
        self._saver: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Learn what was saved, and begin to save."""
        await asyncio.to_thread(self.registry.open)
        await asyncio.to_thread(self.buffers.open)
        self._saver = asyncio.create_task(self._save_for_ever())

    async def stop(self) -> None:
        """Save what has changed and end the processes."""
        if self._saver is not None:
            self._saver.cancel()
            await asyncio.gather(self._saver, return_exceptions=True)
        await self.registry.save()
        await self.buffers.save()
        for process in self._processes:
            process.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _save_for_ever(self) -> None:
        while True:
            await clock.sleep_s(self.settings.save_every_s)
            for work in (self.registry.save, self.registry.sweep, self.buffers.save, self.buffers.sweep):
                try:
                    await work()
                except Exception as error:  # a bug here must not end saving for ever
                    event(log, logging.ERROR, "save_failed", exc_info=error)

    async def waiting(self, function: Callable[..., T], *arguments: object) -> T:
        """Run what may wait for a fit, in a thread, to its end also when nobody waits any more."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def gauges(self) -> dict[str, float]:
        """How things stand now."""
        return {
            "detectors_live": len(self.registry.live),
            "detectors_on_disk": len(self.registry.stored),
            "detectors_memory_bytes": self.registry.size_bytes,
            "detector_writes_failed": self.registry.failed_writes,
            "buffers": len(self.buffers),
            "buffers_memory_bytes": self.buffers.size_bytes,
            "batch_models_live": len(self.models.live),
        }


class _Timed:
    """A trainer whose fits are timed until their result is taken."""

    def __init__(self, trainer: Trainer, metrics: Metrics) -> None:
        self._trainer = trainer
        self._metrics = metrics

    def submit(self, job: Job) -> Ticket:
        """Ask for a fit."""
        return _TimedTicket(self._trainer.submit(job), self._metrics)


class _TimedTicket:
    """The ticket of a timed fit."""

    def __init__(self, ticket: Ticket, metrics: Metrics) -> None:
        self._ticket = ticket
        self._metrics = metrics
        self._began_s = clock.monotonic_s()

    def done(self) -> bool:
        """Whether the fit has ended."""
        return self._ticket.done()

    def result(self) -> Fit:
        """The fit."""
        try:
            return self._ticket.result()
        finally:
            self._metrics.fit_s.add(clock.monotonic_s() - self._began_s)
