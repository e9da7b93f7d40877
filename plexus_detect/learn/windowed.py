"""Windows of several sensors, rebuilt by autoencoders of several window sizes: what cannot be rebuilt is odd.

An autoencoder that has seen normal windows rebuilds what the sensors have in common (Hinton and Salakhutdinov
2006). A sensor that no longer follows the others is not rebuilt, although each of its values is usual. A
window is looked at in a few bins, each the mean of its rows: a small size sees spikes, a large one sees what
goes on for long, with less noise. The error of a window is that of its worst sensor: the mean squared
difference over the bins, in units of the one that is usual for the sensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.errors import ConfigError, ModelError
from plexus_detect.learn.fitted import Card
from plexus_detect.learn.model import Arrays, array_json, json_array
from plexus_detect.learn.models.onnx import OnnxModel
from plexus_detect.learn.scale import Scale
from plexus_detect.series import F64, I8, I64, Bool

Threshold = Literal["aggressive", "balanced", "conservative"]

# Which part of normal rows, in percent, stays below the line.
PERCENTILES: dict[Threshold, float] = {"aggressive": 95.0, "balanced": 99.0, "conservative": 99.5}

# A ratio above this is critical.
CRITICAL = 3.0

# A window of this many rows or fewer is looked at row by row; a larger one in BINS bins.
ROWS_EACH, BINS = 15, 8

# Rows a window may have, and windows a detector.
SIZE_MAX, SIZES_MAX = 4096, 8

# The autoencoders are given no value further than this from the middle, in interquartile ranges: what lies
# beyond must not disturb how the other sensors are rebuilt. It counts in the error, up to AWAY_MAX.
GIVEN_MAX, AWAY_MAX = 6.0, 1e6

# Rows scored at a time: bounds the memory of a long batch.
CHUNK = 4096

# Time of an alert that there was not.
_NEVER = -(1 << 62)

# The version of the form of ``arrays``.
FORM = 1


@dataclass(frozen=True)
class WindowedParams:
    """Window sizes in rows, ascending, each up to 15 or a multiple of 8; the name of the threshold;
    milliseconds of event time after an alert in which there is no further one; the seed of the fit.

    Raises ConfigError for other values.
    """

    sizes: tuple[int, ...] = (8, 32, 128)
    threshold: Threshold = "balanced"
    cool_down_ms: int = 1_800_000
    seed: int = 42

    def __post_init__(self) -> None:
        sizes = self.sizes
        fits = all(2 <= s <= SIZE_MAX and (s <= ROWS_EACH or s % BINS == 0) for s in sizes)
        if not (0 < len(sizes) <= SIZES_MAX and fits and list(sizes) == sorted(set(sizes))):
            raise ConfigError(
                f"sizes: {list(sizes)}; give up to {SIZES_MAX} ascending numbers of rows, each 2 to "
                f"{ROWS_EACH} or a multiple of {BINS} up to {SIZE_MAX}"
            )
        if self.threshold not in PERCENTILES:
            raise ConfigError(f"threshold: {self.threshold!r}; there are {', '.join(PERCENTILES)}")
        if self.cool_down_ms < 0:
            raise ConfigError(f"cool_down_ms: {self.cool_down_ms} is below zero")


def bins_of(size: int) -> int:
    """How many bins a window of so many rows is looked at in."""
    return size if size <= ROWS_EACH else BINS


def windows(z: F64, size: int, starts: I64) -> F64:
    """The windows of rows z, (n, c), that begin at these rows, in bins: (len(starts), bins, c). NaN where a
    value is missing."""
    bins = bins_of(size)
    each = size // bins
    # Added up row by row, so that a window has the same bits in every batch.
    sums = np.zeros((len(z) - each + 1, z.shape[1]))
    for j in range(each):
        sums += z[j : j + len(sums)]
    return np.stack([sums[starts + b * each] for b in range(bins)], axis=1) / each


@dataclass(frozen=True)
class View:
    """One window size: its autoencoder, the usual error of each sensor, (c,), and the error at the line of
    each threshold, (3,), in the order of PERCENTILES."""

    size: int
    net: OnnxModel
    usual: F64
    lines: F64

    def errors(self, w: F64) -> F64:
        """The error of each sensor in windows, (m, bins, c) and finite, in usual ones: (m, c)."""
        m, bins, c = w.shape
        given = np.minimum(np.maximum(w, -GIVEN_MAX), GIVEN_MAX).reshape(m, bins * c)
        squares = (w - self.net.run(given).reshape(m, bins, c)) ** 2
        total = np.zeros((m, c))
        for b in range(bins):
            total += squares[:, b]
        out: F64 = total / bins / self.usual
        return out


class Alarms(NamedTuple):
    """What is said of m rows, by the windows that end at them.

    ``ratio`` is the largest error of all sizes in units of its line: 1.0 is at the line; NaN while no window
    is full, and where each has a value missing. ``size`` is the window size that gave it (0: none).
    ``severity`` is 0 up to the line, 1 above it and 2, critical, above three times the line. ``alert`` marks
    the rows that are alerts after the cool-down. ``shares`` (m, c) is the part of each sensor in the error.
    """

    ratio: F64
    size: I64
    severity: I8
    alert: Bool
    shares: F64


class _Scored(NamedTuple):
    """The first, second and last column of ``Alarms``: what does not depend on the time."""

    ratio: F64
    size: I64
    shares: F64


@dataclass(frozen=True)
class Windowed:
    """Fitted autoencoders of windows of c sensors: values only; ``stream()`` scores with them.

    ``card`` says what it was fitted to, in JSON values.
    """

    names: tuple[str, ...]
    params: WindowedParams
    scale: Scale
    views: tuple[View, ...]
    card: Mapping[str, object]

    @property
    def about(self) -> Card:
        """The card in the form that every model has."""
        facts = {key: value for key, value in self.card.items() if key in Card.__dataclass_fields__}
        own = {"backend": "windowed autoencoder", "contamination": 0.0, "seed": self.params.seed}
        return Card(**{"left_out": 0, "version": 1, **facts, **own})  # type: ignore[arg-type]

    def stream(self) -> WindowStream:
        """A scorer that has seen nothing yet."""
        return WindowStream(self)

    def scaled(self, x: F64) -> F64:
        """Rows x, (m, c), in interquartile ranges from the middle; NaN for what is not a finite number."""
        z = self.scale.of_rows(np.where(np.isfinite(x), x, np.nan))
        return np.minimum(np.maximum(z, -AWAY_MAX), AWAY_MAX)

    def is_as(self, other: Windowed) -> bool:
        """Whether another one is the same model, whatever their thresholds are."""
        mine, others = (
            [(v.size, v.net.fingerprint, v.lines.tolist()) for v in w.views] for w in (self, other)
        )
        return self.names == other.names and mine == others

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything as named arrays; no object in them needs pickle."""
        about = {
            "form": FORM,
            "names": self.names,
            "params": asdict(self.params),
            "fingerprints": [view.net.fingerprint for view in self.views],
            "card": dict(self.card),
        }
        out: dict[str, npt.NDArray[np.generic]] = {
            "about": json_array(about),
            **self.scale.arrays(),
        }
        for view in self.views:
            out[f"onnx_{view.size}"] = np.frombuffer(view.net.data, np.uint8)
            out[f"usual_{view.size}"], out[f"lines_{view.size}"] = view.usual, view.lines
        return out

    @staticmethod
    def of(arrays: Arrays, names: tuple[str, ...] | None = None) -> Windowed:
        """The detector that gave these arrays; ``names``, where given, must be its sensors in their order.

        Raises ModelError when the arrays are damaged or changed, or the sensors are others.
        """
        try:
            about = array_json(arrays["about"])
            if about["form"] != FORM:
                raise ModelError(
                    f"this program reads windowed models of form {FORM}, not {about['form']!r}; fit it again"
                )
            held = tuple(about["names"])
            if names is not None and names != held:
                raise ModelError(f"the windowed model was made for the sensors {held}, not {names}")
            params = WindowedParams(**{**about["params"], "sizes": tuple(about["params"]["sizes"])})
            pairs = zip(params.sizes, about["fingerprints"], strict=True)
            views = tuple(_view(arrays, size, fingerprint, len(held)) for size, fingerprint in pairs)
            return Windowed(held, params, Scale.of(arrays), views, about["card"])
        except (KeyError, ValueError, TypeError, ConfigError) as error:
            raise ModelError(f"this is no windowed model, or a damaged one ({error}); fit it again") from None


