"""What holds of every proposal and every edit, whatever the alerts and the documents."""

from __future__ import annotations

import json
import math
import tomllib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.monitors.editing import edited, number_text, unified
from plexus_detect.monitors.verdicts import Alert, Bounds, Counts, Debounce, Proposal, propose, rounded_up

_number = st.one_of(
    st.integers(-20, 20).map(float),
    st.floats(-50, 50).map(lambda x: round(x, 2) + 0.0),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12),
)
_verdict = st.sampled_from(["helpful", "noise", "noise", None])


@st.composite
def bounds(draw: st.DrawFn) -> Bounds:
    low, high = draw(st.one_of(st.none(), _number)), draw(st.one_of(st.none(), _number))
    return Bounds(low, high if low is None or high is None else max(low, high))


@st.composite
def episodes(draw: st.DrawFn, line: Bounds) -> list[tuple[list[float], Any, bool]]:
    """Values beyond the line in the order they came, their verdict, and whether the alert is closed."""
    values = st.lists(_number.filter(line.beyond), min_size=1, max_size=4)
    one = st.tuples(values, _verdict, st.booleans())
    beyond = [-1e12, -60.0, -7.5, 0.0, 7.5, 60.0, 1e12]
    return draw(st.lists(one, max_size=8)) if any(map(line.beyond, beyond)) else []


def shown(values: list[float], verdict: Any, closed: bool, line: Bounds) -> Alert:
    """The alert that the platform makes of an episode."""
    broken = line.high if line.high is not None and values[0] > line.high else line.low
    assert broken is not None
    figures = (max(values, key=abs), len(values)) if closed else (None, None)
    return Alert("d", "m", verdict, values[0], broken, *figures)


@examples(3000)
@given(data=st.data(), line=bounds(), verdicts_min=st.integers(1, 3))
def test_a_moved_line_loses_nothing_that_helped(data: st.DataObject, line: Bounds, verdicts_min: int) -> None:
    """Of the episodes as they were, each that helped fires under the proposed line, no more noise fires than
    was said, and no count rises."""
    past = data.draw(episodes(line))
    proposal = propose([shown(*episode, line) for episode in past], line, verdicts_min=verdicts_min)
    lawful(proposal)
    if proposal.field in ("max", "min"):
        assert proposal.new is not None
        then = line.moved(proposal.field, proposal.new)
        assert (then.low, then.high) != (line.low, line.high)
        fires = [(verdict, any(map(then.beyond, values))) for values, verdict, _ in past]
        assert all(fired for verdict, fired in fires if verdict == "helpful")
        assert fires.count(("noise", True)) <= proposal.after.noise
        assert fires.count((None, True)) <= proposal.after.unjudged


def lawful(proposal: Proposal) -> None:
    """A proposal keeps every helpful alert and drops some noise; without one nothing changes."""
    before, after = proposal.before, proposal.after
    assert after.helpful == before.helpful
    assert after.unjudged <= before.unjudged
    if proposal.field:
        assert after.noise < before.noise
    else:
        assert after == before
    assert proposal.why


_magnitude = st.floats(3.01, 12).map(lambda x: round(x, 2))
_streak = st.tuples(st.lists(_magnitude, min_size=1, max_size=9), _verdict, st.booleans())


@examples(3000)
@given(past=st.lists(_streak, max_size=8), m=st.integers(1, 5), at_once=st.sampled_from([6.0, math.inf]))
def test_a_debounce_loses_nothing_that_helped(past: list[Any], m: int, at_once: float) -> None:
    """Of streaks of a raw score, each that helped opens an episode of the worker, and no more noise does than
    was said."""
    line = Bounds(None, 3.0)
    alerts = [shown(*streak, line) for streak in past]
    worker = {"threshold": 3.0, "consecutive": m, "at_once": at_once}
    proposal = propose(alerts, line, verdicts_min=1, debounce=Debounce(raw=True, **worker))
    lawful(proposal)
    if proposal.field == "name":
        opens = [(verdict, len(values) >= m or max(values) >= at_once) for values, verdict, _ in past]
        assert all(opened for verdict, opened in opens if verdict == "helpful")
        assert opens.count(("noise", True)) <= proposal.after.noise


@examples(3000)
@given(past=st.lists(_streak, max_size=8), m=st.integers(1, 5), at_once=st.sampled_from([6.0, math.inf]))
def test_a_longer_debounce_loses_nothing_that_helped(past: list[Any], m: int, at_once: float) -> None:
    """Of a score that is debounced already, each streak that helped is longer than the proposed debounce."""
    line = Bounds(None, 3.0)
    alerts = [shown(*streak, line) for streak in past]
    worker = {"threshold": 3.0, "consecutive": m, "at_once": at_once}
    proposal = propose(alerts, line, verdicts_min=1, debounce=Debounce(raw=False, **worker))
    lawful(proposal)
    if proposal.field == "consecutive":
        assert proposal.new is not None
        assert m < proposal.new <= 64
        opens = [
            (verdict, len(v) + m - 1 >= proposal.new or max(v) >= at_once) for v, verdict, closed in past
        ]
        assert all(opened for verdict, opened in opens if verdict == "helpful")
        assert opens.count(("noise", True)) <= proposal.after.noise


