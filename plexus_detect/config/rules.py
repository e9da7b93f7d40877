"""Which series are watched, and when one of them is odd."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import translate
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, model_validator

from plexus_detect.config.values import Duration, Glob, Globs, Name, Number, Section, is_literal, mistake
from plexus_detect.series import is_own_metric

Threshold = Annotated[float, Field(gt=0), Number]
Streak = Annotated[int, Field(ge=1, le=64), Number]
CloseAfter = Annotated[int, Field(ge=1, le=100_000), Number]
Window = Annotated[int, Field(ge=8, le=100_000), Number]
MinPoints = Annotated[int, Field(ge=5, le=100_000), Number]
ScaleFloor = Annotated[float, Field(ge=0), Number]
RelearnAfter = Annotated[int, Duration("1s", "365d")]


def _check_streak(consecutive: int, of: int) -> None:
    if consecutive > of:
        raise mistake(
            f"{consecutive} of the last {of} points can never be beyond the line",
            "make of at least as large as consecutive",
            keys=("of", "consecutive"),
        )


def _check_window(window: int, min_points: int, window_key: str) -> None:
    if window < min_points:
        raise mistake(
            f"impossible window: {window_key} = {window} points is less than min_points = {min_points}",
            f"raise {window_key} or lower min_points",
            keys=(window_key, "min_points"),
        )


def _same_as_consecutive(data: dict[str, Any]) -> int:
    consecutive: int = data.get("consecutive", 3)
    return consecutive


class DetectConfig(Section):
    """When a series is odd against its own past."""

    threshold: Threshold = Field(default=3.0, description="The line: a score beyond it is odd.")
    consecutive: Streak = Field(
        default=3, description="M: an anomaly opens after M of the last N points are odd."
    )
    of: Streak = Field(
        default_factory=_same_as_consecutive,
        description="N in 'M of N'; the same as consecutive when not given.",
    )
    close_after: CloseAfter = Field(
        default=3, description="Normal points in a row after which an anomaly closes."
    )
    window: Window = Field(default=300, description="Points of the past that a new one is compared with.")
    min_points: MinPoints = Field(
        default=30, description="Points that must be known before anything is scored."
    )
    scale_floor: ScaleFloor = Field(
        default=0.0, description="The least deviation that counts as 1, in the metric's own unit."
    )
    relearn_after_ms: RelearnAfter = Field(
        default=3_600_000,
        alias="relearn_after",
        description="A new level that lasts this long becomes the normal one.",
    )

    @model_validator(mode="after")
    def _possible(self) -> DetectConfig:
        _check_streak(self.consecutive, self.of)
        _check_window(self.window, self.min_points, "window")
        return self


class DetectOverride(Section):
    """The part of the detect section that a rule wants otherwise; what is not given stays as it is there."""

    threshold: Threshold | None = Field(default=None, description="See detect.threshold.")
    consecutive: Streak | None = Field(default=None, description="See detect.consecutive.")
    of: Streak | None = Field(default=None, description="See detect.of.")
    close_after: CloseAfter | None = Field(default=None, description="See detect.close_after.")
    window: Window | None = Field(default=None, description="See detect.window.")
    min_points: MinPoints | None = Field(default=None, description="See detect.min_points.")
    scale_floor: ScaleFloor | None = Field(default=None, description="See detect.scale_floor.")
    relearn_after_ms: RelearnAfter | None = Field(
        default=None, alias="relearn_after", description="See detect.relearn_after."
    )


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    """One case-sensitive expression for a list of globs; an empty list matches nothing."""
    return re.compile("|".join(translate(pattern) for pattern in patterns) or r"(?!)")


class SeriesRule(Section):
    """Which series are watched, and how. Patterns know ``*``, ``?`` and ``[..]`` and tell case apart."""

    name: Name = Field(description="Shown in the log. Default: series-<position, from 0>.")
    sources: Globs = Field(default=("*",), description="Patterns of source slugs.")
    metrics: Globs = Field(default=("*",), description="Patterns of metric names.")
    exclude_sources: tuple[Glob, ...] = Field(
        default=(), description="Sources left out, although a pattern matches."
    )
    exclude_metrics: tuple[Glob, ...] = Field(
        default=(), description="Metrics left out, although a pattern matches."
    )
    detect: DetectOverride = Field(
        default_factory=DetectOverride, description="Settings of the detect section that are different here."
    )
    fleet: bool = Field(default=True, description="Compare the sources of each metric with one another.")

    @model_validator(mode="after")
    def _can_select(self) -> SeriesRule:
        if all(is_own_metric(pattern) for pattern in self.metrics):
            raise mistake(
                "only names that the detector posts itself are listed, and those are never scored",
                "list metrics that devices send",
                keys=("metrics",),
            )
        return self

    @cached_property
    def _matchers(self) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
        return (
            _any_of(self.sources),
            _any_of(self.metrics),
            _any_of(self.exclude_sources),
            _any_of(self.exclude_metrics),
        )

    def selects(self, source: str, metric: str) -> bool:
        """True when the series is one of this rule's; never for a metric that we post ourselves."""
        sources, metrics, no_sources, no_metrics = self._matchers
        return bool(
            sources.match(source)
            and metrics.match(metric)
            and not no_sources.match(source)
            and not no_metrics.match(metric)
            and not is_own_metric(metric)
        )

    def may_select(self, source: str) -> bool:
        """True when some series of ``source`` could be one of this rule's."""
        sources, _metrics, no_sources, _no_metrics = self._matchers
        return bool(sources.match(source) and not no_sources.match(source))

    def literal_keys(self) -> list[tuple[str, str]]:
        """The (source, metric) pairs that are named in full, so that no discovery is needed to know them."""
        pairs = [
            (source, metric)
            for source in filter(is_literal, self.sources)
            for metric in filter(is_literal, self.metrics)
            if self.selects(source, metric)
        ]
        return list(dict.fromkeys(pairs))


