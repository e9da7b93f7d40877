"""Monitors fire, stay, close and speak as observed, by a clock that is stepped."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from sandbox_replay import RECORDED, TARGET, Scene, key_text, ms, recorded_slack, replay, without_host

START = "2026-11-22T02:07:05Z"
SLACK = recorded_slack()
PLAYED = {"houston.alert_open", "houston.delete_monitor_while_open"}


def threshold(scene: Scene, metric: str, **bounds: Any) -> None:
    """Create a threshold monitor on dev-1."""
    body = {"source_id": "dev-1", "metric": metric, "threshold": bounds}
    assert scene.post("/api/monitors", body).status_code == 201


def told(scene: Scene) -> list[str]:
    """Return the events of the Slack messages so far, oldest first."""
    return [sent.event for sent in scene.box.slack_messages()]


def at_start(**given: Any) -> Scene:
    """Return a scene with the recorder's device."""
    scene = Scene(START, **given)
    scene.source("dev-1", name="Device One")
    return scene


def test_a_value_equal_to_its_bound_does_not_fire_and_the_next_above_does() -> None:
    """3 against a maximum of 3 is silent; 3.0001 opens at once, with the recorded alert and message."""
    with at_start() as scene:
        threshold(scene, "hz.score", max=3, severity="critical")
        scene.ingest("hz.score", 3)
        assert scene.box.alerts(org="org_a") == []
        scene.ingest("hz.score", 3.0001)
        replay(scene, ["houston.alert_open"], {})
        distribution = scene.box.alerts(org="org_a")[0]["context_snapshot"]["distribution"]
        recorded = RECORDED["houston.alert_open"]["response"]["json"]["alerts"][0]
        assert distribution["count"] == recorded["context_snapshot"]["distribution"]["count"]
        for name in ("mean", "stddev"):
            wanted = recorded["context_snapshot"]["distribution"][name]
            assert math.isclose(distribution[name], wanted, rel_tol=1e-6)
        assert [without_host(sent.body) for sent in scene.box.slack_messages()] == [without_host(SLACK[10])]


def test_a_minimum_is_as_strict_as_a_maximum() -> None:
    """-3 against a minimum of -3 is silent, -3.5 fires; without bounds nothing fires."""
    with at_start() as scene:
        threshold(scene, "a", min=-3)
        threshold(scene, "b")
        for value in (-3, -3.5):
            assert told(scene) == []
            scene.ingest("a", value)
            scene.ingest("b", value * 1e9)
        assert told(scene) == ["alert.triggered"]


def test_closing_takes_two_points_in_bounds_thirty_seconds_apart() -> None:
    """One in-bounds point and silence leaves it open; the second closes at 30 s, not before."""
    with at_start() as scene:
        threshold(scene, "hz.score", max=3, severity="critical")
        scene.ingest("hz.score", 3.0001)
        scene.after(5)
        scene.ingest("hz.score", 0)
        scene.after(29.999)
        scene.ingest("hz.score", 0)
        assert told(scene) == ["alert.triggered"]
        scene.after(0.001)
        scene.ingest("hz.score", 0)
        assert [without_host(sent.body) for sent in scene.box.slack_messages()][1] == without_host(SLACK[11])
        alert = scene.box.alerts(org="org_a")[0]
        assert (alert["status"], alert["is_alert_active"]) == ("resolved", False)


def test_silence_never_closes() -> None:
    """A detector that posts only anomalies leaves its alert open."""
    with at_start() as scene:
        threshold(scene, "x", max=3)
        scene.ingest("x", 9)
        scene.ingest("x", 0)
        for _ in range(20):
            scene.after(30)
            scene.box.tick()
        assert scene.box.alerts(org="org_a")[0]["is_alert_active"] is True


def test_a_breach_restarts_the_recovery() -> None:
    """A breach between two in-bounds points takes the first one back."""
    with at_start() as scene:
        threshold(scene, "x", max=3)
        for value in (9, 0, 9, 0):
            scene.ingest("x", value)
            scene.after(20)
        scene.ingest("x", 0)
        assert told(scene) == ["alert.triggered"]
        scene.after(30)
        scene.ingest("x", 0)
        assert told(scene) == ["alert.triggered", "alert.resolved"]


def test_breaches_in_the_cooldown_are_forgotten() -> None:
    """For 60 s after a close nothing opens; the first breach from then on does, as recorded."""
    with at_start() as scene:
        threshold(scene, "hz.score", max=3, severity="critical")
        for value, wait_s in ((9, 1), (0, 30), (0, 1), (9, 58.999)):
            scene.ingest("hz.score", value)
            scene.after(wait_s)
        scene.ingest("hz.score", 9)
        assert told(scene) == ["alert.triggered", "alert.resolved"]
        scene.after(0.001)
        scene.ingest("hz.score", 9)
        assert without_host(scene.box.slack_messages()[-1].body) == without_host(SLACK[12])


