"""Faults on request: what goes wrong, on which route, how often. Deterministic by seed."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from plexus_detect.sandbox.javascript import Json

KINDS = {
    "latency": "wait latency_ms before the request is looked at",
    "status": "answer with status (and Retry-After), before or, with at=after, instead of the real answer",
    "cut": "close the connection at=before processing, at=after it (answer lost) or at=body (half an answer)",
    "empty": "telemetry: 200 with no rows, as when the store fails",
    "store_down": "the read API's store fails: 500",
    "rate_drop": "ingest: the first half of the request's sources (rounded up) is dropped after the 200",
    "duplicate": "ingest: every row is stored twice",
    "unordered": "telemetry: rows of one millisecond come shuffled",
    "late": "ingest: rows can be read only late_ms after they were accepted",
}
AT = ("before", "after", "body")
FAULTS_MAX = 100


@dataclass
class Fault:
    """One thing that goes wrong.

    ``route`` is a path prefix. ``next`` is how many more requests it hits (None: no end), ``probability``
    how often it hits one that it could, drawn from ``seed``. ``hits`` counts.
    """

    kind: str
    route: str = "/"
    next: int | None = None
    probability: float = 1.0
    seed: int = 0
    at: str = "before"
    status: int = 503
    retry_after_s: float | None = None
    latency_ms: int = 0
    late_ms: int = 0
    id: int = field(default=0)
    hits: int = field(default=0)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}; one of {', '.join(KINDS)}")
        if self.at not in AT:
            raise ValueError(f"unknown at {self.at!r}; one of {', '.join(AT)}")
        if not 0 <= self.probability <= 1:
            raise ValueError("probability must lie in 0..1")
        if not 100 <= self.status <= 599:
            raise ValueError("status must lie in 100..599")
        self._rng = random.Random(self.seed)  # noqa: S311  repeatable, not secret

    def draw(self, path: str) -> bool:
        """Tell whether this request is hit, and count it."""
        if not path.startswith(self.route) or (self.next is not None and self.next <= 0):
            return False
        if self.probability < 1 and self._rng.random() >= self.probability:
            return False
        if self.next is not None:
            self.next -= 1
        self.hits += 1
        return True

    def shuffler(self) -> random.Random:
        """Return the generator behind this fault, for what it does beyond hitting."""
        return self._rng


class Faults:
    """The faults in force. Several may hit one request; of one kind, the oldest that hits counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._all: list[Fault] = []

    def add(self, kind: str, **given: Json) -> Fault:
        """Put a fault in force and return it.

        Raises:
            ValueError: for an unknown kind or field, a bad value, or more than ``FAULTS_MAX`` faults.

        """
        unknown = given.keys() - {f.name for f in fields(Fault) if f.name not in {"id", "hits"}}
        if unknown:
            raise ValueError(f"unknown field {min(unknown)!r}")
        with self._lock:
            if len(self._all) >= FAULTS_MAX:
                raise ValueError(f"more than {FAULTS_MAX} faults")
            fault = Fault(kind, **given, id=next(self._ids))
            self._all.append(fault)
            return fault

    def clear(self, fault_id: int | None = None) -> None:
        """End every fault, or the one with this id."""
        with self._lock:
            self._all = [f for f in self._all if fault_id is not None and f.id != fault_id]

    def listed(self) -> list[dict[str, Any]]:
        """Return the faults in force as plain values."""
        with self._lock:
            return [asdict(fault) for fault in self._all]

    def hit(self, kind: str, path: str, at: str | None = None) -> Fault | None:
        """Return the fault of a kind that hits this request, or None."""
        with self._lock:
            for fault in self._all:
                if fault.kind == kind and (at is None or fault.at == at) and fault.draw(path):
                    return fault
        return None


def fault_body(status: int, path: str) -> tuple[Mapping[str, Any] | None, str]:
    """Return the JSON body that the service behind a path sends with a status, or None and its text."""
    if path.startswith("/v1"):
        if status >= 500:
            return None, "Internal Server Error"
        return {"detail": "Too Many Requests" if status == 429 else "invalid api key"}, ""
    if path.startswith("/api"):
        if status == 429:
            what = "verification attempts" if path.startswith("/api/auth/verify") else "requests"
            return {"error": "RATE_LIMITED", "message": f"Too many {what}. Try again later."}, ""
        if status in {401, 403}:
            return {"error": "Unauthorized"}, ""
        return {"error": "INTERNAL_ERROR", "message": "Internal server error"}, ""
    sentences = {
        401: "invalid API key",
        403: "API key lacks write scope",
        429: "rate limited",
        503: "gateway degraded: redis unavailable",
    }
    return {"error": sentences.get(status, "failed to queue telemetry")}, ""
