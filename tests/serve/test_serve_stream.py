"""Streaming detectors over HTTP: the documents' examples, and what the original promised and did not do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serve_room import STREAM, Held, InPlace, TestClient, post, rows, served

from plexus_detect.serve.app import make_app
from plexus_detect.serve.settings import Settings


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with served(tmp_path_factory.mktemp("state")) as made:
        yield made


def readings(n: int, seed: int = 0) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    values = rng.normal([72.0, 45.0, 1013.0], [2.0, 3.0, 5.0], (n, 3)).round(2)
    return [{"temperature": t, "humidity": h, "pressure": p} for t, h, p in values.tolist()]


FAULTS = {130: 95.0, 150: 50.0}


def flagged_by_the_monitor(client: TestClient, model: str, **settings: Any) -> list[int]:
    """The documents' IoT monitor as written, one reading a request; which of 160 readings it flags."""
    flagged = []
    for i, reading in enumerate(readings(160)):
        reading["temperature"] = FAULTS.get(i, reading["temperature"])
        body = {"backend": "ecod", "min_samples": 100, "retrain_interval": 500, "window_size": 3600}
        result = post(client, reading, model, **body, threshold=0.5, contamination=0.05, **settings)
        (row,) = result["results"]
        if result["status"] == "collecting":
            assert row["is_anomaly"] is None
            assert row["samples_until_ready"] == 99 - i
        elif row["is_anomaly"]:
            flagged.append(i)
            assert row["severity"] in ("warning", "critical")
            assert math.isclose(sum(one["share"] for one in row["contributors"]), 1.0)
    return flagged


def test_the_monitor_loop_of_the_documents(client: TestClient) -> None:
    """The IoT monitor runs: nulls until ready, then both faults are flagged and hardly anything else."""
    flagged = flagged_by_the_monitor(client, "iot-monitor")
    assert set(FAULTS) <= set(flagged)
    assert len(flagged) <= 4


ROLLING = {"rolling_windows": [10, 60, 300], "include_lags": True, "lag_periods": [1, 5, 10]}


def test_the_monitor_loop_with_the_rolling_settings_of_the_documents(client: TestClient) -> None:
    """The monitor with its rolling windows and lags flags both faults, and windows longer than what was
    learned from do not flag the normal rows after a cold start."""
    flagged = flagged_by_the_monitor(client, "iot-rolling", **ROLLING)
    assert set(FAULTS) <= set(flagged)
    assert len(flagged) <= 4


def test_the_batch_of_the_documents(client: TestClient) -> None:
    """A batch of four rows is answered by four results in order."""
    data = [{"temperature": 72.5}, {"temperature": 73.0}, {"temperature": 71.8}, {"temperature": 72.2}]
    result = post(client, data, "batch-of-four")
    assert [row["index"] for row in result["results"]] == [0, 1, 2, 3]
    assert [row["samples_until_ready"] for row in result["results"]] == [49, 48, 47, 46]
    assert result["samples_collected"] == 4


def test_a_model_can_be_rolled_back(client: TestClient) -> None:
    """The model before the one in use comes back under a version of its own; without one the answer is 409,
    and 404 for an unknown detector."""
    post(client, rows(20), "twice", min_samples=10, retrain_interval=10)
    for _ in range(200):
        answer = post(client, rows(1), "twice", min_samples=10, retrain_interval=10)
        if answer["model_version"] >= 2:
            break
    back = client.post(f"{STREAM}/twice/rollback").json()
    assert (back["object"], back["model_version"]) == ("rollback_result", answer["model_version"] + 1)
    assert client.get(f"{STREAM}/twice").json()["model_version"] == back["model_version"]
    post(client, rows(12), "once", min_samples=10)
    assert client.post(f"{STREAM}/once/rollback").status_code == 409
    assert client.post(f"{STREAM}/nobody/rollback").status_code == 404


