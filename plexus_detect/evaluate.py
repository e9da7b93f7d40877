"""Points and state to scores, episodes and derived points: the one path of worker, replay and doors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from plexus_detect.detectors import DEFAULT, REGISTRY, DetectorParams
from plexus_detect.episode import EpisodeParams, Episodes, Transitions
from plexus_detect.fleet import Fleet, FleetParams
from plexus_detect.series import F64, I64, Bool, Derived, Kind, Points, Scores, SeriesTable, rounds
from plexus_detect.stats import grown

Columns = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Rule:
    """How a set of series is scored: its detector, its episodes, and its fleets (None: no fleets)."""

    name: str = "series"
    detector: str = DEFAULT
    params: DetectorParams = field(default_factory=DetectorParams)
    episode: EpisodeParams = field(default_factory=EpisodeParams)
    fleet: FleetParams | None = None
    fleet_episode: EpisodeParams = field(default_factory=EpisodeParams)

    def fingerprint(self) -> str:
        """Everything that a snapshot of this rule's state depends on."""
        fleet = self.fleet.fingerprint() if self.fleet else "none"
        return (
            f"{self.detector}({self.params.fingerprint()}) {self.episode} fleet({fleet}) {self.fleet_episode}"
        )


@dataclass(frozen=True)
class Policy:
    """The rules, which kinds of derived points are posted, and how long fleets wait for stragglers."""

    rules: tuple[Rule, ...]
    kinds: frozenset[Kind] = frozenset({Kind.ZSCORE, Kind.FLEET_ZSCORE})
    fleet_settle_ms: int = 2_000


@dataclass(frozen=True)
class Event:
    """Something a person wants to read: an episode opened or closed, or a new level became normal.

    ``value`` is the sample, ``expected`` what the detector expected, ``score`` the z-score (its peak for
    a closed episode), ``since_ms`` the first sample of the episode.
    """

    what: Literal["opened", "closed", "relearned"]
    series: int
    kind: Kind
    t_ms: int
    since_ms: int
    value: float
    expected: float
    score: float


@dataclass(frozen=True)
class Evaluation:
    """What one step gave: scores aligned with the points, derived points to post, events in order of time."""

    scores: Scores
    derived: Derived
    events: tuple[Event, ...]
    unready: int = 0


