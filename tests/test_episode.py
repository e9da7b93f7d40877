"""episode: debounced, and the zeros keep coming."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.episode import EpisodeParams, Episodes, Transition

THREE_IN_A_ROW = EpisodeParams()


@dataclass
class OneByOne:
    """The rules of an episode in plain words, for one series."""

    params: EpisodeParams
    history: list[bool] = field(default_factory=list)
    is_open: bool = False
    inside: int = 0
    since_ms: int = 0
    peak: float = 0.0
    reason: int = 0

    def take(self, t_ms: int, z: float, reason: int, *, late: bool) -> tuple[float, bool | None]:
        """The value to post, and True or False when an episode opened or closed."""
        p, magnitude = self.params, abs(z)
        if np.isnan(z):
            return np.nan, None
        if late:
            return (magnitude if self.is_open else 0.0), None
        beyond = magnitude > p.threshold
        if beyond and not self.is_open and not any(self.history[-(p.n - p.m + 1) :]):
            self.since_ms, self.peak = t_ms, 0.0
        self.history = [*self.history, beyond][-p.n :]
        if beyond and magnitude > self.peak:
            self.peak, self.reason = magnitude, reason
        moved = None
        if self.is_open:
            self.inside = 0 if beyond else self.inside + 1
            if self.inside >= p.close_after:
                self.is_open, self.history, moved = False, [], False
        elif beyond and (sum(self.history) >= p.m or 0.0 < p.at_once * p.threshold <= magnitude):
            self.is_open, self.inside, moved = True, 0, True
        return (magnitude if self.is_open else 0.0), moved


def bank(params: EpisodeParams = THREE_IN_A_ROW, rows: int = 1) -> Episodes:
    episodes = Episodes(params)
    episodes.grow(rows)
    return episodes


def run(episodes: Episodes, z: list[float]) -> tuple[list[float], list[Transition]]:
    """The values and transitions of one series, a score a second."""
    n = len(z)
    value, moves = episodes.step(
        np.zeros(n, np.int64),
        1000 * np.arange(n),
        np.array(z, np.float64),
        np.zeros(n, np.bool_),
        np.zeros(n, np.int8),
    )
    return value.tolist(), moves


scores = st.one_of(st.just(np.nan), st.sampled_from([0.0, 2.9, -3.1, 3.1, 4.0, -1e9, 1e9]))
settings_of = st.tuples(
    st.integers(1, 5), st.integers(0, 3), st.integers(1, 4), st.sampled_from([0.0, 1.0, 1.2, 1e8])
).map(lambda t: EpisodeParams(3.0, t[0], t[0] + t[1], t[2], t[3]))


@examples(2000)
@given(
    settings_of,
    st.lists(st.tuples(st.integers(0, 2), scores, st.booleans()), max_size=60),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_a_bank_follows_the_rules_one_by_one(
    params: EpisodeParams, steps: list[tuple[int, float, bool]], cuts: list[int]
) -> None:
    """Values, openings, closings, since, peak and its reason are those of the rules, in any calls."""
    episodes, models = bank(params, 3), [OneByOne(params) for _ in range(3)]
    bounds = [0, *sorted(min(c, len(steps)) for c in cuts), len(steps)]
    for start, stop in pairwise(bounds):
        part = steps[start:stop]
        value, moves = episodes.step(
            np.array([row for row, _, _ in part], np.int64),
            1000 * np.arange(start, stop),
            np.array([z for _, z, _ in part], np.float64),
            np.array([late for _, _, late in part], np.bool_),
            np.arange(start, stop).astype(np.int8),
        )
        expected, wanted = [], []
        for i, (row, z, late) in enumerate(part):
            model = models[row]
            posted, moved = model.take(1000 * (start + i), z, start + i, late=late)
            expected.append(posted)
            if moved is not None:
                wanted.append(Transition(moved, i, model.since_ms, model.peak, model.reason))
        assert np.array_equal(value, np.array(expected, np.float64), equal_nan=True)
        assert moves == wanted


def test_two_in_a_row_are_not_an_episode_and_three_are() -> None:
    """Zeros while normal, the magnitude from the third score on, zeros again after three inside."""
    value, moves = run(bank(), [0, 4, -4, 0, 4, -5, 6, 1, 7, 0, 0, 0, 0])
    assert value == [0, 0, 0, 0, 0, 0, 6, 1, 7, 0, 0, 0, 0]
    assert moves == [
        Transition(opened=True, at=6, since_ms=4000, peak=6.0),
        Transition(opened=False, at=11, since_ms=4000, peak=7.0),
    ]


def test_two_of_five_count_with_gaps() -> None:
    """With 2 of 5, two scores beyond the line open although others lie between; a third later does not."""
    assert [m.at for m in run(bank(EpisodeParams(m=2, n=5)), [4, 0, 0, 0, 4])[1]] == [4]
    assert run(bank(EpisodeParams(m=2, n=5)), [4, 0, 0, 0, 0, 4])[1] == []


def test_exactly_at_the_line_is_inside() -> None:
    """A monitor's bound is strict, and so is the line."""
    assert run(bank(), [3.0, 3.0, 3.0, -3.0])[1] == []


