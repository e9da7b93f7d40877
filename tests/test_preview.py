"""preview: what a plan's monitors would have fired, from the platform's history, beside what they do fire."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from alarm_house import T0, URL, AlarmHouse, Opened, Row, bounds, opened, rough
from backtest_week import DAY, HOUR, MINUTE, config, week
from click.testing import CliRunner

from plexus_detect import monitors, outbox
from plexus_detect.backtest.replay import in_order
from plexus_detect.client import Client, Endpoints
from plexus_detect.closing import Alert, Debt, delivered
from plexus_detect.config import Config
from plexus_detect.evaluate import State, evaluate
from plexus_detect.monitors import Key, Plan
from plexus_detect.monitors.firing import Firing
from plexus_detect.monitors.forecast import Forecast, Preview, forecast_json, forecast_lines
from plexus_detect.policy import policy_of
from plexus_detect.provision import command
from plexus_detect.provision.preview import forecasts, questions
from plexus_detect.provision.reading import make_plan
from plexus_detect.sandbox import Sandbox
from plexus_detect.sandbox.settings import WRITE_KEY
from plexus_detect.series import Derived, Points, SeriesKey, SeriesTable

PAGES = config(poll__limit="900", poll__pages_max="3")
QUICK = {
    "detect__detector": "zscore",
    "detect__window": "60",
    "detect__min_points": "20",
    "fleet__min_points": "20",
}


def threshold(source: str, metric: str, **fields: float | None) -> dict[str, Any]:
    """A document."""
    return {"source_id": source, "metric": metric, "threshold": fields}


def previewed(
    house: AlarmHouse,
    documents: list[dict[str, Any]],
    settings: Config = PAGES,
    days: float = 2,
    **more: bool,
) -> tuple[Plan, Preview]:
    """Plan and preview the documents against a platform."""

    async def run() -> tuple[Plan, Preview]:
        async with house.client() as client:
            specs = monitors.parse(json.dumps(documents), "m.json")
            plan = await make_plan(client, specs, ownership=monitors.Ownership(overwrite=True))
            return plan, await forecasts(settings, client, plan, days, **more)

    return asyncio.run(run())


def lines(preview: Preview) -> list[str]:
    """A preview without the plan that it belongs to."""
    if preview.missing:
        return [f"no preview of firings: {preview.missing}"]
    return forecast_lines(preview.forecasts, preview.documents, preview.days)


def shown(preview: Preview, state: str = "then") -> dict[tuple[str, str], Opened]:
    """Of each monitor that fired when its alerts opened and closed, in seconds."""
    found = {key[:2]: getattr(forecast, state) for key, forecast in preview.forecasts.items()}
    return {pair: opened(fired) for pair, fired in found.items() if fired}


def test_the_previewed_firings_are_those_of_the_platform() -> None:
    """Twenty random histories: read back through the API in pages, they give the alerts that the platform has
    for its bounds, and those that another platform has which ran them under the planned ones."""
    house, planned = AlarmHouse(), AlarmHouse()
    rows: list[Row] = []
    documents = []
    for seed in range(20):
        t_ms, value = rough(seed)
        source, limits = f"dev-{seed}", bounds(seed + 1)
        rows += [(source, "t", t, v) for t, v in zip(t_ms.tolist(), value.tolist(), strict=True)]
        house.watch(source, "t", "threshold", bounds(seed))
        planned.watch(source, "t", "threshold", limits)
        documents.append(threshold(source, "t", **limits))
    end = max(row[2] for row in rows) + MINUTE
    house.live(rows, end)
    planned.live(rows, end)
    plan, preview = previewed(house, documents)
    assert {change.action for change in plan.changes} == {"change"}
    assert len(preview.forecasts) == 20
    assert shown(preview, "now") == house.alerts()
    assert shown(preview) == planned.alerts() != house.alerts()
    assert {f.origin for f in preview.forecasts.values()} == {"stored"}
    assert {f.points for f in preview.forecasts.values()} == {400}
    assert house.box.requests.counts["GET /api/v1/telemetry"] > 10
    for each in (house, planned):
        each.box.close()


def posted_by_the_worker(keys: list[SeriesKey], points: Points, settings: Config) -> list[Row]:
    """The scores of a worker that polls every minute, with the zeros that close its alerts."""
    table = SeriesTable()
    state = State(table, policy_of(settings))
    for series, key in enumerate(keys):
        table.add(*key)
        state.admit(series, settings.rule_for(*key))
    debts: dict[Alert, Debt] = {}
    parts = []
    for tick in range(T0, int(points.t_ms.max()) + 2 * MINUTE, MINUTE):
        due = points.take((points.t_ms >= tick - MINUTE) & (points.t_ms < tick))
        state.owed = debts
        parts.append(evaluate(state, in_order(due), tick).derived)
        changes = delivered(parts[-1], tick, debts)
        debts.update(changes.put)
        for alert in changes.gone:
            debts.pop(alert, None)
    derived = Derived.concat(parts)
    sources, metrics = outbox.names(derived, table.keys)
    return list(zip(sources, metrics, derived.t_ms.tolist(), derived.value.tolist(), strict=True))


def raw(keys: list[SeriesKey], points: Points) -> list[Row]:
    """Points as rows."""
    columns = points.series.tolist(), points.t_ms.tolist(), points.value.tolist()
    return [(*keys[series], t, v) for series, t, v in zip(*columns, strict=True)]


@pytest.mark.parametrize("fleet", ["true", "false"])
def test_scores_that_nobody_stored_are_replayed(fleet: str) -> None:
    """Only samples are stored: monitors on their scores fire as on a platform to which the worker posted the
    scores of the same samples one by one. Stored scores are taken as they are, unless told otherwise."""
    settings = config(fleet__enabled=fleet, **QUICK)
    keys, points = week(devices=7, metrics=2, samples=220, seed=3)
    rows, end = raw(keys, points), int(points.t_ms.max()) + 2 * MINUTE
    scores = [row for row in posted_by_the_worker(keys, points, settings) if row[1].startswith("m0.")]
    names = ("m0.zscore", "m0.fleet_zscore")
    house, real = AlarmHouse(), AlarmHouse()
    for source in sorted({key.source for key in keys}):
        for name in names:
            real.watch(source, name, "threshold", {"max": 3.0})
    real.live(scores, end)
    house.live(rows, end)
    documents = [threshold(f"dev-{i}", name, max=3.0) for name in names for i in range(7)]
    _plan, preview = previewed(house, documents, settings)
    want = real.alerts()
    assert shown(preview) == want
    assert ("dev-1", "m0.zscore") in want
    assert (("dev-1", "m0.fleet_zscore") in want) == (fleet == "true")
    assert {f.now for f in preview.forecasts.values()} == {None}
    per_name = {pair: sum(row[:2] == pair for row in scores) for pair in {row[:2] for row in scores}}
    assert {key[:2]: f.points for key, f in preview.forecasts.items() if f.points} == per_name
    assert {f.origin for f in preview.forecasts.values() if f.points} == {"replayed"}
    house.box.load([("dev-1", "m0.zscore", T0 + HOUR, 9.0)])
    key: Key = ("dev-1", "m0.zscore", "threshold")
    for replay, origin, n in ((False, "stored", 1), (True, "replayed", len(want[key[:2]]))):
        again = previewed(house, documents[1:2], settings, replay=replay)[1].forecasts[key]
        assert (again.origin, len(again.then or ())) == (origin, n)
    for each in (house, real):
        each.box.close()


def test_zeros_close_alerts_in_a_replay_too() -> None:
    """The peers of a device fall silent between its anomaly and the second calm score: the worker posts zeros
    until the alert is closed, and so does a replay; as points they do not count."""
    settings = config(**QUICK, fleet__consecutive="1", fleet__of="1", fleet__close_after="1")
    keys, points = week(devices=7, metrics=1, samples=300, cadence_ms=10_000, seed=3)
    number, of_dev_1 = (points.t_ms - T0) // 10_000, points.series == 1
    spike = 9.0 * ((number == 200) | (number == 201)) - 9.0 * ((number >= 150) & (number < 180))
    points = replace(points, value=points.value + spike * of_dev_1)
    points = points.take(of_dev_1 | (number < 208))
    rows, end = raw(keys, points), int(points.t_ms.max()) + 2 * MINUTE
    pair = ("dev-1", "m0.fleet_zscore")
    scores = [row for row in posted_by_the_worker(keys, points, settings) if row[:2] == pair]
    house, real = AlarmHouse(), AlarmHouse()
    real.watch(*pair, "threshold", {"max": 3.0})
    real.live(scores, end)
    house.live(rows, end)
    _plan, preview = previewed(house, [threshold(*pair, max=3.0)], settings)
    assert shown(preview) == real.alerts()
    assert real.alerts()[pair][-1][1] is not None
    assert 0 < preview.forecasts[(*pair, "threshold")].points < len(scores)
    for each in (house, real):
        each.box.close()


def test_what_has_no_forecast_says_why() -> None:
    """No points, scores that the configuration does not post or of series that it does not select; an offline
    monitor watches no series and is left out, an event monitor is counted by its digests."""
    settings = config(fleet__enabled="false", series='[{"metrics": ["t"]}]')
    house = AlarmHouse()
    house.live([("dev-1", m, T0 + n * MINUTE, 1.0) for m in ("t", "u") for n in range(30)], T0 + HOUR)
    documents = [
        threshold("dev-1", "t.expected", max=3),
        threshold("dev-1", "u.zscore", max=3),
        threshold("dev-1", "v", max=3),
        threshold("dev-1", "u", min=2),
        {"source_id": "dev-1", "offline": {"timeout_seconds": 60}},
        {"source_id": "dev-1", "metric": "t", "event": {}},
    ]
    _plan, preview = previewed(house, documents, settings)
    found = {key: (f.origin, f.points, f.reason) for key, f in preview.forecasts.items()}
    assert found == {
        ("dev-1", "t.expected", "threshold"): (
            "none",
            0,
            "the configuration posts no *.expected (post.series)",
        ),
        ("dev-1", "u.zscore", "threshold"): ("none", 0, "the configuration scores no such series"),
        ("dev-1", "v", "threshold"): ("none", 0, "no points in the period"),
        ("dev-1", "u", "threshold"): ("stored", 30, ""),
        ("dev-1", "t", "event"): ("stored", 30, ""),
    }
    assert preview.forecasts["dev-1", "u", "threshold"].always
    assert len(preview.forecasts["dev-1", "t", "event"].then or ()) in (5, 6)
    assert lines(preview)[-1].startswith("m.json#/5: t (event) would have fired ")
    house.box.close()


def test_what_is_kept_costs_nothing() -> None:
    """An empty plan, or no days, makes no request; with everything asked for, it holds what is kept."""
    house = AlarmHouse()
    house.watch("dev-1", "t", "threshold", {"max": 3})
    house.live([("dev-1", "t", T0 + n * MINUTE, 4.0) for n in range(30)], T0 + HOUR)
    kept, more = threshold("dev-1", "t", max=3), threshold("dev-1", "u", max=3)
    for documents, days in (([kept], 2), ([kept, more], 0)):
        assert lines(previewed(house, documents, days=days)[1]) == []
    assert house.box.requests.counts["GET /api/v1/telemetry"] == 0
    _plan, preview = previewed(house, [kept], everything=True)
    (told,) = preview.forecasts.values()
    assert told.now == told.then
    assert len(told.then or ()) == 1
    house.box.close()


def test_a_plan_is_shown_without_its_preview() -> None:
    """A key that may not read, a platform that fails, and one whose store fails, which answers with nothing,
    give one sentence in place of the preview, for measured values and for scores alike."""
    house = AlarmHouse()
    house.live([("dev-1", "t", T0 + n * MINUTE, 4.0) for n in range(30)], T0 + HOUR)
    plans = [previewed(house, [threshold("dev-1", name, max=3)], days=0)[0] for name in ("t", "t.zscore")]

    async def run(key: str, plan: Plan) -> str:
        transport = httpx.ASGITransport(app=house.box.app)
        async with Client(Endpoints(URL, URL, URL), key, transport=transport) as client:
            (line,) = lines(await forecasts(PAGES, client, plan, 2))
            return line

    for plan in plans:
        line = asyncio.run(run(WRITE_KEY, plan))
        assert line.startswith("no preview of firings: the key may not read telemetry: GET ")
        assert "reading telemetry needs read" in line
        house.box.faults.add("status", route="/api/v1/telemetry", status=422)
        line = asyncio.run(run(house.box.key, plan))
        assert line.startswith("no preview of firings: the history cannot be read: GET ")
        house.box.faults.clear()
        house.box.faults.add("empty")
        line = asyncio.run(run(house.box.key, plan))
        assert "the app shows no point of t of dev-1, but the read API has 30 or more" in line
        house.box.faults.add("store_down")
        line = asyncio.run(run(house.box.key, plan))
        assert "has no preview: the app shows none, and the read API does not confirm it: GET " in line
        house.box.faults.clear()
    house.box.close()


def test_the_command_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``monitors plan`` tells the preview with the plan; ``--days 0`` leaves it out."""
    (tmp_path / "hot.json").write_text(json.dumps(threshold("dev-*", "t", max=3)))
    monkeypatch.chdir(tmp_path)
    with Sandbox() as box:
        now_ms = time.time_ns() // 1_000_000
        box.load(("dev-1", "t", now_ms - n * MINUTE, 4.0 * (n == 30)) for n in range(1, 60))
        for name in ("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL"):
            monkeypatch.setenv(name, box.url)
        monkeypatch.setenv("PLEXUS_API_KEY", box.key)
        whole, short = (
            CliRunner().invoke(command.plan, ["hot.json", *more]) for more in ((), ("--days", "0"))
        )
    line = "    would have fired once in 7 days on 1 of 1 device: dev-1 1; points only in the last"
    assert (whole.exit_code, short.exit_code) == (0, 0), whole.output
    assert line in whole.output
    assert "would have fired" not in short.output
    assert "+ create threshold dev-1 t: max 3" in short.output


