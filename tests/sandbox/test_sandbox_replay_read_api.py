"""The read API answers as recorded, field by field (the rule stands in sandbox_replay)."""

from __future__ import annotations

import pytest
from sandbox_replay import RECORDED, Scene, ms, named, replay

# What cannot match, and why. The test fails when one of these starts to match.
CANNOT: dict[str, str] = {}
NOW = "2026-11-22T02:06:51.267Z"
ORG = "org_a"
SERIES = [name for name in named(r"v1\.query.*") if RECORDED[name]["response"].get("json", {}).get("series")]
NO_GATEWAY = named(r"v1\..*no_gateway")
NONFINITE = "v1.latest_nonfinite"
OTHERS = [name for name in named(r"v1\..*") if name not in [*SERIES, *NO_GATEWAY, NONFINITE]]
PLAYED = {*SERIES, *NO_GATEWAY, NONFINITE, *OTHERS}
WIDTH_MS = {"raw": 1, "1m": 60_000, "10m": 600_000, "1h": 3_600_000, "1d": 86_400_000}


def test_the_read_api_answers_as_recorded() -> None:
    """Lists, last values, errors, redirects and every standing of a key answer as recorded."""
    with Scene(NOW) as scene:
        _seed(scene)
        replay(scene, OTHERS, CANNOT, {name: _store_down for name in OTHERS if "clickhouse_error" in name})


def test_without_the_gateway_only_names_are_answered() -> None:
    """With the gateway away the lists of sources fail, and the metric names are answered as recorded."""
    with Scene(NOW) as scene:
        wanted = RECORDED["v1.metrics_no_gateway"]["response"]["json"]
        scene.box.load((("dev-1", metric, scene.now_ms, 1.0) for metric in wanted), org=ORG)
        replay(scene, NO_GATEWAY, CANNOT, dict.fromkeys(NO_GATEWAY[:2], _gateway_away))


def _store_down(scene: Scene) -> None:
    scene.box.faults.add("store_down", next=1)


def _gateway_away(scene: Scene) -> None:
    scene.box.faults.add("status", status=500, route="/v1", next=1)


def _seed(scene: Scene) -> None:
    """Store one point per metric, such that names, last values and last sights are the recorded ones."""
    seen = {d["source_id"]: d["last_seen_ms"] for d in RECORDED["v1.sources"]["response"]["json"]["devices"]}
    latest = RECORDED["v1.latest"]["response"]["json"]["metrics"]
    old = ms("2026-11-22 01:51:00.000")
    scene.box.load((("dev-1", metric, old, value) for metric, value in latest.items()), org=ORG)
    scene.box.load([("dev-1", "dup", seen["dev-1"], latest["dup"])], org=ORG)
    scene.box.load([(slug, "m1", at, 1.0) for slug, at in seen.items() if slug != "dev-1"], org=ORG)
    scene.box.load([("dev-1", "temperature", old, -999.0)], org="org_b")


@pytest.mark.parametrize("name", SERIES)
def test_series_answer_as_recorded(name: str) -> None:
    """Raw and bucketed series have the recorded intervals, starts, extremes, means and lengths."""
    answer = RECORDED[name]["response"]["json"]
    with Scene("2026-11-22T02:31:21.300Z" if "nonfinite" in name else NOW) as scene:
        slug = RECORDED[name]["request"]["path"].split("/")[3]
        width_ms = WIDTH_MS[answer["interval"]]
        for metric, columns in answer["series"].items():
            rows = _points(columns) + _filler(columns, width_ms)
            scene.box.load([(slug, metric, t_ms, value) for t_ms, value in rows], org=ORG)
        replay(scene, [name], CANNOT)


def _points(columns: dict[str, list[float]]) -> list[tuple[int, float]]:
    """Return points of which the recorded columns are true."""
    if "value" in columns:
        pairs = zip(columns["timestamp_ms"], columns["value"], strict=True)
        return [(int(t), float("nan") if v is None else v) for t, v in pairs if not isinstance(t, str)]
    points = []
    for start, low, high, mean, count in zip(*columns.values(), strict=True):
        if not isinstance(start, str):
            ends = [low, high] if count > 1 else [mean]
            inner = count - len(ends)
            values = ends + [(mean * count - sum(ends)) / inner] * inner if inner else ends
            points += [(int(start) + i, value) for i, value in enumerate(values)]
    return points


def _filler(columns: dict[str, list[float]], width_ms: int) -> list[tuple[int, float]]:
    """Return a point for each item that the recorder cut off."""
    *whole, last = columns["timestamp_ms"]
    if not isinstance(last, str):
        return []
    cut = int(last.split()[1])
    return [(int(whole[-1]) + width_ms * (i + 1), 1.0) for i in range(cut)]


def test_values_that_json_cannot_say_are_null() -> None:
    """A non-finite last value is null, as recorded."""
    with Scene("2026-11-22T02:31:21.300Z") as scene:
        latest = RECORDED[NONFINITE]["response"]["json"]["metrics"]
        nan = float("nan")
        rows = [("dev-2", name, scene.now_ms - 1, nan if v is None else v) for name, v in latest.items()]
        scene.box.load(rows, org=ORG)
        replay(scene, [NONFINITE], CANNOT)
