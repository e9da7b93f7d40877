"""A learned detector over a stream of rows: it collects, is fitted, scores, and is fitted again.

Scoring never waits for a fit but for the first: the model in use stays until its successor is there and has
passed the gate, and takes its place between two rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import rooms
from plexus_detect.errors import ConfigError, FitError, ModelError
from plexus_detect.learn.features import FeatureParams, Features
from plexus_detect.learn.fitted import Fitted
from plexus_detect.learn.gate import refusal
from plexus_detect.learn.job import Job, Ticket, Trainer
from plexus_detect.learn.model import Arrays, Model, array_json, json_array
from plexus_detect.learn.pace import Pace
from plexus_detect.learn.rows import aligned
from plexus_detect.learn.window import Window
from plexus_detect.series import F64, I64, Bool

# After so many refusals in a row the data has moved for good, and the next model is taken as it is.
PATIENCE = 3

# More metrics than this are no group that moves together, and a fit of them takes too long.
METRICS_MAX = 256

# After a first fit that failed the next is tried this many rows later, then twice as many, and so on.
RETRY_ROWS = 10

Status = Literal["collecting", "ready", "retraining"]


@dataclass(frozen=True)
class LearnParams:
    """How a detector learns; every count is of rows.

    With ``handover`` a new model takes over exactly so many rows after the row that asked for it, waiting
    for it then if it must, so that scores do not depend on how fast a machine is; without, as soon as it is
    there.
    A model that is ``given`` is not fitted: its line is measured on the rows, again and again. Rows with a
    score from ``blame_from`` on get the shares of their metrics. For ``learn_every_ms`` and
    ``ready_after_ms`` see ``Pace``.
    Raises ConfigError for a window that can never hold ``min_samples``.
    """

    backend: str = "ecod"
    min_samples: int = 50
    retrain_interval: int = 100
    window_size: int = 1000
    contamination: float = 0.1
    rolling: tuple[int, ...] = ()
    lags: tuple[int, ...] = ()
    seed: int = 42
    handover: int | None = None
    given: Model | None = None
    blame_from: float = 1.0
    learn_every_ms: int = 0
    ready_after_ms: int = 0

    def __post_init__(self) -> None:
        if self.min_samples > self.window_size:
            raise ConfigError(
                f"min_samples {self.min_samples} is more than window_size {self.window_size} holds; "
                "make the window larger"
            )

    @property
    def features(self) -> FeatureParams:
        """The features that rows become."""
        return FeatureParams(self.rolling, self.lags)


@dataclass(frozen=True)
class Judged:
    """Of m rows: ``ratio`` 1.0 at the line and ``raw`` in the backend's unit (NaN while there is no model),
    how many rows were missing ``until_ready``, the ``version`` of the model (0: none), all (m,); ``shares``,
    (m, k), the part of each metric in the score of rows beyond the line, NaN for all others."""

    ratio: F64
    raw: F64
    until_ready: I64
    version: I64
    shares: F64


class _Pending(NamedTuple):
    """A fit that is under way, and how many rows had been seen when it was asked for."""

    job: Job
    ticket: Ticket
    at: int


class Learner:
    """One model and the window it is learned from, for one or more feeds of rows.

    Metrics are matched by name; new ones join at the next fit. ``collected`` rows are in the window,
    ``processed`` have come, ``since_retrain`` since the last fit was asked for. ``error`` says why the last
    fit failed or was refused.
    """

    def __init__(self, params: LearnParams, trainer: Trainer) -> None:
        self.params = params
        self.trainer = trainer
        self.reset()

    def reset(self) -> None:
        """Begin anew: no rows, no model, version 0."""
        self.names: tuple[str, ...] = ()
        self.features = Features(0, self.params.features)
        self.window = Window(self.params.window_size, 0)
        self.fitted: Fitted | None = None
        self.previous: Fitted | None = None
        self.version = self.processed = self.seen = self.since_retrain = 0
        self.failures = self.refusals = self.fits = 0
        self.error: str | None = None
        self._pending: _Pending | None = None
        self._next_try = self.params.min_samples
        self._columns: I64 = np.zeros(0, np.int64)
        self._pace = Pace(self.params.learn_every_ms, self.params.ready_after_ms)

    @property
    def status(self) -> Status:
        """What the detector is doing."""
        if self.fitted is None:
            return "collecting"
        return "retraining" if self._pending is not None else "ready"

    @property
    def collected(self) -> int:
        """Rows in the window."""
        return len(self.window)

    def waits(self, m: int) -> bool:
        """Whether a step of ``m`` rows may wait for a fit."""
        return self.fitted is None and self.seen + m >= self._next_try

    def step(self, x: F64, names: Sequence[str], feed: int = 0, t_ms: I64 | None = None) -> Judged:
        """Score rows x, (m, len(names)), NaN for what is missing, and learn them; ``feed`` says which stream
        they continue, ``t_ms`` their times. Raises ModelError for more than METRICS_MAX names in all."""
        rows = self._rows(x, names, feed)
        times = np.full(len(rows), -1, np.int64) if t_ms is None else t_ms
        usable: Bool = np.asarray(np.isfinite(rows[:, : len(self.names)]).any(axis=1))
        chosen, ripe = self._pace.chosen(feed, times, usable), self._pace.ripe_from(times)
        out = self._blank(len(rows))
        for part in self._parts(chosen, ripe):
            self._score(rows, part, out)
            self._learn(rows, chosen, part, out, times)
            self._ask(part, ripe)
        self._take_over()
        return out

    def _rows(self, x: F64, names: Sequence[str], feed: int) -> F64:
        """The features of rows, in the order of ``names`` of this detector, wider if there are new ones."""
        new = tuple(name for name in dict.fromkeys(names) if name not in self.names)
        if len(self.names) + len(new) > METRICS_MAX:
            known = len(self.names) + len(new)
            raise ModelError(
                f"a learned detector takes {METRICS_MAX} metrics at most, not {known}; divide them"
            )
        if new:
            self._widen(self.names + new)
        self.features.grow(feed + 1)
        return self.features.full(feed, aligned(x, names, self.names))

    def _widen(self, names: tuple[str, ...]) -> None:
        params = self.params.features
        self.window.widen(_places(self.names, names, params), params.width(len(names)))
        self.features.widen(len(names))
        self.names = names
        self._match()

    def _match(self) -> None:
        """Where the features of the model in use are among those of the rows."""
        if self.fitted is not None:
            self._columns = _places(self.fitted.names, self.names, self.params.features)

    def _blank(self, m: int) -> Judged:
        (ratio, raw), (until, version) = np.full((2, m), np.nan), np.zeros((2, m), np.int64)
        return Judged(ratio, raw, until, version, np.full((m, len(self.names)), np.nan))

    def _parts(self, chosen: Bool, ripe: int) -> Iterator[slice]:
        """Stretches of rows between which a model is asked for or taken over; first from ``ripe`` on."""
        counted, at = np.cumsum(chosen), 0
        while at < len(chosen):
            self._take_over()
            before = int(counted[at - 1]) if at else 0
            end = int(np.searchsorted(counted, before + max(1, self._rows_left()))) + 1
            if self.fitted is None and self._pending is None:
                end = max(end, ripe + 1)
            end = min(end, len(chosen))
            yield slice(at, end)
            at = end

    def _rows_left(self) -> int:
        """How many rows may be learned until something is due."""
        if self._pending is not None:
            # Without a handover a batch would end before the fit: it looks again every so many rows.
            k = self.params.handover
            return self.params.retrain_interval if k is None else self._pending.at + k - self.seen
        if self.fitted is None:
            return self._next_try - self.seen
        return self.params.retrain_interval - self.since_retrain

    def _score(self, rows: F64, part: slice, out: Judged) -> None:
        """Score rows with the model in use, if there is one."""
        model = self.fitted
        if model is None:
            return
        mine = rows[part][:, self._columns]
        out.version[part] = self.version
        at = np.array([self.names.index(name) for name in model.names], np.int64)
        # A model that learns online must see rows one after another, whatever the size of a call.
        for piece in _singles(part) if model.online else (part,):
            x = mine[piece.start - part.start : piece.stop - part.start]
            out.ratio[piece], out.raw[piece] = model.score(x)
            blamed = np.flatnonzero(out.ratio[piece] > self.params.blame_from)
            out.shares[piece.start + blamed] = 0.0
            for row in blamed.tolist():
                out.shares[piece.start + row, at] = model.blame(x[row])
            if model.online and not (out.ratio[piece] > 1.0).any():
                model.learn(x[np.isfinite(out.ratio[piece])])

    def _learn(self, rows: F64, chosen: Bool, part: slice, out: Judged, times: I64) -> None:
        """Put rows into the window and count them."""
        mine = chosen[part]
        n = int(mine.sum())
        if self.fitted is None:
            out.until_ready[part] = np.maximum(self._next_try - self.seen - np.cumsum(mine), 0)
        self.window.push(rows[part][mine], out.ratio[part][mine], times[part][mine])
        self.processed += part.stop - part.start
        self.seen += n
        self.since_retrain += n

    # -- fitting

    def _ask(self, part: slice, ripe: int) -> None:
        """Ask for a fit when one is due after these rows."""
        cold = self.fitted is None
        if cold and part.stop <= ripe:
            return
        due = self.seen >= self._next_try if cold else self.since_retrain >= self.params.retrain_interval
        if not due or self._pending is not None:
            return
        x, flagged, learned_ms = self.window.rows()
        span = (int(learned_ms.min()), int(learned_ms.max()))
        job = self._job(self.names, x, flagged, span)
        self._pending = _Pending(job, self.trainer.submit(job), self.seen)
        self.since_retrain = 0
        if cold and not self.params.handover:
            self._settle(self._pending)

    def _job(self, names: tuple[str, ...], x: F64, flagged: F64, span_ms: tuple[int, int]) -> Job:
        """A fit to these rows. The model in use is compared with its successor where that is fitted; one that
        goes on learning is another then, and is compared when it is time."""
        p, old = self.params, self.fitted
        asked = p.backend, names, p.features, x, flagged, p.contamination, p.seed, span_ms, p.given
        return Job(*asked, None if old is None or old.online else old)

    def _take_over(self) -> None:
        """Take the model that was asked for, if it is time."""
        pending, k = self._pending, self.params.handover
        if pending is not None and (pending.ticket.done() if k is None else self.seen >= pending.at + k):
            self._settle(pending)

    def _settle(self, pending: _Pending) -> None:
        """Put the new model in the place of the old one, or say why not."""
        self._pending = None
        try:
            fit = pending.ticket.result()
        except FitError as error:
            self.error = str(error)
            self.failures += 1
            self._next_try = self.seen + RETRY_ROWS * 2 ** min(self.failures - 1, 10)
            return
        self.fits += 1
        refused = fit.refused
        if self.fitted is not None and self.fitted is not pending.job.old:
            refused = refusal(self.fitted, fit.fitted, pending.job.x[fit.held])
        if refused is not None and self.refusals < PATIENCE:
            self.error = f"the model fitted at row {pending.at} was not taken: {refused}"
            self.refusals += 1
            return
        self.take(fit.fitted)

    def take(self, fitted: Fitted) -> None:
        """Use this model from the next row on; a fit under way is forgotten.

        Raises ModelError when it was made from other features.
        """
        if fitted.features != self.params.features:
            raise ModelError(
                f"the model was made with rolling {list(fitted.features.rolling)} and lags "
                f"{list(fitted.features.lags)}, not {list(self.params.rolling)} and {list(self.params.lags)}"
            )
        new = tuple(name for name in fitted.names if name not in self.names)
        if new:
            self._widen(self.names + new)
        self._pending = None
        self.previous = self.fitted
        self.version += 1
        self.fitted = replace(fitted, card=replace(fitted.card, version=self.version))
        self.error, self.failures, self.refusals = None, 0, 0
        self._match()

    def roll_back(self) -> bool:
        """Use the model before this one again, under a version of its own; False if there is none."""
        if self.previous is None:
            return False
        self.take(self.previous)
        return True

    # -- saving and loading

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as named arrays."""
        about = {
            "names": self.names,
            "pending": None if self._pending is None else [self._pending.at, *self._pending.job.span_ms],
            "pending_names": None if self._pending is None else self._pending.job.names,
            "pace": self._pace.dump(),
            **{name: getattr(self, name) for name in _COUNTS},
        }
        out: dict[str, npt.NDArray[np.generic]] = {"about": json_array(about)}
        parts = {"features": self.features.save(), "window": self.window.dump()}
        for name, model in (("fitted", self.fitted), ("previous", self.previous)):
            if model is not None:
                parts[name] = model.arrays()
        if self._pending is not None:
            parts["job"] = {"x": self._pending.job.x, "flagged": self._pending.job.flagged}
        return out | {f"{room}.{name}": a for room, arrays in parts.items() for name, a in arrays.items()}

    def load(self, arrays: Arrays) -> None:
        """Take over what ``dump`` gave under the same parameters; a fit under way is asked for again.

        Raises ModelError when a model among it cannot be used.
        """
        self.reset()
        about = array_json(arrays["about"])
        saved = rooms(arrays)
        self._widen(tuple(about["names"]))
        self._pace.load(about["pace"])
        for name in _COUNTS:
            setattr(self, name, about[name])
        self.features.restore(saved["features"])
        self.window.load(saved["window"])
        self.fitted, self.previous = (
            Fitted.of(saved[name]) if name in saved else None for name in ("fitted", "previous")
        )
        self._match()
        if about["pending"] is not None:
            at, *span = about["pending"]
            x, flagged = (np.asarray(saved["job"][name], np.float64) for name in ("x", "flagged"))
            job = self._job(tuple(about["pending_names"]), x, flagged, (span[0], span[1]))
            self._pending = _Pending(job, self.trainer.submit(job), at)


_COUNTS = (
    "version",
    "processed",
    "seen",
    "since_retrain",
    "failures",
    "refusals",
    "fits",
    "error",
    "_next_try",
)


def _places(mine: Sequence[str], names: Sequence[str], params: FeatureParams) -> I64:
    """Where the features of the metrics ``mine`` are among those of all ``names``: by the metric, as a metric
    may well have the name of another's feature."""
    metric = np.array([names.index(name) for name in mine], np.int64)
    made = len(names) + metric[:, None] * params.each + np.arange(params.each)
    return np.concatenate([metric, made.ravel()])


def _singles(part: slice) -> Iterator[slice]:
    return (slice(i, i + 1) for i in range(part.start, part.stop))
