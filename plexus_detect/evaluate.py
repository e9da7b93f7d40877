"""Points and state to scores, episodes and derived points: the one path of worker, replay and doors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from plexus_detect.closing import owing
from plexus_detect.fleet import GroupMove, Verdict
from plexus_detect.groups import Group
from plexus_detect.lane import Cohort, Lane, Policy, Rule
from plexus_detect.memory import State, dump, load
from plexus_detect.series import F64, I64, Bool, Derived, Kind, Points, Reason, Scores, released, together

__all__ = ["Cohort", "Evaluation", "Event", "Policy", "Rule", "State", "dump", "evaluate", "load"]

Columns = Mapping[str, npt.NDArray[np.generic]]
What = Literal["opened", "closed", "relearned"]

# Posted series that say what was expected, or what single checks found.
DESCRIBING = frozenset({Kind.EXPECTED, Kind.LOWER, Kind.UPPER, Kind.DRIFT, Kind.STUCK})

# The names for one score that monitors watch. The platform has one threshold for a metric of a source, so a
# second bound on the same score, a milder or a harder one, needs a second name (contract section 4).
WATCHED = {
    Kind.ZSCORE: (Kind.ZSCORE, Kind.ZSCORE_CRITICAL),
    Kind.FLEET_ZSCORE: (Kind.FLEET_ZSCORE,),
}


@dataclass(frozen=True)
class Event:
    """Something a person wants to read: an episode opened or closed, or a new level became normal.

    ``value`` is the sample, ``expected`` what the detector expected, ``score`` the z-score (its peak for
    a closed episode), ``since_ms`` the first sample of the episode, ``reason`` the check that scored highest,
    ``verdict`` what the device is doing in the light of its peers. Of a fleet event ``value`` and ``score``
    are the number of devices beyond their own line, and the series is the first of the fleet. Of a group
    ``value`` is the score of the row, ``blame`` the metrics with the largest shares in it, and ``backend``
    what judged it.
    """

    what: What
    series: int
    kind: Kind
    t_ms: int
    since_ms: int
    value: float
    expected: float
    score: float
    reason: Reason
    verdict: Verdict = Verdict.NORMAL
    blame: tuple[tuple[str, float], ...] = ()
    backend: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What one step gave: scores aligned with the points, derived points to post, events in order of time.

    ``unknown`` counts the points without a score of their own by reason (``LEARNED``: only groups take them),
    ``fleet_unknown`` those without a score against the fleet. ``groups`` are the rows that groups judged,
    under the series of their scores, which are the values; NaN without a model.
    """

    scores: Scores
    derived: Derived
    events: tuple[Event, ...]
    unknown: Mapping[Reason, int] = field(default_factory=dict)
    fleet_unknown: Mapping[Reason, int] = field(default_factory=dict)
    groups: Points = field(default_factory=Points.empty)