def test_reset_keeps_the_settings_and_delete_nothing(client: TestClient) -> None:
    """Reset empties a detector and keeps its parameters; after a delete it is unknown."""
    post(client, rows(20), "fleeting", min_samples=12, threshold=0.7)
    reset = client.post(f"{STREAM}/fleeting/reset")
    assert reset.json() == {
        "object": "reset_result",
        "model": "fleeting",
        "status": "collecting",
        "reset": True,
    }
    stats = client.get(f"{STREAM}/fleeting").json()
    assert (stats["min_samples"], stats["threshold"]) == (12, 0.7)
    assert (stats["samples_collected"], stats["total_processed"], stats["model_version"]) == (0, 0, 0)
    assert client.delete(f"{STREAM}/fleeting").json()["deleted"] is True
    assert client.get(f"{STREAM}/fleeting").json() == {"detail": "Streaming detector not found: fleeting"}


def test_rolling_windows_count_through_the_api(client: TestClient) -> None:
    """Rolling settings change what is scored: a level that creeps within its range is found by them only."""
    quiet = [{"v": 10.0 + math.sin(i * 1.7)} for i in range(120)]
    stuck = [{"v": 10.9}] * 8
    plain, rolling = (
        post(client, [*quiet, *stuck], name, min_samples=100, rolling_windows=windows)
        for name, windows in (("plain", None), ("rolled", [5]))
    )
    assert not plain["results"][-1]["is_anomaly"]
    assert rolling["results"][-1]["score"] > plain["results"][-1]["score"]
    assert client.get(f"{STREAM}/rolled").json()["rolling_windows"] == [5]


def test_columns_are_matched_by_name(client: TestClient) -> None:
    """Keys in another order give the same score; a missing, null or new one is no error."""
    post(client, rows(30, a=1.0, b=100.0), "named", min_samples=30)
    one, other, missing, more = (
        post(client, row, "named")["results"][0]
        for row in (
            {"a": 2.0, "b": 101.0},
            {"b": 101.0, "a": 2.0},
            {"a": 2.0, "b": None},
            {"a": 2.0, "b": 101.0, "c": 5},
        )
    )
    assert one["score"] == other["score"] == more["score"]
    assert missing["score"] is not None


def test_settings_of_a_known_detector_stay_and_are_told(client: TestClient) -> None:
    """A later request that sets something else is answered with a warning that names it."""
    post(client, [], "settled", min_samples=20, threshold=0.6)
    same = post(client, [], "settled", min_samples=20)
    other = post(client, [], "settled", min_samples=30, threshold=0.6, contamination=0.2, lag_periods=[7])
    assert "warnings" not in same
    assert [text.split()[0] for text in other["warnings"]] == ["contamination", "min_samples"]
    assert other["threshold"] == 0.6


def test_text_counts_with_a_schema(client: TestClient) -> None:
    """With a schema a category that never came is an anomaly; the schema is part of the detector."""
    data = [{"v": 1.0 + 0.01 * (i % 7), "state": "on" if i % 2 else "idle"} for i in range(40)]
    post(client, data, "coded", min_samples=40, schema={"state": "frequency"})
    usual, strange = (
        post(client, {"v": 1.03, "state": state}, "coded")["results"][0] for state in ("on", "on fire")
    )
    assert strange["score"] > usual["score"]
    assert client.get(f"{STREAM}/coded").json()["schema"] == {"state": "frequency"}


def test_scoring_goes_on_while_a_fit_runs(tmp_path: Path) -> None:
    """While a new model is fitted the status says so, the old one scores, and the new one takes its place."""
    trainer = Held()
    with served(tmp_path, trainer) as client:
        trainer.free = True
        post(client, rows(20), min_samples=20, retrain_interval=10)
        trainer.free = False
        busy = post(client, rows(12))
        assert busy["status"] == "retraining"
        assert busy["model_version"] == 1
        assert all(row["score"] is not None for row in busy["results"])
        trainer.free = True
        assert post(client, rows(1))["model_version"] == 2
        stats = client.get(f"{STREAM}/m").json()
        assert [one["version"] for one in stats["model_versions"]] == [1, 2]


