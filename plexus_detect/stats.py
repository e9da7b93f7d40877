"""Running statistics over columns: many series at once, one new value each per call."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from plexus_detect.series import F64, I64, Bool

Rows = I64 | slice

# Finite magnitudes above this would overflow when squared and summed; they count as not finite.
MAGNITUDE_MAX = 1e100

# Beyond this many deviations a score carries no information; it keeps scores finite.
Z_MAX = 1e9

# Sums are taken about a per-series origin. They lose digits when the origin is far from the mean
# (in deviations, squared) or when a value that dominated them leaves: then they are taken anew.
_ORIGIN_DRIFT_MAX = 9.0
_COLLAPSE_MAX = 16.0


def usable(x: F64) -> Bool:
    """True where ``x`` is a number that can be squared and summed."""
    return np.less_equal(np.abs(x), MAGNITUDE_MAX)


def grown(column: npt.NDArray[np.generic], n: int, fill: float = 0) -> npt.NDArray[np.generic]:
    """``column`` with ``n`` rows, the new ones filled with ``fill``."""
    out = np.full((n, *column.shape[1:]), fill, column.dtype)
    out[: len(column)] = column
    return out


class RingBank:
    """Mean and population deviation of the last ``window`` values of each of ``n`` series.

    State is a ring of values a series, shape (n, window), and two sums about a per-series origin. A push
    costs O(1); every ``window`` pushes, and whenever digits would be lost, the sums are taken anew from
    the ring, so they never drift. All decisions depend on the series' own values only: the result does
    not depend on how pushes are batched over series or calls. Reference: Chan, Golub, LeVeque,
    "Algorithms for computing the sample variance", The American Statistician 37 (1983), shifted data.
    """

    def __init__(self, n: int, window: int) -> None:
        self.window = window
        self.values = np.zeros((n, window))
        self.count = np.zeros(n, np.int64)
        self.head = np.zeros(n, np.int64)
        self.since_rebase = np.zeros(n, np.int64)
        self.origin = np.zeros(n)
        self.s1 = np.zeros(n)
        self.s2 = np.zeros(n)

    def __len__(self) -> int:
        return len(self.count)

    def grow(self, n: int) -> None:
        """Room for ``n`` series; the new ones are empty."""
        for name, column in self.dump().items():
            setattr(self, name, grown(column, n))

    def deviation(self, rows: Rows, x: F64) -> tuple[F64, F64, F64]:
        """(x - mean, mean, std) of each row, NaN for an empty one; x - mean keeps digits that mean lacks."""
        n = self.count[rows]
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = self.s1[rows] / n
            variance = self.s2[rows] / n - shift * shift
            std = np.sqrt(np.maximum(variance, 0.0))
        origin = self.origin[rows]
        return (x - origin) - shift, origin + shift, std

    def push(self, rows: I64, x: F64) -> None:
        """Add one usable value to each of the (distinct) rows; the oldest one leaves a full ring."""
        if len(rows) == 0:
            return
        n, head = self.count[rows], self.head[rows]
        flat, at = self.values.reshape(-1), rows * self.window + head
        fresh = n == 0
        if fresh.any():
            self.origin[rows[fresh]] = x[fresh]
        origin = self.origin[rows]
        full = n == self.window
        new = x - origin
        old = np.where(full, flat[at] - origin, 0.0)
        s2_before = self.s2[rows]
        s1 = self.s1[rows] + (new - old)
        s2 = s2_before + (new - old) * (new + old)
        flat[at] = x
        n = n + ~full
        since = self.since_rebase[rows] + 1
        head += 1
        head[head == self.window] = 0
        self.s1[rows], self.s2[rows], self.count[rows] = s1, s2, n
        self.head[rows], self.since_rebase[rows] = head, since
        off_centre = s1 * s1 / n
        spread = np.maximum(s2 - off_centre, 0.0)
        noise = n * np.square(1e-14 * origin)
        lost = (since >= self.window) | (s2_before > _COLLAPSE_MAX * s2)
        lost |= off_centre > _ORIGIN_DRIFT_MAX * spread + noise
        if lost.any():
            self._rebase(rows[lost])

    def _rebase(self, rows: I64) -> None:
        """Take the sums of these rows anew from their rings."""
        n = self.count[rows]
        held = self.values[rows]
        filled = np.arange(self.window) < n[:, None]
        base = held[:, :1]
        origin = base[:, 0] + np.sum(np.where(filled, held - base, 0.0), axis=1) / n
        dev = np.where(filled, held - origin[:, None], 0.0)
        self.origin[rows] = origin
        self.s1[rows] = dev.sum(axis=1)
        self.s2[rows] = np.square(dev).sum(axis=1)
        self.since_rebase[rows] = 0

    def clear(self, rows: I64) -> None:
        """Forget everything of these rows."""
        self.count[rows] = 0
        self.head[rows] = 0
        self.since_rebase[rows] = 0
        self.s1[rows] = 0.0
        self.s2[rows] = 0.0

    def refill(self, rows: I64, other: RingBank) -> None:
        """Make the values that ``other`` holds for these rows the only ones here, oldest first."""
        self.clear(rows)
        for k in range(min(other.window, self.window)):
            some = rows[other.count[rows] > k]
            oldest = np.where(other.count[some] == other.window, other.head[some], 0)
            self.push(some, other.values[some, (oldest + k) % other.window])

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """Every column by name, for a snapshot."""
        names = ("values", "count", "head", "since_rebase", "origin", "s1", "s2")
        return {name: getattr(self, name) for name in names}

    def load(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take over columns that ``dump`` gave for a bank of the same window."""
        for name, column in columns.items():
            setattr(self, name, column.copy())