@dataclass
class _Output:
    """What one evaluation gives, while it is being put together."""

    state: State
    derived: list[Derived] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def add(self, kind: Kind, points: Points, scores: Scores, lane: Lane, quiet: Bool) -> None:
        """Step the episodes with scored points; add what is to be posted and told. Points that are ``quiet``
        have their score, but count as inside the line: they are part of an event of the whole fleet."""
        of_fleet = kind is Kind.FLEET_ZSCORE
        line, teller = (lane.fleet_line, lane.fleet) if of_fleet else (lane.line, lane.detector)
        relearned = teller.relearned() if teller is not None else np.zeros(0, np.int64)
        rows = self.state.row_of[points.series]
        last = self.state.last_fleet_z if of_fleet else self.state.last_z
        last[points.series[~points.late]] = scores.z[~points.late]
        counted = np.where(quiet & ~np.isnan(scores.z), 0.0, scores.z)
        value, moves = line.episodes.step(rows, points.t_ms, counted, points.late, scores.reason)
        verdict = lane.verdict(_local(self.state, points), scores, quiet, of_fleet=of_fleet)
        audible = points.t_ms >= self.state.emit_from_ms[points.series]

        def tell(what: What, at: int, since_ms: int, score: float, reason: int) -> None:
            if audible[at]:
                of_point = int(points.series[at]), kind, int(points.t_ms[at])
                seen = float(points.value[at]), float(scores.centre[at])
                by = Reason(reason), Verdict(int(verdict[at]))
                self.events.append(Event(what, *of_point, since_ms, *seen, score, *by))

        for move in moves:
            score = float(scores.z[move.at]) if move.opened else move.peak
            tell("opened" if move.opened else "closed", move.at, move.since_ms, score, move.reason)
        for at in relearned.tolist():
            tell("relearned", at, int(points.t_ms[at]), float(scores.z[at]), int(scores.reason[at]))
        raw = Kind.ZSCORE_RAW if kind is Kind.ZSCORE else Kind.FLEET_ZSCORE_RAW
        is_open = line.episodes.is_open[rows]
        names = [name for name in WATCHED[kind] if name in self.state.policy.kinds]
        calmed = {name: self.calmed(name, points.series, value, is_open) for name in names}
        # What a late sample says must not page: monitors judge values when they arrive (contract 5.1).
        self.post(points, audible & ~points.late, {**calmed, raw: scores.z})
        if points.late.any():
            self.post(points, audible & _worst(points, value), {Kind.ZSCORE_LATE: value})

    def calmed(self, kind: Kind, series: I64, value: F64, is_open: Bool) -> F64:
        """The values to post, with a zero where there is none and an alert may be open without an episode."""
        if not self.state.owed:
            return value
        owes = owing(self.state.owed, kind, len(self.state.table))[series]
        return np.where(np.isnan(value) & owes & ~is_open, 0.0, value)

    def gather(self, lane: Lane, points: Points, moves: list[GroupMove], column: F64) -> None:
        """Add the events of whole fleets: one each, told of the first device of the fleet, however many take
        part."""
        for move in moves:
            series, t_ms = lane.first_of[move.group], int(points.t_ms[move.at])
            if t_ms >= self.state.emit_from_ms[series]:
                what: What = "opened" if move.opened else "closed"
                of = what, series, Kind.FLEET_EVENT, t_ms, move.since_ms, float(move.members), np.nan
                self.events.append(Event(*of, float(move.members), Reason.FLEET, Verdict.FLEET_EVENT))
        audible = points.t_ms >= self.state.emit_from_ms[points.series]
        self.post(
            points,
            audible & self.state.compared[points.series] & ~points.late,
            {Kind.FLEET_EVENT: column},
        )

    def post(self, points: Points, audible: Bool, columns: Mapping[Kind, F64]) -> None:
        """Add those of the columns that are wanted, where there is a number.

        Of a late sample nothing is posted but its own kind, so that a time has one score in every series.
        """
        for kind, column in columns.items():
            if kind in self.state.policy.kinds:
                given = np.flatnonzero(audible & np.isfinite(column))
                codes = np.full(len(given), int(kind), np.int8)
                self.derived.append(Derived(points.series[given], codes, points.t_ms[given], column[given]))

    def judge(self, group: Group, points: Points, now_ms: int, clock: I64 | None) -> Points:
        """Let a group join and judge points; returns its rows with their scores, under its own series."""
        found = group.step(points, now_ms, self.state.policy.fleet_settle_ms, clock)
        rows = Points(group.posted_as[found.rows.feed], found.rows.t_ms, found.z)
        known = rows.series >= 0
        self.state.last_z[rows.series[known]] = rows.value[known]
        audible = known & (rows.t_ms >= self.state.emit_from_ms[rows.series])
        for move in found.moves:
            if audible[move.at]:
                score = float(found.z[move.at])
                what: What = "opened" if move.opened else "closed"
                of = what, int(rows.series[move.at]), Kind.ANOMALY, int(rows.t_ms[move.at]), move.since_ms
                seen = score, 0.0, score if move.opened else move.peak
                blame = group.blamed(found.shares[move.at]) if move.opened else ()
                event = Event(*of, *seen, Reason.LEARNED, backend=group.rule.backend, blame=blame)
                self.events.append(event)
        is_open = group.episodes.is_open[found.rows.feed]
        self.post(rows, audible, {Kind.ANOMALY: self.calmed(Kind.ANOMALY, rows.series, found.value, is_open)})
        return rows.take(known)

    def describe(self, lane: Lane, points: Points, scores: Scores) -> None:
        """Add what was expected of scored points, and the checks that have a series of their own."""
        if not self.state.policy.kinds & DESCRIBING:
            return
        known = ~np.isnan(scores.z) & ~points.late
        lower, upper = lane.limits.band(_local(self.state, points), scores, lane.line.threshold)
        columns = {Kind.EXPECTED: scores.centre, Kind.LOWER: lower, Kind.UPPER: upper}
        for kind, check in ((Kind.DRIFT, Reason.DRIFT), (Kind.STUCK, Reason.STUCK)):
            if check in scores.parts:
                columns[kind] = np.abs(scores.parts[check])
        self.post(points, known & (points.t_ms >= self.state.emit_from_ms[points.series]), columns)


