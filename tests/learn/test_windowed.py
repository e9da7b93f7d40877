"""The autoencoder of windows: what it finds, when it alerts, and that a stream is a stream."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from sensors import KINDS, NAMES, START_MS, recording

from plexus_detect.errors import ConfigError, FitError, ModelError
from plexus_detect.learn.windowed import PERCENTILES, Alarms, Windowed, WindowedParams, windows
from plexus_detect.training.windowed import fit_windowed

HEALTHY_DAYS, DAYS = 7, 10
ROWS = HEALTHY_DAYS * 1440
SIZES = (8, 32)


@pytest.fixture(scope="module")
def fitted() -> Windowed:
    """A small detector of a healthy week."""
    healthy = recording(HEALTHY_DAYS, seed=5)
    return fit_windowed(healthy.x, NAMES, WindowedParams(SIZES), steps=800)


def scored(fitted: Windowed, x: np.ndarray, start: int = 0) -> Alarms:
    """A whole recording in one call."""
    return fitted.stream().step(x, START_MS + 60_000 * (start + np.arange(len(x))))


def same(a: Alarms, b: Alarms) -> bool:
    """The same bits in every column."""
    return all(np.array_equal(p, q, equal_nan=p.dtype == np.float64) for p, q in zip(a, b, strict=True))


def test_every_kind_of_anomaly_is_found_and_its_sensor_named(fitted: Windowed) -> None:
    """Spike, drift, stuck and correlation break go far above the line within their time, and the sensor that
    is wrong has the largest share; where all is well few rows are above it and none is critical."""
    wrong = recording(DAYS, seed=5, per_kind=2, healthy_days=HEALTHY_DAYS)
    alarms = scored(fitted, wrong.x)
    assert {a.kind for a in wrong.anomalies} == set(KINDS)
    for anomaly in wrong.anomalies:
        worst = anomaly.start + int(np.nanargmax(alarms.ratio[anomaly.start : anomaly.end]))
        assert alarms.severity[worst] == 2, anomaly
        assert int(np.argmax(alarms.shares[worst])) == anomaly.sensor
        assert alarms.size[worst] in SIZES
    well = scored(fitted, recording(DAYS, seed=5).x[ROWS:])
    assert np.nanmean(well.ratio > 1.0) < 0.05
    assert not (well.severity == 2).any()


def test_the_threshold_is_that_part_of_held_back_rows(fitted: Windowed) -> None:
    """The three lines rise with their percentiles, for every size; of the rows that were fitted to about as
    many are above the line as it says."""
    assert all((np.diff(view.lines) > 0.0).all() for view in fitted.views)
    x = recording(HEALTHY_DAYS, seed=5).x
    for threshold, percentile in PERCENTILES.items():
        named = replace(fitted, params=WindowedParams(SIZES, threshold))
        above = 100.0 * np.mean(scored(named, x).ratio > 1.0)
        assert above < 3.0 * (100.0 - percentile), threshold


def test_rows_cut_into_calls_anyhow_give_the_same_bits(fitted: Windowed) -> None:
    """Row by row, in odd parts, and with the state saved and restored in between: as in one call."""
    x = recording(DAYS, seed=5, per_kind=2, healthy_days=HEALTHY_DAYS).x[ROWS : ROWS + 700]
    t_ms = START_MS + 60_000 * np.arange(len(x))
    parts, stream = [], fitted.stream()
    a = 0
    for m in [1] * 50 + [0, 7, 33, 130, 200, 280]:
        parts.append(stream.step(x[a : a + m], t_ms[a : a + m]))
        a += m
        state, stream = stream.dump(), fitted.stream()
        stream.load(state)
    whole = Alarms(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    assert a == len(x)
    assert same(whole, fitted.stream().step(x, t_ms))


def test_saved_without_pickle_and_read_again_it_says_the_same(fitted: Windowed) -> None:
    """The arrays go through an npz file without objects, and the model read from it gives the same bits."""
    file = io.BytesIO()
    np.savez(file, **fitted.arrays())
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        again = Windowed.of(dict(arrays), NAMES)
    x = recording(0.2, seed=6).x
    assert again.card == fitted.card
    assert again.params == fitted.params
    assert same(scored(again, x), scored(fitted, x))


def test_the_same_seed_gives_the_same_bits() -> None:
    """Two fits of the same rows with the same seed are one model; another seed gives another."""
    x = recording(0.5, seed=5).x
    one, two, other = (
        fit_windowed(x, NAMES, WindowedParams((8,), seed=seed), steps=20).views[0] for seed in (1, 1, 2)
    )
    assert one.net.data == two.net.data
    assert one.lines.tobytes() == two.lines.tobytes()
    assert one.net.data != other.net.data


def test_nothing_is_said_before_a_window_is_full_or_where_a_value_is_missing(fitted: Windowed) -> None:
    """NaN until the smallest window is full; a missing value silences each size for its length, no longer."""
    x = recording(0.1, seed=6).x
    x[60, 2] = np.nan
    x[90, 3] = np.inf
    alarms = scored(fitted, x)
    silent = np.isnan(alarms.ratio)
    assert np.flatnonzero(silent).tolist() == [*range(7), *range(60, 68), *range(90, 98)]
    assert (alarms.size[silent] == 0).all()
    assert (alarms.severity[silent] == 0).all()
    assert np.isnan(alarms.shares[silent]).all()
    assert np.allclose(alarms.shares[~silent].sum(axis=1), 1.0)
    assert set(alarms.size[[*range(7, 31), *range(68, 90), *range(98, 122)]].tolist()) == {8}
    assert set(alarms.size[31:60].tolist()) == {8, 32}


def test_an_alert_is_not_repeated_within_the_cool_down(fitted: Windowed) -> None:
    """After an alert no further one for so many milliseconds of event time, over calls; a critical one does
    not wait for the cool-down of a warning, but for that of a critical one."""
    stream = replace(fitted, params=WindowedParams(SIZES, cool_down_ms=60_000)).stream()
    t_ms = 1_000 * np.array([0, 10, 20, 60, 70, 75, 119, 120, 135])
    severity = np.array([1, 1, 0, 1, 2, 2, 1, 2, 1], np.int8)
    first = stream._alerts(severity[:5], t_ms[:5])
    rest = stream._alerts(severity[5:], t_ms[5:])
    assert [*first, *rest] == [True, False, False, True, True, False, False, False, True]


def test_severity_is_critical_above_three_times_the_line(fitted: Windowed) -> None:
    """None up to the line, a warning above it, critical above three lines; an alert has one of the two."""
    x = recording(DAYS, seed=5, per_kind=2, healthy_days=HEALTHY_DAYS).x
    alarms = scored(fitted, x)
    ratio = np.nan_to_num(alarms.ratio)
    assert np.array_equal(alarms.severity, np.where(ratio > 3.0, 2, np.where(ratio > 1.0, 1, 0)))
    assert (alarms.severity[alarms.alert] > 0).all()
    assert 0 < alarms.alert.sum() < (alarms.severity > 0).sum()


def test_a_huge_value_blames_its_own_sensor(fitted: Windowed) -> None:
    """A value of 1e300 gives a finite ratio, and its sensor nearly all of the share."""
    x = recording(0.1, seed=6).x
    x[60, 4] = 1e300
    alarms = scored(fitted, x)
    assert np.isfinite(alarms.ratio[60])
    assert alarms.severity[60] == 2
    assert alarms.shares[60, 4] > 0.99


def test_a_sensor_that_never_changed_is_watched_too() -> None:
    """A sensor that was constant in all of the normal data is critical as soon as it changes."""
    x = recording(0.5, seed=5).x
    x[:, 2] = 7.0
    fitted = fit_windowed(x, NAMES, WindowedParams((8,)), steps=60)
    later = recording(0.1, seed=6).x
    later[:, 2] = np.where(np.arange(len(later)) < 100, 7.0, 7.5)
    alarms = scored(fitted, later)
    assert alarms.severity[100:108].min() == 2
    assert (np.argmax(alarms.shares[100:108], axis=1) == 2).all()


def test_bins_are_means_of_rows() -> None:
    """A window of 16 rows is 8 means of 2, one of 5 rows is these rows; it begins where it is said to."""
    z = np.arange(40.0).reshape(20, 2)
    pairs = windows(z, 16, np.array([0, 2, 4]))
    assert pairs.shape == (3, 8, 2)
    assert np.array_equal(pairs[-1], z[4:].reshape(8, 2, 2).mean(axis=1))
    assert np.array_equal(windows(z, 5, np.array([15]))[0], z[-5:])


def test_a_changed_or_foreign_model_is_refused_with_a_sentence(fitted: Windowed) -> None:
    """A flipped bit, a missing array, other sensors, another program's form, and a state of other windows."""
    arrays = fitted.arrays()
    bent = arrays["onnx_8"].copy()
    bent[-40] ^= 1
    with pytest.raises(ModelError, match="was changed after its card was written"):
        Windowed.of({**arrays, "onnx_8": bent})
    with pytest.raises(ModelError, match="made for the sensors"):
        Windowed.of(arrays, ("humidity", "temperature", *NAMES[2:]))
    with pytest.raises(ModelError, match="no windowed model"):
        Windowed.of({name: a for name, a in arrays.items() if name != "usual_8"})
    with pytest.raises(ModelError, match="damaged"):
        Windowed.of({**arrays, "usual_8": np.ones(5)})
    form = bytes(arrays["about"]).replace(b'"form": 1', b'"form": 9')
    with pytest.raises(ModelError, match="form 1, not 9"):
        Windowed.of({**arrays, "about": np.frombuffer(form, np.uint8)})
    with pytest.raises(ModelError, match="state is of another"):
        fitted.stream().load({**fitted.stream().dump(), "rows": np.zeros((31, 5))})
    with pytest.raises(ModelError, match="6 sensors"):
        fitted.stream().step(np.zeros((2, 5)), np.zeros(2, np.int64))


