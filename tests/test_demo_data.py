"""The demo's data: an honest choice of recorded stretches, by a rule that knows no detector."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from plexus_detect.config import load_config
from plexus_detect.demo.recording import (
    NAME,
    STEP,
    WINDOWS,
    Recording,
    calm_starts,
    data_folder,
    read_recording,
    spaced,
    whole_starts,
)
from plexus_detect.demo.scenario import METRIC, Scenario, make_replay
from plexus_detect.errors import ConfigError
from plexus_detect.evaluate import State, evaluate
from plexus_detect.policy import policy_of
from plexus_detect.series import Points, SeriesTable


@pytest.fixture(scope="module")
def recording() -> Recording:
    return read_recording(data_folder())


def test_no_replayed_stretch_touches_a_labelled_window_or_a_hole(recording: Recording) -> None:
    """Every reading of the twenty stretches is outside the labels and one hour after the one before."""
    scenario = Scenario()
    length = scenario.history_samples + scenario.live_samples
    starts = spaced(calm_starts(recording, scenario.history_samples, scenario.live_samples), 20)
    assert len(set(starts.tolist())) == 20
    for start in starts.tolist():
        times = recording.at[start : start + length]
        assert all(b - a == STEP for a, b in pairwise(times))
        assert not any(begin <= t <= end for t in times for begin, end in recording.labelled)


def test_live_parts_are_different_readings(recording: Recording) -> None:
    """No reading is shown live on two devices."""
    starts = spaced(calm_starts(recording, 336, 72), 20)
    assert np.diff(starts).min() >= 72


def test_calm_is_a_rule_about_the_record_and_not_about_the_detector(recording: Recording) -> None:
    """Calm stretches are exactly the half of all whole ones whose live part moves least."""
    whole, calm = whole_starts(recording, 408), calm_starts(recording, 336, 72)
    moved = {s: np.ptp(recording.value[s + 336 : s + 408]) for s in whole.tolist()}
    rest = set(moved) - set(calm.tolist())
    assert max(moved[s] for s in calm.tolist()) < min(moved[s] for s in rest)
    assert len(rest) <= len(calm) < 1.05 * len(rest)  # stretches that move equally stay together


def test_no_calm_stretch_alerts_so_none_was_picked_to_hide_an_alarm(recording: Recording) -> None:
    """The default detector is silent on every stretch that the rule allows, as the data's README says."""
    starts = calm_starts(recording, 336, 72)
    assert f"none of the {len(starts):,} stretches" in (data_folder() / "README.md").read_text("utf-8")
    table, sample_ms = SeriesTable(), Scenario().sample_ms
    state = State(table, policy_of(load_config([], {"PLEXUS_DETECT_FLEET__ENABLED": "false"})))
    for number in range(len(starts)):
        state.admit(table.add(f"stretch-{number}", METRIC), 0, emit_from_ms=336 * sample_ms)
    rows, columns = np.meshgrid(np.arange(len(starts)), np.arange(408), indexing="ij")
    values = recording.value[starts[:, None] + np.arange(408)]
    points = Points(rows.T.ravel(), columns.T.ravel() * sample_ms, values.T.ravel())
    evaluation = evaluate(state, points, now_ms=408 * sample_ms)
    assert "opened" not in {event.what for event in evaluation.events}
    assert len(evaluation.derived) == 72 * len(starts)
    assert evaluation.derived.value.max() <= 3.0


def test_replay_is_the_record_but_for_the_fault(recording: Recording) -> None:
    """Live readings are those of the record, one device's for a while off by the stated offset."""
    replay, scenario = make_replay(recording, Scenario()), Scenario()
    off = np.array([replay.reading(i) for i in range(scenario.live_samples)]).T - replay.live
    faulty = off[scenario.fault_device]
    assert np.flatnonzero(np.abs(off).sum(axis=0)).tolist() == list(range(24, 40))
    assert np.allclose(faulty[24:40], 8 * replay.history[scenario.fault_device].std())
    assert not np.delete(off, scenario.fault_device, axis=0).any()
    assert np.array_equal(replay.reading(scenario.live_samples), replay.reading(0))


def test_too_few_stretches_are_an_error() -> None:
    """Nothing is replayed twice to make up for a record that is too short."""
    with pytest.raises(ValueError, match="only 3 stretches, 20 are needed"):
        spaced(np.arange(3), 20)


@pytest.mark.parametrize("where", ["site-packages/plexus_detect/data", "site-packages/examples/data"])
def test_data_are_found_in_a_wheel_and_in_a_checkout(tmp_path: Path, where: str) -> None:
    """The package's own folder is looked at first, then the checkout beside it."""
    folder = tmp_path / where
    folder.mkdir(parents=True)
    for name in (NAME, WINDOWS):
        (folder / name).write_text("", "utf-8")
    assert data_folder(tmp_path / "site-packages" / "plexus_detect") == folder


def test_missing_data_are_one_sentence(tmp_path: Path) -> None:
    """Without the data the demo says which file it looked for, where, and what to do."""
    with pytest.raises(ConfigError, match=r"ambient_temperature\.csv is neither in .*install"):
        data_folder(tmp_path)
