"""One score taken apart: the past replayed up to a point, then that point in steps. Pure.

The replay is the worker's own ``evaluate``, as in a backtest: every sample counts as having arrived in time.
The steps are taken on a copy of the state, and have to end with the bits that ``evaluate`` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from plexus_detect.backtest.replay import Admitted, chunks, in_order
from plexus_detect.detectors.base import Receipt
from plexus_detect.episode import Episodes
from plexus_detect.evaluate import Evaluation, Policy, Rule, State, dump, evaluate, load
from plexus_detect.fleet import FleetParams, Verdict, verdicts
from plexus_detect.lane import Line, explained, scaled
from plexus_detect.limits import RANGE_SCORE, Limits
from plexus_detect.series import I64, Kind, Points, Reason, Scores, SeriesKey, SeriesTable

# Intervals from which the typical one is taken where the detector measures none.
CADENCE_INTERVALS = 300


@dataclass(frozen=True)
class Step:
    """What changed a score: its name, how z comes from the z before it, and z after it."""

    name: str
    says: str
    z: float


@dataclass(frozen=True)
class Episode:
    """An episode after the point. ``since_ms`` is its first odd sample, ``reason`` and ``peak`` those of its
    largest score; of one that is not open, ``beyond`` of the last ``n`` scores were beyond the line, and
    ``m`` open it."""

    is_open: bool
    since_ms: int
    reason: Reason
    peak: float
    beyond: int
    m: int
    n: int


@dataclass(frozen=True)
class Judged:
    """A score as it counts: against the own past, or against the fleet. ``posted`` is the debounced value,
    NaN where there is none; ``raised`` how many times further out the budget puts the line."""

    z: float
    threshold: float
    reason: Reason
    expected: float
    scale: float
    lower: float
    upper: float
    posted: float
    sensitivity: float
    raised: float
    steps: tuple[Step, ...]
    episode: Episode


@dataclass(frozen=True)
class Group:
    """The fleet that a source is compared with: the name of its cohort (None: there are no cohorts), its
    members, and how many of them must have fresh values."""

    cohort: str | None
    members: int
    group_min: int


@dataclass(frozen=True)
class Taken:
    """A score taken apart: what it is made from, and how it counts; the same against the fleet (None: not
    compared), whether the point falls into an event of the whole fleet, and what the device is doing in the
    light of its past and of the others."""

    receipt: Receipt
    own: Judged
    fleet: Judged | None = None
    event: bool = False
    verdict: Verdict = Verdict.NORMAL


@dataclass(frozen=True)
class Past:
    """The samples of the series that were read before the point: how many, the time of the first, the
    typical interval (None: unknown), and the time of the first that the baseline holds (None: it is
    empty)."""

    samples: int
    from_ms: int | None
    cadence_ms: float | None
    learned_from_ms: int | None


@dataclass(frozen=True)
class Account:
    """Everything about one score; ``share_per_day`` are the false alarms that its series may have."""

    key: SeriesKey
    t_ms: int
    value: float
    rule: Rule
    limits: Limits
    past: Past
    taken: Taken
    share_per_day: float | None = None
    group: Group | None = None


def sample_at(points: Points, series: int, t_ms: int) -> tuple[int, float] | None:
    """Time and value of the newest sample of ``series`` that is not after ``t_ms``, if there is one. Of
    several of one time the smallest number counts, as for the worker."""
    mine = points.take((points.series == series) & (points.t_ms <= t_ms) & (points.t_ms > 0))
    if not len(mine):
        return None
    newest = mine.take(mine.t_ms == mine.t_ms.max())
    usable = in_order(newest)
    return int(newest.t_ms[0]), float((usable if len(usable) else newest).value[0])


def mates(policy: Policy, members: Sequence[Admitted], own: Admitted) -> list[Admitted]:
    """The series that ``own`` is compared with, itself among them; itself alone where it is with none."""
    cohort = policy.cohort_of(own.key.source)
    if own.rule is None or policy.rules[own.rule].fleet is None or cohort is None:
        return [own]
    alike = [m for m in members if (m.rule, m.key.metric) == (own.rule, own.key.metric)]
    return [member for member in alike if policy.cohort_of(member.key.source) == cohort]


def account(
    policy: Policy, members: Sequence[Admitted], points: Points, series: int, sample: tuple[int, float]
) -> Account:
    """The score of ``sample`` of ``series``, from the points of ``members`` before it."""
    numbers = np.array([member.series for member in members], np.int64)
    row = int(np.flatnonzero(numbers == series)[0])
    own = members[row]
    if own.rule is None:
        raise ValueError(f"{own.key} is under no rule")
    fleet = policy.rules[own.rule].fleet
    group = _group(policy, fleet, own.key.source, len(mates(policy, members, own)))
    rules = policy.rules
    if group is not None and group.members < group.group_min and policy.alerts_per_day is None:
        # It has no scores, but keeping its time costs more than all else that is done for a point.
        rules = tuple(replace(rule, fleet=None) for rule in rules)
    # What groups of metrics say has no part in the scores of one.
    state = State(SeriesTable(), replace(policy, rules=rules, kinds=frozenset(Kind), groups=()))
    for at, member in enumerate(members):
        state.table.add(*member.key)
        state.admit(at, member.rule)
    t_ms, value = sample
    before = _before(points, numbers, row, t_ms)
    for part in chunks(before):
        evaluate(state, in_order(part), int(part.t_ms[-1]))
    settled_ms = t_ms + policy.fleet_settle_ms
    evaluate(state, Points.empty(), settled_ms)
    point = Points(np.array([row]), np.array([t_ms]), np.array([value]))
    twin = load(state.table, state.policy, dump(state))
    found = evaluate(state, point, settled_ms)
    taken = _taken_apart(state, twin, point, found)
    past = _past(in_order(before.take(before.series == row)).t_ms, taken.receipt)
    share = float(state.shares(point.series, t_ms)[0]) if policy.alerts_per_day is not None else None
    return Account(
        own.key,
        t_ms,
        value,
        policy.rules[own.rule],
        policy.limits_of(own.key.metric),
        past,
        taken,
        share,
        group,
    )


def _group(policy: Policy, fleet: FleetParams | None, source: str, members: int) -> Group | None:
    cohort = policy.cohort_of(source)
    if fleet is None or cohort is None:
        return None
    names = [*(c.name for c in policy.cohorts), "of no cohort"]
    return Group(names[cohort] if policy.cohorts else None, members, fleet.group_min)


def _before(points: Points, numbers: I64, row: int, t_ms: int) -> Points:
    """The points that are scored before that of ``row`` at ``t_ms``, numbered as the members are: the fleets
    take points of one time in the order of their series."""
    row_of = np.full(int(max(numbers.max(), points.series.max(initial=0))) + 1, -1)
    row_of[numbers] = np.arange(len(numbers))
    rows = row_of[points.series]
    at = (rows >= 0) & ((points.t_ms < t_ms) | ((points.t_ms == t_ms) & (rows < row)))
    return Points(rows[at], points.t_ms[at], points.value[at])


def _taken_apart(state: State, twin: State, point: Points, found: Evaluation) -> Taken:
    """``state`` has taken the point, ``twin`` has not."""
    row, rule = int(point.series[0]), int(state.rule_of[point.series[0]])
    after, lane = state.lanes[rule], twin.lanes[rule]
    local = replace(point, series=state.row_of[point.series])
    valid = lane.limits.valid(local)
    receipt = lane.detector.receipt(valid)
    raw = explained(local, lane.detector.step(valid), Reason.DEVIATION)
    own = _judged(after.line, local, raw, found, Kind.ZSCORE)
    if lane.fleet is None or not state.compared[row]:
        return Taken(receipt, own)
    raw = explained(local, lane.fleet.step(valid), Reason.FLEET)
    fleet = _judged(after.fleet_line, local, raw, found, Kind.FLEET_ZSCORE)
    event = bool(found.derived.value[found.derived.kind == Kind.FLEET_EVENT].any())
    sizes = np.array([own.z / own.threshold]), np.array([fleet.z / fleet.threshold])
    verdict = verdicts(*sizes, lane.fleet.different(local.series), np.array([event]))
    return Taken(receipt, own, fleet, event, Verdict(int(verdict[0])))


def _judged(line: Line, local: Points, raw: Scores, found: Evaluation, kind: Kind) -> Judged:
    """The steps from the detector's score to the one that counts; ``line`` has taken that one."""
    row = int(local.series[0])
    raised = 1.0 if line.budget is None else float(line.budget.factor[row])
    steps = [("detector", "z of the check that decides", raw)]
    now = scaled(raw, line.sensitivity)
    steps.append(("sensitivity", f"z / {line.sensitivity!r}", now))
    now = line.limits.apply(local, now, line.threshold)
    steps.append(("limits", _limited(line, raw, now), now))
    now = scaled(now, raised)
    steps.append(("budget", f"z / {raised!r}", now))
    if kind is Kind.ZSCORE:
        now = line.limits.flag(local, now, line.threshold)
        steps.append(("range", _ranged(line, local), now))
    posted = {int(k): float(v) for k, v in zip(found.derived.kind, found.derived.value, strict=True)}
    counts = Kind.ZSCORE_RAW if kind is Kind.ZSCORE else Kind.FLEET_ZSCORE_RAW
    if not np.array_equal(now.z, [posted.get(counts, np.nan)], equal_nan=True):
        raise RuntimeError(f"explain: the steps give {now.z[0]!r}, not {posted.get(counts)!r}")
    lower, upper = line.limits.band(local, now, line.threshold)
    return Judged(
        z=float(now.z[0]),
        threshold=line.threshold,
        reason=Reason(int(now.reason[0])),
        expected=float(now.centre[0]),
        scale=float(now.scale[0]),
        lower=float(lower[0]),
        upper=float(upper[0]),
        posted=posted.get(kind, np.nan),
        sensitivity=line.sensitivity,
        raised=raised,
        steps=tuple(Step(name, says, float(scores.z[0])) for name, says, scores in _moving(steps)),
        episode=episode_of(line.episodes, row),
    )


