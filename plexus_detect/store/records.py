"""What is put into a state file and comes out of it, and how points stand in it as bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from plexus_detect.series import I64, Derived, Kind, Points, SeriesKey

_POINT = np.dtype([("series", "<i4"), ("t_ms", "<i8"), ("value", "<f8"), ("late", "?")])
_DERIVED = np.dtype([("series", "<i4"), ("kind", "i1"), ("t_ms", "<i8"), ("value", "<f8")])

# No time is later than this (the year 3084), or as long before 1970.
TIME_MAX_MS = 1 << 45

Columns = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Parcel:
    """A batch of derived points in the outbox; ``sent_ms`` is set when a post of it was begun before."""

    id: int
    derived: Derived
    sent_ms: int | None


@dataclass(frozen=True)
class Snapshot:
    """Running state as it was after journal entry ``journal_id``."""

    id: int
    journal_id: int
    fingerprint: str
    columns: dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Commit:
    """Everything one tick changes; ``series`` are rows (id, key, emit_from_ms or None) not stored before."""

    now_ms: int
    points: Points
    covered_ms: I64
    batches: Sequence[Derived] = ()
    series: Sequence[tuple[int, SeriesKey, int | None]] = ()
    tally: Mapping[str, int] = field(default_factory=dict)


def encode_points(points: Points) -> bytes:
    """The points of a tick as they stand in the journal."""
    raw = np.empty(len(points), _POINT)
    for name in ("series", "t_ms", "value", "late"):
        raw[name] = getattr(points, name)
    return raw.tobytes()


def _require_times(t_ms: I64) -> None:
    if len(t_ms) and not -TIME_MAX_MS <= t_ms.min() <= t_ms.max() <= TIME_MAX_MS:
        raise ValueError("a time that cannot be")


def decode_points(body: bytes) -> Points:
    """The inverse of ``encode_points``; raises ValueError for bytes that it did not make."""
    raw = np.frombuffer(body, _POINT)
    _require_times(raw["t_ms"])
    return Points(raw["series"].astype(np.int64), raw["t_ms"].copy(), raw["value"].copy(), raw["late"].copy())


@dataclass(frozen=True)
class Dropped:
    """What a full outbox gave up: how many points of which series, from the first to the last sample."""

    points: int
    series: int
    since_ms: int
    till_ms: int

    @classmethod
    def of(cls, derived: Derived) -> Dropped:
        """The account of these points, at least one."""
        span = int(derived.t_ms.min()), int(derived.t_ms.max())
        return cls(len(derived), len(np.unique(derived.series)), *span)


def can_wait(derived: Derived) -> bool:
    """Whether nobody waits for these points: they are of the past, for the record."""
    return bool((derived.kind == Kind.ZSCORE_LATE).all())


def encode_derived(derived: Derived) -> bytes:
    """A batch as it stands in the outbox."""
    raw = np.empty(len(derived), _DERIVED)
    for name in ("series", "kind", "t_ms", "value"):
        raw[name] = getattr(derived, name)
    return raw.tobytes()


def decode_derived(body: bytes) -> Derived:
    """The inverse of ``encode_derived``; raises ValueError for bytes that it did not make."""
    raw = np.frombuffer(body, _DERIVED)
    _require_times(raw["t_ms"])
    if len(raw) and not 0 <= raw["kind"].min() <= raw["kind"].max() < len(Kind):
        raise ValueError("a kind of score that there is not")
    return Derived(
        raw["series"].astype(np.int64), raw["kind"].copy(), raw["t_ms"].copy(), raw["value"].copy()
    )


def encode_times(t_ms: I64) -> bytes:
    """A column of times as it stands in the file."""
    return t_ms.astype("<i8").tobytes()


def decode_times(body: bytes) -> I64:
    """The inverse of ``encode_times``; raises ValueError for bytes that it did not make."""
    t_ms = np.frombuffer(body, "<i8").astype(np.int64)
    _require_times(t_ms)
    return t_ms
