"""``monitors review``: from real alerts and their verdicts to a patch that git applies."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from recorded import body_of

from plexus_detect.cli import cli
from plexus_detect.config import Config
from plexus_detect.errors import ContractError
from plexus_detect.monitors import Wanted
from plexus_detect.monitors.verdicts import Alert, Counts
from plexus_detect.provision.alerts import read_alerts
from plexus_detect.provision.findings import findings, patch
from plexus_detect.provision.review_words import HOW_COUNTED, summary
from plexus_detect.sandbox import Sandbox

STEP_MS = 31_000  # two normal values so far apart close an alert
QUIET = (0.0,) * 5  # closes it, and lets the cooldown pass
WATCHED = "temperature.zscore"
DOCUMENT = """{
  "source_id": "room-*",   "metric": "temperature.zscore",
  "threshold": {"max": 3, "severity": "warning"}
}
"""


class Past:
    """A sandbox whose clock a test moves: what its thresholds see is a past of days, lived in a second."""

    def __init__(self, box: Sandbox, clock: list[int]) -> None:
        self.box, self.clock = box, clock
        self.http = httpx.Client(base_url=box.url, headers={"x-api-key": box.key})

    def live(self, metric: str, **values: Sequence[float]) -> None:
        """Send each source its values, one every step, all of a moment in one request."""
        for at in range(max(map(len, values.values()))):
            self.clock[0] += STEP_MS
            rows = [
                {
                    "source_id": slug.replace("_", "-"),
                    "metric": metric,
                    "value": series[at],
                    "timestamp": self.clock[0],
                }
                for slug, series in values.items()
                if at < len(series)
            ]
            self.http.post("/ingest", json={"points": rows}).raise_for_status()

    def judge(self, helpful_from: float, metric: str = WATCHED) -> None:
        """Give each alert the verdict of a person who knows that true faults reach so far."""
        for alert in self.box.alerts():
            if alert["metric"] == metric:
                peak = alert["alert_stats"]["peak_value"] if alert["alert_stats"] else alert["value"]
                verdict = "helpful" if peak >= helpful_from else "noise"
                action = {"action": "verdict", "verdict": verdict}
                self.http.patch(f"/api/alerts/{alert['id']}", json=action).raise_for_status()

    def run(self, *words: str) -> Result:
        """A command against this platform."""
        names = ("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL")
        env = dict.fromkeys(names, self.box.url) | {"PLEXUS_API_KEY": self.box.key}
        result = CliRunner().invoke(cli, ["monitors", *words], env=env)
        assert result.exit_code == 0, result.output
        return result


@contextmanager
def a_past() -> Iterator[Past]:
    clock = [int(time.time() * 1000) - 2 * 86_400_000]
    with Sandbox(now_ms=lambda: clock[0]) as box:
        box.load((slug, "temperature", clock[0], 20.0) for slug in ("room-1", "room-2"))
        past = Past(box, clock)
        yield past
        past.http.close()


SMALL = (*QUIET, 3.4, *QUIET, 3.2, 3.7, *QUIET, 3.1)
LARGE = (*QUIET, 9.5, 12.0, *QUIET, *QUIET, 7.1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with one document in monitors/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "monitors").mkdir()
    (tmp_path / "monitors/t.json").write_text(DOCUMENT)
    return tmp_path


# ---- from alerts to a patch, against the sandbox ---------------------------------------------------------


def test_the_proposed_patch_keeps_what_helped_and_drops_the_noise(folder: Path) -> None:
    """Small peaks judged noise, large ones helpful: git applies the patch, and the document as it then is
    fires on the same values for the helpful ones alone."""
    with a_past() as past:
        past.run("apply", "--yes")
        past.live(WATCHED, room_1=SMALL, room_2=(*LARGE, *QUIET))
        past.judge(helpful_from=5)
        said = past.run("review", "-o", "moved.patch").stdout
    assert (
        "~ monitors/t.json: temperature.zscore of 2 sources\n    max 3 -> 4: the smallest move that" in said
    )
    assert (
        "drops all noise whose peak is known (noise up to 3.7) and keeps every helpful alert (from 7.1)"
        in said
    )
    assert "alerts in 30 days: helpful 2 -> 2, noise 3 -> 1, unjudged 0 -> 0" in said
    assert "replayed over stored values: 5 -> 2 firings" in said
    assert "note: noise by source: room-1 3; room-1 makes more than half of it" in said
    assert (folder / "monitors/t.json").read_text() == DOCUMENT
    subprocess.run(["git", "apply", "moved.patch"], cwd=folder, check=True)
    assert (folder / "monitors/t.json").read_text() == DOCUMENT.replace('"max": 3', '"max": 4')
    with a_past() as past:
        past.run("apply", "--yes")
        past.live(WATCHED, room_1=SMALL, room_2=(*LARGE, *QUIET))
        assert sorted(alert["value"] for alert in past.box.alerts()) == [7.1, 9.5]
        said = past.run("review").stdout
    assert (
        "= monitors/t.json: temperature.zscore of 2 sources: nothing to propose: 0 verdicts, and 3 a" in said
    )


def test_noise_that_was_short_is_calmed(folder: Path) -> None:
    """Of a raw score whose noise reaches as far as what helps but lasts one point, the debounced name is
    proposed; of the debounced one, a larger detect.consecutive in words, and no file changes."""
    raw = DOCUMENT.replace("zscore", "zscore_raw")
    (folder / "monitors/t.json").write_text(raw)
    short, long = (*QUIET, 5.1, *QUIET, 4.8, *QUIET), (*QUIET, 4.0, 4.4, 4.1, 4.2, *QUIET)
    with a_past() as past:
        past.run("apply", "--yes")
        past.live(f"{WATCHED}_raw", room_1=(*short, 5.3, *QUIET), room_2=long)
        past.judge(helpful_from=0, metric=f"{WATCHED}_raw")
        for alert in past.box.alerts():
            if alert["value"] > 4.5:
                body = {"action": "verdict", "verdict": "noise"}
                past.http.patch(f"/api/alerts/{alert['id']}", json=body).raise_for_status()
        result = past.run("review", "--min-verdicts", "4")
    said, _, diff = result.stdout.partition("\n\n")
    assert (
        f"    watch {WATCHED} in place of {WATCHED}_raw: noise was short (at most 1 points in a row)" in said
    )
    assert "helpful 1 -> 1, noise 3 -> 0" in said
    assert "note: it is a magnitude: departures downwards will alert too" in said
    subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=folder, check=True)
    assert (folder / "monitors/t.json").read_text() == DOCUMENT


def test_json_output_and_nothing_to_patch(folder: Path) -> None:
    """--output json is one object with every document; without an edit no patch file is made."""
    with a_past() as past:
        result = past.run("review", "--output", "json", "-o", "none.patch")
    (document,) = json.loads(result.stdout)["documents"]
    assert (document["field"], document["why"]) == (None, "no alert fired")
    assert document["before"] == {"helpful": 0, "noise": 0, "unjudged": 0}
    assert result.stderr == "plexus-detect: nothing to patch: none.patch not written\n"
    assert not (folder / "none.patch").exists()


# ---- reading the alerts ----------------------------------------------------------------------------------


class PagedAlerts:
    """Alerts of one source, the newest first, in pages of at most ``page``; one more opens with each read."""

    def __init__(self, count: int, page: int) -> None:
        self.count, self.page, self.reads = count, page, 0

    async def alerts(self, params: dict[str, str]) -> bytes:
        """GET /api/alerts."""
        assert params["triggerType"] == "alert_rule"
        assert "sourceId" not in params
        newest = self.count + self.reads
        self.reads += 1
        first = newest - int(params["offset"])
        rows = [self._row(i) for i in range(first, max(0, first - min(self.page, int(params["limit"]))), -1)]
        return json.dumps({"alerts": rows, "counts": {}}).encode()

    @staticmethod
    def _row(i: int) -> dict[str, Any]:
        (row,) = json.loads(body_of("alerts.open"))["alerts"]
        return row | {"id": f"a{i}", "value": i, "triggered_at": f"2026-11-22 {i // 60:02}:{i % 60:02}:00+00"}


def test_pages_are_read_until_the_period_is_covered() -> None:
    """Short pages and alerts that push others back lose none and double none; what is older ends it."""
    api = PagedAlerts(30, page=7)
    assert sorted(a.value for a in asyncio.run(read_alerts(api, 0))) == list(range(1, 31))
    api = PagedAlerts(300, page=7)
    since_ms = 1_795_305_600_000 + 290 * 60_000  # 2026-11-22 04:50
    assert min(a.value for a in asyncio.run(read_alerts(api, since_ms))) == 290
    assert api.reads == 2


class OnePage:
    """One recorded page of alerts, and nothing behind it."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def alerts(self, params: dict[str, str]) -> bytes:
        """GET /api/alerts."""
        return self.body if params["offset"] == "0" else b'{"alerts":[]}'


