"""Groups of metrics that a learned detector judges together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from plexus_detect.config.rules import Sensitivity, any_of
from plexus_detect.config.values import (
    Duration,
    FilePath,
    Globs,
    Name,
    Number,
    Section,
    Unique,
    Word,
    is_literal,
    mistake,
    one_of,
)
from plexus_detect.errors import ConfigError
from plexus_detect.learn.models import MODELS
from plexus_detect.learn.stream import METRICS_MAX
from plexus_detect.learn.windowed import WindowedParams
from plexus_detect.series import is_own_metric

# The kind onnx has a model of its own.
BACKENDS = tuple(name for name in MODELS if name != "onnx")


def _backend(name: str) -> str:
    """A name of a backend; raises a mistake."""
    return one_of(name, BACKENDS)


def _lengths(values: Sequence[int]) -> Sequence[int]:
    for value in values:
        if not 1 <= value <= 10_000:
            raise mistake(f"{value} is out of range", "choose from 1 to 10000 rows")
    return values


def _metric(name: str) -> str:
    """The name of a metric that devices send; raises a mistake."""
    if is_own_metric(name):
        raise mistake(
            "{value} is a name that the detector posts itself, and those are never scored",
            "list metrics that devices send",
        )
    if not name or not is_literal(name):
        raise mistake("{value} is not the name of a metric", "write the names in full, without * ? and [")
    return name


Backend = Annotated[str, Word, AfterValidator(_backend), Field(json_schema_extra={"enum": sorted(BACKENDS)})]
Metrics = Annotated[
    tuple[Annotated[str, AfterValidator(_metric)], ...],
    Field(min_length=1, max_length=METRICS_MAX),
    Unique,
]
Lengths = Annotated[tuple[int, ...], Unique, AfterValidator(_lengths)]
Samples = Annotated[int, Field(ge=10, le=100_000), Number]


class DetectorConfig(Section):
    """Metrics of a source that move together, judged by a learned detector."""

    kind: Annotated[Literal["learned", "onnx", "autoencoder"], Word] = Field(
        default="learned",
        description="learned: from the past of the metrics, again and again; onnx: by a model in a file; "
        "autoencoder: by windows of rows, fitted with the command train.",
    )
    name: Name = Field(description="The group: its scores are posted as <name>.anomaly on each source.")
    metrics: Metrics = Field(description="Names of the metrics that are judged together, at least two.")
    sources: Globs = Field(default=("*",), description="Patterns of source slugs.")
    scope: Annotated[Literal["source", "cohort"], Word] = Field(
        default="source",
        description="source: a model for each source; cohort: one, learned from all of them.",
    )
    backend: Backend = Field(default="ecod", description="What learns.")
    model: FilePath | None = Field(
        default=None, description="The .onnx file of kind onnx, its card beside it."
    )
    windows: Annotated[tuple[int, ...], Unique] = Field(
        default=(8, 32, 128),
        description="Rows in a window, for kind autoencoder: up to 15, or multiples of 8.",
    )
    level: Annotated[Literal["aggressive", "balanced", "conservative"], Word] = Field(
        default="balanced",
        description="Line of kind autoencoder: 95, 99 or 99.5 % of normal rows are inside.",
    )
    min_samples: Samples = Field(default=200, description="Rows before the first model is fitted.")
    window_size: Annotated[int, Field(ge=50, le=100_000), Number] = Field(
        default=2000, description="Newest rows that a model is fitted to."
    )
    span_ms: Annotated[int, Duration("0s", "90d")] = Field(
        default=3 * 86_400_000,
        alias="span",
        description="The time that window_size rows span at least: denser ones are not all learned. A first "
        "model is fitted when its rows span this, or a day.",
    )
    retrain_interval: Samples = Field(default=500, description="Learned rows between two fits.")
    contamination: Annotated[float, Field(gt=0, le=0.5), Number] = Field(
        default=0.05, description="Share of the past that may have been anomalous."
    )
    rolling: Lengths = Field(
        default=(),
        description="Windows in rows whose mean, deviation, least and greatest value are looked at.",
    )
    lags: Lengths = Field(default=(), description="Rows back whose values are looked at too.")
    retrain_ms: Annotated[int, Duration("0s", "90d")] = Field(
        default=0,
        alias="retrain",
        description="A running worker trains kind autoencoder anew this often, and uses the new model if it "
        "is comparable; 0s: never.",
    )
    retrain_from_ms: Annotated[int, Duration("1h", "365d")] = Field(
        default=14 * 86_400_000,
        alias="retrain_from",
        description="The past that retrain learns from.",
    )
    align_ms: Annotated[int, Duration("0s", "1h")] = Field(
        default=1000,
        alias="align",
        description="Samples of the metrics within this time are one row; 0s: only those of equal times.",
    )
    sensitivity: Sensitivity = Field(
        default="medium", description="low, medium or high: the line is 1.5, 1 or 0.7 times as far out."
    )

    @model_validator(mode="after")
    def _possible(self) -> DetectorConfig:
        if len(self.metrics) < 2:
            raise mistake(
                "one metric has nothing to move together with",
                "list at least two, or leave it to the rules of series",
                keys=("metrics",),
            )
        if self.min_samples > self.window_size:
            raise mistake(
                f"min_samples = {self.min_samples} rows is more than window_size = {self.window_size} holds",
                "raise window_size or lower min_samples",
                keys=("min_samples", "window_size"),
            )
        if is_own_metric(self.name):
            raise mistake(
                f"'{self.name}' ends like a series that the detector posts",
                "choose another name: .anomaly is added to it",
                keys=("name",),
            )
        self._check_model()
        return self

    def _check_model(self) -> None:
        if self.kind == "onnx" and self.model is None:
            raise mistake("kind onnx needs a model", "give the path of an .onnx file", keys=("model", "kind"))
        if self.kind != "autoencoder" and self.retrain_ms:
            raise mistake(
                f"kind {self.kind} is not trained on a schedule",
                "remove retrain: learned detectors have retrain_interval, files are made elsewhere",
                keys=("retrain", "kind"),
            )
        if self.kind != "onnx" and self.model is not None:
            raise mistake(f"kind {self.kind} has no file", "write kind: onnx", keys=("model", "kind"))
        try:
            WindowedParams(self.windows, self.level)
        except ConfigError as error:
            what, _, remedy = str(error).removeprefix("sizes: ").partition("; ")
            raise mistake(f"windows of {what} rows are not possible", remedy, keys=("windows",)) from None

    def may_take(self, source: str) -> bool:
        """True when some series of ``source`` could be one of this group's."""
        return bool(any_of(self.sources).match(source))

    def literal_keys(self) -> list[tuple[str, str]]:
        """The (source, metric) pairs that are named in full."""
        return [(source, metric) for source in filter(is_literal, self.sources) for metric in self.metrics]
