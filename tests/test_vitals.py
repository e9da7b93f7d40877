"""When the worker counts as alive and as ready, and in which words it says why not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from plexus_detect.histogram import Histogram
from plexus_detect.report import TickReport, Verdict
from plexus_detect.vitals import CHECKS, FINE, Vitals, liveness, readiness

NOW_S, NOW_MS = 1000.0, 1_800_000_000_000


def well(interval_ms: int = 5000) -> Vitals:
    """The vitals of a worker whose last poll has just succeeded."""
    vitals = Vitals(interval_ms, outbox_max=1000, state_open=True, lock_held=True)
    vitals.started(NOW_S - 60, NOW_MS - 60_000)
    vitals.turned_s = NOW_S
    vitals.ticked(TickReport(series=20, outbox=3), NOW_S, NOW_MS)
    return vitals


def checks(vitals: Vitals, now_s: float = NOW_S) -> dict[str, str]:
    """What /readyz complains of."""
    vitals.turned_s = max(vitals.turned_s, now_s)
    return dict(readiness(vitals, now_s))


def test_a_worker_that_polls_is_ready() -> None:
    """Nothing is wrong with it, and what it says of itself is its last poll."""
    vitals = well()
    assert (readiness(vitals, NOW_S), liveness(vitals, NOW_S)) == ([], [])
    assert (vitals.series, vitals.outbox_points, vitals.ticks, vitals.ticks_failed) == (20, 3, 1, 0)
    assert (vitals.last_ok_s, vitals.last_ok_ms) == (NOW_S, NOW_MS)


def test_before_the_first_poll_it_is_starting() -> None:
    """Not ready before a poll has succeeded, with the reason of the failures so far; alive all the time."""
    vitals = Vitals(5000, 1000, state_open=True)
    vitals.started(NOW_S, NOW_MS)
    assert checks(vitals, NOW_S + 2) == {"starting": "no successful poll since the start 2 s ago"}
    ill = TickReport(errors=["GET /x -> 503"], verdict=Verdict.PLATFORM_ILL)
    vitals.ticked(ill, NOW_S + 3, NOW_MS)
    assert checks(vitals, NOW_S + 9) == {
        "starting": "no successful poll since the start 9 s ago: GET /x -> 503",
        "platform": "the platform is ill: GET /x -> 503",
    }
    assert vitals.ticks_failed == 1


@pytest.mark.parametrize(("interval_ms", "grace_s"), [(100, 15), (5000, 15), (6000, 18), (3_600_000, 10_800)])
def test_the_last_successful_poll_counts(interval_ms: int, grace_s: float) -> None:
    """Three intervals, and at least 15 s, after the last success; polls that fail do not put it off."""
    vitals = well(interval_ms)
    vitals.ticked(TickReport(errors=["timed out", "another"]), NOW_S + grace_s, NOW_MS)
    assert checks(vitals, NOW_S + grace_s) == {}
    late = checks(vitals, NOW_S + grace_s + 1)
    assert late == {
        "last_successful_tick": f"no successful poll for {grace_s + 1:.0f} s "
        f"(interval {interval_ms / 1000:g} s): timed out"
    }
    vitals.ticked(TickReport(), NOW_S + grace_s + 2, NOW_MS)
    assert checks(vitals, NOW_S + grace_s + 3) == {}


@pytest.mark.parametrize("verdict", Verdict)
def test_silent_devices_are_no_failure_of_ours(verdict: Verdict) -> None:
    """A poll is a success when the platform is well, also when no device sends; a platform that is ill or
    refuses the key is told at once, although no query failed."""
    vitals = well()
    vitals.ticked(TickReport(verdict=verdict), NOW_S + 5, NOW_MS + 5000)
    fine = verdict in FINE
    assert vitals.last_ok_s == (NOW_S + 5 if fine else NOW_S)
    wanted = {Verdict.PLATFORM_ILL: "platform", Verdict.KEY_TROUBLE: "key"}
    assert set(checks(vitals, NOW_S + 6)) == (set() if fine else {wanted[verdict]})


def test_the_outbox_is_full_at_nine_tenths() -> None:
    """From 90 % on, before anything is dropped; and whenever something was, since whole batches are."""
    vitals = well()
    vitals.outbox_points = 899
    assert checks(vitals) == {}
    vitals.outbox_points = 900
    text = "the outbox is 90% full (900 of 1000); when there is no room the oldest are dropped"
    assert checks(vitals) == {"outbox": text}
    vitals.ticked(TickReport(outbox=600, dropped=500), NOW_S, NOW_MS)
    assert checks(vitals) == {"outbox": "the outbox is full (600 of 1000): 500 scores have just been dropped"}
    vitals.ticked(TickReport(outbox=500), NOW_S, NOW_MS)
    assert checks(vitals) == {}


def test_deliveries_may_fail_for_five_minutes() -> None:
    """Then it is told with the last error, until a post is accepted or nothing is left to deliver."""
    vitals = well()
    vitals.delivery.failed("POST /ingest -> 503", NOW_S)
    vitals.delivery.failed("POST /ingest -> 502", NOW_S + 200)
    vitals.last_ok_s = NOW_S + 300
    assert checks(vitals, NOW_S + 300) == {}
    assert checks(vitals, NOW_S + 310) == {
        "delivery": "no score was delivered for 5 min: POST /ingest -> 502"
    }
    assert checks(replace(vitals, outbox_points=0), NOW_S + 310) == {}
    vitals.delivery.accepted(2, np.array([1.0, 70.0]))
    assert checks(vitals, NOW_S + 311) == {}
    assert (vitals.delivery.errors, vitals.delivery.posts, vitals.delivery.posted) == (2, 1, 2)


def test_a_reload_that_failed_and_a_closed_state_file() -> None:
    """Both are told; a long error is cut."""
    vitals = replace(well(), config_error="line 3: " + "x" * 1000, state_open=False, stopping=True)
    found = checks(vitals)
    assert list(found) == ["stopping", "config", "state"]
    assert found["config"].startswith(
        "the settings could not be reloaded, the old ones stay in force: line 3"
    )
    assert found["config"].endswith("xxx...")
    assert len(found["config"]) < 400


def test_a_loop_that_stands_still_is_not_alive() -> None:
    """After a minute, or ten while the state is replayed at the start; an ill platform kills nobody."""
    vitals = replace(well(), verdict=Verdict.PLATFORM_ILL, last_ok_s=None, outbox_points=1000)
    assert liveness(vitals, NOW_S + 60) == []
    (trouble,) = liveness(vitals, NOW_S + 61)
    assert trouble == ("event_loop", "the event loop has not turned for 61 s; restart the worker")
    assert trouble in readiness(vitals, NOW_S + 61)
    starting = Vitals(5000, 1000, turned_s=NOW_S)
    assert liveness(starting, NOW_S + 600) == []
    assert liveness(starting, NOW_S + 601) != []


def test_every_check_is_listed() -> None:
    """Whatever can be told is in the list of checks, so that metrics can have a row for each."""
    ill = Vitals(5000, 10, config_error="x", stopping=True, verdict=Verdict.KEY_TROUBLE, outbox_points=10)
    ill.bus_trouble = "x"
    ill.delivery.failed("x", 0.0)
    told = {trouble.check for trouble in readiness(ill, 1e6)}
    late = replace(ill, last_ok_s=0.0, verdict=Verdict.PLATFORM_ILL)
    assert told | {trouble.check for trouble in readiness(late, 1e6)} == set(CHECKS)


def test_histograms_take_columns() -> None:
    """A bound belongs to its bucket; what is below zero counts as zero; buckets add up."""
    histogram = Histogram((0.5, 1.0, 10.0))
    histogram.add(np.array([0.5, 0.6, 1.0, 11.0, -3.0]))
    histogram.add(2.0)
    histogram.add(np.zeros(0))
    assert histogram.buckets() == [("0.5", 2.0), ("1.0", 4.0), ("10.0", 5.0), ("+Inf", 6.0)]
    assert histogram.sum_s == pytest.approx(15.1)
