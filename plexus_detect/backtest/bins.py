"""What is kept of points for drawing: the extremes of each stretch of time, so that no spike is lost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from plexus_detect.backtest.moments import Span
from plexus_detect.series import F64, I64, Bool
from plexus_detect.stats import grown

# What a column holds before anything is known; t columns hold milliseconds.
_COLUMNS: dict[str, tuple[type, float]] = {
    "count": (np.int64, 0),
    "first_ms": (np.int64, 0),
    "last_ms": (np.int64, 0),
    "low": (np.float64, np.nan),
    "high": (np.float64, np.nan),
    "worst": (np.float64, np.nan),
    "centre": (np.float64, np.nan),
    "lower": (np.float64, np.nan),
    "upper": (np.float64, np.nan),
}


class Bins:
    """A table of (rows, ``n``) bins over ``span``: number of samples, first and last time, least and greatest
    value, worst score in units of the line, and the band at the last sample: its middle and its bounds."""

    count: I64
    first_ms: I64
    last_ms: I64
    low: F64
    high: F64
    worst: F64
    centre: F64
    lower: F64
    upper: F64

    def __init__(self, span: Span, n: int) -> None:
        self.span = span
        self.n = n
        for name, (dtype, fill) in _COLUMNS.items():
            setattr(self, name, np.full((0, n), fill, dtype))

    def __len__(self) -> int:
        return len(self.count)

    def grow(self, rows: int) -> None:
        """Room for ``rows`` series."""
        for name, (_dtype, fill) in _COLUMNS.items():
            setattr(self, name, grown(getattr(self, name), rows, fill))

    def _at(self, row: I64, t_ms: I64) -> tuple[I64, Bool]:
        """The positions in the flat table of the samples within the span, and which samples those are."""
        inside = (t_ms >= self.span.from_ms) & (t_ms < self.span.to_ms)
        bin_of = (t_ms[inside] - self.span.from_ms) * self.n // (self.span.to_ms - self.span.from_ms)
        at: I64 = row[inside] * self.n + bin_of
        return at, inside

    def add(self, row: I64, t_ms: I64, value: F64) -> None:
        """Take samples in order of row and time, each row's newer than those before."""
        at, inside = self._at(row, t_ms)
        if len(at) == 0:
            return
        t_ms, value = t_ms[inside], value[inside]
        starts = np.flatnonzero(np.diff(at, prepend=-1))
        ends = np.append(starts[1:], len(at)) - 1
        cell = at[starts]
        new = self.count.ravel()[cell] == 0
        self.first_ms.ravel()[cell[new]] = t_ms[starts[new]]
        self.last_ms.ravel()[cell] = t_ms[ends]
        self.count.ravel()[cell] += ends - starts + 1
        low, high = self.low.ravel(), self.high.ravel()
        low[cell] = np.fmin(low[cell], np.fmin.reduceat(value, starts))
        high[cell] = np.fmax(high[cell], np.fmax.reduceat(value, starts))

    def score(self, row: I64, t_ms: I64, score: F64) -> None:
        """Take scores of samples, in any order; NaN is none."""
        at, inside = self._at(row, t_ms)
        np.fmax.at(self.worst.ravel(), at, score[inside])

    def band(self, name: str, row: I64, t_ms: I64, value: F64) -> None:
        """Take a column of the band (centre, lower, upper), each row's in order of time."""
        at, inside = self._at(row, t_ms)
        getattr(self, name).ravel()[at] = value[inside]

    def columns(self, rows: int) -> dict[str, npt.NDArray[np.generic]]:
        """The first ``rows`` rows of every column by name."""
        return {name: getattr(self, name)[:rows] for name in _COLUMNS}

    @staticmethod
    def joined(span: Span, n: int, parts: list[tuple[I64, Mapping[str, npt.NDArray[np.generic]]]]) -> Bins:
        """One table of parts, each given with the rows that its rows become."""
        out = Bins(span, n)
        out.grow(sum(len(rows) for rows, _columns in parts))
        for rows, columns in parts:
            for name, column in columns.items():
                getattr(out, name)[rows] = column
        return out


def cadence_ms(bins: Bins, row: int) -> float:
    """The usual distance of a series' samples, as the bins tell it; NaN for fewer than two samples."""
    full = np.flatnonzero(bins.count[row] > 0)
    many = full[bins.count[row][full] > 1]
    if len(many) * 2 >= len(full) and len(many):
        inner = bins.last_ms[row][many] - bins.first_ms[row][many]
        return float(np.median(inner / (bins.count[row][many] - 1)))
    step = np.diff(bins.first_ms[row][full])
    return float(np.median(step)) if len(step) else float("nan")


def stretches(bins: Bins, row: int, gaps_max: float = 3.0) -> list[I64]:
    """The non-empty bins of a series, cut where samples are missing for more than ``gaps_max`` cadences."""
    full = np.flatnonzero(bins.count[row] > 0)
    if len(full) == 0:
        return []
    silence = bins.first_ms[row][full[1:]] - bins.last_ms[row][full[:-1]]
    cut = (silence > gaps_max * cadence_ms(bins, row)) & (np.diff(full) > 1)
    return np.split(full, np.flatnonzero(cut) + 1)
