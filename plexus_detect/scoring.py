"""The scoring door for data people: columns in, one score a row out, by the code that the worker runs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from plexus_detect.detectors import DEFAULT, REGISTRY, DetectorParams
from plexus_detect.errors import ConfigError
from plexus_detect.fleet import Fleet, FleetParams
from plexus_detect.series import F64, I64, Bool, Points

# After this many rows in a row that are older than an earlier one, but in order among themselves, the clock
# has been set back: the earlier row was wrong, not these.
CLOCK_BACK_ROWS = 10


def score_series(t_ms: npt.ArrayLike, values: npt.ArrayLike, detector: str = "default") -> F64:
    """One score for each row of a series, strictly causal: it uses that row and earlier ones only.

    ``t_ms`` are n times in milliseconds since the epoch, in order of arrival; ``values`` n numbers, or n rows
    of several metrics (the largest score of a row counts). A score is the magnitude of the deviation in
    units of the detector's alert line: 1.0 is at the line. NaN while the detector is not ready and where a
    value is missing. Rows older than one before them are scored but not learned, as the worker does.
    Raises ConfigError for an unknown detector or columns of different lengths.
    """
    times = np.asarray(t_ms, np.int64)
    columns = np.asarray(values, np.float64)
    if columns.ndim == 1:
        columns = columns[:, None]
    if times.ndim != 1 or columns.ndim != 2 or len(times) != len(columns):
        raise ConfigError(
            f"score_series: {times.shape} times and values of shape {np.shape(values)} do not belong "
            "together; give n times and n rows of values"
        )
    name = DEFAULT if detector == "default" else detector
    if name not in REGISTRY:
        raise ConfigError(f"score_series: no detector '{detector}'; there are default, {', '.join(REGISTRY)}")
    params = DetectorParams()
    n, k = columns.shape
    bank = REGISTRY[name](params)
    bank.grow(k)
    late = np.repeat(_late(times), k)
    rows = Points(np.tile(np.arange(k), n), np.repeat(times, k), columns.reshape(-1), late)
    z = np.abs(bank.step(rows).z).reshape(n, k) / params.threshold
    best = np.full(n, np.nan)
    for column in z.T:
        best = np.fmax(best, column)
    return best


def score_fleet(t_ms: npt.ArrayLike, source: Sequence[str], values: npt.ArrayLike) -> F64:
    """One score for each row of a metric that many sources send, in order of arrival, strictly causal.

    Row i is ``values[i]`` of ``source[i]`` at ``t_ms[i]``, scored against the other sources at that time with
    the device's own offset removed. 1.0 is at the alert line; NaN while the source is not known well enough,
    the group is too small or the value is missing. Raises ConfigError for columns of different lengths.
    """
    times, column = np.asarray(t_ms, np.int64), np.asarray(values, np.float64)
    names = np.asarray(source, np.str_)
    if not times.shape == column.shape == names.shape or times.ndim != 1:
        raise ConfigError(
            f"score_fleet: {times.shape} times, {names.shape} sources and {column.shape} values do not "
            "belong together; give three columns of one length"
        )
    distinct, rows = np.unique(names, return_inverse=True)
    params = FleetParams()
    fleet = Fleet(params)
    for _ in distinct:
        fleet.join(0)
    return np.abs(fleet.step(Points(rows.astype(np.int64), times, column)).z) / params.threshold


def read_csv(lines: Iterable[str]) -> tuple[I64, F64]:
    """Times (n,) in milliseconds and values (n, k) of CSV lines ``ts,v0[,v1...]`` with or without a header.

    ``ts`` is a number: below 1e12 seconds, else milliseconds (platform fact, contract section 3). An empty
    field is a missing value. Raises ConfigError with the line's number for anything else.
    """
    times: list[float] = []
    values: list[list[float]] = []
    width = 0
    reader = csv.reader(lines)
    try:
        for row in reader:
            if reader.line_num == 1 and row:
                row[0] = row[0].removeprefix("\ufeff")
            if not row or (reader.line_num == 1 and not _is_number(row[0])):
                continue
            width = width or len(row)
            if len(row) != width or width < 2:
                raise ValueError(f"it has {len(row)} fields")
            t = float(row[0])
            if not abs(t) < 1e15:
                raise ValueError(f"time {row[0]!r} is out of range")
            times.append(t * 1000 if abs(t) < 1e12 else t)
            values.append([float(text) if text.strip() else np.nan for text in row[1:]])
    except (ValueError, csv.Error) as error:
        raise ConfigError(
            f"line {reader.line_num}: {error}; a row is a time in seconds or milliseconds and "
            f"{max(1, width - 1)} number(s): ts,v0[,v1...]"
        ) from None
    t_ms = np.round(np.array(times, np.float64)).astype(np.int64)
    return t_ms, np.array(values, np.float64).reshape(len(times), max(1, width - 1))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _late(times: I64) -> Bool:
    """Marks rows that are not newer than every row before them, but for a clock that was set back."""
    late = np.zeros(len(times), np.bool_)
    if len(times) == 0 or bool(np.all(times[1:] > times[:-1])):
        return late
    newest, before, streak = -(1 << 62), -(1 << 62), 0
    for i, t in enumerate(times.tolist()):
        streak = streak + 1 if t <= newest and t > before else int(t <= newest)
        late[i] = t <= newest and streak < CLOCK_BACK_ROWS
        if not late[i]:
            newest, streak = t, 0
        before = t
    return late
