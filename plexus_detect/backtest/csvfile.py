"""Points from CSV: the long form ``timestamp,source,metric,value`` or the wide form ``ts,v0[,v1...]``.

The wide form is that of ``score``: its rows belong to one source, its columns are metrics. A header is
optional and tells the forms apart; without one, a row of four fields of which the second is no number is
long. Columns of a long header may stand in any order.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from plexus_detect.backtest.moments import TIME_FORMS, time_ms
from plexus_detect.errors import ConfigError
from plexus_detect.scoring import is_number
from plexus_detect.series import Points, SeriesKey

TIME_NAMES = ("timestamp", "ts", "time")
LONG_NAMES = ("source", "metric", "value")


@dataclass
class _Columns:
    """What has been read: one entry a value, and the number of each series by name."""

    t_ms: array[int] = field(default_factory=lambda: array("q"))
    series: array[int] = field(default_factory=lambda: array("q"))
    value: array[float] = field(default_factory=lambda: array("d"))
    numbers: dict[SeriesKey, int] = field(default_factory=dict)

    def add(self, t_ms: int, source: str, metric: str, text: str) -> None:
        """One value; an empty field is none."""
        if text.strip():
            value = float(text)
            key = SeriesKey(source, metric)
            self.series.append(self.numbers.setdefault(key, len(self.numbers)))
            self.t_ms.append(t_ms)
            self.value.append(value)


def read_points(lines: Iterable[str], name: str, source: str) -> tuple[list[SeriesKey], Points]:
    """The series of a CSV file, sorted by name, and its points in the file's order.

    ``name`` is the file's name for messages, ``source`` the one that rows of the wide form belong to.
    24 bytes a value are held. Raises ConfigError with file and line for what cannot be
    read, and UnicodeDecodeError as it comes.
    """
    reader = csv.reader(lines)
    columns = _Columns()
    try:
        rows = _rows(reader)
        first = next(rows, None)
        if first is None:
            raise ConfigError(f"{name}: there is no row in it; a row is timestamp,source,metric,value")
        place = _long_places(first)
        if place is not None:
            _read_long(first, rows, place, columns)
        else:
            _read_wide(first, rows, source, columns)
    except UnicodeDecodeError:
        raise
    except (ValueError, csv.Error) as error:
        raise ConfigError(
            f"{name}:{reader.line_num}: {error}; write timestamp,source,metric,value or ts,v0[,v1...], "
            f"where a time is {TIME_FORMS}"
        ) from None
    return _sorted_by_name(columns)


def _rows(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """The rows that hold something, without the mark that some programs write at the beginning."""
    for number, row in enumerate(reader):
        if row and number == 0:
            row[0] = row[0].removeprefix("\ufeff")
        if row:
            yield row


def _long_places(row: Sequence[str]) -> tuple[int, int, int, int] | None:
    """Where time, source, metric and value stand in the long form; None for the wide form."""
    names = [text.strip().lower() for text in row]
    if set(LONG_NAMES) <= set(names):
        times = [names.index(name) for name in TIME_NAMES if name in names]
        if not times:
            raise ValueError("the header names no column 'timestamp'")
        return times[0], *(names.index(name) for name in LONG_NAMES)  # type: ignore[return-value]
    if len(row) == 4 and names[0] not in TIME_NAMES and row[1].strip() and not is_number(row[1]):
        return 0, 1, 2, 3
    return None


def _read_long(
    first: list[str], rows: Iterator[list[str]], place: tuple[int, int, int, int], columns: _Columns
) -> None:
    t, s, m, v = place
    width = len(first)
    has_header = first[v].strip().lower() == LONG_NAMES[-1]
    for row in rows if has_header else _after(first, rows):
        if len(row) != width:
            raise ValueError(f"the row has {len(row)} fields, not {width}")
        columns.add(time_ms(row[t]), row[s], row[m], row[v])


def _read_wide(first: list[str], rows: Iterator[list[str]], source: str, columns: _Columns) -> None:
    has_header = first[0].strip().lower() in TIME_NAMES or not _is_time(first[0])
    metrics = first[1:] if has_header else [f"v{k}" for k in range(len(first) - 1)]
    if not metrics:
        raise ValueError("the row has one field")
    for row in rows if has_header else _after(first, rows):
        if len(row) != len(metrics) + 1:
            raise ValueError(f"the row has {len(row)} fields, not {len(metrics) + 1}")
        t_ms = time_ms(row[0])
        for metric, text in zip(metrics, row[1:], strict=True):
            columns.add(t_ms, source, metric.strip(), text)


def _after(first: list[str], rows: Iterator[list[str]]) -> Iterator[list[str]]:
    yield first
    yield from rows


def _is_time(text: str) -> bool:
    try:
        time_ms(text)
    except ValueError:
        return False
    return True


def _sorted_by_name(columns: _Columns) -> tuple[list[SeriesKey], Points]:
    """The numbers of series follow their names, so that nothing depends on the order of the rows."""
    keys = sorted(columns.numbers)
    number = np.zeros(len(keys), np.int64)
    for new, key in enumerate(keys):
        number[columns.numbers[key]] = new
    series = number[np.frombuffer(columns.series, np.int64)] if keys else np.zeros(0, np.int64)
    t_ms = np.frombuffer(columns.t_ms, np.int64) if keys else np.zeros(0, np.int64)
    value = np.frombuffer(columns.value, np.float64) if keys else np.zeros(0)
    return keys, Points(series, t_ms, value)
