"""Messages of one partition to readings, as columns; a message that is none is a reject with its reason.

What makes it fast: msgspec reads only the wanted fields, by types made from the shape; the names of the
sensors of a message are one tuple, which is looked up whole; and times are converted all at once. What does
not fit the types is read again by ``patient``, which finds what can be used or says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from plexus_detect.series import F64, I64
from plexus_detect.stats import usable
from plexus_detect.stream.patient import iso_s, patiently
from plexus_detect.stream.rejects import MESSAGE_BYTES_MAX, SENSORS_MAX, SENTENCES, Refused, Reject
from plexus_detect.stream.shape import MS_OF, Path, Shape

# Keys that are remembered with their devices: more than a partition has.
REMEMBERED_MAX = 100_000

# No sample of a device that lives today is outside (0, 2**42) ms: the years 1970 to 2109.
TIME_MAX_MS = 1 << 42

# A number below the first is in seconds, below the second in ms, below the third in us; above that in ns.
_AUTO = (1e11, 1e14, 1e17)

# One message as ``patient.Row`` has it.
Taken = tuple[float, bool, int | None, str, tuple[str, ...], Iterable[float | None]]

# A name that no JSON of a device has: what the shape does not read.
_ABSENT: Path = ("plexus-detect: not read",)


@dataclass(frozen=True)
class Batch:
    """Messages of one partition in order of their offsets: the bytes of values (None: there are none) and
    keys, the broker's timestamps in ms (0 or less: unknown), and the offsets."""

    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    broker_ms: Sequence[int]
    offsets: Sequence[int]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, part: slice) -> Batch:
        """A part of the messages."""
        return Batch(self.values[part], self.keys[part], self.broker_ms[part], self.offsets[part])


@dataclass(frozen=True)
class Readings:
    """What n messages say: ``at`` their numbers in the batch, the device and the time of each, the broker's
    time, the index of the sample (None: not said), the names of the sensors, and all values one after
    another (NaN: not a number), those of message i from ``starts[i]`` to ``starts[i + 1]``."""

    at: I64
    device: list[str]
    t_ms: I64
    broker_ms: I64
    sample_index: list[int | None]
    names: list[tuple[str, ...]]
    values: F64
    starts: I64

    def __len__(self) -> int:
        return len(self.device)

    def part(self, start: int, end: int) -> Readings:
        """The messages from ``start`` to before ``end``."""
        if end - start == len(self):
            return self
        first, last = self.starts[start], self.starts[end]
        return Readings(
            self.at[start:end],
            self.device[start:end],
            self.t_ms[start:end],
            self.broker_ms[start:end],
            self.sample_index[start:end],
            self.names[start:end],
            self.values[first:last],
            self.starts[start : end + 1] - first,
        )

    def take(self, rows: I64) -> Readings:
        """Some of the messages, in order."""
        sizes = np.diff(self.starts)
        kept = np.zeros(len(self), np.bool_)
        kept[rows] = True
        return Readings(
            self.at[rows],
            [self.device[i] for i in rows.tolist()],
            self.t_ms[rows],
            self.broker_ms[rows],
            [self.sample_index[i] for i in rows.tolist()],
            [self.names[i] for i in rows.tolist()],
            self.values[np.repeat(kept, sizes)],
            np.append(0, np.cumsum(sizes[rows])),
        )

    def values_of(self, i: int) -> dict[str, float]:
        """The numbers that message ``i`` has."""
        values = self.values[self.starts[i] : self.starts[i + 1]].tolist()
        return {name: x for name, x in zip(self.names[i], values, strict=True) if x == x}


@dataclass
class _Rows:
    """Readings while they are put together."""

    at: list[int] = field(default_factory=list)
    stamp: list[float] = field(default_factory=list)
    iso: list[int] = field(default_factory=list)
    index: list[int | None] = field(default_factory=list)
    device: list[str] = field(default_factory=list)
    names: list[tuple[str, ...]] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)

    def add(self, i: int, row: Taken) -> None:
        """Put message ``i`` down."""
        stamp, iso, index, device, names, values = row
        if iso:
            self.iso.append(len(self.at))
        self.at.append(i)
        self.stamp.append(stamp)
        self.index.append(index)
        self.device.append(device)
        self.names.append(names)
        self.values.extend(values)


