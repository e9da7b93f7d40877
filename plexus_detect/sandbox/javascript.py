"""How the app reads and writes numbers and times: it is JavaScript, and it shows on the wire.

Times are int milliseconds since 1970, UTC. The server of the sandbox stands in UTC.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

# Whatever a JSON text may hold.
Json = Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Years 2 to 9998: room for an hour's window and an offset on either side of what a datetime holds.
_EARLIEST_MS, _LATEST_MS = -62_104_060_800_000, 253_370_764_799_999
_TIME = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_NUMBER = re.compile(r"[+-]?(?:Infinity|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)", re.ASCII)
_RADIX = re.compile(r"0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+", re.ASCII)


def parse_time(text: str) -> int | None:
    """Return what ``new Date(text)`` means in ms, or None where it is invalid.

    Covers ISO 8601 and the row format with a space. V8 also takes looser English dates; the sandbox
    refuses those, since a client that leans on them is one server version away from a 400.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        at = datetime(int(year), int(month or 1), int(day or 1), tzinfo=UTC)
    except ValueError:
        return None
    hours, minutes, seconds = int(hour or 0), int(minute or 0), int(second or 0)
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    offset = _offset_minutes(zone)
    if offset is None:
        return None
    millis = int((fraction or "0").ljust(3, "0")[:3])
    t_ms = epoch_ms(at) + ((hours * 60 + minutes - offset) * 60 + seconds) * 1000 + millis
    return t_ms if _EARLIEST_MS <= t_ms <= _LATEST_MS else None


def _offset_minutes(zone: str | None) -> int | None:
    if zone is None or zone == "Z":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[4:6])
    if hours > 23 or minutes > 59:
        return None
    return (hours * 60 + minutes) * (-1 if zone[0] == "-" else 1)


def epoch_ms(at: datetime) -> int:
    """Return the milliseconds since 1970 of an aware datetime, exactly."""
    return (at - EPOCH) // timedelta(milliseconds=1)


def parse_number(text: str) -> float | None:
    """Return ``Number(text)``, or None for NaN. Hexadecimal and exponents pass; the empty text is 0."""
    text = text.strip()
    if not text:
        return 0.0
    if _RADIX.fullmatch(text):
        return float(int(text, 0))
    if _NUMBER.fullmatch(text):
        return float(text)
    return None


def number_text(value: float | None) -> str:
    """Return a double as ``JSON.stringify`` writes it: no ``.0``, no ``-0``, ``null`` for non-finite."""
    if value is None or not math.isfinite(value):
        return "null"
    if value == 0:
        return "0"
    text = repr(float(value))
    if text.endswith(".0"):
        return text[:-2]
    if "e" not in text:
        return text
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(text), "f")
    mantissa, exponent = text.split("e")
    return f"{mantissa}e{'-' if exponent[0] == '-' else '+'}{exponent.lstrip('+-').lstrip('0')}"


def plain_number(value: float | None) -> float | int | None:
    """Return the value such that ``json`` prints it as JavaScript would: whole numbers as int."""
    if value is None or not math.isfinite(value):
        return None
    if value != value // 1 or abs(value) >= 1e21:
        return value
    # Beyond 2^53 JavaScript prints the shortest digits and fills up with zeros.
    return int(Decimal(repr(float(value))))


def iso_text(t_ms: int) -> str:
    """Return ``Date.toISOString()``: ``2026-11-22T01:52:38.107Z``."""
    at = EPOCH + timedelta(milliseconds=t_ms)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{t_ms % 1000:03d}Z"


def row_text(t_ms: int) -> str:
    """Return the store's own text of a time: ``2026-11-22 01:51:25.597``, UTC without a marker."""
    return f"{EPOCH + timedelta(milliseconds=t_ms):%Y-%m-%d %H:%M:%S}.{t_ms % 1000:03d}"


def pg_text(t_us: int) -> str:
    """Return a time as Postgres prints it: ``2026-11-22 01:54:01.99706+00``, trailing zeros dropped."""
    at = EPOCH + timedelta(microseconds=t_us)
    fraction = f".{at.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{at:%Y-%m-%d %H:%M:%S}{fraction}+00"
