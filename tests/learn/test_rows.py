"""learn.rows: records by name become columns, whatever a client sends."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.learn.rows import aligned, read_records

VALUES = st.one_of(
    st.floats(),
    st.integers(),
    st.booleans(),
    st.none(),
    st.sampled_from(["72.5", "", 10**400, -(10**400), [1.0], {"a": 1}, np.float32(0.5), np.int64(7)]),
)
RECORDS = st.lists(st.dictionaries(st.sampled_from("abcde"), VALUES, max_size=5), max_size=12)


def number(value: object) -> float:
    """The value as ``read_records`` promises to read it."""
    if isinstance(value, np.generic):
        return float(value)
    fits = isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return float(value) if fits else np.nan


def test_columns_are_matched_by_name() -> None:
    """Keys in any order, missing keys and new ones end up in the column of their name."""
    names, x = read_records([{"t": 72.5, "p": 30}, {"p": 31.5, "t": 73}, {"t": 74.0, "h": 45.2}])
    assert names == ("t", "p", "h")
    np.testing.assert_array_equal(x, [[72.5, 30, np.nan], [73, 31.5, np.nan], [74, np.nan, 45.2]])


@pytest.mark.parametrize("bad", ["72.5", None, [1.0], {"v": 1.0}, float("nan"), float("inf"), 10**400])
def test_what_is_no_number_is_missing(bad: object) -> None:
    """Text (even of digits), null, nested, NaN, infinite and too large values are NaN among numbers."""
    names, x = read_records([{"a": 1.5}, {"a": bad}, {"a": 2}])
    assert names == ("a",)
    np.testing.assert_array_equal(x, [[1.5], [np.nan], [2.0]])


@pytest.mark.parametrize("bad", ["72.5", None, [1.0], {"v": 1.0}, float("nan"), float("inf"), 10**400])
def test_a_column_without_a_number_does_not_appear(bad: object) -> None:
    """A column appears with its first number, not with its first key."""
    names, x = read_records([{"a": bad, "b": 1.0}, {"a": bad}])
    assert names == ("b",)
    assert x.shape == (2, 1)


def test_bools_and_numpy_scalars_are_numbers() -> None:
    """True is 1.0, False 0.0, and NumPy's own numbers are taken as they are, beside huge ints too."""
    record = {"on": True, "off": False, "f": np.float32(0.5), "i": np.int64(7), "b": np.True_}
    names, x = read_records([record, {"i": 10**400, "on": 2}])
    assert names == ("on", "off", "f", "i", "b")
    np.testing.assert_array_equal(x[0], [1, 0, 0.5, 7, 1])
    np.testing.assert_array_equal(x[1], [2, np.nan, np.nan, np.nan, np.nan])


def test_nothing_is_no_column() -> None:
    """No records, and records without keys, give a matrix without columns and with a row each."""
    assert read_records([])[1].shape == (0, 0)
    names, x = read_records([{}, {}])
    assert names == ()
    assert x.shape == (2, 0)


@examples(400)
@given(RECORDS)
def test_reading_together_is_reading_one_by_one(records: list[dict[str, object]]) -> None:
    """A batch gives the names in the order, and the values, that its records give one by one."""
    seen: dict[str, None] = {}
    for record in records:
        seen.update(dict.fromkeys(read_records([record])[0]))
    names, x = read_records(records)
    assert names == tuple(seen)
    assert x.shape == (len(records), len(names))
    expected = [[number(record.get(name)) for name in names] for record in records]
    np.testing.assert_array_equal(x, np.array(expected).reshape(x.shape))


def test_aligned_puts_columns_where_they_are_wanted() -> None:
    """Columns follow the wanted order; missing ones are NaN, others are left out, no rows are no trouble."""
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    out = aligned(x, ("a", "b", "c"), ("c", "z", "a"))
    np.testing.assert_array_equal(out, [[3, np.nan, 1], [6, np.nan, 4]])
    assert aligned(x, ("a", "b", "c"), ["a", "b", "c"]) is x
    assert aligned(x[:0], ("a", "b", "c"), ("b",)).shape == (0, 1)
