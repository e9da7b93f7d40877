"""Which series are watched, and when one of them is odd."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fnmatch import translate
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from plexus_detect.config.values import (
    Duration,
    Glob,
    Globs,
    Length,
    Name,
    Number,
    Rate,
    Section,
    Span,
    TimesLine,
    Timezone,
    Word,
    is_literal,
    mistake,
    one_of,
)
from plexus_detect.detectors import DEFAULT, REGISTRY
from plexus_detect.series import is_own_metric

Threshold = Annotated[float, Field(gt=0), Number]
Streak = Annotated[int, Field(ge=1, le=64), Number]
CloseAfter = Annotated[int, Field(ge=1, le=100_000), Number]
Points = Annotated[int, Field(ge=8, le=100_000), Number]
Window = Annotated[int | Span, Length(8, 100_000, "1s", "90d")]
MinPoints = Annotated[int, Field(ge=5, le=100_000), Number]
ScaleFloor = Annotated[float, Field(ge=0), Number]
MinDeviation = Annotated[float, Field(ge=0), Number]
Bound = Annotated[float | None, Number]
RelearnAfter = Annotated[int, Duration("1s", "365d")]
Sensitivity = Annotated[Literal["low", "medium", "high"], Word]


def _detector(name: str) -> str:
    """A name of the registry; raises a mistake."""
    return one_of(name, tuple(REGISTRY))


DetectorName = Annotated[
    str, Word, AfterValidator(_detector), Field(json_schema_extra={"enum": sorted(REGISTRY)})
]


def _check_streak(consecutive: int, of: int) -> None:
    if consecutive > of:
        raise mistake(
            f"{consecutive} of the last {of} points can never be beyond the line",
            "make of at least as large as consecutive",
            keys=("of", "consecutive"),
        )


def _check_window(window: int | Span, min_points: int, window_key: str) -> None:
    # How many points a span holds is only known once their cadence is.
    if isinstance(window, int) and window < min_points:
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

    detector: DetectorName = Field(default=DEFAULT, description="What computes the scores.")
    sensitivity: Sensitivity = Field(
        default="medium", description="low, medium or high: the line is 1.5, 1 or 0.7 times as far out."
    )
    alert_budget: Rate | None = Field(
        default=None,
        description="At most about so many false alarms of all series together, such as 2/week: the line of "
        "a series is raised by its own past. Not set: it is not.",
    )
    threshold: Threshold = Field(default=3.0, description="The line: a score beyond it is odd.")
    consecutive: Streak = Field(
        default=3, description="M: an anomaly opens after M of the last N points are odd."
    )
    of: Streak = Field(
        default_factory=_same_as_consecutive,
        description="N in 'M of N'; the same as consecutive when not given.",
    )
    at_once: TimesLine = Field(
        default="auto",
        description="An anomaly opens with a single score so many times beyond the line; 0: never. auto: 2 "
        "for the detector auto, else 0.",
    )
    close_after: CloseAfter = Field(
        default=3, description="Normal points in a row after which an anomaly closes."
    )
    window: Window = Field(
        default=300,
        description="The past that a new point is compared with: points or a duration; auto has its own.",
    )
    min_points: MinPoints = Field(
        default=30, description="Points that must be known before anything is scored (auto: 32)."
    )
    scale_floor: ScaleFloor = Field(
        default=0.0,
        description="The least deviation that counts as 1, in the metric's own unit. auto: see metrics.",
    )
    relearn_after_ms: RelearnAfter = Field(
        default=3_600_000,
        alias="relearn_after",
        description="A new level that lasts this long becomes the normal one.",
    )
    timezone: Timezone = Field(
        default="UTC", description="Whose hours and days a season follows, such as Europe/Berlin."
    )

    @model_validator(mode="after")
    def _possible(self) -> DetectConfig:
        _check_streak(self.consecutive, self.of)
        _check_window(self.window, self.min_points, "window")
        if self.detector == "gap" and isinstance(self.window, Span):
            raise mistake(
                "the detector gap counts its window in points",
                "make window a number such as 300",
                keys=("window", "detector"),
            )
        return self


class DetectOverride(Section):
    """The part of the detect section that a rule wants otherwise; what is not given stays as it is there."""

    detector: DetectorName | None = Field(default=None, description="See detect.detector.")
    sensitivity: Sensitivity | None = Field(default=None, description="See detect.sensitivity.")
    threshold: Threshold | None = Field(default=None, description="See detect.threshold.")
    consecutive: Streak | None = Field(default=None, description="See detect.consecutive.")
    of: Streak | None = Field(default=None, description="See detect.of.")
    at_once: TimesLine | None = Field(default=None, description="See detect.at_once.")
    close_after: CloseAfter | None = Field(default=None, description="See detect.close_after.")
    window: Window | None = Field(default=None, description="See detect.window.")
    min_points: MinPoints | None = Field(default=None, description="See detect.min_points.")
    scale_floor: ScaleFloor | None = Field(default=None, description="See detect.scale_floor.")
    relearn_after_ms: RelearnAfter | None = Field(
        default=None, alias="relearn_after", description="See detect.relearn_after."
    )
    timezone: Timezone | None = Field(default=None, description="See detect.timezone.")


def any_of(patterns: Sequence[str]) -> re.Pattern[str]:
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
            any_of(self.sources),
            any_of(self.metrics),
            any_of(self.exclude_sources),
            any_of(self.exclude_metrics),
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


class MetricConfig(Section):
    """What values of a metric may be, and which deviations of it matter."""

    range: tuple[Bound, Bound] | None = Field(
        default=None,
        description="[low, high], null for no bound: values outside are odd by themselves and never learned.",
    )
    direction: Annotated[Literal["both", "up", "down"], Word] = Field(
        default="both", description="Deviations that matter: both, up or down."
    )
    min_abs: MinDeviation = Field(
        default=0.0, description="The least deviation that matters, in the metric's own unit."
    )
    min_rel: MinDeviation = Field(
        default=0.0, description="The least deviation that matters, as a share of the expected value."
    )

    @model_validator(mode="after")
    def _possible(self) -> MetricConfig:
        low, high = self.bounds
        if low >= high:
            raise mistake(
                f"no value lies between {low:g} and {high:g}",
                "write the lower bound first",
                keys=("range",),
            )
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest valid value, infinite where there is none."""
        low, high = self.range or (None, None)
        return -math.inf if low is None else low, math.inf if high is None else high


