"""Records by name, as they come over the wire, as columns of numbers in the order that a model knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from plexus_detect.series import F64

# The types that need no second look; everything else goes through ``_number`` value by value.
_PLAIN = {float, int, bool}
_NAN = float("nan")


def read_records(records: Sequence[Mapping[str, object]]) -> tuple[tuple[str, ...], F64]:
    """The names (k,) of all columns that hold a number somewhere, in order of their first number, and the
    values (m, k), NaN where a record has none.

    Numbers are finite ints and floats; a bool counts as 0 or 1. Missing, null, text (also "72.5"), nested,
    NaN, infinite or larger than a float: no number. Reading records one by one meets the names in the same
    order as reading them together. Time and memory are records x different keys: what limits the keys is
    the caller's. Nothing is raised.
    """
    columns: list[tuple[str, F64, int]] = []
    for name in _keys(records):
        column = _column(records, name)
        finite = np.isfinite(column)
        first = int(finite.argmax())
        if finite[first]:
            column[~finite] = np.nan
            columns.append((name, column, first))
    columns = _by_first_number(columns, records)
    if not columns:
        return (), np.zeros((len(records), 0))
    return tuple(name for name, _, _ in columns), np.stack([column for _, column, _ in columns], axis=1)


def _keys(records: Sequence[Mapping[str, object]]) -> dict[str, None]:
    """Every key, in order of first sight."""
    keys: dict[str, None] = {}
    for record in records:
        # Nearly every record has the keys of those before it, and to compare is cheaper than to add.
        if record.keys() != keys.keys():
            keys.update(dict.fromkeys(record))
    return keys


def _column(records: Sequence[Mapping[str, object]], name: str) -> F64:
    """One key's values; infinite ones are still there."""
    values = [record.get(name) for record in records]
    if set(map(type, values)) <= _PLAIN:
        try:
            return np.array(values, np.float64)
        except OverflowError:
            pass
    return np.array([_number(value) for value in values])


def _number(value: object) -> float:
    """The value as a float; NaN for what is not a number or does not fit."""
    if not isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating):
        return _NAN
    try:
        return float(value)
    except OverflowError:
        return _NAN


def _by_first_number(
    columns: list[tuple[str, F64, int]], records: Sequence[Mapping[str, object]]
) -> list[tuple[str, F64, int]]:
    """The columns by the record of their first number, and within that record by the order of its keys."""
    if all(first == 0 for _, _, first in columns):
        return columns
    place = {
        (first, name): i
        for first in {first for _, _, first in columns}
        for i, name in enumerate(records[first])
    }
    return sorted(columns, key=lambda column: (column[2], place[column[2], column[0]]))


def aligned(x: F64, names: Sequence[str], wanted: Sequence[str]) -> F64:
    """The columns of ``x`` (m, len(names)) in the order of ``wanted``: (m, len(wanted)), NaN columns for
    names that are not there. Columns nobody wants are left out; the same names in the same order give ``x``
    itself.
    """
    if tuple(names) == tuple(wanted):
        return x
    place = {name: i for i, name in enumerate(names)}
    out = np.full((len(x), len(wanted)), np.nan)
    for i, name in enumerate(wanted):
        if name in place:
            out[:, i] = x[:, place[name]]
    return out
