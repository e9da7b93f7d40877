"""delivery: everything in the outbox reaches the platform once, in order, and in time."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from delivery_yard import Yard
from fake_platform import START_MS, FakeClock, FakePlatform, answer

from plexus_detect import clock, delivery
from plexus_detect.delivery import Delivery, DeliveryParams
from plexus_detect.errors import ContractError, RejectedError, TransientError
from plexus_detect.series import Derived, Kind, Points, SeriesKey
from plexus_detect.store import Commit, Store

pytestmark = pytest.mark.usefixtures("stopped")


# --- the ordinary course ----------------------------------------------------------------------------------


def test_an_outbox_is_delivered_in_order_and_emptied(stopped: FakeClock) -> None:
    """Every point is posted once, batches one after another, each source's points in order of time."""
    yard = Yard(stopped)
    expected = yard.fill(40, points_max=30)
    assert yard.deliver()
    assert yard.scores() == expected
    assert [len(batch) for batch in yard.platform.posted] == [30, 30, 30, 30]
    times = [p["timestamp"] for batch in yard.platform.posted for p in batch]
    assert times == sorted(times)
    assert yard.store.outbox_points() == 0
    assert yard.store.tally() == {"posted": 120}
    assert (yard.delivery.report.posts, yard.delivery.report.posted) == (4, 120)
    assert stopped.slept_s == []


def test_one_request_at_a_time(stopped: FakeClock) -> None:
    """The gateway counts requests by source, so two never overlap."""
    yard = Yard(stopped)
    busy: list[int] = []

    class Narrow(FakePlatform):
        async def ingest(self, body: bytes) -> bytes:
            assert not busy
            busy.append(1)
            await asyncio.sleep(0)
            busy.pop()
            return await super().ingest(body)

    yard.platform = Narrow()
    yard.restart()
    expected = yard.fill(30, points_max=10)
    assert yard.deliver()
    assert yard.scores() == expected


def test_scores_of_old_samples_are_not_posted(stopped: FakeClock) -> None:
    """They would page people now about the past; they are counted as expired (contract section 5)."""
    yard = Yard(stopped, age_ms_max=120_000, keep_late=False)
    expected = yard.fill(10)
    yard.fill(10, age_ms=300_000)
    assert yard.deliver()
    assert yard.scores() == expected
    assert yard.store.tally() == {"expired": 30, "posted": 30}
    assert yard.delivery.report.expired == 30


def test_old_scores_go_on_record_after_all_others(stopped: FakeClock) -> None:
    """Under a name that nobody watches, once each, behind what somebody waits for, also after a restart."""
    yard = Yard(stopped, age_ms_max=120_000)
    old = yard.fill(10, age_ms=300_000)
    new = yard.fill(10)
    yard.platform.script["ingest"] = [None, TransientError("away")]
    assert not yard.deliver()
    yard.restart()
    assert yard.deliver()
    assert yard.scores() == new
    assert yard.platform.stored(".zscore_late") == [(s, "t.zscore_late", t, v) for s, _m, t, v in old]
    assert [batch[0]["metric"] for batch in yard.platform.posted] == ["t.zscore", "t.zscore_late"]
    assert yard.store.tally() == {"late_scores": 30, "posted": 60}
    assert yard.delivery.debts.keys() == {(series, Kind.ZSCORE) for series in range(3)}


def test_an_uncertain_batch_that_grew_old_is_not_doubled(stopped: FakeClock) -> None:
    """It is read back under its old name first: what was stored is not posted as late too."""
    yard = Yard(stopped, age_ms_max=5_000)
    expected = yard.fill(5)
    yard.platform.script["ingest"] = ["lost"]
    assert not yard.deliver()
    stopped.t_ms += 60_000
    assert yard.deliver()
    assert yard.scores() == expected
    assert yard.platform.stored(".zscore_late") == []


