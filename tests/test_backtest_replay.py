"""backtest replay: the live path's own bits, whatever the chunks and processes; bins that keep extremes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import astuple, replace

import numpy as np
import pytest
from backtest_week import HOUR, MINUTE, T0, config, setup, week

from plexus_detect.backtest.bins import Bins, cadence_ms, stretches
from plexus_detect.backtest.moments import Span
from plexus_detect.backtest.replay import Admitted, Replay, Replayed, in_order, joined
from plexus_detect.backtest.run import Run, chunks, warm_from_ms
from plexus_detect.backtest.shards import Shards
from plexus_detect.evaluate import State, evaluate
from plexus_detect.series import Points, SeriesKey, SeriesTable

PLAIN = {"detect__window": "60", "detect__min_points": "20", "fleet__min_points": "20"}
QUICK = PLAIN | {"detect__detector": "zscore"}


def admitted(keys: list[SeriesKey], **more: str) -> list[Admitted]:
    """The series under their rules as they are written, small fleets and all."""
    given = config(**(QUICK | more))
    found = ((i, key, given.rule_for(*key)) for i, key in enumerate(keys))
    return [Admitted(i, key, rule) for i, key, rule in found if rule is not None]


def replay(
    keys: list[SeriesKey],
    points: Points,
    span: Span,
    size: int,
    jobs: int = 1,
    settings: dict[str, str] = QUICK,
) -> tuple[Replayed, Bins]:
    """A replay in chunks of about ``size`` points."""
    made = setup(span, 96, **settings)
    with Shards(made, jobs) as shards:
        shards.admit(admitted(keys))
        for part in chunks(points, size):
            shards.put(part, int(part.t_ms[-1]))
        whole, bins = joined(shards.finish(), made)
    assert bins is not None
    return whole, bins


def same(a: tuple[Replayed, Bins], b: tuple[Replayed, Bins]) -> bool:
    """The same episodes, counts and bins, bit by bit."""
    columns = zip(a[1].columns(len(a[1])).values(), b[1].columns(len(b[1])).values(), strict=True)
    return (
        a[0].episodes == b[0].episodes
        and a[0].admitted == b[0].admitted
        and (a[0].count == b[0].count).all()
        and (a[0].relearned, a[0].unscored) == (b[0].relearned, b[0].unscored)
        and all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in columns)
    )


@pytest.fixture(scope="module", name="fleet")
def _fleet() -> tuple[list[SeriesKey], Points, Span]:
    keys, points = week()
    return keys, points, Span(T0 + HOUR, T0 + 10 * HOUR)


@pytest.mark.parametrize("settings", [QUICK, PLAIN], ids=["zscore", "default"])
def test_episodes_are_those_of_the_live_path(
    fleet: tuple[list[SeriesKey], Points, Span], settings: dict[str, str]
) -> None:
    """Stepping ``evaluate`` tick by tick, as the worker does, gives the same events bit by bit."""
    keys, points, _span = fleet
    table = SeriesTable()
    state = State(table, setup(Span(0, 1), **settings).policy)
    for series, key in enumerate(keys):
        table.add(*key)
        state.admit(series, 0)
    events = []
    for tick in range(T0, T0 + 11 * HOUR, 5 * MINUTE):
        due = points.take((points.t_ms >= tick - 5 * MINUTE) & (points.t_ms < tick))
        events += evaluate(state, in_order(due), tick).events
    found, _bins = replay(keys, points, Span(0, T0 + 11 * HOUR), 5_000, settings=settings)
    opened = [e for e in events if e.what == "opened"]
    closed = [e for e in events if e.what == "closed"]
    live = sorted(
        (e.t_ms, e.since_ms, keys[e.series], e.value, e.expected, e.reason.name.lower()) for e in opened
    )
    assert live == sorted(
        (e.opened_ms, e.since_ms, e.key, e.value, e.expected, e.reason) for e in found.episodes
    )
    assert sorted((e.t_ms, keys[e.series], abs(e.score)) for e in closed) == sorted(
        (e.closed_ms, e.key, e.peak) for e in found.episodes if e.closed_ms is not None
    )
    assert any(e.key == ("dev-1", "m0") and e.kind == "zscore" for e in found.episodes)


@pytest.mark.parametrize("size", [1, 97, 2_000, 10**9])
def test_chunks_change_nothing(fleet: tuple[list[SeriesKey], Points, Span], size: int) -> None:
    """Chunks of a point or of everything: the same episodes and the same drawing."""
    keys, points, span = fleet
    if size == 1:
        points = points.take(points.t_ms < T0 + 90 * MINUTE)
    assert same(replay(keys, points, span, size), replay(keys, points, span, 700))


def test_jobs_change_nothing(fleet: tuple[list[SeriesKey], Points, Span]) -> None:
    """Three processes give the bits of one; the sources of a metric are in one process together."""
    keys, points, span = fleet
    one, three = (replay(keys, points, span, 3_000, jobs, PLAIN) for jobs in (1, 3))
    assert same(one, three)


@pytest.mark.parametrize(("devices", "rules"), [(4, {1}), (5, {0})])
def test_fleets_too_small_to_score_are_left_out(devices: int, rules: set[int]) -> None:
    """Below group_min sources a fleet has no scores, so that leaving it out changes nothing."""
    keys, points = week(devices=devices, metrics=1, samples=300)
    span = Span(T0, T0 + 10 * HOUR)
    run = Run(config(**QUICK), 1, draw=False, progress=lambda _share: None)
    assert {a.rule for a in run.selection.admit(keys)} == rules
    found, _bins = run.over(keys, points, span)
    assert found.episodes == replay(keys, points, span, 500)[0].episodes


def test_a_budget_keeps_all_series_in_one_process() -> None:
    """They share it, and so do their fleets, however small."""
    run = Run(config(detect__alert_budget="5/week"), 4, draw=False, progress=lambda _share: None)
    assert run.jobs == 1
    assert [a.rule for a in run.selection.admit([SeriesKey("a", "t")])] == [0]


def test_fleets_stay_together() -> None:
    """Sources of one metric and rule share a shard; without fleets every series may go anywhere."""
    keys, _points = week(devices=4, metrics=2)
    for enabled, homes in (("true", 2), ("false", 3)):
        shards = Shards(setup(Span(0, 1), fleet__enabled=enabled), 1)
        shards._shards, shards._sizes, shards._new = [], [0, 0, 0], [[], [], []]
        shards.admit(admitted(keys, fleet__enabled=enabled))
        of = {key: int(shards._shard_of[i]) for i, key in enumerate(keys)}
        assert len(set(of.values())) == homes
        if homes == 2:
            assert all(of[key] == of[SeriesKey("dev-0", key.metric)] for key in keys)


def test_series_may_come_later() -> None:
    """A series that nobody knew at first is scored from its first chunk on, as if it had been known."""
    keys, points = week(devices=2, metrics=1)
    late = points.take((points.series == 0) | (points.t_ms > T0 + 5 * HOUR))
    span = Span(T0, T0 + 10 * HOUR)
    made = setup(span, 96, **QUICK)
    series = admitted(keys)
    with Shards(made, 1) as shards:
        shards.admit(series[:1])
        for part in chunks(late, 200):
            if (part.series == 1).any():
                shards.admit(series[1:])
                series = series[:1]
            shards.put(part, int(part.t_ms[-1]))
        later, bins = joined(shards.finish(), made)
    assert bins is not None
    assert same((later, bins), replay(keys, late, span, 200))


def test_a_process_that_fails_is_told() -> None:
    """Its traceback is the message; nothing hangs."""
    broken = setup(Span(0, 1))
    broken = replace(broken, policy=replace(broken.policy, rules=(None,)))  # type: ignore[arg-type]
    with Shards(broken, 2) as shards, pytest.raises(RuntimeError, match="a process failed"):
        shards.finish()


def test_warm_up_is_bounded_and_not_counted() -> None:
    """Points before the period are read as far as poll.history, score from the start, and count nowhere."""
    keys, points = week(devices=1, metrics=1)
    span = Span(T0 + 2 * HOUR, T0 + 10 * HOUR)
    cold = Run(config(poll__history="1m", **QUICK), 1, draw=False, progress=lambda _share: None)
    warm = Run(config(poll__history="1d", **QUICK), 1, draw=False, progress=lambda _share: None)
    assert warm_from_ms(cold.config, span) == span.from_ms - MINUTE
    few, all_of_it = cold.over(keys, points, span)[0], warm.over(keys, points, span)[0]
    assert few.unscored > 15
    assert all_of_it.unscored == 0
    assert few.count[0] == all_of_it.count[0] == int((points.t_ms >= span.from_ms).sum())


def test_what_lasts_into_the_period_is_shown() -> None:
    """An episode that opened before it is kept, and one that is open at the end has its peak so far."""
    keys, points = week(devices=1, metrics=1, samples=200)
    value = points.value.copy()
    value[90:110] += 50.0
    value[-10:] += 90.0
    points = Points(points.series, points.t_ms, value)
    span = Span(int(points.t_ms[100]), int(points.t_ms[-1]) + 1)
    made = setup(span, **QUICK)
    replaying = Replay(made)
    replaying.admit(admitted(keys)[0])
    replaying.step(in_order(points), int(points.t_ms[-1]))
    first, last = replaying.finish().episodes
    assert first.opened_ms < span.from_ms < (first.closed_ms or 0)
    assert last.closed_ms is None
    assert last.peak >= 3


def test_order_and_repeats() -> None:
    """Points are sorted by series and time; of several at one time the smallest value is kept."""
    raw = Points(np.array([1, 0, 0, 0]), np.array([5, 7, 6, 6]), np.array([1.0, 2.0, 4.0, 3.0]))
    tidy = in_order(Points.concat([raw, Points(np.array([0]), np.array([9]), np.array([np.nan]))]))
    assert [tuple(x) for x in zip(*astuple(tidy)[:3], strict=True)] == [(0, 6, 3.0), (0, 7, 2.0), (1, 5, 1.0)]


# --- bins -------------------------------------------------------------------------------------------------


def test_a_spike_survives_the_bins() -> None:
    """One sample among ten thousand is still the greatest value of its bin, with its score."""
    n = 10_000
    bins = Bins(Span(0, n), 20)
    bins.grow(1)
    value = np.zeros(n)
    value[7_777] = 99.0
    for at in range(0, n, 1_111):
        part = slice(at, at + 1_111)
        t_ms = np.arange(n)[part]
        bins.add(np.zeros(len(t_ms), np.int64), t_ms, value[part])
        bins.score(np.zeros(len(t_ms), np.int64), t_ms, value[part] / 10)
    assert bins.count[0].tolist() == [500] * 20
    assert bins.high[0].tolist() == [0.0] * 15 + [99.0] + [0.0] * 4
    assert bins.low[0].tolist() == [0.0] * 20
    assert bins.worst[0, 15] == 9.9
    assert (bins.first_ms[0, 1], bins.last_ms[0, 1]) == (500, 999)


@pytest.mark.parametrize("cadence", [1, 7, 60])
def test_gaps_are_told_from_slow_series(cadence: int) -> None:
    """A hole of many cadences cuts the line; samples wider apart than the bins do not."""
    bins = Bins(Span(0, 1_000), 100)
    bins.grow(1)
    t_ms = np.arange(0, 1_000, cadence)
    t_ms = t_ms[(t_ms < 300) | (t_ms > 600)]
    bins.add(np.zeros(len(t_ms), np.int64), t_ms, np.ones(len(t_ms)))
    assert cadence_ms(bins, 0) == pytest.approx(cadence, abs=cadence / 2)
    runs = stretches(bins, 0)
    assert len(runs) == 2
    assert runs[0][-1] < 30
    assert runs[1][0] >= 60


def test_importing_the_command_is_cheap() -> None:
    """The command line imports neither NumPy nor pydantic before the command runs."""
    code = "import plexus_detect.cli, sys; print({'numpy', 'pydantic', 'httpx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