@pytest.mark.parametrize(
    ("reached", "helped", "line"),
    [
        (3.37, 9.2, 3.5), (3.6, 9.2, 4), (11.3, 20, 12), (26, 99, 30), (3.37, 3.45, 3.4), (3.0, 9.0, 3.0),
        (0.0, 1.0, 0.0), (-3.4, -1.0, -3.0), (0.00123, 1.0, 0.0013), (3.371, 3.3712, 3.371),
    ],
)  # fmt: skip
def test_lines_are_numbers_that_a_person_would_write(reached: float, helped: float, line: float) -> None:
    """The least number with few digits that noise does not exceed and help does."""
    assert rounded_up(reached, helped) == line


@examples(3000)
@given(least=_number, gap=st.floats(min_value=1e-300, max_value=1e12))
def test_a_rounded_line_is_on_the_right_side(least: float, gap: float) -> None:
    """Rounding never passes what helped, and never falls below the noise."""
    below = least + gap
    if below > least:
        assert least <= rounded_up(least, below) < below
    assert rounded_up(least, math.inf) >= least


# ---- edits -----------------------------------------------------------------------------------------------

_entry = st.fixed_dictionaries(
    {
        "source_id": st.text(min_size=1, max_size=4),
        "metric": st.sampled_from(["t.zscore_raw", "t", "max: 3"]),
    },
    optional={
        "threshold": st.fixed_dictionaries(
            {"max": _number},
            optional={"min": _number, "message": st.sampled_from(['"max": 3', "max = 3", "t.zscore_raw 3"])},
        )
    },
)
_line = st.floats(-1e6, 1e6).map(lambda x: round(x, 3) + 0.0)


@examples(1500)
@given(data=st.data(), entries=st.lists(_entry, min_size=1, max_size=4), new=_line)
@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_an_edit_changes_one_value(data: st.DataObject, entries: list[Any], suffix: str, new: float) -> None:
    """Whatever else stands in the text, the document afterwards is the old one but for the one value, and the
    text the old one but for one run of characters."""
    at = data.draw(st.integers(0, len(entries) - 1))
    indent = data.draw(st.sampled_from([None, 0, 2, "\t"]))
    text = json.dumps(entries, indent=indent) if suffix == ".json" else yaml.safe_dump(entries)
    word: Any = data.draw(st.sampled_from([new, "t.zscore"]))
    place = (at, "metric") if isinstance(word, str) else (at, "threshold", "max")
    result = edited(text, suffix, place, word)
    if "threshold" not in entries[at] and place[1] == "threshold":
        assert result is None
        return
    assert result is not None
    after = json.loads(result) if suffix == ".json" else yaml.safe_load(result)
    holder = entries[at]["threshold"] if len(place) == 3 else entries[at]
    holder[place[-1]] = word
    assert after == entries
    lead = next((i for i, (a, b) in enumerate(zip(text, result, strict=False)) if a != b), len(text))
    tail = len(text) - lead
    assert any(result.endswith(text[len(text) - keep :]) for keep in range(max(0, tail - 30), tail + 1))


@examples(1000)
@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_written_without_exponents(value: float) -> None:
    """Every language of documents reads the number back as it was."""
    text = number_text(value)
    assert json.loads(text) == value
    assert "e" not in text
    if abs(value) < 2**63:
        assert yaml.safe_load(text) == tomllib.loads(f"x = {text}")["x"] == value


def test_a_diff_tells_where_the_last_line_ends() -> None:
    """A file without a last line break is marked; blanks in a name do not end it; equal texts make none."""
    assert unified("a b", "x", "y") == (
        "--- a/a b\t\n+++ b/a b\t\n@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+y\n"
        "\\ No newline at end of file\n"
    )
    assert unified("a", "x\n", "x\n") == ""


def test_why_nothing_is_proposed() -> None:
    """Too few verdicts, no noise, an overlap and unknown peaks are told apart."""
    line = Bounds(None, 3.0)

    def why(*alerts: Alert, verdicts_min: int = 1) -> str:
        proposal = propose(alerts, line, verdicts_min=verdicts_min)
        assert proposal.field == ""
        return proposal.why

    loud, helpful = Alert("d", "m", "noise", 9, 3, 9, 1), Alert("d", "m", "helpful", 5, 3, 5, 2)
    assert why() == "no alert fired"
    assert why(Alert("d", "m", "noise", 2, 1, 2, 1)) == "no alert fired"
    assert why(loud, verdicts_min=3) == "1 verdict, and 3 are needed"
    assert why(helpful) == "no alert was noise"
    assert why(loud, helpful).startswith("noise and helpful alerts overlap")
    assert why(Alert("d", "m", "noise", 4, 3), helpful).startswith("how far the noise reached is not known")
    alone = propose([loud], line, verdicts_min=1)
    assert (alone.new, alone.after) == (9.0, Counts(0, 0, 0))
    assert alone.why.endswith("no alert was helpful, so nothing says how far a true fault reaches")
