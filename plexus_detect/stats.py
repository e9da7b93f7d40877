"""Running statistics over columns: many series at once, one new value each, or one series over a stretch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.series import F64, I64, Bool, Rows

# Finite magnitudes above this would overflow when squared and summed; they count as not finite.
MAGNITUDE_MAX = 1e100

# Beyond this many deviations a score carries no information; it keeps scores finite.
Z_MAX = 1e9

# Sums are taken anew after this many pushes, or a window's worth: rounding errors add up no further.
REBASE_PUSHES = 4096

# They are taken anew at once when digits were lost: the sum of squares has fallen to this part of what it
# was, or this part of it is only the distance between the origin and the mean.
_COLLAPSE_MAX = 16.0
_OFF_CENTRE_MAX = 0.9

# A distance of the origin from the mean that is below this part of the origin is rounding.
_ORIGIN_ROUNDING = 1e-14

# Rings that are summed at once: bounds the memory when very many fall due together.
_REBASE_VALUES_MAX = 1 << 20


def usable(x: F64) -> Bool:
    """True where ``x`` is a number that can be squared and summed."""
    return np.less_equal(np.abs(x), MAGNITUDE_MAX)


def grown(column: npt.NDArray[np.generic], n: int, fill: float = 0) -> npt.NDArray[np.generic]:
    """``column`` with ``n`` rows, the new ones filled with ``fill``."""
    out = np.full((n, *column.shape[1:]), fill, column.dtype)
    out[: len(column)] = column
    return out


class Sums(NamedTuple):
    """Sums of a ring about its origin, aligned columns: number of values, origin, sum, sum of squares."""

    n: F64
    origin: F64
    s1: F64
    s2: F64

    def take(self, at: Rows) -> Sums:
        """The sums at these positions."""
        return Sums(self.n[at], self.origin[at], self.s1[at], self.s2[at])

    def place(self) -> tuple[F64, F64]:
        """(origin, mean relative to it), the second NaN where a ring is empty."""
        return self.origin, self.s1 / self.n

    def deviation(self, x: F64) -> tuple[F64, F64, F64]:
        """(x - mean, mean, std), NaN where a ring is empty; x - mean keeps digits that mean lacks."""
        origin, shift = self.place()
        variance = self.s2 / self.n - shift * shift
        return (x - origin) - shift, origin + shift, np.sqrt(np.maximum(variance, 0.0))

    def lost(self, peak: F64, since: F64, every: int) -> Bool:
        """Where the sums must be taken anew; ``peak`` is the largest s2 of the last ``since`` pushes."""
        s1_squared = self.s1 * self.s1
        out: Bool = s1_squared > self.n * (_OFF_CENTRE_MAX * self.s2)
        if out.any():
            rounding = self.n * np.square(_ORIGIN_ROUNDING * self.origin)
            out = s1_squared > self.n * (_OFF_CENTRE_MAX * self.s2 + rounding)
        out |= peak > _COLLAPSE_MAX * self.s2
        out |= since >= every
        return out


class Stretch(NamedTuple):
    """What a run of pushes to one series would do. ``before`` and ``after`` are the sums around each push,
    ``peak`` and ``lost`` belong to ``after``: the stretch is true up to and with the first loss only."""

    x: F64
    before: Sums
    after: Sums
    peak: F64
    lost: Bool


class RingBank:
    """Mean and population deviation of the last ``window`` values of each of ``n`` series.

    State is a ring of values a series, shape (n, window), and two sums about a per-series origin; ``limit``
    is how many values the ring of a series holds, at most and at first ``window``. A push
    costs O(1); now and then, and whenever digits were lost, the sums are taken anew from the ring, so they
    never drift. All decisions depend on the series' own values only: the result does not depend on how
    pushes are batched over series or calls. Callers turn floating-point warnings off. Reference: Chan,
    Golub, LeVeque, "Algorithms for computing the sample variance", The American Statistician 37 (1983),
    shifted data.
    """

    def __init__(self, n: int, window: int) -> None:
        self.window = window
        self.every = max(window, REBASE_PUSHES)
        self.values = np.zeros((n, window))
        self.head = np.zeros(n, np.int64)
        self.origin = np.zeros(n)
        self.limit = np.full(n, window)
        self._limited = False
        self._bind(np.zeros((5, n)))

    def _bind(self, moving: F64) -> None:
        """What changes with every push stands in one matrix, so that it is written at once."""
        self._moving = moving
        self.count, self.since_rebase, self.s1, self.s2, self.peak = moving
        self._ring_start = np.arange(len(self.head)) * self.window

    def __len__(self) -> int:
        return len(self.count)

    def grow(self, n: int) -> None:
        """Room for ``n`` series; the new ones are empty."""
        fill = {"limit": self.window}
        self.load({name: grown(column, n, fill.get(name, 0)) for name, column in self.dump().items()})

    def resize(self, rows: I64, limit: I64) -> None:
        """Let the rings of these rows hold ``limit`` values; they must not have held more since they were
        empty."""
        self.limit[rows] = limit
        self.head[rows] %= limit
        self._limited = self._limited or bool((limit < self.window).any())

    def sums(self, rows: Rows) -> Sums:
        """The sums of these rows as they are now."""
        return Sums(self.count[rows], self.origin[rows], self.s1[rows], self.s2[rows])

    def push(self, rows: Rows, x: F64, accept: Bool) -> None:
        """Add a value to each of the (distinct) rows that accept it; the oldest one leaves a full ring."""
        least = self.count[rows].min(initial=self.window)
        if least == 0:
            self._begin(rows, x, accept & (self.count[rows] == 0))
        was, head, origin = self._moving[:, rows], self.head[rows], self.origin[rows]
        n, since, s1, s2, peak = was
        limit = self.limit[rows] if self._limited else self.window
        full = None if least == self.window else n == limit
        flat, at = self.values.reshape(-1), self._ring_start[rows] + head
        leaving = flat[at]
        gain, gain2 = _gains(x, leaving, full, origin)
        now = np.empty_like(was)
        now[0] = n if full is None else np.minimum(n + 1.0, limit)
        np.add(since, 1.0, out=now[1])
        np.add(s1, gain, out=now[2])
        np.add(s2, gain2, out=now[3])
        np.maximum(peak, now[3], out=now[4])
        lost = Sums(now[0], origin, now[2], now[3]).lost(now[4], now[1], self.every)
        after = head + 1
        after[after == limit] = 0
        if not accept.all():
            lost &= accept
            x, after, now = (
                np.where(accept, x, leaving),
                np.where(accept, after, head),
                np.where(accept, now, was),
            )
        flat[at], self.head[rows], self._moving[:, rows] = x, after, now
        if lost.any():
            self._rebase(_numbers(rows, lost))

    def _begin(self, rows: Rows, x: F64, fresh: Bool) -> None:
        """The first value of a ring is its origin. Its bits say when the sums are first taken anew: so
        that series which began together do not fall due together, and for no reason outside the series."""
        at = _numbers(rows, fresh)
        first = x[fresh]
        self.origin[at] = first
        mixed = first.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(33)
        self.since_rebase[at] = mixed % np.uint64(self.every)

    def ahead(self, row: int, x: F64) -> Stretch:
        """What pushing the values ``x`` one after another to a ring that is not empty would do.

        Sums are accumulated in the same order and with the same operations as ``push`` does, so they have
        the same bits. ``x`` holds at most as many values as ``until_rebase`` says.
        """
        m, limit = len(x), int(self.limit[row])
        k = np.arange(m + 1)
        n = np.minimum(self.count[row] + k, limit)
        origin = np.full(m + 1, self.origin[row])
        slots = (self.head[row] + k[: min(m, limit)]) % limit
        leaving = np.concatenate([self.values[row, slots], x])[:m]
        gain, gain2 = _gains(x, leaving, n[:-1] == limit, origin[:-1])
        s1 = np.add.accumulate(np.concatenate([self.s1[row : row + 1], gain]))
        s2 = np.add.accumulate(np.concatenate([self.s2[row : row + 1], gain2]))
        after = Sums(n[1:], origin[1:], s1[1:], s2[1:])
        peak = np.maximum(np.maximum.accumulate(s2[1:]), self.peak[row])
        lost = after.lost(peak, self.since_rebase[row] + k[1:], self.every)
        return Stretch(x, Sums(n, origin, s1, s2), after, peak, lost)

    def until_rebase(self, row: int) -> int:
        """Pushes to this row until its sums are taken anew, at the latest."""
        return self.every - int(self.since_rebase[row])

    def commit(self, row: int, stretch: Stretch, m: int) -> None:
        """Make the first ``m`` pushes of a stretch true; at most the last of them may be a loss."""
        if m == 0:
            return
        limit = int(self.limit[row])
        keep = min(m, limit)
        slots = (self.head[row] + np.arange(m - keep, m)) % limit
        self.values[row, slots] = stretch.x[m - keep : m]
        self.head[row] = (self.head[row] + m) % limit
        self.since_rebase[row] += m
        self.count[row] = stretch.after.n[m - 1]
        self.s1[row] = stretch.after.s1[m - 1]
        self.s2[row] = stretch.after.s2[m - 1]
        self.peak[row] = stretch.peak[m - 1]
        if stretch.lost[m - 1]:
            self._rebase(np.array([row]))

    def _rebase(self, rows: I64) -> None:
        """Take the sums of these rows anew from their rings."""
        step = max(1, _REBASE_VALUES_MAX // self.window)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            n, held = self.count[part], self.values[part]
            filled = np.arange(self.window) < n[:, None]
            base = held[:, :1]
            origin = base[:, 0] + np.sum(np.where(filled, held - base, 0.0), axis=1) / n
            dev = np.where(filled, held - origin[:, None], 0.0)
            self.origin[part] = origin
            self.s1[part] = dev.sum(axis=1)
            self.peak[part] = self.s2[part] = np.square(dev).sum(axis=1)
            self.since_rebase[part] = 0.0

    def clear(self, rows: I64) -> None:
        """Forget everything of these rows."""
        self.head[rows], self.limit[rows] = 0, self.window
        self._moving[:, rows] = 0.0

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """Every column by name, for a snapshot."""
        names = ("values", "head", "limit", "origin", "count", "since_rebase", "s1", "s2", "peak")
        return {name: getattr(self, name) for name in names}

    def load(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take over columns that ``dump`` gave for a bank of the same window."""
        for name in ("values", "head", "limit", "origin"):
            setattr(self, name, columns[name].copy())
        self._limited = bool((self.limit < self.window).any())
        self._bind(np.array([columns[name] for name in ("count", "since_rebase", "s1", "s2", "peak")]))


