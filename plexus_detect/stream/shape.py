"""What a message looks like: where in its JSON the time, the device and the sensors stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Unit = Literal["auto", "s", "ms", "us", "ns", "iso"]

# Milliseconds of a unit.
MS_OF: Mapping[str, float] = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}

Path = tuple[str, ...]


def path_of(text: str) -> Path:
    """The keys of a dotted path."""
    return tuple(text.split("."))


@dataclass(frozen=True)
class Shape:
    """Paths into a message's JSON. Sensors are one object of names and numbers (``sensors``), single
    ``fields`` by the name of their metric, or the long form of one ``metric`` and its ``value``.

    ``device`` None: the key of the message names the device. ``unit`` auto: seconds, milliseconds, micro- or
    nanoseconds by the size of the number (seconds below 1e11, the year 5138), or ISO text.
    """

    timestamp: Path = ("timestamp",)
    unit: Unit = "auto"
    device: Path | None = None
    sample_index: Path | None = ("sample_index",)
    sensors: Path = ("sensors",)
    fields: Mapping[str, Path] = field(default_factory=dict)
    metric: Path | None = None
    value: Path | None = None

    def places(self) -> list[tuple[Path, Any]]:
        """Where the sensors stand, with their types."""
        if self.metric is not None and self.value is not None:
            return [(self.metric, str), (self.value, float)]
        if self.fields:
            return [(path, float) for path in self.fields.values()]
        return [(self.sensors, dict[str, float | None])]
