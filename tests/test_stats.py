"""stats: running sums that stay exact, whatever they are fed."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from streams import noise, streams

from plexus_detect.series import Points
from plexus_detect.stats import MAGNITUDE_MAX, REBASE_PUSHES, RingBank, cross_section, grown, usable

ERROR_MAX = 1e-12


class Exact:
    """The last ``window`` values with sums that have no rounding at all."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.values: list[Fraction] = []
        self.s1 = self.s2 = Fraction(0)

    def push(self, x: float) -> None:
        """Add a value; the oldest leaves."""
        self._add(Fraction(x), 1)
        if len(self.values) > self.window:
            self._add(self.values.pop(0), -1, keep=False)

    def _add(self, x: Fraction, sign: int, *, keep: bool = True) -> None:
        if keep:
            self.values.append(x)
        self.s1 += sign * x
        self.s2 += sign * x * x

    def z(self, x: float) -> float | None:
        """The z-score of ``x``; None where the deviation is zero."""
        n = len(self.values)
        mean = self.s1 / n
        variance = self.s2 / n - mean * mean
        if variance == 0:
            return None
        with localcontext(prec=60):
            std = (Decimal(variance.numerator) / Decimal(variance.denominator)).sqrt()
            difference = Fraction(x) - mean
            return float(Decimal(difference.numerator) / Decimal(difference.denominator) / std)


def with_at(values: np.ndarray, **at: float) -> np.ndarray:
    """The values with others in some places: ``i5=1.0`` puts 1.0 at 5."""
    out = values.copy()
    for place, value in at.items():
        out[int(place.removeprefix("i"))] = value
    return out


