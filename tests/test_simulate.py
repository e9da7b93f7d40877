"""simulate: machines that are the same however they are asked for, and faults exactly where labels say."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.backtest.csvfile import read_points
from plexus_detect.backtest.labels import read_labels
from plexus_detect.simulate.anomalies import KINDS, SLOT_MS
from plexus_detect.simulate.fleet import Plan, Rows, days_ms, faults_of, labels_of, simulated
from plexus_detect.simulate.machine import NAMES, NOISE
from plexus_detect.simulate.messages import CSV_HEAD, csv_lines, labels_csv, messages
from plexus_detect.simulate.pacing import by_time

T0, MINUTE, HOUR = 1_793_404_800_000, 60_000, 3_600_000


def plan(days: float = 1.0, start_ms: int = T0, **more: object) -> Plan:
    """So many days from a midnight on, or from another time."""
    return Plan(start_ms, start_ms + days_ms(days), **more)  # type: ignore[arg-type]


def whole(of: Plan) -> Rows:
    """All rows at once."""
    return Rows(*(np.concatenate(column) for column in zip(*simulated(of), strict=True)))


def of_device(rows: Rows, device: int) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of one device."""
    mine = rows.device == device
    return rows.t_ms[mine], rows.x[mine]


def sensors(of: Plan) -> np.ndarray:
    """(n, 6) what the only device reads."""
    return whole(of).x


# --- the same machines, however they are asked for --------------------------------------------------------


@given(
    cut=st.integers(0, 2 * 1440 - 1),
    rows=st.integers(1, 300),
    devices=st.integers(2, 140),
    device=st.integers(0, 1),
)
@examples(120)
def test_a_value_depends_on_seed_device_and_time_only(cut: int, rows: int, devices: int, device: int) -> None:
    """A run that begins elsewhere, ends elsewhere or has other devices gives the same bits."""
    start_ms = T0 + cut * MINUTE
    part = whole(plan(rows / 1440, start_ms, devices=devices, missing=0.05, jitter_ms=20_000))
    t_ms, x = of_device(part, device)
    whole_t_ms, whole_x = of_device(TWO_DAYS, device)
    at = slice(cut, min(cut + rows, len(whole_t_ms)))
    assert np.array_equal(t_ms[: at.stop - cut], whole_t_ms[at])
    assert np.array_equal(x[: at.stop - cut], whole_x[at], equal_nan=True)


TWO_DAYS = whole(plan(2.0, devices=3, missing=0.05, jitter_ms=20_000))


def test_faults_are_the_same_for_any_number_of_devices_and_any_end() -> None:
    """A device has its faults in the company of others too, and a longer run only adds to them."""
    few, many = plan(3.0, devices=2, anomalies=2.0), plan(6.0, devices=5, anomalies=2.0)
    mine = [fault for fault in faults_of(many) if fault.device <= 2 and fault.start in few.rows]
    assert faults_of(few) == mine
    x, longer = of_device(whole(few), 1)[1], of_device(whole(many), 1)[1]
    assert np.array_equal(x, longer[: len(x)])


def test_rows_come_in_order_and_are_numbered() -> None:
    """A row an interval for each device, times ascending but for the jitter, numbers from 0 on."""
    rows = whole(plan(0.1, devices=3, interval_ms=30_000))
    assert rows.t_ms.tolist() == np.repeat(T0 + 30_000 * np.arange(288), 3).tolist()
    assert rows.row.tolist() == np.repeat(np.arange(288), 3).tolist()
    assert rows.device.tolist() == [0, 1, 2] * 288
    assert [len(part.row) for part in by_time(rows)] == [3] * 288


def test_seeds_and_devices_differ() -> None:
    """Each has noise, offsets and a load of its own; the weather is the same for all of a seed."""
    one, other = of_device(TWO_DAYS, 0)[1], of_device(TWO_DAYS, 1)[1]
    reseeded = sensors(plan(2.0, seed=7))
    assert not np.array_equal(one, other, equal_nan=True)
    both = np.isfinite(one).all(axis=1) & np.isfinite(other).all(axis=1)
    alike = np.corrcoef(one[both].T, other[both].T)[:6, 6:]
    assert alike[2, 2] > 0.95
    assert abs(np.corrcoef(sensors(plan(2.0))[:, 2], reseeded[:, 2])[0, 1]) < 0.95


