"""simulate command: rows to a file, the platform and Kafka, what is refused, and the whole way to a score."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from fake_platform import FakeClock
from subprocess_worker import ROOT, UNKNOWN_KEY, environment, finished, said

from plexus_detect.backtest import command as backtest_command
from plexus_detect.backtest.command import Wanted
from plexus_detect.backtest.csvfile import read_points
from plexus_detect.backtest.figures import Gates
from plexus_detect.config import load_config
from plexus_detect.errors import ConfigError, PlexusDetectError, TransientError
from plexus_detect.sandbox import Sandbox
from plexus_detect.series import Points, SeriesKey
from plexus_detect.simulate import outlets
from plexus_detect.simulate.command import simulate
from plexus_detect.simulate.fleet import Plan, Rows, simulated
from plexus_detect.simulate.machine import NAMES
from plexus_detect.simulate.pacing import pass_on

GROUP = """
version: 1
detectors: [{name: machine, metrics: [temperature, humidity, pressure, vibration, power_draw, airflow]}]
"""


def run(*options: object) -> None:
    """The command in this process."""
    simulate.main([str(option) for option in options], standalone_mode=False)


def points_of(path: Path) -> tuple[list[SeriesKey], Points]:
    """What a CSV holds."""
    with path.open() as lines:
        return read_points(lines, path.name, path.stem)


# --- the whole way ----------------------------------------------------------------------------------------


def test_from_the_simulation_to_figures_by_kind_and_detector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fleet with labelled faults is scored by statistics and a group side by side: the group finds faults
    that belong to one of its metrics, breaks of the correlation among them; all figures are by kind."""
    where = "--csv", tmp_path / "m.csv", "--labels", tmp_path / "f.csv"
    fleet = "--devices", 2, "--days", 9, "--normal-days", 5, "--anomalies", 2, "--interval", "5m"
    run(*where, *fleet, "--start", "2026-10-01", "--seed", 1)
    (tmp_path / "c.yaml").write_text(GROUP)
    wanted = Wanted("2026-10-06", None, tmp_path / "m.csv", tmp_path / "f.csv", None, jobs=1, as_json=True)
    settings = {"PLEXUS_DETECT_DETECT__DETECTOR": "zscore", "PLEXUS_DETECT_FLEET__ENABLED": "false"}
    backtest_command._backtest(load_config([tmp_path / "c.yaml"], settings), wanted, Gates())
    told = json.loads(capsys.readouterr().out)["labels"]
    assert set(told["by_kind"]) == {"spike", "drift", "stuck", "break"}
    statistics, group = told["by_detector"]["own past"], told["by_detector"]["machine"]
    assert statistics["labels"] == group["labels"] == told["labels"] > 14
    assert group["by_kind"]["break"]["recall"] > 0.7
    assert group["precision"] > 0.5
    assert statistics["by_kind"]["break"]["recall"] < group["by_kind"]["break"]["recall"]
    assert told["found"] >= max(statistics["found"], group["found"])
    for kind in told["by_kind"]:
        assert statistics["by_kind"][kind]["labels"] == told["by_kind"][kind]["labels"]


def test_the_example_is_of_the_simulated_machines() -> None:
    """examples/machine_fleet.yaml judges the six sensors of every machine by an autoencoder and by
    statistics."""
    example = load_config([ROOT / "examples" / "machine_fleet.yaml"], {})
    (group,) = example.detectors
    assert (group.kind, group.metrics) == ("autoencoder", NAMES)
    assert group.may_take("machine-001")
    assert all(example.rule_for("machine-012", metric) == 0 for metric in NAMES)


# --- a file -----------------------------------------------------------------------------------------------


