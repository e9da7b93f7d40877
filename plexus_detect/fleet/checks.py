"""What can be odd about a device's difference from its peers: five measures, each at least 0.

jump   distance from the mean of the last few, in mean distances (spikes, steps)
level  mean of half an hour, 30 points at most, in its usual magnitude (steps, ramps)
drift  mean of two hours likewise; a longer mean counts as far as the shorter one agrees: what is over is over
noise  mean step of the last few against the usual one
stuck  how surprising a run of equal values is: its length x -log of the usual share of repeats

Means are exponentially weighted, their time constants are durations, at least a few points of the source.
Scales learn slowly, from clipped values (Huber, Annals of Mathematical Statistics 35, 1964) of points that
are not suspected, so that an anomaly does not become its own measure. Exponentially weighted means as control
charts: Roberts, Technometrics 1, 1959.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np

from plexus_detect.columns import Column, Columns
from plexus_detect.series import F64, Bool, Reason, Rows

JUMP, LEVEL, DRIFT, NOISE, STUCK = range(5)
N_CHECKS = 5
REASONS = np.array([Reason.FLEET, Reason.FLEET, Reason.DRIFT, Reason.NOISE, Reason.STUCK], np.int8)

# Below these a measure is nothing, however quiet the past was.
FLOORS = np.array([4.0, 3.0, 2.5, 1.3, 8.0])

# No measure above this: it keeps everything finite.
MEASURE_MAX = 1e9

_QUICK_MS, _LEVEL_MS, _DRIFT_MS, _SCALE_MS = 600_000.0, 1_800_000.0, 7_200_000.0, 36 * 3_600_000.0
_QUICK_POINTS, _LEVEL_POINTS, _MEAN_POINTS = 8.0, 30.0, 3.0

# How many points the scales take as they are before they clip.
_EARLY, _YOUNG = 10, 30

_REPEATS_MIN = 0.02


class Seen(NamedTuple):
    """A point of each of several rows: the value, the one before, the difference from what the peers say,
    whether it is one to measure, and to learn scales from; of the rows how many points they have, their
    cadence, and the least scale."""

    x: F64
    before: F64
    residual: F64
    ok: Bool
    learn: Bool
    n: F64
    cadence_ms: F64
    floor: F64


def rate(ms: float | F64, seen: Seen, points_min: float) -> F64:
    """Weight of a new point in an exponentially weighted mean over ``ms``, or ``points_min`` points."""
    weight: F64 = 1.0 / (1.0 + np.maximum(ms / seen.cadence_ms, points_min))
    return weight


def scale_rate(seen: Seen) -> F64:
    """Weight of a new point in a scale: a plain mean at first."""
    return np.maximum(rate(_SCALE_MS, seen, _EARLY), 1.0 / (seen.n + 2.0))


class Checks(Columns):
    """The five measures of a bank of sources; ``spread`` is the mean magnitude of the residual."""

    quick: F64
    jump_scale: F64
    level: F64
    level_scale: F64
    drift: F64
    drift_scale: F64
    last: F64
    rough: F64
    rough_scale: F64
    run: F64
    repeats: F64
    spread: F64

    COLUMNS: ClassVar = {
        **{name: Column() for name in ("quick", "jump_scale", "level", "level_scale", "drift")},
        **{name: Column() for name in ("drift_scale", "last", "rough", "rough_scale", "run")},
        "repeats": Column(0.5),
        "spread": Column(),
    }

    def measure(self, rows: Rows, seen: Seen) -> F64:
        """The measures (m, 5) of a point of each of m distinct rows, which are then learned."""
        out = np.empty((len(seen.x), N_CHECKS))
        slow = scale_rate(seen)
        out[:, JUMP] = self._jump(rows, seen, slow)
        out[:, LEVEL], out[:, DRIFT] = self._means(rows, seen, slow)
        out[:, NOISE] = self._noise(rows, seen, slow)
        out[:, STUCK] = self._stuck(rows, seen, slow)
        self._learn(rows, "spread", np.abs(seen.residual), 3.0, (seen, slow, _EARLY))
        np.minimum(out, MEASURE_MAX, out=out)
        out[~seen.ok] = 0.0
        return out

    def _learn(self, rows: Rows, name: str, size: F64, clip: float, by: tuple[Seen, F64, int]) -> None:
        """Move a scale towards ``size``, clipped at ``clip`` times itself but for the first points."""
        seen, slow, early = by
        column: F64 = getattr(self, name)
        was = column[rows]
        clipped = np.where(seen.n < early, size, np.minimum(size, clip * was))
        column[rows] = np.where(seen.learn, was + slow * (clipped - was), was)

    def _jump(self, rows: Rows, seen: Seen, slow: F64) -> F64:
        quick = self.quick[rows]
        size = np.abs(seen.residual - quick)
        measure: F64 = size / np.maximum(self.jump_scale[rows], seen.floor)
        self._learn(rows, "jump_scale", size, 5.0, (seen, slow, _EARLY))
        weight = 1.0 / (1.0 + np.minimum(_QUICK_MS / seen.cadence_ms, _QUICK_POINTS))
        self.quick[rows] = np.where(seen.ok, quick + weight * (seen.residual - quick), quick)
        return measure

    def _means(self, rows: Rows, seen: Seen, slow: F64) -> tuple[F64, F64]:
        bound = np.where(seen.n < _EARLY, np.inf, 30.0 * np.maximum(self.spread[rows], seen.floor))
        clipped = np.minimum(np.maximum(seen.residual, -bound), bound)
        first, shorter = 1.0 / (seen.n + 1.0), self.quick[rows]
        measures: list[F64] = []
        half_hour = np.minimum(_LEVEL_MS, _LEVEL_POINTS * seen.cadence_ms)
        for name, ms in (("level", half_hour), ("drift", _DRIFT_MS)):
            mean: F64 = getattr(self, name)[rows]
            moved = mean + np.maximum(rate(ms, seen, _MEAN_POINTS), first) * (clipped - mean)
            mean = np.where(seen.ok, moved, mean)
            getattr(self, name)[rows] = mean
            size = np.abs(mean)
            agreed = np.where(mean * shorter > 0.0, np.minimum(size, np.abs(shorter)), 0.0)
            scale: F64 = getattr(self, name + "_scale")[rows]
            measures.append(agreed / np.maximum(scale, seen.floor))
            self._learn(rows, name + "_scale", size, 3.0, (seen, slow, _YOUNG))
            shorter = mean
        return measures[0], measures[1]

    def _noise(self, rows: Rows, seen: Seen, slow: F64) -> F64:
        last, usual, rough = self.last[rows], self.rough_scale[rows], self.rough[rows]
        step = np.abs(seen.residual - last)
        self.last[rows] = np.where(seen.ok, seen.residual, last)
        clipped = np.where(seen.n < _EARLY, step, np.minimum(step, 12.0 * np.maximum(usual, seen.floor)))
        weight = 1.0 / (1.0 + np.minimum(_QUICK_MS / seen.cadence_ms, _QUICK_POINTS))
        rough = np.where(seen.ok, rough + weight * (clipped - rough), rough)
        self.rough[rows] = rough
        measure: F64 = rough / np.maximum(usual, seen.floor)
        self._learn(rows, "rough_scale", step, 3.0, (seen, slow, _EARLY))
        return measure

    def _stuck(self, rows: Rows, seen: Seen, slow: F64) -> F64:
        same, usual = seen.x == seen.before, self.repeats[rows]
        run = np.where(seen.ok, np.where(same, self.run[rows] + 1.0, 0.0), self.run[rows])
        self.run[rows] = run
        share = np.minimum(np.maximum(usual, _REPEATS_MIN), 1.0 - 1.0 / (seen.n + 10.0))
        measure: F64 = run * -np.log(share)
        self.repeats[rows] = np.where(seen.learn, usual + slow * (same - usual), usual)
        return measure
