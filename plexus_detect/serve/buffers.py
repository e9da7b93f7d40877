"""Polars buffers: named windows of rows whose rolling and lag features can be asked for."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plexus_detect import clock
from plexus_detect.logs import event
from plexus_detect.serve.refused import Refused
from plexus_detect.serve.settings import COLUMNS_MAX, Settings
from plexus_detect.training.versions import packed, unpacked, written

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

Cell = str | int | float | bool | None

STATS = ("mean", "std", "min", "max")
WINDOWS, LAGS = (5, 10, 20), (1, 2, 3)

# Rows wait in a list until so many are there, or someone looks: one frame of one chunk then takes them all.
WAITING_ROWS, WAITING_CHARS = 512, 1_000_000

# An answer of more values than this is refused; it is asked for with ``tail`` then.
CELLS_MAX = 2_000_000

# What a column holds, each wider than those before it: a column with two kinds holds the wider.
_KINDS = ("null", "bool", "int", "float", "text")

# A column of objects or lists holds their JSON; with anything else beside them it is one of text.
_NESTED = "nested"


class Buffer:
    """The newest ``window_size`` rows. ``dirty`` says that it differs from what is saved."""

    def __init__(self, buffer_id: str, window_size: int) -> None:
        self.buffer_id = buffer_id
        self.window_size = window_size
        self.touched_ms = clock.now_ms()
        self.dirty = True
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self._frame: pl.DataFrame | None = None
        self.kinds: dict[str, str] = {}
        self._waiting: list[Mapping[str, Any]] = []
        self._waiting_chars = 0
        self.rows = 0
        self.appended, self.append_ms, self.size_bytes = 0, 0.0, 0
        self.dirty = True

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows; raises Refused (400) for too many columns."""
        began_s = clock.monotonic_s()
        kinds = dict(self.kinds)
        for row in rows:
            for name, value in row.items():
                kinds[name] = _wider(kinds.get(name, "null"), value)
        if len(kinds) > COLUMNS_MAX:
            raise Refused(400, f"The buffer would have {len(kinds)} columns; at most {COLUMNS_MAX} can be")
        self.kinds = kinds
        plain = [{name: _plain(value) for name, value in row.items()} for row in rows if row]
        self._waiting += plain
        self._waiting_chars += sum(len(v) for row in plain for v in row.values() if isinstance(v, str))
        self.rows = min(self.rows + len(plain), self.window_size)
        if len(self._waiting) >= WAITING_ROWS or self._waiting_chars > WAITING_CHARS:
            self.frame()
        self.appended += len(rows)
        self.append_ms += (clock.monotonic_s() - began_s) * 1000.0
        self.touched_ms = clock.now_ms()
        self.dirty = True

    def frame(self) -> pl.DataFrame:
        """All rows, in one chunk."""
        import polars as pl

        plain = {"null": pl.Null, "bool": pl.Boolean, "int": pl.Int64, "float": pl.Float64}
        types = {name: plain.get(kind, pl.String) for name, kind in self.kinds.items()}
        if self._waiting or self._frame is None:
            rows = self._waiting[-self.window_size :]
            # By series and never by expression: there the names "*" and "^a$" are patterns.
            new = pl.DataFrame(
                {
                    name: pl.Series(name, [_as(kind, row.get(name)) for row in rows], types[name])
                    for name, kind in self.kinds.items()
                }
            )
            if self._frame is None or not self._frame.height:
                frame = new
            else:
                old = pl.DataFrame(
                    {s.name: s.alias("column").cast(types[s.name]) for s in self._frame.iter_columns()}
                )
                frame = pl.concat([old, new], how="diagonal") if new.height else old
            self._frame = frame.tail(self.window_size).rechunk()
            self._waiting, self._waiting_chars = [], 0
            self.size_bytes = int(self._frame.estimated_size())
        return self._frame

    @property
    def numeric(self) -> list[str]:
        """The columns of numbers."""
        return [name for name, kind in self.kinds.items() if kind in ("int", "float")]

    def stats(self) -> dict[str, Any]:
        """The documented figures."""
        self.frame()
        return {
            "buffer_id": self.buffer_id,
            "size": self.rows,
            "window_size": self.window_size,
            "columns": list(self.kinds),
            "numeric_columns": self.numeric,
            "memory_bytes": self.size_bytes,
            "append_count": self.appended,
            "avg_append_ms": self.average_ms,
        }

    @property
    def average_ms(self) -> float:
        """What adding a row took, milliseconds."""
        return self.append_ms / self.appended if self.appended else 0.0

    def rows_of(self, frame: pl.DataFrame) -> list[dict[str, Any]]:
        """The rows of a frame of this buffer as they came."""
        nested = [name for name, kind in self.kinds.items() if kind == _NESTED]
        found = frame.to_dicts()
        for row in found if nested else ():
            for name in nested:
                row[name] = None if row[name] is None else json.loads(row[name])
        return found

    # -- saving and loading

    def dump(self) -> bytes:
        """Everything as an archive."""
        out = io.BytesIO()
        self.frame().write_ipc(out)
        about = {
            "buffer_id": self.buffer_id,
            "window_size": self.window_size,
            "kinds": self.kinds,
            "rows": self.rows,
            "appended": self.appended,
            "append_ms": self.append_ms,
            "touched_ms": self.touched_ms,
        }
        parts = {"buffer": json.dumps(about).encode(), "frame": out.getvalue()}
        return packed({name: np.frombuffer(part, np.uint8) for name, part in parts.items()})

    @staticmethod
    def of(archive: bytes) -> Buffer:
        """What ``dump`` gave; raises whatever reading fails with."""
        import polars as pl

        arrays = unpacked(archive)
        about = json.loads(arrays["buffer"].tobytes())
        out = Buffer(about.pop("buffer_id"), about.pop("window_size"))
        out._frame = pl.read_ipc(io.BytesIO(arrays["frame"].tobytes()))
        out.size_bytes = int(out._frame.estimated_size())
        for name, value in about.items():
            setattr(out, name, value)
        out.dirty = False
        return out


