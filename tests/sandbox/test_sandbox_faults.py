"""Each fault on request does what it says, as often as it says, and the same way every time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

from plexus_detect.sandbox import Fault, Sandbox

POINT = {"source_id": "dev-1", "points": [{"metric": "m", "value": 1}]}
# A reset shows as one or the other, by what of the request was still unread.
CUT = (httpx.RemoteProtocolError, httpx.ReadError)


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """Serve a sandbox with one device."""
    with Sandbox() as box:
        box.create_source("dev-1")
        yield box


@pytest.fixture
def client(box: Sandbox) -> Iterator[httpx.Client]:
    """Return a client of the sandbox with its full key."""
    with httpx.Client(base_url=box.url, headers={"x-api-key": box.key}, trust_env=False) as client:
        yield client


def test_latency_delays_its_route_only(box: Sandbox, client: httpx.Client) -> None:
    """A delayed route waits; another does not."""
    box.faults.add("latency", route="/ingest", latency_ms=400, next=1)
    begun = time.monotonic()
    client.get("/api/ping")
    assert time.monotonic() - begun < 0.4
    begun = time.monotonic()
    client.post("/ingest", json=POINT)
    assert time.monotonic() - begun >= 0.4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/ingest", {"error": "rate limited"}),
        ("/api/monitors", {"error": "RATE_LIMITED", "message": "Too many requests. Try again later."}),
        ("/v1/sources", {"detail": "Too Many Requests"}),
    ],
)
def test_429_carries_retry_after_and_the_words_of_its_service(
    box: Sandbox, client: httpx.Client, path: str, body: dict[str, str]
) -> None:
    """The next two requests are refused with Retry-After, the third is answered."""
    box.faults.add("status", status=429, retry_after_s=1.5, next=2)
    for _ in range(2):
        answer = client.request("POST" if path == "/ingest" else "GET", path, json=POINT)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1.5")
        assert answer.json() == body
    assert client.request("POST" if path == "/ingest" else "GET", path, json=POINT).status_code == 200


def test_a_cut_before_processing_leaves_no_trace(box: Sandbox, client: httpx.Client) -> None:
    """The connection ends without an answer and nothing was stored."""
    box.faults.add("cut", route="/ingest", next=1)
    with pytest.raises(CUT):
        client.post("/ingest", json=POINT)
    assert box.rows() == []
    assert client.post("/ingest", json=POINT).json()["count"] == 1


@pytest.mark.parametrize("kind", ["cut", "status"])
def test_a_lost_answer_was_processed(box: Sandbox, client: httpx.Client, kind: str) -> None:
    """After processing, the answer is lost or replaced by a 502: a retry stores a second row."""
    box.faults.add(kind, route="/ingest", at="after", status=502, next=1)
    if kind == "cut":
        with pytest.raises(CUT):
            client.post("/ingest", json=POINT)
    else:
        assert client.post("/ingest", json=POINT).status_code == 502
    client.post("/ingest", json=POINT)
    assert len(box.rows()) == 2


def test_half_an_answer_is_an_error_to_the_client(box: Sandbox, client: httpx.Client) -> None:
    """The head promises the whole body and half of it comes."""
    box.faults.add("cut", route="/api/sources", at="body", next=1)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
        client.get("/api/sources")


def test_an_empty_answer_looks_like_no_data(box: Sandbox, client: httpx.Client) -> None:
    """Telemetry is 200 with no rows although there are some."""
    client.post("/ingest", json=POINT)
    box.faults.add("empty", route="/api/v1/telemetry", next=1)
    counts = [client.get("/api/v1/telemetry").json()["count"] for _ in range(2)]
    assert counts == [0, 1]


def test_a_rate_drop_drops_sources_and_still_says_success(box: Sandbox, client: httpx.Client) -> None:
    """Half of the request's sources is dropped, rounded up; the count says so, success does not."""
    box.create_source("dev-2")
    points = [{"metric": "m", "value": 1, "source_id": f"dev-{i}"} for i in (1, 1, 2)]
    box.faults.add("rate_drop", route="/ingest", next=2)
    assert client.post("/ingest", json={"points": points}).json() == {"success": True, "count": 1}
    assert client.post("/ingest", json=POINT).json() == {"success": True, "count": 0, "source_id": "dev-1"}
    assert [row.source for row in box.rows()] == ["dev-2"]


