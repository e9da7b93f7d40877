"""examples/monitoring: rules and dashboard ask for metrics that there are, in Prometheus's language."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from full_meters import full_meters, samples
from prometheus_client import generate_latest

FOLDER = Path(__file__).parents[1] / "examples" / "monitoring"
RULES = FOLDER / "alert.rules.yml"
ALERTS = yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text("utf-8"))
CHARTS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

SAMPLES = samples()
FOREIGN = {"up"}
TARGET_LABELS = {"job", "instance"}

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every metric that an expression asks for; raises ValueError for one that is no PromQL."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)

    promql_parser.walk(promql_parser.parse(expression), visit)
    assert found, expression
    return found


def expressions() -> Iterator[str]:
    """Every expression of the rules and of the dashboard."""
    yield from (alert["expr"] for alert in ALERTS)
    yield from (target["expr"] for panel in CHARTS for target in panel["targets"])
    yield from (note["expr"] for note in DASHBOARD["annotations"]["list"])


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_whatever_is_asked_for_exists(expression: str) -> None:
    """Every expression is PromQL, every name in it is a metric of the worker; so are labels and values."""
    for selector in selectors(expression):
        if selector.name in FOREIGN:
            continue
        assert selector.name in SAMPLES, selector.name
        for matcher in selector.matchers.matchers:
            if matcher.name in TARGET_LABELS or matcher.name == "__name__":
                continue
            values = [labels[matcher.name] for labels in SAMPLES[selector.name]]
            for wanted in matcher.value.split("|"):
                assert wanted in values, f"{selector.name}: {matcher.name}={wanted}"


def test_alerts_say_what_is_wrong_and_what_to_do() -> None:
    """A dozen and more, each with a severity, a time to wait, a summary naming the worker, a description."""
    names = [alert["alert"] for alert in ALERTS]
    assert len(names) == len(set(names)) >= 12
    for alert in ALERTS:
        assert set(alert) == {"alert", "expr", "for", "labels", "annotations"}, alert["alert"]
        assert alert["alert"].startswith("PlexusDetect")
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert re.fullmatch(r"\d+m", alert["for"])
        assert "{{ $labels.instance }}" in alert["annotations"]["summary"]
        assert alert["annotations"]["description"].endswith(".")


def test_the_dashboard_can_be_imported() -> None:
    """Ids are unique, every panel asks the chosen data source, variables are set before they are used."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    assert len(CHARTS) >= 10
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for part in [*CHARTS, *(t for p in CHARTS for t in p["targets"]), variables["instance"]]:
        assert part["datasource"] == chosen
    for panel in CHARTS:
        assert [t["refId"] for t in panel["targets"]] == list("ABCDEF"[: len(panel["targets"])])
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(panels))) - {"__all"}
    assert used == set(variables)
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["uid"]


def test_no_panel_lies_on_another() -> None:
    """Panels stay within the 24 columns of the grid and do not overlap."""

    def box(panel: dict[str, Any]) -> tuple[int, int, int, int]:
        grid = panel["gridPos"]
        return grid["x"], grid["y"], grid["x"] + grid["w"], grid["y"] + grid["h"]

    boxes = [box(panel) for panel in DASHBOARD["panels"]]
    assert all(x0 >= 0 and x1 <= 24 and y0 >= 0 and y1 > y0 and x1 > x0 for x0, y0, x1, y1 in boxes)
    for one, other in itertools.combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)


def test_the_scrape_job_has_the_name_that_the_rules_expect() -> None:
    """prometheus.yml loads the rules beside it."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    assert config["rule_files"] == [RULES.name]
    assert [job["job_name"] for job in config["scrape_configs"]] == ["plexus-detect"]


@promtool
@pytest.mark.parametrize(
    "words", [("check", "rules", RULES.name), ("check", "config", "prometheus.yml"), ("check", "metrics")]
)
def test_promtool_finds_nothing(words: tuple[str, ...]) -> None:
    """Rules, scrape configuration and the worker's own metrics pass Prometheus's linter."""
    given = generate_latest(full_meters().registry).decode()
    done = subprocess.run(
        ["promtool", *words], input=given, capture_output=True, text=True, cwd=FOLDER, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr


# An alert, a metric of the worker w with its values by the minute, when it is still quiet, when it fires.
COURSES = [
    ("Down", 'up{job="plexus-detect",instance="w"}', "0x20", "1m", "4m"),
    ("NotReady", 'plexus_detect_ready{instance="w"}', "1x3 0x40", "9m", "16m"),
    ("ScoresDropped", 'plexus_detect_outbox_dropped_total{instance="w"}', "0x5 9x20", "4m", "9m"),
    (
        "PlatformIll",
        'plexus_detect_platform_verdict{instance="w",verdict="platform_ill"}',
        "1x20",
        "3m",
        "8m",
    ),
    ("Restarting", 'plexus_detect_start_time_seconds{instance="w"}', "0+9x20", "2m", "12m"),
    (
        "MonitorsNotApplied",
        'plexus_detect_monitors_last_run_timestamp_seconds{instance="w"}',
        "-86100x20",
        "9m",
        "14m",
    ),
    ("MonitorsFailed", 'plexus_detect_monitors{instance="w",state="failed"}', "0x2 3x60", "29m", "40m"),
    ("KeyTrouble", 'plexus_detect_http_requests_total{instance="w",code="403"}', "0x9 0+5x20", "9m", "14m"),
]


@promtool
def test_alerts_fire(tmp_path: Path) -> None:
    """On made-up series alerts fire when they should, and not before."""
    tests = []
    for name, series, values, quiet, loud in COURSES:
        firing = f'count(ALERTS{{alertname="PlexusDetect{name}",alertstate="firing"}})'
        once = [{"labels": "{}", "value": 1}]
        asked = [(quiet, []), (loud, once)]
        tests.append(
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values}],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": at, "exp_samples": found} for at, found in asked
                ],
            }
        )
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    words = ["promtool", "test", "rules", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