def _limited(line: Line, raw: Scores, now: Scores) -> str:
    """How limits change a score that is too small a deviation, or one in a direction that nobody minds."""
    if now.reason[0] == raw.reason[0]:
        return f"sign of z * {line.threshold!r}"
    return f"z of the check {Reason(int(now.reason[0])).name.lower()} / {line.sensitivity!r}"


def _ranged(line: Line, local: Points) -> str:
    """How far out of the valid range becomes a score."""
    row, limits = int(local.series[0]), line.limits
    below = local.value[0] < limits.low[row]
    bound, unit = float((limits.low if below else limits.high)[row]), float(limits.unit[row])
    size = f"{line.threshold!r} * ({RANGE_SCORE!r} + |value - {bound!r}| / {unit!r})"
    return f"{'-' if below else ''}{size}, or |z| if that is more"


def _moving(steps: list[tuple[str, str, Scores]]) -> list[tuple[str, str, Scores]]:
    """The first step, and those after it that changed the score."""
    pairs = pairwise([(float(scores.z[0]), (name, says, scores)) for name, says, scores in steps])
    moved = [now for (before, _), (after, now) in pairs if before != after and not np.isnan(after)]
    return [steps[0], *moved]


def episode_of(episodes: Episodes, row: int) -> Episode:
    """The episode of a row as it stands."""
    return Episode(
        is_open=bool(episodes.is_open[row]),
        since_ms=int(episodes.since_ms[row]),
        reason=Reason(int(episodes.reason[row])),
        peak=float(episodes.peak[row]),
        beyond=int(episodes.history[row]).bit_count(),
        m=episodes.params.m,
        n=episodes.params.n,
    )


def _past(times: I64, receipt: Receipt) -> Past:
    cadence = receipt.cadence_ms
    if cadence is None and len(times) > 1:
        cadence = float(np.median(np.diff(times[-CADENCE_INTERVALS - 1 :])))
    held = min(len(times), receipt.learned + (receipt.aside or 0))
    return Past(
        samples=len(times),
        from_ms=int(times[0]) if len(times) else None,
        cadence_ms=cadence,
        learned_from_ms=int(times[len(times) - held]) if held else None,
    )
