"""A lane: the series of one rule with their detector, fleets and alert lines, one row a series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import numpy as np

from plexus_detect.budget import Budget
from plexus_detect.detectors import DEFAULT, REGISTRY, Detector, DetectorParams
from plexus_detect.episode import EpisodeParams, Episodes
from plexus_detect.fleet import EventParams, Fleet, FleetEvents, FleetParams, GroupMove, verdicts
from plexus_detect.groups import GroupRule
from plexus_detect.limits import Limits, LimitsBank
from plexus_detect.series import F64, I8, Bool, Kind, Points, Reason, Scores, SeriesKey
from plexus_detect.stats import usable


@dataclass(frozen=True)
class Rule:
    """How a set of series is scored: its detector, its episodes, and its fleets (None: no fleets).

    ``sensitivity`` and ``fleet_sensitivity`` are how many times further out than the detector's the line is.
    """

    name: str = "series"
    detector: str = DEFAULT
    params: DetectorParams = field(default_factory=DetectorParams)
    episode: EpisodeParams = field(default_factory=EpisodeParams)
    fleet: FleetParams | None = None
    fleet_episode: EpisodeParams = field(default_factory=EpisodeParams)
    sensitivity: float = 1.0
    fleet_sensitivity: float = 1.0

    def fingerprint(self) -> str:
        """Everything that a snapshot of this rule's state depends on."""
        fleet = self.fleet.fingerprint() if self.fleet else "none"
        own = f"{self.detector}({self.params.fingerprint()}) {self.episode} x{self.sensitivity!r}"
        return f"{own} fleet({fleet}) {self.fleet_episode} x{self.fleet_sensitivity!r}"


@dataclass(frozen=True)
class Cohort:
    """Sources that are compared with one another: those whose slug matches a pattern of ``fnmatch``."""

    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """The rules, which kinds of derived points are posted, and how long fleets wait for stragglers.

    ``limits`` are patterns of metric names with their limits; ``cohorts`` divide the sources of a rule, and
    with ``rest`` those of no cohort are one more; in both the first that matches counts. ``alerts_per_day``
    is the budget of false alarms of all series together; ``groups``, which have no part in it, are metrics
    that are judged together.
    """

    rules: tuple[Rule, ...]
    kinds: frozenset[Kind] = frozenset({Kind.ZSCORE, Kind.FLEET_ZSCORE, Kind.ANOMALY})
    fleet_settle_ms: int = 2_000
    limits: tuple[tuple[str, Limits], ...] = ()
    cohorts: tuple[Cohort, ...] = ()
    rest: bool = True
    alerts_per_day: float | None = None
    groups: tuple[GroupRule, ...] = ()

    def limits_of(self, metric: str) -> Limits:
        """The limits of a metric; without any, every value is valid and every deviation matters."""
        return next((limits for glob, limits in self.limits if fnmatchcase(metric, glob)), Limits())

    def cohort_of(self, source: str) -> int | None:
        """The position of the cohort of a source, that of the rest last; None if it is compared with none."""
        for i, cohort in enumerate(self.cohorts):
            if _matches(source, cohort.sources):
                return i
        return len(self.cohorts) if self.rest else None

    def groups_of(self, key: SeriesKey) -> tuple[GroupRule, ...]:
        """The groups that a series is joined for; none for the scores of a group itself."""
        if self.is_score(key):
            return ()
        return tuple(group for group in self.groups if group.takes(key))

    def is_score(self, key: SeriesKey) -> bool:
        """Whether a series is the name under which a group is posted: it is never read."""
        return any(group.is_named(key) for group in self.groups)

    def fingerprint(self) -> str:
        """Everything that a snapshot depends on."""
        rules = " | ".join(rule.fingerprint() for rule in self.rules)
        groups = "".join(f" {group.fingerprint()}" for group in self.groups)
        return f"{rules} | {self.limits} {self.cohorts} {self.rest} {self.alerts_per_day}{groups}"