def features(frame: pl.DataFrame, numeric: Sequence[str], wanted: FeatureWish) -> pl.DataFrame:
    """The rows with the features of their numeric columns: for each its windows, then its lags. Rows before a
    window is full, or a lag reached, have ``fill``."""
    import polars as pl

    out: dict[str, pl.Series] = {}
    for name in numeric:
        column = frame.get_column(name).alias("column").cast(pl.Float64)
        made = {
            "mean": column.rolling_mean,
            "std": column.rolling_std,
            "min": column.rolling_min,
            "max": column.rolling_max,
        }
        for window in wanted.windows:
            out |= {f"{name}_rolling_{stat}_{window}": made[stat](window) for stat in wanted.stats}
        out |= {f"{name}_lag_{lag}": column.shift(lag) for lag in wanted.lags}
    columns = {column.name: column for column in frame.iter_columns()}
    filled = {name: column.fill_null(0.0) if wanted.zero else column for name, column in out.items()}
    return pl.DataFrame(columns | filled)


class FeatureWish:
    """Which features: rolling windows and lags in rows, statistics by name, and whether none yet is 0."""

    def __init__(
        self, windows: Sequence[int], stats: Sequence[str], lags: Sequence[int], *, zero: bool
    ) -> None:
        self.windows = tuple(dict.fromkeys(windows))
        self.stats = tuple(stat for stat in STATS if stat in stats)
        self.lags = tuple(dict.fromkeys(lags))
        self.zero = zero

    def width(self, numeric: int) -> int:
        """How many features so many columns have."""
        return numeric * (len(self.windows) * len(self.stats) + len(self.lags))


