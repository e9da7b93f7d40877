"""How messages of a bus are read: where in their JSON the time, the device and the sensors stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from plexus_detect.config.values import Section, Word, mistake
from plexus_detect.series import is_own_metric
from plexus_detect.stream.shape import Path, Shape, path_of


def _dotted(text: str) -> str:
    """Keys with dots between them; raises a mistake."""
    if not all(path_of(text)):
        raise mistake("{value} is not a path", "write the keys with dots between them, like payload.time")
    return text


def _sensor(name: str) -> str:
    """The name of a metric that may be scored; raises a mistake."""
    if not name or is_own_metric(name):
        raise mistake("{value} cannot be a metric", "give the field the name of a metric that is scored")
    return name


DottedPath = Annotated[str, AfterValidator(_dotted)]
MetricName = Annotated[str, AfterValidator(_sensor)]


class SourceMapping(Section):
    """Where in a message what stands. Paths are keys with dots between them."""

    timestamp: DottedPath = Field(default="timestamp", description="Path of the time of the sample.")
    unit: Annotated[Literal["auto", "s", "ms", "us", "ns", "iso"], Word] = Field(
        default="auto",
        description="Unit of the time since 1970; iso: text; auto: text, or a number whose size says it.",
    )
    device: DottedPath | None = Field(
        default=None, description="Path of the name of the device. Default: the key of the message."
    )
    sample_index: DottedPath | None = Field(
        default="sample_index", description="Path of the number of the sample, which alerts repeat; or null."
    )
    sensors: DottedPath = Field(
        default="sensors", description="Path of the object with the names and numbers of the sensors."
    )
    fields: Mapping[MetricName, DottedPath] = Field(
        default_factory=dict, description="Instead of sensors: the path of each metric by its name."
    )
    metric: DottedPath | None = Field(
        default=None, description="For messages of one metric each: path of its name. Needs value."
    )
    value: DottedPath | None = Field(
        default=None, description="For messages of one metric each: path of its number. Needs metric."
    )

    @model_validator(mode="after")
    def _one_form(self) -> SourceMapping:
        if (self.metric is None) != (self.value is None):
            raise mistake("metric and value belong together", "give both", keys=("metric", "value"))
        given = self.model_fields_set
        forms = [name for name in ("sensors", "fields", "metric") if name in given and getattr(self, name)]
        if len(forms) > 1:
            raise mistake(
                f"{' and '.join(forms)} are two forms of one message", "keep one of them", keys=(forms[1],)
            )
        paths: list[Path] = [self.shape().timestamp, *(path for path, _type in self.shape().places())]
        paths += [path for path in (self.shape().device, self.shape().sample_index) if path is not None]
        for i, one in enumerate(paths):
            for other in paths[i + 1 :]:
                shorter, longer = sorted((one, other), key=len)
                if longer[: len(shorter)] == shorter:
                    raise mistake(
                        f"'{'.'.join(shorter)}' is read as two things", "give each a path of its own"
                    )
        return self

    def shape(self) -> Shape:
        """The mapping as the reader of messages takes it."""
        long_form = self.metric is not None and self.value is not None
        return Shape(
            timestamp=path_of(self.timestamp),
            unit=self.unit,
            device=None if self.device is None else path_of(self.device),
            sample_index=None if self.sample_index is None else path_of(self.sample_index),
            sensors=path_of(self.sensors),
            fields={name: path_of(path) for name, path in self.fields.items()},
            metric=path_of(self.metric) if long_form and self.metric else None,
            value=path_of(self.value) if long_form and self.value else None,
        )
