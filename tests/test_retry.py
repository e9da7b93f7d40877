"""retry: what is tried again, how often and after what wait."""

from __future__ import annotations

import asyncio

import pytest

from plexus_detect import clock
from plexus_detect.errors import AuthError, ContractError, PlexusDetectError, RejectedError, TransientError
from plexus_detect.retry import retried


class RecordedSleeps:
    """A clock whose sleeps take no time and are written down, in seconds."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    async def sleep_s(self, s: float) -> None:
        """Write the wait down."""
        self.waits_s.append(s)


class FailingCall:
    """Raises the given errors one after another, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.made = 0

    async def __call__(self) -> str:
        """The next error, or the answer."""
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> RecordedSleeps:
    """The clock's sleep, replaced for the test."""
    recorded = RecordedSleeps()
    monkeypatch.setattr(clock, "sleep_s", recorded.sleep_s)
    return recorded


def test_a_success_is_returned_without_waiting(sleeps: RecordedSleeps) -> None:
    """One call, no sleep."""
    call = FailingCall()
    assert asyncio.run(retried(call)) == "answer"
    assert (call.made, sleeps.waits_s) == (1, [])


def test_transient_errors_are_tried_again(sleeps: RecordedSleeps) -> None:
    """The answer of a later attempt counts, with one wait between attempts."""
    call = FailingCall(TransientError("a"), TransientError("b"))
    assert asyncio.run(retried(call)) == "answer"
    assert (call.made, len(sleeps.waits_s)) == (3, 2)


def test_attempts_are_bounded(sleeps: RecordedSleeps) -> None:
    """After the last attempt its own error comes out, not tenacity's, and nothing is waited for."""
    call = FailingCall(*[TransientError(f"attempt {i}") for i in range(1, 9)])
    with pytest.raises(TransientError, match="attempt 3"):
        asyncio.run(retried(call, attempts_max=3))
    assert (call.made, len(sleeps.waits_s)) == (3, 2)


@pytest.mark.parametrize(
    "error",
    [
        TransientError("lost", maybe_applied=True),
        AuthError("key"),
        RejectedError("no", index=1),
        ContractError("html"),
        ZeroDivisionError(),
    ],
    ids=repr,
)
def test_other_errors_are_raised_at_once(error: Exception, sleeps: RecordedSleeps) -> None:
    """What trying again cannot mend, or might do twice, is tried once."""
    call = FailingCall(error)
    with pytest.raises(type(error)):
        asyncio.run(retried(call))
    assert (call.made, sleeps.waits_s) == (1, [])


def test_retry_after_is_a_least_wait(sleeps: RecordedSleeps) -> None:
    """Jitter may only add to what the server asked for."""
    call = FailingCall(*[TransientError("slow down", retry_after_s=7.5)] * 3)
    asyncio.run(retried(call))
    assert len(sleeps.waits_s) == 3
    assert all(7.5 <= wait_s <= 10.0 for wait_s in sleeps.waits_s)


def test_a_wait_beyond_the_bound_is_left_to_the_caller(sleeps: RecordedSleeps) -> None:
    """A server that asks for minutes does not hold the tick: the error comes out with its number."""
    call = FailingCall(TransientError("slow down", retry_after_s=120.0))
    with pytest.raises(TransientError) as caught:
        asyncio.run(retried(call, wait_s_max=10.0))
    assert caught.value.retry_after_s == 120.0
    assert (call.made, sleeps.waits_s) == (1, [])


def test_waits_are_full_jitter_within_a_doubling_bound(sleeps: RecordedSleeps) -> None:
    """The k-th waits of many workers spread over all of 0 to 0.5 * 2**k seconds, capped at the bound."""

    async def many() -> None:
        for _ in range(200):
            with pytest.raises(PlexusDetectError):
                await retried(FailingCall(*[TransientError("x")] * 6), attempts_max=6, wait_s_max=3.0)

    asyncio.run(many())
    for k, bound_s in enumerate([0.5, 1.0, 2.0, 3.0, 3.0]):
        waits_s = sleeps.waits_s[k::5]
        assert len(waits_s) == 200
        assert all(0 <= wait_s <= bound_s for wait_s in waits_s)
        assert min(waits_s) < 0.2 * bound_s
        assert max(waits_s) > 0.8 * bound_s
