"""Bodies of answers, decompressed with a bound: a few kilobytes can be told to be gigabytes. Pure."""

from __future__ import annotations

import zlib

# The one encoding that is asked for, and what a server may call it.
ENCODING = "gzip"
_GZIP = (ENCODING, "x-gzip")


class Unpacking:
    """Takes a body piece by piece; never holds more than ``bytes_max`` bytes of it, decompressed, and one.

    Raises ValueError for an encoding that was not asked for, and for bytes that are not in it.
    """

    def __init__(self, encoding: str, bytes_max: int) -> None:
        name = encoding.strip().lower()
        if name not in ("", "identity", *_GZIP):
            raise ValueError(f"the encoding {encoding!r}, which was not asked for")
        self._inflate = _inflate() if name in _GZIP else None
        self._whole = True
        self._pieces: list[bytes] = []
        self._room = bytes_max

    def take(self, piece: bytes) -> bool:
        """Add the next piece; False when there is more than the bound allows."""
        if self._inflate is None:
            return self._add(piece)
        while piece:
            try:
                inflated = self._inflate.decompress(piece, self._room + 1)
            except zlib.error as exc:
                raise ValueError(f"compression that is broken: {exc}") from exc
            if not self._add(inflated):
                return False
            self._whole = self._inflate.eof
            piece = self._inflate.unconsumed_tail
            if self._whole:  # a body may be several archives, one behind the other
                piece = self._inflate.unused_data
                self._inflate = _inflate()
        return True

    def _add(self, piece: bytes) -> bool:
        self._pieces.append(piece[: self._room])
        self._room -= len(piece)
        return self._room >= 0

    def body(self) -> bytes:
        """All of it, or its beginning when there was more."""
        if not self._whole and self._room >= 0:
            raise ValueError("compression that is broken: it ends too early")
        return b"".join(self._pieces)


def _inflate() -> zlib._Decompress:
    return zlib.decompressobj(zlib.MAX_WBITS | 16)
