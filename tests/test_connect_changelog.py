"""States in the topic of states: in pieces, found again from the end, and never half of one."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples

from plexus_detect.connect import changelog
from plexus_detect.connect.changelog import Snapshot, newest, pieces, topic_of
from plexus_detect.connect.records import Record


class Message(NamedTuple):
    """A record as it is read."""

    record: Record

    def value(self) -> bytes | None:
        """Its bytes."""
        return self.record.value

    def headers(self) -> list[tuple[str, bytes]]:
        """Its headers."""
        return self.record.headers


def log_of(snapshots: list[Snapshot]) -> list[Message]:
    return [Message(record) for one in snapshots for record in pieces("t", 0, one)]


def compacted(log: list[Message]) -> list[Message]:
    """The last message of each key."""
    last = {message.record.key: i for i, message in enumerate(log)}
    return [message for i, message in enumerate(log) if last[message.record.key] == i]


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "PIECE_BYTES", 4)


@given(st.lists(st.binary(max_size=21), min_size=1, max_size=6), st.integers(0, 6), st.booleans())
@examples(300)
def test_the_newest_whole_state_is_found(blobs: list[bytes], left_out: int, compact: bool) -> None:
    """Whatever the last writer left out, and whether the topic was compacted or not."""
    snapshots = [Snapshot(10 * i, i, blob) for i, blob in enumerate(blobs)]
    log = log_of(snapshots)
    pieces_of_last = len(log_of(snapshots[-1:]))
    left_out = min(left_out, pieces_of_last)
    log = log[: len(log) - left_out]
    whole = snapshots if left_out == 0 else snapshots[:-1]
    found = newest(compacted(log) if compact else log)
    assert found == (whole[-1] if whole else None)


def test_a_state_beyond_the_position_is_passed_over() -> None:
    """One of a transaction that was not committed, say, on a broker that shows such."""
    snapshots = [Snapshot(10, 0, b"aaaaa"), Snapshot(20, 1, b"bbbbb"), Snapshot(30, 2, b"ccccc")]
    assert newest(log_of(snapshots), 25) == snapshots[1]
    assert newest(log_of(snapshots), 9) is None


def test_what_others_wrote_there_is_no_state() -> None:
    """Messages without our headers are passed over."""
    log = log_of([Snapshot(10, 0, b"abcdefgh")])
    log[1:1] = [Message(Record("t", b"k", b"v", [])), Message(Record("t", None, None, [("number", b"x")]))]
    assert newest(log) == Snapshot(10, 0, b"abcdefgh")


def test_the_topic_is_named_after_group_and_topic() -> None:
    """So that two groups over one topic have states of their own."""
    assert topic_of("g", "readings") == "g-readings-state"