def test_duplicates_are_two_rows(box: Sandbox, client: httpx.Client) -> None:
    """One point posted once is stored twice and read twice."""
    box.faults.add("duplicate", next=1)
    assert client.post("/ingest", json=POINT).json()["count"] == 1
    assert len(box.rows()) == 2
    assert client.get("/api/v1/telemetry").json()["count"] == 2


def test_unordered_ties_keep_the_times_in_order(box: Sandbox, client: httpx.Client) -> None:
    """Rows of one millisecond come shuffled by the seed; the times ascend all the same."""
    now = int(time.time() * 1000)
    box.load([("dev-1", f"m{i % 20:02d}", now - 100 + i // 20, 1.0) for i in range(60)])

    def order() -> list[tuple[str, str]]:
        return [(row["timestamp"], row["metric"]) for row in client.get("/api/v1/telemetry").json()["data"]]

    plain = order()
    shuffled = []
    for _ in range(2):
        fault = box.faults.add("unordered", seed=7, next=1)
        shuffled.append(order())
        box.faults.clear(fault.id)
    assert shuffled[0] == shuffled[1] != plain
    assert [time for time, _ in shuffled[0]] == [time for time, _ in plain]
    assert sorted(shuffled[0]) == sorted(plain)


def test_late_rows_are_there_and_not_yet_seen() -> None:
    """A late row is accepted and stored, and read only once its time has come."""
    now = [1_795_312_000_000]
    with (
        Sandbox(now_ms=lambda: now[0]) as box,
        httpx.Client(base_url=box.url, headers={"x-api-key": box.key}, trust_env=False) as client,
    ):
        box.create_source("dev-1")
        box.faults.add("late", route="/ingest", late_ms=2000, next=1)
        for _ in range(2):
            client.post("/ingest", json=POINT)
            now[0] += 1
        seen = []
        for wait_ms in (0, 1997, 1):
            now[0] += wait_ms
            seen.append(client.get("/api/v1/telemetry").json()["count"])
        assert seen == [1, 1, 2]
        assert len(box.rows()) == 2


def test_a_gateway_401_is_for_any_key(box: Sandbox, client: httpx.Client) -> None:
    """The gateway's auth backend may be down: 401 for a key that is good."""
    box.faults.add("status", route="/ingest", status=401, next=1)
    answer = client.post("/ingest", json=POINT)
    assert (answer.status_code, answer.json()) == (401, {"error": "invalid API key"})
    assert client.post("/ingest", json=POINT).status_code == 200


def test_probability_is_drawn_from_the_seed() -> None:
    """The same seed hits the same requests, another others, and about as many as asked."""

    def hits(seed: int) -> list[bool]:
        fault = Fault("cut", probability=0.3, seed=seed)
        return [fault.draw("/ingest") for _ in range(1000)]

    assert hits(1) == hits(1) != hits(2)
    assert 200 < sum(hits(1)) < 400


def test_faults_are_managed_over_http(box: Sandbox, client: httpx.Client) -> None:
    """POST adds, GET lists with hits, DELETE ends one or all; management itself is never hit."""
    added = client.post("/manage/faults", json={"kind": "status", "status": 500})
    assert added.status_code == 201
    client.post("/manage/faults", json={"kind": "latency", "route": "/ws", "latency_ms": 5})
    assert client.get("/api/ping").status_code == 500
    listed = client.get("/manage/faults").json()["faults"]
    assert [(fault["kind"], fault["hits"]) for fault in listed] == [("status", 1), ("latency", 0)]
    client.delete("/manage/faults", params={"id": added.json()["id"]})
    assert client.get("/api/ping").status_code == 200
    client.delete("/manage/faults")
    assert client.get("/manage/faults").json()["faults"] == []


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "nope"},
        {"kind": "cut", "at": "noon"},
        {"kind": "cut", "probability": 2},
        {"kind": "status", "status": 99},
        {"kind": "cut", "hits": 3},
        {"kind": "cut", "frequency": 3},
        {"kind": 3},
        [],
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(box: Sandbox, client: httpx.Client, bad: object) -> None:
    """One sentence and 400; nothing is put in force."""
    answer = client.post("/manage/faults", json=bad)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert box.faults.listed() == []


def test_without_sockets_a_cut_is_the_same_error() -> None:
    """Called as a bare app, a cut raises what a client over a socket would see."""

    async def ask(box: Sandbox) -> None:
        transport = httpx.ASGITransport(app=box.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://box") as client:
            box.faults.add("cut", next=1)
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/api/ping")
            assert (await client.get("/api/ping")).status_code == 200

    box = Sandbox()
    asyncio.run(ask(box))
    box.close()
