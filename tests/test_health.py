"""The HTTP server of a worker's health: what it answers, and what it does not let itself in for."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from worker_desk import events

from plexus_detect import clock, health
from plexus_detect.bucket import RetryBudget
from plexus_detect.health import CONNECTIONS_MAX, Health, serve_health
from plexus_detect.meters import CODES, PREFIX, Meters
from plexus_detect.report import Standing, TickReport, Verdict
from plexus_detect.vitals import CHECKS, Vitals

# Without certificates, which take long to load.
HTTP = httpx.Client(verify=False, trust_env=False)


def vitals_of_a_worker() -> Vitals:
    """The vitals of a worker that has just polled."""
    vitals = Vitals(5000, 1000, 100, state_open=True, lock_held=True)
    vitals.started(clock.monotonic_s(), clock.now_ms())
    vitals.ticked(TickReport(series=3), clock.monotonic_s(), clock.now_ms())
    return vitals


@contextmanager
def served(vitals: Vitals | None = None, listen: str = "127.0.0.1:0") -> Iterator[Health]:
    """A server on a free port."""
    vitals = vitals or vitals_of_a_worker()
    server = Health(listen, vitals, Meters(vitals))
    try:
        yield server
    finally:
        server.close()


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_a_worker_that_is_well(listen: str) -> None:
    """Every path answers with 200, on IPv4 and on IPv6; HEAD has the headers of GET and no body."""
    if "::" in listen and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with served(listen=listen) as server:
        for path in ("/", "/metrics", "/livez", "/readyz", "/health", "/readyz?verbose=1"):
            answer = HTTP.get(server.url + path)
            assert answer.status_code == 200, path
            head = HTTP.head(server.url + path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-type"] == answer.headers["content-type"]
        assert HTTP.get(f"{server.url}/readyz").json() == {"ok": True, "reasons": []}
        assert HTTP.get(f"{server.url}/livez").headers["server"] == "plexus-detect"
        index = HTTP.get(f"{server.url}/").text
        assert all(path in index for path in ("/metrics", "/livez", "/readyz", "/health"))


def test_reasons_are_told_and_keys_are_not() -> None:
    """503 with every reason while the worker is not ready; a key in an error is blotted out."""
    vitals = vitals_of_a_worker()
    with served(vitals) as server:
        key = "plx_" + "Secret".ljust(32, "1")
        refused = TickReport(errors=[f"refused: {key}"], verdict=Verdict.KEY_TROUBLE)
        vitals.ticked(refused, clock.monotonic_s(), clock.now_ms())
        vitals.outbox_points = 950
        answer = HTTP.get(f"{server.url}/readyz")
        assert answer.status_code == 503
        reasons = answer.json()["reasons"]
        assert [reason["check"] for reason in reasons] == ["key", "outbox"]
        assert reasons[0]["what"] == "the API key is refused: refused: plx_***"
        assert HTTP.get(f"{server.url}/health").json() == answer.json()
        assert HTTP.get(f"{server.url}/livez").status_code == 200
        vitals.turned_s -= 1000
        assert HTTP.get(f"{server.url}/livez").json()["reasons"][0]["check"] == "event_loop"


def test_other_paths_and_methods() -> None:
    """404 and 405 as JSON; nothing of what was sent is repeated."""
    with served() as server:
        answer = HTTP.get(f"{server.url}/<script>")
        assert (answer.status_code, "script" in answer.text) == (404, False)
        assert "/readyz" in answer.json()["error"]
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = HTTP.request(method, f"{server.url}/metrics")
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        answer = HTTP.request("BREW", f"{server.url}/metrics")
        assert (answer.status_code, answer.json()) == (501, {"error": "Not Implemented"})


@pytest.mark.parametrize(
    "sent",
    [b"nonsense\r\n\r\n", b"GET /" + b"x" * 100_000, b"GET / HTTP/1.0\r\n" + b"a: b\r\n" * 300 + b"\r\n"],
)
def test_requests_that_are_none(sent: bytes) -> None:
    """A wrong line, an endless one and too many headers get an error of one line; the server lives on."""
    with served() as server:
        answer = b""
        # What is left unread makes the system cut the connection, perhaps before the answer is read.
        with socket.create_connection(server.server_address[:2]) as room, suppress(ConnectionError):
            room.sendall(sent)
            answer = room.recv(4096)
        assert re.search(rb"Bad Request| 4\d\d |^$", answer), answer
        assert HTTP.get(f"{server.url}/livez").status_code == 200


def test_clients_that_say_nothing_keep_nobody_out() -> None:
    """However many connections are held open, the next client is answered; the oldest are cut."""
    with served() as server:
        idle = [socket.create_connection(server.server_address[:2]) for _ in range(CONNECTIONS_MAX + 8)]
        assert HTTP.get(f"{server.url}/readyz").status_code == 200
        idle[0].settimeout(5)
        assert idle[0].recv(10) == b""
        for room in idle:
            room.close()
        assert HTTP.get(f"{server.url}/readyz").status_code == 200


def test_a_silent_client_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection ends by itself."""
    monkeypatch.setattr(health._Handler, "timeout", 0.05)
    with served() as server, socket.create_connection(server.server_address[:2]) as room:
        room.settimeout(5)
        assert room.recv(10) == b""


