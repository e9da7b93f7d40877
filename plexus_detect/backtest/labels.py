"""What is known of the past: intervals of faults, from CSV ``source,metric,start,end[,kind]``. Pure.

An empty metric means any metric of the source, an empty source any source.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass

from plexus_detect.backtest.moments import TIME_FORMS, time_ms
from plexus_detect.errors import ConfigError
from plexus_detect.series import SeriesKey

COLUMNS = ("source", "metric", "start", "end")
ADVICE = f"write source,metric,start,end[,kind], where a time is {TIME_FORMS}"


@dataclass(frozen=True)
class Label:
    """A known fault from ``start_ms`` to ``end_ms``, both included; an empty name fits any."""

    source: str
    metric: str
    start_ms: int
    end_ms: int
    kind: str = ""

    def fits(self, key: SeriesKey) -> bool:
        """Whether the fault is one of this series."""
        return self.source in ("", key.source) and self.metric in ("", key.metric)


def read_labels(lines: Iterable[str], name: str) -> list[Label]:
    """The labels of a CSV file called ``name`` in messages, with or without a header.

    Raises ConfigError with file, line and what to do, and UnicodeDecodeError as it comes.
    """
    reader = csv.reader(lines)
    labels: list[Label] = []
    places: dict[str, int] | None = None
    try:
        for row in reader:
            if not row or not any(field.strip() for field in row):
                continue
            if places is None:
                row[0] = row[0].removeprefix("\ufeff")
                names = [field.strip().lower() for field in row]
                if "start" in names:
                    places = _places(names)
                    continue
                places = {column: i for i, column in enumerate((*COLUMNS, "kind"))}
            labels.append(_label(row, places))
    except UnicodeDecodeError:
        raise
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{name}:{reader.line_num}: {error}; {ADVICE}") from None
    return labels


def _places(names: list[str]) -> dict[str, int]:
    missing = [column for column in COLUMNS if column not in names]
    if missing:
        raise ValueError(f"the header names no column '{missing[0]}'")
    return {column: names.index(column) for column in (*COLUMNS, "kind") if column in names}


def _label(row: list[str], places: dict[str, int]) -> Label:
    if len(row) <= max(places[column] for column in COLUMNS):
        raise ValueError(f"the row has {len(row)} fields")
    at = places.get("kind", len(row))
    kind = row[at].strip() if at < len(row) else ""
    source, metric = row[places["source"]].strip(), row[places["metric"]].strip()
    start_ms, end_ms = time_ms(row[places["start"]]), time_ms(row[places["end"]])
    if end_ms < start_ms:
        raise ValueError(f"the end {row[places['end']].strip()} is before the start")
    return Label(source, metric, start_ms, end_ms, kind)