def test_old_points_page_people_now() -> None:
    """A breach stamped three days ago opens an alert of this moment, as recorded."""
    with at_start() as scene:
        threshold(scene, "hz.backfill", max=3, severity="info")
        scene.ingest("hz.backfill", 50, at="2026-11-19 02:07:05.000")
        assert without_host(scene.box.slack_messages()[-1].body) == without_host(SLACK[13])
        assert scene.box.alerts(org="org_a")[0]["triggered_at"] == "2026-11-22 02:07:05+00"


def test_ten_minutes_in_one_request_open_once_and_do_not_close() -> None:
    """Time is the time of processing: samples of ten minutes with two spikes are one alert, open."""
    with at_start() as scene:
        threshold(scene, "hz.batch", max=3, severity="info")
        values = [9 if i in {10, 300} else 0 for i in range(600)]
        stamps = range(scene.now_ms - 600_000, scene.now_ms, 1000)
        points = [
            {"metric": "hz.batch", "value": v, "timestamp": t} for v, t in zip(values, stamps, strict=True)
        ]
        scene.post("/ingest", {"source_id": "dev-1", "points": points})
        assert [without_host(sent.body) for sent in scene.box.slack_messages()] == [without_host(SLACK[14])]
        assert scene.box.alerts(org="org_a")[0]["is_alert_active"] is True


def test_changing_a_threshold_keeps_its_alert() -> None:
    """Writing the monitor again, with other bounds, leaves the alert and its rule as they are."""
    with at_start() as scene:
        threshold(scene, "x", max=3)
        scene.ingest("x", 9)
        before = scene.box.alerts(org="org_a")
        threshold(scene, "x", max=100)
        assert scene.box.alerts(org="org_a") == before
        scene.ingest("x", 50)
        assert told(scene) == ["alert.triggered"]


def test_deleting_a_monitor_closes_its_alert_without_a_word() -> None:
    """The alert loses its rule at once and is closed by the next sweep; Slack hears nothing."""
    with at_start() as scene:
        threshold(scene, "hz.score", max=3)
        scene.ingest("hz.score", 9)
        replay(scene, ["houston.delete_monitor_while_open"], {})
        alert = scene.box.alerts(org="org_a")[0]
        assert (alert["is_alert_active"], alert["rule_id"]) == (True, None)
        scene.after(30)
        scene.box.tick()
        assert scene.box.alerts(org="org_a")[0]["is_alert_active"] is False
        assert told(scene) == ["alert.triggered"]


def test_points_that_are_not_recorded_are_evaluated_all_the_same() -> None:
    """A source with recording off stores nothing and still fires."""
    with Scene(START) as scene:
        scene.source("dev-1", config={"recording": False})
        threshold(scene, "x", max=3)
        scene.ingest("x", 9)
        assert scene.box.rows(org="org_a") == []
        assert told(scene) == ["alert.triggered"]


def test_intervals_are_divided_by_the_time_scale() -> None:
    """At a scale of 60 half a second of recovery closes and a second of cooldown is over."""
    with at_start(time_scale=60) as scene:
        threshold(scene, "x", max=3)
        for value, wait_s in ((9, 0.1), (0, 0.5), (0, 1.0), (9, 0)):
            scene.ingest("x", value)
            scene.after(wait_s)
        assert told(scene) == ["alert.triggered", "alert.resolved", "alert.triggered"]


def test_a_restart_adopts_or_reconciles_open_alerts(tmp_path: Path) -> None:
    """After a restart a breach takes its alert up silently; one without a breach is resolved after 5 min."""
    path = str(tmp_path / "plexus.db")
    with at_start(path=path) as scene:
        for metric in ("hz.restart", "kept"):
            threshold(scene, metric, max=3, severity="warning")
            scene.ingest(metric, 9)
    with Scene("2026-11-22T02:08:00Z", path=path) as scene:
        scene.ingest("kept", 9)
        scene.after(299)
        scene.box.tick()
        assert told(scene) == []
        scene.after(31)
        scene.box.tick()
        assert [without_host(sent.body) for sent in scene.box.slack_messages()] == [without_host(SLACK[16])]
        active = {alert["metric"]: alert["is_alert_active"] for alert in scene.box.alerts(org="org_a")}
        assert active == {"hz.restart": False, "kept": True}


def test_event_monitors_digest_and_then_hold_their_tongue() -> None:
    """The first look is blind, a digest counts the rows of its tick, and five minutes pass in silence."""
    with at_start() as scene:
        body = {"source_id": "dev-1", "metric": "spike", "event": {"severity": "critical", "message": "look"}}
        scene.post("/api/monitors", body)
        scene.ingest("spike", 1)
        _tick(scene)  # only sets the cursor
        assert told(scene) == []
        for value in (1, 2, 3):
            scene.after(1)
            scene.ingest("spike", value)
        _tick(scene)
        alert = scene.box.alerts(org="org_a")[0]
        assert (alert["value"], alert["context_snapshot"]["latest_value"]) == (3, "3")
        assert "look" in json.dumps(scene.box.slack_messages()[0].body)
        for _ in range(9):
            scene.ingest("spike", 1)
            _tick(scene)
        assert told(scene) == ["alert.triggered"]
        scene.after(30)
        scene.ingest("spike", 1)
        _tick(scene)
        assert told(scene) == ["alert.triggered"] * 2


