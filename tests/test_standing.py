"""Where all series stand, and what a worker's polls leave in its vitals."""

from __future__ import annotations

from fake_platform import FakeClock, FakePlatform
from worker_desk import history, opened, quick, tick

from plexus_detect.errors import AuthError, TransientError
from plexus_detect.report import Standing, Verdict


def standing_of(platform: FakePlatform, clock: FakeClock) -> Standing:
    """Where the series of a new worker stand after two polls."""
    worker = opened(platform, quick())
    tick(worker)
    clock.t_ms += 1000
    standing = tick(worker).standing
    assert standing is not None
    return standing


def test_series_by_what_they_do(stopped: FakeClock) -> None:
    """With a score, without one yet, silent for long: each watched series is in one of them."""
    rows = history(stopped.t_ms, devices=3)
    young = [("new", "t", stopped.t_ms - 1000 * k, 20.0 + k) for k in range(4)]
    gone = [("gone", "t", stopped.t_ms - 900_000 - 1000 * k, 20.0 + k) for k in range(40)]
    stands = standing_of(FakePlatform([*rows, *young, *gone]), stopped)
    assert stands.series == {"scored": 3, "warming": 1, "grouped": 0, "silent": 1}
    assert stands.episodes == {"own_past": 0, "fleet": 0, "group": 0}
    assert stands.cursor_age_ms is not None
    assert stands.cursor_age_ms <= 1000


def test_without_series(stopped: FakeClock) -> None:
    """Nothing is watched: no series in any state, and no cursor that could be old."""
    stands = standing_of(FakePlatform(), stopped)
    assert set(stands.series.values()) == {0}
    assert stands.cursor_age_ms is None


def test_open_episodes_are_counted(stopped: FakeClock) -> None:
    """At every moment as many as were opened and not closed."""
    platform = FakePlatform(history(stopped.t_ms))
    worker = opened(platform, quick())
    tick(worker)
    course = [0]
    for value in [20.1, 90.0, 90.0, 90.0, *(20.0 + k % 5 / 10 for k in range(60))]:
        stopped.t_ms += 1000
        platform.rows.append(("dev-0", "t", stopped.t_ms, value))
        report = tick(worker)
        course.append(course[-1] + report.opened - report.closed)
        assert report.standing is not None
        assert report.standing.episodes["own_past"] == course[-1]
    assert (max(course), course[-1]) == (1, 0)


def test_polls_fill_the_vitals(stopped: FakeClock) -> None:
    """What succeeded, what failed and why, and what the platform is found to be."""
    platform = FakePlatform(history(stopped.t_ms))
    worker = opened(platform, quick())
    vitals = worker.vitals
    tick(worker)
    assert (vitals.ticks, vitals.ticks_failed, vitals.series, vitals.verdict) == (1, 0, 1, Verdict.OK)
    ok_ms = vitals.last_ok_ms
    stopped.t_ms += 60_000
    platform.script["telemetry"] = [TransientError("away")] * 4
    tick(worker)
    assert (vitals.ticks_failed, vitals.verdict, vitals.last_error) == (1, Verdict.PLATFORM_ILL, "away")
    platform.script["telemetry"] = [AuthError("refused")]
    tick(worker)
    assert (vitals.ticks_failed, vitals.verdict, vitals.last_ok_ms) == (2, Verdict.KEY_TROUBLE, ok_ms)
    platform.script.clear()
    platform.rows.append(("dev-0", "t", stopped.t_ms, 20.0))
    tick(worker)
    assert (vitals.verdict, vitals.last_error, vitals.last_ok_ms) == (Verdict.OK, "", stopped.t_ms)
    worker.save()
    assert vitals.saved_ms == stopped.t_ms


def test_deliveries_fill_the_vitals(stopped: FakeClock) -> None:
    """Since when they fail, until one is accepted; expired scores are no success."""
    platform = FakePlatform(history(stopped.t_ms))
    worker = opened(platform, quick())
    tick(worker)
    delivery = worker.vitals.delivery
    platform.script["ingest"] = [TransientError("gateway away")] * 2
    for _ in range(2):
        stopped.t_ms += 100_000
        platform.rows.append(("dev-0", "t", stopped.t_ms - 100, 20.1))
        tick(worker)
    assert delivery.error == "gateway away"
    assert delivery.failing_since_s is not None
    assert delivery.failing_since_s <= stopped.t_ms / 1000 - 100
    accepted = int(delivery.event_to_score.counts.sum())
    stopped.t_ms += 1000
    platform.rows.append(("dev-0", "t", stopped.t_ms - 100, 20.1))
    tick(worker)
    assert (delivery.failing_since_s, delivery.error) == (None, "")
    assert delivery.event_to_score.counts.sum() > accepted
