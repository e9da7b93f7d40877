"""Results as records of topics: alerts, scores and dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from plexus_detect.connect.protocol import Result
from plexus_detect.stream.alerts import Alert
from plexus_detect.stream.rejects import Reject

# Of a dead letter's value so much is kept, which is what a broker takes by default with room for headers.
DEAD_BYTES_MAX = 900_000
# A message that was refused for its size was looked at for its size only: a part tells which it was.
TOO_LARGE_BYTES_KEPT = 65_536

_ENCODER = msgspec.json.Encoder()

Headers = list[tuple[str, bytes]]


class Record(NamedTuple):
    """What is produced: ``partition`` None lets the key decide."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int | None = None


class Topics(NamedTuple):
    """The names of the topics; ``scores`` None: no scores are written."""

    source: str
    alerts: str
    scores: str | None
    dead: str


def records_of(result: Result, topics: Topics) -> Iterator[Record]:
    """Everything that one partition's result writes, in order."""
    for alert in result.output.alerts:
        yield alert_record(alert, topics.alerts)
    if topics.scores is not None:
        yield from score_records(result, topics.scores)
    yield from dead_records(result, topics)


def alert_record(alert: Alert, topic: str) -> Record:
    """An alert, keyed by its device; readers that must not count twice compare the header id."""
    headers = [
        ("id", alert.id.encode()),
        ("metric", alert.metric.encode()),
        ("kind", alert.kind.encode()),
        ("severity", alert.severity.encode()),
    ]
    return Record(topic, alert.device.encode(), alert.encode(), headers)


def score_records(result: Result, topic: str) -> Iterator[Record]:
    """Scores, one a record, under the names that the platform would show them by."""
    rows = result.output.derived
    columns = zip(rows.source, rows.metric, rows.t_ms.tolist(), rows.value.tolist(), strict=True)
    for row in columns:
        yield score_record(topic, *row)


def score_record(topic: str, source: str, metric: str, t_ms: int, value: float) -> Record:
    """A score, keyed by its device."""
    row = {"timestamp": t_ms / 1000, "device": source, "metric": metric, "value": value}
    return Record(topic, source.encode(), _ENCODER.encode(row), [])


def dead_records(result: Result, topics: Topics) -> Iterator[Record]:
    """Rejected messages as they came, with the reason and where they stood."""
    for reject in result.output.rejected:
        value, key = result.batch.values[reject.at], result.batch.keys[reject.at]
        yield dead_record(reject, (topics.source, result.partition), (key, value), topics.dead)


def dead_record(
    reject: Reject, place: tuple[str, int], said: tuple[bytes | None, bytes | None], topic: str
) -> Record:
    """A rejected message; of one that is too large for a broker the beginning."""
    key, value = said
    kept = TOO_LARGE_BYTES_KEPT if reject.reason == "too_large" else DEAD_BYTES_MAX
    headers = [
        ("reason", reject.reason.encode()),
        ("text", reject.text.encode()),
        ("topic", place[0].encode()),
        ("partition", str(place[1]).encode()),
        ("offset", str(reject.offset).encode()),
    ]
    if value is not None and len(value) > kept:
        headers.append(("truncated_from", str(len(value)).encode()))
        value = value[:kept]
    if key is not None and len(key) > TOO_LARGE_BYTES_KEPT:
        key = key[:TOO_LARGE_BYTES_KEPT]
    return Record(topic, key, value, headers)
