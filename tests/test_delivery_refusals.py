"""delivery: what the gateway refuses, how long to wait, and when to give up."""

from __future__ import annotations

import json

import pytest
from delivery_yard import Yard
from fake_platform import FakeClock, FakePlatform

from plexus_detect.errors import AuthError, RejectedError, StoreError, TransientError

pytestmark = pytest.mark.usefixtures("stopped")


# --- refusals ---------------------------------------------------------------------------------------------


def test_a_401_of_the_gateway_is_tried_again(stopped: FakeClock) -> None:
    """It may be the gateway's own trouble (contract trap 5); the client says so with a transient error."""
    yard = Yard(stopped)
    expected = yard.fill(2)
    yard.platform.script["ingest"] = [TransientError("401"), TransientError("401")]
    assert [yard.deliver() for _ in range(3)] == [False, False, True]
    assert yard.scores() == expected
    assert yard.delivery.report.errors == 2


def test_a_refused_point_is_set_aside(stopped: FakeClock) -> None:
    """points[i] names it; the rest of the batch goes again, and the refusal is counted."""
    yard = Yard(stopped)
    expected = yard.fill(3)
    yard.platform.script["ingest"] = [RejectedError("points[4].value", index=4)]
    assert yard.deliver()
    assert len(yard.scores()) == 8
    assert set(yard.scores()) < set(expected)
    bad = sorted(expected, key=lambda row: (row[2], row[0]))[4]
    assert bad not in yard.scores()
    assert yard.store.tally() == {"posted": 8, "rejected": 1}


def test_a_refusal_without_an_index_halves_the_batch(stopped: FakeClock) -> None:
    """Until the one point that cannot be posted stands alone."""
    yard = Yard(stopped)
    expected = yard.fill(4)
    poison = expected[7]

    class Picky(FakePlatform):
        async def ingest(self, body: bytes) -> bytes:
            if self.has(body):
                raise RejectedError("400: invalid point")
            return await super().ingest(body)

        @staticmethod
        def has(body: bytes) -> bool:
            points = json.loads(body)["points"]
            return any((p["source_id"], p["timestamp"]) == (poison[0], poison[2]) for p in points)

    rows = yard.platform.rows
    yard.platform = Picky(rows)
    yard.restart()
    assert yard.deliver()
    assert yard.scores() == [row for row in expected if row != poison]
    assert yard.store.tally() == {"posted": 11, "rejected": 1}


def test_an_address_that_refuses_everything_costs_no_point(stopped: FakeClock) -> None:
    """When even an empty post is refused (404 of a wrong address) no point is to blame: all wait."""
    yard = Yard(stopped)
    expected = yard.fill(4)
    wrong = RejectedError("POST http://app.test/ingest -> 404: not found")
    yard.platform.script = {"ingest": [wrong, wrong], "check_write": [wrong, wrong]}
    assert [yard.deliver(), yard.deliver()] == [False, False]
    assert yard.store.outbox_points() == 12
    assert yard.deliver()
    assert yard.scores() == expected
    assert yard.delivery.report.uncertain == 0


def test_a_key_without_write_is_borne_with_for_minutes(stopped: FakeClock) -> None:
    """403 keeps everything, is tried again, and ends the run only when it has lasted."""
    yard = Yard(stopped, age_ms_max=10**9)
    yard.fill(2)
    yard.platform.script["ingest"] = [AuthError("403 no write scope")] * 3
    assert not yard.deliver()
    stopped.t_ms += 200_000
    assert not yard.deliver()
    stopped.t_ms += 100_000
    with pytest.raises(AuthError):
        yard.deliver()
    assert yard.store.outbox_points() == 6
    assert yard.delivery.report.uncertain == 0


def test_patience_begins_anew_after_a_success(stopped: FakeClock) -> None:
    """Refusals with successes between them are the platform's trouble."""
    yard = Yard(stopped, age_ms_max=10**9)
    for _ in range(4):
        yard.fill(1)
        yard.platform.script["ingest"] = [AuthError("403")]
        assert not yard.deliver()
        assert yard.deliver()
        stopped.t_ms += 200_000


# --- pauses and the state file ----------------------------------------------------------------------------


def test_pauses_grow_with_failures_and_end_with_a_success(stopped: FakeClock) -> None:
    """From half a second up to a bound, and from the start again afterwards."""
    yard = Yard(stopped, age_ms_max=10**9)
    yard.fill(1)
    yard.platform.script["ingest"] = [TransientError("503")] * 9
    pauses = []
    while not yard.deliver():
        pauses.append(yard.delivery.pause_s())
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, 30]
    yard.fill(1)
    yard.platform.script["ingest"] = [TransientError("503")]
    assert not yard.deliver()
    assert yard.delivery.pause_s() == 1


@pytest.mark.parametrize(("asked_s", "pause_s"), [(0.2, 1.0), (7.0, 7.0), (86_400.0, 300.0)])
def test_a_pause_that_the_server_asks_for_is_kept(stopped: FakeClock, asked_s: float, pause_s: float) -> None:
    """Retry-After is a least wait, within reason."""
    yard = Yard(stopped)
    yard.fill(1)
    yard.platform.script["ingest"] = [TransientError("429", retry_after_s=asked_s)]
    assert not yard.deliver()
    assert yard.delivery.pause_s() == pause_s


def test_a_state_file_that_fails_ends_the_delivery(stopped: FakeClock) -> None:
    """It is not one more failed attempt: without its record nothing may be posted."""
    yard = Yard(stopped)
    yard.fill(1)
    yard.store.close()
    with pytest.raises(StoreError):
        yard.deliver()
    assert yard.platform.posted == []
