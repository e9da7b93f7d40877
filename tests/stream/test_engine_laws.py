"""Laws of the stream engine: what it says depends on the messages and their order, and on nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bus import JUNK, POLICIES, alerts, batch, cuts, engine, message, messages, rejected, rows, run
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

NAMES = sorted(POLICIES)


@pytest.mark.parametrize("name", NAMES)
@given(stream=messages(), places=cuts())
@examples(120)
def test_batches_change_nothing(name: str, stream: list[Any], places: list[int]) -> None:
    """Any cuts of the same messages give the same alerts, rows and rejects as one message at a time."""
    whole = batch(stream)
    single = run(engine(POLICIES[name]), whole, range(len(stream)))
    cut = run(engine(POLICIES[name]), whole, places)
    assert alerts(cut) == alerts(single)
    assert rows(cut) == rows(single)
    assert rejected(cut) == rejected(single)


@pytest.mark.parametrize("name", NAMES)
@given(stream=messages(), place=st.integers(0, 120))
@examples(60)
def test_a_moved_state_goes_on_as_if_it_had_stayed(name: str, stream: list[Any], place: int) -> None:
    """A dump loaded anywhere in a stream changes nothing of what follows."""
    whole = batch(stream)
    stayed, left, came = (engine(POLICIES[name]) for _ in range(3))
    expected = run(stayed, whole, [place])
    run(left, whole.take(slice(0, place)))
    assert came.load(left.dump()) is None
    after = [came.take(whole.take(slice(place, None)))]
    assert alerts(after) == alerts(expected[1:])
    assert rows(after) == rows(expected[1:])
    assert came.position == stayed.position


@pytest.mark.parametrize("name", NAMES)
@given(stream=messages(), place=st.integers(0, 120))
@examples(60)
def test_silent_replay_and_then_live_is_live(name: str, stream: list[Any], place: int) -> None:
    """A silent replay says nothing, and what comes after it is as if it had been live."""
    whole = batch(stream)
    expected = run(engine(POLICIES[name]), whole, [place])
    replayed = engine(POLICIES[name])
    silent = replayed.take(whole.take(slice(0, place)), silent=True)
    assert not silent.alerts
    assert not len(silent.derived)
    after = [replayed.take(whole.take(slice(place, None)))]
    assert alerts(after) == alerts(expected[1:])
    assert rows(after) == rows(expected[1:])


@pytest.mark.parametrize("name", NAMES)
@given(stream=messages(junk=False), data=st.data())
@examples(60)
def test_rejects_and_repeats_change_nothing_else(name: str, stream: list[Any], data: st.DataObject) -> None:
    """Junk between the messages, and messages that come once more at once, leave all alerts as they were."""
    more: list[Any] = []
    for one in stream:
        more.append(one)
        kind = data.draw(st.sampled_from(["junk", "repeat", "nothing", "nothing"]))
        if kind == "junk":
            more.append((data.draw(st.sampled_from(JUNK)), one[1], one[2] + 10**9))
        if kind == "repeat":
            more.append(one)
    plain = run(engine(POLICIES[name]), batch(stream))
    mixed = run(engine(POLICIES[name]), batch(more))
    assert alerts(mixed) == alerts(plain)
    assert rows(mixed) == rows(plain)


@pytest.mark.parametrize("name", ["own past", "fleets", "group"])
@given(stream=messages(junk=False), back=st.integers(5_000, 80_000))
@examples(60)
def test_late_samples_alert_nobody(name: str, stream: list[Any], back: int) -> None:
    """Other samples of older times change nothing of the alerts; they are scored for the record at most."""
    more: list[Any] = []
    newest: dict[tuple[bytes, str], float] = {}
    for i, one in enumerate(stream):
        more.append(one)
        said = json.loads(one[0])
        if said["timestamp"] * 1000 > one[2] + 300_000:
            continue
        for sensor in said["sensors"]:
            newest[one[1], sensor] = max(newest.get((one[1], sensor), 0.0), said["timestamp"])
        late = {sensor: 500.0 for device, sensor in newest if device == one[1]}
        oldest = min(t for (device, _), t in newest.items() if device == one[1])
        more.append(message(one[1].decode(), round(oldest * 1000) - back - i, late, one[2]))
    plain = run(engine(POLICIES[name]), batch(stream))
    mixed = run(engine(POLICIES[name]), batch(more))
    assert alerts(mixed) == alerts(plain)
    on_record = [row for row in rows(mixed) if not row[1].endswith(".zscore_late")]
    assert on_record == [row for row in rows(plain) if not row[1].endswith(".zscore_late")]
