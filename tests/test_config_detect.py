"""What the settings of detection mean: windows, words, budget, limits, cohorts; and their mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_config import load
from test_config_errors import DURATION, sentence

from plexus_detect.config import Config, Span, per_day
from plexus_detect.detectors import REGISTRY
from plexus_detect.limits import Limits
from plexus_detect.policy import policy_of, poll_params
from plexus_detect.series import SUFFIX, Kind


def test_a_window_is_points_or_a_duration(tmp_path: Path) -> None:
    """A plain number counts points, also as text of a variable; a unit makes it a duration."""
    rules = "{detect: {window: 10m}}, {detect: {window: 45}}, {}"
    config = load(tmp_path, f'detect: {{window: "${{W}}"}}\nseries: [{rules}]', env={"W": "600"})
    assert [config.detect_for(i).window for i in range(3)] == [Span(600_000), 45, 600]
    rule = policy_of(config).rules
    assert (rule[0].params.window_ms, rule[1].params.window_ms) == (600_000, None)
    assert (rule[1].params.window, rule[2].params.window) == (45, 600)


def test_the_history_holds_a_window_of_any_length(tmp_path: Path) -> None:
    """A tenth more points than the largest window are asked for; a duration may be of 1,000, or of
    ``min_points``."""
    for detect, points in {
        "window: 45": 50,
        "window: 10m": 1101,
        "window: 10m, min_points: 2000": 2201,
    }.items():
        config = load(tmp_path, f"detect: {{{detect}}}")
        assert poll_params(config).history_points == points
        assert policy_of(config).rules[0].params.min_points <= policy_of(config).rules[0].params.window


def test_words_of_detection_become_numbers(tmp_path: Path) -> None:
    """Sensitivity moves the line, a budget is a rate a day, and a spike opens at once only when told to."""
    rules = "{}, {detect: {sensitivity: LOW, at_once: auto, timezone: Europe/Berlin}}"
    config = load(
        tmp_path,
        "detect: {sensitivity: high, alert_budget: 2 / Week, at_once: 4, detector: zscore}\n"
        f"series: [{rules}]",
    )
    policy = policy_of(config)
    assert [rule.sensitivity for rule in policy.rules] == [0.7, 1.5]
    assert [rule.episode.at_once for rule in policy.rules] == [4.0, 0.0]
    assert [rule.params.timezone for rule in policy.rules] == ["UTC", "Europe/Berlin"]
    assert policy.alerts_per_day == pytest.approx(2 / 7)
    assert policy_of(load(tmp_path, "fleet: {sensitivity: low}")).rules[0].fleet_sensitivity == 1.5
    assert (per_day("3/day"), per_day("6/month")) == (3.0, 0.2)


def test_limits_are_of_the_first_pattern_that_matches(tmp_path: Path) -> None:
    """A metric has the limits of one pattern, those of a later file after those of an earlier one."""
    config = load(
        tmp_path,
        "metrics: {'temp*': {direction: up, range: [-40, 85]}, humidity: {range: [0, null]}}",
        "metrics: {'*': {min_rel: 0.1}, 'temp*': {min_abs: 0.5}}",
    )
    policy = policy_of(config)
    assert policy.limits_of("temperature") == Limits(1, 0.5, 0.0, -40.0, 85.0)
    assert policy.limits_of("humidity") == Limits(low=0.0)
    assert policy.limits_of("Temp") == Limits(min_rel=0.1)
    assert policy_of(load(tmp_path, "")).limits_of("temperature") == Limits()


def test_a_source_is_of_the_first_cohort_that_matches(tmp_path: Path) -> None:
    """Cohorts are patterns of slugs; the rest is a group of its own, or none."""
    cohorts = "cohorts: [{name: cold, sources: ['cold-*']}, {name: old, sources: ['*-old', x]}]"
    policy = policy_of(load(tmp_path, f"fleet: {{{cohorts}}}"))
    assert [policy.cohort_of(s) for s in ("cold-1-old", "b-old", "x", "y")] == [0, 1, 1, 2]
    policy = policy_of(load(tmp_path, f"fleet: {{rest: false, {cohorts}}}"))
    assert [policy.cohort_of(s) for s in ("cold-1", "y")] == [0, None]


def test_everything_that_is_posted_has_a_name_in_the_config() -> None:
    """Every kind of derived point can be switched on by its suffix."""
    names = [suffix.removeprefix(".") for suffix in SUFFIX.values()]
    assert policy_of(Config.model_validate({"post": {"series": names}})).kinds == frozenset(Kind)


MISTAKES = {
    "detect:\n  detector: zscor": (
        f"f.yaml:2: detect.detector: 'zscor' is not one of {', '.join(REGISTRY)}; did you mean 'zscore'?"
    ),
    "detect: {sensitivity: hihg}": (
        "f.yaml:1: detect.sensitivity: 'hihg' is not one of low, medium, high; did you mean 'high'?"
    ),
    "detect:\n  alert_budget: 2": (
        "f.yaml:2: detect.alert_budget: 2 is not a rate; write one like 2/week, 1/day or 5/month"
    ),
    "detect: {alert_budget: 0/week}": (
        "f.yaml:1: detect.alert_budget: '0/week' is not a rate; write one like 2/week, 1/day or 5/month"
    ),
    "series:\n- detect: {alert_budget: 1/day}": (
        "f.yaml:2: series[0].detect.alert_budget: unknown key; did you mean 'detect.alert_budget'?"
    ),
    "detect: {at_once: 0.5}": (
        "f.yaml:1: detect.at_once: 0.5 is neither 0, nor a number from 1, nor auto; write one such as 2"
    ),
    "detect: {window: 7}": ("f.yaml:1: detect.window: 7 is out of range; choose from 8 to 100000 points"),
    "detect: {window: 5x}": f"f.yaml:1: detect.window: '5x' is not a duration; {DURATION}",
    "detect: {window: 200d}": (
        "f.yaml:1: detect.window: '200d' is out of range; choose a duration from 1s to 90d"
    ),
    "detect:\n  detector: gap\n  window: 10m": (
        "f.yaml:3: detect.window: the detector gap counts its window in points; "
        "make window a number such as 300"
    ),
    "detect:\n  window: 10m\nseries:\n- detect:\n    detector: gap": (
        "f.yaml:5: series[0].detect.detector: the detector gap counts its window in points; "
        "make window a number such as 300"
    ),
    "detect: {window: 5.5}": (
        "f.yaml:1: detect.window: 5.5 is neither a number of points nor a duration; write one like 300 or 2h"
    ),
    "detect:\n  timezone: Europe/Berln": (
        "f.yaml:2: detect.timezone: 'Europe/Berln' is not a time zone; did you mean 'Europe/Berlin'?"
    ),
    "detect: {timezone: ../x}": (
        "f.yaml:1: detect.timezone: '../x' is not a time zone; write one like Europe/Berlin"
    ),
    "metrics:\n  temperature:\n    rnge: [0, 1]": (
        "f.yaml:3: metrics.temperature.rnge: unknown key; did you mean 'range'?"
    ),
    "detect: {range: [0, 1]}": (
        "f.yaml:1: detect.range: unknown key; did you mean 'metrics.<pattern>.range'?"
    ),
    "metrics:\n  t:\n    range: [1, 0]": (
        "f.yaml:3: metrics.t.range: no value lies between 1 and 0; write the lower bound first"
    ),
    "metrics: {t: {range: [1]}}": "f.yaml:1: metrics.t.range[1]: is missing; add it",
    "metrics: {t: {direction: upp}}": (
        "f.yaml:1: metrics.t.direction: 'upp' is not one of both, up, down; did you mean 'up'?"
    ),
    "metrics: {t: {min_abs: -1}}": "f.yaml:1: metrics.t.min_abs: -1 is too small; the least is 0.0",
    "metrics:\n  'a[': {}": (
        "f.yaml:2: metrics.'a[': bad glob: '[' is never closed in 'a['; "
        "add a ']', or write [[] to match a '['"
    ),
    "metrics: [t]": "f.yaml:1: metrics: a list is not a section; write its keys below it",
    "fleet:\n  cohorts:\n  - {name: a, sources: [x]}\n  - {name: a, sources: [y]}": (
        "f.yaml:4: fleet.cohorts[1].name: 'a' is the name of two cohorts; rename one"
    ),
    "fleet: {cohorts: [{name: a}]}": "f.yaml:1: fleet.cohorts[0].sources: is missing; add it",
}


@pytest.mark.parametrize("content", MISTAKES, ids=lambda content: content[:40].replace("\n", " "))
def test_one_sentence_says_where_what_and_what_to_do(content: str, tmp_path: Path) -> None:
    """Every mistake in the settings of detection is told with file, line, key, what is wrong, what to do."""
    assert sentence(tmp_path, content) == MISTAKES[content]
