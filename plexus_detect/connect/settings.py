"""Settings of the client library from ours, and its errors as sentences in which no secret stands."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, libversion

from plexus_detect.config import Config
from plexus_detect.config.connect import OURS, Option, is_plain
from plexus_detect.errors import ConfigError

log = logging.getLogger(__name__)

# The client library speaks here; "warning" and worse are heard.
_LIBRARY = logging.getLogger("plexus_detect.connect.librdkafka")
_LIBRARY.setLevel(logging.CRITICAL)

FILE_BYTES_MAX = 1_000_000

# Of the settings of a consumer a producer to the same cluster needs these, too.
_SHARED = re.compile(r"(ssl|sasl|security|enable\.ssl|enable\.sasl|client|broker|socket|reconnect|https)\..*")

# A worker that was killed is missed after so long; with the library's 45 s its partitions would wait longer.
SESSION_MS = 10_000

# A transaction takes as long as writing one batch; one whose worker was killed holds up readers until this.
TRANSACTION_MS = 10_000

# Versions of librdkafka from here on know the setting metadata.recovery.strategy.
_REBOOTSTRAPS = 0x020B0000

_BASE: Mapping[str, Any] = {
    "client.id": "plexus-detect",
    "socket.keepalive.enable": True,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 2_000,
    "log.connection.close": False,
}


# Errors that no request comes back with, and that a person has to know.
_TROUBLES = (
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 - the library's names of its own codes
    KafkaError._AUTHENTICATION,  # noqa: SLF001
    KafkaError._SSL,  # noqa: SLF001
    KafkaError._RESOLVE,  # noqa: SLF001
)


def is_trouble(error: KafkaError) -> bool:
    """Whether what the library tells by the way is worth telling."""
    return error.fatal() or error.code() in _TROUBLES


class Connection:
    """The settings of consumers and producers for a configuration. Raises ConfigError for a bad file."""

    def __init__(self, config: Config) -> None:
        self._source, self._sink = config.source, config.sink
        self._of_source = {**config.source.options, **_read(config.source.options_file, "source")}
        self._of_sink = {**config.sink.options, **_read(config.sink.options_file, "sink")}
        self._secrets = [
            str(value)
            for options in (self._of_source, self._of_sink)
            for name, value in options.items()
            if not is_plain(name, value) and value
        ]

    def group(self) -> dict[str, Any]:
        """Of the consumer that is a member of the group."""
        own: dict[str, Any] = {
            **self._reader(),
            "group.id": self._source.group,
            "auto.offset.reset": self._source.start,
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": SESSION_MS // 4,
            "max.poll.interval.ms": 300_000,
            # Only what moves stops: the others keep their state and go on.
            "partition.assignment.strategy": "cooperative-sticky",
        }
        if self._of_source.get("group.protocol") == "consumer":
            for name in ("session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"):
                own.pop(name)
        return own | self._of_source

    def reader(self) -> dict[str, Any]:
        """Of a consumer of our own topics that is no member."""
        mine = {name: value for name, value in self._of_source.items() if _SHARED.fullmatch(name)}
        return self._reader() | {"group.id": f"{self._source.group}-state", **mine}

    def _reader(self) -> dict[str, Any]:
        return {
            **_BASE,
            "bootstrap.servers": self._source.brokers,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "logger": _LIBRARY,
        }

    def admin(self, end: str = "source") -> dict[str, Any]:
        """Of a client that asks for topics, and makes some."""
        given = self._of_source if end == "source" else {**self._of_source, **self._of_sink}
        mine = {name: value for name, value in given.items() if _SHARED.fullmatch(name)}
        return {**_BASE, "bootstrap.servers": self._brokers(end), "logger": _LIBRARY, **mine}

    def _brokers(self, end: str) -> str | None:
        return self._source.brokers if end == "source" else self._sink.brokers or self._source.brokers

    def writer(self, end: str, transactional_id: str | None = None) -> dict[str, Any]:
        """Of a producer to the cluster of the source or the sink."""
        shared = {name: value for name, value in self._of_source.items() if _SHARED.fullmatch(name)}
        own = {} if end == "source" else self._of_sink
        found = {
            **_BASE,
            "bootstrap.servers": self._brokers(end),
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            "message.timeout.ms": 30_000,
            "logger": _LIBRARY,
            **shared,
            **own,
        }
        if transactional_id is not None:
            found |= {"transactional.id": transactional_id, "transaction.timeout.ms": TRANSACTION_MS}
            if libversion()[1] >= _REBOOTSTRAPS:
                # When no broker answers for a moment the library begins anew from the first addresses, and a
                # call within a transaction then waits for a coordinator for ever (seen with 2.16).
                found.setdefault("metadata.recovery.strategy", "none")
            found["message.timeout.ms"] = min(int(found["message.timeout.ms"]), TRANSACTION_MS)
        return found

    def sentence(self, error: object) -> str:
        """What the client library says, without the secrets it was given."""
        if isinstance(error, KafkaException) and error.args:
            error = error.args[0]
        text = error.str() if isinstance(error, KafkaError) else str(error)
        name = f" ({error.name()})" if isinstance(error, KafkaError) else ""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return f"{text}{name}"

    def refused(self, error: object, end: str) -> ConfigError:
        """The client library does not take the settings."""
        return ConfigError(f"{end}.options: {self.sentence(error)}; see the settings of librdkafka")


def _read(path: Path | None, end: str) -> dict[str, Option]:
    """Settings of a file: name=value lines, # for comments. Raises ConfigError."""
    if path is None:
        return {}
    try:
        with path.open("rb") as opened:
            lines = opened.read(FILE_BYTES_MAX).decode().splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(
            f"{end}.options_file: {path} cannot be read ({reason}); check the path and its rights"
        ) from None
    return dict(_pairs(lines, f"{end}.options_file: {path}"))


def _pairs(lines: Iterable[str], where: str) -> Iterable[tuple[str, Option]]:
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise ConfigError(f"{where}:{number}: this is no setting; write name=value")
        if name in OURS:
            raise ConfigError(f"{where}:{number}: {name} is set by this program; remove it")
        yield name, value.strip()