# --- what the sensors have in common ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_correlations_have_the_signs_that_are_documented(seed: int) -> None:
    """Load drives power, vibration and temperature; airflow cools; humidity falls with the temperature and in
    fair weather; pressure has next to nothing to do with the load."""
    c = np.corrcoef(sensors(plan(30.0, seed=seed, interval_ms=5 * MINUTE)).T)
    r = {(a, b): c[NAMES.index(a), NAMES.index(b)] for a in NAMES for b in NAMES}
    assert r["power_draw", "vibration"] > 0.9
    assert r["power_draw", "temperature"] > 0.5
    assert r["vibration", "temperature"] > 0.5
    assert r["airflow", "temperature"] < -0.2
    assert r["humidity", "temperature"] < -0.6
    assert r["humidity", "pressure"] < -0.3
    assert abs(r["pressure", "power_draw"]) < 0.2


def test_there_is_a_daily_cycle_and_noise_that_remembers() -> None:
    """At noon the machine draws far more than at midnight; what is left of a row's noise in the next one's is
    about a half, and the noise is as large as it says."""
    x = sensors(plan(20.0, interval_ms=MINUTE))
    hours = np.arange(len(x)) // 60 % 24
    power = x[:, NAMES.index("power_draw")]
    assert power[hours == 12].mean() - power[hours == 0].mean() > 2.0
    fine = sensors(plan(0.02, interval_ms=100))
    steps = np.diff(fine, axis=0)
    # Of first-order autoregression with coefficient m, differences have the variance 2 (1 - m).
    assert np.std(steps, axis=0) / NOISE == pytest.approx(np.ones(6), abs=0.06)
    assert np.isfinite(x).all()


# --- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval_ms", [MINUTE, 10 * MINUTE])
def test_only_what_a_label_covers_is_changed(interval_ms: int) -> None:
    """Outside the labels the rows are those of a run without faults; inside each of them they differ."""
    spoiled = plan(8.0, devices=3, anomalies=2.0, interval_ms=interval_ms, jitter_ms=30_000)
    rows, well = whole(spoiled), whole(replace(spoiled, anomalies=0.0))
    labels = labels_of(spoiled)
    assert np.array_equal(rows.t_ms, well.t_ms)
    changed = rows.x != well.x
    covered = np.zeros(rows.x.shape, bool)
    for label in labels:
        mine = rows.device == spoiled.sources.index(label.source)
        here = mine & (rows.t_ms >= label.start_ms) & (rows.t_ms <= label.end_ms)
        sensor = NAMES.index(label.metric)
        covered[here, sensor] = True
        assert changed[here, sensor].any(), label
        assert np.mean(changed[here, sensor]) > 0.5, label
    assert not changed[~covered].any()


def test_kinds_do_what_they_say() -> None:
    """A spike is far away and short, a drift grows and goes back, a stuck sensor repeats one value; sizes are
    in deviations of the sensor's own noise."""
    spoiled = plan(20.0, anomalies=2.0)
    x, well = sensors(spoiled), sensors(replace(spoiled, anomalies=0.0))
    for fault in faults_of(spoiled):
        here = slice(fault.start - spoiled.rows.start, fault.end - spoiled.rows.start)
        column = x[here, fault.sensor]
        away = (column - well[here, fault.sensor]) / NOISE[fault.sensor]
        if fault.kind == "spike":
            assert len(away) <= 3
            assert 19.5 < np.abs(away).min() <= np.abs(away).max() < 60.5
        elif fault.kind == "drift":
            assert 14.0 < np.abs(away).max() < 30.5
            assert np.abs(away[[0, -1]]).max() < 1.5
            assert 0.7 < np.argmax(np.abs(away)) / len(away) < 0.8
        elif fault.kind == "stuck":
            assert len(set(column.tolist())) == 1
            assert column[0] == well[here.start, fault.sensor]


def test_a_break_keeps_the_sensor_and_loses_its_relations() -> None:
    """Alone the sensor looks as ever: its values stay in their range, it moves from row to row as much as
    before and continues where it was. What the others say of it is off many times more than usual."""
    spoiled = plan(60.0, anomalies=2.0)
    x, well = sensors(spoiled), sensors(replace(spoiled, anomalies=0.0))
    breaks = [fault for fault in faults_of(spoiled) if fault.kind == "break"]
    assert len(breaks) > 20
    off, usual = [], []
    for fault in breaks:
        here = slice(fault.start - spoiled.rows.start, fault.end - spoiled.rows.start)
        sensor, before = fault.sensor, here.start - 1
        mine, theirs = x[here, sensor], well[:, sensor]
        assert abs(mine[0] - theirs[before]) < 6.0 * NOISE[sensor]
        assert (
            theirs.min() - 3.0 * NOISE[sensor] < mine.min() < mine.max() < theirs.max() + 3.0 * NOISE[sensor]
        )
        assert 0.8 < np.std(np.diff(mine)) / np.std(np.diff(theirs[here])) < 1.25
        others = np.column_stack([np.delete(well, sensor, axis=1), np.ones(len(well))])
        weights = np.linalg.lstsq(others, theirs, rcond=None)[0]
        usual.append(np.std(others @ weights - theirs))
        off.append(np.std(others[here] @ weights - mine))
    assert np.median(np.array(off) / np.array(usual)) > 3.0
    assert NAMES.index("pressure") not in {fault.sensor for fault in breaks}


