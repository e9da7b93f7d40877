"""crosscheck: an empty answer is not silence. No data, an ill platform and a refused key are told apart."""

from __future__ import annotations

import logging

import pytest
from fake_platform import START_MS, FakeClock, FakePlatform, answer
from worker_desk import events, history, opened, quick, tick

from plexus_detect.errors import AuthError, RejectedError, TransientError
from plexus_detect.logs import PACKAGE
from plexus_detect.report import TickReport, Verdict
from plexus_detect.worker import Worker

QUIET = {"heartbeat__enabled": "false", "fleet__enabled": "false", "poll__interval": "1s"}


def warm(stopped: FakeClock, devices: int = 2) -> tuple[FakePlatform, Worker]:
    """A worker that has read what there is, and half a minute in which nothing comes."""
    platform = FakePlatform(history(START_MS, devices))
    worker = opened(platform, quick(**QUIET))
    tick(worker)
    stopped.t_ms += 30_000
    return platform, worker


def purged(stopped: FakeClock, devices: int = 2) -> tuple[FakePlatform, Worker]:
    """The same, and the platform has nothing of the past any more: its answers are empty and true."""
    platform, worker = warm(stopped, devices)
    platform.rows.clear()
    return platform, worker


def empties(stopped: FakeClock, n: int = 1) -> list[bytes]:
    """Answers without rows."""
    return [answer([], stopped.t_ms) for _ in range(n)]


def test_devices_that_send_nothing_are_no_failure(
    stopped: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The read API has nothing new either: no_data, told once; the tick is a success."""
    caplog.set_level(logging.INFO, PACKAGE)
    platform, worker = purged(stopped)
    report = tick(worker)
    assert (report.verdict, report.ok, report.errors) == (Verdict.NO_DATA, True, [])
    assert platform.calls.count("raw_rows") == 1
    tick(worker)
    (told,) = events(caplog, "platform_no_data")
    assert "neither the app nor the read API has anything new of t" in told["why"]
    platform.rows.append(("dev-0", "t", stopped.t_ms, 20.0))
    assert tick(worker).verdict is Verdict.OK
    assert events(caplog, "platform_ok") != []


def test_an_answer_with_nothing_new_needs_no_second_opinion(stopped: FakeClock) -> None:
    """It holds the last samples again, so the store works: the devices are silent; nobody else is asked."""
    platform, worker = warm(stopped)
    assert tick(worker).verdict is Verdict.NO_DATA
    assert platform.calls.count("raw_rows") == 0


def test_while_it_lasts_it_is_asked_ever_more_rarely(stopped: FakeClock) -> None:
    """Ten minutes of silence cost the read API a dozen questions, not six hundred."""
    platform, worker = purged(stopped)
    for _ in range(600):
        assert tick(worker).verdict is Verdict.NO_DATA
        stopped.t_ms += 1000
    assert 5 <= platform.calls.count("raw_rows") <= 14


@pytest.mark.parametrize(
    ("read_api", "why"),
    [
        (None, "the read API has 1 newer rows of t of dev-0"),
        (TransientError("GET /v1/sources -> 500: Internal Server Error"), "the read API does not help"),
        (RejectedError("GET /v1/sources -> 404"), "the read API does not help"),
        (AuthError("GET /v1/sources -> 401: invalid api key"), "the read API refuses the key"),
    ],
    ids=["sees more", "ill too", "not installed", "another key"],
)
def test_a_store_that_fails_is_not_believed(
    stopped: FakeClock, caplog: pytest.LogCaptureFixture, read_api: Exception | None, why: str
) -> None:
    """The app answers 200 and no rows although there are some: nothing is concluded, no cursor moves, and the
    tick has failed; as soon as it answers again everything is scored."""
    platform, worker = warm(stopped)
    platform.rows += [("dev-0", "t", START_MS + 20_000, 20.1)]
    before = worker.running.cursors.dump(2)
    before = {name: column.copy() for name, column in before.items()}
    platform.script["telemetry"] = empties(stopped, 2)
    platform.script["raw_rows"] = [read_api]
    report = tick(worker)
    assert (report.verdict, report.ok) == (Verdict.PLATFORM_ILL, False)
    assert "empty answers are not believed" in report.errors[0]
    (told,) = events(caplog, "platform_ill")
    assert why in told["why"]
    assert "/api/ping says that its loops run" in told["why"]
    for name, column in worker.running.cursors.dump(2).items():
        assert (column == before[name]).all(), name
    assert worker.running.cursors.ask_ms[:2].tolist() == [0, 0]
    stopped.t_ms += 1000
    report = tick(worker)
    assert (report.verdict, report.points) == (Verdict.OK, 1)


def test_an_ill_platform_stays_ill_until_rows_come(stopped: FakeClock) -> None:
    """However long the outage: half an hour of empty answers are never taken for silence."""
    platform, worker = warm(stopped)
    platform.rows += [("dev-0", "t", START_MS + 20_000, 20.1)]
    for _ in range(60):
        platform.script["telemetry"] = empties(stopped, 2)
        assert tick(worker).verdict is Verdict.PLATFORM_ILL
        stopped.t_ms += 30_000
    platform.script["telemetry"] = []
    assert tick(worker).points == 1


def test_a_paused_organisation_is_key_trouble(stopped: FakeClock) -> None:
    """The read API answers 402 while the app goes on answering: a person must act."""
    platform, worker = warm(stopped)
    platform.script["telemetry"] = empties(stopped)
    platform.script["raw_rows"] = [AuthError("GET /v1/sources -> 402: payment_required")]
    assert tick(worker).verdict is Verdict.KEY_TROUBLE


def test_a_refused_key_and_failing_reads_have_their_own_words(stopped: FakeClock) -> None:
    """401 on the telemetry is key trouble, no answer is an ill platform."""
    platform, worker = warm(stopped)
    platform.script["telemetry"] = [AuthError("401")]
    assert tick(worker).verdict is Verdict.KEY_TROUBLE
    platform.script["telemetry"] = [RejectedError("404")]
    assert tick(worker).verdict is Verdict.PLATFORM_ILL


def test_one_silent_device_is_not_the_platform(stopped: FakeClock) -> None:
    """While the others send, a device that fell silent changes no verdict and costs few questions."""
    platform, worker = warm(stopped, devices=3)
    for k in range(120):
        platform.rows += [(f"dev-{d}", "t", stopped.t_ms - 500, 20.0 + d) for d in range(2)]
        report: TickReport = tick(worker)
        assert report.verdict is Verdict.OK, k
        stopped.t_ms += 1000
    assert platform.calls.count("raw_rows") <= 6


def test_an_answer_with_series_that_nobody_knows(stopped: FakeClock) -> None:
    """Devices appear by the hundred between two looks at what there is: their rows are passed over (found by
    the simulation)."""
    platform, worker = warm(stopped)
    platform.rows += [(f"new-{d}", "t", stopped.t_ms - 500, 20.0) for d in range(300)]
    report = tick(worker)
    assert (report.verdict, report.foreign) == (Verdict.OK, 300)