def test_recorded_alerts() -> None:
    """An open alert is known by its first value, a closed one by its peak and its points beyond the line;
    alerts of events, of offline monitors and of clients have no line and are left out."""
    opened = asyncio.run(read_alerts(OnePage(body_of("alerts.open")), 0))
    assert opened == (Alert("dev-1", WATCHED, None, 5.25, 3.0),)
    closed = asyncio.run(read_alerts(OnePage(body_of("alerts.closed")), 0))
    assert closed == (Alert("dev-1", WATCHED, "helpful", 5.25, 3.0, 6.0, 2),)
    assert asyncio.run(read_alerts(OnePage(body_of("alerts.every_kind")), 0)) == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [("current_verdict", "maybe"), ("triggered_at", "yesterday"), ("value", "high"), ("metric", None)],
)
def test_other_shapes_conclude_nothing(field: str, value: object) -> None:
    """An alert of a shape that we do not know is an error that names the answer."""
    (row,) = json.loads(body_of("alerts.open"))["alerts"]
    body = json.dumps({"alerts": [row | {field: value}]}).encode()
    with pytest.raises(ContractError, match="alerts answer"):
        asyncio.run(read_alerts(OnePage(body), 0))


def test_figures_of_an_engine_that_restarted_are_not_those_of_the_alert() -> None:
    """Where the figures begin later than the alert, its points beyond the line are not known."""
    (row,) = json.loads(body_of("alerts.closed"))["alerts"]
    row["alert_stats"]["opened_at"] += 60
    (alert,) = asyncio.run(read_alerts(OnePage(json.dumps({"alerts": [row]}).encode()), 0))
    assert (alert.peak, alert.points) == (6.0, None)


