"""The sections source and sink: what is refused, what is hidden, and what reaches the client library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from plexus_detect.config import Config, load_config, load_config_with_origins
from plexus_detect.connect.report import StreamMeters, StreamReport
from plexus_detect.connect.settings import Connection
from plexus_detect.doctor.settings import settings_of
from plexus_detect.errors import ConfigError

ROOT = Path(__file__).parents[1]

BUS = "source:\n  kind: kafka\n  brokers: kafka-1:9092,kafka-2:9092\n"


def of(path: Path, text: str) -> Config:
    file = path / "c.yaml"
    file.write_text(text)
    return load_config([file], {"PASSWORD": "hunter2-of-the-bus"})


def test_without_the_sections_everything_is_as_before() -> None:
    """The platform is source and sink, and nothing of Kafka is asked for."""
    config = load_config([], {})
    assert (config.source.kind, config.sink.kind, config.exactly_once) == ("plexus", "plexus", False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source: {kind: kafka}", "source.kind: brokers is missing"),
        ("sink: {kind: kafka}", "sink.kind: brokers is missing"),
        ("source: {topic: x}", "topic means nothing without kind: kafka"),
        ("source: {snapshot_interval: 5s}", "snapshot_interval means nothing without kind: kafka"),
        (BUS + "  topic: a b", "is not the name of a topic"),
        (BUS + "  options: {group.id: other}", "group.id is set by this program"),
        (BUS + "  batch: 0", "batch"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """One sentence that names the key."""
    with pytest.raises(ConfigError, match=said):
        of(tmp_path, text)


@pytest.mark.parametrize(
    ("sink", "exactly"),
    [
        ("{kind: kafka}", True),
        ("{kind: kafka, transactions: false}", False),
        ("{kind: kafka, brokers: elsewhere:9092}", False),
        ("{kind: plexus}", False),
    ],
)
def test_exactly_once_is_within_one_cluster(tmp_path: Path, sink: str, *, exactly: bool) -> None:
    """A transaction spans the offsets and the results only where both are in one cluster."""
    assert of(tmp_path, f"{BUS}sink: {sink}").exactly_once is exactly


def test_secrets_are_shown_nowhere(tmp_path: Path) -> None:
    """Neither in the list of settings nor in what the client library says; they do reach the library."""
    file = tmp_path / "c.yaml"
    file.write_text(
        BUS + "  options: {security.protocol: SASL_SSL, sasl.password: '${PASSWORD}', fetch.min.bytes: 7}\n"
        "sink:\n  kind: kafka\n  options: {ssl.key.password: 'other-secret'}\n"
    )
    config, origins = load_config_with_origins([file], {"PASSWORD": "hunter2-of-the-bus"})
    shown = {s.key: s.value for s in settings_of(config, origins, {})}
    assert not [value for value in shown.values() if "hunter2" in value or "other-secret" in value]
    assert "SASL_SSL" in shown.values()
    assert "7" in shown.values()
    connection = Connection(config)
    assert connection.group()["sasl.password"] == "hunter2-of-the-bus"
    assert connection.writer("sink")["sasl.password"] == "hunter2-of-the-bus"
    assert "fetch.min.bytes" not in connection.writer("sink")
    said = connection.sentence("the password hunter2-of-the-bus is wrong, so is other-secret")
    assert said == "the password *** is wrong, so is ***"


def test_settings_may_stand_in_a_file(tmp_path: Path) -> None:
    """name=value lines are taken over those of the config; a line that is no setting is named by number."""
    secret = tmp_path / "client.properties"
    secret.write_text("# of the cluster\nsasl.username = fleet\nsasl.password=a=b\n\n")
    config = of(tmp_path, f"{BUS}  options_file: {secret}\n")
    found = Connection(config).group()
    assert (found["sasl.username"], found["sasl.password"]) == ("fleet", "a=b")
    assert Connection(config).sentence("no a=b") == "no ***"
    for line, said in (
        ("what\n", "2: this is no setting"),
        ("isolation.level=x\n", "2: isolation.level is set"),
    ):
        secret.write_text("\n" + line)
        with pytest.raises(ConfigError, match=said):
            Connection(config)
    secret.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        Connection(config)


def test_readers_see_committed_messages_and_offsets_are_ours(tmp_path: Path) -> None:
    """Nothing commits by itself; a transactional producer has a name and a bounded time."""
    connection = Connection(of(tmp_path, BUS + "sink: {kind: kafka}\n"))
    for settings in (connection.group(), connection.reader()):
        assert settings["isolation.level"] == "read_committed"
        assert settings["enable.auto.commit"] is False
    writer = connection.writer("sink", "worker-1")
    assert (writer["transactional.id"], writer["enable.idempotence"]) == ("worker-1", True)
    assert writer["message.timeout.ms"] <= writer["transaction.timeout.ms"]
    with_protocol: dict[str, Any] = Connection(
        of(tmp_path, BUS + "  options: {group.protocol: consumer}\n")
    ).group()
    assert not {"session.timeout.ms", "partition.assignment.strategy"} & with_protocol.keys()


def test_every_metric_of_a_stream_is_in_the_readme() -> None:
    """Each name that /metrics shows of a stream worker."""
    registry = CollectorRegistry()
    registry.register(StreamMeters(StreamReport()))
    text = (ROOT / "README.md").read_text()
    names = {line.split()[2] for line in generate_latest(registry).decode().splitlines() if "# TYPE" in line}
    missing = {name for name in names if name.removesuffix("_total") not in text}
    assert not missing


def test_a_schedule_that_trains_nothing_here_is_warned_of(tmp_path: Path) -> None:
    """It learns from the platform's history, which a stream worker does not have."""
    group = "detectors: [{name: machine, kind: autoencoder, metrics: [a, b], retrain: 7d}]\n"
    (said,) = of(tmp_path, BUS + "sink: {kind: kafka}\n" + group).warnings()
    assert said.startswith("detectors.machine.retrain trains from the platform's history and does nothing")