def test_a_single_score_far_beyond_opens_at_once() -> None:
    """With ``at_once`` 2, a score of twice the line opens by itself; one just below that does not."""
    far = EpisodeParams(at_once=2.0)
    assert run(bank(far), [0, 6.0, 0, 0, 0])[0] == [0, 6.0, 0, 0, 0]
    assert [m.opened for m in run(bank(far), [0, -6.0, 0, 0, 0])[1]] == [True, False]
    assert run(bank(far), [0, 5.9, 0, 5.9, 0])[1] == []
    assert run(bank(), [0, 1e9, 0, 1e9, 0])[1] == []


def test_a_long_run_of_one_row_is_the_same_as_score_by_score() -> None:
    """Only what follows a score beyond the line is looked at one by one, and nothing is missed by that."""
    rng = np.random.default_rng(3)
    z = np.where(rng.random(3000) < 0.05, 4.0, rng.normal(0.0, 1.0, 3000))
    z[rng.random(3000) < 0.1] = np.nan
    whole, single = bank(EpisodeParams(m=2, n=4)), bank(EpisodeParams(m=2, n=4))
    value, moves = run(whole, z.tolist())
    one_by_one = [run(single, [x]) for x in z.tolist()]
    assert np.array_equal(value, [posted[0] for posted, _ in one_by_one], equal_nan=True)
    assert [m.opened for m in moves] == [m.opened for _, part in one_by_one for m in part]
    assert len(moves) > 20


def test_the_longest_memory_is_64_scores() -> None:
    """64 of 64 opens with the 64th score and not before."""
    assert [m.at for m in run(bank(EpisodeParams(m=64, n=64)), [4.0] * 70)[1]] == [63]


def test_what_is_not_known_changes_nothing() -> None:
    """NaN neither opens, nor interrupts, nor closes, and nothing is posted for it."""
    value, moves = run(bank(), [4, np.nan, 4, np.nan, 4, 0, 0, np.nan, 0])
    assert np.isnan([value[i] for i in (1, 3, 7)]).all()
    assert [m.at for m in moves] == [4, 8]


@pytest.mark.parametrize("z", [[4.0], [4.0, 4.0, 4.0], [4.0, 4.0, 4.0, 0.0, 0.0]])
def test_a_snapshot_changes_nothing(z: list[float]) -> None:
    """Loaded in the middle of a suspicion, an episode or its end, it goes on as if nothing had been."""
    steady = bank()
    run(steady, z)
    loaded = Episodes(EpisodeParams())
    loaded.load({name: column.copy() for name, column in steady.dump().items()})
    rest = [4.0, 0.0, 5.0, 5.0, 5.0, 0.0, 0.0, 0.0]
    assert run(loaded, rest) == run(steady, rest)


def test_a_suspected_row_has_a_score_beyond_the_line_and_no_episode() -> None:
    """``suspected`` is true between the first score beyond and the episode, or until it is forgotten."""
    episodes, seen = bank(), []
    for z in [0.0, 4.0, 4.0, 4.0, 0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0]:
        run(episodes, [z])
        seen.append(bool(episodes.suspected(np.array([0]))[0]))
    assert seen == [False, True, True, False, False, False, False, True, True, True, False]