# ---- documents of every form -----------------------------------------------------------------------------


def wanted(origin: str, metric: str, high: float, *sources: str) -> list[Wanted]:
    """The thresholds that a document makes."""
    settings = {"min": None, "max": high, "severity": "warning", "message": None}
    return [Wanted(origin, (source, metric, "threshold"), settings, "leave") for source in sources]


def judged(metric: str, line: float, *sources: str) -> list[Alert]:
    """Three alerts of each source: noise just beyond the line, one of two points, and a long helpful one."""
    low, far = line * 1.1, line * 4
    return [
        alert
        for source in sources
        for alert in (
            Alert(source, metric, "noise", low, line, low, 1),
            Alert(source, metric, "noise", low, line, low * 1.05, 2),
            Alert(source, metric, "helpful", far, line, far, 40),
        )
    ]


FORMS = {
    "a.json": '[{"source_id":"x","offline":{}},{"source_id":"d","metric":"t.zscore","threshold":{"max":3}}]',
    "b.yaml": "# who\n- for: {source: d, metric: t}   # all\n  max: 3  # 3 is the line\n- offline: {}\n",
    "c.yml": "for:\n  source: d\n  metric: t\nladder:\n  critical: 9\n  warning: 3.0\n",
    "d.toml": '[[monitors]]\nmax = 3\n\n[[monitors]]\nmax = 3 # line\r\nfor = {source = "d", metric = "t"}\n',
    "e.json": '\ufeff{\r\n\t"source_id": "d",\r\n\t"metric": "t.zscore",\r\n\t"threshold": {"max": 3e0}\r\n}',
}
ORIGINS = {"a.json": "#/1", "b.yaml": "#/0", "d.toml": "#/1"}
CHANGED = {
    "a.json": '"max":3.5}',
    "b.yaml": "max: 3.5  # 3 is the line",
    "c.yml": "warning: 3.5",
    "d.toml": "max = 3.5 # line",
    "e.json": '"max": 3.5}',
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_edited_in_its_place(name: str, folder: Path) -> None:
    """Lists, tables, ladders, comments, line ends and byte order marks: one value changes, by a patch that
    git takes."""
    file = folder / name
    file.write_bytes(FORMS[name].encode())
    monitors = wanted(f"{name}{ORIGINS.get(name, '')}", WATCHED, 3.0, "d")
    (found,) = findings(monitors, judged(WATCHED, 3.0, "d"), Config(), 3)
    edits = patch([found], {Path(name): name})
    assert not edits.unplaced
    (folder / "p").write_bytes(edits.text.encode())
    subprocess.run(["git", "apply", "--whitespace=nowarn", "p"], cwd=folder, check=True)
    after = file.read_bytes().decode()
    old = CHANGED[name].replace("3.5", {"c.yml": "3.0", "e.json": "3e0"}.get(name, "3"))
    assert after == FORMS[name][::-1].replace(old[::-1], CHANGED[name][::-1], 1)[::-1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("v.json", '{"for": {"source": "d", "metric": "t"}, "max": "${limit}"}'),
        ("v.yaml", "for: {source: d, metric: t}\nx: &limit 3\nmax: *limit\n"),
        ("gone.json", ""),
    ],
)
def test_a_value_that_stands_elsewhere_is_left_to_a_person(name: str, text: str, folder: Path) -> None:
    """A variable, an anchor, a file that no longer holds the document: no edit, and the finding is named."""
    (folder / name).write_text(text)
    found = findings(wanted(name, WATCHED, 3.0, "d"), judged(WATCHED, 3.0, "d"), Config(), 3)
    edits = patch(found, {Path(name): name})
    assert (edits.text, list(edits.unplaced)) == ("", found)


