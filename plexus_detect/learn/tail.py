"""From a backend's own scores to ours: where the line is, measured on rows that the model has not seen.

The tail of the held-back scores is continued beyond their largest by an exponential whose mean excess is
that of the largest scores (the peaks-over-threshold method: Pickands 1975; Siffer et al. 2017 for streams,
here with shape zero). The line is where that tail has fallen to ``ALARMS_PER_ROW``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from plexus_detect.series import F64

# Chance that a normal row is beyond the line.
ALARMS_PER_ROW = 1e-4

# Of the held-back scores this share, but no fewer and no more than so many, are their tail.
TAIL_SHARE, TAIL_LEAST, TAIL_MOST = 0.1, 5, 200

# A mean of k excesses may be too small by chance: one standard error of the mean is 1 / sqrt(k) of it.
ERRORS = 1.0

# Of an exponential tail fewer than one in a thousand excesses is larger than so many mean ones.
CAP = 7.0

# How many excesses the expected mean excess is worth.
EXPECTED = 10

# A ratio above this says no more than that it is far beyond the line.
RATIO_MAX = 1e6


@dataclass(frozen=True)
class Tail:
    """``middle`` is the median score of normal rows, ``line`` the score at the line; both in the backend's
    own unit."""

    middle: float
    line: float

    def ratio(self, raw: F64) -> F64:
        """How far scores are from the middle in units of the line's distance: at least 0, 1.0 at the line."""
        away = (raw - self.middle) / (self.line - self.middle)
        return np.minimum(np.maximum(away, 0.0), RATIO_MAX)


def capped(excess: F64) -> F64:
    """Excesses, (k,) or (k, f), none larger than CAP times what the median says their mean is: a few rows
    that are no part of the tail must not stretch it."""
    cap = CAP * np.median(excess, axis=0) / math.log(2.0)
    return np.minimum(excess, np.where(cap > 0.0, cap, np.inf))


def tail_of(held: F64, step_expected: float | None = None, alike: int = 1) -> Tail:
    """The tail of held-back scores, (n,), n >= 1 and finite.

    ``step_expected`` is what their mean excess would be if the scores were what they are meant to be; it
    counts as much as EXPECTED of them.
    """
    ordered = np.sort(held)
    n = len(ordered)
    k = max(1, min(n - 1, TAIL_MOST, max(TAIL_LEAST, round(TAIL_SHARE * n))))
    edge = float(ordered[n - 1 - k]) if n > k else float(ordered[0])
    middle = float(np.median(ordered))
    beyond = capped(ordered[n - k :] - edge)
    excess = float(beyond.mean())
    # Scores that are all alike have no tail: what differs from them by a part of their size is new.
    least = max(1e-3 * abs(middle), 1e-9)
    if step_expected is not None:
        excess, k_known = (k * excess + EXPECTED * step_expected) / (k + EXPECTED), k + EXPECTED
    else:
        k_known = k
    step = max(excess, least)
    reach = math.log(max(k / (n * ALARMS_PER_ROW), math.e))
    line = edge + max(
        step * (1.0 + ERRORS / math.sqrt(max(1.0, k_known / alike))) * reach, float(beyond[-1]) + step
    )
    return Tail(middle, line)
