"""Band plots and heat rows as SVG: coordinates are whole numbers, x is a bin, and the browser stretches them.

Every number that is drawn can be read back from the path with the axis that stands beside it, which is what
the page's script does for its read-out; so nothing is stored twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

import numpy as np

from plexus_detect.backtest.bins import Bins
from plexus_detect.backtest.moments import DAY_MS, EPOCH, Span
from plexus_detect.series import F64, I64

# Height of a plot and of its score strip in their own units; the strip ends at this many times the line.
HEIGHT, STRIP, STRIP_LINES = 1000, 120, 4.0

# Values so far out that the rest would be a flat line are cut off: this many times the middle 98 %.
OUTLIER_SPANS = 25.0

# Distances of time marks, and how many there are at most.
_MARKS_MS = [
    *(60_000 * m for m in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)),
    *(DAY_MS * d for d in (1, 2, 7, 14, 28, 91, 365)),
]
MARKS_MAX = 8

# Lower ends of the heat classes in units of the line; below the first a cell is calm.
HEAT = (1.0, 1.5, 2.0, 3.0, 5.0)


@dataclass(frozen=True)
class Axis:
    """The values at the bottom and the top of a plot; ``cut`` says that some lie outside."""

    low: float
    high: float
    cut: bool = False

    def y(self, value: F64) -> I64:
        """Whole heights from the top, within the plot; what is no number lies at the middle, for nobody."""
        share = (self.high - np.nan_to_num(value, nan=(self.low + self.high) / 2)) / (self.high - self.low)
        return np.rint(np.clip(share, 0.0, 1.0) * HEIGHT).astype(np.int64)


def axis_of(bins: Bins, row: int) -> Axis:
    """An axis for all values of a series and most of its band."""
    full = bins.count[row] > 0
    low, high = bins.low[row][full], bins.high[row][full]
    # Without interpolation: one far value must not stretch the share of 98 % itself.
    inner = (
        float(np.quantile(low, 0.01, method="higher")),
        float(np.quantile(high, 0.99, method="lower")),
    )
    outer = float(low.min()), float(high.max())
    room = OUTLIER_SPANS * max(inner[1] - inner[0], 1e-9 * max(abs(inner[0]), abs(inner[1])))
    cut = inner[1] > inner[0] and outer[1] - outer[0] > room
    bottom, top = inner if cut else outer
    known = full & np.isfinite(bins.lower[row]) & np.isfinite(bins.upper[row])
    if known.any():
        span = top - bottom
        lower = float(np.quantile(bins.lower[row][known], 0.05))
        upper = float(np.quantile(bins.upper[row][known], 0.95))
        # A band much wider than the values themselves would flatten them.
        widest = 2.0 * span if span > 0 else math.inf
        bottom, top = min(bottom, max(lower, bottom - widest)), max(top, min(upper, top + widest))
    pad = 0.04 * (top - bottom) or 0.1 * abs(top) or 1.0
    return Axis(bottom - pad, top + pad, cut)


def ticks(axis: Axis, count: int = 4) -> list[float]:
    """Round values within the axis, about ``count``."""
    span = axis.high - axis.low
    if not math.isfinite(span) or span <= 0:
        return []
    size = 10.0 ** math.floor(math.log10(span / count))
    step = next(size * k for k in (1, 2, 5, 10) if span / (size * k) <= count)
    first = math.ceil(axis.low / step)
    return [k * step for k in range(first, math.floor(axis.high / step) + 1)]


def time_marks(span: Span) -> list[tuple[float, str]]:
    """Where in the span (0 to 1) round times of UTC are, and how they are written."""
    length = span.to_ms - span.from_ms
    step = next((m for m in _MARKS_MS if length / m <= MARKS_MAX), _MARKS_MS[-1])
    form = "%d %b" if step >= DAY_MS else "%H:%M"
    marks = []
    for t_ms in range(-(-span.from_ms // step) * step, span.to_ms, step):
        at = EPOCH + timedelta(milliseconds=t_ms)
        text = at.strftime("%d %b" if form == "%H:%M" and t_ms % DAY_MS == 0 else form)
        marks.append(((t_ms - span.from_ms) / length, text))
    return marks


# --- paths ------------------------------------------------------------------------------------------------


def path(points: Iterable[tuple[int, int]]) -> str:
    """A polyline as an SVG path; points in the middle of a level stretch are left out."""
    out: list[str] = []
    at: tuple[int, int] | None = None
    level = 0
    for x, y in points:
        if at is None:
            out.append(f"M{x} {y}")
        elif y == at[1]:
            level += x - at[0]
        else:
            if level:
                out.append(f"h{level}")
            level, dx, dy = 0, x - at[0], y - at[1]
            out.append(f"v{dy}" if dx == 0 else f"l{dx}{dy}" if dy < 0 else f"l{dx} {dy}")
        at = x, y
    if level:
        out.append(f"h{level}")
    elif len(out) == 1:
        out.append("h0")
    return "".join(out)


def value_path(bins: Bins, row: int, axis: Axis, runs: Sequence[I64]) -> str:
    """Every bin from its least to its greatest value, joined where no samples are missing."""
    low, high = axis.y(bins.low[row]), axis.y(bins.high[row])
    return "".join(path(_zigzag(run.tolist(), low, high)) for run in runs)


def _zigzag(run: list[int], low: I64, high: I64) -> Iterable[tuple[int, int]]:
    """Through both extremes of each bin, the nearer one first."""
    y = int(low[run[0]])
    for x in run:
        ends = int(low[x]), int(high[x])
        first, y = ends if abs(ends[0] - y) <= abs(ends[1] - y) else ends[::-1]
        yield x, first
        if y != first:
            yield x, y


def centre_path(bins: Bins, row: int, axis: Axis, runs: Sequence[I64]) -> str:
    """The expected value, where it is known."""
    y = axis.y(bins.centre[row])
    return "".join(path((x, int(y[x])) for x in run.tolist()) for run in _known(bins.centre[row], runs))


def band_path(bins: Bins, row: int, axis: Axis, runs: Sequence[I64]) -> str:
    """The band as closed areas: expected value plus and minus threshold x scale, or wider by the limits."""
    upper, lower = axis.y(bins.upper[row]), axis.y(bins.lower[row])
    out = []
    for run in _known(bins.upper[row] - bins.lower[row], runs):
        there = [(x, int(upper[x])) for x in run.tolist()]
        back = [(x, int(lower[x])) for x in run.tolist()[::-1]]
        out.append(path(there + back) + "z")
    return "".join(out)


def _known(column: F64, runs: Sequence[I64]) -> list[I64]:
    """The runs, cut where the column is not finite."""
    parts = []
    for run in runs:
        fits = np.isfinite(column[run])
        pieces = np.split(run, np.flatnonzero(np.diff(fits)) + 1)
        parts += [piece for piece in pieces if np.isfinite(column[piece[0]])]
    return parts


def score_path(bins: Bins, row: int, runs: Sequence[I64]) -> str:
    """The worst score of each bin as an area over the strip's bottom."""
    worst = np.clip(bins.worst[row] / STRIP_LINES, 0.0, 1.0)
    out = []
    for run in _known(worst, runs):
        heights = [(x, STRIP - round(float(worst[x]) * STRIP)) for x in run.tolist()]
        out.append(path([(int(run[0]), STRIP), *heights, (int(run[-1]), STRIP)]) + "z")
    return "".join(out)


