"""Rolling and lag features of raw columns, kept up row by row at a cost that does not grow with the window.

A window of w rows is the rest of one block of w rows and the beginning of the next (van Herk 1992, Gil and
Werman 1993), with blocks counted from a feed's first row. What a window says is joined from the sums over
these two parts by the formula of Chan, Golub and LeVeque (1983). Both are built of the window's own rows
only: no row is ever subtracted, so what has left a window leaves no trace, and no error grows with time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Snapshot
from plexus_detect.errors import ConfigError, StoreError
from plexus_detect.series import F64, I64

LENGTH_MAX = 100_000
COUNT_MAX = 100
STATS = ("mean", "std", "min", "max")

# Rows that are worked on at once, for the memory of what lies between.
PIECE = 16_384

# How many numbers are summed up of each stretch of rows: see ``_fold``.
_SUMS = 6
_NOTHING = np.array([0.0, np.nan, 0.0, 0.0, np.nan, np.nan])


@dataclass(frozen=True)
class FeatureParams:
    """Which features: the lengths of the rolling windows and the lags, both in rows.

    Raises ``ConfigError`` for a window under 2 rows, a lag under 1, one above 100,000 or given twice, and for
    more than 100 of a kind.
    """

    rolling: tuple[int, ...] = ()
    lags: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check("a rolling window", self.rolling, 2)
        _check("a lag", self.lags, 1)

    def names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """The names (f,) of all features: the raw columns, then for each column its windows (mean, std, min,
        max each), then its lags."""
        out = list(columns)
        for column in columns:
            out += [f"{column}_rolling_{stat}_{w}" for w in self.rolling for stat in STATS]
            out += [f"{column}_lag_{n}" for n in self.lags]
        return tuple(out)

    @property
    def each(self) -> int:
        """How many features a raw column has besides itself."""
        return len(STATS) * len(self.rolling) + len(self.lags)

    def width(self, k: int) -> int:
        """How many features ``k`` raw columns have, themselves included."""
        return k * (1 + self.each)

    def source(self, k: int) -> I64:
        """(f,) for each feature the index of the raw column it comes from."""
        return np.concatenate([np.arange(k), np.repeat(np.arange(k), self.each)])

    def reach(self, k: int) -> I64:
        """(f,) for each feature how many rows it is made of: the length of its window, else 1."""
        each = np.concatenate([np.repeat(self.rolling, len(STATS)), np.ones(len(self.lags))])
        return np.concatenate([np.ones(k), np.tile(each, k)]).astype(np.int64)


def _check(what: str, lengths: tuple[int, ...], least: int) -> None:
    for n in lengths:
        if type(n) is not int or not least <= n <= LENGTH_MAX:
            raise ConfigError(f"{what} is a whole number of rows from {least} to {LENGTH_MAX}, not {n!r}")
    if len(set(lengths)) < len(lengths):
        raise ConfigError(f"{what} of the same length is given twice: {list(lengths)}")
    if len(lengths) > COUNT_MAX:
        raise ConfigError(f"{len(lengths)} lengths for {what} are given, at most {COUNT_MAX} can be")


def _fold(x: F64, carry: F64) -> F64:
    """The sums over x[..., :j + 1] for every j, going on from ``carry``: (..., n), (6, ...) to (6, ..., n).

    They are: how many numbers there are; the origin, which is the first of them; the sum of their differences
    from the origin; the sum of squared differences from their mean, in the steps of Welford (1962), none of
    which is negative but for rounding, so that nothing cancels; the least; the greatest. ``np.cumsum`` adds
    in sequence: going on from a carry gives the same bits as one call over all.
    """
    ok = ~np.isnan(x)
    out = np.empty((_SUMS, *x.shape))
    count, origin, total, square, low, high = out
    np.cumsum(ok, axis=-1, dtype=np.float64, out=count)
    count += carry[0][..., None]
    first = x[..., 0] if x.shape[-1] == 1 else np.take_along_axis(x, ok.argmax(-1)[..., None], -1)[..., 0]
    origin[...] = np.where(carry[0] > 0, carry[1], first)[..., None]
    step = np.where(ok, x - origin, 0.0)
    total[...] = step
    total[..., 0] += carry[2]
    np.cumsum(total, axis=-1, out=total)
    mean = total / np.maximum(count, 1.0)
    before = np.empty_like(mean)
    before[..., 0] = carry[2] / np.maximum(carry[0], 1.0)
    before[..., 1:] = mean[..., :-1]
    square[...] = np.where(ok, (step - before) * (step - mean), 0.0)
    square[..., 0] += carry[3]
    np.cumsum(square, axis=-1, out=square)
    for extreme, out_of, so_far in ((np.fmin, low, carry[4]), (np.fmax, high, carry[5])):
        out_of[...] = x
        out_of[..., 0] = extreme(so_far, x[..., 0])
        extreme.accumulate(out_of, axis=-1, out=out_of)
    return out


def _joined(a: F64, b: F64) -> F64:
    """Mean, sample deviation, least and greatest (4, ...) of two stretches whose sums (6, ...) are given; NaN
    where there are too few numbers, or where the result is too large for a float."""
    count = a[0] + b[0]
    many = np.maximum(count, 1.0)
    mean_a = a[2] / np.maximum(a[0], 1.0)
    mean_b = b[2] / np.maximum(b[0], 1.0)
    in_a, in_b = a[0] > 0, b[0] > 0
    gap = np.where(in_a & in_b, (b[1] - a[1]) + (mean_b - mean_a), 0.0)
    square = a[3] + b[3] + gap * gap * (a[0] * b[0] / many)
    out = np.empty((len(STATS), *count.shape))
    out[0] = np.where(in_a, a[1] + (mean_a + gap * (b[0] / many)), b[1] + mean_b)
    out[1] = np.sqrt(np.maximum(square, 0.0) / np.maximum(count - 1.0, 1.0))
    out[2] = np.fmin(a[4], b[4])
    out[3] = np.fmax(a[5], b[5])
    least = np.array([1.0, 2.0, 1.0, 1.0]).reshape(-1, *[1] * count.ndim)
    out[~((count >= least) & np.isfinite(out))] = np.nan
    return out


class _Feed:
    """One feed: its last rows and, once a single row comes, the sums of the blocks its windows are in.

    ``ring`` (k, r) holds row i at i mod r. ``back`` (6, k, t) holds for every window the sums from each row
    of its last full block to that block's end, and one entry of nothing; ``front`` (6, k, w) the sums of the
    block that is being filled. Both follow from the ring, and are only there while ``ready``.
    """

    __slots__ = ("back", "front", "ready", "ring", "seen")

    def __init__(self, ring: F64, seen: int) -> None:
        self.ring, self.seen, self.ready = ring, seen, False
        self.back = self.front = np.zeros(0)

    def past(self) -> F64:
        """(k, r) the last r rows, oldest first; NaN for those before the first."""
        return np.roll(self.ring, -(self.seen % self.ring.shape[1]), axis=1)


class Features:
    """The features of ``k`` raw columns for any number of feeds; a feed is counted from 0.

    Memory per feed and raw column, in bytes: 8 r for the last rows, r = max(2 x longest window - 1, longest
    lag), and, once the feed gets single rows, 48 x (sum of all windows + 2 x their number) for sums: with
    windows of 10, 60 and 300 rows and lags to 10 that is 4.8 kB and 18 kB. A snapshot holds the rows only.
    """

    def __init__(self, k: int, params: FeatureParams) -> None:
        self.k, self.params = k, params
        self._windows, self._lags = np.array(params.rolling, np.int64), np.array(params.lags, np.int64)
        longest = max(params.rolling, default=0)
        self._kept = max(2 * longest - 1, max(params.lags, default=0), 1)
        sizes = self._windows + 1
        self._starts = np.cumsum(sizes) - sizes
        # From how many rows on working on whole blocks is faster than row by row; both give the same bits.
        self._many = 6 + int(self._windows.sum()) * k // 700
        self._piece = max(PIECE, 2 * longest)
        self._feeds: list[_Feed] = []

    def __len__(self) -> int:
        return len(self._feeds)

    def grow(self, n_feeds: int) -> None:
        """Room for ``n_feeds`` feeds; the new ones have seen no row."""
        for _ in range(n_feeds - len(self._feeds)):
            self._feeds.append(_Feed(np.full((self.k, self._kept), np.nan), 0))

    def widen(self, k: int) -> None:
        """There are ``k`` raw columns from now on, the new ones last; their past is NaN."""
        more = ((0, k - self.k), (0, 0))
        self._feeds = [
            _Feed(np.pad(feed.ring, more, constant_values=np.nan), feed.seen) for feed in self._feeds
        ]
        self.k = k

    def step(self, feed: int, x: F64) -> F64:
        """The features (m, f) of the feed's next rows (m, k), which become its past.

        NaN (and infinite) is missing: it takes a row of a window and is skipped by its statistics, which
        speak for the numbers there are: mean, min and max from one on, the sample deviation from two on, NaN
        with fewer. A lag is NaN before the feed's first row. A deviation is within 1e-9 of the naive one, a
        mean within 1e-11 of the window's largest magnitude; where a float is too small for one it is NaN.
        The bits of a row's features never depend on how the rows were cut into calls.
        """
        # Adding 0.0 makes -0.0 a 0.0: which of the two a minimum is would depend on the order of work.
        x = np.where(np.isfinite(x), x, np.nan) + 0.0
        if not self.params.each or not len(x):
            return np.concatenate([x, np.zeros((len(x), self.k * self.params.each))], axis=1)
        held, size = self._feeds[feed], self._piece if len(x) > self._many else 1
        work = self._rows if size > 1 else self._row
        with np.errstate(all="ignore"):
            parts = [work(held, x[i : i + size]) for i in range(0, len(x), size)]
        made = np.concatenate(parts, axis=2) if len(parts) != 1 else parts[0]
        return np.concatenate([x, made.reshape(-1, len(x)).T], axis=1)

    def full(self, feed: int, x: F64) -> F64:
        """As ``step``, with NaN for what is said by a window that is not full yet: that of a few rows is no
        sample of what those of many are."""
        before = self._feeds[feed].seen
        made = self.step(feed, x)
        if before + 1 < max(self.params.rolling, default=0):
            rows = before + np.arange(1, len(x) + 1)
            made[rows[:, None] < self.params.reach(self.k)] = np.nan
        return made

    def _row(self, feed: _Feed, x: F64) -> F64:
        """What ``_rows`` gives, for one row."""
        if not feed.ready:
            self._settle(feed)
        row, length, n_windows = feed.seen, feed.ring.shape[1], len(self._windows)
        out = np.empty((self.k, self.params.each, 1))
        out[:, len(STATS) * n_windows :, 0] = feed.ring[:, (row - self._lags) % length]
        feed.ring[:, row % length] = x[0]
        feed.seen = row + 1
        if n_windows:
            place = row % self._windows
            each = np.broadcast_to(x.T[:, None, :], (self.k, n_windows, 1))
            feed.front = _fold(each, feed.front)[..., 0]
            stats = _joined(feed.back[:, :, self._starts + place + 1], feed.front)
            out[:, : len(STATS) * n_windows, 0] = stats.transpose(1, 2, 0).reshape(
                self.k, len(STATS) * n_windows
            )
            for i in np.flatnonzero(place + 1 == self._windows):
                rows = np.arange(feed.seen - self._windows[i], feed.seen) % length
                self._turn(feed, int(i), feed.ring[:, rows])
        return out

    def _settle(self, feed: _Feed) -> None:
        """Build the sums that single rows need from the last rows."""
        past = feed.past()
        feed.back = np.empty((_SUMS, self.k, int((self._windows + 1).sum())))
        feed.front = np.empty((_SUMS, self.k, len(self._windows)))
        for i, w in enumerate(self.params.rolling):
            begun = feed.seen % w
            end = past.shape[1] - begun
            self._turn(feed, i, past[:, end - w : end])
            if begun:
                feed.front[:, :, i] = _fold(past[:, end:], _nothing(1))[..., -1]
        feed.ready = True

    def _turn(self, feed: _Feed, i: int, block: F64) -> None:
        """Window i's block (k, w) is full: it becomes the last full one, and the next has nothing yet."""
        at, w = self._starts[i], block.shape[1]
        feed.back[:, :, at : at + w] = _fold(block[:, ::-1], _nothing(1))[..., ::-1]
        feed.back[:, :, at + w] = _nothing(1)
        feed.front[:, :, i] = _nothing(1)

    def _rows(self, feed: _Feed, x: F64) -> F64:
        """The features (k, each, m) of the feed's next rows (m, k), which become its past."""
        m, n_windows, length = len(x), len(self._windows), feed.ring.shape[1]
        both = np.concatenate([feed.past(), x.T], axis=1)
        out = np.empty((self.k, self.params.each, m))
        for i, w in enumerate(self.params.rolling):
            # From the beginning of the block before the one that the first new row is in.
            begun = feed.seen % w
            stats = _rolled(both[:, length - begun - w :], w)[..., begun : begun + m]
            out[:, len(STATS) * i : len(STATS) * (i + 1)] = stats.transpose(1, 0, 2)
        for i, n in enumerate(self.params.lags):
            out[:, len(STATS) * n_windows + i] = both[:, length - n : length - n + m]
        feed.seen += m
        feed.ring, feed.ready = np.roll(both[:, -length:], feed.seen % length, axis=1), False
        feed.back = feed.front = np.zeros(0)
        return out

    def save(self, prefix: str = "") -> dict[str, npt.NDArray[np.generic]]:
        """The rows that ``restore`` needs, a feed an entry: ``seen`` (n,) and ``rows`` (n, k, r)."""
        rows = np.zeros((len(self._feeds), self.k, self._kept))
        for i, feed in enumerate(self._feeds):
            rows[i] = feed.ring
        seen = np.array([feed.seen for feed in self._feeds], np.int64)
        return {f"{prefix}seen": seen, f"{prefix}rows": rows}

    def restore(self, arrays: Snapshot, prefix: str = "") -> None:
        """Take over what ``save`` gave, feeds and raw columns included. Raises ``StoreError`` when it was
        saved with other windows or lags."""
        rows, seen = arrays[f"{prefix}rows"], arrays[f"{prefix}seen"]
        if rows.ndim != 3 or rows.shape[2] != self._kept or len(rows) != len(seen):
            raise StoreError("the saved rows belong to other rolling windows or lags")
        self.k = rows.shape[1]
        self._feeds = [_Feed(np.array(ring, np.float64), int(n)) for ring, n in zip(rows, seen, strict=True)]


def _nothing(dimensions: int) -> F64:
    """The sums of no rows, to stand for any shape of so many dimensions."""
    return _NOTHING.reshape(-1, *[1] * dimensions)


def _rolled(x: F64, w: int) -> F64:
    """(4, k, n') the statistics of the window of ``w`` rows that ends at each row of x (k, w + n), from the
    second block of ``w`` rows on. The last block is filled up with rows that hold nothing, so n' >= n."""
    k, n = x.shape
    n_blocks = -(-n // w)
    blocks = np.full((k, n_blocks * w), np.nan)
    blocks[:, :n] = x
    blocks = blocks.reshape(k, n_blocks, w)
    fronts = _fold(blocks[:, 1:], _nothing(2))
    backs = np.empty_like(fronts)
    backs[..., :-1] = _fold(blocks[:, :-1, ::-1], _nothing(2))[..., -2::-1]
    backs[..., -1] = _nothing(2)
    return _joined(backs, fronts).reshape(len(STATS), k, (n_blocks - 1) * w)
