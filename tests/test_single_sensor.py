"""The one-page example does what its page says."""

from __future__ import annotations

import importlib.util
import math
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests

from plexus_detect.sandbox import Sandbox

FILE = Path(__file__).parent.parent / "examples/single_sensor.py"
TUTORIAL = (22.41, 22.45, 23.18, 24.05, 24.92, 25.78, 26.43)


@pytest.fixture
def example() -> ModuleType:
    return loaded()


def loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("single_sensor", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def quiet_room(n: int) -> list[float]:
    """Readings around 22.4 with a deviation of 0.05, at the sensor's resolution of 0.01."""
    noise = random.Random(7)
    return [round(noise.gauss(22.4, 0.05), 2) for _ in range(n)]


def tutorial_z(readings: list[float]) -> list[float]:
    """The tutorial's score: the newest of 15 readings against all 15, itself included."""
    scores = []
    for end in range(15, len(readings) + 1):
        window = readings[end - 15 : end]
        mean = math.fsum(window) / 15
        deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in window) / 15)
        scores.append(abs(window[-1] - mean) / deviation)
    return scores


def test_tutorial_readings_fire_on_the_third_anomalous_sample(example: ModuleType) -> None:
    """The tutorial's readings score 0 until the third that is out of line, which posts more than 3."""
    watch = example.Watch("esp32-1", "temperature")
    assert not any(watch.score(value) for value in quiet_room(100))
    scores = [watch.score(value) for value in TUTORIAL]
    assert scores[:4] == [0.0] * 4
    assert all(score > 3 for score in scores[4:])


def test_tutorial_arithmetic_does_not_fire() -> None:
    """With the point inside its own window no |z| exceeds sqrt(14), and a step passes 3 twice at most."""
    for step in (1.0, 100.0, 1e6):
        scores = tutorial_z(quiet_room(40) + [22.4 + step] * 14)
        assert max(scores) <= math.sqrt(14) + 1e-9
        assert sum(score > 3 for score in scores[25:]) <= 2
    own = tutorial_z([*quiet_room(40), *TUTORIAL])[-len(TUTORIAL) :]
    assert [score > 3 for score in own].count(True) <= 3
    assert not any(a > 3 and b > 3 and c > 3 for a, b, c in zip(own, own[1:], own[2:], strict=False))


def test_recovery_posts_zero_and_the_baseline_is_unharmed(example: ModuleType) -> None:
    """The first normal sample after an anomaly scores 0, and the next anomaly counts to three again."""
    watch = example.Watch("esp32-1", "temperature")
    for value in quiet_room(100):
        watch.score(value)
    for _ in range(2):
        assert [watch.score(value) > 3 for value in (30.0, 30.0, 30.0, 30.0)] == [False, False, True, True]
        assert watch.score(22.4) == 0.0
    assert max(watch.normal) < 23


def test_constant_sensor_moving_by_its_resolution_is_normal(example: ModuleType) -> None:
    """One step off a constant past is one floor away, not infinitely far."""
    watch = example.Watch("esp32-1", "temperature")
    for _ in range(40):
        watch.score(20.0)
    assert [watch.score(20.01) for _ in range(5)] == [0.0] * 5


def test_lasting_level_becomes_normal(example: ModuleType) -> None:
    """A level that lasts is learned anew, so the alert ends."""
    watch = example.Watch("esp32-1", "temperature")
    for value in quiet_room(100):
        watch.score(value)
    scores = [watch.score(value + 5) for value in quiet_room(example.RELEARN_AFTER + 200)]
    assert scores[-1] == 0.0
    assert max(watch.normal) > 27


