"""The nouns: what flows through the rooms of the package.

All times are integer milliseconds since the Unix epoch (UTC), as the platform stores them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int8]
Bool = npt.NDArray[np.bool_]
Rows = I64 | slice


class SeriesKey(NamedTuple):
    """One time series of the platform: the slug of its source and the name of its metric."""

    source: str
    metric: str


class Kind(IntEnum):
    """What a derived point says; ``SUFFIX`` gives the name under which it is posted.

    State files hold the numbers: a new kind goes to the end.
    """

    ZSCORE = 0
    FLEET_ZSCORE = 1
    ZSCORE_RAW = 2
    FLEET_ZSCORE_RAW = 3
    EXPECTED = 4
    LOWER = 5
    UPPER = 6
    DRIFT = 7
    STUCK = 8
    FLEET_EVENT = 9
    ANOMALY = 10
    ZSCORE_LATE = 11
    ZSCORE_CRITICAL = 12


SUFFIX: dict[Kind, str] = {
    Kind.ZSCORE: ".zscore",
    Kind.FLEET_ZSCORE: ".fleet_zscore",
    Kind.ZSCORE_RAW: ".zscore_raw",
    Kind.FLEET_ZSCORE_RAW: ".fleet_zscore_raw",
    Kind.EXPECTED: ".expected",
    Kind.LOWER: ".lower",
    Kind.UPPER: ".upper",
    Kind.DRIFT: ".drift",
    Kind.STUCK: ".stuck",
    Kind.FLEET_EVENT: ".fleet_event",
    Kind.ANOMALY: ".anomaly",
    Kind.ZSCORE_LATE: ".zscore_late",
    Kind.ZSCORE_CRITICAL: ".zscore_critical",
}

# Every suffix this program could ever post, present or announced: never scored, whatever the config says.
RESERVED_SUFFIXES = (
    *SUFFIX.values(),
    ".coverage",
    ".score",
)


def is_own_metric(metric: str) -> bool:
    """True for names that the detector could have posted itself and for the platform's internal ``_frame``.

    Scoring such a series would score our own scores (platform fact, contract trap 20).
    """
    return metric == "_frame" or metric.endswith(RESERVED_SUFFIXES)


class SeriesTable:
    """Gives every (source, metric) pair a small stable integer, in order of first sight.

    ``by_source[source][metric]`` is the index; the nested form lets a decoder look up a row
    without building a tuple.
    """

    def __init__(self) -> None:
        self.keys: list[SeriesKey] = []
        self.by_source: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, source: str, metric: str) -> int:
        """The index of the pair, newly given if it was unknown."""
        metrics = self.by_source.setdefault(source, {})
        index = metrics.get(metric)
        if index is None:
            index = metrics[metric] = len(self.keys)
            self.keys.append(SeriesKey(source, metric))
        return index


@dataclass(frozen=True)
class Points:
    """Columns of points, all of length n.

    ``series`` int64 indices into a SeriesTable; ``t_ms`` int64; ``value`` float64; ``late`` marks points
    that arrived after a newer one of their series: they are scored but never learned.
    """

    series: I64
    t_ms: I64
    value: F64
    late: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __post_init__(self) -> None:
        if len(self.late) != len(self.series):
            object.__setattr__(self, "late", np.zeros(len(self.series), np.bool_))

    def __len__(self) -> int:
        return len(self.series)

    def take(self, index: Rows | Bool) -> Points:
        """The points at ``index`` (positions, a slice or a mask), in that order."""
        return Points(self.series[index], self.t_ms[index], self.value[index], self.late[index])

    @staticmethod
    def empty() -> Points:
        """No points."""
        return Points(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float64))

    @staticmethod
    def concat(parts: list[Points]) -> Points:
        """All parts one after another."""
        if not parts:
            return Points.empty()
        if len(parts) == 1:
            return parts[0]
        return Points(
            np.concatenate([p.series for p in parts]),
            np.concatenate([p.t_ms for p in parts]),
            np.concatenate([p.value for p in parts]),
            np.concatenate([p.late for p in parts]),
        )


class Reason(IntEnum):
    """Which check gave a score or, from ``WARMING`` on, why there is none."""

    DEVIATION = 0
    ROBUST = 1
    EWMA = 2
    DRIFT = 3
    SEASON = 4
    NOISE = 5
    STUCK = 6
    RANGE = 7
    GAP = 8
    UNIT = 9
    FLEET = 10
    STEP = 11
    LEVEL = 12
    QUIET = 13
    RARE = 14
    NOVEL = 15
    LEARNED = 16
    WARMING = 64
    FLAT = 65
    STALE = 66
    GROUP_SMALL = 67
    NOT_A_NUMBER = 68


@dataclass(frozen=True)
class Scores:
    """What a detector says of points, aligned with them: columns of length n.

    ``z`` is the signed score in units in which the detector's threshold is the line (NaN while there is
    none); ``centre`` is the expected value and ``scale`` its deviation, both in the metric's own unit, so
    that centre +- threshold x scale is the band. ``reason`` holds ``Reason`` codes: the check whose score
    is the largest, or why z is NaN. ``parts`` are the scores of single checks, in the units of z. ``fresh``
    is the magnitude of z with what was alarmed lately discounted: the news in a score.
    """

    z: F64
    centre: F64
    scale: F64
    reason: I8 = field(default_factory=lambda: np.zeros(0, np.int8))
    parts: Mapping[Reason, F64] = field(default_factory=dict)
    fresh: F64 = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if len(self.reason) != len(self.z):
            unknown = np.isnan(self.z)
            codes = np.where(unknown, np.int8(Reason.WARMING), np.int8(Reason.DEVIATION))
            object.__setattr__(self, "reason", codes)
        if len(self.fresh) != len(self.z):
            object.__setattr__(self, "fresh", np.abs(self.z))


@dataclass(frozen=True)
class Derived:
    """Columns of derived points to post: series index, ``Kind`` code, time of the sample, value."""

    series: I64
    kind: I8
    t_ms: I64
    value: F64

    def __len__(self) -> int:
        return len(self.series)

    def take(self, index: I64 | Bool) -> Derived:
        """The derived points at ``index`` (positions or a mask), in that order."""
        return Derived(self.series[index], self.kind[index], self.t_ms[index], self.value[index])

    @staticmethod
    def empty() -> Derived:
        """No derived points."""
        return Derived(np.zeros(0, np.int64), np.zeros(0, np.int8), np.zeros(0, np.int64), np.zeros(0))

    @staticmethod
    def concat(parts: list[Derived]) -> Derived:
        """All parts one after another."""
        if not parts:
            return Derived.empty()
        return Derived(
            np.concatenate([p.series for p in parts]),
            np.concatenate([p.kind for p in parts]),
            np.concatenate([p.t_ms for p in parts]),
            np.concatenate([p.value for p in parts]),
        )


@dataclass(frozen=True)
class Rounds:
    """Positions split so that no series occurs twice in one part and each series keeps its order.

    Part r holds the r-th point of every series that has more than r points, in order of series. All parts
    one after another are ``order``; part r lies between ``bounds[r]`` and ``bounds[r + 1]``. ``whole`` says
    that there is one part, with the points as they stand.
    """

    order: I64
    bounds: list[int]
    whole: bool = False

    @property
    def n(self) -> int:
        """How many parts there are."""
        return len(self.bounds) - 1

    def part(self, r: int) -> I64:
        """The positions of part ``r``."""
        return self.order[self.bounds[r] : self.bounds[r + 1]]

    def __iter__(self) -> Iterator[I64]:
        return (self.part(r) for r in range(self.n))

    def since(self, r: int) -> I64:
        """The positions of part ``r`` and all after it."""
        return self.order[self.bounds[r] :]


def rounds(series: I64) -> Rounds:
    """The positions of ``series`` in rounds: see ``Rounds``."""
    n = len(series)
    if n == 0:
        return Rounds(np.zeros(0, np.int64), [0])
    if (series[1:] > series[:-1]).all():
        return Rounds(np.arange(n), [0, n], whole=True)
    order = np.argsort(series, kind="stable")
    sorted_series = series[order]
    first = np.ones(n, np.bool_)
    np.not_equal(sorted_series[1:], sorted_series[:-1], out=first[1:])
    place = np.arange(n)
    rank = place - np.maximum.accumulate(np.where(first, place, 0))
    sizes = np.bincount(rank)
    # NumPy sorts 16-bit integers by radix, which is many times faster.
    by_rank = np.argsort(rank.astype(np.uint16) if len(sizes) <= 1 << 16 else rank, kind="stable")
    return Rounds(order[by_rank], [0, *np.cumsum(sizes).tolist()])


def aftermath(first: Bool, begins: Bool, counts: Bool, k: int) -> Bool:
    """Of points sorted by series: those from a point that ``begins`` something up to the ``k``-th after it
    that ``counts``. ``first`` marks the first point of each series."""
    place = np.arange(len(first))
    last = np.maximum.accumulate(np.where(first | begins, place, 0))
    passed = np.cumsum(counts)
    marked: Bool = begins[last] & (passed - passed[last] <= k)
    return marked


def ascending(parts: Sequence[I64]) -> I64:
    """The positions of all parts, ascending."""
    at: I64 = np.sort(np.concatenate([np.zeros(0, np.int64), *parts]))
    return at


def released(t_ms: I64, came: I64, clock: I64, settle_ms: int) -> I64:
    """At which point of a stream each of these is let go: the first one at which the clock is ``settle_ms``
    past its time, but not before it came; at once where it is as far ahead, since such a clock is not waited
    for. ``came`` are positions in ``clock``, the ascending readings at each point (-1: before the first);
    what is not let go yet has the position after the last."""
    if not len(clock):
        return np.zeros(len(t_ms), np.int64)
    at = np.maximum(np.searchsorted(clock, t_ms + settle_ms), came)
    ahead = (came >= 0) & (t_ms > clock[came] + settle_ms)
    return np.where(ahead, came, at)


def together(rows: I64) -> Rows:
    """``rows`` as a slice where they lie together in ascending order: reading that copies nothing."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (rows[1:] > rows[:-1]).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows
