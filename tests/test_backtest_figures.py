"""backtest figures: recall, precision, delay, rates and gates against cases worked out by hand."""

from __future__ import annotations

import pytest
from backtest_week import DAY, HOUR, MINUTE, T0, episode, replayed

from plexus_detect.backtest.figures import Gates, failed_gates, figures_of, gates_of
from plexus_detect.backtest.labels import Label, read_labels
from plexus_detect.backtest.moments import Span, duration_text, moment_ms, stamp, time_ms
from plexus_detect.errors import ConfigError

TEN_DAYS = Span(T0, T0 + 10 * DAY)


def label(start: float, end: float, source: str = "a", metric: str = "t", kind: str = "") -> Label:
    """A label between two times in hours after T0."""
    return Label(source, metric, round(T0 + start * HOUR), round(T0 + end * HOUR), kind)


# --- figures ----------------------------------------------------------------------------------------------


def test_figures_of_a_case_worked_out_by_hand() -> None:
    """Three labels, four alerts: two found after 1 h and 3 h, one alert false, one true twice over."""
    episodes = [
        episode(11, 12),  # finds the first label after 1 h
        episode(11.5, 12),  # finds it too: true, but the delay is that of the first
        episode(53, 54),  # finds the second after 3 h
        episode(100, 101, source="b"),  # false
    ]
    labels = [label(10, 13, kind="step"), label(50, 60, kind="drift"), label(200, 201, kind="step")]
    figures = figures_of(replayed(episodes), TEN_DAYS, labels)
    truth = figures.truth
    assert truth is not None
    assert (truth.labels, truth.found, truth.true_alerts, truth.false_alerts) == (3, 2, 3, 1)
    assert truth.recall == pytest.approx(2 / 3)
    assert truth.precision == 0.75
    assert truth.delay_ms == 2 * HOUR
    assert truth.false_a_day == pytest.approx(0.1)
    assert truth.false_a_device_day == pytest.approx(1 / 20)
    assert truth.missed == (labels[2],)
    assert [(one.kind, one.found, one.labels) for one in truth.by_kind] == [("drift", 1, 1), ("step", 1, 2)]
    assert figures.per_week == pytest.approx(4 / 10 * 7)


def test_an_alert_that_was_open_before_finds_nothing() -> None:
    """It is neither a find nor, while it is open as the label begins, a false alarm; closed before, it is."""
    episodes = [episode(9, 12), episode(48, 49)]
    truth = figures_of(replayed(episodes), TEN_DAYS, [label(10, 11), label(50, 51)]).truth
    assert truth is not None
    assert (truth.found, truth.true_alerts, truth.false_alerts) == (0, 0, 1)


def test_an_alert_just_behind_a_short_label_finds_it() -> None:
    """The third sample of a spike may come after its end; what counts is the alert's first sample."""
    spike = label(10, 10 + 1 / 60)
    soon, late = episode(10 + 2 / 60, 11), episode(10 + 3 / 60, 11)
    assert figures_of(replayed([soon]), TEN_DAYS, [spike]).truth.found == 1  # type: ignore[union-attr]
    assert figures_of(replayed([late]), TEN_DAYS, [spike]).truth.found == 0  # type: ignore[union-attr]


def test_labels_outside_the_period_are_left_out() -> None:
    """They count neither as found nor as missed; an empty name fits any."""
    labels = [label(-5, 1), label(300, 301), label(5, 6, source="", metric="")]
    truth = figures_of(replayed([episode(5, 6, source="b")]), TEN_DAYS, labels).truth
    assert truth is not None
    assert (truth.labels, truth.outside, truth.found) == (1, 2, 1)


def test_episodes_from_before_the_period_are_no_alerts() -> None:
    """They are shown and weighed by the hours within the period, but did not open in it."""
    figures = figures_of(replayed([episode(-2, 3)]), TEN_DAYS, [])
    assert figures.alerts == 0
    assert figures.devices[0].hours == 3.0
    assert figures.devices[0].weight == 6.0


