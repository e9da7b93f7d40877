"""fleet.verdict: four words for self x fleet, and one episode for what many do together."""

from __future__ import annotations

import numpy as np
import pytest
from sites import DAY, T0

from plexus_detect.fleet import WORDS, EventParams, FleetEvents, GroupMove, Verdict, verdicts

N = 20
MINUTE = 60_000


def minutes(beyond: np.ndarray, start: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, times, scores and buckets of ``N`` sources that send every minute; ``beyond`` is (k, N)."""
    k = len(beyond)
    rows = np.tile(np.arange(N), k)
    t_ms = T0 + MINUTE * (start + np.repeat(np.arange(k), N)) + rows * 100
    return rows, t_ms, np.where(beyond.ravel(), 2.0, 0.3), np.full(k * N, MINUTE)


def events(params: EventParams | None = None, groups: int = 1) -> FleetEvents:
    """The events of ``N`` sources in so many groups."""
    out = FleetEvents(params or EventParams())
    for row in range(N):
        out.put(row, row % groups)
    return out


def storm(k: int = 90, share: float = 1.0) -> np.ndarray:
    """From minute 30 to 50 a share of the sources is beyond its own line."""
    beyond = np.zeros((k, N), np.bool_)
    beyond[30:50, : round(N * share)] = True
    return beyond


@pytest.mark.parametrize(
    ("own", "fleet", "different", "event", "word"),
    [
        (0.2, 0.2, False, False, "normal"),
        (3.0, 0.2, False, False, "normal"),
        (0.2, 0.2, True, False, "always different"),
        (3.0, 0.2, False, True, "fleet event"),
        (0.2, 0.2, False, True, "normal"),
        (3.0, 1.0, False, True, "odd device"),
        (0.2, -5.0, True, False, "odd device"),
        (np.nan, np.nan, False, True, "normal"),
        (np.nan, 2.0, False, False, "odd device"),
    ],
)
def test_the_four_words(own: float, fleet: float, different: bool, event: bool, word: str) -> None:
    """Self x fleet gives one word for each point; what is unknown accuses nobody."""
    columns = (np.array([own]), np.array([fleet]), np.array([different]), np.array([event]))
    assert WORDS[Verdict(verdicts(*columns)[0])] == word


def test_what_all_do_is_one_event() -> None:
    """Twenty devices beyond their own line are one episode that opens and closes once."""
    inside, moves = events().step(*minutes(storm()))
    assert [move.opened for move in moves] == [True, False]
    assert moves[0].since_ms == T0 + 30 * MINUTE
    assert moves[1].members == N
    assert inside[31 * N : 50 * N].all()
    assert not inside[: 30 * N].any()
    assert not inside[65 * N :].any()


@pytest.mark.parametrize(("share", "n_moves"), [(0.25, 0), (0.3, 2), (0.5, 2)])
def test_a_few_are_no_fleet_event(share: float, n_moves: int) -> None:
    """Three tenths of the fresh members are needed, and never fewer than ``group_min``."""
    assert len(events().step(*minutes(storm(share=share)))[1]) == n_moves
    lone = events(EventParams(group_min=15)).step(*minutes(storm(share=0.5)))
    assert lone[1] == []


def test_silent_members_do_not_count() -> None:
    """Where half of the sources are gone, the share is that of the others."""
    rows, t_ms, own, bucket_ms = minutes(storm(share=0.25))
    keep = rows < 10
    moves = events().step(rows[keep], t_ms[keep], own[keep], bucket_ms[keep])[1]
    assert [move.opened for move in moves] == [True, False]


def test_groups_have_their_own_events() -> None:
    """What one group does is no event of another."""
    beyond = np.zeros((90, N), np.bool_)
    beyond[30:50, 1::2] = True
    moves = events(groups=2).step(*minutes(beyond))[1]
    assert {move.group for move in moves} == {1}


def test_however_it_is_cut_the_events_are_the_same() -> None:
    """In one call, in calls of one point, and after dump and load: the same verdicts and moves."""
    columns = minutes(storm())
    whole, single = events(groups=2), events(groups=2)
    inside, moves = whole.step(*columns)
    parts: list[np.ndarray] = []
    told: list[GroupMove] = []
    for i in range(len(columns[0])):
        if i % 500 == 0:
            loaded = FleetEvents(EventParams())
            saved = {k: c.copy() for k, c in single.dump().items()}
            loaded.load(saved)
            single = loaded
        part, now = single.step(*(column[i : i + 1] for column in columns))
        parts.append(part)
        told += [GroupMove(m.opened, m.group, i, m.since_ms, m.members) for m in now]
    assert np.array_equal(np.concatenate(parts), inside)
    assert told == moves


def test_clocks_that_jump_do_not_end_it() -> None:
    """One device a year ahead opens nothing, and its return changes nothing for the others."""
    rows, t_ms, own, bucket_ms = minutes(storm())
    t_ms = t_ms + np.where((rows == 3) & (t_ms > T0 + 20 * MINUTE), 365 * DAY, 0)
    moves = events().step(rows, t_ms, own, bucket_ms)[1]
    assert len(moves) <= 2