def test_a_bug_is_logged_and_not_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected error is a line of the log with its trace, and a 500 without it."""
    with served() as server:
        monkeypatch.setattr(server.meters, "collect", lambda: 1 // 0)
        answer = HTTP.get(f"{server.url}/metrics")
    assert (answer.status_code, answer.json()) == (500, {"error": "a bug; the log has its trace"})
    assert [r.exc_info[0] for r in caplog.records if r.getMessage() == "health_failed" and r.exc_info]


def test_an_address_that_cannot_be_had_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A taken port and a host that is not ours are an event with what to do; "off" is silent."""
    vitals = vitals_of_a_worker()
    with served() as server:
        taken = f"127.0.0.1:{server.server_port}"
        assert serve_health(taken, vitals, Meters(vitals)) is None
    assert serve_health("192.0.2.1:9090", vitals, Meters(vitals)) is None
    assert serve_health("no.such.host.invalid:9090", vitals, Meters(vitals)) is None
    told = events(caplog, "health_unavailable")
    assert [fields["listen"] for fields in told][:2] == [taken, "192.0.2.1:9090"]
    assert told[0]["err"] == "Address already in use"
    assert "set health.listen" in told[0]["msg"]
    caplog.clear()
    assert serve_health("off", vitals, Meters(vitals)) is None
    assert not caplog.records


# --- metrics ----------------------------------------------------------------------------------------------


def figures(meters: Meters) -> dict[str, float]:
    """Every sample by name and labels, without the prefix."""
    samples = [sample for family in meters.registry.collect() for sample in family.samples]
    return {
        sample.name.removeprefix(PREFIX)
        + "".join(f" {k}={v}" for k, v in sample.labels.items()): sample.value
        for sample in samples
    }


def test_reports_become_figures() -> None:
    """Polls are added up, the newest standing and lag stay, times are seconds."""
    vitals = vitals_of_a_worker()
    meters = Meters(vitals)
    assert "poll_lag_seconds" not in figures(meters)
    stands = Standing({"scored": 4, "silent": 1}, {"fleet": 2}, 1500)
    meters.absorb(
        TickReport(points=5, repeats=2, dur_ms=40, fetch_ms=30.0, lag_ms=700, opened=1, standing=stands)
    )
    meters.absorb(TickReport(points=1, unusable=3, errors=["x", "y"], dropped=7, dur_ms=2000))
    seen = figures(meters)
    for name, value in {
        "points_read_total": 6,
        "points_deduplicated_total": 2,
        "points_dropped_total reason=unusable": 3,
        "queries_failed_total": 2,
        "outbox_dropped_total": 7,
        "episodes_opened_total": 1,
        "poll_lag_seconds": 0.7,
        "series state=scored": 4,
        "episodes_open against=fleet": 2,
        "cursor_age_seconds": 1.5,
        "poll_duration_seconds_count": 2,
        "poll_duration_seconds_sum": 2.04,
        "poll_duration_seconds_bucket le=0.05": 1,
        "fetch_duration_seconds_sum": 0.03,
        "polls_total outcome=ok": 1,
        "ready": 1,
        "lock_held": 1,
    }.items():
        assert seen[name] == pytest.approx(value), name


