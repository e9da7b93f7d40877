"""The stream engine: what an alert says, when it is told, and that the numbers are the worker's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from bus import FLEET, GROUP, POLICIES, QUICK, SENSORS, T0, alerts, batch, engine, message, rows, run
from sensors import NAMES, recording

from plexus_detect.backtest.moments import Span
from plexus_detect.backtest.replay import Admitted, Replay, Setup, in_order
from plexus_detect.detectors import DetectorParams
from plexus_detect.episode import EpisodeParams
from plexus_detect.evaluate import Policy, State, evaluate
from plexus_detect.learn.windowed import WindowedParams
from plexus_detect.series import SUFFIX, Kind, Points, SeriesTable
from plexus_detect.stream.alerts import CoolDown, severity_of
from plexus_detect.stream.engine import PartitionEngine
from plexus_detect.training.trainer import InlineTrainer
from plexus_detect.training.windowed import fit_windowed

OWN = POLICIES["own past"]


def readings(
    n: int, devices: int = 1, seed: int = 0, jump: int | None = None, size: float = 50.0
) -> list[Any]:
    """``n`` seconds of some devices; at second ``jump`` the temperature of the first leaps."""
    x = np.random.default_rng(seed).normal(20.0, 1.0, (n, devices, 3)).round(3)
    if jump is not None:
        x[jump, 0, 0] += size
    return [
        message(f"d{d}", T0 + 1000 * i, dict(zip(SENSORS, x[i, d].tolist(), strict=True)), index=i)
        for i in range(n)
        for d in range(devices)
    ]


def test_an_alert_says_what_opened_it() -> None:
    """Time, device, index and all values of the message that opened the episode, its score and its line."""
    stream = readings(40, jump=30)
    (alert,) = [a for o in run(engine(OWN), batch(stream)) for a in o.alerts if a.t_ms >= T0 + 25_000]
    said = json.loads(alert.encode())
    assert list(said) == [
        "timestamp", "device", "sample_index", "score", "threshold", "severity", "reason", "sensor_values",
    ]  # fmt: skip
    assert (said["timestamp"], said["device"], said["sample_index"]) == (T0 / 1000 + 30, "d0", 30)
    assert said["sensor_values"] == json.loads(stream[30][0])["sensors"]
    assert (said["threshold"], said["severity"]) == (3.0, "critical")
    assert said["score"] > 9.0
    assert "temperature on d0 is anomalous" in said["reason"]
    assert (alert.metric, alert.kind) == ("temperature", "zscore")


def test_three_times_the_threshold_is_still_a_warning() -> None:
    """Critical begins above three times the threshold."""
    assert severity_of(9.0, 3.0) == "warning"
    assert severity_of(np.nextafter(9.0, 10.0), 3.0) == "critical"


def test_ids_are_those_of_the_sample_and_its_place() -> None:
    """The same messages read again give the same ids; another partition gives others."""
    stream = batch(readings(40, jump=30))
    first, again, other = (run(engine(OWN, name=name), stream) for name in ("t/0", "t/0", "t/1"))
    ids = [{a.id for o in outputs for a in o.alerts} for outputs in (first, again, other)]
    assert ids[0] == ids[1]
    assert not ids[0] & ids[2]


def test_within_the_cool_down_only_a_first_critical_one_is_told() -> None:
    """A second warning is held back, a critical one is not, and another series has a cool-down of its own."""
    cool = CoolDown(60_000)
    lets = [
        cool.lets(0, Kind.ZSCORE, T0, "warning"),
        cool.lets(0, Kind.ZSCORE, T0 + 59_999, "warning"),
        cool.lets(0, Kind.ZSCORE, T0 + 59_999, "critical"),
        cool.lets(0, Kind.ZSCORE, T0 + 60_500, "critical"),
        cool.lets(1, Kind.ZSCORE, T0 + 1, "warning"),
        cool.lets(0, Kind.ZSCORE, T0 + 119_999, "warning"),
    ]
    assert lets == [True, False, True, False, True, True]


def test_what_the_cool_down_holds_back_is_counted() -> None:
    """Episodes that open again at once are one alert, and the others are counted."""
    stream = readings(60)
    for i in (20, 30, 40):
        leap = {"temperature": 500.0 * i, "humidity": 20.0, "pressure": 20.0}
        stream[i] = message("d0", T0 + 1000 * i, leap, index=i)
    (output,) = run(engine(OWN, cooldown_ms=3_600_000), batch(stream))
    assert len([a for a in output.alerts if a.metric == "temperature"]) == 1
    assert output.counts["suppressed"] >= 2
    assert output.counts["alerts"] == len(output.alerts)


def points_of(stream: list[Any]) -> tuple[SeriesTable, Points]:
    """The same messages as points, in order of arrival."""
    table = SeriesTable()
    found = [
        (table.add(key.decode(), name), round(body["timestamp"] * 1000), x)
        for value, key, _ in stream
        for body in [json.loads(value)]
        for name, x in body["sensors"].items()
    ]
    series, t_ms, value = zip(*found, strict=True)
    return table, Points(np.array(series), np.array(t_ms), np.array(value))


@pytest.mark.parametrize("name", ["own past", "fleets"])
def test_the_rows_are_those_of_the_worker(name: str) -> None:
    """The same points through the worker's evaluate give the same derived points."""
    policy, stream = POLICIES[name], readings(60, 5, jump=40)
    table, points = points_of(stream)
    state = State(table, policy)
    for series in range(len(table)):
        state.admit(series, 0)
    order = np.lexsort((points.t_ms, points.series))
    found = evaluate(state, points.take(order), int(points.t_ms.max()) + 20).derived
    expected = sorted(
        (table.keys[s].source, table.keys[s].metric + SUFFIX[Kind(k)], t, v)
        for s, k, t, v in zip(
            *(c.tolist() for c in (found.series, found.kind, found.t_ms, found.value)), strict=True
        )
    )
    assert rows(run(engine(policy), batch(stream), [7, 100])) == expected
    assert expected