def test_reset_forgets(fitted: Windowed) -> None:
    """After a reset a stream is as new."""
    stream = fitted.stream()
    x = recording(0.1, seed=6).x
    t_ms = START_MS + 60_000 * np.arange(len(x))
    first = stream.step(x, t_ms)
    stream.reset()
    assert same(first, stream.step(x, t_ms))


@pytest.mark.parametrize(
    "wrong",
    [
        {"sizes": ()},
        {"sizes": (32, 8)},
        {"sizes": (20,)},
        {"sizes": (1,)},
        {"threshold": "shy"},
        {"cool_down_ms": -1},
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    """Sizes that are none, unsorted, odd or too small, an unknown threshold, a negative cool-down."""
    with pytest.raises(ConfigError):
        WindowedParams(**wrong)


def test_too_little_to_fit_is_refused_with_a_sentence() -> None:
    """One sensor, too few rows, and rows with so many gaps that no window is full."""
    x = recording(0.5, seed=5).x
    with pytest.raises(FitError, match="two sensors or more"):
        fit_windowed(x[:, :1], NAMES[:1], WindowedParams((8,)))
    with pytest.raises(FitError, match="need 1280 rows"):
        fit_windowed(x, NAMES, WindowedParams())
    x[::7] = np.nan
    with pytest.raises(FitError, match="missing values"):
        fit_windowed(x, NAMES, WindowedParams((8,)))
