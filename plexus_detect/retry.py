"""One policy for trying again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    wait_random_exponential,
)

from plexus_detect import clock
from plexus_detect.bucket import RetryBudget
from plexus_detect.errors import TransientError

T = TypeVar("T")

WAIT_S_FIRST = 0.5


async def retried(
    call: Callable[[], Awaitable[T]],
    *,
    attempts_max: int = 4,
    wait_s_max: float = 10.0,
    budget: RetryBudget | None = None,
) -> T:
    """The result of ``call``, tried at most ``attempts_max`` times and as often as ``budget`` allows.

    Only a TransientError is tried again, and never one that may already have taken effect: nothing on the
    platform removes duplicates (contract trap 7), so that decision belongs to the caller. Waits are drawn
    evenly from zero to a bound that starts at 0.5 s and doubles up to ``wait_s_max`` seconds ("full
    jitter": many workers must not come back together). ``retry_after_s`` is a least wait; when the server
    asks for more than ``wait_s_max`` the error is raised at once with that number on it, since the
    caller has other series to serve meanwhile.

    Errors: whatever the last attempt raised.
    """
    jitter_s = wait_random_exponential(multiplier=WAIT_S_FIRST, max=wait_s_max)

    def worth_it(exc: BaseException) -> bool:
        return (
            isinstance(exc, TransientError)
            and not exc.maybe_applied
            and (exc.retry_after_s is None or exc.retry_after_s <= wait_s_max)
        )

    def given_up(attempt: RetryCallState) -> bool:
        return attempt.attempt_number >= attempts_max or (budget is not None and not budget.retry())

    def wait_s(attempt: RetryCallState) -> float:
        exc = attempt.outcome.exception() if attempt.outcome else None
        least_s = exc.retry_after_s if isinstance(exc, TransientError) else None
        return max(jitter_s(attempt), least_s or 0.0)

    async def attempt() -> T:
        # tenacity awaits only what is visibly a coroutine function, which a lambda is not.
        return await call()

    policy = AsyncRetrying(
        retry=retry_if_exception(worth_it),
        stop=given_up,
        wait=wait_s,
        sleep=clock.sleep_s,
        reraise=True,
    )
    if budget is not None:
        budget.attempt()
    return await policy(attempt)