def square(n: int) -> np.ndarray:
    """A square wave between values that have no exact binary form."""
    return np.where(np.arange(n) // 7 % 2 == 0, 20.1, 20.4)


ADVERSARIAL = {
    "noise": noise(700),
    "mean 1e9, deviation 1e-3": noise(700, mean=1e9, deviation=1e-3),
    "a glitch of 1e12 learned while cold, then leaving": with_at(noise(700), i3=1e12),
    "glitches of both signs": with_at(noise(700), i3=1e12, i4=-1e12, i90=1e9, i91=7e15),
    "sentinels": with_at(noise(700), i3=-3.4e38, i50=-3.4e38, i300=3.4e38),
    "a sentinel first": with_at(noise(700), i0=-3.4e38),
    "a sentinel among tiny deviations about 1e9": with_at(noise(700, mean=1e9, deviation=1e-3), i2=-3.4e38),
    "values at the largest magnitude": with_at(noise(700), i5=MAGNITUDE_MAX, i6=-MAGNITUDE_MAX),
    "slow collapse": np.concatenate([noise(200), 3.0 ** np.arange(60, 0, -1), noise(440)]),
    "slow growth": np.concatenate([noise(200), 1.5 ** np.arange(250)]),
    "a ramp": np.arange(700) * 0.1 + 1e6,
    "random walk far from zero": np.cumsum(noise(700, mean=0.0)) + 1e8,
    "square wave": square(9000),
    "constant, then one step": with_at(np.full(700, 20.1), i400=20.2),
    "tiny": noise(700, mean=0.0, deviation=1e-120),
    "longer than the sums are trusted": noise(2 * REBASE_PUSHES + 500, mean=1e5),
}


@pytest.mark.parametrize("window", [15, 120])
@pytest.mark.parametrize("name", ADVERSARIAL)
def test_z_is_that_of_exact_arithmetic(name: str, window: int) -> None:
    """The z-score of every next value differs from the exact one by at most 1e-12 of itself (or of 1)."""
    values = ADVERSARIAL[name]
    bank, exact = RingBank(1, window), Exact(window)
    row, everyone = np.array([0]), np.array([True])
    worst = 0.0
    for i, x in enumerate(values.tolist()):
        column = np.array([x])
        if i > 4 and (z := exact.z(x)) is not None:
            deviation, _mean, std = (float(c[0]) for c in bank.sums(row).deviation(column))
            worst = max(worst, abs(deviation / std - z) / max(1.0, abs(z)))
        bank.push(row, column, everyone)
        exact.push(x)
    assert worst <= ERROR_MAX


def test_a_series_that_stopped_moving_has_no_deviation() -> None:
    """When the last glitch has left a constant series, its deviation is exactly 0."""
    bank = RingBank(1, 20)
    for x in [1e12, *[20.1] * 30]:
        bank.push(np.array([0]), np.array([x]), np.array([True]))
    deviation, mean, std = bank.sums(np.array([0])).deviation(np.array([20.1]))
    assert (deviation[0], mean[0], std[0]) == (0.0, 20.1, 0.0)


def pushed(bank: RingBank, stream: Points) -> RingBank:
    """The bank after the usable points of a stream, one by one."""
    for i in range(len(stream)):
        if usable(stream.value[i : i + 1])[0]:
            bank.push(stream.series[i : i + 1], stream.value[i : i + 1], np.array([True]))
    return bank


def same(a: RingBank, b: RingBank) -> bool:
    """Whether two banks hold the same bits."""
    mine, other = a.dump(), b.dump()
    return all(np.array_equal(mine[name], other[name]) for name in mine)


@examples(600)
@given(streams(late=False), st.integers(1, 40))
def test_series_do_not_see_each_other(stream: Points, window: int) -> None:
    """Pushing to all rows at once, to some, or to none leaves each series as if it were alone."""
    together, alone = RingBank(3, window), pushed(RingBank(3, window), stream)
    for i in range(len(stream)):
        x = np.full(3, np.nan)
        x[stream.series[i]] = stream.value[i]
        with np.errstate(invalid="ignore", over="ignore"):
            together.push(slice(0, 3), x, usable(x))
    assert same(together, alone)


@examples(600)
@given(streams(rows=1, size=300, late=False), st.integers(1, 40), st.integers(0, 300))
def test_a_stretch_has_the_bits_of_its_pushes(stream: Points, window: int, begin: int) -> None:
    """What ``ahead`` foresees and ``commit`` makes true is what pushing one by one gives, up to a loss."""
    values = stream.value[usable(stream.value)]
    if len(values) == 0:
        return
    before = min(1 + begin, len(values))
    stepwise, bank = RingBank(1, window), RingBank(1, window)
    for x in values[:before]:
        for each in (stepwise, bank):
            each.push(np.array([0]), np.array([x]), np.array([True]))
    while before < len(values):
        stretch = bank.ahead(0, values[before : before + bank.until_rebase(0)])
        lost = np.flatnonzero(stretch.lost)
        m = int(lost[0]) + 1 if len(lost) else len(stretch.x)
        bank.commit(0, stretch, m)
        for x in values[before : before + m]:
            stepwise.push(np.array([0]), np.array([x]), np.array([True]))
        before += m
        assert same(bank, stepwise)


def test_a_snapshot_and_room_for_more_change_nothing() -> None:
    """A bank loaded from its dump, or grown, goes on with the same bits."""
    stream = Points(np.arange(90) % 3, np.arange(90), noise(90))
    bank, other = pushed(RingBank(3, 8), stream), RingBank(0, 8)
    other.load(bank.dump())
    assert same(pushed(bank, stream), pushed(other, stream))
    bank.grow(5)
    assert np.array_equal(bank.count, [8, 8, 8, 0, 0])
    assert same(pushed(bank, stream), bank)


def test_a_cleared_row_is_empty_and_the_others_stay() -> None:
    """After ``clear`` a row has no mean, and its neighbours the mean they had."""
    bank = pushed(RingBank(3, 8), Points(np.arange(30) % 3, np.arange(30), noise(30)))
    mean = bank.origin + bank.s1 / bank.count
    bank.clear(np.array([1]))
    with np.errstate(invalid="ignore"):
        after = bank.sums(slice(0, 3)).deviation(np.zeros(3))[1]
    assert np.isnan(after[1])
    assert np.array_equal(after[[0, 2]], mean[[0, 2]])


@pytest.mark.parametrize("x", [np.nan, np.inf, -np.inf, 1e101, -1e308])
def test_what_cannot_be_squared_and_summed_is_not_usable(x: float) -> None:
    """NaN, infinities and magnitudes above 1e100 are told from numbers."""
    assert usable(np.array([x, 1e100, -3.4e38, 0.0])).tolist() == [False, True, True, True]


def test_grown_keeps_the_rows_and_fills_the_rest() -> None:
    """``grown`` adds rows with the fill value in the column's own type."""
    assert grown(np.array([1, 2]), 4, -1).tolist() == [1, 2, -1, -1]


@examples(600)
@given(st.lists(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(np.nan)), max_size=40), max_size=12))
def test_cross_sections_are_medians_of_each_group(groups: list[list[float]]) -> None:
    """Groups of any sizes, with missing values, give what NumPy gives for each of them alone."""
    group = np.repeat(np.arange(len(groups)), [len(g) for g in groups]).astype(np.int64)
    place = np.concatenate([np.zeros(0, np.int64), *[np.arange(len(g)) for g in groups]]).astype(np.int64)
    value = np.concatenate([np.zeros(0), *[np.array(g, np.float64) for g in groups]])
    found = cross_section(value, group, place, len(groups))
    for i, column in enumerate(groups):
        known = np.array([v for v in column if not np.isnan(v)])
        assert found.n[i] == len(known)
        if len(known) == 0:
            assert np.isnan([found.median[i], found.mad[i]]).all()
            continue
        distance = np.abs(known - np.median(known))
        assert found.median[i] == np.median(known)
        assert found.mad[i] == np.median(distance)
        assert found.mean_deviation[i] == pytest.approx(distance.mean(), rel=1e-12)