# Columns of a fleet that say where a row belongs.
_PLACES = frozenset({"group", "place"})


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def scaled(scores: Scores, factor: float | F64) -> Scores:
    """The scores for a line that is ``factor`` times further out: the band widens as the scores shrink."""
    if isinstance(factor, float) and factor == 1.0:
        return scores
    parts = {check: column / factor for check, column in scores.parts.items()}
    z, fresh = scores.z / factor, scores.fresh / factor
    return replace(scores, z=z, fresh=fresh, scale=scores.scale * factor, parts=parts)


def explained(points: Points, scores: Scores, check: Reason) -> Scores:
    """The scores with reasons that fit: ``check`` where a score was given without one, and a value that is
    no number as the reason why there is none."""
    unknown = np.isnan(scores.z)
    reason = np.where(~unknown & (scores.reason >= Reason.WARMING), np.int8(check), scores.reason)
    reason[unknown & ~usable(points.value)] = Reason.NOT_A_NUMBER
    return replace(scores, reason=reason)


class Line:
    """The alert line of a bank of scores, and the episodes of what is beyond it.

    Sensitivity and budget scale the scores, so that the threshold stays the line that monitors watch.
    """

    def __init__(
        self, episode: EpisodeParams, sensitivity: float, limits: LimitsBank, budgeted: bool
    ) -> None:
        self.threshold = episode.threshold
        self.sensitivity = sensitivity
        self.limits = limits
        self.episodes = Episodes(episode)
        self.budget: Budget | None = None
        if budgeted:
            self.budget = Budget(episode.m, episode.n, episode.close_after, episode.at_once)

    def grow(self, n: int) -> None:
        """Room for ``n`` series."""
        self.episodes.grow(n)
        if self.budget is not None:
            self.budget.grow(n)

    def judge(self, points: Points, scores: Scores, share_per_day: F64) -> Scores:
        """The detector's scores as they count: see ``LimitsBank`` and ``Budget`` for what changes them."""
        scores = self.limits.apply(points, scaled(scores, self.sensitivity), self.threshold)
        if self.budget is None:
            return scores
        size = np.abs(scores.z) / self.threshold
        return scaled(scores, self.budget.step(points.series, points.t_ms, size, points.late, share_per_day))


