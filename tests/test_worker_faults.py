"""Every fault of the platform, one by one: afterwards the scores are those of a clean pass, each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fake_platform import START_MS, FakeClock, Row
from pipe import DEVICES, QUIET, Pipe, config, play, quiet_room

pytestmark = pytest.mark.usefixtures("stopped")

STEPS = 24
READ, POST = "/api/v1/telemetry", "/ingest"

FAULTS: dict[str, dict[str, Any]] = {
    "latency of reads": {"kind": "latency", "route": READ, "latency_ms": 60, "next": 3},
    "latency of posts": {"kind": "latency", "route": POST, "latency_ms": 60, "next": 3},
    "429 with Retry-After, reads": {
        "kind": "status",
        "status": 429,
        "retry_after_s": 2,
        "route": READ,
        "next": 3,
    },
    "429 with Retry-After, posts": {
        "kind": "status",
        "status": 429,
        "retry_after_s": 2,
        "route": POST,
        "next": 3,
    },
    "500 of reads": {"kind": "status", "status": 500, "route": READ, "next": 9},
    "503 of posts": {"kind": "status", "status": 503, "route": POST, "next": 3},
    "502 of posts before": {"kind": "status", "status": 502, "route": POST, "next": 2},
    "502 of posts after": {"kind": "status", "status": 502, "at": "after", "route": POST, "next": 2},
    "401 of posts": {"kind": "status", "status": 401, "route": POST, "next": 3},
    "401 of reads": {"kind": "status", "status": 401, "route": READ, "next": 2},
    "404 of posts": {"kind": "status", "status": 404, "route": POST, "next": 3},
    "cut before reads": {"kind": "cut", "at": "before", "route": READ, "next": 5},
    "cut before posts": {"kind": "cut", "at": "before", "route": POST, "next": 2},
    "cut after posts": {"kind": "cut", "at": "after", "route": POST, "next": 3},
    "cut in the answer to reads": {"kind": "cut", "at": "body", "route": READ, "next": 2},
    "cut in the answer to posts": {"kind": "cut", "at": "body", "route": POST, "next": 2},
    "empty 200": {"kind": "empty", "route": READ, "next": 3},
    "rate drop": {"kind": "rate_drop", "route": POST, "next": 2},
    "unordered ties": {"kind": "unordered", "route": READ},
    "read API down": {"kind": "store_down"},
}


def samples(t_ms: int) -> list[Row]:
    """Eight quiet devices, the second with a fault of seven seconds."""
    ill = START_MS + 9_000 <= t_ms < START_MS + 16_000
    return [
        (s, m, t, v + (4 if ill and s == "dev-1" else 0))
        for s, m, t, v in (quiet_room(d, t_ms) for d in DEVICES)
    ]


def pass_through(
    stopped: FakeClock, trouble: Callable[[Pipe], object] = lambda pipe: None, **given: Any
) -> Pipe:
    """The scenario; ``trouble`` is called before every step, and ends after the last."""

    async def room(pipe: Pipe) -> None:
        for _ in range(STEPS):
            trouble(pipe)
            await pipe.step(samples(pipe.now_ms))
        pipe.box.faults.clear()
        await pipe.drain()

    return play(stopped, room, **given)


@pytest.fixture(scope="module", name="clean")
def _clean() -> list[Row]:
    """The scores of a pass without faults."""
    with pytest.MonkeyPatch.context() as patch:
        rows = pass_through(FakeClock(patch)).derived()
    assert len(rows) == 2 * STEPS * len(DEVICES)
    assert max(v for s, _m, _t, v in rows if s == "dev-1") > 3
    return rows


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_leaves_no_trace(stopped: FakeClock, clean: list[Row], name: str) -> None:
    """The same rows, none missing and none twice, once the fault is over."""
    fault = FAULTS[name]
    made = []

    def trouble(pipe: Pipe) -> None:
        if pipe.number in (4, 11):
            made.append(pipe.box.faults.add(**fault))

    pipe = pass_through(stopped, trouble)
    assert pipe.derived() == clean
    assert name == "read API down" or sum(fault.hits for fault in made) > 1
    report = pipe.worker.delivery.report
    assert report.rejected == report.expired == 0
    if name in ("cut after posts", "502 of posts after"):
        assert report.uncertain >= report.found_stored > 0


def test_an_outage_of_everything(stopped: FakeClock, clean: list[Row]) -> None:
    """A minute in which no request of any kind is answered is caught up with."""

    def trouble(pipe: Pipe) -> None:
        if pipe.number == 6:
            pipe.box.faults.add("cut", route="/api", next=40)

    assert pass_through(stopped, trouble).derived() == clean


def test_samples_stored_twice_are_scored_once(stopped: FakeClock, clean: list[Row]) -> None:
    """The platform removes no duplicates, so the worker does."""

    def trouble(pipe: Pipe) -> None:
        if pipe.number:
            pipe.box.load(samples(pipe.now_ms - 1000))
        pipe.box.load(samples(pipe.now_ms))

    assert pass_through(stopped, trouble).derived() == clean


def late(pipe: Pipe) -> None:
    """Samples of the next step go through the gateway, and become visible 2.5 s after it took them."""
    if pipe.number in (4, 5, 12, 17):
        pipe.box.faults.add("late", route=POST, late_ms=2500, next=1)
        points = [
            {"source_id": s, "metric": m, "timestamp": t, "value": v}
            for s, m, t, v in samples(pipe.now_ms)[:3]
        ]
        pipe.stopped.t_ms = max(pipe.stopped.t_ms, pipe.now_ms)
        answer = httpx.post(
            f"{pipe.box.url}/ingest", json={"points": points}, headers={"x-api-key": pipe.box.key}
        )
        assert answer.json()["count"] == 3


def slowly_visible(stopped: FakeClock, **given: Any) -> Pipe:
    """The scenario with late visibility in place of the load of those samples."""

    async def room(pipe: Pipe) -> None:
        for _ in range(STEPS):
            hidden = pipe.number in (4, 5, 12, 17)
            late(pipe)
            await pipe.step(samples(pipe.now_ms)[3 if hidden else 0 :])
        await pipe.drain()

    return play(stopped, room, **given)


def test_late_visibility_within_the_settling_time(stopped: FakeClock, clean: list[Row]) -> None:
    """With poll.settle above the delay everything falls into order: the scores are those of a clean pass."""
    given = config(poll__settle="4s", fleet__settle="6s")
    assert slowly_visible(stopped, given=given).derived() == clean


def test_late_visibility_within_the_overlap(stopped: FakeClock, clean: list[Row]) -> None:
    """Without settling, late samples are scored all the same, each once, though out of order: for the
    record, since a monitor would take their scores for those of now."""
    pipe = slowly_visible(stopped)
    late = {(r.source, f"{QUIET}.zscore", r.t_ms) for r in pipe.rows(metric=f"{QUIET}.zscore_late")}
    assert len(late) == 12
    in_time = [row[:3] for row in pipe.derived() if row[1] == f"{QUIET}.zscore"]
    own = sorted([*in_time, *late])
    assert own == [row[:3] for row in clean if row[1] == f"{QUIET}.zscore"]
    fleet = [row[:3] for row in pipe.derived() if row[1] != f"{QUIET}.zscore"]
    assert len(fleet) == len(set(fleet))
    assert pipe.tally["late"] == 12
