"""What survives a restart, what goes to disk when memory is full, and what is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
from serve_room import STREAM, post, rows, served

from plexus_detect import clock

BUFFERS = "/v1/ml/polars/buffers"
SCORED = {"value": 12.0}


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    """After a restart a detector has the window, model, counters and scores of one that never stopped."""
    with served(tmp_path) as client:
        for model in ("kept", "twin"):
            post(client, rows(30), model, min_samples=20, rolling_windows=[3])
        before = client.get(f"{STREAM}/kept").json()
        unbroken = post(client, SCORED, "twin")
    with served(tmp_path) as client:
        after = client.get(f"{STREAM}/kept").json()
        changing = ("last_used_at", "memory_bytes")
        assert {k: v for k, v in after.items() if k not in changing} == {
            k: v for k, v in before.items() if k not in changing
        }
        assert client.get(f"{STREAM}/detectors").json()["total"] == 2
        again = post(client, SCORED, "kept")
        assert again["results"] == unbroken["results"]
        assert again["samples_collected"] == 31


def test_a_reset_and_a_delete_survive_too(tmp_path: Path) -> None:
    """What was reset is empty after a restart, what was deleted is gone."""
    with served(tmp_path) as client:
        for model in ("empty", "gone"):
            post(client, rows(30), model, min_samples=20)
    with served(tmp_path) as client:
        client.post(f"{STREAM}/empty/reset")
        client.delete(f"{STREAM}/gone")
    with served(tmp_path) as client:
        assert client.get(f"{STREAM}/gone").status_code == 404
        stats = client.get(f"{STREAM}/empty").json()
        assert (stats["status"], stats["samples_collected"], stats["min_samples"]) == ("collecting", 0, 20)


def test_detectors_beyond_the_limit_wait_on_disk(tmp_path: Path) -> None:
    """Of five detectors two are in memory; the others answer as before when they are asked for."""
    with served(tmp_path, live_max=2) as client:
        for i in range(5):
            post(client, rows(20 + i), f"d{i}", min_samples=20)
        registry = client.app.state.service.registry  # type: ignore[attr-defined]
        assert list(registry.live) == ["d3", "d4"]
        assert client.get(f"{STREAM}/detectors").json()["total"] == 5
        assert client.get(f"{STREAM}/d0").json()["samples_collected"] == 20
        back = post(client, SCORED, "d0")
        assert (back["status"], back["samples_collected"]) == ("ready", 21)
        assert list(registry.live) == ["d4", "d0"]


def test_memory_is_bounded(tmp_path: Path) -> None:
    """With little memory all but the detector in use are on disk."""
    with served(tmp_path, memory_bytes_max=1) as client:
        for i in range(3):
            post(client, rows(20), f"d{i}", min_samples=20)
        assert list(client.app.state.service.registry.live) == ["d2"]  # type: ignore[attr-defined]
        assert client.get(f"{STREAM}/d1").json()["is_ready"]


def test_the_number_of_all_detectors_is_bounded(tmp_path: Path) -> None:
    """One more than may be is refused with 429, and the known ones go on."""
    with served(tmp_path, stored_max=2, live_max=1) as client:
        for model in ("a", "b"):
            post(client, rows(1), model)
        assert client.post(STREAM, json={"model": "c", "data": {}}).status_code == 429
        assert post(client, rows(1), "a")["samples_collected"] == 2


def test_what_nobody_uses_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors, in memory or on disk, and buffers that nobody used for the time to live are dropped."""
    with served(tmp_path, live_max=1, ttl_s=60.0) as client:
        for model in ("on-disk", "live"):
            post(client, rows(20), model, min_samples=20)
        client.post(BUFFERS, json={"buffer_id": "b"})
        now = clock.now_ms()
        monkeypatch.setattr(clock, "now_ms", lambda: now + 61_000)
        service = client.app.state.service  # type: ignore[attr-defined]
        client.portal.call(service.registry.sweep)
        client.portal.call(service.buffers.sweep)
        assert client.get(f"{STREAM}/detectors").json()["total"] == 0
        assert client.get(BUFFERS).json()["total"] == 0
    assert not list(tmp_path.rglob("*.npz"))


def test_a_damaged_file_costs_its_own_detector_only(tmp_path: Path) -> None:
    """A file that cannot be read is set aside; the server starts and the other detectors are there."""
    with served(tmp_path) as client:
        for model in ("good", "bad"):
            post(client, rows(20), model, min_samples=20)
        path = client.app.state.service.registry._path("bad")  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:100])
    with served(tmp_path) as client:
        assert [one["model_id"] for one in client.get(f"{STREAM}/detectors").json()["data"]] == ["good"]
    assert len(list(tmp_path.rglob("*.damaged"))) == 1


def test_buffers_survive_a_restart(tmp_path: Path) -> None:
    """A buffer has the same rows, columns and figures after a restart, and goes on."""
    data = [{"v": 1, "t": "x", "o": {"k": [1]}}, {"v": 2.5, "t": None}]
    with served(tmp_path) as client:
        client.post(BUFFERS, json={"buffer_id": "b", "window_size": 10})
        client.post("/v1/ml/polars/append", json={"buffer_id": "b", "data": data})
        before = client.get(f"{BUFFERS}/b/data").json()
    with served(tmp_path) as client:
        assert client.get(f"{BUFFERS}/b/data").json() == before
        client.post("/v1/ml/polars/append", json={"buffer_id": "b", "data": {"v": "now text"}})
        stats = client.get(f"{BUFFERS}/b").json()
        assert (stats["size"], stats["append_count"], stats["numeric_columns"]) == (3, 3, [])


def test_batch_models_survive_a_restart(tmp_path: Path) -> None:
    """A fitted model scores the same after a restart, without a load."""
    data = [[float(i % 7), float(i % 5)] for i in range(40)]
    body = {"model": "b", "backend": "ecod", "data": [[3.0, 2.0], [50.0, 2.0]]}
    with served(tmp_path) as client:
        client.post("/v1/ml/anomaly/fit", json={"model": "b", "backend": "ecod", "data": data})
        before = client.post("/v1/ml/anomaly/score", json=body).json()
    with served(tmp_path) as client:
        assert client.post("/v1/ml/anomaly/score", json=body).json() == before
