"""The state of a partition as bytes: compact, with a version and a checksum."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import decode_columns, encode_columns

Columns = Mapping[str, npt.NDArray[np.generic]]

# What every snapshot begins with; the last byte is the version of its form.
MAGIC = b"plexus-detect stream\x01"

_DIGEST = 32

# Fast: state is mostly numbers that compress little.
_LEVEL = 1


class Unfit(ValueError):  # noqa: N818 - a snapshot that is not for us is no error of the program
    """A snapshot that cannot be used here, and why, in a sentence."""


def packed(columns: Columns) -> bytes:
    """A snapshot of these columns."""
    raw, digest = encode_columns(columns)
    return MAGIC + bytes.fromhex(digest) + zlib.compress(raw, _LEVEL)


def unpacked(blob: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """The columns of a snapshot. Raises Unfit for bytes that ``packed`` did not make."""
    known = len(MAGIC) - 1
    if blob[:known] != MAGIC[:known]:
        raise Unfit("these bytes are no snapshot of a partition; begin anew")
    if blob[known : known + 1] != MAGIC[known:]:
        raise Unfit("the snapshot is of another version of this program; begin anew")
    digest, body = blob[known + 1 : known + 1 + _DIGEST], blob[known + 1 + _DIGEST :]
    try:
        columns = decode_columns(zlib.decompress(body), digest.hex())
    except zlib.error:
        columns = None
    if columns is None:
        raise Unfit("the snapshot is damaged: its checksum is another; begin anew")
    return columns
