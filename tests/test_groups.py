"""groups: which points become a row, and what a learned detector makes of rows, however the points came."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.episode import EpisodeParams
from plexus_detect.evaluate import Evaluation, Event, Policy, Rule, State, dump, evaluate, load
from plexus_detect.groups import GroupRule, Join, Rows
from plexus_detect.learn.stream import LearnParams
from plexus_detect.series import Derived, Kind, Points, Reason, SeriesTable
from plexus_detect.telling import told
from plexus_detect.training.trainer import InlineTrainer

T0 = 1_800_000_000_000
METRICS = ("vibration", "current", "temperature")
QUICK = LearnParams(
    "ecod", min_samples=60, retrain_interval=60, window_size=200, contamination=0.01, handover=12
)
MOTOR = GroupRule("motor", METRICS, learn=QUICK)
FAR = 10**9

# --- rows -------------------------------------------------------------------------------------------------


def stream(cells: list[tuple[int, int, float]], late: tuple[int, ...] = ()) -> tuple[np.ndarray, Points]:
    """Points from (cell, milliseconds after T0, value), in order of cell and time as a tick brings them."""
    order = sorted(range(len(cells)), key=lambda i: cells[i][:2])
    cell, t_ms, value = (np.array(column) for column in zip(*(cells[i] for i in order), strict=True))
    marked = np.isin(order, late)
    return cell, Points(cell, T0 + t_ms, value.astype(np.float64), marked)


def joined(cells: list[tuple[int, int, float]], k: int = 3, align_ms: int = 1000) -> list[tuple]:
    """The rows that these points make at once: time after T0 and values, None for what is missing."""
    join = Join(k, align_ms)
    join.grow(4)
    return shown(join.step(*stream(cells)))


def shown(rows: Rows) -> list[tuple]:
    """Rows as plain values."""
    values = [[None if np.isnan(v) else v for v in row] for row in rows.x.tolist()]
    return [(t - T0, *row) for t, row in zip(rows.t_ms.tolist(), values, strict=True)]


def test_a_row_is_whole_with_the_value_of_its_last_metric() -> None:
    """It comes with the point that completes it, at that point's time; what is not whole waits."""
    assert joined([(0, 0, 1.0), (1, 200, 2.0), (2, 300, 3.0), (0, 1000, 4.0)]) == [(300, 1.0, 2.0, 3.0)]


def test_times_around_a_full_second_meet() -> None:
    """Samples just before and just after it are one row, of which a bucket that begins there makes two."""
    cells = [(0, 999, 1.0), (1, 1001, 2.0), (2, 1002, 3.0)]
    assert joined(cells) == [(1002, 1.0, 2.0, 3.0)]


def test_equal_times_only() -> None:
    """With no width only samples of one millisecond are one row."""
    cells = [(0, 5, 1.0), (1, 5, 2.0), (0, 9, 3.0), (1, 10, 4.0), (0, 10, 5.0)]
    assert joined(cells, k=2, align_ms=0) == [(5, 1.0, 2.0), (10, 5.0, 4.0)]


def test_of_a_faster_metric_the_first_value_counts() -> None:
    """A row has one value of each; the others of its time are neither late nor a row."""
    join = Join(2, 1000)
    join.grow(1)
    fast = [(0, 100 * n, float(n)) for n in range(25)]
    rows = join.step(*stream([*fast, (1, 0, 50.0), (1, 1000, 51.0), (1, 2000, 52.0)]))
    assert shown(rows) == [(0, 0.0, 50.0), (1000, 5.0, 51.0), (2000, 15.0, 52.0)]
    assert (join.feeds.left_out[0], join.feeds.alone[0]) == (0, 0)


def test_a_missing_metric_is_waited_for_and_then_done_without() -> None:
    """Rows of a silent sensor come a few steps later, with a hole; one value alone is no row, but counted."""
    join = Join(3, 1000)
    join.grow(1)
    both = [(c, 1000 * n, float(n)) for n in range(30) for c in (0, 1)]
    rows = shown(join.step(*stream(both)))
    assert rows[0] == (0, 0.0, 0.0, None)
    assert 24 <= len(rows) <= 27
    alone = [(0, 1000 * n, float(n)) for n in range(30, 60)]
    assert len(shown(join.step(*stream(alone)))) == 30 - len(rows)
    assert join.feeds.alone[0] > 20


def test_late_points_and_those_behind_their_row_are_left_out_and_counted() -> None:
    """What is marked late is never joined; nor is what comes after its row went without it."""
    join = Join(3, 1000)
    join.grow(1)
    both = [(c, 1000 * n, float(n)) for n in range(30) for c in (0, 1)]
    first = shown(join.step(*stream(both)))
    more = shown(join.step(*stream([(2, 0, 9.0), (2, 28_000, 9.0), (1, 5, 7.0)], late=(2,))))
    assert join.feeds.left_out[0] == 2
    assert more[-1] == (28_000, 28.0, 28.0, 9.0)
    assert len(first) + len(more) == 29