class Lane:
    """The series of one rule: a detector bank and its episodes, one row a series."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.detector = REGISTRY[rule.detector](rule.params)
        self.episodes = Episodes(rule.episode)
        self.members: list[int] = []

    def admit(self, series: int) -> int:
        """The row newly given to ``series``."""
        self.members.append(series)
        if len(self.members) > len(self.episodes):
            room = max(16, 2 * len(self.episodes))
            self.detector.grow(room)
            self.episodes.grow(room)
        return len(self.members) - 1


class Group:
    """One fleet: the sources of one metric under one rule."""

    def __init__(self, rule: Rule, params: FleetParams) -> None:
        self.fleet = Fleet(params)
        self.episodes = Episodes(rule.fleet_episode)
        self.members: list[int] = []

    def admit(self, series: int) -> int:
        """The row newly given to ``series``."""
        self.members.append(series)
        self.fleet.grow(len(self.members))
        self.episodes.grow(len(self.members))
        return len(self.members) - 1


@dataclass
class State:
    """All running state of the detectors. ``rule_of`` is -1 for series that are not scored, ``group_of`` -1
    for those in no fleet; ``row_of`` and ``group_row`` are their rows there."""

    table: SeriesTable
    policy: Policy
    lanes: list[Lane] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    group_index: dict[tuple[int, str], int] = field(default_factory=dict)
    rule_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    row_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    group_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    group_row: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    emit_from_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    waiting: Points = field(default_factory=Points.empty)

    def __post_init__(self) -> None:
        if not self.lanes:
            self.lanes = [Lane(rule) for rule in self.policy.rules]

    def admit(self, series: int, rule: int, emit_from_ms: int = 0) -> None:
        """Score ``series`` under ``rule`` from now on; samples before ``emit_from_ms`` only warm it up."""
        if series >= len(self.rule_of):
            room = max(64, 2 * len(self.rule_of), series + 1)
            self.rule_of = grown(self.rule_of, room, -1)  # type: ignore[assignment]
            self.row_of = grown(self.row_of, room)  # type: ignore[assignment]
            self.group_of = grown(self.group_of, room, -1)  # type: ignore[assignment]
            self.group_row = grown(self.group_row, room)  # type: ignore[assignment]
            self.emit_from_ms = grown(self.emit_from_ms, room)  # type: ignore[assignment]
        self.rule_of[series] = rule
        self.row_of[series] = self.lanes[rule].admit(series)
        self.emit_from_ms[series] = emit_from_ms
        params = self.policy.rules[rule].fleet
        if params is not None:
            key = (rule, self.table.keys[series].metric)
            if key not in self.group_index:
                self.group_index[key] = len(self.groups)
                self.groups.append(Group(self.policy.rules[rule], params))
            self.group_of[series] = self.group_index[key]
            self.group_row[series] = self.groups[self.group_index[key]].admit(series)


def evaluate(state: State, points: Points, now_ms: int) -> Evaluation:
    """Score points (of admitted series; each series' points in order of time), step episodes, derive.

    Fleets see the points ``fleet_settle_ms`` later, all sources in one order of time, so that the result
    does not depend on which poll brought which point.
    """
    z = np.full(len(points), np.nan)
    scores = Scores(z, z.copy(), z.copy())
    derived: list[Derived] = []
    events: list[Event] = []
    lane_of = state.rule_of[points.series]
    for index, lane in enumerate(state.lanes):
        at = np.flatnonzero(lane_of == index)
        if len(at):
            mine = points.take(at)
            part = _score_lane(state, lane, mine, derived, events)
            scores.z[at], scores.centre[at], scores.scale[at] = part.z, part.centre, part.scale
    _score_fleets(state, points, now_ms, derived, events)
    events.sort(key=lambda e: (e.t_ms, e.series, e.kind))
    return Evaluation(scores, Derived.concat(derived), tuple(events), int(np.isnan(scores.z).sum()))


def _score_lane(
    state: State, lane: Lane, points: Points, derived: list[Derived], events: list[Event]
) -> Scores:
    local = Points(state.row_of[points.series], points.t_ms, points.value, points.late)
    scores = lane.detector.step(local)
    _emit(state, lane.episodes, (points, local.series, scores), Kind.ZSCORE, derived, events)
    for row in lane.detector.relearned().tolist():
        series = lane.members[row]
        at = np.flatnonzero(points.series == series)[-1]
        if points.t_ms[at] >= state.emit_from_ms[series]:
            events.append(_event("relearned", points, scores, int(at), Kind.ZSCORE, int(points.t_ms[at])))
    return scores


def _score_fleets(
    state: State, points: Points, now_ms: int, derived: list[Derived], events: list[Event]
) -> None:
    if not state.groups:
        return
    eligible = (state.group_of[points.series] >= 0) & ~points.late
    waiting = Points.concat([state.waiting, points.take(eligible)])
    due = waiting.t_ms <= now_ms - state.policy.fleet_settle_ms
    state.waiting = waiting.take(~due)
    if not due.any():
        return
    ripe = waiting.take(due)
    group_of = state.group_of[ripe.series]
    order = np.lexsort((ripe.series, ripe.t_ms, group_of))
    ripe, group_of = ripe.take(order), group_of[order]
    starts = np.flatnonzero(np.diff(group_of, prepend=-1))
    for start, stop in zip(starts, np.append(starts[1:], len(ripe)), strict=True):
        group, mine = state.groups[group_of[start]], ripe.take(np.arange(start, stop))
        local = Points(state.group_row[mine.series], mine.t_ms, mine.value)
        scores = group.fleet.step(local)
        _emit(state, group.episodes, (mine, local.series, scores), Kind.FLEET_ZSCORE, derived, events)


def _emit(
    state: State,
    episodes: Episodes,
    scored: tuple[Points, I64, Scores],
    kind: Kind,
    derived: list[Derived],
    events: list[Event],
) -> None:
    """Step the episodes with scored points and add what is to be posted and told."""
    points, rows, scores = scored
    value = np.full(len(points), np.nan)
    audible = points.t_ms >= state.emit_from_ms[points.series]
    for part in rounds(rows):
        live = part[~points.late[part]]
        late = part[points.late[part]]
        if len(live):
            value[live], moves = episodes.step(rows[live], points.t_ms[live], scores.z[live])
            events += _told(points, scores, live, moves, kind, audible, episodes.peak[rows[live]])
        if len(late):
            value[late] = episodes.emit_late(rows[late], scores.z[late])
    raw = Kind.ZSCORE_RAW if kind is Kind.ZSCORE else Kind.FLEET_ZSCORE_RAW
    for what, column in ((kind, value), (raw, scores.z)):
        if what in state.policy.kinds:
            at = np.flatnonzero(audible & ~np.isnan(column))
            codes = np.full(len(at), int(what), np.int8)
            derived.append(Derived(points.series[at], codes, points.t_ms[at], column[at]))


def _told(
    points: Points,
    scores: Scores,
    live: I64,
    moves: Transitions,
    kind: Kind,
    audible: Bool,
    peak: F64,
) -> list[Event]:
    events = []
    for at in moves.opened.tolist():
        if audible[live[at]]:
            since = int(moves.since_ms[at])
            events.append(_event("opened", points, scores, int(live[at]), kind, since))
    for at in moves.closed.tolist():
        if audible[live[at]]:
            since = int(moves.since_ms[at])
            event = _event("closed", points, scores, int(live[at]), kind, since)
            events.append(Event(**{**event.__dict__, "score": float(peak[at])}))
    return events


def _event(
    what: Literal["opened", "closed", "relearned"],
    points: Points,
    scores: Scores,
    at: int,
    kind: Kind,
    since_ms: int,
) -> Event:
    return Event(
        what,
        int(points.series[at]),
        kind,
        int(points.t_ms[at]),
        since_ms,
        float(points.value[at]),
        float(scores.centre[at]),
        float(scores.z[at]),
    )


def dump(state: State) -> dict[str, npt.NDArray[np.generic]]:
    """The state as named columns for a snapshot; the rules' fingerprints say whether it fits."""
    out: dict[str, npt.NDArray[np.generic]] = {}
    for i, lane in enumerate(state.lanes):
        n = len(lane.members)
        out[f"lane.{i}.members"] = np.array(lane.members, np.int64)
        for part, columns in (("detector", lane.detector.dump()), ("episodes", lane.episodes.dump())):
            out |= {f"lane.{i}.{part}.{name}": column[:n] for name, column in columns.items()}
    for g, group in enumerate(state.groups):
        out[f"group.{g}.members"] = np.array(group.members, np.int64)
        for part, columns in (("fleet", group.fleet.dump()), ("episodes", group.episodes.dump())):
            out |= {f"group.{g}.{part}.{name}": column for name, column in columns.items()}
    out["emit_from_ms"] = state.emit_from_ms[: len(state.table)]
    for name in ("series", "t_ms", "value"):
        out[f"waiting.{name}"] = getattr(state.waiting, name)
    return out


def load(table: SeriesTable, policy: Policy, columns: Columns) -> State:
    """The state that ``dump`` gave under the same rules and series table."""
    state = State(table, policy)
    for i, lane in enumerate(state.lanes):
        emit_from = columns["emit_from_ms"]
        for series in columns[f"lane.{i}.members"].tolist():
            state.admit(series, i, int(emit_from[series]))
        for part, target in (("detector", lane.detector), ("episodes", lane.episodes)):
            target.load(_under(columns, f"lane.{i}.{part}."))
    for g in range(len(state.groups)):
        first = int(columns[f"group.{g}.members"][0])
        group = state.groups[state.group_index[int(state.rule_of[first]), table.keys[first].metric]]
        for part, fleet_part in (("fleet", group.fleet), ("episodes", group.episodes)):
            fleet_part.load(_under(columns, f"group.{g}.{part}."))
    waiting = _under(columns, "waiting.")
    state.waiting = Points(
        waiting["series"].astype(np.int64),
        waiting["t_ms"].astype(np.int64),
        waiting["value"].astype(np.float64),
    )
    return state


def _under(columns: Columns, prefix: str) -> dict[str, npt.NDArray[np.generic]]:
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}
