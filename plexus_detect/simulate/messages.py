"""Rows as messages of a bus, points of the platform, and lines of CSV. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from plexus_detect.series import F64, I64
from plexus_detect.simulate.fleet import Label, Rows
from plexus_detect.simulate.machine import NAMES

CSV_HEAD = "timestamp,source,metric,value\n"

_ENCODER = msgspec.json.Encoder()


class Columns(NamedTuple):
    """Values that are there, one a point, in order of time: the first point of all sensors, then the next."""

    device: I64
    sensor: I64
    t_ms: I64
    value: F64


def columns(rows: Rows) -> Columns:
    """The values of rows, without those that are lost."""
    at, sensor = np.nonzero(np.isfinite(rows.x))
    return Columns(rows.device[at], sensor, rows.t_ms[at], rows.x[at, sensor])


def messages(rows: Rows, sources: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Key and value of a message for each row: ``{"timestamp", "sample_index", "sensors"}``, in milliseconds
    since the epoch, without the values that are lost; a row that lost all is no message."""
    encode, whole = _ENCODER.encode, bool(np.isfinite(rows.x).all())
    lists = rows.device.tolist(), rows.t_ms.tolist(), rows.row.tolist(), rows.x.tolist()
    for device, t_ms, index, x in zip(*lists, strict=True):
        sensors = dict(zip(NAMES, x, strict=True))
        if not whole:
            sensors = {name: value for name, value in sensors.items() if value == value}
            if not sensors:
                continue
        value = encode({"timestamp": t_ms, "sample_index": index, "sensors": sensors})
        yield sources[device], value


def csv_lines(rows: Rows, sources: Sequence[str]) -> str:
    """The lines of rows, as ``backtest --csv`` and ``train --csv`` read them."""
    found = columns(rows)
    series = [f"{source},{name}" for source in sources for name in NAMES]
    which = (found.device * len(NAMES) + found.sensor).tolist()
    pairs = zip(found.t_ms.tolist(), which, found.value.tolist(), strict=True)
    return "".join([f"{t_ms},{series[i]},{value}\n" for t_ms, i, value in pairs])


def labels_csv(labels: Sequence[Label]) -> str:
    """The file that ``backtest --labels`` reads."""
    lines = (f"{one.source},{one.metric},{one.start_ms},{one.end_ms},{one.kind}\n" for one in labels)
    return "".join(["source,metric,start,end,kind\n", *lines])
