"""Seeded rows of metrics for the tests of learned detectors, and trainers that do what a test says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from plexus_detect.errors import FitError
from plexus_detect.learn.features import FeatureParams
from plexus_detect.learn.fitted import Fitted
from plexus_detect.learn.job import Fit, Job
from plexus_detect.learn.stream import Judged, Learner, LearnParams
from plexus_detect.series import F64, Bool
from plexus_detect.training.trainer import InlineTrainer, fit_job

MOTOR = ("vibration", "current", "temperature")


def climate(seed: int, n: int, share: float = 0.02) -> tuple[F64, Bool]:
    """(n, 3) temperature 72, humidity 45 and pressure 1013, a share of the temperatures set to 50 or 95; and
    which, (n,)."""
    rng = np.random.default_rng(seed)
    x = np.array([72.0, 45.0, 1013.0]) + np.array([2.0, 3.0, 2.0]) * rng.standard_normal((n, 3))
    bad = rng.random(n) < share
    x[bad, 0] = rng.choice([50.0, 95.0], int(bad.sum()))
    return x, bad


def motor(seed: int, n: int, share: float = 0.0) -> tuple[F64, Bool]:
    """(n, 3) metrics that follow one load; for a share of the rows the current goes against it, within its
    own range; and which, (n,)."""
    rng = np.random.default_rng(seed)
    load = rng.standard_normal(n)
    own = rng.standard_normal((n, 3))
    x = np.array([5.0, 20.0, 60.0]) + np.array([1.0, 4.0, 3.0]) * (load[:, None] + 0.1 * own)
    broken = rng.random(n) < share
    x[broken, 1] = 20.0 - 4.0 * np.sign(load[broken]) * (np.abs(load[broken]) + 1.0)
    return x, broken


def job(backend: str, x: F64, contamination: float = 0.05, names: tuple[str, ...] | None = None) -> Job:
    """A job without features, rows or flags of its own."""
    names = names or tuple("abcdefgh"[: x.shape[1]])
    return Job(backend, names, FeatureParams(), x, np.full(len(x), np.nan), contamination, 42)


def learner(trainer: object = None, **params: object) -> Learner:
    """A detector of short windows with an inline trainer; ``params`` are those of LearnParams."""
    short = {"min_samples": 50, "retrain_interval": 40, "window_size": 120, "handover": 0}
    return Learner(LearnParams(**{**short, **params}), trainer or InlineTrainer())  # type: ignore[arg-type]


class RememberingTrainer:
    """Fits in place, but each job only once: detectors of one test ask for the same fits again and again.

    A model is given out as a copy, as an online one goes on learning.
    """

    def __init__(self) -> None:
        self._fits: dict[bytes, tuple[dict[str, np.ndarray], Fit]] = {}

    def submit(self, asked: Job) -> RememberedTicket:
        """A ticket for a fit made now, or before."""
        key = repr((asked.backend, asked.names, asked.features, asked.contamination, asked.span_ms)).encode()
        key += asked.x.tobytes() + asked.flagged.tobytes()
        key += b"" if asked.old is None else asked.old.card.data_hash.encode()
        if key not in self._fits:
            fit = fit_job(asked)
            self._fits[key] = fit.fitted.arrays(), fit
        return RememberedTicket(*self._fits[key])


class RememberedTicket:
    """A fit that is there."""

    def __init__(self, arrays: dict[str, np.ndarray], fit: Fit) -> None:
        self._arrays, self._fit = arrays, fit

    def done(self) -> bool:
        """It is."""
        return True

    def result(self) -> Fit:
        """A copy of it."""
        return replace(self._fit, fitted=Fitted.of(self._arrays))


def joined(parts: list[Judged]) -> dict[str, F64]:
    """The columns of several steps, one after another."""
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in Judged.__annotations__}


class HeldTicket:
    """A fit that is finished when the test says so."""

    def __init__(self, asked: Job) -> None:
        self.job = asked
        self.ready = False
        self.outcome: Callable[[Job], Fit] = fit_job

    def finish(self) -> None:
        """The fit is there."""
        self.ready = True

    def fail(self, sentence: str) -> None:
        """The fit has failed."""

        def failed(_: Job) -> Fit:
            raise FitError(sentence)

        self.outcome, self.ready = failed, True

    def done(self) -> bool:
        """Whether the test has said so."""
        return self.ready

    def result(self) -> Fit:
        """The fit, or what the test made of it."""
        return self.outcome(self.job)


class HeldTrainer:
    """A trainer whose fits finish on command; all that were asked for are in ``tickets``."""

    def __init__(self) -> None:
        self.tickets: list[HeldTicket] = []

    def submit(self, asked: Job) -> HeldTicket:
        """Remember what was asked for."""
        self.tickets.append(HeldTicket(asked))
        return self.tickets[-1]


class FailingTrainer:
    """A trainer whose every fit fails; it remembers how many rows each was asked with."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def submit(self, asked: Job) -> HeldTicket:
        """A ticket that has failed already."""
        self.rows.append(len(asked.x))
        ticket = HeldTicket(asked)
        ticket.fail("this backend takes no rows today")
        return ticket
