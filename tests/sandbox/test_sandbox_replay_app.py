"""The app's routes answer as recorded, field by field (the rule stands in sandbox_replay)."""

from __future__ import annotations

from sandbox_replay import RECORDED, Scene, load_answers, ms, named, recorded_slack, replay, without_host

# What cannot match, and why. The test fails when one of these starts to match.
CANNOT = {
    "telemetry.dev_key_NODE_ENV_dev": "that key exists in development builds only; here it is unknown",
}
ORG = "org_a"
LATE = named(r"telemetry\.(nonfinite|no_source_no).*")
STRAY = named(r"telemetry\.(source_as_uuid|source_list|metric_repeated|key_in_query).*")
MONITORS = named(r"monitors\.(?!for_transition).*")
SHUT = r"(api_keys|webhooks|slack_integrations|usage)\..*"
SOURCES = named(rf"sources\..*|register\..*|devices\..*|fleet_health|verify_key\..*|{SHUT}")
ALERTS = named(r"alerts\..*|annotations\..*|ping")
PRODUCTION = named(r"prodbuild\..*")
EVENTS = named(r"eventflow\..*")
OPENED = "monitors.for_transition"
TELEMETRY = [name for name in named(r"telemetry\..*") if name not in LATE + STRAY]
PLAYED = {OPENED, *TELEMETRY, *STRAY, *LATE, *MONITORS, *SOURCES, *ALERTS, *PRODUCTION, *EVENTS}


def test_telemetry_answers_as_recorded() -> None:
    """Every recorded read of telemetry gives the recorded status, headers and body."""
    with Scene("2026-11-22T01:52:38Z") as scene:
        load_answers(scene, [n for n in TELEMETRY if "data" in (RECORDED[n]["response"].get("json") or {})])
        _fill_hour(scene)
        failing = [name for name in TELEMETRY if "clickhouse" in name]
        replay(scene, TELEMETRY, CANNOT, dict.fromkeys(failing, _fail_store))


def _fail_store(scene: Scene) -> None:
    scene.box.faults.add("empty", next=1)


def _fill_hour(scene: Scene) -> None:
    """Complete the hour of which the recording shows the ends: 3529 rows, the later ones 1.001 s apart."""
    first, last = ms("2026-11-22 00:52:39.071"), ms("2026-11-22 01:51:27.599")
    stored = [row.t_ms for row in scene.box.rows("dev-1", "temperature", org=ORG)]
    known = {t for t in stored if first <= t <= last}
    grid = [t for t in range(last, first + 1500, -1001) if t not in known]
    extra = range(first + 1100, first + 1100 + 3529 - len(known) - len(grid))
    scene.box.load((("dev-1", "temperature", t, 20.0) for t in [*grid, *extra]), org=ORG)


def test_the_production_build_answers_as_recorded() -> None:
    """The recorded production build, odd sources and parameters, null values and the default limit."""
    with Scene("2026-11-22T02:25:00Z") as scene:
        _sources(scene)
        load_answers(scene, ["prodbuild.telemetry", *LATE])
        start = ms("2026-11-22 02:05:26.423")
        # 10,000 rows survive the default limit: the first is recorded, and six later ones.
        scene.box.load((("dev-2", "bulk", start + 1 + i, 1.0) for i in range(9993)), org=ORG)
        _recreate_monitors(scene, "prodbuild.monitors_list")
        replay(scene, [*PRODUCTION, *STRAY, *LATE], CANNOT)


def _recreate_monitors(scene: Scene, listing: str) -> None:
    """Bring about the monitors that a recorded list shows, oldest first."""
    for entry in reversed(RECORDED[listing]["response"]["json"]["monitors"]):
        body = {"source_id": entry["source_slug"], "metric": entry["metric"]}
        body |= {part: entry[part] for part in ("threshold", "event", "offline") if entry[part] is not None}
        assert scene.post("/api/monitors", body).status_code == 201


def test_monitors_answer_as_recorded() -> None:
    """Creating, replacing, listing, retargeting and deleting monitors goes as recorded, to the last field."""
    with Scene("2026-11-22T01:53:57Z") as scene:
        _sources(scene)
        replay(scene, MONITORS, CANNOT)