def test_old_points_leave_a_batch_and_the_others_go(stopped: FakeClock) -> None:
    """The age is that of each sample, not of the batch."""
    yard = Yard(stopped, age_ms_max=55, keep_late=False)
    expected = yard.fill(10)
    assert yard.deliver()
    assert yard.scores() == [row for row in expected if row[2] >= START_MS - 55]
    assert yard.store.tally() == {"expired": 12, "posted": 18}


def test_the_age_is_taken_by_the_platforms_clock(stopped: FakeClock) -> None:
    """A worker whose own clock is an hour behind still knows what is old."""
    yard = Yard(stopped)
    yard.ahead_ms = 3_600_000
    yard.fill(3)
    assert yard.deliver()
    assert yard.scores() == []


# --- nothing twice, nothing lost --------------------------------------------------------------------------


def test_an_answer_lost_after_processing_doubles_nothing(stopped: FakeClock) -> None:
    """What was stored is found by reading back, counted as uncertain, and not posted again."""
    yard = Yard(stopped)
    expected = yard.fill(5)
    yard.platform.script["ingest"] = ["lost"]
    assert not yard.deliver()
    assert yard.deliver()
    assert yard.scores() == expected
    assert len(yard.platform.posted) == 1
    assert yard.store.tally() == {"posted": 15, "uncertain": 15}
    report = yard.delivery.report
    assert (report.uncertain, report.found_stored, report.resent) == (15, 15, 0)


def test_an_answer_lost_before_processing_loses_nothing(stopped: FakeClock) -> None:
    """What is not found is posted again, and counted as such."""
    yard = Yard(stopped)
    expected = yard.fill(5)
    yard.platform.script["ingest"] = [TransientError("cut", maybe_applied=True)]
    assert not yard.deliver()
    assert yard.deliver()
    assert yard.scores() == expected
    assert yard.store.tally() == {"posted": 15, "uncertain": 15, "resent": 15}


def test_a_kill_between_post_and_record_doubles_nothing(stopped: FakeClock) -> None:
    """The mark is made before the post, so the next process reads back first."""
    yard = Yard(stopped)
    expected = yard.fill(5)
    yard.platform.script["ingest"] = ["lost"]
    assert not yard.deliver()
    yard.restart()
    assert yard.deliver()
    assert yard.scores() == expected
    assert yard.delivery.report.uncertain == 15


def test_a_refused_connection_is_simply_tried_again(stopped: FakeClock) -> None:
    """Nothing was processed, so nothing is read back and nothing is uncertain."""
    yard = Yard(stopped)
    expected = yard.fill(5)
    yard.platform.script["ingest"] = [TransientError("connection refused")]
    assert not yard.deliver()
    assert yard.deliver()
    assert yard.scores() == expected
    assert yard.platform.asked == []
    assert yard.delivery.report.uncertain == 0


@pytest.mark.parametrize("dropped", [1, 7, 15])
def test_a_short_count_sends_again_only_what_is_missing(stopped: FakeClock, dropped: int) -> None:
    """200 with a smaller count means that points were dropped in silence (contract trap 6)."""
    yard = Yard(stopped)
    expected = yard.fill(5)
    yard.platform.script["ingest"] = [dropped]
    assert not yard.deliver()
    assert yard.deliver()
    assert yard.scores() == expected
    assert [len(batch) for batch in yard.platform.posted] == [15 - dropped, dropped]
    assert yard.store.tally()["resent"] == dropped


def test_a_200_of_unknown_shape_is_read_back(stopped: FakeClock) -> None:
    """Nothing may be concluded from it: neither that the points are stored nor that they are not."""
    yard = Yard(stopped)
    expected = yard.fill(5)
    yard.platform.script["ingest"] = [b"<html>sign in</html>"]
    assert not yard.deliver()
    assert yard.deliver()
    assert yard.scores() == expected
    assert yard.delivery.report.uncertain == 15