class Buffers:
    """The buffers by id, kept on disk as well."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = settings.state / "buffers"
        self._buffers: dict[str, Buffer] = {}

    def open(self) -> None:
        """Read what is on disk; a damaged file is set aside and told of."""
        self.home.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.home.glob("*.npz")):
            try:
                buffer = Buffer.of(path.read_bytes())
                self._buffers[buffer.buffer_id] = buffer
            except Exception as error:  # whatever is wrong with a file concerns this file only
                event(
                    log,
                    logging.WARNING,
                    "buffer_unusable",
                    file=path.name,
                    err=f"{type(error).__name__}: {error}",
                )
                path.replace(path.with_suffix(".damaged"))

    def __len__(self) -> int:
        return len(self._buffers)

    @property
    def size_bytes(self) -> int:
        """Memory of all rows, bytes."""
        return sum(buffer.size_bytes for buffer in self._buffers.values())

    def all(self) -> list[Buffer]:
        """All buffers, by id."""
        return [self._buffers[name] for name in sorted(self._buffers)]

    def get(self, buffer_id: str) -> Buffer:
        """A buffer; raises Refused (404)."""
        buffer = self._buffers.get(buffer_id)
        if buffer is None:
            raise Refused(
                404, f"Buffer '{buffer_id}' not found. Create it first with POST /v1/polars/buffers"
            )
        buffer.touched_ms = clock.now_ms()
        return buffer

    def create(self, buffer_id: str, window_size: int) -> Buffer:
        """A new buffer; raises Refused (409, 429)."""
        if buffer_id in self._buffers:
            raise Refused(409, f"Buffer '{buffer_id}' already exists. Use DELETE to remove it first.")
        if len(self._buffers) >= self.settings.buffers_max:
            raise Refused(429, f"There are {len(self._buffers)} buffers, the most there may be; delete some")
        self._buffers[buffer_id] = Buffer(buffer_id, window_size)
        return self._buffers[buffer_id]

    def append(self, buffer: Buffer, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to a buffer; raises Refused (400, 429)."""
        if self.size_bytes > self.settings.memory_bytes_max:
            raise Refused(429, "The buffers take all the memory that they may; clear or delete some")
        buffer.append(rows)

    def delete(self, buffer_id: str) -> None:
        """Forget a buffer; raises Refused (404)."""
        self.get(buffer_id)
        del self._buffers[buffer_id]
        self._path(buffer_id).unlink(missing_ok=True)

    def _path(self, buffer_id: str) -> Path:
        return self.home / f"{sha256(buffer_id.encode()).hexdigest()[:40]}.npz"

    async def save(self) -> None:
        """Save every buffer that has changed."""
        for buffer in [b for b in self._buffers.values() if b.dirty]:
            buffer.dirty = False
            archive = buffer.dump()
            try:
                await asyncio.to_thread(written, self._path(buffer.buffer_id), archive)
            except OSError as error:
                buffer.dirty = True
                event(log, logging.ERROR, "buffer_not_saved", err=f"{type(error).__name__}: {error.strerror}")
            if self._buffers.get(buffer.buffer_id) is not buffer:
                self._path(buffer.buffer_id).unlink(missing_ok=True)

    async def sweep(self) -> None:
        """Drop buffers that nobody used for so long."""
        if self.settings.ttl_s > 0.0:
            before = clock.now_ms() - round(self.settings.ttl_s * 1000)
            for buffer in [b for b in self._buffers.values() if b.touched_ms < before]:
                self.delete(buffer.buffer_id)


def _plain(value: object) -> Cell:
    """The value as a cell can hold it: what is nested becomes its JSON, a huge integer a float."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return float(value) if abs(value) < 2**1000 else None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _wider(kind: str, value: object) -> str:
    """What a column of this kind holds once the value is in it."""
    new = _kind(value)
    if _NESTED in (kind, new):
        return _NESTED if {kind, new} <= {_NESTED, "null"} else "text"
    return max(kind, new, key=_KINDS.index)


def _kind(value: object) -> str:
    """What a value is."""
    if value is None:
        return "null"
    if isinstance(value, list | dict):
        return _NESTED
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else "float"
    return "float" if isinstance(value, float) else "text"


def _as(kind: str, value: Cell) -> Cell:
    """The value as its column holds it."""
    if value is None or kind == "null":
        return None
    if kind in ("text", _NESTED):
        return value if isinstance(value, str) else json.dumps(value)
    return float(value) if kind == "float" else int(value) if kind == "int" else value
