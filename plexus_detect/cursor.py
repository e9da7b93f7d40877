"""Where each series stands, and what an answer covered.

Polling, catching up after an outage and a cold start are one path: a series has a frontier, the queries
reach from the frontier to now, an answer moves the frontier. Facts of the platform that shape it
(contract sections 2 and 14): one request can carry every source, or one; both ends of the window are
inclusive; a cut-off answer keeps the *newest* rows; an empty answer may be a failure, so it moves nothing.
"""

from __future__ import annotations

from collections import Counter
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

# Recent samples of one series that are remembered: this bounds memory whatever a device sends.
SEEN_MAX = 8192

# Values of one sample that are told apart; a device whose clock stands still sends them without end.
REVISIONS_MAX = 8


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
    """What an answer brought: ``points`` to score in order of series and time, and counts of the rest.

    ``revised`` of them are other values of samples that are known; like late ones they are marked so.
    """

    points: Points
    repeats: int = 0
    revised: int = 0
    unusable: int = 0
    foreign: int = 0
    held_back: int = 0


@dataclass
class Cursors:
    """Columns, one row a series of the table.

    ``last_ms`` newest sample taken (-1: none yet); ``covered_ms`` everything visible up to here has been
    read (-1: cold); ``cadence_ms`` typical distance of samples (0: unknown); ``selected`` whether we score
    it. ``seen`` holds sorted keys (series, time) of recent samples with the value taken of each, to tell a
    late or revised point from a repeat; ``other`` the keys of further values, and ``floor_ms`` says how far
    back that memory reaches. ``late_n`` and ``revised_n`` count since the series is known; one that has
    vanished is ``expired``. ``heard_ms`` is the server's time of the last answer with a new sample; a series
    that is behind and silent is asked for again at ``ask_ms``. ``purged``: ``seen`` when last cleaned.
    """

    last_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    covered_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    floor_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    cadence_ms: F64 = field(default_factory=lambda: np.zeros(0))
    selected: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))
    heard_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    ask_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    expired: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))
    late_n: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    revised_n: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    seen: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    seen_value: F64 = field(default_factory=lambda: np.zeros(0))
    other: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    other_value: F64 = field(default_factory=lambda: np.zeros(0))
    purged: int = 0

    def __len__(self) -> int:
        return len(self.last_ms)

    def grow(self, n: int) -> None:
        """Room for ``n`` series; the new ones are cold and not selected."""
        for name in (*_KEPT, *_PASSING):
            setattr(self, name, grown(getattr(self, name), n, -1 if name in ("last_ms", "covered_ms") else 0))

    def dump(self, n: int) -> dict[str, npt.NDArray[np.generic]]:
        """The columns of the first ``n`` series by name, and the memory of samples, for a snapshot."""
        _purge(self)
        return {name: getattr(self, name)[:n] for name in _KEPT} | {k: getattr(self, k) for k in _MEMORY}

    def load(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take over what ``dump`` gave; what is selected comes from the configuration."""
        n = len(columns["last_ms"])
        for name in (*_KEPT, *_PASSING):
            # A snapshot of version 0.3 counted nothing.
            blank = np.zeros(n, getattr(self, name).dtype)
            setattr(self, name, columns[name].copy() if name in columns else blank)
        self.selected = np.zeros(n, np.bool_)
        for name in _MEMORY:
            held = columns.get(name)
            setattr(self, name, getattr(self, name)[:0] if held is None else held.copy())
        if "seen_value" not in columns:
            self.seen_value = np.full(len(self.seen), np.nan)


# Columns that a snapshot keeps, those that a start makes anew, and the memory of recent samples.
_KEPT = ("last_ms", "covered_ms", "floor_ms", "cadence_ms", "late_n", "revised_n", "expired")
_PASSING = ("selected", "heard_ms", "ask_ms")
_MEMORY = ("seen", "seen_value", "other", "other_value")


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
    points = _distinct(rows if (mine & sane).all() else rows.take(mine & sane))
    known, revised = _known(cursors, points)
    late = ~known & ~revised & (points.t_ms < cursors.last_ms[points.series])
    held = _behind_a_hole(cursors, query, points, ~(known | revised | late), to_ms, params)
    # What is said of a sample that waits, waits with it.
    held |= revised & _among(_key(points), _key(points.take(held)))
    taken = ~known & ~held
    repeats = len(rows) - unusable - foreign - int((~known).sum())
    out = Points(points.series, points.t_ms, points.value, late | revised).take(taken)
    np.add.at(cursors.late_n, points.series[late & taken], 1)
    np.add.at(cursors.revised_n, points.series[revised & taken], 1)
    _remember(cursors, out, ~revised[taken])
    _move(cursors, query, out, points.series[held], settled_ms)
    _forget(cursors, params)
    counts = (repeats, int((revised & taken).sum()), unusable, foreign, int(held.sum()))
    return Advance(out, *counts)


def _key(points: Points) -> I64:
    return (points.series << _TIME_BITS) | points.t_ms


def _distinct(rows: Points) -> Points:
    """One point for each (series, time, value), in that order: ties on a millisecond have no order on the
    platform, so the smallest value comes first, a choice that does not depend on it."""
    key = _key(rows)
    order = np.argsort(key)
    if len(order) > 1 and (np.diff(key[order]) == 0).any():
        order = np.lexsort((rows.value, key))
        same = (np.diff(key[order]) == 0) & (np.diff(rows.value[order]) == 0.0)
        order = order[np.flatnonzero(np.append(True, ~same))]
    return rows.take(order)


def _known(cursors: Cursors, points: Points) -> tuple[Bool, Bool]:
    """Which points were taken before, or are older than what is remembered; and which are new values of
    samples that were taken, or that stand in the same answer, with a smaller value, just before them."""
    key = _key(points)
    at = np.minimum(np.searchsorted(cursors.seen, key), max(0, len(cursors.seen) - 1))
    here = cursors.seen[at] == key if len(cursors.seen) else np.zeros(len(key), np.bool_)
    taken = cursors.seen_value[at] if len(cursors.seen) else np.full(len(key), np.nan)
    same = here & ((taken == points.value) | np.isnan(taken))
    known = same | (points.t_ms < cursors.floor_ms[points.series])
    again = np.append(False, key[1:] == key[:-1]) if len(key) else here
    revised = ~known & (here | again)
    if revised.any():
        heard = set(zip(cursors.other.tolist(), cursors.other_value.tolist(), strict=True))
        count = Counter(cursors.other.tolist())
        for i in np.flatnonzero(revised).tolist():
            one = int(key[i]), float(points.value[i])
            if one in heard or count[one[0]] >= REVISIONS_MAX:
                known[i], revised[i] = True, False
            count[one[0]] += 1
    return known, revised


def _remember(cursors: Cursors, taken: Points, first: Bool) -> None:
    """Keep what was taken, in order: the ``first`` value of a sample as its own, others apart."""
    key, value = _key(taken), taken.value
    at = np.searchsorted(cursors.seen, key[first])
    cursors.seen = np.insert(cursors.seen, at, key[first])
    cursors.seen_value = np.insert(cursors.seen_value, at, value[first])
    if not first.all():
        cursors.other = np.concatenate([cursors.other, key[~first]])
        cursors.other_value = np.concatenate([cursors.other_value, value[~first]])


def _among(key: I64, sorted_keys: I64) -> Bool:
    if len(sorted_keys) == 0:
        return np.zeros(len(key), np.bool_)
    at = np.minimum(np.searchsorted(sorted_keys, key), len(sorted_keys) - 1)
    found: Bool = sorted_keys[at] == key
    return found


def _behind_a_hole(
    cursors: Cursors, query: Query, points: Points, new: Bool, to_ms: int, params: PollParams
) -> Bool:
    """Points of series of which a sample was due, but not there, in what this query did not read.

    A device that was offline sends its buffer when it is back: what it measured meanwhile may be visible
    by now, before the query's start. Those points wait for a query that starts at the series' last sample.
    When the silence began longer ago than any query reaches back, there is none to wait for.
    """
    last = cursors.last_ms[points.series]
    cadence = cursors.cadence_ms[points.series]
    readable = last >= max(0, to_ms - params.catchup_ms_max - params.overlap_ms)
    unread = (query.from_ms > last + cadence / 2) & (points.t_ms > last + 1.5 * cadence)
    hole = new & readable & (cadence > 0) & unread
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
    """The cadence follows the mean gap of an answer, a hole counting as at most three of the usual."""
    if len(series) == 0:
        return
    known = cursors.cadence_ms[series]
    gap = np.where(known > 0, np.minimum(gap, 3 * known), gap)
    n = np.bincount(series, minlength=len(cursors))
    total = np.bincount(series, weights=gap, minlength=len(cursors))
    at = np.flatnonzero(n)
    mean = total[at] / n[at]
    before = cursors.cadence_ms[at]
    rate = np.where(before > 0, 1.0 - 0.9 ** n[at], 1.0)
    cursors.cadence_ms[at] = before + rate * (mean - before)


def _forget(cursors: Cursors, params: PollParams) -> None:
    """Keep the memory of recent samples bounded: twice the overlap and a minute behind each last one, and
    SEEN_MAX samples of each series. What is older counts as known, and goes when much of it is old."""
    horizon = 2 * params.overlap_ms + 60_000
    cursors.floor_ms = np.maximum(cursors.floor_ms, cursors.last_ms - horizon)
    if len(_crowded(cursors)):
        _purge(cursors)
        for series in _crowded(cursors).tolist():
            end = np.searchsorted(cursors.seen, (series + 1) << _TIME_BITS)
            cursors.floor_ms[series] = cursors.seen[end - SEEN_MAX] & (_TIME_MAX - 1)
        _purge(cursors)
    elif len(cursors.seen) > 1.25 * cursors.purged + 100:
        _purge(cursors)


def _crowded(cursors: Cursors) -> I64:
    """The series with more than SEEN_MAX samples: in order, one stands at both ends of so long a stretch."""
    if len(cursors.seen) <= SEEN_MAX:
        return np.zeros(0, np.int64)
    series = cursors.seen >> _TIME_BITS
    return np.unique(series[SEEN_MAX:][series[SEEN_MAX:] == series[:-SEEN_MAX]])


def _purge(cursors: Cursors) -> None:
    old = (cursors.seen & (_TIME_MAX - 1)) < cursors.floor_ms[cursors.seen >> _TIME_BITS]
    if old.any():
        cursors.seen, cursors.seen_value = cursors.seen[~old], cursors.seen_value[~old]
        if len(cursors.other):
            kept = _among(cursors.other, cursors.seen)
            cursors.other, cursors.other_value = cursors.other[kept], cursors.other_value[kept]
    cursors.purged = len(cursors.seen)


def retake(cursors: Cursors, points: Points, params: PollParams) -> None:
    """Take points that an earlier run had accepted, in its order: the same memory as it had then."""
    if len(points) == 0:
        return
    known = len(cursors.other)
    key = _key(points)
    order = np.argsort(key, kind="stable")
    key = key[order]
    _remember(cursors, points.take(order), np.append(True, key[1:] != key[:-1]) & ~_among(key, cursors.seen))
    revised = np.bincount(cursors.other[known:] >> _TIME_BITS, minlength=len(cursors))
    late = np.bincount(points.series[points.late], minlength=len(cursors)) - revised
    cursors.late_n, cursors.revised_n = cursors.late_n + late, cursors.revised_n + revised
    _take(cursors, points)
    _forget(cursors, params)
