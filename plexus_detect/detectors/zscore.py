"""Rolling z-score whose baseline excludes the point itself and the points of a suspected anomaly.

z = (x - mean) / max(std, resolution, floor) over the last ``window`` accepted points; std is the
population deviation, resolution the smallest non-zero step the series has ever made. Keeping flagged
points out of the baseline is the guard of radar's CFAR detectors (Finn and Johnson, RCA Review 29,
1968): inside its own window |z| could never exceed sqrt(n - 1) (Shiffler, The American Statistician
42, 1988), which is why the public tutorial's formula cannot fire. The freeze ends when the series has
been inside for ``close_after`` points, or after ``relearn_ms`` when the new level becomes the baseline.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from plexus_detect.detectors.base import Columns, DetectorParams
from plexus_detect.series import F64, I64, Points, Scores, rounds
from plexus_detect.stats import Z_MAX, RingBank, grown, usable

# A step below this many parts of the value is rounding, not the sensor's resolution.
_ROUNDING = 8 * np.finfo(np.float64).eps


class ZScore:
    """The detector "zscore": see the module's text."""

    def __init__(self, params: DetectorParams) -> None:
        self.params = params
        self.baseline = RingBank(0, params.window)
        self.held = RingBank(0, params.min_points)
        self._relearned: list[I64] = []
        self._columns: dict[str, npt.NDArray[np.generic]] = {
            "last": np.zeros(0),
            "resolution": np.zeros(0),
            "outside": np.zeros(0, np.int64),
            "inside": np.zeros(0, np.int64),
            "since_ms": np.zeros(0, np.int64),
        }
        self._bind()

    def _bind(self) -> None:
        self.last: F64 = self._columns["last"]  # type: ignore[assignment]
        self.resolution: F64 = self._columns["resolution"]  # type: ignore[assignment]
        self.outside: I64 = self._columns["outside"]  # type: ignore[assignment]
        self.inside: I64 = self._columns["inside"]  # type: ignore[assignment]
        self.since_ms: I64 = self._columns["since_ms"]  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.baseline)

    def grow(self, n_series: int) -> None:
        """Room for ``n_series`` series."""
        self.baseline.grow(n_series)
        self.held.grow(n_series)
        fills = {"last": np.nan, "resolution": np.inf}
        for name, column in self._columns.items():
            self._columns[name] = grown(column, n_series, fills.get(name, 0))
        self._bind()

    def step(self, points: Points) -> Scores:
        """Scores of ``points``, which are then learned; see ``Detector``."""
        z = np.full(len(points), np.nan)
        centre, scale = z.copy(), z.copy()
        for at in rounds(points.series):
            z[at], centre[at], scale[at] = self._step(points.take(at))
        return Scores(z, centre, scale)

    def _step(self, points: Points) -> tuple[F64, F64, F64]:
        """One point a series."""
        rows, x = points.series, points.value
        ok = usable(x)
        known = ok & ~points.late
        self._measure_resolution(rows[known], x[known])
        deviation, centre, std = self.baseline.deviation(rows, x)
        resolution = self.resolution[rows]
        scale = np.maximum(std, np.where(np.isfinite(resolution), resolution, 0.0))
        np.maximum(scale, self.params.scale_floor, out=scale)
        # A series that never moved has no scale of its own: its first deviation is the unit.
        scale = np.where(scale > 0.0, scale, np.maximum(np.abs(deviation), np.finfo(np.float64).tiny))
        with np.errstate(invalid="ignore", over="ignore"):
            z = np.clip(deviation / scale, -Z_MAX, Z_MAX)
        ready = ok & (self.baseline.count[rows] >= self.params.min_points)
        z[~ready] = np.nan
        beyond = np.abs(z) > self.params.threshold
        self._learn(points, known, beyond)
        return z, centre, scale

    def _measure_resolution(self, rows: I64, x: F64) -> None:
        last = self.last[rows]
        step = np.abs(x - last)
        real = step > _ROUNDING * np.maximum(np.abs(x), np.abs(last))
        step = np.where(real, step, np.inf)
        self.resolution[rows] = np.minimum(self.resolution[rows], step)
        self.last[rows] = x

    def _learn(self, points: Points, known: npt.NDArray[np.bool_], beyond: npt.NDArray[np.bool_]) -> None:
        rows = points.series
        accept = known & ~beyond
        self.baseline.push(rows[accept], points.value[accept])
        suspected = self.outside[rows] > 0
        calm = rows[accept & suspected]
        if len(calm):
            self.inside[calm] += 1
            self.outside[calm[self.inside[calm] >= self.params.close_after]] = 0
        hold = known & beyond
        if hold.any():
            self._hold(rows[hold], points.t_ms[hold], points.value[hold])

    def _hold(self, rows: I64, t_ms: I64, x: F64) -> None:
        """Keep flagged points aside; when they have lasted long enough they are the new baseline."""
        first = rows[self.outside[rows] == 0]
        self.since_ms[first] = t_ms[self.outside[rows] == 0]
        self.held.clear(first)
        self.held.push(rows, x)
        self.outside[rows] += 1
        self.inside[rows] = 0
        lasting = t_ms - self.since_ms[rows] >= self.params.relearn_ms
        lasting &= self.outside[rows] >= self.params.min_points
        renewed = rows[lasting]
        if len(renewed):
            self.baseline.refill(renewed, self.held)
            self.outside[renewed] = 0
            self._relearned.append(renewed)

    def ready_count(self, rows: I64) -> I64:
        """Points in the baseline of each row."""
        return self.baseline.count[rows]

    def relearned(self) -> I64:
        """Rows whose baseline was replaced since the last call."""
        out = np.concatenate(self._relearned) if self._relearned else np.zeros(0, np.int64)
        self._relearned.clear()
        return out

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns."""
        out = dict(self._columns)
        out |= {f"baseline.{name}": column for name, column in self.baseline.dump().items()}
        out |= {f"held.{name}": column for name, column in self.held.dump().items()}
        return out

    def load(self, columns: Columns) -> None:
        """Take over what ``dump`` gave."""
        for bank, prefix in ((self.baseline, "baseline."), (self.held, "held.")):
            bank.load({k.removeprefix(prefix): v for k, v in columns.items() if k.startswith(prefix)})
        for name in self._columns:
            self._columns[name] = columns[name].copy()
        self._bind()
