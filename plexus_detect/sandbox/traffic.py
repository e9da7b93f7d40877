"""What was asked of the sandbox: a counter by route and a bounded log."""

from __future__ import annotations

import re
import threading
from collections import Counter, deque
from typing import NamedTuple

LOG_MAX = 10_000
# Beyond this many routes (made-up paths, that is) the rest is counted together.
ROUTES_MAX = 1000
OTHER = "other"
_VARIABLE = re.compile(r"^(/(?:api|v1)/(?:sources|devices|alerts|annotations))/(?!register)[^/]+")


class Request(NamedTuple):
    """One request as it was answered; ``status`` 0 is a connection that was cut."""

    t_ms: int
    method: str
    path: str
    query: str
    status: int


class Traffic:
    """Counts every request except those to the management paths."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.log: deque[Request] = deque(maxlen=LOG_MAX)
        self._lock = threading.Lock()

    def add(self, request: Request) -> None:
        """Count one request."""
        route = _VARIABLE.sub(r"\1/{id}", request.path)
        name = f"{request.method} {route}"
        with self._lock:
            self.counts[name if name in self.counts or len(self.counts) < ROUTES_MAX else OTHER] += 1
            self.log.append(request)

    @property
    def total(self) -> int:
        """Every request counted so far."""
        return self.counts.total()

    def clear(self) -> None:
        """Start counting anew."""
        with self._lock:
            self.counts.clear()
            self.log.clear()