def _sources(scene: Scene) -> None:
    scene.source("pg-1", source_type="connection", name="PG", config={})
    scene.source("dev-2")
    scene.source("dev-1", name="Device One")
    known = {"6eb5572a-35ce-44f3-96aa-7e2080b04ee7": "dev-1", "fa83db0d-53ba-4406-97fc-0dc7acfbfa1d": "pg-1"}
    for theirs, slug in known.items():
        source = scene.box._plexus.stores.sources.find(ORG, slug)
        assert source is not None
        scene.ids[theirs] = source["id"]


def test_sources_answer_as_recorded() -> None:
    """Sources, device routes, fleet health and the routes that want a session answer as recorded."""
    with Scene("2026-11-22T01:55:33Z") as scene:
        _sources(scene)
        _load_fleet(scene, RECORDED["fleet_health"]["response"]["json"]["fleet"])
        before = {"verify_key.rate_limited": _limit_verification, "devices.schema": _load_r1}
        # r1's point was registered past the store: its schema comes last, when all else was asked.
        replay(scene, [*(n for n in SOURCES if n != "devices.schema"), "devices.schema"], CANNOT, before)


def _limit_verification(scene: Scene) -> None:
    scene.box.faults.add("status", route="/api/auth/verify-key", status=429, retry_after_s=2, next=1)


def _load_r1(scene: Scene) -> None:
    scene.box.load([("r1", "m", scene.now_ms, 1.5)], org=ORG)


def _load_fleet(scene: Scene, fleet: list[dict[str, dict[str, dict[str, float]]]]) -> None:
    """Store points of which the recorded summary is true."""
    ends = {
        "temperature": "01:51:27.599", "pressure": "01:51:18.590", "_frame": "01:50:28.540",
        "precision": "01:51:04.000", "same_ts": "01:51:23.000", "future": "02:01:28.000",
    }  # fmt: skip
    for entry in fleet:
        for metric, told in entry["metrics"].items():
            end, count = ms(f"2026-11-22 {ends[metric]}"), int(told["count"])
            lone = {} if count < 3 else {told["min"]: 1, told["max"]: 1, told["latest"]: 1}
            known = [
                *(value for value in lone if value != told["latest"]),
                *([told["latest"]] if lone else []),
            ]
            rest = told["avg"] * count - sum(known)
            filler = count - len(known)
            values = [rest / filler] * filler + known if filler else known
            rows = [(entry["source_id"], metric, end - 1000 * i, v) for i, v in enumerate(reversed(values))]
            scene.box.load(rows, org=ORG)


def test_alerts_answer_as_recorded() -> None:
    """An alert's life, its timeline and filters, annotations, events and an offline device go as recorded."""
    with Scene("2026-11-22T01:55:50Z") as scene:
        _sources(scene)
        replay(scene, [OPENED], CANNOT)
        for value in (5.25, 6, 0):
            scene.ingest("temperature.zscore", value, at="2026-11-22 01:51:27.599")
        scene.after(8)
        replay(scene, ALERTS, CANNOT, {"alerts.get_after_close": _recover})
        replay(scene, EVENTS[:2], CANNOT)
        _live_through_an_event(scene)
        replay(scene, EVENTS[2:], CANNOT)
        scene.after(90)
        scene.box.tick()
        # Eight messages of the story, and the device going silent once more.
        got = [without_host(sent.body) for sent in scene.box.slack_messages()]
        wanted = [without_host(body) for body in recorded_slack()[:10]]
        assert sorted(map(repr, got)) == sorted(map(repr, wanted))


def _recover(scene: Scene) -> None:
    scene.after(30)
    scene.ingest("temperature.zscore", 0, at="2026-11-22 01:51:27.599")


def _live_through_an_event(scene: Scene) -> None:
    scene.after(30)
    scene.box.tick()
    scene.now_ms = ms("2026-11-22 01:57:13.882")
    scene.ingest("temperature.anomaly", 9.9)
    scene.ingest("temperature.anomaly", 5.3)
    scene.after(30)
    scene.box.tick()
