"""Where fits happen: in a process of their own, so that scoring goes on, or in place."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from plexus_detect import clock
from plexus_detect.errors import ConfigError, FitError
from plexus_detect.histogram import Histogram
from plexus_detect.learn.job import Fit, Job

T = TypeVar("T")

# How long a fit may take before it is given up.
FIT_S_MAX = 300.0

# From asking for a fit to its end, seconds.
FIT_BOUNDS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

# Fits give way to scoring: see nice(2).
NICE = 10

# A fit of small matrices gains nothing from threads, and they would take the processor from scoring.
_THREADS = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1"
)


def require() -> None:
    """Raise ConfigError when what fits is not installed."""
    import importlib.util

    missing = [name for name in ("pyod", "sklearn") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"learned detectors need {' and '.join(missing)}; "
            "install it with: pip install 'plexus-detect[learn]'"
        )


def fit_job(job: Job) -> Fit:
    """Fit a job; whatever goes wrong in it is a FitError with a sentence."""
    from plexus_detect.training.fit import fit

    try:
        return fit(job)
    except FitError:
        raise
    except Exception as error:
        # A backend may raise anything for data it does not like; the model in use stays.
        text = str(error).splitlines()[0] if str(error) else "no message"
        raise FitError(f"{job.backend} could not be fitted: {type(error).__name__}: {text}") from error


def fit_meanwhile(job: Job) -> Fit:
    """As ``fit_job``, but a model that has a predecessor is fitted when no other program wants the processor:
    even a program of lowest priority would keep one that is waked waiting for milliseconds (see sched(7))."""
    if job.old is None:
        return fit_job(job)
    with ThreadPoolExecutor(1, initializer=_yield_to_all) as thread:
        return thread.submit(fit_job, job).result()


def _yield_to_all() -> None:
    """In a thread: a way back needs privileges, and first fits must not be kept from the processor."""
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


class InlineTicket:
    """A fit that is made when its result is asked for."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._fit: Fit | None = None

    def done(self) -> bool:
        """It never has to be waited for."""
        return True

    def result(self) -> Fit:
        """The fit, made now. Raises FitError."""
        if self._fit is None:
            self._fit = fit_job(self._job)
        return self._fit


class InlineTrainer:
    """Fits in place: for backtests and commands that have nothing else to do."""

    def submit(self, job: Job) -> InlineTicket:
        """Ask for a fit."""
        return InlineTicket(job)

    def close(self) -> None:
        """There is nothing to end."""


class ProcessTicket:
    """A fit in another process."""

    def __init__(self, future: Future[Fit], pool: ProcessPoolExecutor, trainer: ProcessTrainer) -> None:
        self._future, self._pool, self._trainer = future, pool, trainer
        self._begun_s: float | None = None

    def done(self) -> bool:
        """Whether the fit has ended, or has been seen to run for longer than it may."""
        if self._begun_s is None and self._future.running():
            self._begun_s = clock.monotonic_s()
        return self._future.done() or self._left_s() <= 0.0

    def _left_s(self) -> float:
        begun = self._begun_s
        return FIT_S_MAX if begun is None else begun + FIT_S_MAX - clock.monotonic_s()

    def result(self) -> Fit:
        """The fit; waits for it, FIT_S_MAX at most. Raises FitError."""
        try:
            return self._future.result(max(0.0, self._left_s()))
        except TimeoutError:
            self._trainer.restart(self._pool)
            raise FitError(f"the fit took longer than {FIT_S_MAX:.0f} s and was given up") from None
        except (BrokenProcessPool, CancelledError):
            self._trainer.restart(self._pool)
            raise FitError("the process that fits ended; it was started again") from None


class ProcessTrainer:
    """Fits in one process of low priority, one after another; ``close`` ends it.

    The process is started with the first fit, or by ``warm``, and not forked from a process with threads.
    Fits for which nobody waits are made ``meanwhile``, with the time that all other programs leave: on a busy
    machine that may be little.
    """

    def __init__(self, *, meanwhile: bool = False) -> None:
        self._fit = fit_meanwhile if meanwhile else fit_job
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self.fits = Histogram(FIT_BOUNDS_S)

    def submit(self, job: Job) -> ProcessTicket:
        """Ask for a fit; returns at once. ``fits`` counts how long each took from here, failed ones too."""
        began_s = clock.monotonic_s()
        future, pool = self._submit(self._fit, job)
        future.add_done_callback(lambda _: self.fits.add(clock.monotonic_s() - began_s))
        return ProcessTicket(future, pool, self)

    def call(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """Run a function of a module there, after the fits that were asked for before."""
        return self._submit(function, *arguments)[0]

    def warm(self) -> None:
        """Start the process and load what fits there, so that the first fit does not wait for that."""
        self.call(_load)

    def _submit(
        self, function: Callable[..., T], *arguments: object
    ) -> tuple[Future[T], ProcessPoolExecutor]:
        with self._lock:
            try:
                pool = self._running()
                return pool.submit(function, *arguments), pool
            except BrokenProcessPool:
                self._pool = None
                pool = self._running()
                return pool.submit(function, *arguments), pool

    def _running(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            held = {name: os.environ.get(name) for name in _THREADS}
            os.environ.update(_THREADS)
            try:
                self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_be_nice)
                # The process starts with its first task, and takes the environment as it is then.
                self._pool.submit(os.getpid)
            finally:
                for name, value in held.items():
                    os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        return self._pool

    def restart(self, pool: ProcessPoolExecutor | None = None) -> None:
        """End the process whatever it does; the next fit starts another. With ``pool`` only its process: many
        fits may learn of the end of one, and must not each end the next one's."""
        with self._lock:
            pool = pool or self._pool
            if pool is self._pool:
                self._pool = None
        if pool is not None:
            _end(pool)

    def close(self) -> None:
        """End the process; fits that wait are cancelled."""
        self.restart()


def _end(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())  # noqa: SLF001 - the executor has no way to kill
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def _be_nice() -> None:
    """In the process that fits: give way, and leave signals of the terminal to the parent."""
    import signal

    os.nice(NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that is killed tells nobody: its process that fits would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _load() -> None:
    """Import what the default fit needs."""
    from pyod.models.ecod import ECOD

    import plexus_detect.training.fit

    _ = plexus_detect.training.fit, ECOD