def test_a_batch_asks_for_no_more_fits_than_single_rows(tmp_path: Path) -> None:
    """A batch far over the interval is no retrain storm: it ends at the version that single rows end at."""
    with served(tmp_path) as client:
        batch = post(client, rows(60), "batch", min_samples=10, retrain_interval=10)
        for row in rows(60):
            single = post(client, row, "single", min_samples=10, retrain_interval=10)
        assert 2 <= batch["model_version"] <= 6
        assert abs(batch["model_version"] - single["model_version"]) <= 1


def test_concurrent_posts_lose_no_rows(tmp_path: Path) -> None:
    """Forty posts at once to one detector are forty batches in its window, each answered for its own rows."""

    async def run() -> list[dict[str, Any]]:
        app = make_app(Settings(state=tmp_path), InPlace(), InPlace())
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                body = {"model": "shared", "data": rows(5), "min_samples": 50, "window_size": 500}
                answers = await asyncio.gather(*(client.post(STREAM, json=body) for _ in range(40)))
                stats = await client.get(f"{STREAM}/shared")
        return [*(answer.json() for answer in answers), stats.json()]

    *answers, stats = asyncio.run(run())
    assert (stats["total_processed"], stats["samples_collected"]) == (200, 200)
    assert sorted(answer["samples_collected"] for answer in answers) == list(range(5, 201, 5))


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b'{"data": {"a": NaN}}', 400, "NaN or Infinity"),
        (b'{"data": {"a": -Infinity}}', 400, "NaN or Infinity"),
        (b'{"data": {"a": 1e999}}', 400, "out of range"),
        (b'{"data": ' + b"[" * 5000, 400, "nested too deeply"),
        (b'{"data": "\xff"}', 400, "UTF-8"),
        (b'{"model": "a..b", "data": {}}', 400, "Invalid model_id: a..b"),
        (b'{"model": "young", "data": {}, "min_samples": 2000}', 400, "min_samples 2000 is more than"),
        (b'{"model": "young", "data": {}, "rolling_windows": [0]}', 400, "a rolling window is"),
        (b'{"model": "young", "data": {}, "backend": "onnx"}', 400, "cannot be fitted"),
        (b'{"data": {', 422, "JSON decode error"),
        (b"[]", 422, "valid dictionary"),
    ],
)
def test_what_cannot_be_used_is_said(client: TestClient, body: bytes, status: int, sentence: str) -> None:
    """Each kind of bad body is answered with its status and a sentence, and makes no detector."""
    answer = client.post(STREAM, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, sentence in answer.text) == (status, True), answer.text
    assert client.get(f"{STREAM}/young").status_code == 404


def test_too_many_columns_are_refused(client: TestClient) -> None:
    """A detector has a bounded number of columns, whether they come at once or one after another."""
    post(client, {f"a{i}": 1 for i in range(200)}, "wide")
    more = [{f"b{i}": 1 for i in range(200)}]
    different = [{f"c{i}": 1} for i in range(10_000)]
    asked: list[tuple[str, dict[str, Any]]] = [
        ("400 columns and 400 features", {"model": "wide", "data": more}),
        ("10000 columns", {"model": "wide", "data": different}),
        ("2600 features", {"model": "features", "data": more, "rolling_windows": [5, 10, 20]}),
        (
            "600 columns",
            {
                "model": "coded-wide",
                "data": [{f"d{i}": str(n) for i in range(20)} for n in range(30)],
                "schema": {f"d{i}": "onehot" for i in range(20)},
            },
        ),
    ]
    for sentence, body in asked:
        answer = client.post(STREAM, json=body)
        assert answer.status_code == 400
        assert sentence in answer.json()["detail"]
    assert client.get(f"{STREAM}/wide").json()["samples_collected"] == 1