def _view(arrays: Arrays, size: int, fingerprint: str, c: int) -> View:
    columns = [f"{sensor}_{b}" for b in range(bins_of(size)) for sensor in range(c)]
    data = np.asarray(arrays[f"onnx_{size}"], np.uint8).tobytes()
    card = {"fingerprint": fingerprint, "columns": columns, "orientation": "higher"}
    net = OnnxModel.load(data, card, columns)
    usual, lines = (np.asarray(arrays[f"{name}_{size}"], np.float64) for name in ("usual", "lines"))
    if not net.rebuilds or usual.shape != (c,) or lines.shape != (len(PERCENTILES),):
        raise ModelError("this is no windowed model, or a damaged one (shapes); fit it again")
    return View(size, net, usual, lines)


def step_together(streams: Sequence[WindowStream], xs: Sequence[F64], times: Sequence[I64]) -> list[Alarms]:
    """What each of several streams of one model says of its rows: windows of all sources in one inference.

    The bits are those of ``step`` for each of them. Raises ModelError for another number of sensors.
    """
    for stream, x, t_ms in zip(streams, xs, times, strict=True):
        stream._require(x, t_ms)  # noqa: SLF001 - the streams are this function's own
    parts: list[list[_Scored]] = [[] for _ in streams]
    for bundle in _bundles([len(x) for x in xs]):
        fitted = streams[bundle[0][0]].fitted
        rows = [streams[i]._with_past(fitted.scaled(xs[i][a : a + CHUNK])) for i, a in bundle]  # noqa: SLF001
        past = max(fitted.params.sizes) - 1
        ends = np.cumsum([len(r) for r in rows])
        at = np.concatenate(
            [np.arange(e - len(r) + past, e) for e, r in zip(ends.tolist(), rows, strict=True)]
        )
        scored = _scored(fitted, np.concatenate(rows), at)
        splits = np.cumsum([len(r) - past for r in rows])[:-1]
        for (i, _a), *part in zip(bundle, *(np.split(column, splits) for column in scored), strict=True):
            parts[i].append(_Scored(*part))
    return [
        stream._alarms(part, t_ms)  # noqa: SLF001
        for stream, part, t_ms in zip(streams, parts, times, strict=True)
    ]