def test_late_rows_never_alert_an_event_monitor() -> None:
    """A row stamped at or before the cursor is not seen."""
    with at_start() as scene:
        scene.post("/api/monitors", {"source_id": "dev-1", "metric": "spike", "event": {}})
        _tick(scene)
        scene.ingest("spike", 1, at=START)
        _tick(scene)
        assert told(scene) == []


def test_per_row_events_are_told_one_by_one_and_then_summed_up() -> None:
    """Ten rows are ten alerts, the rest of the tick one more, and nothing is suppressed."""
    with at_start() as scene:
        scene.post("/api/monitors", {"source_id": "dev-1", "metric": "e", "event": {"delivery": "per_row"}})
        _tick(scene)
        for _ in range(13):
            scene.after(1)
            scene.ingest("e", 1)
        _tick(scene)
        assert sorted(alert["value"] for alert in scene.box.alerts(org="org_a")) == [1] * 10 + [3]


def _tick(scene: Scene) -> None:
    scene.after(30)
    assert scene.box.tick()


def test_a_source_never_seen_is_never_offline() -> None:
    """An offline monitor waits for the first point of a source."""
    with at_start() as scene:
        scene.post("/api/monitors", {"source_id": "dev-1", "offline": {"timeout_seconds": 1}})
        _tick(scene)
        assert told(scene) == []


def test_scores_under_the_device_hide_that_it_is_offline() -> None:
    """Any metric is a life sign, derived ones and future ones too."""
    with at_start() as scene:
        scene.post("/api/monitors", {"source_id": "dev-1", "offline": {"timeout_seconds": 60}})
        scene.ingest("temperature", 20)
        for _ in range(4):
            _tick(scene)
            scene.ingest("temperature.zscore", 0)
        assert told(scene) == []
        scene.after(61)
        _tick(scene)
        assert told(scene) == ["alert.triggered", "device.offline"]
        scene.ingest("future", 1, at="2026-11-22T03:00:00Z")
        _tick(scene)
        assert told(scene)[2:] == ["alert.resolved", "device.online"]


def test_two_offline_monitors_speak_twice() -> None:
    """Posting an offline monitor twice makes two, and every notification doubles."""
    with at_start() as scene:
        for _ in range(2):
            scene.post("/api/monitors", {"source_id": "dev-1", "offline": {"timeout_seconds": 10}})
        scene.ingest("t", 1)
        _tick(scene)
        assert sorted(told(scene)) == ["alert.triggered"] * 2 + ["device.offline"] * 2


def test_targets_override_the_subscription() -> None:
    """An integration that does not subscribe still hears of a monitor that names it."""
    with at_start(slack_events=("alert.triggered",)) as scene:
        threshold(scene, "plain", max=3)
        named = {"source_id": "dev-1", "metric": "named", "threshold": {"max": 3}}
        scene.post("/api/monitors", named | {"notification_targets": [TARGET]})
        for value, wait_s in ((9, 1), (0, 30), (0, 0)):
            for metric in ("plain", "named"):
                scene.ingest(metric, value)
            scene.after(wait_s)
        assert told(scene) == ["alert.triggered", "alert.triggered", "alert.resolved"]
        assert "named" in json.dumps(scene.box.slack_messages()[-1].body)


def test_a_silenced_monitor_says_nothing() -> None:
    """Silencing an alert mutes its rule for the hours asked."""
    with at_start() as scene:
        threshold(scene, "x", max=3)
        scene.ingest("x", 9)
        alert_id = scene.box.alerts(org="org_a")[0]["id"]
        assert scene.post(f"/api/alerts/{alert_id}/silence", {"hours": 1}).status_code == 200
        for value, wait_s in ((0, 30), (0, 0)):
            scene.ingest("x", value)
            scene.after(wait_s)
        assert told(scene) == ["alert.triggered"]
        scene.after(3600)
        scene.ingest("x", 9)
        assert told(scene) == ["alert.triggered"] * 2


@pytest.mark.parametrize("bad", [{}, {"hours": 169}, {"hours": "1"}, {"hours": True}])
def test_silence_has_bounds(bad: dict[str, Any]) -> None:
    """Hours other than 1 to 168 are refused."""
    with at_start() as scene:
        threshold(scene, "x", max=3)
        scene.ingest("x", 9)
        alert_id = scene.box.alerts(org="org_a")[0]["id"]
        assert scene.post(f"/api/alerts/{alert_id}/silence", bad).status_code == 400


def test_the_list_of_messages_is_served_newest_last() -> None:
    """GET /slack shows event, time, delivery and body of each message; DELETE forgets them."""
    with at_start() as scene:
        threshold(scene, "x", max=3)
        threshold(scene, "y", max=3)
        scene.ingest("x", 9)
        scene.after(1)
        scene.ingest("y", 9)
        shown = scene.client.get("/slack").json()["messages"]
        assert [message["t_ms"] for message in shown] == [ms(START), ms(START) + 1000]
        assert {message["delivery"] for message in shown} == {"kept"}
        assert scene.client.delete("/slack").status_code == 200
        assert scene.client.get("/slack", headers={"x-api-key": key_text("full")}).json() == {"messages": []}
