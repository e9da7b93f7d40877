"""What judges the rows of a group: a model learned from them, or one that was made elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import rooms
from plexus_detect.errors import ModelError
from plexus_detect.learn.job import Trainer
from plexus_detect.learn.model import Arrays
from plexus_detect.learn.rows import aligned
from plexus_detect.learn.stream import Judged, Learner, LearnParams
from plexus_detect.learn.windowed import Alarms, Windowed, WindowStream, step_together
from plexus_detect.series import F64, I64


class Judge(Protocol):
    """Rows in, scores out, for one or more feeds of rows; the same rows give the same bits, cut anyhow.

    ``error`` says why there is no newer model.
    """

    error: str | None

    def step(self, x: F64, names: Sequence[str], feed: int = 0, t_ms: I64 | None = None) -> Judged:
        """Score rows x, (m, len(names)), NaN for what is missing; see ``Learner.step``."""
        ...

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as named arrays."""
        ...

    def load(self, arrays: Arrays) -> None:
        """Take over what ``dump`` gave under the same parameters."""
        ...


class WindowJudge:
    """Autoencoders of windows as a judge: a stream for each feed. They are fitted elsewhere, and ``take``
    puts new ones in their place."""

    error: str | None = None

    def __init__(self, windowed: Windowed, blame_from: float = 1.0) -> None:
        self.windowed = windowed
        self.blame_from = blame_from
        self.streams: list[WindowStream] = []

    def step(self, x: F64, names: Sequence[str], feed: int = 0, t_ms: I64 | None = None) -> Judged:
        """Score rows; ``raw`` is the ratio itself, and the first rows are without a score until a window is
        full."""
        times = np.arange(len(x)) if t_ms is None else t_ms
        return self._judged(self.stream(feed).step(aligned(x, names, self.windowed.names), times), names)

    def stream(self, feed: int) -> WindowStream:
        """The stream of a feed."""
        while len(self.streams) <= feed:
            self.streams.append(self.windowed.stream())
        return self.streams[feed]

    def _judged(self, alarms: Alarms, names: Sequence[str]) -> Judged:
        m, known = len(alarms.ratio), self.windowed.names
        beyond = (alarms.ratio > self.blame_from)[:, None]
        shares = aligned(np.where(beyond, alarms.shares, np.nan), known, names)
        return Judged(alarms.ratio, alarms.ratio, np.zeros(m, np.int64), np.ones(m, np.int64), shares)

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state of every stream."""
        return {f"{i}.{name}": a for i, one in enumerate(self.streams) for name, a in one.dump().items()}

    def take(self, windowed: Windowed) -> None:
        """Use these from the next row on; what the streams have seen stays. Raises ModelError for those of
        other sensors."""
        if windowed.names != self.windowed.names:
            raise ModelError(f"the windowed model was made for the sensors {windowed.names}")
        seen, self.windowed = [one.dump() for one in self.streams], windowed
        self.streams = [windowed.stream() for _ in seen]
        for one, state in zip(self.streams, seen, strict=True):
            one.load(state)

    def load(self, arrays: Arrays) -> None:
        """Take over what ``dump`` gave. Raises ModelError for the state of a model of other sensors."""
        parts = rooms(arrays)
        self.streams = [self.windowed.stream() for _ in parts]
        for i, one in enumerate(self.streams):
            one.load(parts[str(i)])


def judge_together(
    of: Sequence[tuple[Judge, int]], xs: Sequence[F64], times: Sequence[I64], names: Sequence[str]
) -> list[Judged]:
    """What each judge says of the rows of its feed, as its ``step`` would: windows are judged in one go, as
    their judges have one model."""
    windowed = [(judge, feed) for judge, feed in of if isinstance(judge, WindowJudge)]
    if len(windowed) < len(of):
        return [judge.step(x, names, feed, t) for (judge, feed), x, t in zip(of, xs, times, strict=True)]
    streams = [judge.stream(feed) for judge, feed in windowed]
    known = [aligned(x, names, judge.windowed.names) for (judge, _), x in zip(windowed, xs, strict=True)]
    said = step_together(streams, known, times)
    return [judge._judged(alarms, names) for (judge, _), alarms in zip(windowed, said, strict=True)]  # noqa: SLF001


def judge_of(params: LearnParams, trainer: Trainer, windowed: Windowed | None = None) -> Judge:
    """The judge that these parameters ask for."""
    return Learner(params, trainer) if windowed is None else WindowJudge(windowed, params.blame_from)
