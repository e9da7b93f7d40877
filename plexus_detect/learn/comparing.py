"""A new model beside the one in use, on rows that neither has learned: may it take its place unseen?

Both models' errors, in units of each one's own line, are compared on the same rows: how far their
distributions are apart (the two-sample Kolmogorov-Smirnov distance: Smirnov 1948; Massey 1951), their median
and upper quantiles, and how many rows are beyond the line. Rows of a sensor follow each other, so a test's
significance would say nothing; the bounds are of the distances themselves. What error figures cannot show is
a model that is blind, as it has the lowest errors of all: disturbances of a known size are put into rows, and
the new model must find about as many of them as the one in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from plexus_detect.learn.windowed import CRITICAL
from plexus_detect.series import F64, I64, Bool

# Of the rows that both can judge, and that are not beyond both lines, there must be so many.
ROWS_LEAST = 100

# Of these rows the models may judge so many differently, the new one may have so many more beyond its line.
DIFFERENT_MAX, NOISIER_MAX = 0.1, 0.03

# Of so many rows, critical to the model in use, the new one may say that they are normal.
LOST_MAX = 0.01

# The new model's upper quantiles may be so many times those of the old one: the lines of two autoencoders of
# one healthy machine were up to 2.4 times apart, and at three times the line an alert is critical. What is
# below this part of the line is all the same. A distribution so far away, and lower, is a better one.
HIGHER_MAX, ALIKE_BELOW, KS_BETTER = 3.0, 0.1, 0.3

# A disturbance is a metric moved by so many deviations, or taken from another time, for so many rows.
MOVED_BY, MOVED_ROWS = 6.0, 8

# The new model may miss this part of the disturbances more than the old one; fewer than so many say nothing.
MISSED_MAX, PROBES_LEAST = 0.15, 10

# Disturbances lie further apart than a model looks back; to have more, the rows are gone over so often.
PASSES = 4

Verdict = Literal["comparable", "better", "worse", "changed", "unknown"]

# Verdicts with which a new model may take the place of the one in use.
MAY_FOLLOW: frozenset[Verdict] = frozenset({"comparable", "better"})


class Candidate(NamedTuple):
    """A model as it is compared. ``score`` gives the ratio, 1.0 at the line and NaN for none, of the rows
    x, (n, k), of one source in order of time; ``deviation`` is what a metric usually deviates by, (k,);
    ``reach`` is how many rows it looks back."""

    score: Callable[[F64, I64], F64]
    deviation: F64
    reach: int


class Stretch(NamedTuple):
    """Rows of one source in order of time: ``x``, (n, k), ``t_ms``, and which of them are ``held`` back: the
    others only lead up to them."""

    x: F64
    t_ms: I64
    held: Bool


@dataclass(frozen=True)
class Comparison:
    """What came of it: the verdict, and why as the rest of a sentence about the new model.

    ``rows`` were compared, and ``set_aside`` more were not: what both call an anomaly is one, and decides
    nothing. ``ks_distance`` is 0 to 1. The errors at a quantile and the shares ``beyond`` the line (with what
    is beyond both, and critical to neither) are of (the model in use, the new one), as is ``finds``: the part
    of ``probes`` disturbances that each found. ``different`` is the share of rows that they judge otherwise,
    ``lost`` of those that are critical to the model in use and normal to the new one.
    """

    verdict: Verdict
    why: str
    rows: int
    set_aside: int
    ks_distance: float = float("nan")
    median: tuple[float, float] = (float("nan"),) * 2
    q90: tuple[float, float] = (float("nan"),) * 2
    q99: tuple[float, float] = (float("nan"),) * 2
    beyond: tuple[float, float] = (float("nan"),) * 2
    different: float = float("nan")
    lost: float = float("nan")
    probes: int = 0
    finds: tuple[float, float] = (float("nan"),) * 2

    @property
    def may_follow(self) -> bool:
        """Whether the new model may take the place of the one in use with nobody looking."""
        return self.verdict in MAY_FOLLOW


def ks_distance(a: F64, b: F64) -> float:
    """The largest difference between the empirical distributions of a, (n,), and b, (m,), neither empty."""
    both = np.concatenate([a, b])
    below = (np.searchsorted(np.sort(part), both, side="right") / len(part) for part in (a, b))
    one, other = below
    return float(np.abs(one - other).max())


def compare(old: Candidate, new: Candidate, stretches: Sequence[Stretch]) -> Comparison:
    """Compare ``new`` with ``old`` on the rows that were held back."""
    kept = [s for s in stretches if s.held.any()]
    ratios = [(old.score(s.x, s.t_ms), new.score(s.x, s.t_ms)) for s in kept]
    known = [s.held & np.isfinite(a) & np.isfinite(b) for s, (a, b) in zip(kept, ratios, strict=True)]
    reach = max(old.reach, new.reach)
    sound = [at & ~_aftermath(one, other, reach) for at, (one, other) in zip(known, ratios, strict=True)]
    was, now = (
        np.concatenate([np.zeros(0), *(r[i][at] for r, at in zip(ratios, sound, strict=True))])
        for i in (0, 1)
    )
    both = (was > 1.0) & (now > 1.0)
    n = int((~both).sum())
    anomalous = sum(int(at.sum()) for at in known) - n
    if n < ROWS_LEAST:
        besides = f" besides {anomalous} that both find anomalous" if anomalous else ""
        why = f"only {n} rows{besides} are left that neither model has learned, and {ROWS_LEAST} are needed"
        return Comparison("unknown", why, n, anomalous)
    a, b = was[~both], now[~both]
    at = zip(*(np.quantile(part, [0.5, 0.9, 0.99]).tolist() for part in (a, b)), strict=True)
    median, q90, q99 = at
    calm = [at & (one <= 1.0) & (other <= 1.0) for at, (one, other) in zip(sound, ratios, strict=True)]
    probes, finds = _found(old, new, kept, calm)
    facts = _Facts(
        ks_distance(a, b),
        (q90, q99),
        (float(np.mean(was > 1.0)), float(np.mean(now > 1.0))),
        float(np.mean((was > 1.0) != (now > 1.0))),
        float(np.mean((was > CRITICAL) & (now <= 1.0))),
        probes,
        finds,
    )
    verdict, why = _judged(facts)
    return Comparison(
        verdict=verdict,
        why=why,
        rows=n,
        set_aside=anomalous,
        ks_distance=facts.ks,
        median=median,
        q90=q90,
        q99=q99,
        beyond=facts.beyond,
        different=facts.different,
        lost=facts.lost,
        probes=probes,
        finds=finds,
    )


def _aftermath(one: F64, other: F64, reach: int) -> Bool:
    """Rows that are critical to both models, and those whose windows look back on one: how long a fault
    echoes in a model says nothing about how it judges what is normal."""
    ends = np.flatnonzero((np.nan_to_num(one) > CRITICAL) & (np.nan_to_num(other) > CRITICAL))
    edges = np.zeros(len(one) + 1, np.int64)
    np.add.at(edges, ends, 1)
    np.add.at(edges, np.minimum(ends + reach, len(one)), -1)
    out: Bool = np.cumsum(edges[:-1]) > 0
    return out


class _Facts(NamedTuple):
    """What the verdict is made of."""

    ks: float
    upper: tuple[tuple[float, float], ...]
    beyond: tuple[float, float]
    different: float
    lost: float
    probes: int
    finds: tuple[float, float]


def _judged(facts: _Facts) -> tuple[Verdict, str]:
    """The verdict, and why: first what would do harm."""
    was, now = facts.beyond
    found, finds = facts.finds
    if facts.probes >= PROBES_LEAST and found - finds > MISSED_MAX:
        return "worse", (
            f"it finds {finds:.0%} of {facts.probes} disturbances of which the model in use finds {found:.0%}"
        )
    if now - was > NOISIER_MAX:
        return "worse", f"{now:.1%} of the rows are beyond its line, of the model in use {was:.1%}"
    if facts.lost > LOST_MAX:
        return "changed", (
            f"it calls normal {facts.lost:.1%} of the rows, which are critical to the model in use; the "
            "machine has changed, or a fault was learned"
        )
    if was - now > DIFFERENT_MAX:
        return "changed", (
            f"it calls normal what the model in use calls anomalous: {was:.1%} of the rows are beyond the "
            f"line in use, {now:.1%} beyond its own; the machine has changed, or a fault was learned"
        )
    if facts.different > DIFFERENT_MAX:
        return "worse", f"it judges {facts.different:.0%} of the rows differently"
    times = [(b + ALIKE_BELOW) / (a + ALIKE_BELOW) for a, b in facts.upper]
    if max(times) > HIGHER_MAX:
        return "worse", f"its upper errors are {max(times):.1f} times those of the model in use"
    if facts.ks > KS_BETTER and max(times) < 1.0:
        return "better", "its errors are lower, and it finds as many disturbances"
    return "comparable", "it judges the rows as the model in use does, and finds as many disturbances"


def _found(
    old: Candidate, new: Candidate, stretches: Sequence[Stretch], calm: Sequence[Bool]
) -> tuple[int, tuple[float, float]]:
    """How many disturbances there were, and the part that each model found: one row of it beyond the line."""
    found = [
        [_hit(model.score(x, stretch.t_ms), places) for model in (old, new)]
        for stretch, quiet in zip(stretches, calm, strict=True)
        for x, places in _disturbed(stretch, quiet, old.deviation, max(old.reach, new.reach))
    ]
    if not found:
        return 0, (float("nan"),) * 2
    one, other = (np.concatenate([pair[i] for pair in found]) for i in (0, 1))
    return len(one), (float(one.mean()), float(other.mean()))


def _hit(ratio: F64, places: Sequence[int]) -> Bool:
    """Which of the disturbances that begin at these rows were found."""
    beyond = np.nan_to_num(ratio) > 1.0
    return np.array([beyond[i : i + MOVED_ROWS].any() for i in places], np.bool_)


def _disturbed(stretch: Stretch, calm: Bool, deviation: F64, reach: int) -> Iterator[tuple[F64, list[int]]]:
    """The rows again and again, each time with other metrics disturbed at other places: moved up, moved down,
    or as they were half of the rows away, which breaks only what a metric has in common with the others."""
    n, k = stretch.x.shape
    apart = reach + MOVED_ROWS
    for once in range(PASSES):
        x, places = stretch.x.copy(), _places(calm, once * apart // PASSES, apart)
        for j, i in enumerate(places):
            here, metric, kind = slice(i, i + MOVED_ROWS), (j + once) % k, ((j + once) // k) % 3
            away = MOVED_BY * deviation[metric]
            if kind == 2:
                x[here, metric] = stretch.x[(np.arange(i, i + MOVED_ROWS) + n // 2) % n, metric]
            else:
                x[here, metric] += away if kind == 0 else -away
        if places:
            yield x, places


def _places(calm: Bool, start: int, apart: int) -> list[int]:
    """Rows, so far apart, at which MOVED_ROWS calm ones begin."""
    good = np.concatenate([[0], np.cumsum(calm)])
    starts = np.flatnonzero(good[MOVED_ROWS:] - good[:-MOVED_ROWS] == MOVED_ROWS)
    places, at = list[int](), start + int(starts[0]) if len(starts) else 0
    while (j := int(np.searchsorted(starts, at))) < len(starts):
        places.append(int(starts[j]))
        at = places[-1] + apart
    return places
