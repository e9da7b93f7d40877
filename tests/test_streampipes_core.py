"""What a core is asked, what is said when it answers otherwise, and that its key stays where it belongs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pipes_core import KEY, USER, FakeCore, stream_of
from pipes_room import COLUMNS, ENV, Kafka, free_port, lake, settings
from streampipes.functions.broker.broker_handler import SupportedBroker
from streampipes.model.common import EventProperty

from plexus_detect.config import load_config
from plexus_detect.errors import ApiError, AuthError, ConfigError, ContractError, TransientError
from plexus_detect.streampipes import command
from plexus_detect.streampipes.brokers import Reach
from plexus_detect.streampipes.connection import Core, credentials
from plexus_detect.streampipes.function import timestamp_of
from plexus_detect.streampipes.kafkabroker import KafkaInlet
from plexus_detect.streampipes.service import Service


@pytest.fixture(name="core")
def _core() -> Iterator[FakeCore]:
    """A core with one measure and two streams."""
    core = FakeCore()
    with core.served():
        lake(core, 50, int(time.time() * 1000))
        core.add(stream_of("presses", COLUMNS, SupportedBroker.NATS, 1))
        other = core.add(stream_of("drills", COLUMNS, SupportedBroker.NATS, 1))
        protocol = other.event_grounding.transport_protocols[0]
        protocol.class_name = "org.apache.streampipes.model.grounding.MqttTransportProtocol"
        yield core


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)


@contextmanager
def connected(core: FakeCore, folder: Path) -> Iterator[Core]:
    """A connection with the ordinary settings."""
    with closing(Core.of(settings(folder, core.port), ENV)) as found:
        yield found


def test_what_there_is(core: FakeCore, tmp_path: Path) -> None:
    """Version, measures and streams as the client's models have them; a stream is found by name or id."""
    with connected(core, tmp_path) as found:
        assert found.version == "0.98.0"
        assert list(found.measures()) == ["presses"]
        assert [stream.name for stream in found.chosen()] == ["presses"]
    assert core.seen[0] == "GET /streampipes-backend/api/v2/info/versions"


def test_the_output_is_on_the_broker_of_the_input_or_as_it_is_there(core: FakeCore, tmp_path: Path) -> None:
    """A new stream has the host and port of the one that is read, and the properties that are published; one
    of that name that is there already is used as it is."""
    consumed = core.add(stream_of("mills", COLUMNS, SupportedBroker.KAFKA, 9093))
    with connected(core, tmp_path) as found:
        output = found.output(consumed)
    protocol = output.event_grounding.transport_protocols[0]
    assert (protocol.broker_hostname, protocol.port) == ("127.0.0.1", 9093)
    assert "Kafka" in protocol.class_name
    names = [p.runtime_name for p in output.event_schema.event_properties]
    assert names == ["timestamp", "device", "is_anomaly", "score", "severity", "reason", "in_episode"]
    protocol.port = 9094
    core.add(output)
    with connected(core, tmp_path) as found:
        assert found.output(consumed).event_grounding.transport_protocols[0].port == 9094


def test_the_time_is_where_the_schema_says() -> None:
    """By the meaning of the property, else by its part of the event, else under the usual name."""
    stream = stream_of("mills", COLUMNS, SupportedBroker.NATS, 1)
    assert timestamp_of(stream) == "timestamp"
    properties = stream.event_schema.event_properties
    properties[0].semantic_type = None
    properties.append(EventProperty(runtime_name="at", semantic_type="http://schema.org/DateTime"))
    assert timestamp_of(stream) == "at"
    properties.clear()
    assert timestamp_of(stream) == "timestamp"


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        ((401, {}), AuthError, "refused user and API key .401."),
        ((403, {}), AuthError, "refused user and API key .403."),
        ((500, {}), TransientError, "answered 500"),
        ((503, {}), TransientError, "answered 503"),
        ((429, {}), TransientError, "answered 429"),
        ((418, {}), ApiError, "refused a request .418."),
        ((404, {}), ConfigError, "does not know its version .404.; check host and port"),
        ((302, {"Location": "http://127.0.0.1:1/elsewhere"}), ConfigError, "redirects elsewhere"),
        ((200, {}), ContractError, "answered no JSON for its version"),
    ],
)
def test_answers_that_no_client_goes_on_with(
    core: FakeCore, tmp_path: Path, answer: tuple[int, dict[str, str]], error: type[Exception], says: str
) -> None:
    """Each is one of our errors with one sentence, in which the key that the core echoes is not."""
    code, headers = answer
    core.answers.append((code, headers, f"<h1>{KEY}</h1>".encode()))
    with pytest.raises(error, match=says) as raised, connected(core, tmp_path):
        pass
    assert KEY not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_who_does_not_answer(tmp_path: Path) -> None:
    """A port where nobody listens, and a server that speaks no TLS."""
    core = FakeCore()
    core.port = free_port()
    says = r"does not answer \(Connection refused\); check host and port"
    with pytest.raises(TransientError, match=says), connected(core, tmp_path):
        pass
    with core.served(), pytest.raises(ConfigError, match="cannot be trusted"):
        Core.of(load_config([tmp_path / "c.yaml"], {"PLEXUS_DETECT_STREAMPIPES__HTTPS": "true"}), ENV)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("STREAMS", '["press"]', "there is no data stream 'press'; did you mean 'presses'"),
        ("STREAMS", "[]", "no stream is named"),
        ("STREAMS", '["drills"]', "a broker that its client does not speak .MqttTransportProtocol."),
        ("HOST", "http://here", "is not a host"),
        ("API_KEY", "x", "unknown environment variable"),
    ],
)
def test_settings_that_cannot_be(
    core: FakeCore, tmp_path: Path, variable: str, value: str, says: str
) -> None:
    """The function says at its start what is wrong, and does not try again."""
    settings(tmp_path, core.port)
    env = {f"PLEXUS_DETECT_STREAMPIPES__{variable}": value}
    with pytest.raises(ConfigError, match=says):
        asyncio.run(Service(load_config([tmp_path / "c.yaml"], env), ENV).run(asyncio.Event()))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["other"], "detectors has no entry 'other'"),
        (["motor", "--measure", "preses"], "has no measure 'preses'; did you mean 'presses'"),
        (["motor", "--from", "soon"], "--from: 'soon' is no time"),
        (["motor", "--from", "1s"], "has no rows in that span"),
        (["motor", "--from", "now"], "it is not before --to"),
    ],
)
def test_training_that_cannot_be(core: FakeCore, tmp_path: Path, options: list[str], says: str) -> None:
    """Each is one sentence that names the option."""
    settings(tmp_path, core.port)
    with pytest.raises(ConfigError, match=says):
        command.train.main([*options, "-c", str(tmp_path / "c.yaml")], standalone_mode=False)


