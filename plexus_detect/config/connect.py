"""Where readings come from and where results go: the platform, or the topics of a Kafka cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from plexus_detect.config.mapping import SourceMapping
from plexus_detect.config.values import Duration, FilePath, Number, Section, Word, mistake

Option = bool | int | float | str

# What the program sets itself: with another value its guarantees would not hold.
OURS = frozenset(
    {
        "bootstrap.servers",
        "metadata.broker.list",
        "group.id",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "isolation.level",
        "enable.idempotence",
        "transactional.id",
        "enable.partition.eof",
        "partition.assignment.strategy",
    }
)

# Options whose values may be shown; numbers and switches may, too. All others may be secrets.
_PLAIN = re.compile(
    r"security\.protocol|sasl\.mechanisms?|client\.(id|rack)|group\.(instance\.id|protocol|remote\.assignor)|"
    r"compression\.(type|codec)|ssl\.(ca|certificate|key|keystore)\.location|"
    r"ssl\.endpoint\.identification\.algorithm|debug|broker\.address\.family"
)

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)


def is_plain(option: str, value: object) -> bool:
    """Whether the value of a setting of the client library may be shown."""
    return not isinstance(value, str) or _PLAIN.fullmatch(option) is not None


def _topic(name: str) -> str:
    """The name of a topic; raises a mistake."""
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise mistake("{value} is not the name of a topic", "use 1 to 249 letters, digits, dots, _ and -")
    return name


def _options(given: dict[str, Option]) -> dict[str, Option]:
    """Settings of the client library, without those that are set here; raises a mistake."""
    for name in given:
        if name in OURS:
            raise mistake(f"{name} is set by this program", "remove it; see the other keys of this section")
    return given


Topic = Annotated[str, AfterValidator(_topic)]
Options = Annotated[dict[str, Option], AfterValidator(_options)]


class _Bus(Section):
    """What the ends of a bus share: keys that mean something only with ``kind: kafka``."""

    @model_validator(mode="after")
    def _fits(self) -> _Bus:
        fields = type(self).model_fields
        given = [
            key
            for key in self.model_fields_set
            if getattr(self, key) != fields[key].get_default(call_default_factory=True)
        ]
        if getattr(self, "kind", None) == "plexus" and given:
            key = min(fields[name].alias or name for name in given)
            raise mistake(f"{key} means nothing without kind: kafka", "write kind: kafka", keys=(key,))
        return self


class SourceConfig(_Bus):
    """Where readings come from."""

    kind: Annotated[Literal["plexus", "kafka"], Word] = Field(
        default="plexus", description="Where readings come from: the platform, or a topic of Kafka."
    )
    brokers: str | None = Field(
        default=None, description="Kafka: brokers to begin with, as host:port, with commas between them."
    )
    topic: Topic = Field(default="sensor-readings", description="Kafka: the topic that is read.")
    group: Topic = Field(
        default="plexus-detect", description="Kafka: the group; its workers share the partitions."
    )
    start: Annotated[Literal["earliest", "latest"], Word] = Field(
        default="earliest", description="Kafka: where a group begins that has committed nothing yet."
    )
    batch: Annotated[int, Field(ge=1, le=100_000), Number] = Field(
        default=5000, description="Kafka: messages that are scored and committed together at most."
    )
    linger_ms: Annotated[int, Duration("1ms", "10s")] = Field(
        default=50, alias="linger", description="Kafka: how long a batch may wait to fill."
    )
    max_ahead_ms: Annotated[int, Duration("1s", "365d")] = Field(
        default=300_000,
        alias="max_ahead",
        description="Kafka: a sample further ahead of its message's own time is rejected.",
    )
    snapshot_interval_ms: Annotated[int, Duration("1s", "1h")] = Field(
        default=30_000,
        alias="snapshot_interval",
        description="Kafka: time between two snapshots of a partition's state.",
    )
    warmup: Annotated[int, Field(ge=0, le=100_000_000), Number] = Field(
        default=100_000,
        description="Kafka: older messages of a partition that are learned from where no snapshot fits.",
    )
    dead_letter_topic: Topic | None = Field(
        default=None,
        description="Kafka: where unusable messages go. Default: the topic with .dead behind it.",
    )
    mapping: SourceMapping = Field(
        default_factory=SourceMapping, description="Kafka: where in a message what stands."
    )
    options: Options = Field(
        default_factory=dict, description="Kafka: any settings of librdkafka, such as those of TLS and SASL."
    )
    options_file: FilePath | None = Field(
        default=None, description="Kafka: a file of such settings, name=value a line: for secrets."
    )

    @model_validator(mode="after")
    def _reachable(self) -> SourceConfig:
        if self.kind == "kafka" and not self.brokers:
            raise mistake("brokers is missing", "write brokers: host:9092", keys=("kind",))
        return self

    @property
    def dead_letters(self) -> str:
        """The topic of unusable messages."""
        return self.dead_letter_topic or f"{self.topic}.dead"


class SinkConfig(_Bus):
    """Where results go."""

    kind: Annotated[Literal["plexus", "kafka"], Word] = Field(
        default="plexus", description="Where results go: to the platform as scores, or to Kafka as alerts."
    )
    brokers: str | None = Field(default=None, description="Kafka: brokers. Default: those of source.")
    topic: Topic = Field(default="anomaly-alerts", description="Kafka: the topic of alerts.")
    scores_topic: Topic | None = Field(
        default=None, description="Kafka: a topic for all scores, too. Default: none."
    )
    transactions: bool = Field(
        default=True,
        description="Kafka to Kafka: results and offsets in one transaction, exactly once; else at least.",
    )
    transactional_id: Topic | None = Field(
        default=None, description="Kafka: one name for each worker that stays. Default: a new one each start."
    )
    cooldown_ms: Annotated[int, Duration("0s", "30d")] = Field(
        default=60_000,
        alias="cooldown",
        description="Kafka: least time between two alerts of one series and kind, in the time of samples.",
    )
    options: Options = Field(
        default_factory=dict,
        description="Kafka: settings of librdkafka; those of security are taken over from source.",
    )
    options_file: FilePath | None = Field(
        default=None, description="Kafka: a file of such settings, name=value a line: for secrets."
    )


def shown(options: Mapping[str, Option]) -> dict[str, Option]:
    """Settings with everything hidden that may be a secret."""
    return {name: value if is_plain(name, value) else "***" for name, value in options.items()}