def test_an_empty_read_back_is_not_believed(stopped: FakeClock) -> None:
    """An answer without even the samples is the store's failure (contract trap 1): it is asked again."""
    yard = Yard(stopped)
    expected = yard.fill(5)
    nothing = answer([], START_MS)
    yard.platform.script = {"ingest": ["lost"], "telemetry": [nothing, nothing, nothing]}
    assert [yard.deliver() for _ in range(5)] == [False, False, False, False, True]
    assert yard.scores() == expected
    assert len(yard.platform.posted) == 1


def test_rows_that_become_visible_late_are_waited_for(stopped: FakeClock) -> None:
    """Points are readable seconds after they were taken, so the first look is not the last."""
    yard = Yard(stopped)
    expected = yard.fill(5)
    samples = [row for row in yard.platform.rows if row[1] == "t"]
    blind = answer(samples, START_MS)
    yard.platform.script = {"ingest": ["lost"], "telemetry": [blind, blind]}
    assert not yard.deliver()
    assert yard.deliver()
    assert yard.scores() == expected
    assert len(yard.platform.posted) == 1
    assert stopped.slept_s[0] == pytest.approx(3.0)


def test_a_failing_read_back_posts_nothing(stopped: FakeClock) -> None:
    """While the platform cannot say what it has, the batch waits; it is counted as uncertain once."""
    yard = Yard(stopped)
    expected = yard.fill(5)
    yard.platform.script = {"ingest": ["lost"], "telemetry": [RejectedError("400"), ContractError("html")]}
    assert [yard.deliver() for _ in range(4)] == [False, False, False, True]
    assert yard.scores() == expected
    assert yard.delivery.report.uncertain == 15


def test_an_uncertain_batch_that_grew_old_is_given_up(stopped: FakeClock) -> None:
    """When nothing of it could be posted any more there is nothing to ask."""
    yard = Yard(stopped, keep_late=False)
    yard.fill(5)
    yard.platform.script["ingest"] = [TransientError("cut", maybe_applied=True)]
    assert not yard.deliver()
    stopped.t_ms += 600_000
    assert yard.deliver()
    assert yard.platform.asked == []
    assert yard.store.tally() == {"expired": 15}


def test_what_is_missing_and_old_expires(stopped: FakeClock) -> None:
    """After reading back, the points that would have to be posted again are held to their age."""
    yard = Yard(stopped, age_ms_max=3_025, keep_late=False)
    yard.fill(5)
    yard.platform.script["ingest"] = [TransientError("cut", maybe_applied=True)]
    assert not yard.deliver()
    stopped.t_ms += 3_000
    assert yard.deliver()
    assert yard.store.tally()["expired"] == 15
    assert yard.scores() == []


def test_many_sources_and_names_are_read_back(stopped: FakeClock) -> None:
    """A batch of more names than fit in one address is still read back whole."""
    keys = [SeriesKey(f"dev-{k % 3}", f"a-rather-long-name-of-a-metric-{k}") for k in range(300)]
    store, platform = Store(":memory:"), FakePlatform()
    n = len(keys)
    derived = Derived(np.arange(n), np.zeros(n, np.int8), np.full(n, START_MS), np.zeros(n))
    store.commit(Commit(START_MS, Points.empty(), np.zeros(0, np.int64), [derived]))
    platform.script["ingest"] = ["lost"]
    platform.rows = [(key.source, key.metric, START_MS, 1.0) for key in keys]
    worker = Delivery(platform, store, keys, DeliveryParams(), clock.now_ms)
    assert not asyncio.run(worker.deliver_all())
    assert asyncio.run(worker.deliver_all())
    assert len(platform.posted) == 1
    assert "metric" not in platform.asked[0]


def test_a_crowded_read_back_is_narrowed(stopped: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows on one millisecond than a page holds: read back in parts, nothing posted twice."""
    monkeypatch.setattr(delivery, "ROWS_MAX", 4)
    yard = Yard(stopped)
    expected = yard.fill(3)
    yard.platform.script["ingest"] = ["lost"]
    assert not yard.deliver()
    assert yard.deliver()
    assert yard.scores() == expected
