"""Rules of the store and of the three services that the recording shows only in part."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from sandbox_replay import KEYS, UNKNOWN, Scene, key_text
from test_sandbox_replay_gateway import auth, device

from plexus_detect.sandbox import Sandbox

NOW = "2026-11-22T02:00:00Z"
ORG = "org_a"


def read(scene: Scene, **query: Any) -> dict[str, Any]:
    """Return the body of a telemetry read."""
    headers = {"x-api-key": key_text("full")}
    answer = scene.client.get("/api/v1/telemetry", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_newest_rows_survive_the_limit_over_all_metrics() -> None:
    """The limit is shared by the metrics asked for, and cuts off the old end."""
    with Scene(NOW) as scene:
        now = scene.now_ms
        scene.box.load([("d", "fast", now - i, i) for i in range(50)], org=ORG)
        scene.box.load([("d", "slow", now - i * 20, i) for i in range(50)], org=ORG)
        body = read(scene, metric="fast,slow", limit=10)
        assert body["count"] == 10
        assert [row["value"] for row in body["data"] if row["metric"] == "fast"] == [
            8,
            7,
            6,
            5,
            4,
            3,
            2,
            1,
            0,
        ]
        assert [row["value"] for row in body["data"] if row["metric"] == "slow"] == [0]


def test_paging_back_reaches_every_row() -> None:
    """Repeating with the oldest time seen as ``to`` and an overlap finds all rows, none out of order."""
    with Scene(NOW) as scene:
        stamps = [scene.now_ms - 10 * i for i in range(95)]
        scene.box.load([("d", "m", t, 1.0) for t in stamps], org=ORG)
        found: set[str] = set()
        query: dict[str, Any] = {"limit": 10}
        for _ in range(20):
            rows = read(scene, **query)["data"]
            texts = [row["timestamp"] for row in rows]
            assert texts == sorted(texts)
            found.update(texts)
            if len(rows) < 10:
                break
            query["to"] = texts[0].replace(" ", "T") + "Z"
        assert len(found) == 95


@pytest.mark.parametrize("series", [3, 200])
def test_many_and_few_series_are_read_alike(series: int) -> None:
    """Whichever way the store is searched, sources, metrics, orgs and both inclusive ends are respected."""
    with Scene(NOW) as scene:
        now = scene.now_ms
        for org in (ORG, "org_b"):
            rows = [(f"d{i}", m, now - k, i) for i in range(series) for m in ("a", "b") for k in range(5)]
            scene.box.load(rows, org=org)
        window = {"from": "2026-11-22T01:59:59.997Z", "to": "2026-11-22T01:59:59.999Z", "limit": 100_000}
        body = read(scene, metric="a", **window)
        assert body["count"] == series * 3
        assert {row["org_id"] for row in body["data"]} == {ORG}
        assert {row["metric"] for row in body["data"]} == {"a"}
        assert read(scene, **window)["count"] == series * 6
        assert read(scene, source="d1", **window)["count"] == 6


def test_a_new_source_loses_its_first_half_second() -> None:
    """Points of an unknown slug are accepted at once and stored from 0.5 s on; the source appears then."""
    with Scene(NOW) as scene:
        listed = []
        for value in range(4):
            scene.ingest("m", value, source="fresh")
            listed.append(len(scene.client.get("/api/sources", headers=_full()).json()["sources"]))
            scene.after(0.25)
        assert [row.value for row in scene.box.rows("fresh", org=ORG)] == [2, 3]
        assert listed == [0, 0, 1, 1]


def test_a_created_source_is_recorded_from_its_first_point() -> None:
    """POST /api/sources makes a source that loses nothing."""
    with Scene(NOW) as scene:
        scene.post("/api/sources", {"source_type": "device", "slug": "fresh"})
        scene.ingest("m", 1, source="fresh")
        assert len(scene.box.rows("fresh", org=ORG)) == 1


@pytest.mark.parametrize("slug", ["123e4567-e89b-12d3-a456-426614174000", "muted"])
def test_some_sources_are_never_stored(slug: str) -> None:
    """UUID-shaped slugs and sources with recording off are accepted and never stored."""
    with Scene(NOW) as scene:
        scene.source("muted", config={"recording": False})
        for _ in range(3):
            scene.ingest("m", 1, source=slug)
            scene.after(10)
        assert scene.box.rows(org=ORG) == []
        body = {"source_id": "123e4567-e89b-12d3-a456-426614174000", "metric": "m", "threshold": {"max": 1}}
        assert scene.post("/api/monitors", body).status_code == 404


def test_frames_within_half_a_millisecond_are_dropped_silently() -> None:
    """A burst on one source loses frames without a word."""
    with Scene(NOW) as scene, device(scene) as socket:
        scene.source("d")
        socket.send(auth("d"))
        socket.recv(timeout=5)
        frame = json.dumps({"type": "telemetry", "points": [{"metric": "m", "value": 1}]})
        begun = time.monotonic()
        for _ in range(1000):
            socket.send(frame)
        socket.send('{"type":"nope"}')
        assert json.loads(socket.recv(timeout=10))["code"] == "INVALID_MESSAGE"
        allowed = (time.monotonic() - begun) * 2000 + 1
        assert 0 < len(scene.box.rows(org=ORG)) <= min(allowed, 1000)


def test_a_failing_store_looks_like_no_data() -> None:
    """Telemetry of a store that is gone is 200 with no rows."""
    with Scene(NOW) as scene:
        scene.box.load([("d", "m", scene.now_ms, 1.0)], org=ORG)
        scene.box._plexus.database.close()
        assert read(scene)["count"] == 0


@pytest.mark.parametrize("body", ["[" * 100_000, '{"points":[{"metric":"\\ud800","value":1}]}', "\xff"])
def test_hostile_bodies_are_only_bad_requests(body: str) -> None:
    """Deep nesting, broken text and broken bytes get the usual sentence."""
    with Scene(NOW) as scene:
        answer = scene.client.post("/ingest", content=body.encode("latin-1"), headers=_full())
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid JSON body"})
        assert scene.client.post(
            "/api/monitors", content=body.encode("latin-1"), headers=_full()
        ).status_code in {400, 500}


def test_orgs_do_not_see_each_other() -> None:
    """A key reads, lists and monitors its own org only."""
    with Scene(NOW) as scene:
        scene.box.load([("theirs", "m", scene.now_ms, 1.0)], org="org_b")
        assert read(scene)["count"] == 0
        assert scene.client.get("/api/sources", headers=_full()).json() == {"sources": []}
        assert scene.client.get("/v1/sources", headers=_full()).json() == {"devices": []}
        body = {"source_id": "theirs", "metric": "m", "threshold": {"max": 1}}
        assert scene.post("/api/monitors", body).status_code == 404


def _full() -> dict[str, str]:
    return {"x-api-key": key_text("full")}


STANDING = {
    # key: (app telemetry, app monitors, gateway, read API)
    "full": (200, 200, 200, 200),
    "read": (200, 200, 403, 200),
    "write": (403, 200, 200, 200),
    "none": (403, 200, 200, 200),
    "star": (200, 200, 200, 200),
    "custom": (403, 200, 403, 200),
    "disabled": (200, 200, 401, 402),
    "expired": (401, 401, 401, 401),
    UNKNOWN: (401, 401, 401, 401),
    "plx_short": (401, 401, 401, 401),
    "not-plx": (307, 307, 401, 401),
    "": (307, 307, 401, 401),
}


@pytest.mark.parametrize("name", STANDING)
def test_each_service_has_its_own_idea_of_a_key(name: str) -> None:
    """App, gateway and read API judge the same key differently, as the contract's table has it."""
    text = key_text(name) if name in KEYS else name
    with Scene(NOW) as scene:
        headers = {"x-api-key": text} if text else {}
        got = (
            scene.client.get("/api/v1/telemetry", headers=headers).status_code,
            scene.client.get("/api/monitors", headers=headers).status_code,
            scene.client.post("/ingest", json={"points": []}, headers=headers).status_code,
            scene.client.get("/v1/sources/x/metrics", headers=headers).status_code,
        )
        assert got == STANDING[name]


