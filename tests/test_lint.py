"""monitors lint: each rule finds what it is about and is silent otherwise, with and without a platform."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lint_room import World, event, offline, threshold
from profiles import examples

from plexus_detect.errors import ContractError
from plexus_detect.monitors.lintbounds import Observed, check_threshold
from plexus_detect.monitors.lintrules import RULES, Findings, severity_of
from plexus_detect.monitors.model import Wanted
from plexus_detect.provision.observing import decode_hours, observed

ROOT = Path(__file__).parents[1]
SLACK = "e233e2c1-a252-48fd-acea-7f1ccedb2bce"
EVERY = ("zscore", "fleet_zscore", "zscore_raw", "drift", "fleet_event", "anomaly", "zscore_late")
POSTS_ALL = {"post": {"series": EVERY}}
MOTOR = {"detectors": [{"name": "motor", "metrics": ["t", "humidity"], "sources": ["dev-*"]}]}
ROOM = Observed(20.0, 25.0, 600, 60_000)
SOME = {"dev-1": ("t",), "dev-2": ("t",)}
# Of each rule what it finds, and what is so near to it that finding it would be wrong.
Case = tuple[str, World, Sequence[dict[str, Any]]]
BAD: list[Case] = [
    ("claimed-twice", World(), [threshold(source="dev-1"), threshold()]),
    ("unknown-source", World(), [threshold(source="dve-1")]),
    ("unknown-metric", World(), [threshold("humidty.zscore", "dev-1")]),
    ("unknown-metric", World(), [threshold("humidty", "dev-1")]),
    ("unknown-metric", World(MOTOR, fleet=SOME), [threshold("motor.anomaly")]),
    ("not-posted", World(), [threshold("t.drift")]),
    ("not-posted", World(), [threshold("t.score")]),
    ("not-posted", World(), [threshold("motor.anomaly")]),
    ("not-posted", World(MOTOR, fleet={"x": ("t", "humidity")}), [threshold("motor.anomaly", "x")]),
    ("not-posted", World({"fleet": {"enabled": False}}), [threshold("t.fleet_zscore")]),
    ("not-posted", World({"fleet": {"rest": False}}), [threshold("t.fleet_zscore")]),
    ("not-posted", World({"series": [{"fleet": False}]}), [threshold("t.fleet_zscore")]),
    ("not-posted", World({"series": [{"metrics": ["humidity"]}]}), [threshold()]),
    ("not-posted", World({**POSTS_ALL, "detect": {"detector": "robust"}}), [threshold("t.drift")]),
    ("late-score", World(), [threshold("t.zscore_late")]),
    ("never-fires", World(), [threshold(severity="critical")]),
    ("never-fires", World(), [threshold(min=-3)]),
    ("never-fires", World(POSTS_ALL), [threshold("t.fleet_event", max=1)]),
    ("always-fires", World(), [threshold("t", min=3, max=1)]),
    ("always-fires", World(), [threshold(min=1)]),
    ("always-fires", World(), [threshold(max=-1)]),
    ("event-on-stream", World(), [event(metric="t.zscore")]),
    ("message-too-long", World(), [event("x" * 3001)]),
    ("reaches-nothing", World(), [threshold(source="esp-*")]),
    ("silent-metric", World(silent=("old",), ever={"old": ("t",)}), [threshold(source="old")]),
    ("silent-metric", World(silent=("new",)), [threshold("t", "new")]),
    ("posted-by-others", World(fleet={"dev-1": ("t", "t.drift")}), [threshold("t.drift")]),
    ("fleet-too-small", World(fleet=SOME), [threshold("t.fleet_zscore")]),
    (
        "fleet-too-small",
        World({"fleet": {"cohorts": [{"name": "a", "sources": ["dev-1"]}]}}),
        [threshold("t.fleet_zscore", "dev-1")],
    ),
    ("one-value", World(), [threshold("t", min=3, max=3)]),
    ("useless-bound", World(), [threshold(min=0, max=3)]),
    ("below-line", World(), [threshold(max=2)]),
    ("below-line", World(POSTS_ALL), [threshold("t.zscore_raw", min=-1, max=3)]),
    ("below-line", World(MOTOR), [threshold("motor.anomaly", max=0)]),
    ("one-sided", World(POSTS_ALL), [threshold("t.zscore_raw")]),
    ("mostly-outside", World(seen=ROOM), [threshold("t", max=19)]),
    ("mostly-outside", World(seen=Observed(0, 9, 600, outside=0.7)), [threshold()]),
    ("far-from-data", World(seen=ROOM), [threshold("t", max=8500)]),
    ("unknown-target", World(), [{**threshold(), "notification_targets": [SLACK]}]),
    ("offline-too-short", World(), [offline(29)]),
    ("offline-too-short", World(seen=ROOM), [offline(119)]),
    ("offline-too-short", World(), [{**offline(60), "source_id": "plexus-detect"}]),
    ("busy-event", World(seen=ROOM), [event(metric="t")]),
    ("long-message", World(), [event("x" * 301)]),
    ("no-message", World(), [event(" ")]),
    ("message-dropped", World(), [offline(300, message="gone")]),
]
GOOD: list[Case] = [
    ("claimed-twice", World(), [threshold(source="dev-1"), threshold("humidity.zscore")]),
    ("unknown-source", World(), [threshold(source="dev-1")]),
    ("unknown-metric", World(), [threshold("humidity.zscore", "dev-1"), threshold("t", "dev-1")]),
    ("unknown-metric", World(MOTOR), [threshold("motor.anomaly")]),
    ("unknown-metric", World(fleet={"dev-1": ("t.score",)}), [threshold("t.score", "dev-1")]),
    ("not-posted", World({**POSTS_ALL, **MOTOR}), [threshold("t.drift"), threshold("motor.anomaly")]),
    ("not-posted", World({"series": [{"metrics": ["t"]}]}), [threshold()]),
    ("late-score", World(), [threshold()]),
    ("never-fires", World(POSTS_ALL), [threshold(), threshold("t.fleet_event", max=0.5)]),
    ("always-fires", World(POSTS_ALL), [threshold("t", min=1, max=3), threshold("t.expected", min=1)]),
    ("event-on-stream", World(), [event(), event(metric="t.zscore", enabled=False)]),
    ("message-too-long", World(), [event("x" * 3000)]),
    ("reaches-nothing", World(), [threshold()]),
    ("silent-metric", World(), [threshold()]),
    ("posted-by-others", World(POSTS_ALL, fleet={"dev-1": ("t", "t.drift")}), [threshold("t.drift")]),
    ("fleet-too-small", World(), [threshold("t.fleet_zscore")]),
    ("one-value", World(), [threshold("t", min=2, max=3)]),
    ("useless-bound", World(POSTS_ALL), [threshold(), threshold("t.zscore_raw", min=-3, max=3)]),
    ("below-line", World({"detect": {"threshold": 2}}), [threshold(max=2)]),
    ("one-sided", World(POSTS_ALL), [threshold("t.zscore_raw", min=-3, max=3), threshold("t")]),
    ("mostly-outside", World(seen=ROOM), [threshold("t", max=24)]),
    ("far-from-data", World(seen=ROOM), [threshold("t", max=60), threshold("humidity", min=0, max=9e9)]),
    ("unknown-target", World(targets=(SLACK,)), [{**threshold(), "notification_targets": [SLACK]}]),
    ("offline-too-short", World(seen=ROOM), [offline(120)]),
    ("busy-event", World(seen=Observed(0, 1, 600, 3_600_000)), [event()]),
    ("long-message", World(), [event("x" * 300)]),
    ("no-message", World(), [event("x")]),
    ("message-dropped", World(), [offline(300)]),
]


@pytest.mark.parametrize(("rule", "world", "documents"), BAD)
def test_rule_finds(rule: str, world: World, documents: list[dict[str, Any]]) -> None:
    """Each rule finds its mistake, once, in words that end with what to do."""
    (found,) = [one for one in world.findings(documents) if one.rule == rule]
    assert found.what
    assert found.sentence.endswith(f"; {found.to_do}")
    assert found.severity == severity_of(rule)


@pytest.mark.parametrize(("rule", "world", "documents"), GOOD)
def test_rule_is_silent(rule: str, world: World, documents: list[dict[str, Any]]) -> None:
    """Each rule says nothing of what is right, however near to its mistake."""
    assert rule not in [one.rule for one in world.findings(documents)]


def test_every_rule_is_tried_and_documented() -> None:
    """No rule is without a case of either kind, nor without its row in the README."""
    tried = set(RULES) - {"unreadable"}
    assert {rule for rule, _world, _documents in BAD} == tried
    assert {rule for rule, _world, _documents in GOOD} == tried
    readme = (ROOT / "README.md").read_text("utf-8")
    for rule, about in RULES.items():
        assert f"| `{rule}` | {severity_of(rule)} | {about} |" in readme


def test_one_finding_for_many_devices() -> None:
    """What is wrong with a document on fifty devices is one finding that names three and the number."""
    fleet = {f"dev-{i:02d}": ("humidity",) for i in range(50)}
    world = World({"series": [{"metrics": ["t"]}]}, fleet=fleet)
    (found,) = world.findings([threshold("humidity.zscore")])
    assert len(found.where) == 50
    assert "(dev-00, dev-01, dev-02 and 47 more)" in found.sentence


def test_all_clashes_are_told() -> None:
    """Each of several pairs that two documents claim is found, not only the first, and so is the rest."""
    documents = [
        threshold(),
        threshold("t"),
        threshold(source="dev-1"),
        event(metric="t"),
        threshold("t.drift"),
    ]
    found = [(one.place[0], one.rule) for one in World().findings(documents)]
    assert found.count(("2.json", "claimed-twice")) == 1
    assert found.count(("3.json", "claimed-twice")) == 1
    assert ("4.json", "not-posted") in found


def test_near_matches_are_offered() -> None:
    """A metric or source with a typing error comes with the one that was meant, which is no score of ours."""
    world = World(fleet={"dev-1": ("humidity", "humidity.zscore")})
    said = [
        one.sentence
        for one in world.findings([threshold("humidty.zscore", "dev-1"), threshold("t", "dev-9")])
    ]
    assert any("did you mean 'humidity'?" in sentence for sentence in said)
    assert any("did you mean 'dev-1'?" in sentence for sentence in said)
    (idle,) = world.findings([threshold("humidty.zscore")])
    assert idle.rule == "reaches-nothing"
    assert idle.sentence.startswith("no device like 'dev-*' sent humidty in the last hour; ")
    assert idle.sentence.endswith("did you mean 'humidity'?")


BOUND = st.none() | st.floats(-10, 10) | st.sampled_from([0.0, 1.0, 3.0])
METRICS = ("t", "t.zscore", "t.drift", "t.fleet_event")


@given(low=BOUND, high=BOUND, metric=st.sampled_from(METRICS), values=st.lists(st.floats(0, 50)))
@examples(1000)
def test_what_never_fires_does_not(
    low: float | None, high: float | None, metric: str, values: list[float]
) -> None:
    """A threshold that never fires, as lint says, is passed by no value that there can be; one that always
    does is passed by that of normal times."""
    found = Findings()
    settings = {"min": low, "max": high}
    check_threshold(found, Wanted("m.json", ("dev-1", metric, "threshold"), settings, "leave"), 3.0)
    said = {one.rule for one in found.all(["m.json"])}
    possible = [float(value > 0) for value in values] if metric.endswith("event") else values

    def passes(value: float) -> bool:
        return (high is not None and value > high) or (low is not None and value < low)

    if "never-fires" in said:
        assert not any(map(passes, possible))
    if "always-fires" in said:
        assert passes(0.0) or (low is not None and high is not None and all(map(passes, possible)))


def test_hours_tell_range_and_interval() -> None:
    """A week in hours gives the range, the number and about how far apart points are: from whole hours where
    there are many a hour, else from hour to hour; an answer that was cut gives nothing."""
    hours = {"timestamp_ms": [0, 3_600_000, 7_200_000], "min": [1, None, 2], "max": [3, None, 2.5]}
    answer = {"series": {"t": {**hours, "avg": [2, None, 2], "count": [7, 60, 20]}}, "truncated": False}
    seen = observed(decode_hours(json.dumps(answer).encode())["t"])
    assert (seen.low, seen.high, seen.count, seen.interval_ms) == (1.0, 3.0, 87, 60_000)
    assert decode_hours(json.dumps({**answer, "truncated": True}).encode()) == {}
    rare = {
        "timestamp_ms": [0, 7_200_000, 14_400_000],
        "min": [1, 1, 1],
        "max": [1, 1, 1],
        "count": [1, 1, 1],
    }
    assert observed(decode_hours(json.dumps({"series": {"t": rare}}).encode())["t"]).interval_ms == 7_200_000
    with pytest.raises(ContractError, match="metrics query answer"):
        decode_hours(b"[]")
