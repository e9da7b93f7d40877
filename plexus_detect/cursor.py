"""Where each series stands, and what an answer covered.

Polling, catching up after an outage and a cold start are one path: a series has a frontier, the queries
reach from the frontier to now, an answer moves the frontier. Facts of the platform that shape it
(contract sections 2 and 14): one request can carry every source, or one; both ends of the window are
inclusive; a cut-off answer keeps the *newest* rows; an empty answer may be a failure, so it moves nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.series import F64, I64, Bool, Points
from plexus_detect.stats import grown, usable

# Times outside (0, 2**42) ms (years 1970 to 2109) are not samples of a device that lives today; what is
# derived from a sample at the epoch itself could not be posted either.
_TIME_BITS = 42
_TIME_MAX = 1 << _TIME_BITS

# A series without a sample for this long, and for SILENT_SAMPLES of its usual gaps, is silent.
SILENT_MS = 60_000
SILENT_SAMPLES = 10

# Longest wait before a silent series that is behind the others is asked for again.
WAIT_MS_MAX = 60_000


@dataclass(frozen=True)
class PollParams:
    """``overlap_ms`` is read again behind every frontier for late points; samples younger than ``settle_ms``
    are left for the next query, so that stragglers fall into order; a gap longer than
    ``catchup_ms_max`` is skipped; ``limit`` rows a request; ``pages_max`` requests to complete one answer;
    ``history_ms`` is how far back a cold series may look for its first ``history_points``; where few series
    are cold, and ``history_points_max`` is more, for as many as make ``history_rows`` of all of them."""

    overlap_ms: int = 10_000
    settle_ms: int = 0
    catchup_ms_max: int = 6 * 3_600_000
    limit: int = 100_000
    pages_max: int = 64
    history_ms: int = 14 * 86_400_000
    history_points: int = 330
    history_points_max: int = 0
    history_rows: int = 0

    def wanted(self, n_cold: int) -> int:
        """How many of its newest points each of ``n_cold`` cold series is to get."""
        shared = min(self.history_points_max, self.history_rows // max(1, n_cold))
        return max(self.history_points, shared)


@dataclass(frozen=True)
class Query:
    """One telemetry request: ``source`` None asks for every source, no ``metrics`` for every metric.

    ``series`` are the selected series that the answer covers; ``to_ms`` None means the server's now. A
    ``cold`` query is content with the newest ``wanted`` points (0: ``history_points``) of each series.
    """

    source: str | None
    metrics: tuple[str, ...]
    from_ms: int
    to_ms: int | None
    limit: int
    series: I64
    cold: bool = False
    wanted: int = 0


class Advance(NamedTuple):
    """What an answer brought: ``points`` to score in order of series and time, and counts of the rest."""

    points: Points
    repeats: int = 0
    too_late: int = 0
    unusable: int = 0
    foreign: int = 0
    held_back: int = 0


@dataclass
class Cursors:
    """Columns, one row a series of the table.

    ``last_ms`` newest sample taken (-1: none yet); ``covered_ms`` everything visible up to here has been
    read (-1: cold); ``cadence_ms`` typical distance of samples (0: unknown); ``selected`` whether we score
    it. ``seen`` holds sorted keys (series, time) of recent samples, to tell a late point from a repeat, and
    ``floor_ms`` says how far back that memory reaches. ``heard_ms`` is the server's time of the last answer
    with a new sample; a series that is behind and silent is asked for again at ``ask_ms``.
    """

    last_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    covered_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    floor_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    cadence_ms: F64 = field(default_factory=lambda: np.zeros(0))
    selected: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))
    heard_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    ask_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    seen: I64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.last_ms)

    def grow(self, n: int) -> None:
        """Room for ``n`` series; the new ones are cold and not selected."""
        self.last_ms = grown(self.last_ms, n, -1)  # type: ignore[assignment]
        self.covered_ms = grown(self.covered_ms, n, -1)  # type: ignore[assignment]
        self.floor_ms = grown(self.floor_ms, n, 0)  # type: ignore[assignment]
        self.cadence_ms = grown(self.cadence_ms, n, 0)  # type: ignore[assignment]
        self.selected = grown(self.selected, n, 0)  # type: ignore[assignment]
        self.heard_ms = grown(self.heard_ms, n, 0)  # type: ignore[assignment]
        self.ask_ms = grown(self.ask_ms, n, 0)  # type: ignore[assignment]

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """Every column by name, for a snapshot."""
        names = ("last_ms", "covered_ms", "floor_ms", "cadence_ms", "seen")
        return {name: getattr(self, name) for name in names}

    def load(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take over what ``dump`` gave; what is selected comes from the configuration."""
        for name, column in columns.items():
            setattr(self, name, column.copy())
        self.selected = np.zeros(len(self.last_ms), np.bool_)
        self.heard_ms = np.zeros(len(self.last_ms), np.int64)
        self.ask_ms = np.zeros(len(self.last_ms), np.int64)


