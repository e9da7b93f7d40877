"""Changes of unit: the known factors by which a value jumps when somebody changes what it is measured in.

Conversion factors as in NIST Special Publication 811 (Thompson and Taylor, 2008), appendix B.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from plexus_detect.series import F64, I64
from plexus_detect.stats import MAGNITUDE_MAX

# A value counts as converted when it is within this part of what the conversion gives.
TOLERANCE = 0.02

# A conversion that hardly changes the value, as that of -40 degrees, cannot be told from no change.
_CHANGE_MIN = 0.2


class Change(NamedTuple):
    """after = before x ``factor`` + ``offset``."""

    words: str
    factor: float
    offset: float = 0.0


_THERE_AND_BACK = (
    (Change("x10", 10.0), "/10"),
    (Change("x100", 100.0), "/100"),
    (Change("x1000", 1000.0), "/1000"),
    (Change("x1024", 1024.0), "/1024"),
    (Change("x1000000", 1e6), "/1000000"),
    (Change("x60", 60.0), "/60"),
    (Change("x3600", 3600.0), "/3600"),
    (Change("m/s to km/h", 3.6), "km/h to m/s"),
    (Change("rad to deg", 180.0 / math.pi), "deg to rad"),
    (Change("m to ft", 1.0 / 0.3048), "ft to m"),
    (Change("in to mm", 25.4), "mm to in"),
    (Change("kg to lb", 2.20462), "lb to kg"),
    (Change("psi to kPa", 6.89476), "kPa to psi"),
    (Change("bar to psi", 14.5038), "psi to bar"),
    (Change("atm to kPa", 101.325), "kPa to atm"),
    (Change("degC to degF", 1.8, 32.0), "degF to degC"),
    (Change("degC to K", 1.0, 273.15), "K to degC"),
    (Change("K to degF", 1.8, -459.67), "degF to K"),
)

CHANGES: tuple[Change, ...] = tuple(
    change
    for there, back in _THERE_AND_BACK
    for change in (there, Change(back, 1.0 / there.factor, -there.offset / there.factor))
)
_FACTOR = np.array([change.factor for change in CHANGES])
_OFFSET = np.array([change.offset for change in CHANGES])


def changes(before: F64, after: F64) -> I64:
    """The position in ``CHANGES`` of the change that best explains each pair of values, -1 where none does.

    Values that are no numbers, or too large to be squared, and 0, which is 0 in most units, have none.
    """
    sizes = np.abs(before), np.abs(after)
    given = (np.minimum(*sizes) > 0.0) & (np.maximum(*sizes) <= MAGNITUDE_MAX)
    old, new = (np.where(given, x, 1.0)[:, None] for x in (before, after))
    expected = old * _FACTOR + _OFFSET
    away, size = np.abs(new - expected), np.abs(expected)
    # A conversion that ends at 0 explains nothing.
    explains = (away <= TOLERANCE * size) & (size > 0.0)
    off = np.divide(away, size, out=np.full_like(size, np.inf), where=explains)
    best: I64 = off.argmin(axis=1)
    moved = np.abs(new - old)[:, 0] > _CHANGE_MIN * np.maximum(*sizes)
    found = given & moved & (off[np.arange(len(best)), best] < np.inf)
    return np.where(found, best, -1)


def known_factor(before: float, after: float) -> str | None:
    """What made ``after`` of ``before``, within 2 %: "x1000", "degC to degF"; None if nothing known did."""
    code = int(changes(np.array([before]), np.array([after]))[0])
    return None if code < 0 else CHANGES[code].words