def test_a_file_and_what_is_said(tmp_path: Path) -> None:
    """By the real process: rows up to now, a count on standard error, nothing on standard output."""
    options = ["--csv", "m.csv", "--labels", "f.csv", "--days", "1", "--devices", "2", "--anomalies", "1"]
    done = finished(["simulate", *options], environment("http://127.0.0.1:1", ""), tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "plexus-detect: 2880 rows of 2 devices\n"
    keys, points = points_of(tmp_path / "m.csv")
    assert keys == sorted(SeriesKey(f"machine-00{n}", name) for n in (1, 2) for name in NAMES)
    assert len(points) == 2880 * 6
    assert 0 <= time.time() * 1000 - points.t_ms.max() < 180_000
    assert (tmp_path / "f.csv").read_text().startswith("source,metric,start,end,kind\n")


def test_nowhere_to_go(tmp_path: Path) -> None:
    """Exit 2 and one sentence."""
    env = environment("http://127.0.0.1:1", "")
    assert "nowhere to go" in said(finished(["simulate"], env, tmp_path), 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--days", "nan"], "--days: nan is out of range"),
        (["--days", "0"], "--days: 0 is out of range"),
        (["--anomalies", "3"], "--anomalies: 3 is out of range; choose from 0 to 2"),
        (["--missing", "1.5"], "--missing: 1.5 is out of range"),
        (["--interval", "soon"], "--interval: 'soon' is no duration"),
        (["--interval", "1h", "--anomalies", "1"], "choose 15m or less"),
        (["--jitter", "2m"], "--jitter: it is longer than --interval"),
        (["--start", "then"], "--start: 'then' is no time"),
        (["--start", "1999-01-01"], "--start: 1999-01-01T00:00:00Z is too early"),
        (["--name", "No. 1"], "--name: 'No. 1' is no name of a source"),
        (["--pace", "-1"], "--pace: -1 is out of range"),
        (["--csv", "no/folder/m.csv"], "--csv: no/folder/m.csv cannot be written"),
        (["--labels", "no/folder/f.csv"], "--labels: no/folder/f.csv cannot be written"),
        (["--kafka", "-X", "acks"], "-X: 'acks' is no setting"),
        (["--kafka", "-X", "no.such=1"], "-X: No such configuration property"),
        (["--plexus", "--start", "2100-01-01"], "--plexus: the last rows would lie in the future"),
    ],
)
def test_what_cannot_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    """One sentence for each that names the option."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        run("--csv", "m.csv", "--days", "0.01", *options)
    assert words in str(raised.value)


# --- the platform -----------------------------------------------------------------------------------------


@pytest.fixture(name="box")
def _box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A platform, and the environment that points at it."""
    with Sandbox() as box:
        for name, value in environment(box.url, box.key).items():
            if name.startswith("PLEXUS"):
                monkeypatch.setenv(name, value)
        yield box


def test_the_platform_has_what_the_file_has(box: Sandbox, tmp_path: Path) -> None:
    """Every value of a fleet that is posted is stored once, with its time, also those of the first moment."""
    run("--plexus", "--csv", tmp_path / "m.csv", "--days", 0.6, "--devices", 3, "--missing", 0.02)
    keys, points = points_of(tmp_path / "m.csv")
    sent = zip(points.series.tolist(), points.t_ms.tolist(), points.value.tolist(), strict=True)
    stored = [(row.source, row.metric, row.t_ms, row.value) for row in box.rows()]
    assert sorted(stored) == sorted((*keys[i], t_ms, value) for i, t_ms, value in sent)
    # 15,000 values are two requests at least; blocks of 64 times are more, and none is of one time.
    assert 2 <= box.requests.counts["POST /ingest"] <= 20


def test_a_key_that_is_refused(box: Sandbox, tmp_path: Path) -> None:
    """Exit 3, before any point is posted."""
    env = environment(box.url, UNKNOWN_KEY)
    assert "401" in said(finished(["simulate", "--plexus", "--days", "0.01"], env, tmp_path), 3)
    assert box.rows() == []


# --- the pace ---------------------------------------------------------------------------------------------


