"""Stored points through the worker's own ``evaluate``: episodes, and bins for the drawing. Pure.

Points come in chunks of time, each sorted by series and time. Where the chunks end changes nothing: that is
the law of ``evaluate``. All points count as having arrived in time, in the order of their times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from plexus_detect.backtest.bins import Bins
from plexus_detect.backtest.moments import Span
from plexus_detect.evaluate import Evaluation, Event, Policy, State, evaluate
from plexus_detect.series import F64, I64, SUFFIX, Derived, Kind, Points, Reason, SeriesKey, SeriesTable
from plexus_detect.stats import grown, usable
from plexus_detect.training.trainer import InlineTrainer

# Derived points that the replay itself looks at, whatever the configuration posts; those for the drawing.
KINDS = frozenset({Kind.ZSCORE, Kind.FLEET_ZSCORE, Kind.ANOMALY})
BAND = {"centre": Kind.EXPECTED, "lower": Kind.LOWER, "upper": Kind.UPPER}
KINDS_DRAWN = KINDS | {Kind.FLEET_ZSCORE_RAW, *BAND.values()}

# Points of a chunk: enough that a step costs little a point, few enough that memory stays small.
CHUNK_POINTS = 200_000


@dataclass(frozen=True)
class Setup:
    """What a replay is made from: the rules, the period that counts, and how many bins it is drawn with
    (0: none). Points before the period only warm the detectors up."""

    policy: Policy
    span: Span
    bins: int = 0


@dataclass(frozen=True)
class Admitted:
    """A series that is scored: its number in the order of the whole run, its name and its rule (None: groups
    of metrics take it, or it is the name of a group's scores)."""

    series: int
    key: SeriesKey
    rule: int | None


@dataclass
class Episode:
    """An anomaly from its first sample to its end; an alert began at ``opened_ms``.

    ``closed_ms`` is None while it is open. ``peak`` is the largest score so far and ``line`` the threshold,
    both in deviations; ``value`` and ``expected`` are those of the sample that opened it, of a group of
    metrics its score; ``blame`` are the metrics with the largest shares in that.
    """

    key: SeriesKey
    kind: str
    reason: str
    since_ms: int
    opened_ms: int
    closed_ms: int | None
    peak: float
    line: float
    value: float
    expected: float
    blame: tuple[tuple[str, float], ...] = ()

    @property
    def intensity(self) -> float:
        """The peak in units of the alert line."""
        return self.peak / self.line


@dataclass
class Replayed:
    """What a replay gave: series with their number of samples in the period and the times of the first and
    last of them, episodes in order of time, how many levels became normal, and the bins' columns."""

    admitted: list[Admitted]
    count: I64
    first_ms: I64
    last_ms: I64
    episodes: list[Episode]
    relearned: int
    unscored: int
    bins: Mapping[str, npt.NDArray[np.generic]] = field(default_factory=dict)


def in_order(points: Points) -> Points:
    """The usable points sorted by series and time, one for each: the smallest value, as the worker keeps."""
    points = points.take(usable(points.value) & (points.t_ms > 0))
    points = points.take(np.lexsort((points.value, points.t_ms, points.series)))
    again = np.zeros(len(points), np.bool_)
    again[1:] = (points.series[1:] == points.series[:-1]) & (points.t_ms[1:] == points.t_ms[:-1])
    return points.take(~again) if again.any() else points


def chunks(points: Points, size: int = CHUNK_POINTS) -> Iterator[Points]:
    """The points in order of time, about ``size`` at once; points of one time are never separated."""
    order = np.argsort(points.t_ms, kind="stable")
    start = 0
    while start < len(order):
        end = min(start + size, len(order))
        end = int(np.searchsorted(points.t_ms, points.t_ms[order[end - 1]], side="right", sorter=order))
        yield points.take(order[start:end])
        start = end


class Replay:
    """The state of the detectors of some series, and what has been seen of them."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._policy = replace(setup.policy, kinds=KINDS_DRAWN if setup.bins else KINDS)
        self._table = SeriesTable()
        trainer = InlineTrainer() if self._policy.groups else None
        self._state = State(self._table, self._policy, trainer=trainer)
        self._admitted: list[Admitted] = []
        self._bins = Bins(setup.span, setup.bins) if setup.bins else None
        self._count = np.zeros(0, np.int64)
        self._first_ms = np.zeros(0, np.int64)
        self._last_ms = np.zeros(0, np.int64)
        self._line, self._fleet_line = np.zeros(0), np.zeros(0)
        self._episodes: list[Episode] = []
        self._open: dict[tuple[int, Kind], Episode] = {}
        self._relearned = self._unscored = 0

    def admit(self, admitted: Admitted) -> None:
        """Score a series from now on; series are numbered here in the order in which they are admitted."""
        row = self._table.add(*admitted.key)
        self._admitted.append(admitted)
        if row == len(self._count):
            room = max(16, 2 * row)
            for name in ("_count", "_first_ms", "_last_ms", "_line", "_fleet_line"):
                setattr(self, name, grown(getattr(self, name), room))
            if self._bins is not None:
                self._bins.grow(room)
        self._state.admit(row, admitted.rule)
        if admitted.rule is not None:
            rule = self._policy.rules[admitted.rule]
            self._line[row], self._fleet_line[row] = rule.episode.threshold, rule.fleet_episode.threshold
            return
        groups = [group for group in self._policy.groups if group.is_named(admitted.key)]
        self._line[row] = groups[0].episode.threshold if groups else np.nan

    def step(self, points: Points, now_ms: int) -> None:
        """Take all points up to ``now_ms`` that are newer than those before (``series`` numbered as here)."""
        found = evaluate(self._state, points, now_ms)
        self._tally(points, found)
        for event in found.events:
            self._tell(event)
        self._raise_peaks(found.derived)
        if self._bins is not None:
            self._draw(self._bins, points, found)

    def finish(self) -> Replayed:
        """Let the fleets see what they still wait for, and give everything that was seen."""
        waiting = [self._state.waiting.t_ms, *(group.waiting.t_ms for group in self._state.groups)]
        self.step(Points.empty(), int(np.concatenate(waiting).max(initial=0)) + self._policy.fleet_settle_ms)
        n, span = len(self._admitted), self._setup.span
        seen = [
            e
            for e in self._episodes
            if e.opened_ms < span.to_ms and (e.closed_ms is None or e.closed_ms >= span.from_ms)
        ]
        seen.sort(key=lambda e: (e.opened_ms, e.key, e.kind))
        columns = self._bins.columns(n) if self._bins is not None else {}
        counts = self._count[:n], self._first_ms[:n], self._last_ms[:n]
        return Replayed(self._admitted, *counts, seen, self._relearned, self._unscored, columns)

    def _tally(self, points: Points, found: Evaluation) -> None:
        own = found.scores.reason != Reason.LEARNED
        self._count_in(points.take(own) if not own.all() else points, found.scores.z[own])
        rows = found.groups
        at = np.lexsort((rows.t_ms, rows.series))
        self._count_in(rows.take(at), rows.value[at])

    def _count_in(self, points: Points, z: F64) -> None:
        """Count the points in the period, in order of series and time, and those of them without a score."""
        inside = (points.t_ms >= self._setup.span.from_ms) & (points.t_ms < self._setup.span.to_ms)
        self._unscored += int(np.count_nonzero(np.isnan(z) & inside))
        rows, t_ms = points.series[inside], points.t_ms[inside]
        if len(rows) == 0:
            return
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        ends = np.append(starts[1:], len(rows)) - 1
        at = rows[starts]
        self._first_ms[at] = np.where(self._count[at] == 0, t_ms[starts], self._first_ms[at])
        self._last_ms[at] = t_ms[ends]
        self._count[at] += ends - starts + 1

    def _tell(self, event: Event) -> None:
        place = event.series, event.kind
        if event.what == "opened":
            lines = self._fleet_line if event.kind is Kind.FLEET_ZSCORE else self._line
            # An event of a whole fleet is counted in devices: it is as strong as its line.
            line = abs(event.score) if event.kind is Kind.FLEET_EVENT else float(lines[event.series])
            self._open[place] = Episode(
                key=self._admitted[event.series].key,
                kind=SUFFIX[event.kind].removeprefix("."),
                reason=event.reason.name.lower(),
                since_ms=event.since_ms,
                opened_ms=event.t_ms,
                closed_ms=None,
                peak=abs(event.score),
                line=line,
                value=event.value,
                expected=event.expected,
                blame=event.blame,
            )
            self._episodes.append(self._open[place])
        elif event.what == "closed":
            episode = self._open.pop(place)
            episode.closed_ms, episode.peak = event.t_ms, abs(event.score)
        elif self._setup.span.from_ms <= event.t_ms < self._setup.span.to_ms:
            self._relearned += 1

    def _raise_peaks(self, derived: Derived) -> None:
        """Keep the peaks of open episodes: their end, which would tell, may not come in the period."""
        for (series, kind), episode in self._open.items():
            mine = (derived.series == series) & (derived.kind == kind) & (derived.t_ms >= episode.opened_ms)
            episode.peak = max(episode.peak, float(derived.value[mine].max(initial=0.0)))

    def _draw(self, bins: Bins, points: Points, found: Evaluation) -> None:
        bins.add(points.series, points.t_ms, points.value)
        bins.score(points.series, points.t_ms, np.abs(found.scores.z) / self._line[points.series])
        rows = found.groups.take(np.isfinite(found.groups.value))
        bins.add(rows.series, rows.t_ms, rows.value)
        bins.score(rows.series, rows.t_ms, rows.value / self._line[rows.series])
        fleet = found.derived.take(found.derived.kind == Kind.FLEET_ZSCORE_RAW)
        bins.score(fleet.series, fleet.t_ms, np.abs(fleet.value) / self._fleet_line[fleet.series])
        for name, kind in BAND.items():
            column = found.derived.take(found.derived.kind == kind)
            bins.band(name, column.series, column.t_ms, column.value)


def joined(parts: Sequence[Replayed], setup: Setup) -> tuple[Replayed, Bins | None]:
    """The parts of a run as one, with series in order of their numbers: the same for any number of parts."""
    numbers = np.array([a.series for part in parts for a in part.admitted], np.int64)
    order = np.argsort(numbers)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    admitted = [a for part in parts for a in part.admitted]

    def column(name: str) -> I64:
        whole: I64 = np.concatenate([getattr(part, name) for part in parts])[order]
        return whole

    episodes = sorted(
        (e for part in parts for e in part.episodes), key=lambda e: (e.opened_ms, e.key, e.kind)
    )
    bins = None
    if setup.bins:
        ends = np.cumsum([len(part.admitted) for part in parts])[:-1]
        rows = np.split(place, ends)
        bins = Bins.joined(
            setup.span, setup.bins, [(r, part.bins) for r, part in zip(rows, parts, strict=True)]
        )
    whole = Replayed(
        [admitted[i] for i in order.tolist()],
        column("count"),
        column("first_ms"),
        column("last_ms"),
        episodes,
        sum(part.relearned for part in parts),
        sum(part.unscored for part in parts),
    )
    return whole, bins
