"""Reads a message that does not fit the types: leaves out what cannot be used, or says what is wrong."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import NamedTuple

from plexus_detect.stream.rejects import DEVICE_CHARS_MAX, SENSORS_MAX, Refused
from plexus_detect.stream.shape import Path, Shape

# Characters of somebody else's text that a sentence repeats.
_DETAIL_CHARS_MAX = 60


class Row(NamedTuple):
    """One message: the stamp as a number in its unit (ISO text: in seconds), its index, its device, the names
    of its sensors and their values, NaN for what is none."""

    stamp: float
    iso: bool
    sample_index: int | None
    device: str
    names: tuple[str, ...]
    values: list[float]


def iso_s(text: str) -> float:
    """ISO text as seconds since the epoch, UTC where it names no zone. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def device_of(named: object, where: str) -> str:
    """The name of a device from the key of a message or a field of it. Raises Refused."""
    if named is None:
        raise Refused("no_device", where=where)
    try:
        name = named.decode() if isinstance(named, bytes) else named
    except UnicodeDecodeError:
        raise Refused("bad_device", where=where) from None
    if not isinstance(name, str) or not 0 < len(name) <= DEVICE_CHARS_MAX or not name.isprintable():
        raise Refused("bad_device", where=where)
    return name


def patiently(shape: Shape, value: bytes, key: bytes | None) -> Row:
    """What can be used of a message. Raises Refused."""
    try:
        whole = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Refused("not_json", detail=_shown(str(error) or type(error).__name__)) from None
    if not isinstance(whole, dict):
        raise Refused("not_an_object", where=".".join(shape.timestamp))
    stamp, iso = _stamp(shape, whole)
    index = None if shape.sample_index is None else _at(whole, shape.sample_index)
    if shape.device is None:
        device = device_of(key, "the key of the message")
    else:
        device = device_of(_at(whole, shape.device), ".".join(shape.device))
    names, values = _sensors(shape, whole)
    if not isinstance(index, int) or isinstance(index, bool) or abs(index) >= 1 << 63:
        index = None
    return Row(stamp, iso, index, device, names, values)


def _at(whole: object, path: Path) -> object:
    for key in path:
        whole = whole.get(key) if isinstance(whole, dict) else None
    return whole


def _stamp(shape: Shape, whole: object) -> tuple[float, bool]:
    stamp, where = _at(whole, shape.timestamp), ".".join(shape.timestamp)
    if stamp is None:
        raise Refused("no_timestamp", where=where)
    bad = Refused("bad_timestamp", where=where, unit=shape.unit, detail=_shown(repr(stamp)))
    try:
        if isinstance(stamp, str) and shape.unit in ("auto", "iso"):
            return iso_s(stamp), True
        number = math.nan if isinstance(stamp, bool | str) or shape.unit == "iso" else float(stamp)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError):
        raise bad from None
    if not math.isfinite(number):
        raise bad
    return number, False


def _sensors(shape: Shape, whole: object) -> tuple[tuple[str, ...], list[float]]:
    places = [".".join(path) for path, _type in shape.places()]
    if shape.metric is not None and shape.value is not None:
        name = _at(whole, shape.metric)
        found = {name: _at(whole, shape.value)} if isinstance(name, str) and name else {}
    elif shape.fields:
        found = {name: _at(whole, path) for name, path in shape.fields.items()}
    else:
        held = _at(whole, shape.sensors)
        found = held if isinstance(held, dict) else {}
    if not found:
        raise Refused("no_sensors", where=" and ".join(places))
    if len(found) > SENSORS_MAX:
        raise Refused("too_many_sensors", size=len(found), most=SENSORS_MAX)
    return tuple(found), [_number(value) for value in found.values()]


def _number(value: object) -> float:
    """A finite number, NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def _shown(text: str) -> str:
    """Somebody else's text as far as it may stand in a sentence."""
    short = text[:_DETAIL_CHARS_MAX]
    return "".join(c if c.isprintable() else " " for c in short) + "..." * (len(text) > len(short))
