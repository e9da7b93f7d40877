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

# What remains of a score in the rows after it, below the line: this much of the line at most, half of it
# after so many rows. A ranking then shows where an anomaly was, not only its first row.
AFTERGLOW_MAX, AFTERGLOW_ROWS = 0.8, 400


def score_series(t_ms: npt.ArrayLike, values: npt.ArrayLike, detector: str = "default") -> F64:
    """One score for each row of a series, strictly causal: it uses that row and earlier ones only.

    ``t_ms`` are n times in milliseconds since the epoch, in order of arrival; ``values`` n numbers, or n rows
    of several metrics (the largest score of a row counts). A score is the magnitude of the deviation in
    units of the detector's alert line: 1.0 is at the line. What was at the line lately is discounted, so that
    an anomaly gives one alarm and not one a row, and leaves a glow below the line that fades over some
    hundred rows. NaN while the detector is not ready and where a value is missing. Rows older than one
    before them are scored but not learned, as the worker does.
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
    fresh = bank.step(rows).fresh.reshape(n, k) / params.threshold
    best = np.full(n, np.nan)
    for column in fresh.T:
        best = np.fmax(best, column)
    return _with_afterglow(best, late[::k])


def score_fleet(t_ms: npt.ArrayLike, source: Sequence[str], values: npt.ArrayLike) -> F64:
    """One score for each value of metrics that many sources send, in order of arrival, strictly causal.

    Row i is ``values[i]`` of ``source[i]`` at ``t_ms[i]``, scored against the other sources at that time with
    the device's own level removed. ``values`` are n numbers, which give n scores, or n rows of k metrics,
    which give (n, k) scores: each metric is a fleet of its own. 1.0 is at the alert line. NaN while the
    source is not known well enough, the group is too small, the value is missing, or the row is older than
    one before it of its source. Raises ConfigError for columns of different lengths.
    """
    times, columns = np.asarray(t_ms, np.int64), np.asarray(values, np.float64)
    names = np.asarray(source, np.str_)
    if times.ndim != 1 or not times.shape == names.shape == columns.shape[:1] or columns.ndim > 2:
        raise ConfigError(
            f"score_fleet: {times.shape} times, {names.shape} sources and values of shape {columns.shape} do "
            "not belong together; give n times, n sources and n values or n rows of values"
        )
    distinct, rows = np.unique(names, return_inverse=True)
    k = columns.shape[1] if columns.ndim == 2 else 1
    params = FleetParams()
    fleet = Fleet(params)
    for _ in distinct:
        for metric in range(k):
            fleet.join(metric)
    out = np.full((len(times), k), np.nan)
    timely = np.flatnonzero(~_late_of_each(rows, times))
    series = (k * rows[timely, None] + np.arange(k)).reshape(-1)
    points = Points(series, np.repeat(times[timely], k), columns.reshape(-1, k)[timely].reshape(-1))
    out[timely] = np.abs(fleet.step(points).z).reshape(-1, k) / params.threshold
    return out.reshape(columns.shape)


def _late_of_each(rows: npt.NDArray[np.integer], times: I64) -> Bool:
    """``_late`` for the rows of each source."""
    late = np.zeros(len(rows), np.bool_)
    order = np.argsort(rows, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(rows[order])) + 1):
        late[mine] = _late(times[mine])
    return late


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
            if not row:
                continue
            width = width or len(row)
            if len(row) != width or width < 2:
                raise ValueError(f"it has {len(row)} fields")
            if reader.line_num == 1 and not is_number(row[0]):
                continue
            t = float(row[0])
            if not abs(t) < 1e15:
                raise ValueError(f"time {row[0]!r} is out of range")
            times.append(t * 1000 if abs(t) < 1e12 else t)
            values.append([float(text) if text.strip() else np.nan for text in row[1:]])
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"line {reader.line_num + 1} or one after it is not UTF-8 text ({error.reason}); save it as UTF-8"
        ) from None
    except (ValueError, csv.Error) as error:
        raise ConfigError(
            f"line {reader.line_num}: {error}; a row is a time in seconds or milliseconds and "
            f"{max(1, width - 1)} number(s): ts,v0[,v1...]"
        ) from None
    t_ms = np.round(np.array(times, np.float64)).astype(np.int64)
    return t_ms, np.array(values, np.float64).reshape(len(times), max(1, width - 1))


def _with_afterglow(score: F64, late: Bool) -> F64:
    """Scores, but no less than what remains of those before them; a late row leaves nothing."""
    strength = np.where((score > 0.0) & ~late, np.sqrt(score / (1.0 + score)), np.finfo(np.float64).tiny)
    # A maximum that decays is a running maximum on a logarithmic scale that rises as fast as it decays.
    rising = np.log(2.0) / AFTERGLOW_ROWS * np.cumsum(~late)
    glow = AFTERGLOW_MAX * np.exp(np.maximum.accumulate(np.log(strength) + rising) - rising)
    return np.where(late, score, np.maximum(score, glow))


def is_number(text: str) -> bool:
    """Whether a cell of a CSV is a number."""
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