def test_a_metric_that_no_row_has(core: FakeCore, tmp_path: Path) -> None:
    """A property of another name is told by the metric, and where to say which it is."""
    settings(tmp_path, core.port)
    header, rows = core.measures["presses"]
    core.measures["presses"] = (["vib" if name == "vibration" else name for name in header], rows)
    with pytest.raises(ConfigError, match="no row of 'presses' has a number for vibration"):
        command.train.main(["motor", "-c", str(tmp_path / "c.yaml")], standalone_mode=False)


def test_user_and_key(tmp_path: Path) -> None:
    """From the environment as the client reads them, or from settings and a file; what no header can hold is
    refused, and never shown."""
    file = tmp_path / "key"
    file.write_text(f" {KEY}\n")
    pipes = f"\nplexus: {{}}\nstreampipes: {{user: {USER}, api_key_file: {file}}}\n"
    (tmp_path / "k.yaml").write_text(pipes)
    read = load_config([tmp_path / "k.yaml"], {}).streampipes
    assert credentials(read, {}) == (USER, KEY)
    assert credentials(read, {"SP_API_KEY": "another"}) == (USER, "another")
    for content, says in (
        (b"", "is empty"),
        (b"a\nb", "characters that no key"),
        (b"\xff", "cannot be read"),
    ):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=says) as raised:
            credentials(read, {})
        assert "a\nb" not in str(raised.value)
    with pytest.raises(ConfigError, match="set it, or SP_USERNAME"):
        credentials(load_config([], {}).streampipes, {})


def test_the_client_is_quiet(
    core: FakeCore, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It neither prints nor sets up a log of its own, and what it logs at its most talkative has no key."""
    caplog.set_level("DEBUG")
    handlers = logging.getLogger().handlers[:]
    with connected(core, tmp_path) as found:
        found.measures()
        core.answers.append((404, {}, b"{}"))
        with pytest.raises(ConfigError):
            found.streams()
    assert logging.getLogger().handlers == handlers
    out = capfd.readouterr()
    assert out.out == ""
    assert KEY not in out.err + caplog.text


def test_what_was_judged_is_read_once_in_a_process_and_again_in_the_next() -> None:
    """Kafka: a later connection of this process goes on after what was judged although its results were not
    published; another process, which has no such results, reads it again; a topic that was made anew is read
    from its end on."""
    broker = Kafka()
    stream = stream_of("presses", COLUMNS, SupportedBroker.KAFKA, broker.port)
    topic = stream.event_grounding.transport_protocols[0].topic_definition.actual_topic_name

    async def received(reach: Reach, *, judged: bool = False, done: bool = False) -> list[bytes]:
        inlet, out = KafkaInlet(reach), list[bytes]()
        await inlet.connect(stream)
        if not reach.positions and not judged and not done:
            broker.send(topic, [b"1", b"2"])
        for _ in range(4):
            out += await inlet.receive(10, 0.01)
            if out:
                break
        if judged:
            inlet.judged()
        if done:
            await inlet.commit()
        await inlet.disconnect()
        return out

    reach = Reach(group="one")
    assert asyncio.run(received(reach)) == [b"1", b"2"]
    assert asyncio.run(received(reach, judged=True)) == [b"1", b"2"]
    assert asyncio.run(received(reach)) == []
    assert asyncio.run(received(Reach(group="one"), done=True)) == [b"1", b"2"]
    assert asyncio.run(received(Reach(group="one", positions={topic: {0: 99}}))) == []
