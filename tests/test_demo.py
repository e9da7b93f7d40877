"""The demo: a screen that fits, and the whole job from fault to recovery in one command."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from plexus_detect.config import load_config
from plexus_detect.demo.board import Board, Mood, mood_of
from plexus_detect.demo.recording import (
    data_folder,
    read_recording,
)
from plexus_detect.demo.scenario import METRIC, RAW_SCORE, SCORE, Replay, Scenario, make_replay
from plexus_detect.demo.screen import BARS, Screen, mood_text, sparkline
from plexus_detect.demo.story import RESOLVED, TRIGGERED, Anomaly, Happening, SlackMessage, Story, read_slack
from plexus_detect.evaluate import State, evaluate
from plexus_detect.policy import policy_of
from plexus_detect.series import Points, SeriesTable

ROOT = Path(__file__).parent.parent
FIXTURES = Path(__file__).parent / "fixtures"

# The same replay, shorter and faster, for runs in which the pace is not the point.
FAST = "Scenario(live_samples=44, sample_ms=200, time_scale=60.0, fault_from=10, fault_samples=12)"


@pytest.fixture(scope="module")
def replay() -> Replay:
    return make_replay(read_recording(data_folder()), Scenario())


# -- story


def told(faulty: str = "room-07") -> tuple[Story, list[Happening]]:
    happenings: list[Happening] = []
    return Story(faulty, happenings.append), happenings


def slack(t_ms: int, event: str, source: str = "room-07", metric: str = SCORE) -> SlackMessage:
    return SlackMessage(t_ms, event, "title", "text", {"Source": source, "Metric": metric})


def test_slack_words_are_those_of_the_recorded_message() -> None:
    """Title, sentence and fields come out of a message that the platform really sent."""
    body = json.loads((FIXTURES / "slack.jsonl").read_text("utf-8").splitlines()[0])
    message = read_slack(1, TRIGGERED, body)
    assert (message.title, message.summary) == ("Alert Triggered", "temperature.zscore below threshold")
    assert (message.source, message.metric) == ("Device One", "temperature.zscore")
    assert list(message.fields) == ["Source", "Metric", "Value", "Threshold", "Severity"]


def test_success_needs_the_alert_and_its_resolution_after_the_fault_began() -> None:
    """Each thing that did not happen is a sentence of its own; only the whole course is a success."""
    story, _ = told()
    assert "too slow" in (story.failure() or "")
    story.fault_times_ms, story.fault_over_ms = [1000, 1500, 2000], 2500
    story.message(slack(900, TRIGGERED))
    story.message(slack(1100, TRIGGERED, source="room-01"))
    story.message(slack(1100, TRIGGERED, metric="humidity.zscore"))
    assert "raised no alert in Slack, and temperature.zscore did not show it" in (story.failure() or "")
    story.anomalies.append(Anomaly("room-07", SCORE, 1500))
    assert "although the worker found it" in (story.failure() or "")
    story.message(slack(2100, TRIGGERED))
    assert "not resolved" in (story.failure() or "")
    story.message(slack(4000, RESOLVED))
    assert story.failure() is None


def test_summary_counts_what_happened_and_every_other_alert() -> None:
    """Samples until found, seconds until alerted and resolved, and alerts that the fault does not explain."""
    story, _ = told()
    story.fault_times_ms, story.fault_over_ms = [1000, 1500, 2000, 2500], 3000
    story.anomalies += [Anomaly("room-07", SCORE, 2000), Anomaly("room-01", SCORE, 2000)]
    for message in (
        slack(2100, TRIGGERED, source="room-01"),
        slack(2200, TRIGGERED),
        slack(4500, RESOLVED),
        slack(5000, TRIGGERED),
    ):
        story.message(message)
    summary = story.summary(derived_posted=7, requests=8, requests_all=9)
    assert summary.anomaly_after_samples == 3
    assert (summary.alert_opened_s, summary.alert_resolved_s) == (1.2, 1.5)
    assert (summary.slack_messages, summary.other_alerts, summary.other_anomalies) == (4, 2, 1)
    assert summary.failure is None


# -- screen


def test_sparkline_scales_by_everything_and_draws_the_newest() -> None:
    """Bars run from the least to the largest of all values, also of those that are not drawn."""
    assert sparkline([0.0, 7.0, 3.5, 0.0], 2) == BARS[4] + BARS[0]
    assert sparkline([5.0], 3) == f"  {BARS[0]}"
    assert sparkline([], 3) == "   "


def test_short_mood_fits_its_column() -> None:
    """No state needs more than the nine columns of a narrow block."""
    words = (Mood("normal"), Mood("suspected"), Mood("ANOMALY"), Mood("waiting"), Mood("warming", 29, 30))
    assert max(len(mood_text(mood, short=True)) for mood in words) <= 9
    assert mood_text(Mood("warming", 12, 30), short=False) == "warming 12 of 30"


def test_board_takes_each_row_once() -> None:
    """What is read again because of the overlap is not drawn twice, and our other series are not drawn."""
    board = Board(["room-01"], points_max=10)
    reading = board.table.add("room-01", METRIC)
    score, other = board.table.add("room-01", RAW_SCORE), board.table.add("room-01", SCORE)
    rows = Points(np.array([reading, score, other]), np.array([5, 5, 5]), np.array([20.5, -1.5, 9.0]))
    board.take(rows)
    board.take(rows)
    device = board.devices["room-01"]
    assert (list(device.values), device.z, board.newest_ms()) == ([20.5], -1.5, 5)


def test_a_device_warms_up_until_scores_begin() -> None:
    """The state counts to what the default detector needs, which is not ``detect.min_points``."""
    state = State(SeriesTable(), policy_of(load_config([], {})))
    series = state.table.add("room-01", METRIC)
    state.admit(series, 0)
    moods = []
    for k in range(33):
        moods.append(mood_of(state, series, warm=False))
        scores = evaluate(state, Points(np.array([series]), np.array([1000 * k + 1]), np.array([k % 5.0])), 0)
    assert np.isfinite(scores.scores.z[0])
    assert moods[:32] == [Mood("warming", k, 32) for k in range(32)]
    assert moods[32] == mood_of(state, series, warm=True) == Mood("normal")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 40), (200, 60)])
def test_screen_fits_the_terminal_and_shows_every_device(replay: Replay, width: int, height: int) -> None:
    """The picture is no larger than the terminal and has every device, its state, Slack, the last event."""
    story, _ = told()
    board = Board(replay.sources, 400)
    series = [board.table.add(source, METRIC) for source in replay.sources]
    for i in range(100):
        board.take(Points(np.array(series), np.full(20, i), replay.history[:, i]))
    board.devices["room-07"].mood = Mood("ANOMALY")
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=False)
    screen = Screen(console, story, board)
    screen.note(Happening("started", 0.0, STARTED))
    for number in range(30):
        screen.note(Happening("log", float(number), {"component": "worker", "message": f"line {number}"}))
    fields = {"Source": "room-07", "Metric": SCORE, "Value": "9.36017", "Threshold": "3"}
    screen.note(Happening("slack", 3.0, {"title": "Alert Triggered", "text": "words", "fields": fields}))
    console.print(screen.frame(width, height))
    lines = out.getvalue().rstrip("\n").split("\n")
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert all(source in text for source in replay.sources)
    assert re.search(rf"room-07 [ {BARS}]*[{BARS}]+ .* ANOMALY", text)
    assert f"Alert Triggered  room-07 {SCORE} 9.36" in text
    assert "line 29" in lines[-1]


STARTED = {
    "url": "http://127.0.0.1:45799",
    "devices": 20,
    "sample_s": 0.5,
    "time_scale": 20.0,
    "recovery_s": 1.5,
}


# -- the whole job


def test_demo_finds_the_fault_alerts_resolves_and_adds_up() -> None:
    """One command: the fault is found, alerted and resolved within a minute, and all counts agree."""
    began = time.monotonic()
    command = [sys.executable, "-m", "plexus_detect", "demo", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    took_s = time.monotonic() - began
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, ""), events[-1]
    assert took_s < 60
    assert in_order(events)
    summary, ticks = events[-1], [e for e in events if e["event"] == "tick"]
    readings = 20 * (336 + 72)
    assert summary["points_sent"] == summary["points_read"] == sum(t["points"] for t in ticks) == readings
    assert summary["points_scored"] == readings - 20 * 32
    assert summary["derived_posted"] == sum(t["derived"] for t in ticks) == 3 * 20 * 72
    assert summary["ticks"] == len(ticks)
    assert sum(t["requests"] for t in ticks) < summary["requests"] < summary["requests_all"]
    assert summary["anomaly_after_samples"] == 1
    assert 0 < summary["alert_opened_s"] < 10
    assert summary["slack_messages"] == sum(e["event"] == "slack" for e in events)
    triggered = sum(e.get("type") == TRIGGERED for e in events)
    assert summary["other_alerts"] == triggered - 1 == 0
    opened = {e["source"] for e in events if e["event"] == "anomaly_opened"}
    assert (opened, summary["other_anomalies"]) == ({"room-07"}, 0)


def in_order(events: list[dict[str, object]]) -> bool:
    """True when the course of the demo is among the events, in its order, and it begins and ends as said."""
    course = iter(course_of(events))
    wanted = (
        "started",
        "history_posted",
        *["monitor_applied"] * 20,
        "monitors_ready",
        "worker_started",
        "fault_started",
        f"anomaly_opened {SCORE}",
        f"slack {TRIGGERED}",
        "fault_ended",
        f"anomaly_closed {SCORE}",
        f"slack {RESOLVED}",
        "summary",
    )
    names = course_of(events)
    ends = (next(names), events[-1]["event"]) == ("started", "summary")
    return ends and all(name in course for name in wanted)


def course_of(events: list[dict[str, object]]) -> Iterator[str]:
    for event in events:
        detail = event.get("series") if str(event["event"]).startswith("anomaly") else event.get("type")
        yield f"{event['event']} {detail}" if detail else str(event["event"])


def run_fast(options: str, settings: str = "{}") -> list[str]:
    program = (
        "import sys; from plexus_detect.demo import Options, Scenario, run_demo; "
        f"sys.exit(run_demo(Options({options}), {FAST}, {settings}))"
    )
    return [sys.executable, "-c", program]


def test_a_detector_that_misses_the_fault_fails_the_demo() -> None:
    """Nothing is staged: with a line that no score reaches the demo says so and ends with 1."""
    command = run_fast("", '{"PLEXUS_DETECT_DETECT__THRESHOLD": "1e6"}')
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "failed: the fault on room-07 raised no alert in Slack" in done.stdout
    assert "fault injected" in done.stdout
    assert "Slack: Alert" not in done.stdout
    assert "\x1b" not in done.stdout


def test_keep_goes_on_on_a_terminal_until_ctrl_c() -> None:
    """On a terminal: the live screen without colours, the summary, then more, and Ctrl-C leaves with 130."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(
        run_fast("keep=True, color=False"),
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        seen = read_until(ours, "the replay goes on")
        process.send_signal(signal.SIGINT)
        rest = read_until(ours, None)
        assert process.wait() == 130
    finally:
        watchdog.cancel()
        process.kill()
        os.close(ours)
    assert "room-07" in seen
    assert "ANOMALY" in seen
    assert "\x1b[?1049h" in seen  # the alternate screen is entered, and left again
    assert "\x1b[?1049l" in rest
    assert "summary: the fault was alerted and resolved" in rest
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", seen)
    assert "Traceback" not in rest


def read_until(terminal: int, text: str | None) -> str:
    """What a pseudo terminal shows up to ``text``, or to its end."""
    shown = b""
    while text is None or text.encode() not in shown:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the way in which Linux says that the other end is closed
            break
        if not part:
            break
        shown += part
    return shown.decode(errors="replace")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_end_leaves_cleanly(number: signal.Signals, code: int) -> None:
    """Interrupted in the middle the demo ends at once with the signal's code, and every line is whole."""
    command = run_fast("as_json=True")
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(json.loads(line)["event"])
            if lines[-1] == "worker_started":
                process.send_signal(number)
                break
        rest, errors = process.communicate(timeout=30)
    assert all(json.loads(line) for line in rest.splitlines())
    assert (process.returncode, errors) == (code, "")
    assert "summary" not in rest