class Decoder:
    """Reads messages of one shape. ``max_ahead_ms`` is how far a sample may be ahead of the broker's time."""

    def __init__(
        self, shape: Shape, max_ahead_ms: int = 300_000, message_bytes_max: int = MESSAGE_BYTES_MAX
    ) -> None:
        self._shape = shape
        self._max_ahead_ms = max_ahead_ms
        self._bytes_max = message_bytes_max
        self._decode, self._row = _typed(shape)
        self._sensors = _sensors_of(shape)
        self._devices: dict[bytes | str | None, str] = {}

    def read(self, batch: Batch) -> tuple[Readings, list[Reject]]:
        """The readings of a batch, and the messages that are none."""
        rows, rejects = _Rows(), list[Reject]()
        decode, row_of, sensors_of, devices = self._decode, self._row, self._sensors, self._devices
        most, keyed = self._bytes_max, self._shape.device is None
        for i, (value, key) in enumerate(zip(batch.values, batch.keys, strict=True)):
            try:
                if len(value) > most:  # type: ignore[arg-type]
                    raise ValueError(value)
                row = row_of(decode(value))  # type: ignore[arg-type]
                stamp, iso = row[0], False
                if type(stamp) is str:
                    stamp, iso = iso_s(stamp), True
                names, values = sensors_of(row)
                if stamp is None or not 0 < len(names) <= SENSORS_MAX:
                    raise ValueError(stamp)
                rows.add(i, (stamp, iso, row[1], devices[key if keyed else row[2]], names, values))
            except (ValueError, TypeError, AttributeError, LookupError, OverflowError):
                # msgspec's errors are ValueErrors. A path that leads nowhere is an AttributeError, and a
                # device that is new a LookupError.
                try:
                    rows.add(i, self._patiently(value, key))
                except Refused as refused:
                    rejects.append(Reject(i, batch.offsets[i], refused.reason, refused.text))
        return self._readings(rows, batch, rejects)

    def _patiently(self, value: bytes | None, key: bytes | None) -> Taken:
        """A message that is not as most are. Raises Refused."""
        if not value:
            raise Refused("empty")
        if len(value) > self._bytes_max:
            raise Refused("too_large", size=len(value), most=self._bytes_max)
        row = patiently(self._shape, value, key)
        if len(self._devices) >= REMEMBERED_MAX:
            self._devices.clear()
        self._devices[key if self._shape.device is None else row.device] = row.device
        return row

    def _readings(self, rows: _Rows, batch: Batch, rejects: list[Reject]) -> tuple[Readings, list[Reject]]:
        """Everything in columns, without the messages whose time or numbers cannot be."""
        at = np.array(rows.at, np.int64)
        values = np.array(rows.values, np.float64)
        sizes = np.fromiter(map(len, rows.names), np.int64, len(rows.names))
        starts = np.append(0, np.cumsum(sizes))
        # What is no number, or so large that sums of it are none, is not there.
        values[~usable(values)] = np.nan
        t_ms = self._times(rows)
        broker_ms = np.array(batch.broker_ms, np.int64)[at] if len(at) else at
        latest = np.where(broker_ms > 0, broker_ms, TIME_MAX_MS) + self._max_ahead_ms
        numbers = np.append(0, np.cumsum(~np.isnan(values)))
        bad = (
            ~((t_ms > 0) & (t_ms < TIME_MAX_MS))
            | (t_ms > latest)
            | (numbers[starts[1:]] == numbers[starts[:-1]])
        )
        t_ms = np.where(bad, np.clip(t_ms, -TIME_MAX_MS, TIME_MAX_MS), t_ms)
        out = Readings(
            at, rows.device, t_ms.astype(np.int64), broker_ms, rows.index, rows.names, values, starts
        )
        if not bad.any():
            return out, rejects
        rejects += [self._wrong(out, i, batch) for i in np.flatnonzero(bad).tolist()]
        return out.take(np.flatnonzero(~bad)), sorted(rejects, key=lambda reject: reject.at)

    def _times(self, rows: _Rows) -> F64:
        """The times of all rows in ms; whole, but not yet sure to be possible."""
        stamp, unit = np.array(rows.stamp, np.float64), self._shape.unit
        if unit == "auto":
            size = np.abs(stamp)
            scale = np.select([size < limit for limit in _AUTO], [1e3, 1.0, 1e-3], 1e-6)
        else:
            scale = np.full(len(stamp), MS_OF.get(unit, 1e3))
        scale[rows.iso] = 1e3
        out: F64 = np.rint(stamp * scale)
        return out

    def _wrong(self, readings: Readings, i: int, batch: Batch) -> Reject:
        """What is wrong with the time or the numbers of a message."""
        t_ms, ahead_ms = int(readings.t_ms[i]), int(readings.t_ms[i] - readings.broker_ms[i])
        reason, facts = "no_numbers", {"where": " and ".join(".".join(p) for p, _ in self._shape.places())}
        if not 0 < t_ms < TIME_MAX_MS:
            reason, facts = "time_impossible", {"detail": f"{t_ms / 1000:.0f} s since 1970"}
        elif readings.broker_ms[i] > 0 and ahead_ms > self._max_ahead_ms:
            most = f"{self._max_ahead_ms / 1000:.0f}"
            reason, facts = "time_ahead", {"ahead": f"{ahead_ms / 1000:.0f}", "most": most}
        at = int(readings.at[i])
        return Reject(at, batch.offsets[at], reason, SENTENCES[reason].format(**facts))