def test_questions_of_a_change() -> None:
    """What the platform has is told from what is planned, field by field."""
    house = AlarmHouse()
    house.watch("dev-1", "t", "threshold", {"min": -2.0, "max": 3.0})
    plan, _ = previewed(house, [threshold("dev-1", "t", max=5.0)], days=0)
    (asked,) = questions(plan)
    assert asked.now is not None
    assert asked.then is not None
    assert [(s["min"], s["max"]) for s in (asked.now, asked.then)] == [(-2.0, 3.0), (None, 5.0)]
    house.box.close()


def forecast(then: int | None, now: int | None = None, **more: Any) -> Forecast:
    """One of a monitor that fired so often, for two points of 100."""
    fired = [None if n is None else (Firing(T0, T0 + MINUTE, 5.0, 2),) * n for n in (now, then)]
    return replace(Forecast(fired[0], fired[1], 100, "stored", T0, T0 + 7 * DAY, T0), **more)


def told(*of: Forecast) -> str:
    """The one line about devices with these forecasts."""
    keys: list[Key] = [(f"dev-{i}", "t", "threshold") for i in range(len(of))]
    preview = Preview(7, dict(zip(keys, of, strict=True)), dict.fromkeys(keys, "m.json"))
    (line,) = lines(preview)
    return line


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ([forecast(0)], "would not have fired in 7 days on 1 device"),
        ([forecast(0), forecast(3)], "would have fired 3 times in 7 days on 1 of 2 devices: dev-1 3"),
        (
            [forecast(2, 0), forecast(0, 1), forecast(9, 30)],
            "would have fired 11 times in 7 days on 2 of 3 devices (now: 31 on 2): dev-2 9, dev-0 2",
        ),
        ([forecast(1, 1)], "would have fired once in 7 days on 1 of 1 device (as now): dev-0 1"),
        ([forecast(0, 4)], "would not have fired in 7 days on 1 device (now: 4 on 1)"),
        ([forecast(None, 4)], "fired 4 times on 1 of 1 device in 7 days and would no more"),
        (
            [forecast(1)] * 7,
            (
                "would have fired 7 times in 7 days on 7 of 7 devices: "
                "dev-0 1, dev-1 1, dev-2 1, dev-3 1, dev-4 1 and 2 more"
            ),
        ),
        (
            [forecast(0, points=0, origin="none", reason="no points in the period")],
            "has no preview: no points in the period: dev-0",
        ),
        (
            [forecast(30), forecast(0, origin="replayed", first_ms=T0 + 5 * DAY)],
            (
                "would have fired 30 times in 7 days on 1 of 2 devices: dev-0 30; the alert would have been "
                "open most of the time on dev-0; scores of 1 replayed from the samples; points of dev-1 only "
                "in the last 2 days"
            ),
        ),
    ],
)
def test_a_line_says_it_all(of: list[Forecast], words: str) -> None:
    """How often, on which devices, and what a reader has to know to judge that."""
    assert told(*of) == f"m.json: t {words}"


def test_for_programs_and_pull_requests() -> None:
    """JSON names everything of each monitor; Markdown is a table, or nothing where nothing is previewed."""
    key: Key = ("dev-1", "t|u", "threshold")
    of, documents = {key: forecast(2, 1)}, {key: "m.json"}
    (row,) = json.loads(json.dumps(forecast_json(of, documents)))
    assert (row["source"], row["metric"], row["document"], row["points"]) == ("dev-1", "t|u", "m.json", 100)
    assert (row["now"]["count"], row["then"]["count"]) == (1, 2)
    assert row["then"]["newest"][0]["opened"] == "2026-05-01T00:00:00.000Z"
    assert (row["always"], row["never"], row["origin"]) == (False, False, "stored")


def test_always_and_never() -> None:
    """A monitor that would be open at most of its points, and one that would never fire, are told apart from
    one of which nothing is known."""
    facts = [(f.always, f.never) for f in (forecast(25), forecast(24), forecast(0), forecast(0, points=0))]
    assert facts == [(True, False), (False, False), (False, True), (False, False)]
    assert not np.any([forecast(None).always, forecast(None).never])
