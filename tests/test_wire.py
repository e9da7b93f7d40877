"""wire: telemetry answers into columns."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import RECORDED, body_of

from plexus_detect import wire
from plexus_detect.errors import ContractError
from plexus_detect.series import SeriesTable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GOOD_TIME = "2026-11-22 01:51:23.595"


def text_of(t_ms: int) -> str:
    """A row's timestamp, made by the standard library."""
    moment = EPOCH + timedelta(milliseconds=t_ms)
    return moment.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")


def row_of(source: str, metric: str, value: float | None, timestamp: str) -> dict[str, Any]:
    """One row with the six fields of the contract."""
    return {
        "org_id": "o",
        "source_id": source,
        "metric": metric,
        "value": value,
        "timestamp": timestamp,
        "tags": {"site": "north"},
    }


def page_of(rows: list[dict[str, Any]], **more: Any) -> bytes:
    """A telemetry answer."""
    return json.dumps({"data": rows, "count": len(rows), **more}, ensure_ascii=False).encode()


def timed(*texts: str) -> bytes:
    """A telemetry answer whose rows differ in their timestamps only."""
    return page_of([row_of("s", "m", 1, text) for text in texts])


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TIMES_MS = st.integers(0, 4_133_980_799_999)  # 1970 to the end of 2100


@pytest.mark.parametrize(
    "name", [n for n in RECORDED if n.startswith("telemetry.") and RECORDED[n]["status"] == 200]
)
def test_recorded_pages_decode_as_a_plain_reading_does(name: str) -> None:
    """Every recorded page gives the rows, times and window that json and datetime give."""
    table = SeriesTable()
    page = wire.decode_telemetry(body_of(name), table)
    answer = json.loads(body_of(name))
    assert page.count == len(page.points) == answer["count"]
    assert [table.keys[i] for i in page.points.series] == [
        (r["source_id"], r["metric"]) for r in answer["data"]
    ]
    assert page.points.value.tolist() == [float(r["value"]) for r in answer["data"]]
    assert [text_of(t) for t in page.points.t_ms.tolist()] == [r["timestamp"] for r in answer["data"]]
    end = datetime.fromisoformat(answer["query"]["to"])
    assert page.to_ms == (end - EPOCH) // timedelta(milliseconds=1)


@given(
    st.lists(st.tuples(NAMES, NAMES, st.none() | st.floats(allow_nan=False, allow_infinity=False), TIMES_MS))
)
def test_any_page_survives_decoding(rows: list[tuple[str, str, float | None, int]]) -> None:
    """Odd names, null values and any order come through exactly; dtypes are those promised."""
    table = SeriesTable()
    points = wire.decode_telemetry(
        page_of([row_of(s, m, v, text_of(t)) for s, m, v, t in rows]), table
    ).points
    assert [table.keys[i] for i in points.series] == [(s, m) for s, m, _, _ in rows]
    np.testing.assert_array_equal(points.value, [math.nan if v is None else v for _, _, v, _ in rows])
    assert points.t_ms.tolist() == [t for _, _, _, t in rows]
    assert (points.series.dtype, points.t_ms.dtype, points.value.dtype) == (np.int64, np.int64, np.float64)


@given(st.lists(TIMES_MS, min_size=1, max_size=50))
def test_timestamps_equal_datetime_from_1970_to_2100(times: list[int]) -> None:
    """The vectorised parse gives the standard library's milliseconds, each row by itself."""
    assert wire._parse_timestamps([text_of(t) for t in times]).tolist() == times


def test_every_day_of_every_century_rule_parses() -> None:
    """All days from 1895 to 2105 parse right, leap years of both kinds and times before 1970 included."""
    first = datetime(1895, 1, 1, 23, 59, 59, 999_000, tzinfo=UTC)
    days = [first + timedelta(days=i) for i in range(210 * 365)]
    texts = [d.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds") for d in days]
    expected = [(d - EPOCH) // timedelta(milliseconds=1) for d in days]
    assert wire._parse_timestamps(texts).tolist() == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-22",
        "2026-11-22 01:51:23",
        "2026-11-22 01:51:23.59",
        "2026-11-22 01:51:23.5950",
        "2026-11-22T01:51:23.595",
        "2026-11-22 01:51:23,595",
        "2026-13-22 01:51:23.595",
        "2026-00-22 01:51:23.595",
        "2026-11-00 01:51:23.595",
        "2026-11-31 01:51:23.595",
        "2026-02-29 01:51:23.595",
        "2100-02-29 01:51:23.595",
        "2026-11-22 24:00:00.000",
        "2026-11-22 01:60:23.595",
        "2026-11-22 01:51:60.595",
        "2026-11-22 01:51:2 .595",
        "2026-11-22 01:51:23.59/",
        "2026-11-22 01:51:23.59:",
        "\uff12026-11-22 01:51:23.595",
        "-026-11-22 01:51:23.595",
        "x" * 23,
        "\n" * 23,
        GOOD_TIME + "\n" + GOOD_TIME,
    ],
)
@pytest.mark.parametrize("row", [0, 2])
def test_a_malformed_timestamp_is_named(text: str, row: int) -> None:
    """One bad timestamp among good ones gives a ContractError with its row and text; the table stays."""
    texts = [GOOD_TIME] * 4
    texts[row] = text
    table = SeriesTable()
    with pytest.raises(ContractError) as caught:
        wire.decode_telemetry(timed(*texts), table)
    assert f"row {row} " in str(caught.value)
    assert repr(text[:40]) in str(caught.value)
    assert len(table) == 0


