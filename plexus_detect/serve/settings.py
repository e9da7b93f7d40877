"""What the server is told at its start, and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plexus_detect.serve.refused import Refused

MIB = 2**20
DAY_S = 86_400.0

# Limits that keep one request or one detector from taking the machine.
ID_CHARS_MAX = 256
COLUMNS_MAX = 512
FEATURES_MAX = 2048
WINDOW_ROWS_MAX = 1_000_000
SPAN_ROWS_MAX = 100_000
LIST_ITEMS_MAX = 32


@dataclass(frozen=True)
class Settings:
    """``live_max`` detectors, and ``memory_bytes_max`` of them, are kept in memory, the others on disk;
    ``stored_max`` are kept in all. A detector or buffer that nobody used for ``ttl_s`` is dropped (0: never).
    Changed ones are saved every ``save_every_s``. Without ``keys`` everyone may ask."""

    state: Path
    keys: tuple[str, ...] = ()
    live_max: int = 1000
    stored_max: int = 100_000
    buffers_max: int = 1000
    ttl_s: float = 30 * DAY_S
    body_bytes_max: int = 16 * MIB
    memory_bytes_max: int = 1024 * MIB
    save_every_s: float = 5.0


def checked_id(text: str, field: str = "model_id") -> str:
    """The id, if it may be one: no ``..``, backslash or control character, at most 256 characters."""
    bad = ".." in text or "\\" in text or len(text) > ID_CHARS_MAX
    if bad or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise Refused(400, f"Invalid {field}: {text[:ID_CHARS_MAX]}")
    return text