def paced(monkeypatch: pytest.MonkeyPatch, plan: Plan, pace: float, now_ms: int) -> list[tuple[int, int]]:
    """On a clock of our own: for each call of an outlet the seconds since the start and how many rows."""
    fake = FakeClock(monkeypatch, now_ms)
    calls = []

    async def put(rows: Rows) -> None:
        calls.append((round((fake.t_ms - now_ms) / 1000), len(rows.row)))

    asyncio.run(pass_on(simulated(plan), pace, plan.start_ms, [put]))
    return calls


NOON = 1_793_448_000_000


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 sends whole blocks at once; 1 sends each time when it has come, and at once what is past; 60 sends an
    hour in a minute."""
    minutes = Plan(NOON, NOON + 5 * 60_000, devices=2)
    assert sum(n for _, n in paced(monkeypatch, minutes, 0, NOON)) == 10
    assert paced(monkeypatch, minutes, 1, NOON) == [(60 * k, 2) for k in range(5)]
    assert paced(monkeypatch, minutes, 60, NOON + 86_400_000) == [(k, 2) for k in range(5)]
    late = paced(monkeypatch, minutes, 1, NOON + 2 * 60_000)
    assert [s for s, _ in late] == [0, 0, 0, 60, 120]


# --- Kafka ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="brokers")
def _brokers() -> Iterator[str]:
    """librdkafka's own cluster of one broker: it lives as long as the client that holds it."""
    holder = Producer({"test.mock.num.brokers": 1, "log_level": 2})
    (broker,) = holder.list_topics(timeout=10).brokers.values()
    yield f"{broker.host}:{broker.port}"
    holder.flush(1)


def taken(brokers: str, topic: str, count: int) -> list[tuple[str, dict]]:
    """So many messages of a topic, as (key, value)."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": topic, "log_level": 2})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    found, deadline = [], time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        found += [m for m in consumer.consume(count, 0.5) if m.error() is None]
    consumer.close()
    return [(m.key().decode(), json.loads(m.value())) for m in found]


def test_a_topic_has_what_the_file_has(brokers: str, tmp_path: Path) -> None:
    """A message a row, keyed by device, in order within a device; the settings of -X reach librdkafka."""
    kafka = "--kafka", "--brokers", brokers, "--topic", "readings", "-X", "linger.ms=5", "-X", "acks=all"
    run(*kafka, "--csv", tmp_path / "m.csv", "--days", 0.1, "--devices", 3)
    told = taken(brokers, "readings", 3 * 144)
    assert len(told) == 3 * 144
    for device in ("machine-001", "machine-002", "machine-003"):
        mine = [value["sample_index"] for key, value in told if key == device]
        assert mine == list(range(144))
    keys, points = points_of(tmp_path / "m.csv")
    sent = zip(points.series.tolist(), points.t_ms.tolist(), points.value.tolist(), strict=True)
    assert sorted((*keys[i], t_ms, value) for i, t_ms, value in sent) == sorted(
        (key, name, one["timestamp"], value) for key, one in told for name, value in one["sensors"].items()
    )


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said."""
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(ConfigError, match=r"pip install 'plexus-detect\[kafka\]'"):
        run("--kafka", "--days", 0.01)


def test_a_broker_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing arrives for a while that is an error, with what librdkafka says of the broker."""
    monkeypatch.setattr(outlets, "STILL_S_MAX", 0.3)
    with pytest.raises(TransientError) as raised:
        run("--kafka", "--brokers", "127.0.0.1:1", "--days", 0.01)
    assert "messages do not reach sensor-readings" in str(raised.value)
    assert "check --brokers" in str(raised.value)


def test_messages_that_are_not_taken_are_told(brokers: str) -> None:
    """A delivery report of a failure ends the run with an error: nothing is lost in silence."""
    with pytest.raises(PlexusDetectError, match="messages were not taken"):
        run(
            "--kafka", "--brokers", brokers, "--days", 0.01, "-X", "message.timeout.ms=1", "-X", "linger.ms=0"
        )