@pytest.mark.parametrize("cut", range(24))
def test_neighbours_cannot_lend_each_other_characters(cut: int) -> None:
    """Two texts whose lengths add up to two good ones are refused, wherever the border between them is."""
    both = GOOD_TIME + GOOD_TIME
    if cut == len(GOOD_TIME):
        wire.decode_telemetry(timed(both[:cut], both[cut:]), SeriesTable())
        return
    with pytest.raises(ContractError, match="row 0 "):
        wire.decode_telemetry(timed(both[:cut], both[cut:]), SeriesTable())


@given(st.lists(st.text("0123456789-: .\n", min_size=22, max_size=24) | TIMES_MS.map(text_of), max_size=4))
def test_only_exact_timestamps_pass(texts: list[str]) -> None:
    """A page passes if and only if the standard library reads every text in exactly that format."""

    def exact(text: str) -> bool:
        try:
            datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
        except ValueError:
            return False
        return len(text) == 23 and "\n" not in text and text[19] == "."

    if all(map(exact, texts)):
        wire.decode_telemetry(timed(*texts), SeriesTable())
    else:
        with pytest.raises(ContractError):
            wire.decode_telemetry(timed(*texts), SeriesTable())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"data":null}',
        b'{"data":[null]}',
        b'{"data":{}}',
        b'{"error":"Unauthorized"}',
        b"<!DOCTYPE html><html></html>",
        b'{"data":[{"source_id":"s","metric":"m","value":1}]}',
        b'{"data":[{"source_id":"s","metric":"m","timestamp":"2026-11-22 01:51:23.595"}]}',
        b'{"data":[{"source_id":1,"metric":"m","value":1,"timestamp":"2026-11-22 01:51:23.595"}]}',
        b'{"data":[{"source_id":"s","metric":"m","value":"1","timestamp":"2026-11-22 01:51:23.595"}]}',
        b'{"data":[{"source_id":"s","metric":"m","value":true,"timestamp":"2026-11-22 01:51:23.595"}]}',
        b'{"data":[{"source_id":"s","metric":"m","value":1e999,"timestamp":"2026-11-22 01:51:23.595"}]}',
        b'{"data":[{"source_id":"s","metric":"m","value":NaN,"timestamp":"2026-11-22 01:51:23.595"}]}',
        b'{"data":[{"source_id":"\xff","metric":"m","value":1,"timestamp":"2026-11-22 01:51:23.595"}]}',
        b'{"data":[],"x":' + b"[" * 100_000,
        b'{"data":[]} trailing',
    ],
    ids=lambda body: repr(body[:60]),
)
def test_another_shape_is_a_contract_error(body: bytes) -> None:
    """Whatever is not a telemetry answer is refused with a sentence, not taken for an empty page."""
    with pytest.raises(ContractError, match=r"^telemetry answer: .+; the body starts '"):
        wire.decode_telemetry(body, SeriesTable())


def test_a_page_cut_anywhere_is_refused() -> None:
    """No proper prefix of an answer decodes."""
    whole = body_of("telemetry.normal")
    for length in range(len(whole)):
        with pytest.raises(ContractError):
            wire.decode_telemetry(whole[:length], SeriesTable())


def test_a_body_above_the_limit_is_refused() -> None:
    """The size limit is an argument and is exact."""
    body = body_of("telemetry.normal")
    assert wire.decode_telemetry(body, SeriesTable(), bytes_max=len(body)).count == 5
    with pytest.raises(ContractError, match="more than the 10 allowed"):
        wire.decode_telemetry(body, SeriesTable(), bytes_max=10)


def test_series_are_interned_in_the_table_given() -> None:
    """Known pairs keep their index, new ones are added in order of first sight, in one page alike."""
    table = SeriesTable()
    table.add("b", "n")
    body = page_of([row_of(s, m, 1, GOOD_TIME) for s, m in [("a", "m"), ("b", "n"), ("b", "m"), ("a", "m")]])
    assert wire.decode_telemetry(body, table).points.series.tolist() == [1, 0, 2, 1]
    assert wire.decode_telemetry(body, table).points.series.tolist() == [1, 0, 2, 1]
    assert table.keys == [("b", "n"), ("a", "m"), ("b", "m")]


@pytest.mark.parametrize(
    "query",
    [None, {}, 5, {"to": None}, {"to": 5}, {"to": "soon"}, {"to": "2026-11-22 01:52:38.107"}],
    ids=repr,
)
def test_an_unreadable_window_is_none(query: Any) -> None:
    """A window that is absent, of another shape or without a zone costs only ``to_ms``."""
    page = wire.decode_telemetry(page_of([row_of("s", "m", 1, GOOD_TIME)], query=query), SeriesTable())
    assert (page.count, page.to_ms) == (1, None)
