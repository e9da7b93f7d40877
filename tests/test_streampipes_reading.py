"""Events as rows and verdicts as events: what is taken, what is refused and why, what is published."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.streampipes.desk import Desk
from plexus_detect.streampipes.function import parsed
from plexus_detect.streampipes.judging import Judging
from plexus_detect.streampipes.reading import AHEAD_MS_MAX, Form, Verdict, answer, event_ms, read

NOW = 1_800_000_000_000
METRICS = ("vibration", "current")
FORM = Form("presses", "sensorId", "ts", (("vibration", "vib"), ("current", "current")))
ALONE = Form("oven", "", "timestamp", (("vibration", "vibration"), ("current", "current")))

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.integers(NOW - 1000, NOW + 10 * AHEAD_MS_MAX),
)
EVENTS = st.one_of(
    VALUES,
    st.dictionaries(st.sampled_from(["ts", "timestamp", "sensorId", "vib", "vibration", "current"]), VALUES),
)


@pytest.mark.parametrize(
    ("value", "ms"),
    [
        (NOW, NOW),
        (NOW / 1000, NOW),
        (1_800_000_000, NOW),
        (str(NOW), NOW),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T08:00:00", NOW),
        ("2027-01-15T09:00:00.25+01:00", NOW + 250),
        ("soon", None),
        (True, None),
        (None, None),
        (-5, None),
        (math.nan, None),
        (10**30, None),
        ([NOW], None),
    ],
)
def test_times(value: object, ms: int | None) -> None:
    """Seconds, milliseconds and ISO times are read; whatever is no time is none."""
    assert event_ms(value) == ms


def test_properties_are_mapped_to_device_time_and_metrics() -> None:
    """Each stream has its own form; what is no number is missing, and columns nobody asked for are left."""
    found = read(
        [
            (FORM, {"ts": NOW, "sensorId": "press-1", "vib": 1.5, "current": 3, "colour": "red"}),
            (ALONE, {"timestamp": NOW, "vibration": "72", "current": math.nan}),
            (FORM, {"ts": NOW, "sensorId": 7, "current": 10**400}),
        ],
        METRICS,
        NOW,
    )
    assert found.devices == ["press-1", "oven", "7"]
    np.testing.assert_array_equal(found.x, [[1.5, 3.0], [math.nan, math.nan], [math.nan, math.nan]])
    assert not found.refused


def test_what_cannot_be_read_is_counted_by_its_reason() -> None:
    """No object, no time, a time far ahead, no device: the events around them are read."""
    good = {"ts": NOW + AHEAD_MS_MAX, "sensorId": "a", "vib": 1.0}
    bad = [None, [1], {**good, "ts": "x"}, {**good, "ts": NOW + AHEAD_MS_MAX + 1}, {**good, "sensorId": ""}]
    found = read([(FORM, event) for event in [good, *bad, good]], METRICS, NOW)
    assert found.at == [0, 6]
    assert found.refused == Counter(
        {
            "the event is no JSON object": 2,
            "'ts' is no time": 1,
            "the time is ahead of now": 1,
            "'sensorId' names no device": 1,
        }
    )


@examples(1000)
@given(st.lists(st.tuples(st.sampled_from([FORM, ALONE]), EVENTS), max_size=8))
def test_any_event_is_either_read_or_counted(events: list[tuple[Form, object]]) -> None:
    """Nothing is raised; rows and refused add up, and every number of a row is finite or missing."""
    found = read(events, METRICS, NOW)
    assert len(found.at) + found.refused.total() == len(events)
    assert found.x.shape == (len(found.at), len(METRICS))
    assert not np.isinf(found.x).any()
    assert (found.t_ms >= 0).all()


@examples(1000)
@given(st.binary(max_size=40))
def test_any_message_is_parsed_or_is_nothing(payload: bytes) -> None:
    """No bytes raise."""
    parsed(payload)


def test_nan_of_other_languages_is_taken() -> None:
    """The literal that Python's JSON writes for a missing number costs the event nothing."""
    event = parsed(b'{"ts": 1, "vib": NaN, "current": 2}')
    assert isinstance(event, dict)
    assert event["current"] == 2
    assert parsed(b"[" * 100_000) is None


def verdict(score: float) -> Verdict:
    """What is said of an event with this score, before any episode."""
    return Verdict(score, is_anomaly=score > 1.0, in_episode=False, reason="why")


def test_the_answer_of_an_event() -> None:
    """Device and time stand under the names of the input's device and of StreamPipes' time; three times the
    line is a warning, more is critical; without a score there is no property of that name."""
    out = answer(FORM, "a", NOW, verdict(3.0))
    assert out == {
        "timestamp": NOW,
        "sensorId": "a",
        "is_anomaly": True,
        "score": 3.0,
        "severity": "warning",
        "reason": "why",
        "in_episode": False,
    }
    assert answer(FORM, "a", NOW, verdict(3.1))["severity"] == "critical"
    unknown = answer(ALONE, "oven", NOW, verdict(math.nan))
    assert (unknown["device"], unknown["severity"]) == ("oven", "none")
    assert "score" not in unknown


def test_results_wait_and_the_oldest_give_way() -> None:
    """What no broker takes is kept up to a number, and what is lost is counted."""
    desk = Desk(Judging((), None), METRICS, results_max=3)
    for i in range(5):
        desk.add("a", {"i": i})
    assert [result.payload for result in desk.results] == [b'{"i":2}', b'{"i":3}', b'{"i":4}']
    desk.acknowledged(2)
    counts = desk.counts()
    assert (counts["published"], counts["waiting"], counts["dropped"]) == (2, 1, 2)
