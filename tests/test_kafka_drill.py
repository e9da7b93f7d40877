"""Many workers over one topic while machines and brokers fail: every alert once, or at most twice.

The full drill: ``pytest -m soak tests/test_kafka_drill.py -s`` (200,000 readings, about two minutes each).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from kafka_drill import Drill
from kafka_house import house


def drilled(path: Path, **how: float | bool) -> Drill:
    """A drill that is over, with its outcome printed."""
    with house() as broker:
        drill = Drill(broker, path, **how)  # type: ignore[arg-type]
        try:
            drill.run()
        finally:
            for worker in drill.workers:
                if worker.process.poll() is None:
                    worker.kill()
        expected, written = drill.expected(), drill.written()
        drill.outcome |= {
            "expected": len(expected),
            "missing": len(expected - written),
            "unexpected": len(set(written) - set(expected)),
            "twice": sum(n == 2 for n in written.values()),
            "more": sum(n > 2 for n in written.values()),
        }
    print(drill.outcome)
    assert set(drill.outcome["exit_codes"]) == {143}
    assert drill.outcome["stop_s"] < 10
    return drill


@pytest.mark.soak
def test_every_alert_once_while_workers_come_and_go(tmp_path: Path) -> None:
    """Three workers, one killed, one added, the broker cut off: each alert is there once."""
    drill = drilled(
        tmp_path, readings=20_000, feed_s=6.0, transactions=True, kill_at_s=1.0, add_at_s=1.5, cut_at_s=3.0
    )
    outcome = drill.outcome
    assert outcome["expected"] > 100
    assert (outcome["missing"], outcome["unexpected"], outcome["twice"], outcome["more"]) == (0, 0, 0, 0)


@pytest.mark.soak
def test_killed_again_and_again(tmp_path: Path) -> None:
    """Ten workers one after the other, each at any moment: every alert once."""
    drill = drilled(
        tmp_path,
        readings=100_000,
        feed_s=45.0,
        transactions=True,
        kill_at_s=1.0,
        add_at_s=1.5,
        cut_at_s=4.0,
        kills=10,
    )
    outcome = drill.outcome
    assert (outcome["missing"], outcome["unexpected"], outcome["twice"], outcome["more"]) == (0, 0, 0, 0)


@pytest.mark.soak
@pytest.mark.parametrize("transactions", [True, False])
def test_the_full_drill(tmp_path: Path, *, transactions: bool) -> None:
    """200,000 readings: once with transactions; without them none is missing and none there thrice."""
    drill = drilled(
        tmp_path,
        readings=200_000,
        feed_s=40.0,
        transactions=transactions,
        kill_at_s=6.0,
        add_at_s=15.0,
        cut_at_s=25.0,
        cut_s=3.0,
    )
    outcome = drill.outcome
    assert outcome["expected"] > 1000
    assert (outcome["missing"], outcome["unexpected"], outcome["more"]) == (0, 0, 0)
    if transactions:
        assert outcome["twice"] == 0