def advance(cursors: Cursors, query: Query, rows: Points, to_ms: int, params: PollParams) -> Advance:
    """Take an answer: what in it is new, what came late, what repeats; move the frontiers.

    ``rows`` is the whole answer (all pages), in any order; ``to_ms`` the server's time of the answer.
    An answer without rows moves nothing: it may be the platform's way of failing. Rows of series that
    the query does not cover are left for the query that does, and rows from after the server's own time
    until then: one sample from a wrong year must not make all that follow it late.
    """
    asked = query.series
    settled_ms = to_ms - params.settle_ms
    if len(rows) and rows.t_ms.max() > settled_ms:
        rows = rows.take(rows.t_ms <= settled_ms)
    if len(rows) == 0:
        _wait(cursors, asked, to_ms)
        return Advance(Points.empty())
    sane = usable(rows.value) & (rows.t_ms > 0) & (rows.t_ms < _TIME_MAX)
    covers = np.zeros(len(cursors), np.bool_)
    covers[asked] = True
    mine = covers[rows.series] & cursors.selected[rows.series]
    # Rows of a silent series in an answer that is not about it: it is back, so ask for it at once.
    back = rows.series[~mine]
    cursors.ask_ms[back] = 0
    unusable = int(np.sum(mine & ~sane))
    foreign = int(np.sum(~mine))
    points, key = _distinct(rows if (mine & sane).all() else rows.take(mine & sane))
    repeats = len(rows) - unusable - foreign - len(points)
    last = cursors.last_ms[points.series]
    forgotten = points.t_ms < cursors.floor_ms[points.series]
    known = _among(key, cursors.seen) | forgotten
    repeats += int(known.sum())
    late = ~known & (points.t_ms < last)
    too_late = late & (points.t_ms < last - params.overlap_ms)
    fresh = ~known & ~too_late
    held = _behind_a_hole(cursors, query, points, fresh & ~late, to_ms, params)
    taken = fresh & ~held
    cursors.seen = np.sort(np.concatenate([cursors.seen, key[taken | too_late]]), kind="stable")
    out = Points(points.series, points.t_ms, points.value, late).take(taken)
    _move(cursors, query, out, points.series[held], settled_ms)
    _forget(cursors, params)
    return Advance(out, repeats, int(too_late.sum()), unusable, foreign, int(held.sum()))


def _distinct(rows: Points) -> tuple[Points, I64]:
    """One point for each (series, time), in that order, and its key; ties on a millisecond have no order on
    the platform, so the smallest value is kept: a choice that does not depend on it."""
    key = (rows.series << _TIME_BITS) | rows.t_ms
    order = np.argsort(key)
    key, value = key[order], rows.value[order]
    first = np.ones(len(key), np.bool_)
    np.not_equal(key[1:], key[:-1], out=first[1:])
    if not first.all():
        starts = np.flatnonzero(first)
        key, value = key[starts], np.minimum.reduceat(value, starts)
    return Points(key >> _TIME_BITS, key & (_TIME_MAX - 1), value), key


def _among(key: I64, sorted_keys: I64) -> Bool:
    if len(sorted_keys) == 0:
        return np.zeros(len(key), np.bool_)
    at = np.minimum(np.searchsorted(sorted_keys, key), len(sorted_keys) - 1)
    found: Bool = sorted_keys[at] == key
    return found


def _behind_a_hole(
    cursors: Cursors, query: Query, points: Points, new: Bool, to_ms: int, params: PollParams
) -> Bool:
    """Points of series that were silent for unusually long and whose silence this query did not read.

    A device that was offline sends its buffer when it is back: what it measured meanwhile may be visible
    by now, before the query's start. Those points wait for a query that starts at the series' last sample.
    When the silence began longer ago than any query reaches back, there is none to wait for.
    """
    last = cursors.last_ms[points.series]
    cadence = cursors.cadence_ms[points.series]
    silence = np.maximum(np.maximum(10 * cadence, 3 * params.overlap_ms), 30_000)
    readable = last >= max(0, to_ms - params.catchup_ms_max - params.overlap_ms)
    hole = new & readable & (cadence > 0) & (points.t_ms - last > silence) & (query.from_ms > last)
    starts = np.zeros(len(cursors), np.bool_)
    starts[points.series[hole & _first_new(points.series, new)]] = True
    return new & starts[points.series]


def _first_new(series: I64, new: Bool) -> Bool:
    """Marks the first new point of each series (points are in order of series and time)."""
    out = np.zeros(len(series), np.bool_)
    at = np.flatnonzero(new)
    if len(at):
        head = np.ones(len(at), np.bool_)
        head[1:] = series[at[1:]] != series[at[:-1]]
        out[at[head]] = True
    return out


