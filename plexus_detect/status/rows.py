"""From running state to one row a series: what stands in the table of ``status``. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from plexus_detect.cursor import SILENT_MS, SILENT_SAMPLES
from plexus_detect.detectors import Auto, Detector
from plexus_detect.detectors.guarded import Guarded
from plexus_detect.episode import Episodes
from plexus_detect.groups import Group
from plexus_detect.lane import Lane
from plexus_detect.learn.stream import Learner
from plexus_detect.running import Running
from plexus_detect.series import F64, I64, SUFFIX, Bool, Kind, Points, Reason, SeriesKey

State = Literal["scored", "warming", "flat", "silent", "stale", "group only", "unknown"]
_Silence = tuple[Bool, Bool]
STATES: tuple[State, ...] = ("scored", "warming", "flat", "silent", "stale", "group only", "unknown")
Sort = Literal["urgent", "name", "age", "z", "fleet"]


class OpenEpisode(NamedTuple):
    """An open anomaly: against the series' ``own`` past, the ``fleet`` or the rest of its ``group``; the time
    of its first odd sample, its largest score, and the check that gave it."""

    against: Literal["own", "fleet", "group"]
    since_ms: int
    peak: float
    check: str


@dataclass(frozen=True)
class Row:
    """One series as of the last tick.

    ``last_ms`` is None without any sample; ``value``, ``z`` and ``fleet_z`` are NaN while not known; ``over``
    is the largest score in units of its line. While ``warming``, ``known`` of ``needed`` points are there;
    ``late`` points came after newer ones.
    """

    key: SeriesKey
    last_ms: int | None
    value: float
    z: float
    fleet_z: float
    over: float
    state: State
    known: int
    needed: int
    episodes: tuple[OpenEpisode, ...] = ()
    late: int = 0


class Moment(NamedTuple):
    """When it is, when the last tick was (None: never), and whether a worker is running."""

    now_ms: int
    tick_ms: int | None
    live: bool


def rows_of(running: Running, value: F64, moment: Moment, misfit: bool = False) -> list[Row]:
    """The rows of all series that are watched, in the order of their numbers; scores only without ``misfit``.

    A series is silent after ten of its usual gaps and a minute without a sample, as the cursors say it too;
    it is stale when that time has passed only since the last tick of a worker that has gone.
    """
    silence = _silence(running, moment)
    return [*_measured(running, value, silence, misfit), *_of_groups(running, silence, misfit)]


def _measured(running: Running, value: F64, silence: _Silence, misfit: bool) -> Iterator[Row]:
    cursors, keys = running.cursors, running.table.keys
    columns = _Columns(len(keys))
    columns.value[: len(value)] = value[: len(keys)]
    for lane in running.state.lanes:
        if lane.members and not misfit:
            _of_lane(columns, lane)
    columns.take_scores(running)
    silent, stale = silence
    for i in np.flatnonzero(cursors.selected[: len(keys)]).tolist():
        state: State = columns.state.get(i, "unknown" if misfit else "group only")
        state = "silent" if silent[i] else "stale" if stale[i] else state
        last_ms, needed = int(cursors.last_ms[i]), int(columns.needed[i])
        yield Row(
            keys[i],
            last_ms if last_ms >= 0 else None,
            float(columns.value[i]),
            float(columns.z[i]),
            float(columns.fleet_z[i]),
            float(columns.over[i]),
            state,
            min(int(columns.known[i]), needed),
            needed,
            tuple(columns.episodes.get(i, ())),
            int(cursors.late_n[i]),
        )


class _Columns:
    """What is gathered from the lanes, by the number of the series."""

    def __init__(self, n: int) -> None:
        self.value, self.z, self.fleet_z = np.full((3, n), np.nan)
        self.line, self.fleet_line, self.over = np.full(n, np.inf), np.full(n, np.inf), np.zeros(n)
        self.known, self.needed = np.zeros((2, n), np.int64)
        self.state: dict[int, State] = {}
        self.episodes: dict[int, list[OpenEpisode]] = {}

    def take_scores(self, running: Running) -> None:
        """The newest scores, where a lane has the series."""
        state = running.state
        n = min(len(self.z), len(state.last_z))
        for mine, line, last in (
            (self.z, self.line, state.last_z),
            (self.fleet_z, self.fleet_line, state.last_fleet_z),
        ):
            mine[:n] = np.where(np.isfinite(line[:n]), last[:n], np.nan)
            self.over = np.fmax(self.over, np.abs(mine) / line)


def _of_lane(columns: _Columns, lane: Lane) -> None:
    series, rows = np.array(lane.members, np.int64), np.arange(len(lane.members))
    columns.line[series] = lane.line.threshold
    known, needed = lane.detector.ready_count(rows), _needed(lane.detector)
    columns.known[series], columns.needed[series] = known, needed
    moved = ~_never_moved(lane.detector, rows)
    words: Sequence[State] = ("warming", "flat", "scored")
    codes = np.where(known < needed, 0, np.where(moved, 2, 1))
    columns.state |= {s: words[code] for s, code in zip(series.tolist(), codes.tolist(), strict=True)}
    _add_episodes(columns, lane.line.episodes, series, "own")
    if lane.fleet is not None:
        columns.fleet_line[series] = lane.fleet_line.threshold
        _add_episodes(columns, lane.fleet_line.episodes, series, "fleet")
        # The fleet remembers the newest value of each source for longer than the journal does.
        held = lane.fleet.value[: len(series)]
        columns.value[series] = np.where(np.isnan(columns.value[series]), held, columns.value[series])


def _needed(detector: Detector) -> int:
    """From how many points on the detector scores."""
    asked = Points(np.zeros(1, np.int64), np.zeros(1, np.int64), np.full(1, np.nan))
    return detector.receipt(asked).needed


def _never_moved(detector: Detector, rows: I64) -> Bool:
    """Which series always had the same value, where the detector measures steps."""
    if isinstance(detector, Auto):
        return np.isinf(detector.panes.resolution[rows])
    if isinstance(detector, Guarded):
        return np.isinf(detector.resolution[rows])
    return np.zeros(len(rows), np.bool_)


def _add_episodes(
    columns: _Columns, episodes: Episodes, series: I64, against: Literal["own", "fleet"]
) -> None:
    for row in np.flatnonzero(episodes.is_open[: len(series)]).tolist():
        columns.episodes.setdefault(int(series[row]), []).append(_episode(episodes, row, against))


def _episode(episodes: Episodes, row: int, against: Literal["own", "fleet", "group"]) -> OpenEpisode:
    check = Reason(int(episodes.reason[row])).name.lower()
    return OpenEpisode(against, int(episodes.since_ms[row]), float(episodes.peak[row]), check)


def _silence(running: Running, moment: Moment) -> _Silence:
    """Which series are silent, and of which nobody knows because no worker has looked since."""
    last, cadence = running.cursors.last_ms, running.cursors.cadence_ms

    def quiet(at_ms: int) -> Bool:
        gap = at_ms - last
        out: Bool = (last >= 0) & (cadence > 0) & (gap > SILENT_MS) & (gap > SILENT_SAMPLES * cadence)
        return out

    now, then = quiet(moment.now_ms), quiet(moment.tick_ms or 0)
    return (now, now & False) if moment.live else (then, now & ~then)


def _of_groups(running: Running, silence: _Silence, misfit: bool) -> Iterator[Row]:
    """The scores of metrics that are judged together, one row a source."""
    for group in running.state.groups:
        for feed, series in enumerate(group.posted_as[: len(group.feed_of)].tolist()):
            if series >= 0:
                yield _group_row(running, group, (feed, series), silence, misfit)


def _group_row(
    running: Running, group: Group, which: tuple[int, int], silence: _Silence, misfit: bool
) -> Row:
    feed, series = which
    last_ms = int(group.join.feeds.last_ms[feed])
    z = math.nan if misfit else float(running.state.last_z[series])
    known, needed = _progress(group, feed)
    state: State = "unknown" if misfit else "warming" if known < needed else "scored"
    members = np.flatnonzero(group.cell_of // group.join.k == feed)
    silent, stale = (len(members) > 0 and bool(mask[members].all()) for mask in silence)
    key, episodes = running.table.keys[series], group.episodes
    return Row(
        key._replace(metric=key.metric + SUFFIX[Kind.ANOMALY]),
        last_ms if last_ms >= 0 else None,
        math.nan,
        z,
        math.nan,
        abs(z) / episodes.params.threshold if math.isfinite(z) else 0.0,
        "silent" if silent else "stale" if stale else state,
        known,
        needed,
        (_episode(episodes, feed, "group"),) if episodes.is_open[feed] and not misfit else (),
    )


def _progress(group: Group, feed: int) -> tuple[int, int]:
    """How many rows the model of a feed has learned, of how many; (1, 1) where it needs no more."""
    if len(group.learners) <= (0 if group.rule.shared else feed):
        return 0, group.rule.learn.min_samples
    judge = group.learner(feed)
    if not isinstance(judge, Learner) or judge.fitted is not None:
        return 1, 1
    needed = judge.params.min_samples
    # With all its rows a first model still waits for their time span, and is then fitted.
    return min(judge.seen, needed - 1), needed


# -- which rows, in which order


def sorted_rows(rows: Sequence[Row], by: Sort) -> list[Row]:
    """The rows, the most interesting ones first: by default open episodes, then the largest scores in units
    of their lines, then the names."""
    if by == "name":
        return sorted(rows, key=lambda row: row.key)
    if by == "age":
        return sorted(rows, key=lambda row: (row.last_ms is not None, row.last_ms or 0, row.key))
    if by in ("z", "fleet"):
        return sorted(rows, key=lambda row: (-_size(row.z if by == "z" else row.fleet_z), row.key))
    return sorted(rows, key=lambda row: (not row.episodes, -row.over, row.key))


def _size(z: float) -> float:
    return abs(z) if math.isfinite(z) else -1.0


def counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows are in each state, those that occur, in the order of ``STATES``."""
    found = {state: sum(row.state == state for row in rows) for state in STATES}
    return {state: n for state, n in found.items() if n}
