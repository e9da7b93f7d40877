"""Token buckets: how often something may be done in the long run, and how much of it at once. Pure.

A bucket fills at a steady rate up to its size, and what is done takes from it (the leaky bucket as a meter
of ITU-T I.371). Time is an argument, so that a bucket needs no clock.
"""

from __future__ import annotations


class Bucket:
    """``rate_per_s`` tokens a second flow in, at most ``size`` are kept; full at first."""

    def __init__(self, rate_per_s: float, size: float) -> None:
        self._rate_per_s = rate_per_s
        self._size = size
        self._tokens = size
        self._at_s: float | None = None

    def take(self, now_s: float) -> float:
        """Take a token at ``now_s``; returns the seconds to wait before using it, 0 when there was one.

        Tokens may be taken in advance: who comes later then waits longer, in the order of the calls. A clock
        that goes back adds nothing.
        """
        passed_s = 0.0 if self._at_s is None else max(0.0, now_s - self._at_s)
        self._at_s = now_s
        self._tokens = min(self._size, self._tokens + passed_s * self._rate_per_s) - 1.0
        return max(0.0, -self._tokens / self._rate_per_s)


class RetryBudget:
    """How many retries there may be: ``size`` at once, and in the long run ``share`` of all first attempts.

    Without one, everything that fails is asked for several times just when the platform is in trouble (Site
    Reliability Engineering, chapter 21, O'Reilly 2016). ``retries`` and ``refused`` count.
    """

    def __init__(self, share: float = 0.2, size: float = 20.0) -> None:
        self._share = share
        self._size = size
        self._left = size
        self.retries = 0
        self.refused = 0

    def attempt(self) -> None:
        """Note a first attempt."""
        self._left = min(self._size, self._left + self._share)

    def retry(self) -> bool:
        """Take a retry; False when the budget is used up."""
        if self._left < 1.0:
            self.refused += 1
            return False
        self._left -= 1.0
        self.retries += 1
        return True