class FleetConfig(Section):
    """When a source is odd against the other sources of the same metric."""

    enabled: bool = Field(default=True, description="Compare sources with one another at all.")
    group_min: Annotated[int, Field(ge=3, le=100_000), Number] = Field(
        default=5, description="Sources that must have fresh values before any is scored."
    )
    threshold: Threshold = Field(default=3.0, description="The line: a score beyond it is odd.")
    consecutive: Streak = Field(
        default=3, description="M: an anomaly opens after M of the last N points are odd."
    )
    of: Streak = Field(
        default_factory=_same_as_consecutive,
        description="N in 'M of N'; the same as consecutive when not given.",
    )
    close_after: CloseAfter = Field(
        default=3, description="Normal points in a row after which an anomaly closes."
    )
    bucket_ms: Annotated[int | None, Duration("100ms", "1d", auto=True)] = Field(
        default=None,
        alias="bucket",
        description="Values this close in time are compared; auto: the measured cadence.",
    )
    stale_after_ms: Annotated[int | None, Duration("100ms", "7d", auto=True)] = Field(
        default=None, alias="stale_after", description="Older values do not count; auto: three buckets."
    )
    min_points: MinPoints = Field(
        default=30, description="Points of a source before its own offset is known."
    )
    offset_window: Window = Field(
        default=300, description="Points from which the offset of a source is learned."
    )
    scale_floor: ScaleFloor = Field(
        default=0.0, description="The least deviation that counts as 1, in the metric's own unit."
    )
    settle_ms: Annotated[int, Duration("0s", "5m")] = Field(
        default=2000, alias="settle", description="Wait this long for the others before a moment is compared."
    )

    @model_validator(mode="after")
    def _possible(self) -> FleetConfig:
        _check_streak(self.consecutive, self.of)
        _check_window(self.offset_window, self.min_points, "offset_window")
        return self
