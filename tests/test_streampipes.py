"""StreamPipes from end to end: data lake, model, live events over real brokers, and what comes out."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pipes_core import FakeCore
from pipes_room import (
    DEVICES,
    ENV,
    OUTPUT_TOPIC,
    Kafka,
    Nats,
    Running,
    events,
    lake,
    needs_nats,
    presses,
    settings,
    until,
)

from plexus_detect.streampipes import command
from plexus_detect.training.versions import ModelFolder

BROKEN = (20, 21, 40, 41, 42, 43, 44, 45, 46, 47)


@pytest.fixture(scope="module", name="room")
def _room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, FakeCore]]:
    """A folder with a model that was trained by the command, and the core it was trained from."""
    folder, core = tmp_path_factory.mktemp("pipes"), FakeCore()
    with core.served(), pytest.MonkeyPatch.context() as patch:
        for name, value in ENV.items():
            patch.setenv(name, value)
        lake(core, 2000, int(time.time() * 1000))
        core.rows_max = 700
        settings(folder, core.port)
        command.train.main(["motor", "-c", str(folder / "c.yaml"), "--output", "json"], standalone_mode=False)
        yield folder, core


def sent(given: list[dict[str, Any]]) -> list[bytes]:
    """Events as messages."""
    return [json.dumps(event).encode() for event in given]


def test_the_data_lake_gives_a_model_in_onnx(room: tuple[Path, FakeCore]) -> None:
    """The command reads all pages of the measure, fits the backend of the entry, and keeps it as version 1
    with an ONNX file that scores as the model does; the card says where its rows are from."""
    folder, core = room
    models = ModelFolder(folder / "s.models")
    card = models.card("motor", 1)
    assert card["rows"] + card["left_out"] + card["held_back"] == 2000
    assert (card["backend"], card["measure"]) == ("isolation_forest", "presses")
    assert models.path_of("motor", 1).with_suffix(".onnx").stat().st_size > 1000
    assert card["parity"] < 1e-4
    offsets = [path.partition("offset=")[2].partition("&")[0] for path in core.seen if "offset=" in path]
    assert offsets == ["0", "700", "1400", "2000"]


@pytest.mark.parametrize("make", [pytest.param(Nats, marks=needs_nats), Kafka])
def test_live_events_are_judged_and_the_function_comes_and_goes(
    room: tuple[Path, FakeCore], make: Callable[[], Nats | Kafka]
) -> None:
    """Every event gives one on the output stream with its time and device: the broken ones are anomalies with
    a score beyond 1 and the current named first, an episode opens after three in a row, and few others are.
    Messages that are no events change nothing. After a stop no thread is left; started again it goes on, over
    Kafka with what came meanwhile."""
    folder, core = room
    config, before, broker = settings(folder, core.port), set(threading.enumerate()), make()
    try:
        topic = presses(core, broker)
        got = broker.listen(OUTPUT_TOPIC)
        threads = threading.active_count()
        given = events(7, 200, int(time.time() * 1000) - 300_000, BROKEN)
        with Running(config):
            broker.send(topic, [b"no event", b"[1, 2]", b"\xff\xfe", *sent(given), b'{"timestamp": "soon"}'])
            until(lambda: len(got) >= len(given), "an answer to every event")
        assert threading.active_count() == threads
        judged(got, given)
        broker.send(topic, sent(events(8, 20, given[-1]["timestamp"] + 1000)))
        last, kept = events(9, 20, given[-1]["timestamp"] + 60_000, (10,)), 20 * isinstance(broker, Kafka)
        with Running(config):
            broker.send(topic, sent(last))
            until(lambda: len(got) >= 220 + kept, "the last events are answered")
        assert len(got) == 220 + kept
        assert [e["is_anomaly"] for e in got if e["timestamp"] == last[10]["timestamp"]] == [True]
    finally:
        broker.close()
        core.streams.clear()
    assert set(threading.enumerate()) == before


def judged(got: list[dict[str, Any]], given: list[dict[str, Any]]) -> None:
    """What came out is what had to; only the events of one device are in order."""
    got = sorted(got, key=lambda event: event["timestamp"])
    assert [(e["timestamp"], e["device"]) for e in got] == [(e["timestamp"], e["device"]) for e in given]
    flagged = {i for i, e in enumerate(got) if e["is_anomaly"]}
    assert flagged >= set(BROKEN)
    assert len(flagged - set(BROKEN)) <= 4
    for i in BROKEN:
        assert got[i]["score"] > 1.0
        assert got[i]["severity"] in ("warning", "critical")
        assert got[i]["reason"].startswith("motor: current ")
        assert got[i]["reason"].endswith(" % (isolation_forest)")
    for i in set(range(len(got))) - flagged:
        assert got[i]["score"] <= 1.0
        assert (got[i]["reason"], got[i]["severity"]) == ("", "none")
    open_at = [i for i, e in enumerate(got) if e["in_episode"] and e["device"] == DEVICES[0]]
    assert open_at[0] == 44


@needs_nats
def test_a_broker_that_is_started_again_is_found_again(
    room: tuple[Path, FakeCore], caplog: pytest.LogCaptureFixture
) -> None:
    """The broker is killed and started on the same port: the function says that it is lost and for how long
    it was, and judges what is published from then on; the data lake is learned from once."""
    folder, core = room
    broker = Nats()
    try:
        topic = presses(core, broker)
        got = broker.listen(OUTPUT_TOPIC)
        now = int(time.time() * 1000) - 300_000
        config = settings(folder, core.port, statistics="true")
        with caplog.at_level("INFO", "plexus_detect"), Running(config) as running:
            broker.send(topic, sent(events(7, 10, now)))
            until(lambda: len(got) == 10, "answers before")
            broker.kill()
            until(lambda: not running.service.running, "the loss is noticed")
            broker.start()
            until(lambda: running.service.running, "the function is back")
            broker.listen(OUTPUT_TOPIC)
            broker.send(topic, sent(events(8, 10, now + 10_000, (3,))))
            until(lambda: len(got) == 20, "answers after")
        assert got[13]["is_anomaly"]
        said = {record.getMessage(): record.fields for record in caplog.records if hasattr(record, "fields")}
        assert said["warmed_up"]["rows"] == 2000
        assert "NATS" in said["function_lost"]["err"]
        assert "missed" in said["function_back"]["events"]
        assert said["function_stopped"]["published"] == 20
    finally:
        broker.close()
        core.streams.clear()
