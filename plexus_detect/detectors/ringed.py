"""A guarded baseline of the newest points: ``window`` of them, or as many as a duration holds.

How many that is is found once the first ``min_points`` points of a series are known, and again, from the
newest so many, when a level is relearned: the duration divided by their median interval, at least
``min_points`` and at most ``window`` points. With a median, up to half of the intervals may be those of lost
points, outages or a clock that jumped. A cadence that changes by itself changes nothing before relearning.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from plexus_detect.detectors.base import DetectorParams, Receipt
from plexus_detect.detectors.baseline import A, Ring
from plexus_detect.detectors.guarded import Guarded, Run
from plexus_detect.series import F64, I64, Points, Scores
from plexus_detect.stats import usable


class Ringed(Guarded[A]):
    """See the module's text."""

    def __init__(self, params: DetectorParams, rings: Ring[A]) -> None:
        super().__init__(params, rings)
        self.rings = rings
        # The times of the newest known points, and how many there were. Without a duration, or with a single
        # point, which has no interval, none are kept.
        self.n_times = 0 if params.window_ms is None or params.min_points < 2 else params.min_points
        self.times_ms = np.zeros((0, self.n_times), np.int64)
        self.timed = np.zeros(0, np.int64)

    def receipt(self, points: Points) -> Receipt:
        """What the score of one point is made from; see ``Detector``."""
        return super().receipt(points)._replace(window=int(self.rings.limit[points.series[0]]))

    def _step(self, points: Points, at: I64) -> Scores:
        if self.n_times:
            known = usable(points.value) & ~points.late
            rows = points.series[known]
            count = self.timed[rows]
            self.times_ms[rows, count % self.n_times] = points.t_ms[known]
            self.timed[rows] = count + 1
            scores = super()._step(points, at)
            self._measure(rows[count + 1 == self.n_times])
            return scores
        return super()._step(points, at)

    def _stretch(self, points: Points, run: Run, most: int) -> int:
        # What is looked at ahead ends where the length of the ring is found.
        if self.n_times and self.timed[run.row] < self.n_times:
            most = min(most, self.n_times - int(self.timed[run.row]))
        return super()._stretch(points, run, most)

    def _give(self, run: Run, scores: Scores, resolution: F64, end: int, m: int) -> None:
        super()._give(run, scores, resolution, end, m)
        if self.n_times:
            row, count = run.row, int(self.timed[run.row])
            newest = np.flatnonzero(run.known)[max(0, m - self.n_times) : m]
            place = count + m - len(newest) + np.arange(len(newest))
            self.times_ms[row, place % self.n_times] = run.t_ms[newest]
            self.timed[row] = count + m
            if count < self.n_times <= count + m:
                self._measure(np.array([row]))

    def _relearn(self, rows: I64, at: I64) -> None:
        super()._relearn(rows, at)
        if self.n_times:
            self._measure(rows)

    def _measure(self, rows: I64) -> None:
        """Find how many points the rings of these rows hold."""
        if len(rows) == 0 or self.params.window_ms is None:
            return
        order = (self.timed[rows, None] + np.arange(self.n_times)) % self.n_times
        intervals = np.diff(np.take_along_axis(self.times_ms[rows], order, axis=1), axis=1)
        # Points of one time, or a clock that runs backwards, have as many points in any duration.
        points = np.round(self.params.window_ms / np.maximum(np.median(intervals, axis=1), 0.0))
        limit = np.minimum(np.maximum(points, self.n_times), self.params.window)
        self.rings.resize(rows, limit.astype(np.int64))

    def _columns(self) -> dict[str, npt.NDArray[np.generic]]:
        own = {"times_ms": self.times_ms, "timed": self.timed}
        return super()._columns() | (own if self.n_times else {})