def test_the_alerts_are_the_episodes_of_a_replay() -> None:
    """A backtest of the same points opens the same episodes."""
    policy = Policy((QUICK,), groups=(GROUP,))
    stream = readings(120, 2, jump=90)
    table, points = points_of(stream)
    replay = Replay(Setup(policy, Span(0, T0 * 2)))
    keys = [*table.keys, *((device, GROUP.name) for device in ("d0", "d1"))]
    for i, key in enumerate(keys):
        replay.admit(Admitted(i, type(table.keys[0])(*key), 0 if key[1] in SENSORS else None))
    replay.step(in_order(points), T0 + 200_000)
    episodes = [(e.opened_ms, *e.key, e.kind) for e in replay.finish().episodes]
    found = [a for o in run(engine(policy, cooldown_ms=0), batch(stream)) for a in o.alerts]
    assert sorted((a.t_ms, a.device, a.metric, a.kind) for a in found) == sorted(episodes)
    assert any(a.kind == "anomaly" and a.sensor_values for a in found)


def test_devices_of_other_partitions_do_not_matter() -> None:
    """Without fleets a device's alerts and rows are the same alone and among others."""
    stream = readings(60, 4, jump=40)
    mine = [one for one in stream if one[1] == b"d0"]
    among, alone = run(engine(OWN), batch(stream)), run(engine(OWN), batch(mine))
    assert [a for a in alerts(among) if a[1] == "d0"] == alerts(alone)
    assert [row for row in rows(among) if row[0] == "d0"] == rows(alone)


def test_an_event_of_a_fleet_is_one_alert_without_a_sample() -> None:
    """When all devices leap it is one event, whose score is a number of devices."""
    stream = readings(80, 6, seed=1)
    for i in range(60 * 6, 80 * 6):
        body = json.loads(stream[i][0])
        body["sensors"]["temperature"] += 60.0
        stream[i] = (json.dumps(body).encode(), *stream[i][1:])
    calm = DetectorParams(threshold=8.0, window=40, min_points=30)
    policy = Policy((replace(FLEET, params=calm, episode=EpisodeParams(8.0, 1, 1, 2)),))
    told = [a for o in run(engine(policy), batch(stream)) for a in o.alerts if a.t_ms >= T0 + 60_000]
    found = [a for a in told if (a.kind, a.metric) == ("fleet_event", "temperature")]
    assert [(a.sample_index, dict(a.sensor_values)) for a in found] == [(None, {})]
    assert found[0].score >= 3