def test_vitals_and_deliveries_become_figures() -> None:
    """What is not known yet is absent and not 0; what is wrong has a 1."""
    vitals = vitals_of_a_worker()
    meters = Meters(vitals)
    absent = ("last_checkpoint_timestamp_seconds", "heartbeat_age_seconds")
    assert not [name for name in absent if name in figures(meters)]
    vitals.saved_ms = vitals.heartbeat_ms = clock.now_ms()
    vitals.delivery.accepted(3, np.array([0.4, 3.0, 200.0]))
    vitals.delivery.failed("x", clock.monotonic_s() - 5)
    vitals.verdict, vitals.config_error, vitals.outbox_points = Verdict.PLATFORM_ILL, "x", 950
    seen = figures(meters)
    assert seen["last_checkpoint_timestamp_seconds"] == vitals.saved_ms / 1000
    assert 0 <= seen["heartbeat_age_seconds"] < 5
    assert 5 <= seen["delivery_failing_seconds"] < 10
    assert seen["event_to_score_seconds_bucket le=5.0"] == 2
    assert (seen["scores_posted_total"], seen["delivery_posts_total"]) == (3, 1)
    assert [v for v in Verdict if seen[f"platform_verdict verdict={v}"]] == ["platform_ill"]
    assert [c for c in CHECKS if seen[f"trouble check={c}"]] == ["config", "platform", "outbox"]
    assert (seen["ready"], seen["live"], seen["config_last_reload_successful"]) == (0, 1, 0)


def test_labels_have_few_values() -> None:
    """Statuses that nobody has heard of share a label, and the number of series does not grow with use."""
    meters = Meters(vitals_of_a_worker())
    client = SimpleNamespace(answers=Counter({"200": 5, "418": 1, "599": 2, "none": 1}), waited_s=2.5)
    budget = RetryBudget()
    budget.attempt()
    budget.retry()
    meters.attach(client, budget)
    before = figures(meters)
    assert before["http_requests_total code=other"] == 3
    assert before["http_requests_total code=200"] == 5
    assert (before["ratelimit_wait_seconds_total"], before["retries_total"]) == (2.5, 1)
    client.answers.update(str(code) for code in range(1000))
    after = figures(meters)
    assert before.keys() == after.keys()
    assert sum(name.startswith("http_requests_total") for name in after) == len(CODES) + 1


def test_two_workers_in_one_process_do_not_mix() -> None:
    """Each has a registry of its own."""
    one, other = Meters(vitals_of_a_worker()), Meters(vitals_of_a_worker())
    one.absorb(TickReport(points=5))
    assert figures(other)["points_read_total"] == 0


def test_openmetrics_for_who_asks() -> None:
    """A client that prefers OpenMetrics gets it."""
    with served() as server:
        answer = HTTP.get(f"{server.url}/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_probes_answer_as_json_lines() -> None:
    """One line each, for curl."""
    with served() as server:
        text = HTTP.get(f"{server.url}/readyz").text
    assert text.count("\n") == 1
    assert json.loads(text)["ok"]


def test_the_address_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever starts it sees where to look."""
    caplog.set_level(logging.INFO, "plexus_detect")
    vitals = vitals_of_a_worker()
    server = serve_health("127.0.0.1:0", vitals, Meters(vitals))
    assert server is not None
    server.close()
    assert events(caplog, "health_serving") == [{"url": server.url}]
