"""The short form: variables, what may stand beside what, and the monitors that come of it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect import monitors
from plexus_detect.client import Client, Endpoints
from plexus_detect.config import load_config
from plexus_detect.errors import ConfigError
from plexus_detect.monitors import KnownSources, MonitorSpec, Wanted
from plexus_detect.monitors.documents import filled
from plexus_detect.monitors.model import Existing
from plexus_detect.provision.applying import apply_plan
from plexus_detect.provision.reading import make_plan
from plexus_detect.provision.shared import specs_of
from plexus_detect.sandbox import SLACK_TARGET, Sandbox

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
OPS = "e233e2c1-a252-48fd-acea-7f1ccedb2bce"
KNOWN = KnownSources(
    slug_of={"dev-1": "dev-1", "id-1": "dev-1", "dev-2": "dev-2", "pg-1": "pg-1"}, devices=("dev-1", "dev-2")
)
SENT = {"dev-1": ("t", "humidity", "t.zscore", "motor.anomaly"), "dev-2": ("t",), "pg-1": ("rows",)}
VALID = jsonschema.Draft202012Validator(monitors.monitor_schema()).is_valid
T = {"source": "dev-1", "metric": "t"}


def short(*documents: dict[str, Any]) -> tuple[MonitorSpec, ...]:
    return monitors.parse(
        json.dumps(documents),
        "m.json",
        variables={"line": 3, "site": "north", "none": None},
        targets={"ops": OPS},
    )


def wanted(document: dict[str, Any], existing: tuple[Existing, ...] = ()) -> list[Wanted]:
    return list(monitors.expand(short(document), KNOWN, SENT, existing).wanted)


def names(document: dict[str, Any], existing: tuple[Existing, ...] = ()) -> list[str]:
    return [" ".join(one.key[:2]) for one in wanted(document, existing)]


def raw(part: str, **fields: Any) -> Any:
    return part, filled(part, fields)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"for": T, "max": 3}, {"t.zscore": raw("threshold", max=3)}),
        ({"for": T, "watch": "value", "min": -1}, {"t": raw("threshold", min=-1)}),
        ({"for": T, "watch": "drift", "max": "${line}"}, {"t.drift": raw("threshold", max=3)}),
        (
            {"for": T, "max": 3, "severity": "critical", "message": "{metric} of {source} in ${site} {{x}}"},
            {"t.zscore": raw("threshold", max=3, severity="critical", message="t of dev-1 in north {x}")},
        ),
        ({"for": T, "watch": "fleet_event", "event": True}, {"t.fleet_event": raw("event")}),
        ({"for": T, "event": "per_row"}, {"t.zscore": raw("event", delivery="per_row")}),
        ({"for": {"source": "dev-1"}, "offline": "2.5m"}, {"": raw("offline", timeout_seconds=150)}),
        ({"for": {"source": "dev-1"}, "offline": 60}, {"": raw("offline", timeout_seconds=60)}),
        (
            {"for": T, "ladder": {"critical": 9, "warning": "${line}"}, "message": "{metric}"},
            {
                "t.zscore": raw("threshold", max=3, severity="warning", message="t"),
                "t.zscore_critical": raw("threshold", max=9, severity="critical", message="t"),
            },
        ),
    ],
)
def test_a_short_document_is_a_raw_part(document: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each short document wants the monitors with the settings that a raw body would have."""
    assert {one.key[1]: (one.key[2], one.settings) for one in wanted(document)} == expected


def test_targets_by_name_and_id() -> None:
    """A target is an id or a name of the configuration; null and absent stay what they are in a raw body."""
    given = [["ops"], [OPS.upper(), "ops"], None, "${none}"]
    assert [short({"for": T, "max": 3, "targets": one})[0].targets for one in given] == [
        (OPS,),
        (OPS,),
        None,
        None,
    ]
    assert short({"for": T, "max": 3})[0].targets == monitors.LEAVE


SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt": ({"wach": "drift"}, "wach: unknown key; did you mean 'watch'?"),
    "within for": ({"for": T | {"metrik": "t"}}, "for.metrik: unknown key; did you mean 'metric'?"),
    "of the raw form": ({"source_id": "a"}, "source_id: unknown key; known are $schema, for, watch,"),
    "no source": ({"for": {"metric": "t"}}, "for: source is missing"),
    "no metric": ({"for": {"source": "a"}}, "for: metric is missing"),
    "no bound": ({"max": None}, "says nothing to alert on; give max, min, ladder, event or offline"),
    "a bound of a text": ({"max": "3"}, 'max: must be a finite number or null, not "3"'),
    "a watch": ({"watch": "zscor"}, "not \"zscor\"; did you mean 'zscore'?"),
    "a severity": ({"severity": "warn"}, "not \"warn\"; did you mean 'warning'?"),
    "a score's score": ({"for": T | {"metric": "t.zscore"}}, "for.metric: 't.zscore' is a score already"),
    "an open bracket": ({"for": T | {"source": ["a", "b["]}}, "for.source[1]: must be a source's slug"),
    "no sources": ({"for": T | {"source": []}}, "for.source: must be a source's slug, its id or a glob"),
    "event and bound": ({"event": True}, "max: cannot stand beside event"),
    "event false": ({"max": None, "event": False}, "event: must be one of true, digest, per_row, not false"),
    "offline and metric": ({"offline": "5m"}, "cannot stand beside offline"),
    "offline and message": (
        {"for": {"source": "a"}, "offline": 5, "message": "x"},
        "message: cannot stand beside offline: the platform throws away",
    ),
    "no duration": ({"for": {"source": "a"}, "offline": "5 x"}, "offline: must be a duration such as 90s"),
    "half a second": (
        {"for": {"source": "a"}, "offline": "0.5s"},
        "offline: must be a whole number of seconds",
    ),
    "ladder and max": (
        {"max": 3, "ladder": {"warning": 3, "critical": 9}},
        "max: cannot stand beside ladder",
    ),
    "ladder and severity": (
        {"ladder": {"warning": 3, "critical": 9}, "severity": "info"},
        "severity: cannot stand beside ladder",
    ),
    "ladder and drift": (
        {"ladder": {"warning": 3, "critical": 9}, "watch": "drift"},
        'watch: must be zscore beside ladder, the one score that has a second name, not "drift"',
    ),
    "one rung": ({"ladder": {"warning": 3}}, "ladder: must give two severities their bounds"),
    "rungs upside down": (
        {"ladder": {"warning": 9, "critical": 3}},
        "ladder.critical: must lie above that of warning, which is 9, not 3",
    ),
    "a rung": ({"ladder": {"warning": 3, "crit": 9}}, "ladder.crit: unknown key; did you mean 'critical'?"),
    "a variable": ({"max": "${lien}"}, "--var lien=...; did you mean 'line'?"),
    "null in a text": ({"message": "a ${none}"}, "message: none is null and cannot be a part of a text"),
    "a placeholder": (
        {"message": "{sorce}"},
        "'{sorce}' is neither {source} nor {metric}; did you mean 'source'?",
    ),
    "a brace": ({"message": "a } b"}, "'}' is neither {source} nor {metric}; write {{ and }}"),
    "a target": ({"targets": ["opps"]}, "targets[0]: \"opps\" is no known target; did you mean 'ops'?"),
}