def evaluate(state: State, points: Points, now_ms: int, clock: I64 | None = None) -> Evaluation:
    """Score points (of admitted series; each series' points in order of time), step episodes, derive.

    Fleets see the points ``fleet_settle_ms`` later, all sources in one order of time, so that the result
    does not depend on which poll brought which point. Of a stream, whose points stand in their order of
    arrival, ``clock`` says what time it was at each of them, ascending, the last one not after ``now_ms``:
    then all is as if every point had been taken alone, whatever they are cut into.
    """
    out = _Output(state)
    scores = Scores(*np.full((3, len(points)), np.nan))
    lane_of = state.rule_of[points.series]
    for index, lane in enumerate(state.lanes):
        at = together(np.flatnonzero(lane_of == index))
        mine = points.take(at)
        part = lane.score(_local(state, mine), state.shares(mine.series, now_ms))
        scores.z[at], scores.centre[at], scores.scale[at] = part.z, part.centre, part.scale
        scores.reason[at], scores.fresh[at] = part.reason, part.fresh
        inside, moves = lane.share(_local(state, mine), part, arrived=clock is not None)
        out.add(Kind.ZSCORE, mine, part, lane, inside)
        out.gather(lane, mine, moves, np.where(np.isnan(part.z), np.nan, inside))
        out.describe(lane, mine, part)
    fleet_unknown = _score_fleets(out, points, now_ms, clock)
    scores.reason[lane_of < 0] = Reason.LEARNED
    judged = Points.concat([out.judge(group, points, now_ms, clock) for group in state.groups])
    events = sorted(out.events, key=lambda e: (e.t_ms, e.series, e.kind))
    derived = Derived.concat(out.derived)
    return Evaluation(scores, derived, tuple(events), _unknown(scores), fleet_unknown, judged)


def _worst(points: Points, value: F64) -> Bool:
    """Marks one late point of each series and time, of several values the one that scores highest: a time has
    one score, whatever is said of it at once."""
    late = np.flatnonzero(points.late)
    late = late[np.lexsort((np.nan_to_num(value[late], nan=-1.0), points.t_ms[late], points.series[late]))]
    series, t_ms = points.series[late], points.t_ms[late]
    out = np.zeros(len(points), np.bool_)
    out[late[np.append((series[1:] != series[:-1]) | (t_ms[1:] != t_ms[:-1]), True)]] = True
    return out


def _unknown(scores: Scores) -> dict[Reason, int]:
    """How many scores are missing, by reason."""
    codes, counts = np.unique(scores.reason[np.isnan(scores.z)], return_counts=True)
    return {Reason(code): n for code, n in zip(codes.tolist(), counts.tolist(), strict=True)}


def _local(state: State, points: Points) -> Points:
    """Points with the rows of their lane in place of the numbers of their series."""
    return Points(state.row_of[points.series], points.t_ms, points.value, points.late)


def _ripe(state: State, came: Points, at: I64, now_ms: int, clock: I64 | None) -> Points:
    """The points that the fleets see now, in the order in which they do; the others wait. ``at`` are the
    positions in ``clock`` of those that just came."""
    settle_ms, held = state.policy.fleet_settle_ms, len(state.waiting)
    waiting = Points.concat([state.waiting, came])
    if clock is None:
        # A device whose clock is ahead is not waited for: its points count as of now.
        due = (waiting.t_ms <= now_ms - settle_ms) | (waiting.t_ms > now_ms + settle_ms)
        step = np.zeros(len(waiting), np.int64)
    else:
        step = released(waiting.t_ms, np.append(np.full(held, -1), at), clock, settle_ms)
        due = step < len(clock)
    state.waiting = waiting.take(~due)
    ripe, step = waiting.take(due), step[due]
    return ripe.take(np.lexsort((ripe.series, ripe.t_ms, step)))


def _score_fleets(out: _Output, points: Points, now_ms: int, clock: I64 | None) -> dict[Reason, int]:
    """Score what is ripe against the fleets; returns how many of these have no score, by reason."""
    state = out.state
    unknown: Counter[Reason] = Counter()
    if not state.compared.any():
        return unknown
    eligible = np.flatnonzero(state.compared[points.series] & ~points.late)
    ripe = _ripe(state, points.take(eligible), eligible, now_ms, clock)
    lane_of = state.rule_of[ripe.series]
    for index, lane in enumerate(state.lanes):
        if lane.fleet is not None:
            mine = ripe.take(together(np.flatnonzero(lane_of == index)))
            shares = state.shares(mine.series, now_ms)
            scores = lane.score_fleet(lane.fleet, _local(state, mine), shares)
            out.add(Kind.FLEET_ZSCORE, mine, scores, lane, np.zeros(len(mine), np.bool_))
            unknown.update(_unknown(scores))
    return unknown
