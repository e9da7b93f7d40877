"""How often something may be done: token buckets and the budget of retries."""

from __future__ import annotations

import asyncio

from fake_platform import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from plexus_detect.bucket import Bucket, RetryBudget
from plexus_detect.errors import TransientError
from plexus_detect.retry import retried


@given(st.lists(st.floats(0, 3), max_size=80), st.floats(0.5, 50), st.floats(1, 20))
def test_no_span_of_time_holds_more_than_its_share(gaps: list[float], rate: float, size: float) -> None:
    """Uses that wait as told are never more than the size and the rate times the time between them."""
    bucket, now, used = Bucket(rate, size), 0.0, []
    for gap in gaps:
        now += gap
        used.append(now + bucket.take(now))
    for i, first in enumerate(used):
        for j in range(i, len(used)):
            assert j - i + 1 <= size + rate * (used[j] - first) + 1 + 1e-6


def test_a_bucket_that_rested_is_full_and_not_more() -> None:
    """After a long rest its size may be used at once, and the next use waits."""
    bucket = Bucket(2.0, 4.0)
    assert [bucket.take(1000.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 0.5]
    assert [bucket.take(9000.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 0.5]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    """Time that runs backwards fills no bucket and empties none."""
    bucket = Bucket(1.0, 1.0)
    assert bucket.take(100.0) == 0.0
    assert bucket.take(50.0) == 1.0


def test_retries_end_when_the_budget_does(stopped: FakeClock) -> None:
    """While everything fails, retries stop soon; a share of the attempts may be retried again later."""
    budget, calls = RetryBudget(share=0.5, size=3.0), []

    async def call() -> None:
        calls.append(1)
        raise TransientError("away")

    async def many(n: int) -> None:
        for _ in range(n):
            try:
                await retried(call, budget=budget)
            except TransientError:
                continue

    asyncio.run(many(1))
    assert (len(calls), budget.retries) == (4, 3)
    asyncio.run(many(4))
    assert (len(calls), budget.retries, budget.refused) == (10, 5, 4)
    del stopped
