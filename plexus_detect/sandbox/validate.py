"""The gateway's rules for a point: what it refuses, in its own words, and what it makes of the rest."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec

from plexus_detect.sandbox.javascript import Json
from plexus_detect.sandbox.points import Point
from plexus_detect.sandbox.sources import SLUG, SLUG_BYTES_MAX

POINTS_MAX = 10_000
METRIC_BYTES_MAX = 256
TAGS_MAX = 16
TAG_BYTES_MAX = 256
EVENT_TEXT_BYTES_MAX = 256
EVENT_JSON_BYTES_MAX = 4096
_DOUBLE_BITS = 1023
# Below this a timestamp is seconds.
_SECONDS_BELOW = 1e12
# The loader drops what no calendar holds (year 10000 on): that is where micro- and nanoseconds go.
_CALENDAR_END_MS = 253_402_300_800_000


class InvalidPoint(ValueError):  # noqa: N818  the sentence is the point of it
    """The sentence the gateway answers with."""


class Accepted(NamedTuple):
    """The points of one request: metrics to evaluate and store, and the number of points per source."""

    metrics: list[Point]
    counts: dict[str, int]


def read_points(points: list[Any], source: str | None, now_ms: int, *, per_point_source: bool) -> Accepted:
    """Check every point and return what is accepted; events are counted and not kept.

    Raises:
        InvalidPoint: for the first bad point; one refuses the whole request.

    """
    metrics: list[Point] = []
    counts: dict[str, int] = {}
    good_sources: set[str] = set()
    for i, point in enumerate(points):
        if type(point) is not dict:
            raise InvalidPoint(f"points[{i}] is null" if point is None else "invalid JSON body")
        slug: Any = (point.get("source_id") if per_point_source else None) or source
        if slug not in good_sources:
            good_sources.add(_checked_source(slug, i))
        metric, value, numeric = _checked_measure(point, i)
        t_ms = _time_ms(point["timestamp"], i, now_ms) if "timestamp" in point else now_ms
        tags = _checked_tags(point["tags"], i) if "tags" in point else "{}"
        counts[slug] = counts.get(slug, 0) + 1
        if numeric:
            metrics.append(Point(slug, metric, t_ms, float(value), tags))
    return Accepted(metrics, counts)


def storable(point: Point) -> bool:
    """Tell whether the loader can place the point in time."""
    return point.t_ms < _CALENDAR_END_MS


def _checked_source(slug: Json, i: int) -> str:
    if slug is None:
        raise InvalidPoint(f"points[{i}] missing source_id (set top-level source_id or per-point source_id)")
    if not isinstance(slug, str):
        raise InvalidPoint("invalid JSON body")
    if not SLUG.fullmatch(slug):
        raise InvalidPoint(f"points[{i}] source_id must match ^{SLUG.pattern}$")
    if len(slug) > SLUG_BYTES_MAX:
        raise InvalidPoint(f"points[{i}] source_id too long (max {SLUG_BYTES_MAX})")
    return slug


def _checked_measure(point: dict[str, Any], i: int) -> tuple[str, Any, bool]:
    metric = point.get("metric")
    if type(metric) is not str or not metric or len(metric.encode()) > METRIC_BYTES_MAX:
        raise InvalidPoint(f"points[{i}].metric invalid")
    if "value" not in point:
        raise InvalidPoint(f"points[{i}].value is required")
    value = point["value"]
    kind = type(value)
    number = kind is float or kind is int
    if value is None:
        raise InvalidPoint(f"points[{i}].value cannot be null")
    if kind is int and value.bit_length() > _DOUBLE_BITS:
        raise InvalidPoint("invalid JSON body")  # no double holds it, as with 1e999
    its_class = point.get("class")
    if its_class is None:
        its_class = "metric" if number else "event"
    if its_class == "metric":
        if not number:
            raise InvalidPoint(f"points[{i}].value must be a number for class=metric")
        return metric, value, True
    if its_class != "event":
        raise InvalidPoint(f"points[{i}].class must be 'metric' or 'event', got {json.dumps(its_class)}")
    _check_event(value, i)
    return metric, value, False


def _check_event(value: Json, i: int) -> None:
    if isinstance(value, str) and len(value.encode()) > EVENT_TEXT_BYTES_MAX:
        raise InvalidPoint(f"points[{i}].value string exceeds {EVENT_TEXT_BYTES_MAX} bytes")
    if isinstance(value, dict | list) and len(msgspec.json.encode(value)) > EVENT_JSON_BYTES_MAX:
        raise InvalidPoint(f"points[{i}].value exceeds {EVENT_JSON_BYTES_MAX} bytes")


def _time_ms(stamp: Json, i: int, now_ms: int) -> int:
    if type(stamp) not in {int, float}:
        raise InvalidPoint(f"points[{i}].timestamp must be a number")
    if stamp <= 0:
        return now_ms
    if stamp < _SECONDS_BELOW:
        stamp = stamp * 1000
    millis: int = round(stamp)
    return millis


def _checked_tags(tags: Json, i: int) -> str:
    if not isinstance(tags, dict):
        raise InvalidPoint(f"points[{i}].tags must be an object")
    if len(tags) > TAGS_MAX:
        raise InvalidPoint(f"points[{i}].tags exceeds max entries ({TAGS_MAX})")
    for name, value in tags.items():
        if not isinstance(value, str):
            raise InvalidPoint(f"points[{i}].tags[{json.dumps(name)}] must be a string")
        if len(name.encode()) > TAG_BYTES_MAX or len(value.encode()) > TAG_BYTES_MAX:
            raise InvalidPoint(f"points[{i}].tags[{json.dumps(name)}] too long (max {TAG_BYTES_MAX})")
    return msgspec.json.encode(tags).decode()
