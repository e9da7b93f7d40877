"""backtest files: the two forms of CSV, and one sentence for everything that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from plexus_detect.backtest.csvfile import read_points
from plexus_detect.backtest.run import read_csv
from plexus_detect.errors import ConfigError
from plexus_detect.series import SeriesKey

NAMES = [SeriesKey("a", "hum"), SeriesKey("a", "temp"), SeriesKey("b", "temp")]


def rows(text: str) -> tuple[list[SeriesKey], list[tuple[int, int, float]]]:
    """The series of a text, and its points as (series, time, value)."""
    keys, points = read_points(text.splitlines(keepends=True), "f.csv", "oven")
    return keys, list(zip(points.series.tolist(), points.t_ms.tolist(), points.value.tolist(), strict=True))


LONG = (0, 1, 1_700_000_000_000, 20.5), (1, 0, 1_700_000_001_000, 50.0), (2, 2, 1_700_000_001_500, 7.0)


@pytest.mark.parametrize(
    "text",
    [
        "timestamp,source,metric,value\n1700000000,a,temp,20.5\n1700000001,a,hum,50\n1700000001.5,b,temp,7\n",
        "\ufeff1700000000000,a,temp,20.5\n1700000001000,a,hum,50\n\n1700000001500,b,temp,7\n",
        "Value,Metric,Source,TS\n20.5,temp,a,2023-11-14T22:13:20Z\n50,hum,a,1700000001\n7,temp,b,1700000001.5\n",
        "time,source,metric,value,note\n1700000000,a,temp,20.5,x\n1700000001,a,hum,50,\n1700000001.5,b,temp,7,\n",
    ],
    ids=["header", "no header", "columns in another order", "further column"],
)
def test_the_long_form(text: str) -> None:
    """Series are numbered by name, whatever the order of rows and columns; times in every form."""
    keys, found = rows(text)
    assert keys == NAMES
    assert found == [(s, t, v) for _i, s, t, v in LONG]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ts,temp,hum\n1700000000,1,2\n1700000001,,3\n", ["hum", "temp"]),
        ("1700000000,2,1\n1700000001,3,\n", ["v0", "v1"]),
        ("2023-11-14T22:13:20,2,1\n2023-11-14T22:13:21,3,\n", ["v0", "v1"]),
    ],
    ids=["header", "no header", "ISO times"],
)
def test_the_wide_form(text: str, names: list[str]) -> None:
    """Columns are metrics of one source, named by the header or as by ``score``; empty is no value."""
    keys, found = rows(text)
    assert keys == [SeriesKey("oven", name) for name in names]
    assert sorted(found) == [
        (0, 1_700_000_000_000, 2.0),
        (0, 1_700_000_001_000, 3.0),
        (1, 1_700_000_000_000, 1.0),
    ]


def test_the_source_of_the_wide_form_is_the_file(tmp_path: Path) -> None:
    """Its name without the ending."""
    path = tmp_path / "machine.csv"
    path.write_text("timestamp,value\n2013-12-02 21:15:00,73.9\n")
    keys, points = read_csv(path)
    assert keys == [SeriesKey("machine", "value")]
    assert points.t_ms.tolist() == [1_386_018_900_000]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "f.csv: there is no row in it"),
        ("source,metric,value\na,t,1\n", "f.csv:1: the header names no column 'timestamp'"),
        ("timestamp,source,metric,value\n1,a,t\n", "f.csv:2: the row has 3 fields, not 4"),
        ("timestamp,source,metric,value\n1,a,t,hot\n", "f.csv:2: could not convert string to float: 'hot'"),
        ("timestamp,source,metric,value\nnoon,a,t,1\n", "f.csv:2: Invalid isoformat string: 'noon'"),
        ("ts,v0\n1,2\n2,3,4\n", "f.csv:3: the row has 3 fields, not 2"),
        ("ts\n1\n", "f.csv:1: the row has one field"),
        ("ts,v0\n-5,2\n", "f.csv:2: -5 is out of range"),
    ],
)
def test_what_cannot_be_read(text: str, words: str) -> None:
    """One sentence with file, line and what to write."""
    with pytest.raises(ConfigError) as raised:
        rows(text)
    assert str(raised.value).startswith(words)
    assert "timestamp,source,metric,value" in str(raised.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """A missing file and one that is not text are said by name."""
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    for name in ("x.csv", "nowhere.csv"):
        with pytest.raises(ConfigError, match=rf"{name}: cannot be read"):
            read_csv(tmp_path / name)
