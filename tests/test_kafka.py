"""A stream worker against a broker: bad messages, open transactions, results to the platform, the end.

The broker is tansu (see ``kafka_house``): a process of its own that keeps groups and offsets in transactions,
where librdkafka's mock cluster lives within the client, knows no marks of transactions, and dies with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka_drill import QUICK, engine_for, log_of
from kafka_house import ROOT, House, Process, config_file, house, until

from plexus_detect.config import Config, load_config
from plexus_detect.connect.kafka_sink import TransactionalSink
from plexus_detect.connect.kafka_source import KafkaSource
from plexus_detect.connect.pipeline import Pipeline, PipelineParams
from plexus_detect.connect.protocol import Progress, Result, Unavailable
from plexus_detect.connect.report import StreamReport
from plexus_detect.connect.settings import Connection
from plexus_detect.connect.states import States
from plexus_detect.stream.messages import Batch

SOURCE = {"linger": "20ms", "options": {"session.timeout.ms": 6000}}
SINK = {"options": {"compression.type": "none"}}


@pytest.fixture(scope="module")
def bus() -> Iterator[House]:
    """One broker for all of these tests; each has topics and a group of its own."""
    with house() as one:
        yield one


def of(bus: House, path: Path, name: str, **more: Any) -> Config:
    source = {**SOURCE, "topic": name, "group": name, **more.pop("source", {})}
    sink = {**SINK, "topic": f"{name}.alerts", **more.pop("sink", {})}
    return load_config(
        [config_file(path / "c.json", bus.brokers, source=source, sink=sink, **QUICK, **more)], {}
    )


def reading(i: int, value: float, t_s: float | None = None) -> bytes:
    said = {"timestamp": time.time() - 300 + i if t_s is None else t_s, "sample_index": i}
    return json.dumps({**said, "sensors": {"temperature": value}}).encode()


def bad_messages() -> dict[str, bytes | None]:
    """Messages of which none may stop anybody, by the reason that is given (""): it is used all the same."""
    now = time.time()
    return {
        "empty": None,
        "not_json": b"\xff\x00 not json {",
        "not_an_object": b"[1, 2]",
        "no_timestamp": b'{"sensors": {"temperature": 1}}',
        "no_sensors": b'{"timestamp": 1790000000}',
        "no_numbers": b'{"timestamp": 1790000000, "sensors": {"temperature": null}}',
        "time_ahead": reading(0, 20.0, now + 86_400),
        "time_impossible": reading(0, 20.0, -5.0),
        "too_large": b'{"timestamp": 1, "sensors": {"temperature": 1}, "junk": "' + b"x" * 10_000_000 + b'"}',
        "": b'{"timestamp": %d, "sensors": {"temperature": NaN, "pressure": 5}}' % now,
    }


def test_bad_messages_never_stop_the_consumer(bus: House, tmp_path: Path) -> None:
    """Each goes to the topic of dead letters with the reason and where it stood, one of 10 MB shortened; what
    is between them is scored as if they were not there."""
    config = of(bus, tmp_path, "bad")
    bus.topic("bad", 1)
    bad = bad_messages()
    rows: list[tuple[int, bytes | None, bytes | None]] = []
    for i, value in enumerate(bad.values()):
        rows += [(0, b"dev", reading(20 * i + k, 20 + k % 3 + (40 if k == 19 else 0))) for k in range(20)]
        rows.append((0, b"dev", value))
    rows.append((0, b"\x00\x01", reading(0, 20.0)))
    bus.produce("bad", rows, **{"message.max.bytes": 20_000_000})
    worker = Process(tmp_path / "c.json", tmp_path / "w.log")
    try:
        until(lambda: len(bus.committed("bad.dead")) >= len(bad), 25, 0.2)
    finally:
        assert worker.end() == 143
    dead = bus.committed("bad.dead")
    reasons = Counter(said.headers["reason"].decode() for said in dead)
    assert reasons == Counter([*(reason for reason in bad if reason), "bad_device"])
    for said in dead:
        offset = int(said.headers["offset"])
        value = rows[offset][2]
        assert said.headers["topic"] == b"bad"
        assert said.headers["text"]
        assert (value or b"").startswith(said.value or b"")
        assert len(said.value or b"") <= 1_000_000
    (large,) = (said for said in dead if said.headers["reason"] == b"too_large")
    assert int(large.headers["truncated_from"]) > 10_000_000
    told = Counter(id_ for id_, _alert in bus.alerts("bad.alerts"))
    batch = log_of(bus, "bad", 1)[0]
    assert told == Counter(alert.id for alert in engine_for(config, 0).take(batch).alerts)
    assert len(told) >= 3
    (_id, alert) = bus.alerts("bad.alerts")[0]
    assert alert["device"] == "dev"
    assert alert["severity"] in ("warning", "critical")
    assert alert["sensor_values"]["temperature"] > 50
    assert "hung" not in worker.text()


class Crashed(Exception):  # noqa: N818 - what a test does, no error
    """The worker is gone at this moment."""


class Member:
    """A source that is a member of a group, and whose worker crashes in the middle of a transaction."""

    def __init__(self, source: KafkaSource, crash: bool = False) -> None:
        self.source, self.crash = source, crash

    def member(self) -> Any:
        """The membership, or the crash."""
        if self.crash:
            raise Crashed
        return self.source.member()

    def committed(self, partitions: list[int]) -> Any:
        """The positions."""
        return self.source.committed(partitions)


def results_of(config: Config, name: str) -> list[Result]:
    rows = [reading(k, 20 + k % 3 + (40 if k == 59 else 0)) for k in range(60)]
    now = int(time.time() * 1000)
    batch = Batch(rows, [b"dev"] * 60, [now] * 60, list(range(60)))
    output = engine_for(config, 0).take(batch)
    assert output.alerts, name
    return [Result(0, batch, output)]


def test_what_an_open_transaction_wrote_is_never_seen(bus: House, tmp_path: Path) -> None:
    """A worker dies between writing and committing; the next under its name begins by undoing that. And one
    that does not know whether its transaction was committed looks at the positions: nothing is twice."""
    config = of(bus, tmp_path, "open", sink={"transactional_id": "worker-1"})
    bus.topic("open", 1)
    connection = Connection(config)
    states = States(config, connection)
    assert states.prepare() == 1
    source = KafkaSource(config.source, connection, states)
    pipeline = Pipeline(
        source, states, lambda p: engine_for(config, p), PipelineParams(snapshot_s=1e9), StreamReport()
    )
    source.subscribe()
    until(lambda: bool(source.take() or pipeline._coming), 15)
    results, progress = results_of(config, "open"), Progress({0: 20}, {})
    first = TransactionalSink(config, connection, states, pipeline.waiting)
    with pytest.raises(Crashed):
        first.deliver(results, progress, Member(source, crash=True))  # type: ignore[arg-type]
    assert first._producer is not None
    first._producer.flush(5)
    second = TransactionalSink(config, connection, states, pipeline.waiting)
    second.deliver(results, progress, Member(source))  # type: ignore[arg-type]
    ids = sorted(alert.id for alert in results[0].output.alerts)
    assert sorted(id_ for id_, _alert in bus.alerts("open.alerts")) == ids
    assert source.committed([0]) == {0: 20}
    # The answer to the commit was lost, say.
    second._give_up(progress)
    second.deliver(results, progress, Member(source))  # type: ignore[arg-type]
    assert sorted(id_ for id_, _alert in bus.alerts("open.alerts")) == ids
    # And one that was really not committed is made again.
    later = Progress({0: 25}, {})
    second._give_up(later)
    second.deliver(results, later, Member(source))  # type: ignore[arg-type]
    assert len(bus.alerts("open.alerts")) == 2 * len(ids)
    assert source.committed([0]) == {0: 25}
    for closing in (first, second):
        closing.close()
    source.close(5)


def test_states_are_kept_and_found(bus: House, tmp_path: Path) -> None:
    """In pieces if they are large, the newest at or before a position."""
    config = of(bus, tmp_path, "kept")
    bus.topic("kept", 2)
    states = States(config, Connection(config))
    assert states.prepare() == 2
    assert states.prepare() == 2
    for position in (10, 20, 30):
        states.write(Progress({1: position}, {1: b"%d" % position + b"z" * 1_000_000}))
    found = [states.read(1, limit) for limit in (None, 29, 9)]
    assert [None if f is None else (f.position, len(f.blob)) for f in found] == [
        (30, 1_000_002),
        (20, 1_000_002),
        None,
    ]
    assert states.read(0, None) is None
    states.close()


def test_scores_go_to_the_platform(bus: House, tmp_path: Path) -> None:
    """Kafka in, the platform out: every score once when nothing fails, and the offsets after them."""
    from plexus_detect.connect.service import StreamService
    from plexus_detect.options import client_of
    from plexus_detect.sandbox import Sandbox
    from plexus_detect.vitals import Vitals

    bus.topic("out", 2)
    rows = [
        (p, b"dev-%d" % p, reading(k, 20 + k % 3 + (40 if k == 59 else 0))) for k in range(60) for p in (0, 1)
    ]
    bus.produce("out", rows)
    with Sandbox() as box:
        for p in (0, 1):
            box.load([(f"dev-{p}", "temperature", int(time.time() * 1000) - 1000, 20.0)])
        plexus = {"api_key": box.key, "endpoint": box.url, "gateway_url": box.url, "api_url": box.url}
        more = {"source": {**SOURCE, "kind": "kafka", "brokers": bus.brokers, "topic": "out", "group": "out"}}
        config = Config.model_validate({**QUICK, **more, "plexus": plexus})

        async def work() -> StreamReport:
            stop = asyncio.Event()
            async with client_of(config) as client:
                service = StreamService(config, Vitals(1000, 1000), client)
                running = asyncio.create_task(service.run(stop))
                for _ in range(200):
                    if service.report.batches and service.report.messages >= len(rows):
                        break
                    await asyncio.sleep(0.05)
                await asyncio.sleep(0.3)
                stop.set()
                await running
            return service.report

        report = asyncio.run(work())
        assert report.messages == len(rows)
        expected = {
            (source, metric, t_ms)
            for p, batch in log_of(bus, "out", 2).items()
            for rows_ in [engine_for(config, p).take(batch).derived]
            for source, metric, t_ms in zip(rows_.source, rows_.metric, rows_.t_ms.tolist(), strict=True)
        }
        stored = [(row.source, row.metric, row.t_ms) for row in box.rows() if row.metric != "temperature"]
    assert len(stored) == len(set(stored))
    assert {row[:2] for row in stored} <= {row[:2] for row in expected} | {
        (s, m + "_late") for s, m, _t in expected
    }
    assert len(stored) == len(expected)


def test_a_missing_topic_is_waited_for(bus: House, tmp_path: Path) -> None:
    """Topics of ours are made when it is there."""
    config = of(bus, tmp_path, "later")
    states = States(config, Connection(config))
    assert states.prepare() is None
    bus.topic("later", 3)
    assert states.prepare() == 3
    assert {bus.partitions("later-later-state"), bus.partitions("nothing")} == {3, 0}


def test_the_platform_in_and_kafka_out(bus: House, tmp_path: Path) -> None:
    """The polling worker with topics in place of ingest: every score once, and an alert for the fault."""
    from plexus_detect.sandbox import Sandbox

    now = int(time.time() * 1000)
    with Sandbox() as box:
        past = [("dev", "temperature", now - 1000 * k, 20.0 + k % 3 * 0.1) for k in range(400, 4, -1)]
        box.load(past)
        settings = {
            "sink": {
                **SINK,
                "kind": "kafka",
                "brokers": bus.brokers,
                "topic": "polled",
                "scores_topic": "scores",
            },
            "state": {"path": str(tmp_path / "s.db")},
            "heartbeat": {"enabled": False},
            **QUICK,
        }
        (tmp_path / "p.json").write_text(json.dumps(settings))
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            **dict.fromkeys(("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL"), box.url),
            "PLEXUS_API_KEY": box.key,
        }
        command = [sys.executable, "-m", "plexus_detect", "run", "--once", "-c", str(tmp_path / "p.json")]
        for topic in ("polled", "scores"):
            bus.topic(topic, 1)
        subprocess.run(command, check=True, env=environment, capture_output=True)
        box.load([("dev", "temperature", now - 1000 * k, 90.0) for k in range(3, 0, -1)])
        subprocess.run(command, check=True, env=environment, capture_output=True)
    scores = [json.loads(said.value or b"") for said in bus.committed("scores")]
    assert [row["value"] > 0 for row in scores if row["metric"] == "temperature.zscore"][-1]
    assert len({(row["metric"], row["timestamp"]) for row in scores}) == len(scores)
    ((_id, alert),) = bus.alerts("polled")
    assert (alert["device"], alert["threshold"]) == ("dev", 3)
    assert alert["score"] > 3


def test_brokers_that_are_away_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is worth trying again, not one of the program's."""
    config = load_config([config_file(tmp_path / "c.json", "127.0.0.1:1", **QUICK)], {})
    monkeypatch.setattr("plexus_detect.connect.states.REQUEST_S", 0.2)
    with pytest.raises(Unavailable):
        States(config, Connection(config)).prepare()


@pytest.mark.parametrize(("away", "code"), [(False, 0), (True, 75)])
def test_doctor_sees_brokers_and_topic(bus: House, tmp_path: Path, *, away: bool, code: int) -> None:
    """Without a key, a platform or a state file, which such a worker does not need."""
    from click.testing import CliRunner

    from plexus_detect.cli import cli

    bus.topic(f"seen-{code}", 2)
    brokers = "127.0.0.1:1" if away else bus.brokers
    file = config_file(tmp_path / "c.json", brokers, source={"topic": f"seen-{code}"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plexus_detect.connect.states.REQUEST_S", 1.0)
        answer = CliRunner().invoke(cli, ["doctor", "-c", str(file)])
    assert answer.exit_code == code, answer.output
    assert away or f"seen-{code} has 2 partitions" in answer.output


def test_why_brokers_do_not_answer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve, say: not only that nobody answered."""
    monkeypatch.setattr("plexus_detect.connect.states.REQUEST_S", 1.0)
    config = load_config([config_file(tmp_path / "c.json", "kafka.invalid:9092", **QUICK)], {})
    with pytest.raises(Unavailable, match="_RESOLVE"):
        States(config, Connection(config)).prepare()