@pytest.mark.parametrize(("more", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_what_may_not_stand(more: dict[str, Any], sentence: str) -> None:
    """Whatever is wrong is one sentence with file, line and key, and a near match for a misspelt word."""
    with pytest.raises(ConfigError) as caught:
        short({"for": T} | ({} if more.keys() & {"offline", "ladder"} else {"max": 3}) | more)
    assert str(caught.value).startswith("m.json:1: [0]")
    assert sentence in str(caught.value)


def test_a_dollar_and_a_brace_of_its_own() -> None:
    """$${ stands for the characters themselves, and a variable within a text is written as JSON writes it."""
    (one,) = wanted({"for": T, "max": 3, "message": "$${{line}} is ${line}"})
    assert one.settings["message"] == "${line} is 3"


# ---- reach -----------------------------------------------------------------------------------------------


def carried(slug: str, metric: str, part: str = "threshold") -> tuple[Existing, ...]:
    return (Existing((slug, metric, part), filled(part, {}), None, "x"),)


def test_a_glob_of_metrics_reaches_what_was_sent_lately() -> None:
    """Names that a device sent, not our own scores of them, and of any source that is named in full."""
    every = {"source": "*", "metric": "*"}
    assert names({"for": every, "max": 3}) == ["dev-1 humidity.zscore", "dev-1 t.zscore", "dev-2 t.zscore"]
    assert names({"for": every, "watch": "value", "max": 3}) == ["dev-1 humidity", "dev-1 t", "dev-2 t"]
    assert names({"for": {"source": ["id-1", "pg-1"], "metric": ["hum*", "r*"]}, "max": 3}) == [
        "dev-1 humidity.zscore",
        "pg-1 rows.zscore",
    ]
    assert names({"for": every, "watch": "anomaly", "max": 3}) == ["dev-1 motor.anomaly"]


def test_a_silent_device_keeps_its_monitors() -> None:
    """What a device carries of the same kind counts as if it had been sent; another kind does not."""
    document = {"for": {"source": "*", "metric": "*"}, "max": 3}
    assert "dev-2 old.zscore" in names(document, carried("dev-2", "old.zscore"))
    for other in (
        carried("dev-2", "old.zscore", "event"),
        carried("dev-2", "old"),
        carried("x", "old.zscore"),
    ):
        assert "dev-2 old.zscore" not in names(document, other)
    assert "dev-2 old" not in names(document | {"watch": "value"}, carried("dev-2", "old.zscore"))


def test_what_is_excluded_is_left_out() -> None:
    """Sources by slug, id or glob and metrics by glob, also where they are named in full."""
    every = {"source": "*", "metric": ["*", "t"]}
    assert names({"for": every | {"exclude_metric": ["t*"]}, "max": 3}) == ["dev-1 humidity.zscore"]
    for source in ("dev-1", "id-1", ["x", "*-1"]):
        assert names({"for": every | {"exclude_source": source}, "max": 3}) == ["dev-2 t.zscore"]
    assert names({"for": {"source": ["dev-1", "dev-2"], "exclude_source": "dev-1"}, "offline": 9}) == [
        "dev-2 "
    ]


def test_names_are_asked_for_where_a_glob_needs_them() -> None:
    """A glob of metrics needs them, also on one source; one metric of one source does not."""
    needs = [{"source": "dev-1", "metric": "*"}, {"source": "*", "metric": "t"}]
    assert all(monitors.needs_metric_names(*short({"for": one, "max": 3})) for one in needs)
    assert not monitors.needs_metric_names(*short({"for": T, "max": 3}))


def test_a_glob_that_reaches_nothing_is_a_note() -> None:
    """Nothing there yet is no mistake; an unknown name is a problem, told once for all of its metrics."""
    idle = {"for": {"source": "dev-*", "metric": "zz*"}, "max": 3}
    expansion = monitors.expand(
        short(idle, {"for": {"source": "x", "metric": ["a", "b"]}, "max": 3}), KNOWN, SENT
    )
    assert expansion.notes == ("m.json#/0: no source like 'dev-*' has a metric like 'zz*' for now",)
    assert [problem.kind for problem in expansion.problems] == ["unknown source"]


def test_two_documents_on_one_pair_are_named_with_file_and_line() -> None:
    """Also a rung of a ladder and a glob; within one document the same pair counts once."""
    text = """
- for: {source: dev-1, metric: t}
  ladder: {warning: 3, critical: 9}
- for: {source: "dev-*", metric: "*"}
  watch: zscore_critical
  max: 5
"""
    sentence = r"m\.yaml:4: metric 't\.zscore_critical' of source 'dev-1' is already claimed by m\.yaml:2"
    with pytest.raises(ConfigError, match=sentence):
        monitors.expand(monitors.parse(text, "m.yaml"), KNOWN, SENT)
    twice = {"for": {"source": ["dev-1", "dev-*", "id-1"], "metric": ["t", "*"]}, "max": 3}
    assert sorted(names(twice)) == ["dev-1 humidity.zscore", "dev-1 t.zscore", "dev-2 t.zscore"]


def test_the_example_of_cold_rooms() -> None:
    """The example gives each room but one its two rungs, its other metrics and an offline monitor."""
    config = load_config([ROOT / "examples/fleet_of_fifty.yaml"], {})
    specs = specs_of(config, ROOT / "examples/monitors/cold-rooms.yaml")
    rooms = KnownSources({}, ("cold-01", "cold-07-spare"))
    sent = {"cold-01": ("temperature", "humidity"), "cold-07-spare": ("temperature",)}
    found = monitors.expand(specs, rooms, sent).wanted
    assert {one.key[1]: one.settings["severity"] for one in found} == {
        "temperature.zscore": "warning",
        "temperature.zscore_critical": "critical",
        "humidity.zscore": "warning",
        "": "critical",
    }
    assert {one.key[0] for one in found} == {"cold-01"}
    assert found[0].settings["message"] == "temperature of cold-01 departs from its own past"


def test_the_example_of_the_readme() -> None:
    """What the README shows is taken by the loader and by the schema."""
    shown = re.search(r"```yaml\n(# yaml-language-server: \$schema=monitor\..*?)```", README, re.DOTALL)
    assert shown
    specs = monitors.parse(shown[1], "m.yaml", variables={"line": 3}, targets={"ops": OPS})
    assert [(spec.source, spec.metric) for spec in specs] == [
        ("cold-*", "temperature.zscore"),
        ("cold-*", "temperature.zscore_critical"),
        ("cold-*", "*.zscore"),
        ("dryer-7", "*.zscore"),
        ("cold-*", ""),
    ]
    assert VALID(yaml.safe_load(shown[1]))


# ---- laws ------------------------------------------------------------------------------------------------

_text = st.sampled_from(
    ["dev-1", "dev-*", "t", "*", "t.zscore", "${line}", "{source}", "warning", "ops", "5m", "["]
)
_any = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(-1, 400), _text, st.lists(_text, max_size=2)
)
_reach = st.dictionaries(st.sampled_from(["source", "metric", "exclude_source", "exclude_metric", "x"]), _any)
_keys = [
    "watch",
    "max",
    "min",
    "severity",
    "message",
    "targets",
    "event",
    "offline",
    "source_id",
    "threshold",
]
_short = st.builds(
    lambda reach, more, ladder: {"for": reach, **more, **ladder},
    st.one_of(st.just(T), _reach, _any),
    st.dictionaries(st.sampled_from(_keys), _any, max_size=3),
    st.one_of(
        st.just({}),
        st.dictionaries(st.just("ladder"), st.dictionaries(st.sampled_from(["warning", "info"]), _any)),
    ),
)


@examples(3000)
@given(document=_short)
def test_what_is_accepted_expands(document: dict[str, Any]) -> None:
    """Any document is refused in one sentence or expands to whole monitors of known sources; what is taken
    the schema shows an editor as valid."""
    try:
        found = wanted(document)
    except ConfigError:
        return
    assert VALID(document)
    for one in found:
        assert one.key[0] in KNOWN.slug_of
        assert one.settings == filled(one.key[2], one.settings)


# ---- against the sandbox ---------------------------------------------------------------------------------

PAIRS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"source_id": "*", "metric": "t.zscore", "threshold": {"max": 3, "message": "m"}},
        {"for": {"source": "*", "metric": "t"}, "max": 3, "message": "m"},
    ),
    (
        {"source_id": "dev-1", "metric": "h", "event": {}, "notification_targets": [SLACK_TARGET]},
        {"for": {"source": "dev-1", "metric": "h"}, "watch": "value", "event": True, "targets": ["ops"]},
    ),
    (
        {"source_id": "dev-*", "offline": {"timeout_seconds": 600}},
        {"for": {"source": "dev-*"}, "offline": "10m"},
    ),
]


def test_raw_and_short_lead_to_the_same_monitors() -> None:
    """What one form applied the other finds as wanted, either way round."""
    for first, second in ((0, 1), (1, 0)):
        box = Sandbox()
        now_ms = int(time.time() * 1000)
        box.load((slug, metric, now_ms, 1.0) for slug in ("dev-1", "dev-2") for metric in ("t", "h"))
        assert asyncio.run(_applied_then_planned(box, first, second)) == (5, True, 5)
        box.close()


async def _applied_then_planned(box: Sandbox, first: int, second: int) -> tuple[int, bool, int]:
    """How many monitors one form made, whether the other has nothing to do, and how many it keeps."""
    forms = [
        monitors.parse(json.dumps([pair[i] for pair in PAIRS]), "m.json", targets={"ops": SLACK_TARGET})
        for i in (first, second)
    ]
    transport, url = httpx.ASGITransport(app=box.app), "http://sandbox"
    async with Client(Endpoints(url, url, url), box.key, transport=transport) as client:
        result = await apply_plan(client, await make_plan(client, forms[0]), lambda line: None)
        plan = await make_plan(client, forms[1])
    return result.applied, plan.empty, plan.keep
