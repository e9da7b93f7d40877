"""Points and state to scores, episodes and derived points: the one path of worker, replay and doors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from plexus_detect.detectors import DEFAULT, REGISTRY, Detector, DetectorParams
from plexus_detect.episode import EpisodeParams, Episodes
from plexus_detect.fleet import Fleet, FleetParams
from plexus_detect.series import I64, Derived, Kind, Points, Scores, SeriesTable, together
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
    """The series of one rule: a detector bank, the fleets, and the episodes of both, one row a series."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.detector = REGISTRY[rule.detector](rule.params)
        self.episodes = Episodes(rule.episode)
        self.fleet = Fleet(rule.fleet) if rule.fleet else None
        self.fleet_episodes = Episodes(rule.fleet_episode)
        self.members: list[int] = []
        self.group_of: dict[str, int] = {}

    def admit(self, series: int, metric: str) -> int:
        """The row newly given to ``series``; the sources of one metric are one fleet."""
        row = len(self.members)
        self.members.append(series)
        if row == len(self.episodes):
            room = max(16, 2 * row)
            self.detector.grow(room)
            self.episodes.grow(room)
            self.fleet_episodes.grow(room)
        if self.fleet is not None:
            self.fleet.join(self.group_of.setdefault(metric, len(self.group_of)))
        return row


@dataclass
class State:
    """All running state of the detectors. ``rule_of`` is -1 for series that are not scored, ``row_of`` the
    row of a series in its rule's lane. ``waiting`` are points that the fleets have not seen yet."""

    table: SeriesTable
    policy: Policy
    lanes: list[Lane] = field(default_factory=list)
    rule_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    row_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
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
            self.emit_from_ms = grown(self.emit_from_ms, room)  # type: ignore[assignment]
        self.rule_of[series] = rule
        self.row_of[series] = self.lanes[rule].admit(series, self.table.keys[series].metric)
        self.emit_from_ms[series] = emit_from_ms


@dataclass
class _Output:
    """What one evaluation gives, while it is being put together."""

    state: State
    derived: list[Derived] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def add(self, kind: Kind, points: Points, scores: Scores, episodes: Episodes, relearned: I64) -> None:
        """Step the episodes with scored points; add what is to be posted and told."""
        rows = self.state.row_of[points.series]
        value, moves = episodes.step(rows, points.t_ms, scores.z, points.late)
        audible = points.t_ms >= self.state.emit_from_ms[points.series]

        def tell(
            what: Literal["opened", "closed", "relearned"], at: int, since_ms: int, score: float
        ) -> None:
            if audible[at]:
                of_point = int(points.series[at]), kind, int(points.t_ms[at])
                value, expected = float(points.value[at]), float(scores.centre[at])
                self.events.append(Event(what, *of_point, since_ms, value, expected, score))

        for move in moves:
            score = float(scores.z[move.at]) if move.opened else move.peak
            tell("opened" if move.opened else "closed", move.at, move.since_ms, score)
        for at in relearned.tolist():
            tell("relearned", at, int(points.t_ms[at]), float(scores.z[at]))
        raw = Kind.ZSCORE_RAW if kind is Kind.ZSCORE else Kind.FLEET_ZSCORE_RAW
        for what_kind, column in ((kind, value), (raw, scores.z)):
            if what_kind in self.state.policy.kinds:
                given = np.flatnonzero(audible & ~np.isnan(column))
                codes = np.full(len(given), int(what_kind), np.int8)
                self.derived.append(Derived(points.series[given], codes, points.t_ms[given], column[given]))


def evaluate(state: State, points: Points, now_ms: int) -> Evaluation:
    """Score points (of admitted series; each series' points in order of time), step episodes, derive.

    Fleets see the points ``fleet_settle_ms`` later, all sources in one order of time, so that the result
    does not depend on which poll brought which point.
    """
    out = _Output(state)
    scores = Scores(*np.full((3, len(points)), np.nan))
    lane_of = state.rule_of[points.series]
    for index, lane in enumerate(state.lanes):
        at = together(np.flatnonzero(lane_of == index))
        mine = points.take(at)
        part = lane.detector.step(_local(state, mine))
        scores.z[at], scores.centre[at], scores.scale[at] = part.z, part.centre, part.scale
        out.add(Kind.ZSCORE, mine, part, lane.episodes, lane.detector.relearned())
    _score_fleets(out, points, now_ms)
    events = sorted(out.events, key=lambda e: (e.t_ms, e.series, e.kind))
    return Evaluation(
        scores, Derived.concat(out.derived), tuple(events), int(np.count_nonzero(np.isnan(scores.z)))
    )


def _local(state: State, points: Points) -> Points:
    """Points with the rows of their lane in place of the numbers of their series."""
    return Points(state.row_of[points.series], points.t_ms, points.value, points.late)


def _score_fleets(out: _Output, points: Points, now_ms: int) -> None:
    state = out.state
    with_fleet = np.array([lane.fleet is not None for lane in state.lanes], np.bool_)
    if not with_fleet.any():
        return
    eligible = with_fleet[state.rule_of[points.series]] & ~points.late
    waiting = Points.concat([state.waiting, points.take(eligible)])
    # A device whose clock is ahead is not waited for: its points count as of now.
    settle_ms = state.policy.fleet_settle_ms
    due = (waiting.t_ms <= now_ms - settle_ms) | (waiting.t_ms > now_ms + settle_ms)
    state.waiting = waiting.take(~due)
    ripe = waiting.take(due)
    ripe = ripe.take(np.lexsort((ripe.series, ripe.t_ms)))
    lane_of = state.rule_of[ripe.series]
    for index, lane in enumerate(state.lanes):
        if lane.fleet is not None:
            mine = ripe.take(together(np.flatnonzero(lane_of == index)))
            scores = lane.fleet.step(_local(state, mine))
            out.add(Kind.FLEET_ZSCORE, mine, scores, lane.fleet_episodes, lane.fleet.relearned())


def _parts(lane: Lane) -> dict[str, Detector | Episodes | Fleet]:
    """Everything of a lane that has a state of its own, by name."""
    parts: dict[str, Detector | Episodes | Fleet] = {"detector": lane.detector, "episodes": lane.episodes}
    if lane.fleet is not None:
        parts |= {"fleet": lane.fleet, "fleet_episodes": lane.fleet_episodes}
    return parts


def dump(state: State) -> dict[str, npt.NDArray[np.generic]]:
    """The state as named columns for a snapshot; the rules' fingerprints say whether it fits."""
    out: dict[str, npt.NDArray[np.generic]] = {}
    for i, lane in enumerate(state.lanes):
        n = len(lane.members)
        out[f"lane.{i}.members"] = np.array(lane.members, np.int64)
        for part, room in _parts(lane).items():
            # Columns of groups are not as long as those of series, so a fleet gives no more than it uses.
            columns = room.dump().items()
            out |= {f"lane.{i}.{part}.{name}": c if part == "fleet" else c[:n] for name, c in columns}
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
        for part, room in _parts(lane).items():
            room.load(_under(columns, f"lane.{i}.{part}."))
    waiting = _under(columns, "waiting.")
    state.waiting = Points(
        waiting["series"].astype(np.int64),
        waiting["t_ms"].astype(np.int64),
        waiting["value"].astype(np.float64),
    )
    return state


def _under(columns: Columns, prefix: str) -> dict[str, npt.NDArray[np.generic]]:
    return {name.removeprefix(prefix): column for name, column in columns.items() if name.startswith(prefix)}
