"""Alert budget: how far a series' line must be raised so that it alerts no more often than it may.

Calibration is worth more than the choice of statistic, and no fixed line gives two series the same number
of false alarms. So the openings of episodes are counted at 32 levels between 1 and 30 times the line, with
the same M of N as the episodes have, per day on which the series was seen; old ones fade with a half-life
of 14 such days. The line goes to the lowest level at which the series stays within its share of the budget.
What is rarer than anything seen is extrapolated with a power law fitted to the openings above the highest
level that has a few (Hill, The Annals of Statistics 3, 1975; Weissman, JASA 73, 1978).

An incident counts once at each level: openings less than six hours after another one at the same level
belong to it, so that one long true anomaly does not silence a series. The counts are of peaks of the past
only: the line of a point never depends on that point.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from plexus_detect.series import F64, I64, Bool, aftermath, rounds
from plexus_detect.stats import grown

LEVEL_MAX = 30.0
LEVELS: F64 = np.geomspace(1.0, LEVEL_MAX, 32)
HALF_LIFE_HOURS = 14 * 24
INCIDENT_MS = 6 * 3_600_000

_HOUR_MS = 3_600_000
_STEP = float(np.log(LEVELS[1]))
_FADE = 0.5 ** (1.0 / HALF_LIFE_HOURS)
# Clocks that were set back by more than this begin a new hour; smaller steps back are late samples.
_BACK_HOURS = 24
# Of the tail's exponent: what it is before anything was seen, and how many openings that weighs.
_EXPONENT, _EXPONENT_WEIGHT = 2.0, 3.0
# Openings that a level must have for the tail to begin there; openings nobody saw but that may come.
_ANCHOR_MIN, _UNSEEN = 3.0, 0.5
# Days without an opening that every series is taken to have had: the first one does not end all alerts.
_CALM_DAYS = 7.0
_NEVER_MS = -(1 << 62)
_FILL: dict[str, float] = {"hour": -1, "factor": 1.0, "last_ms": _NEVER_MS}


class Budget:
    """How far the line of each series of a bank is raised, one row a series.

    ``m``, ``n``, ``close_after`` and ``at_once`` are those of the episodes that the budget is for.
    """

    def __init__(self, m: int, n: int, close_after: int, at_once: float = 0.0) -> None:
        self.m, self.n, self.at_once = m, n, at_once
        self.close_after = min(close_after, 64)
        self.recent = np.zeros((0, max(n, self.close_after)))
        self.active = np.zeros(0, np.bool_)
        self.run = np.zeros(0, np.int64)
        self.openings = np.zeros((0, len(LEVELS)))
        self.last_ms = np.zeros((0, len(LEVELS)), np.int64)
        self.hour = np.zeros(0, np.int64)
        self.hours = np.zeros(0)
        self.factor = np.zeros(0)

    def grow(self, n_series: int) -> None:
        """Room for ``n_series`` series; the new ones have the detector's own line."""
        for name, column in self.dump().items():
            setattr(self, name, grown(column, n_series, _FILL.get(name, 0)))

    def step(self, rows: I64, t_ms: I64, score: F64, late: Bool, share_per_day: F64) -> F64:
        """How many times further out the line is for each point, which is then counted.

        ``score`` is 1.0 at the detector's own line, in order of time, NaN where there is none;
        ``share_per_day`` are the openings that its row may have a day. All are columns of one length.
        """
        live = ~late & ~np.isnan(score)
        beyond = live & (score > 1.0)
        hour = t_ms // _HOUR_MS
        if (rows[1:] > rows[:-1]).all():
            marked = beyond | self.active[rows] | (live & (hour != self.hour[rows]))
            at = np.flatnonzero(marked & live)
            self._step(rows[at], t_ms[at], score[at], share_per_day[at])
            return self.factor[rows]
        order = np.argsort(rows, kind="stable")
        first = np.diff(rows[order], prepend=-1) != 0
        marked = self._marked(rows[order], first, beyond[order], live[order], hour[order])
        at = np.sort(order[marked])
        out = self.factor[rows]
        for part in rounds(rows[at]):
            here = at[part]
            self._step(rows[here], t_ms[here], score[here], share_per_day[here])
            out[here] = self.factor[rows[here]]
        # Between the marked points nothing moves: what the last of them left holds.
        last = np.maximum.accumulate(np.where(marked | first, np.arange(len(order)), 0))
        out[order] = out[order][last]
        return out

    def _marked(self, rows: I64, first: Bool, beyond: Bool, live: Bool, hour: I64) -> Bool:
        """Points, sorted by row, that can change anything."""
        begins = beyond | (first & self.active[rows])
        marked = aftermath(first, begins, live, self.recent.shape[1])
        same = np.zeros(len(rows), np.bool_)
        same[1:] = (hour[1:] == hour[:-1]) & live[:-1] & ~first[1:]
        same[first] = hour[first] == self.hour[rows[first]]
        found: Bool = (marked | ~same) & live
        return found

    def _step(self, rows: I64, t_ms: I64, score: F64, share_per_day: F64) -> None:
        """Take a score of each of several (distinct) rows."""
        hour, was = t_ms // _HOUR_MS, self.hour[rows]
        turns = (hour > was) | (hour < was - _BACK_HOURS)
        if turns.any():
            self._turn(rows[turns], hour[turns], share_per_day[turns])
        some = self.active[rows] | (score > 1.0)
        rows, t_ms, score = rows[some], t_ms[some], score[some]
        recent = np.empty((len(rows), self.recent.shape[1]))
        recent[:, 1:] = self.recent[rows, :-1]
        recent[:, 0] = np.where(score > 1.0, score, 0.0)
        held = np.sort(recent[:, : self.n], axis=1)[:, self.n - self.m]
        if self.at_once > 0.0:
            held = np.maximum(held, score / self.at_once)
        # The episode would have opened at every level below the first, and not yet closed below the second.
        reach = np.searchsorted(LEVELS, np.minimum(held, score))
        hold = np.searchsorted(LEVELS, recent[:, : self.close_after].max(axis=1, initial=0.0))
        run = self.run[rows]
        self.recent[rows], self.active[rows] = recent, recent.any(axis=1)
        self.run[rows] = np.minimum(np.maximum(run, reach), hold)
        if len(opens := np.flatnonzero(reach > run)):
            self._count(rows[opens], t_ms[opens], run[opens], reach[opens])

    def _count(self, rows: I64, t_ms: I64, low: I64, high: I64) -> None:
        """Count an opening at the levels from ``low`` to before ``high``."""
        level = np.arange(len(LEVELS))
        opened = (level >= low[:, None]) & (level < high[:, None])
        gap = t_ms[:, None] - self.last_ms[rows]
        self.openings[rows] += opened & ((gap >= INCIDENT_MS) | (gap < 0))
        self.last_ms[rows] = np.where(opened, t_ms[:, None], self.last_ms[rows])

    def _turn(self, rows: I64, hour: I64, share_per_day: F64) -> None:
        """Another hour in which these rows were seen begins: fade the counts and set the line anew."""
        self.hour[rows] = hour
        self.hours[rows] = _FADE * self.hours[rows] + 1.0
        counted = self.openings[rows, 0] > 0.0
        rows, share = rows[counted], share_per_day[counted]
        if len(rows):
            self.openings[rows] *= _FADE
            self.factor[rows] = line_factor(self.openings[rows], self.hours[rows] / 24.0, share)

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """Every column by name, for a snapshot."""
        names = ("recent", "active", "run", "openings", "last_ms", "hour", "hours", "factor")
        return {name: getattr(self, name) for name in names}

    def load(self, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Take over what ``dump`` gave for the same episodes."""
        for name in self.dump():
            setattr(self, name, columns[name].copy())


def line_factor(openings: F64, days: F64, share_per_day: F64) -> F64:
    """The lowest multiple of the line, from 1 to 30, with at most ``share_per_day`` expected openings a day.

    ``openings`` (rows, 32) are the counts at the levels in ``days`` (rows,).
    """
    # A line raised so far that an endless episode breaks up opens more often than one below it.
    count = np.maximum.accumulate(openings[:, ::-1], axis=1)[:, ::-1]
    allowed = np.maximum(share_per_day * (days + _CALM_DAYS), 1e-12)
    within = count + _UNSEEN <= allowed[:, None]
    direct = np.where(within.any(axis=1), LEVELS[np.argmax(within, axis=1)], LEVEL_MAX)
    enough = count >= _ANCHOR_MIN
    anchor = np.maximum(enough.sum(axis=1) - 1, 0)
    at = np.arange(len(count)), anchor
    # The largest opening has no say in how heavy the tail is: it may have been a true anomaly.
    rest = np.maximum(count - 1.0, 0.0)
    above = np.where(np.arange(len(LEVELS)) > anchor[:, None], rest, 0.0).sum(axis=1)
    log_excess = _STEP * (above + 0.5 * rest[at])
    exponent = (rest[at] + _EXPONENT_WEIGHT) / (log_excess + _EXPONENT_WEIGHT / _EXPONENT)
    beyond = np.maximum((count[at] + _UNSEEN) / allowed, 1.0)
    with np.errstate(over="ignore"):
        far = LEVELS[anchor] * beyond ** (1.0 / exponent)
    factor: F64 = np.minimum(np.minimum(direct, far), LEVEL_MAX)
    return factor
