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
from fakes import FakeMonitorApi
from recorded import body_of

from plexus_detect.cli import cli
from plexus_detect.config import Config
from plexus_detect.errors import ContractError
from plexus_detect.monitors import Wanted
from plexus_detect.monitors.verdicts import Alert, Counts
from plexus_detect.provision.alerts import read_alerts
from plexus_detect.provision.findings import findings, patch
from plexus_detect.provision.review_words import summary
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
    assert "~ monitors/t.json: temperature.zscore of 2 sources\n    max 3 -> 4: the smallest move that drops all noise whose peak is known (noise" in said
    assert "alerts in 30 days: helpful 2 -> 2, noise 3 -> 1, unjudged 0 -> 0" in said
    assert "note: noise by source: room-1 3; room-1 makes more than half of it" in said
    assert (folder / "monitors/t.json").read_text() == DOCUMENT
    subprocess.run(["git", "apply", "moved.patch"], cwd=folder, check=True)
    assert (folder / "monitors/t.json").read_text() == DOCUMENT.replace('"max": 3', '"max": 4')
    with a_past() as past:
        past.run("apply", "--yes")
        past.live(WATCHED, room_1=SMALL, room_2=(*LARGE, *QUIET))
        assert sorted(alert["value"] for alert in past.box.alerts()) == [7.1, 9.5]
        said = past.run("review").stdout
    assert "= monitors/t.json: temperature.zscore of 2 sources: nothing to propose: 0 verdicts, and 3 a" in said


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
    assert f"    watch {WATCHED} in place of {WATCHED}_raw: noise was short (at most 1 points in a row)" in said
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