BAD_POINTS = [
    ({"metric": "m", "value": 10**400}, "invalid JSON body"),
    ({"metric": 3, "value": 1}, "metric invalid"),
    ({"metric": "é" * 129, "value": 1}, "metric invalid"),
    ({"metric": "m", "value": "x" * 257}, "string exceeds 256 bytes"),
    ({"metric": "m", "value": ["x" * 4096]}, "exceeds 4096 bytes"),
    ({"metric": "m", "value": True, "class": "metric"}, "must be a number for class=metric"),
    ({"metric": "m", "value": 1, "timestamp": True}, "timestamp must be a number"),
    ({"metric": "m", "value": 1, "tags": {"k": "v" * 257}}, "too long"),
    ({"metric": "m", "value": 1, "tags": []}, "tags must be an object"),
    ({"metric": "m", "value": 1, "source_id": "x" * 257}, "too long"),
    ("point", "invalid JSON body"),
]


@pytest.mark.parametrize(("point", "words"), BAD_POINTS)
def test_one_bad_point_refuses_the_whole_request(point: Any, words: str) -> None:
    """A 400 tells what is wrong, and the good point beside the bad one is not stored."""
    with Scene(NOW) as scene:
        scene.source("d")
        answer = scene.post("/ingest", {"source_id": "d", "points": [{"metric": "ok", "value": 1}, point]})
        assert answer.status_code == 400
        assert words in answer.json()["error"]
        assert scene.box.rows(org=ORG) == []