def _move(cursors: Cursors, query: Query, taken: Points, held: I64, to_ms: int) -> None:
    if len(taken):
        _take(cursors, taken)
    # Only an answer up to the present can be waited on; one of the past has to bring the frontier forward.
    reached = _expected_from(cursors, query.series, to_ms) if query.to_ms is None else to_ms
    cursors.covered_ms[query.series] = np.maximum(cursors.covered_ms[query.series], reached)
    held = np.unique(held)
    cursors.covered_ms[held] = cursors.last_ms[held]
    heard = np.zeros(len(cursors), np.bool_)
    heard[taken.series] = True
    heard[held] = True
    behind = ~heard[query.series] & (cursors.covered_ms[query.series] < to_ms)
    cursors.heard_ms[heard] = to_ms
    cursors.ask_ms[query.series[~behind]] = 0
    _wait(cursors, query.series[behind], to_ms)


def _wait(cursors: Cursors, series: I64, to_ms: int) -> None:
    """Ask for silent series every time for SILENT_MS, then ever more rarely (once they are behind)."""
    heard = cursors.heard_ms[series]
    heard = cursors.heard_ms[series] = np.where(heard > 0, heard, to_ms)
    cursors.ask_ms[series] = to_ms + np.clip((to_ms - heard - SILENT_MS) // 4, 0, WAIT_MS_MAX)


def _expected_from(cursors: Cursors, series: I64, to_ms: int) -> I64:
    """From when on samples of each series may still come, as of ``to_ms``.

    The next sample is due about a cadence after the last one, and is visible later than that: devices send
    in batches, and their clocks run behind. So a series waits there for SILENT_MS; and for as long as it
    takes when it is silent for many times its cadence: a device that is offline sends its buffer when it is
    back, and one whose clock is minutes slow never catches up. One that is merely slow waits for nothing.
    """
    last, cadence = cursors.last_ms[series], cursors.cadence_ms[series]
    due = last + (cadence / 2).astype(np.int64)
    silence = to_ms - last
    waits = (silence <= SILENT_MS) | ((cadence > 0) & (silence > SILENT_SAMPLES * cadence))
    return np.where((last >= 0) & waits, np.minimum(due, to_ms), to_ms)


def _take(cursors: Cursors, taken: Points) -> None:
    series = taken.series
    gap = np.diff(taken.t_ms).astype(np.float64)
    inner = (series[1:] == series[:-1]) & ~taken.late[1:] & ~taken.late[:-1] & (gap > 0)
    _learn_cadence(cursors, series[1:][inner], gap[inner])
    at = _first_new(series, ~taken.late) & (cursors.last_ms[series] >= 0)
    step = (taken.t_ms[at] - cursors.last_ms[series[at]]).astype(np.float64)
    _learn_cadence(cursors, series[at][step > 0], step[step > 0])
    np.maximum.at(cursors.last_ms, series, taken.t_ms)


def _learn_cadence(cursors: Cursors, series: I64, gap: F64) -> None:
    """The cadence follows the mean gap of an answer, a hole counting as at most ten of the usual."""
    if len(series) == 0:
        return
    known = cursors.cadence_ms[series]
    gap = np.where(known > 0, np.minimum(gap, 10 * known), gap)
    n = np.bincount(series, minlength=len(cursors))
    total = np.bincount(series, weights=gap, minlength=len(cursors))
    at = np.flatnonzero(n)
    mean = total[at] / n[at]
    before = cursors.cadence_ms[at]
    rate = np.where(before > 0, 1.0 - 0.9 ** n[at], 1.0)
    cursors.cadence_ms[at] = before + rate * (mean - before)


def _forget(cursors: Cursors, params: PollParams) -> None:
    """Keep the memory of recent samples bounded: twice the overlap and a minute behind each last one."""
    series = cursors.seen >> _TIME_BITS
    horizon = 2 * params.overlap_ms + 60_000
    cursors.floor_ms = np.maximum(cursors.floor_ms, cursors.last_ms - horizon)
    old = (cursors.seen & (_TIME_MAX - 1)) < cursors.floor_ms[series]
    if old.any():
        cursors.seen = cursors.seen[~old]


def retake(cursors: Cursors, points: Points, params: PollParams) -> None:
    """Take points that an earlier run had accepted, in its order: the same memory as it had then."""
    if len(points) == 0:
        return
    key = np.sort((points.series << _TIME_BITS) | points.t_ms)
    cursors.seen = np.sort(np.concatenate([cursors.seen, key]), kind="stable")
    _take(cursors, points)
    _forget(cursors, params)