def _gains(x: F64, leaving: F64, full: Bool | None, origin: F64) -> tuple[F64, F64]:
    """What the sums gain when ``x`` enters and, from a full ring (None: all are), ``leaving`` leaves."""
    new, old = x - origin, leaving - origin
    if full is not None:
        old = np.where(full, old, 0.0)
    gain = new - old
    return gain, gain * (new + old)


def _numbers(rows: Rows, mask: Bool) -> I64:
    """The row numbers where ``mask`` holds."""
    at = np.flatnonzero(mask)
    return at + rows.start if isinstance(rows, slice) else rows[at]


class CrossSection(NamedTuple):
    """Of groups of values, one row a group: how many there are, their median, the median and the mean of
    their distances from it (NaN where there is no value)."""

    n: I64
    median: F64
    mad: F64
    mean_deviation: F64


def cross_section(value: F64, group: I64, place: I64, n_groups: int) -> CrossSection:
    """The cross-section of each of ``n_groups`` groups; ``value[i]`` has the ``place[i]`` in ``group[i]``.

    Places are distinct within a group; NaN is no value. Groups of about one size share a matrix, so the cost
    is that of sorting it, and no group pays for the size of another.
    """
    out = CrossSection(np.zeros(n_groups, np.int64), *(np.full(n_groups, np.nan) for _ in range(3)))
    width = np.zeros(n_groups, np.int64)
    np.maximum.at(width, group, place + 1)
    size_class = np.frexp(width)[1]
    for c in np.unique(size_class[width > 0]).tolist():
        ids = np.flatnonzero(size_class == c)
        row = np.full(n_groups, -1)
        row[ids] = np.arange(len(ids))
        at = np.flatnonzero(row[group] >= 0)
        matrix = np.full((len(ids), int(width[ids].max())), np.nan)
        matrix[row[group[at]], place[at]] = value[at]
        n = np.isfinite(matrix).sum(axis=1)
        median = _row_medians(matrix, n)
        deviation = np.abs(matrix - median[:, None])
        out.n[ids], out.median[ids] = n, median
        out.mad[ids] = _row_medians(deviation, n)
        out.mean_deviation[ids] = np.where(np.isfinite(deviation), deviation, 0.0).sum(axis=1) / np.maximum(
            n, 1
        )
    return out


def _row_medians(matrix: F64, n: I64) -> F64:
    """The median of the ``n[i]`` numbers of row i; NaN, which sorts to the end, where there is none."""
    ordered, row = np.sort(matrix, axis=1), np.arange(len(matrix))
    lower, upper = np.maximum(n - 1, 0) // 2, np.minimum(n // 2, matrix.shape[1] - 1)
    median: F64 = 0.5 * (ordered[row, lower] + ordered[row, upper])
    return median