SHORT = "noise was short (at most 2 points in a row), what helped was longer (at least 40)"


def test_what_is_said_beside_a_proposal() -> None:
    """Another document with the name, a score that is not posted, another line, noisy sources, a replay."""
    raw = wanted("raw.json", "t.fleet_zscore_raw", 3.0, "d-1", "d-2")
    plain = wanted("plain.json", "t.fleet_zscore", 3.0, "d-1")
    alerts = judged("t.fleet_zscore_raw", 3.0, "d-1", "d-2")
    alerts += [replace(alert, line=2.0, value=20.0, peak=20.0) for alert in alerts if alert.points == 1]
    first, second = findings([*raw, *plain], alerts, Config(), 3)
    assert patch([first, second], {}) == patch([], {})
    lines = summary([replace(first, replayed=(9, 2)), second], 7, ["zscore"])
    assert lines == [
        "~ raw.json: t.fleet_zscore_raw of 2 sources",
        "    watch t.fleet_zscore in place of t.fleet_zscore_raw: " + SHORT,
        "    alerts in 7 days: helpful 2 -> 2, noise 6 -> 0, unjudged 0 -> 0",
        "    replayed over stored values: 9 -> 2 firings",
        "    note: plain.json watches that name already: no edit is made; remove this document instead",
        "    note: the worker does not post it yet: add fleet_zscore to post.series",
        "    note: it is a magnitude: departures downwards will alert too",
        "    note: 2 alerts opened under another line than this document's",
        "    note: noise by source: d-1 3, d-2 3",
        "= plain.json: t.fleet_zscore of 1 source: nothing to propose: no alert fired",
        HOW_COUNTED,
        "review: 1 to change, 1 to leave as they are",
    ]


def test_a_debounced_score_gets_a_longer_debounce_in_words() -> None:
    """The platform's own debounce cannot be set, so the worker's is named, and no file is edited."""
    alerts = [
        Alert("d", "t.fleet_zscore", "noise", 90.0, 3.0, 90.0, 1),
        Alert("d", "t.fleet_zscore", "noise", 4.0, 3.0, 80.0, 2),
        Alert("d", "t.fleet_zscore", "helpful", 4.0, 3.0, 5.0, 6),
    ]
    (found,) = findings(wanted("t.json", "t.fleet_zscore", 3.0, "d"), alerts, Config(), 3)
    assert patch([found], {}).text == ""
    assert summary([found], 1, ["fleet_zscore"])[1].startswith(
        "    fleet.consecutive 3 -> 5 in the configuration: noise was short (at most 4 points in a row)"
    )
    assert found.proposal.after == Counts(1, 0, 0)