class CohortConfig(Section):
    """Sources that are compared with one another and with no others."""

    name: Name = Field(description="What people call the group.")
    sources: Globs = Field(description="Patterns of source slugs.")


class FleetConfig(Section):
    """When a source is odd against the other sources of the same metric."""

    enabled: bool = Field(default=True, description="Compare sources with one another at all.")
    cohorts: tuple[CohortConfig, ...] = Field(
        default=(), description="Groups of sources (name, sources) compared only among themselves."
    )
    rest: bool = Field(default=True, description="Compare the sources of no cohort with one another too.")
    sensitivity: Sensitivity = Field(
        default="medium", description="low, medium or high: the line is 1.5, 1 or 0.7 times as far out."
    )
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
    offset_window: Points = Field(
        default=300, description="Points from which the offset of a source is learned."
    )
    scale_floor: ScaleFloor = Field(
        default=0.0, description="The least deviation that counts as 1, in the metric's own unit."
    )
    relearn_after_ms: Annotated[int, Duration("1s", "365d")] = Field(
        default=86_400_000,
        alias="relearn_after",
        description="A difference from the others that lasts this long becomes the device's own.",
    )
    settle_ms: Annotated[int, Duration("0s", "5m")] = Field(
        default=2000, alias="settle", description="Wait this long for the others before a moment is compared."
    )

    @model_validator(mode="after")
    def _possible(self) -> FleetConfig:
        _check_streak(self.consecutive, self.of)
        _check_window(self.offset_window, self.min_points, "offset_window")
        names = [cohort.name for cohort in self.cohorts]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise mistake(
                    f"'{name}' is the name of two cohorts",
                    "rename one",
                    path=("cohorts", i),
                    keys=("name",),
                )
        return self
