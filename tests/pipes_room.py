"""Real brokers on loopback, and what a test sends to their streams and reads from them."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import confluent_kafka as kafka
import nats
import numpy as np
import pytest
from learn_data import MOTOR, motor
from pipes_core import KEY, USER, FakeCore, stream_of
from streampipes.functions.broker.broker_handler import SupportedBroker
from streampipes.model.resource import DataStream

from plexus_detect.config import Config, load_config
from plexus_detect.streampipes.service import Service

DEVICES = ("press-1", "press-2")
ENV = {"SP_USERNAME": USER, "SP_API_KEY": KEY}
COLUMNS = {"device": "string", **dict.fromkeys(MOTOR, "double")}
NATS_SERVER = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")

needs_nats = pytest.mark.skipif(NATS_SERVER is None, reason="nats-server is not installed (apt)")

CONFIG = """
streampipes:
  host: 127.0.0.1
  port: {port}
  measure: presses
  streams: [presses]
  device: device
  linger: 5ms
state: {{path: "{folder}/s.db"}}
detectors:
  - {{name: motor, metrics: [vibration, current, temperature], scope: cohort, backend: isolation_forest,
      contamination: 0.01, window_size: 4000, span: 0s}}
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def until(met: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def events(seed: int, n: int, t0: int, broken: Sequence[int] = ()) -> list[dict[str, object]]:
    """n rows of a motor, a second apart, of two devices by turns; in those that are ``broken`` the current
    goes far beyond what it ever was."""
    x, _ = motor(seed, n)
    x[list(broken), 1] = 60.0
    return [
        {"timestamp": t0 + 1000 * i, "device": DEVICES[i % 2], **dict(zip(MOTOR, row, strict=True))}
        for i, row in enumerate(np.round(x, 6).tolist())
    ]


def lake(core: FakeCore, n: int, now_ms: int) -> None:
    """A measure of n rows of the two devices, an hour back and before."""
    past = events(1, n, now_ms - 3_600_000 - 1000 * n)
    rows = [[event["timestamp"], event["device"], *(event[name] for name in MOTOR)] for event in past]
    core.measures["presses"] = (["time", "device", *MOTOR], rows)


def settings(folder: Path, port: int, **pipes: str) -> Config:
    """The configuration, written into a folder and loaded; with other settings of the section streampipes."""
    (folder / "c.yaml").write_text(CONFIG.format(port=port, folder=folder))
    env = {f"PLEXUS_DETECT_STREAMPIPES__{key}".upper(): value for key, value in pipes.items()}
    return load_config([folder / "c.yaml"], env)


class Nats:
    """``nats-server`` on a port of its own, which it keeps when it is started again."""

    kind = SupportedBroker.NATS

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._got: list[dict[str, Any]] = []
        self._client: Any = None
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert NATS_SERVER
        command = [NATS_SERVER, "-a", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._answers, "nats-server answers")

    def _answers(self) -> bool:
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """Kill it."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def listen(self, topic: str) -> list[dict[str, Any]]:
        """A list to which everything published from now on is added."""
        self._do(self._listen(topic))
        return self._got

    async def _listen(self, topic: str) -> None:
        if self._client is not None:
            await self._client.close()
        self._client = await nats.connect(f"nats://127.0.0.1:{self.port}", allow_reconnect=False)

        async def took(message: Any) -> None:
            self._got.append(json.loads(message.data))

        await self._client.subscribe(topic, cb=took)
        await self._client.flush()

    def send(self, topic: str, payloads: Sequence[bytes]) -> None:
        """Publish and wait until the server has it."""
        self._do(self._send(topic, payloads))

    async def _send(self, topic: str, payloads: Sequence[bytes]) -> None:
        for payload in payloads:
            await self._client.publish(topic, payload)
        await self._client.flush()

    def close(self) -> None:
        """End everything."""
        if self._client is not None:
            self._do(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.kill()


class Kafka:
    """librdkafka's own broker, in this process."""

    kind = SupportedBroker.KAFKA

    def __init__(self, port: int = 0) -> None:
        own = {"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 1, "log_level": 0}
        self._cluster = kafka.Producer(own)
        self.port = port or next(iter(self._cluster.list_topics(timeout=5).brokers.values())).port
        self._producer = kafka.Producer({"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 0})
        self._got: list[dict[str, Any]] = []
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def listen(self, topic: str) -> list[dict[str, Any]]:
        """A list to which everything that is in the topic, and comes into it, is added."""
        self._producer.list_topics(topic, timeout=5)
        self._thread = threading.Thread(target=self._listen, args=(topic,))
        self._thread.start()
        return self._got

    def _listen(self, topic: str) -> None:
        consumer = kafka.Consumer(
            {
                "bootstrap.servers": f"127.0.0.1:{self.port}",
                "group.id": "test",
                "log_level": 0,
                "fetch.wait.max.ms": 5,
            }
        )
        partitions = consumer.list_topics(topic, timeout=5).topics[topic].partitions
        consumer.assign([kafka.TopicPartition(topic, number, 0) for number in partitions])
        while not self._done.is_set():
            for message in consumer.consume(1000, 0.02):
                if message.error() is None:
                    self._got.append(json.loads(message.value()))
        consumer.close()

    def send(self, topic: str, payloads: Sequence[bytes]) -> None:
        """Publish and wait until the broker has it; all into one partition, so that the order stays."""
        for payload in payloads:
            self._producer.produce(topic, payload, partition=0)
        assert self._producer.flush(10) == 0

    def close(self) -> None:
        """End everything."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()


class Running:
    """A service in a thread of its own, as the command runs it."""

    def __init__(self, config: Config) -> None:
        self.service = Service(config, ENV)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            await self.service.run(self._stop)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Self:
        """Started, and reading events."""
        self._thread.start()
        until(lambda: self.service.running or not self._thread.is_alive(), "the function runs")
        if self.error is not None:
            raise self.error
        return self

    def __exit__(self, *_: object) -> None:
        """Stopped, with its threads."""
        assert self._loop
        assert self._stop
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()


def topic_of(stream: DataStream) -> str:
    """Where a stream's events are."""
    return str(stream.event_grounding.transport_protocols[0].topic_definition.actual_topic_name)


def presses(core: FakeCore, broker: Nats | Kafka) -> str:
    """The stream of the presses on a broker; its topic."""
    return topic_of(core.add(stream_of("presses", COLUMNS, broker.kind, broker.port)))


OUTPUT_TOPIC = "org.apache.streampipes.connect.plexus-detect-anomalies"