def test_faults_come_at_the_rate_asked_for_and_all_kinds_alike() -> None:
    """About so many a day and device, never two at once; the highest rate fills every half day."""
    some = faults_of(plan(200.0, devices=4, anomalies=0.5))
    assert len(some) == pytest.approx(400, abs=60)
    most = plan(40.0, devices=2, anomalies=2.0)
    faults = faults_of(most)
    assert abs(len(faults) - 40 * 2 * 86_400_000 / SLOT_MS) <= 2
    assert set(Counter(fault.kind for fault in faults)) == set(KINDS)
    assert min(Counter(fault.kind for fault in faults).values()) >= 36
    for device in (1, 2):
        mine = [fault for fault in faults if fault.device == device]
        for one, following in pairwise(mine):
            assert following.start - one.end >= 55


def test_normal_days_have_no_fault() -> None:
    """Faults begin after them; without a rate there are none at all."""
    spoiled = plan(10.0, anomalies=2.0, spoiled_ms=T0 + 5 * 24 * HOUR)
    assert min(label.start_ms for label in labels_of(spoiled)) >= T0 + 5 * 24 * HOUR
    assert len(labels_of(spoiled)) > 8
    assert labels_of(plan(10.0)) == []


# --- missing values, jitter and forms ---------------------------------------------------------------------


def test_missing_values_and_jitter() -> None:
    """About so many values are lost, and rows come late by less than what was asked for."""
    assert np.mean(np.isnan(TWO_DAYS.x)) == pytest.approx(0.05, abs=0.01)
    late = TWO_DAYS.t_ms % MINUTE
    assert late.min() >= 0
    assert late.max() < 20_000
    assert late.mean() == pytest.approx(10_000, abs=500)


def test_messages_decode() -> None:
    """One for each row that has a value: the time in milliseconds, the number of the row, the sensors by
    name without what is lost; the key is the device."""
    x = np.array([[1.5, 2.0, 3.0, 4.0, 5.0, 6.0], [math.nan] * 6, [math.nan, 2.25, math.nan, 4.0, 5.0, 6.0]])
    rows = Rows(np.array([T0, T0, T0 + 1]), np.array([0, 1, 1]), np.array([0, 0, 1]), x)
    told = [(key, json.loads(value)) for key, value in messages(rows, ["a-1", "a-2"])]
    whole_row = dict(zip(NAMES, [1.5, 2.0, 3.0, 4.0, 5.0, 6.0], strict=True))
    thin = {name: value for name, value in zip(NAMES, x[2].tolist(), strict=True) if value == value}
    assert told == [
        ("a-1", {"timestamp": T0, "sample_index": 0, "sensors": whole_row}),
        ("a-2", {"timestamp": T0 + 1, "sample_index": 1, "sensors": thin}),
    ]


def test_csv_and_labels_are_read_back() -> None:
    """What is written is what backtest and train read, to the last bit."""
    spoiled = plan(0.5, devices=2, anomalies=2.0, missing=0.1)
    rows = whole(spoiled)
    keys, points = read_points([CSV_HEAD, *csv_lines(rows, spoiled.sources).splitlines()], "f", "f")
    for number, key in enumerate(keys):
        t_ms, x = of_device(rows, spoiled.sources.index(key.source))
        column = x[:, NAMES.index(key.metric)]
        mine = points.take(points.series == number)
        assert mine.t_ms.tolist() == t_ms[np.isfinite(column)].tolist()
        assert mine.value.tolist() == column[np.isfinite(column)].tolist()
    assert len(keys) == 12
    labels = read_labels(labels_csv(labels_of(spoiled)).splitlines(), "labels")
    assert [(one.source, one.metric, one.start_ms, one.end_ms, one.kind) for one in labels] == [
        tuple(label) for label in labels_of(spoiled)
    ]