class Lane:
    """The series of one rule. ``points.series`` of its methods are rows of the lane."""

    def __init__(self, rule: Rule, policy: Policy) -> None:
        self.rule = rule
        self.policy = policy
        self.limits = LimitsBank()
        budgeted = policy.alerts_per_day is not None
        self.detector = REGISTRY[rule.detector](rule.params)
        self.line = Line(rule.episode, rule.sensitivity, self.limits, budgeted)
        self.fleet = Fleet(rule.fleet) if rule.fleet else None
        self.fleet_events = FleetEvents(EventParams(rule.fleet.group_min)) if rule.fleet else None
        self.fleet_line = Line(rule.fleet_episode, rule.fleet_sensitivity, self.limits, budgeted)
        self.members: list[int] = []
        self.compared: list[bool] = []
        self._compared = np.zeros(0, np.bool_)
        self.group_of: dict[tuple[int | None, str], int] = {}
        self.first_of: dict[int, int] = {}
        self.free: list[int] = []

    def admit(self, series: int, key: SeriesKey) -> int:
        """The row given to ``series``; the sources of one metric and cohort are one fleet.

        A row that is free is used again, but not in another fleet: there rows have their place for good.
        """
        row = self._free_row(key)
        if row is not None:
            self.free.remove(row)
            self.members[row] = series
            self.limits.put(row, self.policy.limits_of(key.metric))
            return row
        row = len(self.members)
        if row == len(self.line.episodes):
            room = max(16, 2 * row)
            for bank in (self.detector, self.limits, self.line, self.fleet_line):
                bank.grow(room)
        self.members.append(series)
        self.limits.put(row, self.policy.limits_of(key.metric))
        cohort, group = self._group(key)
        self.compared.append(self.fleet is not None and cohort is not None)
        if self.fleet is not None:
            # Who is compared with none has a row all the same: the fleet's rows are those of the lane.
            number = self.group_of.setdefault(group, len(self.group_of))
            self.fleet.join(number)
            self.first_of.setdefault(number, series)
            if self.fleet_events is not None and cohort is not None:
                self.fleet_events.put(row, number)
        return row

    def _group(self, key: SeriesKey) -> tuple[int | None, tuple[int | None, str]]:
        """The cohort of a series, and what names its fleet."""
        cohort = self.policy.cohort_of(key.source)
        return cohort, (cohort, key.metric if cohort is not None else "")

    def _free_row(self, key: SeriesKey) -> int | None:
        if self.fleet is None or not self.free:
            return self.free[0] if self.free else None
        number = self.group_of.get(self._group(key)[1])
        return next((row for row in self.free if self.fleet.group[row] == number), None)

    def release(self, rows: Sequence[int]) -> None:
        """Forget what is known of these rows; they are free for other series."""
        blank = Lane(self.rule, self.policy)
        blank.admit(0, SeriesKey("", ""))
        for name, part in self.parts().items():
            held, fresh = dict(part.dump()), blank.parts()[name].dump()
            for column in held.keys() - _PLACES:
                if not column.startswith("of_group."):
                    held[column] = held[column].copy()
                    held[column][list(rows)] = fresh[column][0]
            part.load(held)
        self.free += rows

    def score(self, points: Points, share_per_day: F64) -> Scores:
        """The scores of points against the past of their own series."""
        scores = explained(points, self.detector.step(self.limits.valid(points)), Reason.DEVIATION)
        scores = self.line.judge(points, scores, share_per_day)
        return self.limits.flag(points, scores, self.line.threshold)

    def score_fleet(self, fleet: Fleet, points: Points, share_per_day: F64) -> Scores:
        """The scores of points against the other sources."""
        scores = explained(points, fleet.step(self.limits.valid(points)), Reason.FLEET)
        return self.fleet_line.judge(points, scores, share_per_day)

    def share(self, points: Points, scores: Scores, *, arrived: bool = False) -> tuple[Bool, list[GroupMove]]:
        """Which points fall into an event of their whole fleet, and which such events opened or closed.

        Takes points with the scores of their own past, and looks at them in order of time; where they stand
        as they ``arrived``, in that order.
        """
        inside = np.zeros(len(points), np.bool_)
        if self.fleet is None or self.fleet_events is None or not any(self.compared):
            return inside, []
        if len(self._compared) != len(self.compared):
            self._compared = np.array(self.compared, np.bool_)
        compared = self._compared[points.series] & ~points.late
        at = np.flatnonzero(compared)
        if not arrived:
            at = at[np.argsort(points.t_ms[at], kind="stable")]
        rows = points.series[at]
        own = scores.z[at] / self.line.threshold
        bucket_ms = self.fleet.groups.bucket_ms[self.fleet_events.group[rows]]
        inside[at], moves = self.fleet_events.step(rows, points.t_ms[at], own, bucket_ms)
        return inside, [replace(move, at=int(at[move.at])) for move in moves]

    def verdict(self, points: Points, scores: Scores, inside: Bool, *, of_fleet: bool) -> I8:
        """What each device is doing in the light of its past and of its peers: ``Verdict`` codes."""
        if self.fleet is None:
            return np.zeros(len(points), np.int8)
        size, unknown = scores.z / self.line.threshold, np.full(len(points), np.nan)
        own, fleet = (unknown, size) if of_fleet else (size, unknown)
        return verdicts(own, fleet, self.fleet.different(points.series), inside)

    def parts(self) -> dict[str, Detector | Episodes | Budget | Fleet | FleetEvents]:
        """Everything that has a state of its own, by name."""
        parts: dict[str, Detector | Episodes | Budget | Fleet | FleetEvents] = {
            "detector": self.detector,
            "episodes": self.line.episodes,
        }
        if self.line.budget is not None:
            parts["budget"] = self.line.budget
        if self.fleet is not None:
            parts |= {"fleet": self.fleet, "fleet_episodes": self.fleet_line.episodes}
        if self.fleet_events is not None:
            parts["fleet_events"] = self.fleet_events
        if self.fleet is not None and self.fleet_line.budget is not None:
            parts["fleet_budget"] = self.fleet_line.budget
        return parts
