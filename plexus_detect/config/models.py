"""The settings: one frozen model a section, validated once, so that no room has to check again.

A duration is an ``int`` of milliseconds whose attribute ends in ``_ms``; its key in a file has no unit,
because the value brings its own (``interval: 5s`` is ``poll.interval_ms == 5000``).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator

from plexus_detect.config.connect import SinkConfig, SourceConfig
from plexus_detect.config.detectors import DetectorConfig
from plexus_detect.config.exposure import unprotected
from plexus_detect.config.monitors import MonitorsConfig
from plexus_detect.config.rules import DetectConfig, FleetConfig, MetricConfig, SeriesRule
from plexus_detect.config.streampipes import StreamPipesConfig
from plexus_detect.config.values import (
    Duration,
    FilePath,
    Glob,
    Number,
    Section,
    Slug,
    Unique,
    Url,
    Word,
    mistake,
)
from plexus_detect.errors import ConfigError

APP_URL = "https://app.plexus.company"
GATEWAY_URL = "https://gateway.plexus.company"
API_URL = "https://api.plexus.company"


def _known_version(version: int) -> int:
    if version != 1:
        raise mistake("this program does not read version {value}", "write version: 1")
    return version


def _listens(text: str) -> str:
    """host:port with a port from 1 to 65535, or the word off."""
    host, _, port = text.rpartition(":")
    if text != "off" and not (host and port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
        raise mistake(
            "{value} is not an address to listen on", "write host:port, such as 0.0.0.0:9090, or off"
        )
    return text


Version = Annotated[int, Number, AfterValidator(_known_version)]
PostName = Annotated[
    Literal[
        "zscore",
        "fleet_zscore",
        "zscore_raw",
        "fleet_zscore_raw",
        "expected",
        "lower",
        "upper",
        "drift",
        "stuck",
        "fleet_event",
        "anomaly",
        "zscore_late",
        "zscore_critical",
    ],
    Word,
]


class PlexusConfig(Section):
    """The platform: its three addresses and the key."""

    api_key: SecretStr | None = Field(
        default=None, description="The API key (plx_...). Better: set PLEXUS_API_KEY, or api_key_file."
    )
    api_key_file: FilePath | None = Field(
        default=None, description="A file that holds the API key and nothing else."
    )
    endpoint: Url = Field(default=APP_URL, description="The app. Environment: PLEXUS_ENDPOINT.")
    gateway_url: Url = Field(
        default=GATEWAY_URL, description="Where points are posted. Environment: PLEXUS_GATEWAY_URL."
    )
    api_url: Url = Field(default=API_URL, description="The read API. Environment: PLEXUS_API_URL.")
    timeout_ms: Annotated[int, Duration("1s", "300s")] = Field(
        default=30_000, alias="timeout", description="How long one request may take."
    )
    concurrency: Annotated[int, Field(ge=1, le=32), Number] = Field(
        default=4, description="Requests under way at once."
    )
    requests_per_s: Annotated[int, Field(ge=1, le=1000), Number] = Field(
        default=20, description="Requests a second in the long run, of all kinds; ten seconds' worth at once."
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="A file of certificates (PEM) to trust instead of the usual ones.",
    )


class PollConfig(Section):
    """How often and how far back points are read."""

    interval_ms: Annotated[int, Duration("100ms", "1h")] = Field(
        default=5000, alias="interval", description="Time between two polls."
    )
    overlap_ms: Annotated[int, Duration("0s", "1h")] = Field(
        default=10_000,
        alias="overlap",
        description="Read this far behind the newest point again, for late ones.",
    )
    settle_ms: Annotated[int, Duration("0s", "5m")] = Field(
        default=0, alias="settle", description="Leave points alone until they are this old."
    )
    discovery_interval_ms: Annotated[int, Duration("1s", "1d")] = Field(
        default=60_000,
        alias="discovery_interval",
        description="Time between two looks for new sources and metrics.",
    )
    history_ms: Annotated[int, Duration("1m", "365d")] = Field(
        default=14 * 86_400_000, alias="history", description="How far back the warm-up may read."
    )
    catchup_max_ms: Annotated[int, Duration("1m", "365d")] = Field(
        default=6 * 3_600_000,
        alias="catchup_max",
        description="After a longer outage the gap is skipped, and said so.",
    )
    limit: Annotated[int, Field(ge=1, le=100_000), Number] = Field(
        default=100_000, description="Rows asked for in one request."
    )
    pages_max: Annotated[int, Field(ge=1, le=10_000), Number] = Field(
        default=64, description="Requests that one poll may need."
    )


class PostConfig(Section):
    """Which scores are posted to the platform, and how."""

    series: Annotated[tuple[PostName, ...], Unique] = Field(
        default=("zscore", "fleet_zscore", "anomaly", "zscore_late"),
        description="Which series are posted beside each metric, and for each of detectors.",
    )
    max_alert_age_ms: Annotated[int, Duration("1s", "3650d")] = Field(
        default=120_000,
        alias="max_alert_age",
        description="Older scores go to no monitored name: they would page people now. See zscore_late.",
    )
    batch_points_max: Annotated[int, Field(ge=1, le=10_000), Number] = Field(
        default=10_000, description="Points in one request."
    )


class StateConfig(Section):
    """What is kept between two runs."""

    path: FilePath = Field(
        default=Path("plexus-detect.db"), description="The SQLite file of cursors, snapshots and outbox."
    )
    models: FilePath | None = Field(
        default=None,
        description="Folder of learned models and their versions. Default: as path, ending in .models.",
    )
    snapshot_interval_ms: Annotated[int, Duration("100ms", "1d")] = Field(
        default=300_000, alias="snapshot_interval", description="Time between two snapshots of the detectors."
    )
    outbox_points_max: Annotated[int, Field(ge=1, le=100_000_000), Number] = Field(
        default=1_000_000, description="Scores kept while the platform takes none."
    )
    series_max: Annotated[int, Field(ge=1, le=10_000_000), Number] = Field(
        default=100_000,
        description="Series that are watched at most: this bounds memory. Others are refused.",
    )
    expire_after_ms: Annotated[int, Duration("1h", "3650d")] = Field(
        default=30 * 86_400_000,
        alias="expire_after",
        description="A series without a sample for so long is forgotten.",
    )


class HeartbeatConfig(Section):
    """The worker's own sign of life, on a source of its own."""

    enabled: bool = Field(
        default=True,
        description="Post a sign of life while polls succeed; an offline monitor tells when it ends.",
    )
    source: Slug = Field(
        default="plexus-detect",
        description="The source it is posted under, one a worker; it is never scored.",
    )
    interval_ms: Annotated[int, Duration("1s", "1h")] = Field(
        default=60_000, alias="interval", description="Time between two signs of life."
    )


