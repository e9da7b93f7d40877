"""The platform in memory, as far as the worker asks it, and a clock that only moves when it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from plexus_detect import clock
from plexus_detect.config import Config, load_config
from plexus_detect.errors import RejectedError, TransientError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START_MS = 1_800_000_000_000
KEY = "plx_" + "0" * 32

Row = tuple[str, str, int, float]


class FakeClock:
    """Stands in for the ``clock`` module: sleeping takes no time but moves the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, start_ms: int = START_MS) -> None:
        self.t_ms = start_ms
        self.slept_s: list[float] = []
        monkeypatch.setattr(clock, "now_ms", lambda: self.t_ms)
        monkeypatch.setattr(clock, "monotonic_s", lambda: self.t_ms / 1000)
        monkeypatch.setattr(clock, "sleep_s", self.sleep_s)

    async def sleep_s(self, s: float) -> None:
        """Move on by ``s`` seconds."""
        self.slept_s.append(s)
        self.t_ms += round(s * 1000)
        await asyncio.sleep(0)


class FakePlatform:
    """The methods of ``client.Client`` that the worker uses, over a list of rows.

    ``script`` holds what the next calls of a method meet: an exception to raise, bytes to answer, or None
    for the ordinary course. For ``ingest`` also "lost" (stored, the answer is not) and a number (so many
    points of the batch dropped in silence). ``asked`` are the telemetry parameters, ``posted`` the batches.
    """

    def __init__(self, rows: Iterable[Row] = (), *, ahead_ms: int = 0) -> None:
        self.rows: list[Row] = list(rows)
        self.ahead_ms = ahead_ms
        self.silent: dict[str, tuple[str, ...]] = {}
        self.script: dict[str, list[Any]] = {}
        self.asked: list[dict[str, str]] = []
        self.posted: list[list[dict[str, Any]]] = []
        self.calls: list[str] = []
        self.made: list[tuple[str, str]] = []
        self.requests = 0

    def _next(self, method: str) -> Any:
        self.calls.append(method)
        self.requests += 1
        script = self.script.get(method)
        happening = script.pop(0) if script else None
        if isinstance(happening, Exception):
            raise happening
        return happening

    def stored(self, suffix: str = "") -> list[Row]:
        """The rows whose metric ends in ``suffix``, sorted."""
        return sorted(row for row in self.rows if row[1].endswith(suffix))

    async def telemetry(self, params: dict[str, str]) -> bytes:
        """GET /api/v1/telemetry: inclusive ends, the newest rows survive the limit."""
        self.asked.append(params)
        told = self._next("telemetry")
        if isinstance(told, bytes):
            return told
        now_ms = clock.now_ms() + self.ahead_ms
        to_ms = _ms(params["to"]) if "to" in params else now_ms
        from_ms = _ms(params["from"]) if "from" in params else to_ms - 3_600_000
        if from_ms >= to_ms:
            raise RejectedError("from must be earlier than to")
        names = params["metric"].split(",") if "metric" in params else None
        found = [
            row
            for row in self.rows
            if from_ms <= row[2] <= to_ms
            and params.get("source", row[0]) == row[0]
            and (names is None or row[1] in names)
        ]
        found.sort(key=lambda row: row[2])
        return answer(found[-int(params["limit"]) :], to_ms)

    async def ingest(self, body: bytes) -> bytes:
        """POST /ingest."""
        points = json.loads(body)["points"]
        told = self._next("ingest")
        if isinstance(told, bytes):
            return told
        kept = points[told:] if isinstance(told, int) else points
        self.posted.append(kept)
        self.rows += [(p["source_id"], p["metric"], p["timestamp"], p["value"]) for p in kept]
        if told == "lost":
            raise lost()
        return json.dumps({"success": True, "count": len(kept)}).encode()

    async def check_write(self) -> None:
        """POST /ingest without points."""
        self._next("check_write")

    async def fleet_health(self) -> bytes:
        """GET /api/fleet/health."""
        told = self._next("fleet_health")
        if isinstance(told, bytes):
            return told
        fleet: dict[str, dict[str, Any]] = {}
        for source, metric, t_ms, value in self.rows:
            if t_ms > clock.now_ms() - 3_600_000:
                fleet.setdefault(source, {})[metric] = {"latest": value}
        return json.dumps({"fleet": [{"source_id": s, "metrics": m} for s, m in fleet.items()]}).encode()

    async def raw_rows(self, slug: str, params: dict[str, str]) -> bytes:
        """GET /v1/sources/{slug}/metrics/query: start inclusive, end exclusive."""
        told = self._next("raw_rows")
        if isinstance(told, bytes):
            return told
        start, end = _ms(params["start"]), _ms(params["end"])
        found = [r for r in self.rows if r[:2] == (slug, params["metrics"]) and start <= r[2] < end]
        columns = {"timestamp_ms": [r[2] for r in found], "value": [r[3] for r in found]}
        series = {params["metrics"]: columns} if found else {}
        return json.dumps({"interval": "raw", "series": series, "truncated": False}).encode()

    async def ping(self) -> bytes:
        """GET /api/ping."""
        self._next("ping")
        return b'{"ok":true}'

    async def create_source(self, slug: str, name: str) -> None:
        """POST /api/sources."""
        self._next("create_source")
        self.made.append((slug, name))

    async def sources(self) -> bytes:
        """GET /api/sources."""
        self._next("sources")
        slugs = dict.fromkeys([*(row[0] for row in self.rows), *self.silent])
        rows = [{"slug": slug, "id": f"id-{slug}", "source_type": "device"} for slug in slugs]
        return json.dumps({"sources": rows}).encode()

    async def source_metrics(self, slug: str) -> bytes:
        """GET /v1/sources/{slug}/metrics."""
        self._next("source_metrics")
        stored = {row[1] for row in self.rows if row[0] == slug}
        return json.dumps(sorted({*stored, *self.silent.get(slug, ())})).encode()


def lost() -> Exception:
    """The error of a post whose answer did not come."""
    return TransientError("POST http://gateway.test/ingest -> no answer", maybe_applied=True)


def answer(rows: list[Row], to_ms: int) -> bytes:
    """An answer of GET /api/v1/telemetry."""
    data = [
        {"org_id": "o", "source_id": s, "metric": m, "value": v, "timestamp": _text(t), "tags": {}}
        for s, m, t, v in rows
    ]
    to = (EPOCH + timedelta(milliseconds=to_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"data": data, "count": len(data), "query": {"to": to}}).encode()


def _ms(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


def _text(t_ms: int) -> str:
    text = (EPOCH + timedelta(milliseconds=t_ms)).isoformat(" ", timespec="milliseconds")
    return text.removesuffix("+00:00")


def settings(**given: str) -> Config:
    """A configuration from ``poll__interval="1s"`` and the like."""
    env = {f"PLEXUS_DETECT_{name.upper()}": value for name, value in given.items()}
    return load_config([], {"PLEXUS_API_KEY": KEY, **env})