def test_a_gzip_body_may_come_in_any_case_and_level() -> None:
    """``Content-Encoding: GZIP`` is read; the limits hold for what comes out of it."""
    with Scene(NOW) as scene:
        scene.source("d")
        points = [{"metric": "m", "value": i, "source_id": "d"} for i in range(10_000)]
        body = gzip.compress(json.dumps({"points": points}).encode(), 1)
        answer = scene.client.post("/ingest", content=body, headers={**_full(), "content-encoding": "GZIP"})
        assert answer.json() == {"success": True, "count": 10_000, "source_id": "d"}
        assert len(scene.box.rows(org=ORG)) == 10_000


def test_the_future_is_invisible_until_asked_for() -> None:
    """The default end of a window is now."""
    with Scene(NOW) as scene:
        scene.box.load([("d", "m", scene.now_ms + 1, 1.0)], org=ORG)
        assert read(scene)["count"] == 0
        assert read(scene, to="2026-11-22T02:00:00.001Z")["count"] == 1


def test_head_and_unknown_routes_differ_by_service() -> None:
    """HEAD has no body; an unknown route is HTML on the app, JSON on the read API, text on the gateway."""
    with Scene(NOW) as scene:
        head = scene.client.head("/api/v1/telemetry", headers=_full())
        assert (head.status_code, head.content) == (200, b"")
        kinds = {"/api/nope": "text/html", "/v1/nope": "application/json", "/nope": "text/plain"}
        for path, kind in kinds.items():
            answer = scene.client.get(path, headers=_full())
            assert answer.status_code == 404
            assert answer.headers["content-type"].startswith(kind)


def test_raw_series_are_cut_at_the_new_end() -> None:
    """The read API keeps the oldest 10,000 rows, by metric name, and says that it cut."""
    with Scene(NOW) as scene:
        start = scene.now_ms - 60_000
        scene.box.load([("d", m, start + i, float(i)) for m in ("a", "b") for i in range(7000)], org=ORG)
        query = {"last": "5m", "interval": "raw"}
        body = scene.client.get("/v1/sources/d/metrics/query", params=query, headers=_full()).json()
        assert body["truncated"] is True
        assert {name: len(series["value"]) for name, series in body["series"].items()} == {
            "a": 7000,
            "b": 3000,
        }
        assert body["series"]["b"]["value"][-1] == 2999


def test_alerts_can_be_reopened_and_paged() -> None:
    """Resolve, reopen, offset and limit behave; a wrong action is a 400."""
    with Scene(NOW) as scene:
        scene.source("d")
        uuid = scene.client.get("/api/sources/d", headers=_full()).json()["source"]["id"]
        for value in range(3):
            body = {"source_id": uuid, "trigger_type": "limit_violation", "metric": "m", "value": value}
            alert = scene.post("/api/alerts", body).json()["alert"]
        url = f"/api/alerts/{alert['id']}"
        for action, status in (
            ("resolve", 200),
            ("resolve", 400),
            ("reopen", 200),
            ("reopen", 400),
            ("dance", 400),
        ):
            answer = scene.client.patch(url, json={"action": action}, headers=_full())
            assert answer.status_code == status, action
        page = scene.client.get("/api/alerts", params={"limit": 1, "offset": 1}, headers=_full()).json()
        assert [alert["value"] for alert in page["alerts"]] == [1]


@examples(300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b b", 'ü,"\\']),
            st.integers(0, 3_599_999),
            st.floats(allow_nan=False, allow_infinity=False),
        ),
        max_size=30,
    )
)
def test_what_is_ingested_is_read_back(points: list[tuple[str, int, float]]) -> None:
    """Any finite values under any names come back once each, in order of time, numerically equal."""
    start = 1_795_312_000_000
    sent = [{"metric": m, "value": v, "timestamp": start + t} for m, t, v in points]

    async def through(box: Sandbox) -> list[dict[str, Any]]:
        transport = httpx.ASGITransport(app=box.app)
        headers = {"x-api-key": box.key}
        async with httpx.AsyncClient(transport=transport, base_url="http://box", headers=headers) as client:
            taken = await client.post("/ingest", json={"source_id": "d", "points": sent})
            assert taken.json()["count"] == len(sent)
            data: list[dict[str, Any]] = (await client.get("/api/v1/telemetry")).json()["data"]
            return data

    box = Sandbox(now_ms=lambda: start + 3_600_000)
    box.create_source("d")
    data = asyncio.run(through(box))
    box.close()
    assert [row["timestamp"] for row in data] == sorted(row["timestamp"] for row in data)
    assert sorted((row["metric"], row["value"] + 0.0) for row in data) == sorted(
        (m, v + 0.0) for m, _, v in points
    )