def test_no_more_series_are_watched_than_may_be() -> None:
    """Messages for which there is no room are rejected, and say nothing of the others."""
    of = engine(OWN, series_max=6)
    (output,) = run(of, batch(readings(30, 4)))
    assert of.series_count == 6
    assert {r.reason for r in output.rejected} == {"too_many_series"}
    assert len(output.rejected) == 60
    assert [row for row in rows([output]) if row[0] == "d1"] == [
        row for row in rows(run(engine(OWN), batch(readings(30, 4)))) if row[0] == "d1"
    ]


def test_silent_series_make_room() -> None:
    """A series without a sample for as long as the settings say is forgotten, whatever the batches."""
    hour = 3_600_000
    old = [message("old", T0 + i * 1000, {"temperature": float(i % 3)}) for i in range(20)]
    new = [message("new", T0 + i * hour // 2, {"temperature": float(i % 3)}) for i in range(1, 40)]
    both = batch([*old, *new])
    whole, single = (engine(OWN, series_max=2, expire_after_ms=4 * hour) for _ in range(2))
    outputs = run(whole, both), run(single, both, range(len(both)))
    assert whole.series_count == single.series_count == 1
    assert rows(outputs[0]) == rows(outputs[1])


def test_one_broker_time_far_ahead_makes_nobody_silent() -> None:
    """A timestamp of next year, which a producer may set, expires no series."""
    of = engine(OWN, expire_after_ms=3_600_000 * 4)
    run(of, batch([*readings(20, 3), message("d0", T0 + 21_000, {"temperature": 1.0}, T0 + 10**11)]))
    of.take(batch(readings(25, 3)[60:], first=100))
    assert of.series_count == 9


def test_messages_before_the_position_are_not_taken_again() -> None:
    """What a consumer gets once more after a rebalance changes nothing and is counted."""
    of, stream = engine(OWN), batch(readings(40, jump=30))
    run(of, stream)
    again = of.take(stream)
    assert (len(again.alerts), len(again.derived), again.counts["again"]) == (0, 0, 40)
    assert of.position == 40


def test_a_snapshot_that_does_not_fit_says_so_and_leaves_a_new_engine() -> None:
    """Other settings, damage, and bytes of something else: a sentence, and everything begins anew."""
    of = engine(OWN)
    run(of, batch(readings(40)))
    blob = of.dump()
    other = engine(Policy((replace(QUICK, episode=EpisodeParams(4.0)),)))
    for target, bad, word in (
        (other, blob, "settings"),
        (of, blob[:-9], "damaged"),
        (of, blob[:60] + b"x" + blob[61:], "damaged"),
        (of, b"something else", "no snapshot"),
        (of, blob[:20] + b"\x7f" + blob[21:], "version"),
    ):
        assert word in str(target.load(bad))
        assert (target.series_count, target.position) == (0, 0)
    assert of.load(blob) is None
    assert (of.series_count, of.position) == (3, 40)


def test_an_autoencoder_of_windows_judges_a_stream() -> None:
    """Windows of several sizes score as in one call, in any batches and after a move, and its alert has the
    values of its row and blames a sensor."""
    healthy = recording(2, seed=1)
    fitted = fit_windowed(healthy.x, NAMES, WindowedParams((4, 16)), steps=60)
    group = replace(GROUP, name="machine", metrics=NAMES, windowed=fitted, model_hash="x")
    policy = Policy((), groups=(group,))
    x = recording(1, seed=2).x[:300].copy()
    x[250:260, 2] += 3.0
    stream = [
        message("m", T0 + 60_000 * i, dict(zip(NAMES, row, strict=True)), index=i)
        for i, row in enumerate(x.tolist())
    ]

    def made() -> PartitionEngine:
        return PartitionEngine(policy, lambda _s, _m: None, engine(OWN).params, InlineTrainer())

    whole = run(made(), batch(stream))
    first, second = made(), made()
    halves = [first.take(batch(stream[:123]))]
    assert second.load(first.dump()) is None
    halves.append(second.take(batch(stream[123:], first=123)))
    assert alerts(halves) == alerts(whole)
    assert rows(halves) == rows(whole)
    found = [a for o in whole for a in o.alerts if a.t_ms >= T0 + 60_000 * 250]
    assert found
    assert (found[0].metric, found[0].kind, found[0].sample_index) == ("machine", "anomaly", 250)
    assert found[0].sensor_values["pressure"] == x[250, 2]
    assert "pressure" in found[0].reason
