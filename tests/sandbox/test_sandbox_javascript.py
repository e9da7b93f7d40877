"""Numbers and times are read and written as the app, which is JavaScript, does."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexus_detect.sandbox.javascript import (
    EPOCH,
    epoch_ms,
    iso_text,
    number_text,
    parse_number,
    parse_time,
    pg_text,
    plain_number,
    row_text,
)

MOMENTS = st.integers(-2_208_988_800_000_000, 10_413_792_000_000_000).map(
    lambda t_us: EPOCH + timedelta(microseconds=t_us)
)


@given(MOMENTS, st.integers(-14 * 60, 14 * 60))
def test_iso_text_with_any_offset_is_read_to_the_millisecond(at: datetime, offset_min: int) -> None:
    """ISO 8601 with an offset means that moment; what is below a millisecond is dropped."""
    text = at.astimezone(timezone(timedelta(minutes=offset_min))).isoformat(timespec="microseconds")
    assert parse_time(text) == epoch_ms(at)


@given(MOMENTS)
def test_written_times_are_read_back(at: datetime) -> None:
    """The ISO text and the row text both mean the moment they were made of, read as UTC."""
    t_ms = epoch_ms(at)
    assert parse_time(iso_text(t_ms)) == t_ms
    assert parse_time(row_text(t_ms)) == t_ms
    assert len(row_text(t_ms)) == len("2026-11-22 01:51:25.597")


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "1795312298005", "1795312298", "2026-13-45", "2026-02-30", "2026-01-01T24:00:01Z",
        "2026-01-01T00:00:00 00:00", "2026-01-01T00", "2026-01-01T00:60Z", "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00Z ", "0001-01-01", "9999-12-31T23:59:59Z", "٢٠٢٦-01-01",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    """Epochs, made-up days, lost plus signs and words are no times."""
    assert parse_time(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        (" 5 ", 5),
        ("1e2", 100),
        ("0x10", 16),
        ("0b11", 3),
        ("0o7", 7),
        (".5", 0.5),
        ("5.", 5),
        ("-1", -1),
    ],
)
def test_numbers_are_read_generously(text: str, number: float) -> None:
    """``Number()`` takes exponents, other bases and blanks."""
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["abc", "1_000", "1,5", "1e", "0x", "--1", "NaN", "1 2", "٣"])
def test_what_is_no_number_is_refused(text: str) -> None:
    """Everything else is NaN."""
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"), (-0.0, "0"), (0.1, "0.1"), (1e21, "1e+21"), (1e-9, "1e-9"), (1.5e-7, "1.5e-7"),
        (1e-6, "0.000001"), (123456789012345678.0, "123456789012345680"), (1e20, "100000000000000000000"),
        (2.0**60, "1152921504606847000"), (-2.5e300, "-2.5e+300"), (5e-324, "5e-324"),
        (math.nan, "null"), (math.inf, "null"), (None, "null"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_javascript_does(value: float | None, text: str) -> None:
    """No ``.0``, no minus zero, no digits that a double does not have."""
    assert number_text(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_written_numbers_are_the_same_double(value: float) -> None:
    """Reading back gives the value, as text and as a plain number."""
    assert float(json.loads(number_text(value))) == value
    assert float(json.loads(json.dumps(plain_number(value)))) == value


def test_postgres_drops_trailing_zeros() -> None:
    """Times of rows have up to six digits of fraction, and none at all for whole seconds."""
    at = 1_795_312_000_000_000
    assert [pg_text(at + us)[19:] for us in (0, 500_000, 997_060, 1)] == [
        "+00",
        ".5+00",
        ".99706+00",
        ".000001+00",
    ]