def test_a_value_that_is_no_number_is_a_hole_and_not_waited_for() -> None:
    """The metric has reported: the row is whole without a value of it."""
    assert joined([(0, 0, 1.0), (1, 0, np.nan), (2, 0, 3.0)]) == [(0, 1.0, None, 3.0)]


def test_what_waits_is_bounded() -> None:
    """Rows that wait for a metric that never comes are closed when there are too many, however close."""
    join = Join(3, 1)
    join.grow(1)
    cells = [(c, n, float(n)) for n in range(2000) for c in (0, 1)]
    assert len(join.step(*stream(cells)).feed) == 2000 - 256


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[tuple[int, int, float]], list[int]]:
    """Points of two sources with phases, jitter, holes and lags of less than three seconds, each with the
    second in which it arrives."""
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    lag = draw(st.integers(0, 2))
    cells, arrivals = [], []
    for cell in range(6):
        phase, keep = rng.integers(0, 900), rng.uniform(0.3, 1.0)
        arrived = 0
        for n in range(40):
            if rng.random() < keep:
                cells.append((cell, int(1000 * n + phase + rng.integers(0, 90)), float(n)))
                # A series comes in its own order; only late points do not.
                arrived = max(arrived, n + int(rng.integers(0, lag + 1)))
                arrivals.append(arrived)
    return cells, arrivals


@examples(600)
@given(streams(), st.integers(1, 7))
def test_rows_do_not_depend_on_how_polls_split_the_points(
    given_points: tuple[list[tuple[int, int, float]], list[int]], every: int
) -> None:
    """All at once, and poll by poll with some metrics behind: the same rows of each source, bit for bit."""
    cells, arrivals = given_points
    whole, split = Join(3, 1000), Join(3, 1000)
    whole.grow(2)
    split.grow(2)
    # What is still open at the end of the one is at the end of the other.
    expected = whole.step(*stream(cells))
    parts: list[Rows] = []
    for start in range(0, max(arrivals) + 1, every):
        mine = [c for c, a in zip(cells, arrivals, strict=True) if start <= a < start + every]
        if mine:
            parts.append(split.step(*stream(mine)))
    for feed in range(2):
        got = [row for part in parts for row in shown(part.take(part.feed == feed))]
        assert got == shown(expected.take(expected.feed == feed))


# --- what is made of them ---------------------------------------------------------------------------------


def policy(rule: GroupRule = MOTOR) -> Policy:
    """One group, and a rule for what is scored alone."""
    return Policy((Rule(detector="zscore"),), groups=(rule,))


def state_for(
    rule: GroupRule = MOTOR, sources: tuple[str, ...] = ("press-1",), emit_from_ms: int = 0
) -> State:
    """The three metrics of each source in the group only, and the series of its score."""
    state = State(SeriesTable(), policy(rule), trainer=InlineTrainer())
    for source in sources:
        for metric in (*rule.metrics, rule.name):
            state.admit(state.table.add(source, metric), None, emit_from_ms)
    return state


def motors(n: int = 400, sources: int = 1, broken: slice = slice(0, 0)) -> Points:
    """Three metrics that follow one load; while ``broken`` the current of the first source does not."""
    columns = []
    for source in range(sources):
        rng = np.random.default_rng(source)
        load = rng.uniform(-1, 1, n)
        noise = rng.normal(0, 0.05, (3, n))
        values = [load + noise[0], 20 + 2 * load + noise[1], 50 - load + noise[2]]
        if source == 0:
            values[1][broken] += 6.0
        for metric, value in enumerate(values):
            columns.append(Points(np.full(n, 4 * source + metric), T0 + 1000 * np.arange(n), value))
    return Points.concat(columns)


def polls(points: Points, seconds: int) -> Iterator[tuple[Points, int]]:
    """The points in ticks of so many seconds, each with the time of its poll."""
    for start in range(int(points.t_ms.min()), int(points.t_ms.max()) + 1, 1000 * seconds):
        end = start + 1000 * seconds
        yield points.take((points.t_ms >= start) & (points.t_ms < end)), end


def played(state: State, points: Points, seconds: int) -> tuple[Derived, list[Event]]:
    """What ticks of so many seconds post, in order of time and series, and tell."""
    out = [evaluate(state, part, now_ms) for part, now_ms in polls(points, seconds)]
    out.append(evaluate(state, Points.empty(), FAR + T0))
    derived = Derived.concat([e.derived for e in out])
    return derived.take(np.lexsort((derived.series, derived.t_ms))), [x for e in out for x in e.events]


def same(a: Derived, b: Derived) -> bool:
    """Bit for bit."""
    return all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("series", "kind", "t_ms", "value")
    )


@pytest.fixture(scope="module", name="whole")
def _whole() -> Evaluation:
    """A broken current of ten seconds, evaluated at once."""
    return evaluate(state_for(), motors(broken=slice(300, 310)), T0 + FAR)