def _typed(shape: Shape) -> tuple[Callable[[bytes], Any], Callable[[Any], tuple[Any, ...]]]:
    """A decoder of the wanted fields only, and what makes a row of its answer: stamp, index, device, and what
    the sensors are read from."""
    tree: dict[str, Any] = {}
    stamp: Any = {"auto": int | float | str, "iso": str}.get(shape.unit, int | float)
    wanted = [(shape.timestamp, stamp), (shape.sample_index or _ABSENT, int), (shape.device or _ABSENT, str)]
    wanted += shape.places()
    for path, kind in wanted:
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = kind
    numbers = dict[tuple[str, ...], str]()
    decoder = msgspec.json.Decoder(_struct(tree, (), numbers))
    return decoder.decode, attrgetter(*(numbers[path] for path, _kind in wanted))


def _struct(tree: Mapping[str, Any], above: Path, names: dict[Path, str], under: str = "") -> Any:  # noqa: ANN401
    """The type of an object with these fields, each None where it is missing; ``names`` becomes the attribute
    of each path."""
    fields: list[tuple[str, Any, Any]] = []
    rename: dict[str, str] = {}
    for i, (key, kind) in enumerate(tree.items()):
        name, path = f"f{i}", (*above, key)
        rename[name], names[path] = key, f"{under}{name}"
        if isinstance(kind, dict):
            kind = _struct(kind, path, names, f"{under}{name}.")
        fields.append((name, kind | None, None))
    return msgspec.defstruct("Message", fields, rename=rename, gc=False)


def _sensors_of(shape: Shape) -> Callable[[tuple[Any, ...]], tuple[tuple[str, ...], Sequence[float | None]]]:
    """What gives the names and values of the sensors of a row."""
    if shape.metric is not None and shape.value is not None:
        return lambda row: ((row[3],) if row[3] else (), row[4:])
    if shape.fields:
        names = tuple(shape.fields)
        return lambda row: (names, row[3:])
    return lambda row: (tuple(row[3]), row[3].values())