class Platform:
    """Answers like the platform to the two requests of the example, and keeps what was posted."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.posted: list[dict[str, Any]] = []
        self.status = 200
        self.text = ""

    def send(self, *values: float | None, ago_s: int = 0) -> list[int]:
        """Take samples one second apart, the last ``ago_s`` seconds ago; their times in ms."""
        now = round(time.time() * 1000) - 1000 * ago_s
        times = [now - 1000 * (len(values) - i - 1) for i in range(len(values))]
        for t_ms, value in zip(times, values, strict=True):
            text = datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
            self.rows.append({"timestamp": text, "value": value})
        return times

    def get(self, url: str, params: dict[str, str], **_: Any) -> Answer:
        """GET /api/v1/telemetry."""
        assert url.endswith("/api/v1/telemetry")
        return Answer(200, {"data": self.rows[-int(params["limit"]) :]})

    def post(self, url: str, json: dict[str, Any], **_: Any) -> Answer:
        """POST /ingest."""
        assert url.endswith("/ingest")
        if self.status == 200:
            self.posted += json["points"]
        return Answer(self.status, {"success": True, "count": len(json["points"])})


class Answer:
    """One HTTP answer."""

    def __init__(self, status_code: int, body: dict[str, Any]) -> None:
        self.status_code, self.body, self.text = status_code, body, str(body)

    def json(self) -> dict[str, Any]:
        """The body."""
        return self.body


def test_poll_posts_new_samples_only_at_their_own_time(example: ModuleType) -> None:
    """The first poll learns history in silence; later ones post a score for each new sample, once."""
    platform, watch = Platform(), example.Watch("esp32-1", "t")
    platform.send(*quiet_room(100), ago_s=10)
    assert example.poll_once(platform, watch) == 0
    assert platform.posted == []
    times = platform.send(22.4, None, 30.0, 30.0, 30.0)
    assert example.poll_once(platform, watch) == 4
    assert example.poll_once(platform, watch) == 0
    assert [p["timestamp"] for p in platform.posted] == [times[0], *times[2:]]
    assert [p["value"] > 3 for p in platform.posted] == [False, False, False, True]
    assert {p["metric"] for p in platform.posted} == {"t.zscore"}


def test_failed_post_is_sent_again_unless_too_old(example: ModuleType) -> None:
    """Scores that the gateway refused go with the next poll; after two minutes they are dropped."""
    platform, watch = Platform(), example.Watch("esp32-1", "t")
    platform.send(*quiet_room(100), ago_s=10)
    example.poll_once(platform, watch)
    platform.send(22.4)
    platform.status = 401
    with pytest.raises(RuntimeError, match="posting answered 401"):
        example.poll_once(platform, watch)
    watch.unsent.append({"metric": "t.zscore", "value": 9.0, "timestamp": time.time() * 1000 - 121_000})
    platform.status = 200
    assert example.poll_once(platform, watch) == 1
    assert [p["value"] for p in platform.posted] == [0.0]


def test_against_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP: history is learned, an anomaly is stored at its sample's time, a bad key is said."""
    with Sandbox() as box:
        monkeypatch.setenv("PLEXUS_ENDPOINT", box.url)
        monkeypatch.setenv("PLEXUS_GATEWAY_URL", box.url)
        module, now = loaded(), round(time.time() * 1000)
        watch = module.Watch("esp32-1", "t")
        box.load(("esp32-1", "t", now - 110_000 + 1000 * i, v) for i, v in enumerate(quiet_room(100)))
        with requests.Session() as http:
            http.headers["x-api-key"] = box.key
            assert module.poll_once(http, watch) == 0
            box.load(("esp32-1", "t", now - 3000 + 1000 * i, 30.0) for i in range(3))
            assert module.poll_once(http, watch) == 3
            http.headers["x-api-key"] = "nonsense"
            with pytest.raises(RuntimeError, match="reading answered 307"):
                module.poll_once(http, watch)
        stored = [(row.t_ms - now, row.value > 3) for row in box.rows("esp32-1", "t.zscore")]
        assert stored == [(-3000, False), (-2000, False), (-1000, True)]


def test_the_page_is_a_page() -> None:
    """The example stays on about one page and needs requests alone."""
    lines = FILE.read_text().splitlines()
    assert len(lines) <= 100
    assert [line for line in lines if line.startswith("import requests")]
    assert "plexus_detect" not in FILE.read_text()