def test_a_break_opens_one_episode_that_names_the_culprit(whole: Evaluation) -> None:
    """Three rows beyond the line open it at the third, zeros are posted before and after, and the event says
    who has the largest part."""
    events = [e for e in whole.events if T0 + 290_000 <= e.t_ms < T0 + 330_000]
    assert [(e.what, e.kind, e.reason) for e in events] == [
        ("opened", Kind.ANOMALY, Reason.LEARNED),
        ("closed", Kind.ANOMALY, Reason.LEARNED),
    ]
    opened = events[0]
    assert (opened.t_ms, opened.since_ms) == (T0 + 302_000, T0 + 300_000)
    assert opened.blame[0][0] == "current"
    assert opened.blame[0][1] > 0.5
    anomaly = whole.derived.take(whole.derived.kind == Kind.ANOMALY)
    posted = dict(zip(((anomaly.t_ms - T0) // 1000).tolist(), anomaly.value.tolist(), strict=True))
    assert (posted[290], posted[301], posted[330]) == (0.0, 0.0, 0.0)
    assert all(posted[s] > 3.0 for s in range(302, 310))
    assert min(posted) == QUICK.min_samples + (QUICK.handover or 0)


def test_the_words_of_an_event(whole: Evaluation) -> None:
    """Group, source, score, backend and the shares in percent; the end names nobody."""
    opened, closed = [e for e in whole.events if T0 + 290_000 <= e.t_ms < T0 + 330_000]
    key = state_for().table.keys[opened.series]
    text = told(opened, key)
    assert text["series"] == "motor.anomaly"
    assert text["msg"].startswith(
        f"motor on press-1 is anomalous: score {opened.score:.1f} (learned ecod): current "
    )
    assert f"current {opened.blame[0][1]:.0%}".replace("%", " %") in text["msg"]
    assert "motor on press-1 is back to normal: score" in told(closed, key)["msg"]


def test_only_groups_take_their_members(whole: Evaluation) -> None:
    """A series under no rule has no score of its own, and is not counted as one that waits for it."""
    assert np.isnan(whole.scores.z).all()
    assert whole.unknown == {Reason.LEARNED: 1200}
    assert len(whole.groups) == 400


def test_sensitivity_moves_the_line() -> None:
    """The same rows score 1.5 times less under low, and the posted line stays where it is."""
    points = motors(200)
    medium = evaluate(state_for(), points, T0 + FAR).groups.value
    low = evaluate(state_for(replace(MOTOR, sensitivity=1.5)), points, T0 + FAR).groups.value
    assert np.allclose(low * 1.5, medium, equal_nan=True)


def test_nothing_is_posted_or_told_from_before_emit_from() -> None:
    """The past warms the group up; its episodes are history."""
    points = motors(broken=slice(300, 310))
    found = evaluate(state_for(emit_from_ms=T0 + 350_000), points, T0 + FAR)
    assert int(found.derived.t_ms.min()) == T0 + 350_000
    assert not [e for e in found.events if e.t_ms < T0 + 350_000]


@pytest.mark.parametrize("shared", [False, True])
def test_live_equals_replay(shared: bool) -> None:
    """Polls of one second, of seven, and all at once: the same posted values and events, also where sources
    share a model, and through retraining."""
    rule = replace(MOTOR, shared=shared)
    sources, points = ("press-1", "press-2"), motors(240, 2, slice(200, 210))
    runs = [played(state_for(rule, sources), points, seconds) for seconds in (1, 7, 1000)]
    for derived, events in runs[1:]:
        assert same(derived, runs[0][0])
        assert events == runs[0][1]
    assert len(runs[0][0]) > 200
    assert any(e.what == "opened" and e.t_ms == T0 + 202_000 for e in runs[0][1])


@pytest.mark.parametrize("shared", [False, True])
def test_a_snapshot_changes_nothing(shared: bool) -> None:
    """Saved and loaded between any two polls, also while a fit is under way, the state goes on as it was."""
    rule = replace(MOTOR, shared=shared)
    sources, points = ("press-1", "press-2"), motors(150, 2, slice(130, 140))
    expected = played(state_for(rule, sources), points, 6)
    state, out = state_for(rule, sources), []
    for part, now_ms in polls(points, 6):
        out.append(evaluate(state, part, now_ms))
        state = load(state.table, state.policy, dump(state), InlineTrainer())
    out.append(evaluate(state, Points.empty(), FAR + T0))
    derived = Derived.concat([e.derived for e in out])
    assert same(derived.take(np.lexsort((derived.series, derived.t_ms))), expected[0])
    assert [x for e in out for x in e.events] == expected[1]


def test_groups_need_a_trainer() -> None:
    """A state that could never fit a model is refused."""
    with pytest.raises(ValueError, match="trainer"):
        State(SeriesTable(), policy())


def test_a_group_changes_the_fingerprint() -> None:
    """A snapshot of other groups does not fit; one from before there were any still does."""
    other = replace(MOTOR, episode=EpisodeParams(threshold=4.0))
    prints = {
        policy().fingerprint(),
        policy(other).fingerprint(),
        Policy((Rule(detector="zscore"),)).fingerprint(),
    }
    assert len(prints) == 3
    assert "Group" not in Policy(()).fingerprint()
