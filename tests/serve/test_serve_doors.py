"""Keys, limits, probes, metrics and the WebSocket."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve_room import STREAM, TestClient, post, rows, served
from starlette.websockets import WebSocketDisconnect

SOCKET = "/v1/ml/anomaly/ws"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with served(
        tmp_path_factory.mktemp("locked"), keys=("first-key", "second-key"), body_bytes_max=2000
    ) as made:
        yield made


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic first-key"}, 401),
        ({"X-API-Key": ""}, 401),
        ({"X-API-Key": "first-key"}, 200),
        ({"Authorization": "bearer second-key"}, 200),
    ],
)
def test_a_key_is_asked_for_where_there_is_one(
    locked: TestClient, headers: dict[str, str], status: int
) -> None:
    """Every route but the probes wants one of the keys, as a bearer token or in X-API-Key."""
    for path in (f"{STREAM}/detectors", "/metrics", "/openapi.json"):
        assert locked.get(path, headers=headers).status_code == status
    assert locked.get("/health").status_code == 200


def test_a_socket_wants_the_key_too(locked: TestClient) -> None:
    """The handshake of a WebSocket without a key is refused."""
    with pytest.raises(WebSocketDisconnect), locked.websocket_connect(SOCKET):
        pass


def test_large_bodies_are_refused(locked: TestClient) -> None:
    """A body over the limit is answered with 413, whether or not its length is said."""
    headers = {"X-API-Key": "first-key", "content-type": "application/json"}
    body = json.dumps({"data": rows(200)}).encode()
    assert locked.post(STREAM, content=body, headers=headers).status_code == 413
    for path in (STREAM, "/v1/ml/anomaly/fit"):
        in_parts = locked.post(path, content=iter([body[:1500], body[1500:]]), headers=headers)
        assert in_parts.status_code == 413
        assert "larger than 2000 bytes" in in_parts.json()["detail"]


@pytest.mark.parametrize("path", ["a..b", "a%5Cb", "%00", "%0A", "x" * 300])
def test_ids_are_checked_everywhere(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    """No route takes an id with dots, a backslash, a control character or too many characters."""
    with served(tmp_path_factory.mktemp("ids")) as client:
        for method, route in (
            ("GET", f"{STREAM}/{path}"),
            ("DELETE", f"{STREAM}/{path}"),
            ("POST", f"{STREAM}/{path}/reset"),
            ("GET", f"/v1/ml/polars/buffers/{path}"),
            ("DELETE", f"/v1/ml/anomaly/models/{path}"),
        ):
            answer = client.request(method, route)
            assert answer.status_code == 400
            assert answer.json()["detail"].startswith("Invalid ")


def test_metrics_count_what_happened_and_name_no_one(tmp_path: Path) -> None:
    """Requests, points, anomalies, fits and levels are counted for Prometheus; no label is an id."""
    with served(tmp_path) as client:
        post(client, rows(30), "secret-name", min_samples=20)
        post(client, {"value": 1e6}, "secret-name")
        client.get(f"{STREAM}/secret-name")
        client.get("/no/such/route")
        client.request("BREW", STREAM)
        text = client.get("/metrics").text
    assert "secret-name" not in text
    for line in (
        'requests_total{method="POST",route="/anomaly/stream",status="200"} 2',
        'requests_total{method="other",',
        'route="other",status="404"} 1',
        "points_total 31",
        "points_scored_total 11",
        "anomalies_total 1",
        'fits_total{outcome="ok"} 1',
        "detectors_live 1",
        "fit_duration_seconds_count 1",
        'request_duration_seconds_bucket{le="+Inf",route="/anomaly/stream"} 3',
    ):
        assert line in text, line
    assert all(re.fullmatch(r"#.*|\w+(\{[^{}]*(\{\w+\}[^{}]*)*\})? \S+", line) for line in text.splitlines())


def test_a_bug_is_one_sentence_and_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error is answered with 500 and the request's id, and logged; nothing internal is told."""
    with served(tmp_path) as client:
        registry = client.app.state.service.registry  # type: ignore[attr-defined]
        monkeypatch.setattr(registry, "stats", lambda: 1 // 0)
        answer = client.get(f"{STREAM}/detectors", headers={"X-Request-ID": "r-17"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "r-17"
    assert "r-17" in answer.json()["detail"]
    assert "Zero" not in answer.text
    assert any(record.exc_info for record in caplog.records)


def test_a_socket_feeds_like_the_endpoint(tmp_path: Path) -> None:
    """Requests over a WebSocket are answered as by the endpoint; settings once, then lines of rows, too."""
    with served(tmp_path) as client, client.websocket_connect(SOCKET) as socket:
        socket.send_json({"model": "a", "data": rows(20), "min_samples": 20})
        assert socket.receive_json()["status"] == "ready"
        socket.send_json({"model": "b", "min_samples": 20})
        assert socket.receive_json()["samples_until_ready"] == 20
        socket.send_text("\n".join(json.dumps(row) for row in rows(19)))
        assert socket.receive_json()["samples_collected"] == 19
        socket.send_text("not json")
        assert socket.receive_json()["object"] == "error"
        socket.send_bytes(json.dumps({"value": 1.0}).encode())
        assert socket.receive_json()["status"] == "ready"
        assert client.get(f"{STREAM}/a").json()["total_processed"] == 20


def test_a_socket_closes_on_what_is_too_large(tmp_path: Path) -> None:
    """A message over the limit of bodies ends the connection with code 1009."""
    with served(tmp_path, body_bytes_max=100) as client, client.websocket_connect(SOCKET) as socket:
        socket.send_text(json.dumps({"data": rows(50)}))
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
    assert closed.value.code == 1009


def test_the_description_names_every_route(tmp_path: Path) -> None:
    """OpenAPI has every documented path, and the stream endpoint's fields."""
    with served(tmp_path) as client:
        paths = client.get("/openapi.json").json()["paths"]
    for path in (
        "stream",
        "stream/detectors",
        "stream/{model_id}",
        "stream/{model_id}/reset",
        "backends",
        "fit",
    ):
        assert f"/v1/ml/anomaly/{path}" in paths
    fields = paths[STREAM]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"model", "data", "rolling_windows", "schema", "threshold"} <= set(fields)
