"""State in columns: named arrays with one entry a row, which grow, go into a snapshot and come back.

A row is a series, a source or a group, whatever the bank that holds the columns counts.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.series import I64

Snapshot = Mapping[str, npt.NDArray[np.generic]]


def under(columns: Snapshot, prefix: str) -> dict[str, npt.NDArray[np.generic]]:
    """The columns whose names begin with ``prefix``, by the rest of their names."""
    return {name.removeprefix(prefix): c for name, c in columns.items() if name.startswith(prefix)}


def rooms(columns: Snapshot) -> dict[str, dict[str, npt.NDArray[np.generic]]]:
    """The columns by the room that they are of: what stands before the first dot of their names."""
    out: dict[str, dict[str, npt.NDArray[np.generic]]] = {}
    for name, column in columns.items():
        room, _, rest = name.partition(".")
        out.setdefault(room, {})[rest] = column
    return out


def encode_columns(columns: Snapshot) -> tuple[bytes, str]:
    """Running state as it stands in a snapshot, and its checksum."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(columns))
    blob = buffer.getvalue()
    return blob, hashlib.sha256(blob).hexdigest()


def decode_columns(blob: Any, digest: Any) -> dict[str, npt.NDArray[np.generic]] | None:  # noqa: ANN401
    """The inverse of ``encode_columns``; None for whatever it did not make."""
    try:
        if hashlib.sha256(blob).hexdigest() != digest:
            return None
        with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
            columns = {name: archive[name] for name in archive.files}
    except Exception:  # zipfile and NumPy raise a dozen kinds of errors for bytes that are no archive
        return None
    return columns if all(isinstance(column, np.ndarray) for column in columns.values()) else None


class Column(NamedTuple):
    """What a column holds before anything is known; ``shape`` is that of one row. With ``wide`` the rows are
    the last axis, so that what all rows have in common lies together."""

    fill: float = 0.0
    shape: tuple[int, ...] = ()
    dtype: type = np.float64
    wide: bool = False

    def made(self, n: int) -> npt.NDArray[np.generic]:
        """The column of ``n`` rows that know nothing."""
        return np.full((*self.shape, n) if self.wide else (n, *self.shape), self.fill, self.dtype)


class Columns:
    """Attributes named in ``COLUMNS`` are arrays; in a snapshot the rows are always the first axis."""

    COLUMNS: ClassVar[Mapping[str, Column]] = {}

    def __init__(self) -> None:
        for name, column in self.COLUMNS.items():
            setattr(self, name, column.made(0))

    def grow(self, n: int) -> None:
        """Room for ``n`` rows; the new ones know nothing."""
        for name, column in self.COLUMNS.items():
            old, new = getattr(self, name), column.made(n)
            if column.wide:
                new[..., : old.shape[-1]] = old
            else:
                new[: len(old)] = old
            setattr(self, name, new)

    def forget(self, rows: I64) -> None:
        """Make these rows as they were at first."""
        for name, column in self.COLUMNS.items():
            getattr(self, name)[(..., rows) if column.wide else rows] = column.fill

    def save(self, prefix: str = "", n: int | None = None) -> dict[str, npt.NDArray[np.generic]]:
        """The first ``n`` rows (None: all) of every column, by ``prefix`` and name."""
        out: dict[str, npt.NDArray[np.generic]] = {}
        for name, column in self.COLUMNS.items():
            held = getattr(self, name)
            out[prefix + name] = (np.moveaxis(held, -1, 0) if column.wide else held)[:n]
        return out

    def restore(self, columns: Snapshot, prefix: str = "") -> None:
        """Take over what ``save`` gave."""
        for name, column in self.COLUMNS.items():
            held = columns[prefix + name]
            setattr(self, name, np.moveaxis(held, 0, -1).copy("C") if column.wide else held.copy())