def _bundles(sizes: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
    """Streams with the first of the rows to take of each, no more than CHUNK at once, none twice in one."""
    bundle, n = list[tuple[int, int]](), 0
    for i, size in enumerate(sizes):
        for a in range(0, size, CHUNK):
            m = min(CHUNK, size - a)
            if bundle and n + m > CHUNK:
                yield bundle
                bundle, n = [], 0
            bundle.append((i, a))
            n += m
    if bundle:
        yield bundle


def _scored(fitted: Windowed, rows: F64, ends: I64) -> _Scored:
    """What the windows say that end at these of the scaled rows."""
    m, c = len(ends), rows.shape[1]
    line = list(PERCENTILES).index(fitted.params.threshold)
    ratio, size, shares = np.full(m, np.nan), np.zeros(m, np.int64), np.full((m, c), np.nan)
    for view in fitted.views:
        w = windows(rows, view.size, ends - view.size + 1)
        full = np.flatnonzero(np.isfinite(w).all(axis=(1, 2)))
        errors = view.errors(w[full])
        mine = errors.max(axis=1, initial=0.0) / view.lines[line]
        larger = ~(mine <= ratio[full])
        at = full[larger]
        ratio[at], size[at] = mine[larger], view.size
        total = np.add.accumulate(errors[larger], axis=1)[:, -1:]
        # A window that is rebuilt exactly is nobody's doing.
        shares[at] = np.where(total > 0.0, errors[larger] / np.where(total > 0.0, total, 1.0), 1.0 / c)
    return _Scored(ratio, size, shares)


class WindowStream:
    """Scores one source's rows as they come. The same rows give the same bits, cut into calls anyhow.

    State is bounded: the rows of the largest window, and when alerts were.
    """

    def __init__(self, fitted: Windowed) -> None:
        self.fitted = fitted
        # Rows that are not there yet are missing ones: a window is scored when it is full.
        self._rows = np.full((max(fitted.params.sizes) - 1, len(fitted.names)), np.nan)
        # When the last alert was, and the last critical one, in milliseconds.
        self._alerted = np.full(2, _NEVER, np.int64)

    def step(self, x: F64, t_ms: I64) -> Alarms:
        """What is said of rows x, (m, c) with NaN for missing values, at times t_ms, (m,), ascending.

        Raises ModelError for another number of sensors.
        """
        return step_together([self], [x], [t_ms])[0]

    def _require(self, x: F64, t_ms: I64) -> None:
        c = len(self.fitted.names)
        if x.ndim != 2 or x.shape[1] != c or len(x) != len(t_ms):
            raise ModelError(f"the windowed model takes rows of {c} sensors with a time each, not {x.shape}")

    def _with_past(self, z: F64) -> F64:
        """Scaled rows with those before them, which are then forgotten but for the last ones."""
        rows = np.concatenate([self._rows, z])
        self._rows = rows[len(rows) - len(self._rows) :].copy()
        return rows

    def _alarms(self, parts: Sequence[_Scored], t_ms: I64) -> Alarms:
        """What the scores of rows at these times mean."""
        c = len(self.fitted.names)
        parts = parts or [_Scored(np.zeros(0), np.zeros(0, np.int64), np.zeros((0, c)))]
        ratio, size, shares = (np.concatenate(column) for column in zip(*parts, strict=True))
        severity = ((ratio > 1.0).astype(np.int8) + (ratio > CRITICAL)).astype(np.int8)
        return Alarms(ratio, size, severity, self._alerts(severity, t_ms), shares)

    def _alerts(self, severity: I8, t_ms: I64) -> Bool:
        """Rows above the line that no earlier alert within the cool-down has told of; the cool-down of a
        warning does not hold a critical one back."""
        alert = np.zeros(len(severity), np.bool_)
        quiet = self.fitted.params.cool_down_ms
        last, critical = self._alerted.tolist()
        for i in np.flatnonzero(severity > 0).tolist():
            t = int(t_ms[i])
            grave = severity[i] > 1
            if t - (critical if grave else last) < quiet:
                continue
            alert[i], last, critical = True, t, t if grave else critical
        self._alerted = np.array([last, critical], np.int64)
        return alert

    # -- state

    def reset(self) -> None:
        """Forget everything seen."""
        self._rows = np.full(self._rows.shape, np.nan)
        self._alerted = np.full(2, _NEVER, np.int64)

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns: rows in the scale of the model, which is beside them."""
        return {"rows": self._rows.copy(), "alerted": self._alerted.copy(), **self.fitted.scale.arrays()}

    def load(self, columns: Arrays) -> None:
        """Take over what ``dump`` gave, also that of an older model of the same sensors: what it has seen
        goes on in the new scale. Raises ModelError for the state of a model of other sensors."""
        rows, was = np.asarray(columns["rows"], np.float64), Scale.of(columns)
        size, c = self._rows.shape
        if rows.ndim != 2 or rows.shape[1] != c or was.unit.shape != (c,):
            raise ModelError(f"the state is of another windowed model: {rows.shape}, not {self._rows.shape}")
        mine = self.fitted.scale
        if not (np.array_equal(was.centre, mine.centre) and np.array_equal(was.unit, mine.unit)):
            rows = self.fitted.scaled(rows * was.unit + was.centre)
        # A larger window has to be filled first; of a smaller one the oldest rows are not needed.
        missing = np.full((max(0, size - len(rows)), c), np.nan)
        self._rows = np.concatenate([missing, rows[max(0, len(rows) - size) :]])
        self._alerted = np.asarray(columns["alerted"], np.int64).copy()