def test_devices_are_ranked_by_intensity_and_duration() -> None:
    """Twice the line for 4 h outweighs five times for an hour, and an absurd score of a moment counts 10."""
    episodes = [
        episode(10, 11 - 1 / 60, source="b", peak=15.0),
        episode(20, 24 - 1 / 60, source="a"),
        episode(239, None, source="c", peak=3.3),
        episode(30, 30.1 - 1 / 60, source="d", peak=3e9),
    ]
    figures = figures_of(replayed(episodes, ("a", "b", "c", "d")), TEN_DAYS, None)
    assert [device.source for device in figures.devices] == ["a", "b", "c", "d"]
    assert [device.weight for device in figures.devices] == pytest.approx(
        [8.0, 5.0, 1.1 * (61 / 60), 1.0], rel=1e-3
    )
    assert figures.truth is None


def test_nothing_to_judge_is_not_defined() -> None:
    """Without labels there is no recall, without alerts no precision; neither is 0 or 1."""
    truth = figures_of(replayed([]), TEN_DAYS, []).truth
    assert truth is not None
    assert (truth.recall, truth.precision, truth.delay_ms) == (None, None, None)


def test_figures_by_kind_and_by_detector_worked_out_by_hand() -> None:
    """A group finds labels of any of its metrics, and only those count for it; each detector has its own
    recall, delay and false alarms; of the false ones a kind has the part that it has of the labels."""
    of_group = {"kind": "anomaly", "metric": "motor"}
    episodes = [
        episode(11, 12),  # own past finds the step after 1 h
        episode(52, 53, **of_group),  # the group finds the break of t after 2 h
        episode(71, 72, **of_group),  # and the step of p, after 1 h
        episode(200, 201, **of_group),  # false
        episode(52, 53, source="b", **of_group),  # of another device: false
    ]
    labels = [
        label(10, 13, kind="step"),
        label(50, 60, kind="break"),
        label(70, 72, metric="p", kind="step"),
        label(90, 91, metric="alone", kind="step"),
    ]
    truth = figures_of(replayed(episodes), TEN_DAYS, labels, {"motor": ("t", "p")}).truth
    assert truth is not None
    assert (truth.found, truth.true_alerts, truth.false_alerts) == (3, 3, 2)
    own, group = truth.by_detector["own past"], truth.by_detector["motor"]
    assert (own.labels, own.found, own.true_alerts, own.false_alerts, own.delay_ms) == (4, 1, 1, 0, HOUR)
    assert (group.labels, group.found, group.true_alerts, group.false_alerts) == (3, 2, 2, 2)
    breaks, steps = group.by_kind
    assert (breaks.kind, breaks.recall, breaks.delay_ms) == ("break", 1.0, 2 * HOUR)
    assert (steps.kind, steps.recall, steps.delay_ms) == ("step", 0.5, HOUR)
    assert (breaks.false_alerts, steps.false_alerts) == pytest.approx((2 / 3, 4 / 3))
    assert (breaks.precision, steps.precision) == pytest.approx((0.6, 3 / 7))
    assert own.by_kind[0].precision is None
    alone = figures_of(replayed(episodes[:1]), TEN_DAYS, labels).truth
    assert alone is not None
    assert alone.by_detector == {}


# --- gates ------------------------------------------------------------------------------------------------


def test_gates_are_read() -> None:
    """Repeated and comma separated alike; rates a day and a week."""
    assert gates_of(["recall=0.8", "precision=0.5"], "5/week") == Gates(0.8, 0.5, 5.0, 7.0)
    assert gates_of(["recall=0.8,precision=0.5"], "1.5/day") == Gates(0.8, 0.5, 1.5, 1.0)
    assert gates_of([], None) == Gates()