def boxes(intervals: Iterable[tuple[int, int]], height: int, y: int = 0) -> str:
    """Filled stretches of bins (both ends included) as one path."""
    return "".join(f"M{a} {y}h{b - a + 1}v{height}h{a - b - 1}z" for a, b in intervals)


def gaps(runs: Sequence[I64], n: int) -> list[tuple[int, int]]:
    """The stretches of bins without samples, before, between and behind the runs."""
    edges = [(-1, -1), *((int(run[0]), int(run[-1])) for run in runs), (n, n)]
    holes = [(a[1] + 1, b[0] - 1) for a, b in pairwise(edges)]
    return [(a, b) for a, b in holes if b >= a]


def bins_of(span: Span, n: int, from_ms: int, to_ms: int) -> tuple[int, int] | None:
    """The first and last of ``n`` bins that an interval touches, or None when it lies outside."""
    if to_ms < span.from_ms or from_ms >= span.to_ms:
        return None
    length = span.to_ms - span.from_ms
    first = (max(from_ms, span.from_ms) - span.from_ms) * n // length
    last = (min(to_ms, span.to_ms - 1) - span.from_ms) * n // length
    return first, last


def within(runs: Sequence[I64], intervals: Sequence[tuple[int, int]]) -> list[I64]:
    """The parts of the runs that lie in the intervals, each with the bin before it, which joins the line."""
    parts = []
    for run in runs:
        for a, b in intervals:
            inside = np.flatnonzero((run >= a) & (run <= b))
            if len(inside):
                parts.append(run[max(0, int(inside[0]) - 1) : int(inside[-1]) + 1])
    return parts


# --- heat -------------------------------------------------------------------------------------------------


def heat_of(bins: Bins, rows: Sequence[int], cells: int) -> str:
    """One character a cell: "." no samples, "u" no score yet, else its class, the worst over ``rows``."""
    if not rows:
        return "." * cells
    shape = (len(rows), cells, bins.n // cells)
    some = bins.count[list(rows)].reshape(shape).sum(axis=(0, 2)) > 0
    worst: F64 = np.fmax.reduce(bins.worst[list(rows)].reshape(shape), axis=(0, 2))
    classes: I64 = np.searchsorted(np.array(HEAT), worst, side="right")
    return "".join(
        "." if not some[k] else "u" if np.isnan(worst[k]) else str(classes[k]) for k in range(cells)
    )


def heat_paths(codes: str) -> list[tuple[str, str]]:
    """A path for each class of a heat row: (class, path)."""
    found: dict[str, list[tuple[int, int]]] = {}
    start = 0
    for k in range(1, len(codes) + 1):
        if k == len(codes) or codes[k] != codes[start]:
            found.setdefault(codes[start], []).append((start, k - 1))
            start = k
    return [(code, boxes(found[code], 10)) for code in sorted(found)]