class HealthConfig(Section):
    """How the worker is seen from outside, and how it leaves."""

    listen: Annotated[str, AfterValidator(_listens)] = Field(
        default="127.0.0.1:9090",
        description="Address of /metrics, /livez and /readyz, as host:port; off: none.",
    )
    stop_within_ms: Annotated[int, Duration("1s", "5m")] = Field(
        default=10_000, alias="stop_within", description="A worker that is asked to stop has left by then."
    )


class LogConfig(Section):
    """The log on standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Word] = Field(
        default="info", description="The least important events that are shown."
    )
    format: Annotated[Literal["logfmt", "json", "text"], Word] = Field(
        default="logfmt", description="How a line looks."
    )


def _default_rules() -> tuple[SeriesRule, ...]:
    return (SeriesRule(name="series-0"),)


class Config(Section):
    """All settings. Build one with ``load_config``."""

    version: Version = Field(default=1, description="The version of this file's format.")
    plexus: PlexusConfig = Field(default_factory=PlexusConfig, description="The platform and the key.")
    source: SourceConfig = Field(default_factory=SourceConfig, description="Where readings come from.")
    sink: SinkConfig = Field(default_factory=SinkConfig, description="Where results go.")
    poll: PollConfig = Field(
        default_factory=PollConfig, description="How often and how far back points are read."
    )
    series: tuple[SeriesRule, ...] = Field(
        default_factory=_default_rules,
        min_length=1,
        description="Which series are watched; the first rule that matches wins. Default: all of them.",
    )
    metrics: dict[Glob, MetricConfig] = Field(
        default_factory=dict,
        description="Limits of metrics by patterns of their names; the first pattern that matches wins.",
    )
    detect: DetectConfig = Field(
        default_factory=DetectConfig, description="When a series is odd against its own past."
    )
    fleet: FleetConfig = Field(
        default_factory=FleetConfig, description="When a source is odd against the others."
    )
    detectors: tuple[DetectorConfig, ...] = Field(
        default=(), description="Metrics that are judged together by learned detectors (extra: learn)."
    )
    post: PostConfig = Field(default_factory=PostConfig, description="Which scores are posted, and how.")
    state: StateConfig = Field(default_factory=StateConfig, description="What is kept between two runs.")
    heartbeat: HeartbeatConfig = Field(
        default_factory=HeartbeatConfig, description="The worker's own sign of life."
    )
    health: HealthConfig = Field(
        default_factory=HealthConfig, description="How the worker is seen from outside, and how it leaves."
    )
    monitors: MonitorsConfig = Field(default_factory=MonitorsConfig, description="Where the monitors are.")
    streampipes: StreamPipesConfig = Field(
        default_factory=StreamPipesConfig, description="Apache StreamPipes, for the commands of that name."
    )
    log: LogConfig = Field(default_factory=LogConfig, description="The log on standard error.")

    @model_validator(mode="before")
    @classmethod
    def _name_rules(cls, data: object) -> object:
        """Give every rule without a name the one of its position."""
        if not isinstance(data, dict) or not isinstance(data.get("series"), list | tuple):
            return data
        rules = [
            {"name": f"series-{i}", **rule} if isinstance(rule, dict) else rule
            for i, rule in enumerate(data["series"])
        ]
        return {**data, "series": rules}

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        seen: set[str] = set()
        for i, rule in enumerate(self.series):
            if rule.name in seen:
                raise mistake(
                    f"'{rule.name}' is the name of two rules",
                    "rename one",
                    path=("series", i),
                    keys=("name",),
                )
            seen.add(rule.name)
        self._check_groups()
        self._check_bus()
        _ = self._detect_by_rule  # an impossible combination has to be said now, not at its first use
        return self

    def _check_bus(self) -> None:
        """Results for a bus need brokers."""
        if self.sink.kind == "kafka" and not (self.sink.brokers or self.source.brokers):
            raise mistake("brokers is missing", "write brokers: host:9092", path=("sink",), keys=("kind",))

    def _check_groups(self) -> None:
        """A group's name is that of a series, so it must be one that nothing else has."""
        measured = {name for group in self.detectors for name in group.metrics}
        measured |= {name for rule in self.series for name in rule.metrics}
        names = [group.name for group in self.detectors]
        for i, name in enumerate(names):
            where = {"path": ("detectors", i), "keys": ("name",)}
            if name in names[:i]:
                raise mistake(f"'{name}' is the name of two groups", "rename one", **where)
            if name in measured:
                raise mistake(f"'{name}' is the name of a metric too", "give the group another name", **where)

    @cached_property
    def _detect_by_rule(self) -> tuple[DetectConfig, ...]:
        # Through the written form, so that what a rule gives is validated together with what it inherits.
        base = self.detect.model_dump(mode="json", by_alias=True, exclude_unset=True)
        merged = []
        for i, rule in enumerate(self.series):
            own = rule.detect.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
            try:
                merged.append(DetectConfig.model_validate(base | own))
            except ValidationError as error:
                ctx = error.errors()[0].get("ctx", {})
                raise mistake(**{**ctx, "path": ("series", i, "detect")}) from None
        return tuple(merged)

    def detect_for(self, rule_index: int) -> DetectConfig:
        """The detect section with the overrides of rule ``rule_index`` applied."""
        return self._detect_by_rule[rule_index]

    def rule_for(self, source: str, metric: str) -> int | None:
        """The position of the first rule that selects the series, or None when none does."""
        return next((i for i, rule in enumerate(self.series) if rule.selects(source, metric)), None)

    @property
    def models(self) -> Path:
        """The folder of learned models."""
        return self.state.models or self.state.path.with_suffix(".models")

    @property
    def exactly_once(self) -> bool:
        """Whether results and offsets are one transaction: both are of one Kafka cluster."""
        one = self.source.kind == self.sink.kind == "kafka"
        return one and self.sink.transactions and self.sink.brokers in (None, self.source.brokers)

    def manifest(self) -> Path:
        """The manifest of monitors."""
        return self.monitors.manifest or self.state.path.with_suffix(".monitors.json")

    def may_select(self, source: str) -> bool:
        """True when some series of ``source`` could be scored, or be part of a group."""
        rules = any(rule.may_select(source) for rule in self.series)
        return rules or any(group.may_take(source) for group in self.detectors)

    def literal_keys(self) -> list[tuple[str, str]]:
        """The (source, metric) pairs that are named in full, so that no discovery is needed to know them."""
        pairs = [pair for rule in self.series for pair in rule.literal_keys()]
        pairs += [pair for group in self.detectors for pair in group.literal_keys()]
        return list(dict.fromkeys(pairs))

    def require_api_key(self) -> str:
        """The API key; raises ConfigError when none is configured."""
        if self.plexus.api_key is None:
            raise ConfigError(
                "plexus.api_key: is not set; set PLEXUS_API_KEY, or PLEXUS_API_KEY_FILE to a file with it"
            )
        return self.plexus.api_key.get_secret_value()

    def warnings(self) -> tuple[str, ...]:
        """Sentences about settings that are allowed but probably not meant."""
        addresses = [
            ("plexus.endpoint", "PLEXUS_ENDPOINT", self.plexus.endpoint, APP_URL),
            ("plexus.gateway_url", "PLEXUS_GATEWAY_URL", self.plexus.gateway_url, GATEWAY_URL),
            ("plexus.api_url", "PLEXUS_API_URL", self.plexus.api_url, API_URL),
        ]
        moved = [key for key, _, url, default in addresses if url != default]
        left = tuple(
            f"{key} is still {default} although {moved[0]} points elsewhere; set it (or {variable}) as well"
            for key, variable, url, default in addresses
            if moved and url == default
        )
        idle = tuple(
            f"detectors.{group.name}.retrain trains from the platform's history and does nothing where "
            "source.kind is kafka; run plexus-detect train --csv from cron, and restart the workers"
            for group in self.detectors
            if group.retrain_ms and self.source.kind == "kafka"
        )
        key_given = self.plexus.api_key is not None
        return left + idle + (unprotected({key: url for key, _, url, _ in addresses}) if key_given else ())