@pytest.mark.parametrize("text", ["recall", "recall=2", "recall=x", "f1=0.5", "recall=0.8;precision=1"])
def test_a_gate_that_is_none(text: str) -> None:
    """It is named, with one that is."""
    with pytest.raises(ValueError, match=r"--fail-under: '.*' is no gate; write recall=0\.8"):
        gates_of([text], None)


@pytest.mark.parametrize("text", ["5", "5/month", "-1/week", "x/day"])
def test_a_rate_that_is_none(text: str) -> None:
    """It is named, with one that is."""
    with pytest.raises(ValueError, match=r"--max-alerts: .* write one like 5/week"):
        gates_of([], text)


def test_gates_say_by_how_much_they_failed() -> None:
    """A clause each; a figure just at the gate passes, one that is not defined does not."""
    labels = [label(10, 13), label(50, 60)]
    figures = figures_of(replayed([episode(11, 12), episode(100, 101)]), TEN_DAYS, labels)
    assert failed_gates(figures, Gates(0.5, 0.5, 1.4)) == []
    assert failed_gates(figures, Gates(0.8, None, 1.0)) == [
        "recall is 0.500, 0.300 below 0.8",
        "1.4 alerts a week are 0.4 more than 1",
    ]
    nothing = figures_of(replayed([]), TEN_DAYS, [])
    assert len(failed_gates(nothing, Gates(0.0, 0.0, 0.0))) == 2


# --- labels -----------------------------------------------------------------------------------------------


def test_labels_with_and_without_header() -> None:
    """Columns of a header may stand in any order; kind and metric may be missing or empty."""
    plain = read_labels(["a,t,2026-05-01T01:00:00Z,1777600800,step", "", "a,,1,2"], "l.csv")
    assert plain == [label(1, 2, kind="step"), Label("a", "", 1000, 2000)]
    header = ["\ufeffstart,end,metric,source", "2026-05-01 01:00,2026-05-01T02:00+00:00,t,a"]
    assert read_labels(header, "l.csv") == [label(1, 2)]
    assert read_labels([], "l.csv") == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a,t,1"], "l.csv:1: the row has 3 fields; write source,metric,start,end"),
        (["source,start,end", "a,1,2"], "l.csv:1: the header names no column 'metric'"),
        (["a,t,1,2", "a,t,yesterday,2"], "l.csv:2: Invalid isoformat"),
        (["a,t,20,10"], "l.csv:1: the end 10 is before the start"),
        (["a,t,1e300,2"], "l.csv:1: 1e300 is out of range"),
    ],
)
def test_labels_that_cannot_be_read(lines: list[str], words: str) -> None:
    """One sentence with file, line and what to write."""
    with pytest.raises(ConfigError) as raised:
        read_labels(lines, "l.csv")
    assert words in str(raised.value)
    assert "write source,metric,start,end[,kind]" in str(raised.value)


# --- moments ----------------------------------------------------------------------------------------------


def test_times_are_read() -> None:
    """Dates, times with and without zone, seconds, milliseconds, and durations back from now."""
    assert time_ms("2026-05-01") == time_ms("2026-05-01T00:00:00Z") == time_ms("1777593600") == T0
    assert time_ms("2026-05-01T02:00:00+02:00") == time_ms(str(T0)) == T0
    assert moment_ms("90m", T0) == T0 - 90 * MINUTE
    assert moment_ms("7d", T0) == T0 - 7 * DAY
    assert moment_ms("now", T0) == T0
    for text in ("soon", "7 weeks", "d", ""):
        with pytest.raises(ValueError, match=r"isoformat|" + (text or "''")):
            moment_ms(text, T0)


def test_times_are_written() -> None:
    """To the second, in UTC; durations in their largest fitting unit."""
    assert stamp(T0 + 999) == "2026-05-01T00:00:00Z"
    told = [duration_text(ms) for ms in (0, 45_000, 600_000, 9 * HOUR, 3 * DAY)]
    assert told == ["0 s", "45 s", "10 min", "9 h", "3 d"]
