"""learn.pace and its place in learn.stream: the window spans its days, and how rows come changes nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learn_data import FailingTrainer, RememberingTrainer, joined, motor
from learn_data import learner as learner_of
from profiles import examples

from plexus_detect.learn.pace import Pace
from plexus_detect.learn.stream import Judged, Learner
from plexus_detect.series import F64, I64

NAMES = ("a", "b", "c")
T0, MINUTE, DAY = 1_800_000_000_000, 60_000, 86_400_000
TRAINER = RememberingTrainer()
N = 420


def learner(**params: object) -> Learner:
    """A detector that learns a row in three minutes, for the first time after two and a half hours."""
    slow = {"learn_every_ms": 3 * MINUTE, "ready_after_ms": 150 * MINUTE}
    return learner_of(TRAINER, **{"min_samples": 40, "retrain_interval": 30, "handover": 5, **slow, **params})


def rows() -> tuple[F64, I64]:
    """A row a minute with jitter, gaps, rows of nothing, a clock that was ahead, one that was behind."""
    x, rng = motor(1, N)[0], np.random.default_rng(0)
    t_ms = T0 + MINUTE * np.arange(N) + rng.integers(0, 20_000, N)
    t_ms[70:] += 40 * MINUTE
    t_ms[:2] += 400 * DAY
    t_ms[[110, 200]] -= 30 * MINUTE
    t_ms[260:263] += 90 * DAY
    x[[0, 5, 6, 130, 300]] = np.nan
    return x, t_ms


# --- any split, any restart -------------------------------------------------------------------------------


def whole(trainer: object = TRAINER, **params: object) -> dict[str, F64]:
    """What all rows at once give."""
    x, t_ms = rows()
    one = learner(**params)
    one.trainer = trainer  # type: ignore[assignment]
    return joined([one.step(x, NAMES, t_ms=t_ms)])


def same(parts: list[Judged], expected: dict[str, F64]) -> None:
    """Bit for bit in every column."""
    for name, column in joined(parts).items():
        np.testing.assert_array_equal(column, expected[name], name)


SETTINGS = (
    {},
    {"handover": 0},
    {"rolling": (3, 7), "lags": (1,)},
    {"learn_every_ms": 0},
    {"ready_after_ms": 0},
)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@examples(80)
@given(cuts=st.lists(st.integers(0, N), max_size=6))
def test_cuts_change_nothing(setting: dict[str, object], cuts: list[int]) -> None:
    """Wherever rows are cut into calls, with days to wait for and rows that are not learned."""
    x, t_ms = rows()
    one = learner(**setting)
    same(
        [one.step(x[i:j], NAMES, t_ms=t_ms[i:j]) for i, j in pairwise([0, *sorted(cuts), N])],
        whole(**setting),
    )


@pytest.mark.parametrize("setting", SETTINGS[:3], ids=str)
def test_row_by_row_with_a_restart_after_each(setting: dict[str, object]) -> None:
    """Dumped and loaded at every row: the same bits as never."""
    x, t_ms = rows()
    one, parts = learner(**setting), []
    for i in range(N):
        parts.append(one.step(x[i : i + 1], NAMES, t_ms=t_ms[i : i + 1]))
        dump, one = one.dump(), learner(**setting)
        one.load(dump)
    same(parts, whole(**setting))


def test_fits_that_fail_are_asked_for_at_the_same_rows() -> None:
    """With the first fit failing again and again, however the rows are cut."""
    (x, t_ms), asked = rows(), []
    for every in (N, 50, 7, 1):
        trainer = FailingTrainer()
        one = learner(handover=0)
        one.trainer = trainer
        for i in range(0, N, every):
            one.step(x[i : i + every], NAMES, t_ms=t_ms[i : i + every])
        asked.append((trainer.rows, one.seen))
    assert len(asked[0][0]) >= 3
    assert asked == [asked[0]] * 4


@examples(40)
@given(cuts=st.lists(st.integers(0, 200), max_size=5))
def test_feeds_have_a_pace_of_their_own(cuts: list[int]) -> None:
    """Two feeds in one order of time, cut anyhow, with a restart at every cut: the same bits, and of each
    feed the rows nearer than the pace are left out."""
    x, (_, t_ms) = motor(1, 400)[0].reshape(200, 2, 3), rows()

    def played(bounds: list[int]) -> tuple[list[Judged], Learner]:
        one, parts = learner(min_samples=50), []
        for i, j in pairwise(bounds):
            for row in range(i, j):
                parts += [one.step(x[row, f][None], NAMES, f, t_ms[row : row + 1]) for f in (0, 1)]
            dump, one = one.dump(), learner(min_samples=50)
            one.load(dump)
        return parts, one

    parts, one = played([0, *sorted(cuts), 200])
    expected, other = played([0, 200])
    same(parts, joined(expected))
    assert one.seen == other.seen
    alone = learner(min_samples=50)
    alone.step(x[:, 0], NAMES, t_ms=t_ms[:200])
    assert one.seen == 2 * alone.seen


# --- what it is for ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step_ms", [1_000, 10_000, 100_000])
def test_the_window_spans_its_days(step_ms: int) -> None:
    """However dense rows are, a full window holds at least window_size of the pace's lengths; rows that are
    less dense are all learned."""
    every, size = 30_000, 100
    n = 2 * size * max(1, every // step_ms)
    one = learner(learn_every_ms=every, min_samples=50, window_size=size, retrain_interval=10**6)
    t_ms = T0 + step_ms * np.arange(n)
    one.step(motor(1, n)[0], NAMES, t_ms=t_ms)
    _, _, held = one.window.rows()
    assert len(held) == size
    assert held[-1] - held[0] == (size - 1) * max(every, step_ms)
    assert one.processed == n
    assert one.seen == 2 * size


def test_rows_that_are_not_learned_are_scored() -> None:
    """Every row has a score once there is a model; features are of all rows, learned or not."""
    x, t_ms = motor(1, N)[0], T0 + MINUTE * np.arange(N)
    one = learner(lags=(1,))
    judged = one.step(x, NAMES, t_ms=t_ms)
    first = int(np.flatnonzero(judged.version)[0])
    assert np.isfinite(judged.ratio[first:]).all()
    window, _, held = one.window.rows()
    at = np.searchsorted(t_ms, held)[1:]
    np.testing.assert_array_equal(window[1:, 3:], x[at - 1])


def test_no_model_before_its_days() -> None:
    """However many rows there are; then with the first row that is late enough. Without days to wait for it
    is as soon as there are rows enough."""
    x, t_ms = motor(1, N)[0], T0 + MINUTE * np.arange(N)
    for days, first in ((0, 40), (150 * MINUTE, 151), (10 * DAY, None)):
        one = learner(learn_every_ms=0, ready_after_ms=days, handover=0)
        version = one.step(x, NAMES, t_ms=t_ms).version
        assert one.error is None
        if first is None:
            assert not version.any()
        else:
            assert (version[:first] == 0).all()
            assert (version[first:] > 0).all()


@pytest.mark.parametrize("ahead", [DAY, 4000 * DAY])
def test_a_clock_that_was_ahead_does_not_stop_it(ahead: int) -> None:
    """The first rows from a clock that is set right later, and single ones in between: it is ready and learns
    on as if they had not been; only rows that are late enough make it ready."""
    x, t_ms = motor(1, N)[0], T0 + MINUTE * np.arange(N)
    plain, wrong = learner(), learner()
    expected = plain.step(x, NAMES, t_ms=t_ms).version
    shifted = t_ms.copy()
    shifted[:3] += ahead
    found = wrong.step(x, NAMES, t_ms=shifted).version
    assert abs(int(np.flatnonzero(found)[0]) - int(np.flatnonzero(expected)[0])) <= 5
    assert wrong.version == plain.version
    assert wrong.seen - plain.seen <= 3
    shifted[200] += ahead
    again = learner()
    again.step(x, NAMES, t_ms=shifted)
    assert again.version == plain.version


def test_time_that_goes_backwards_is_learned_from() -> None:
    """A clock set back for good: the next row is learned, and from there on at the pace as before."""
    pace, all_of = Pace(10, 100), np.ones(4, np.bool_)
    assert pace.chosen(0, np.array([1000, 1005, 1010, 1019]), all_of).tolist() == [True, False, True, False]
    assert pace.chosen(0, np.array([500, 505, 510, 2000]), all_of).tolist() == [True, False, True, True]
    assert pace.chosen(1, np.array([2000, 2009, 2010]), all_of[:3]).tolist() == [True, False, True]


def test_what_is_ripe_stays_ripe() -> None:
    """Days count from the earliest row; once there are enough, earlier times do not change that."""
    pace = Pace(0, 100)
    assert pace.ripe_from(np.array([9000, 9050])) == 2
    assert pace.ripe_from(np.array([1000, 1099])) == 2
    assert pace.ripe_from(np.array([1050, 1100, 1000])) == 1
    assert pace.ripe_from(np.array([500])) == 0
    again = Pace(0, 100)
    again.load(pace.dump())
    assert again.ripe_from(np.array([10])) == 0


def test_these_rows_are_learned_from() -> None:
    """What the laws here are tried on: models are fitted, rows left out, and a start is waited for."""
    for setting in SETTINGS:
        version = whole(**setting)["version"]
        assert version.max() >= 2, setting
        assert (version[:41] == 0).all(), setting
