"""The sandbox's clock and its ids."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable


def wall_ms() -> int:
    """Return the wall clock in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Stamps:
    """Times for rows. ``now_ms`` may be stepped by a test; row stamps are unique and never go back."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self._last_us = 0
        self._lock = threading.Lock()

    def now_us(self) -> int:
        """Return a fresh time in microseconds, later than every one before it."""
        with self._lock:
            self._last_us = max(self.now_ms() * 1000, self._last_us + 1)
            return self._last_us


def new_id() -> str:
    """Return a random UUID as text, as the platform's tables use."""
    return str(uuid.uuid4())


def is_uuid(text: str) -> bool:
    """Tell whether Postgres would take the text as a UUID in its usual form."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
