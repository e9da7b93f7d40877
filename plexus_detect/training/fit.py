"""One fit: rows that stand out are left out, a part is held back, the line is measured on that part."""

from __future__ import annotations

import hashlib
import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from plexus_detect.errors import FitError
from plexus_detect.learn.fitted import Card, Fitted
from plexus_detect.learn.gate import refusal
from plexus_detect.learn.job import Fit, Job
from plexus_detect.learn.model import Model
from plexus_detect.learn.support import Support, support_of
from plexus_detect.learn.tail import Tail, tail_of
from plexus_detect.series import F64, I64, Bool
from plexus_detect.training.backends import FIT

# Fewer rows than this cannot be divided into some to fit and some to measure the line on.
ROWS_LEAST = 8

# Of the rows every n-th block is held back: of many rows a quarter, of few a third.
HELD_EVERY, HELD_EVERY_FEW, FEW = 4, 3, 200
BLOCKS = 20

# A row with a value so many deviations from the middle is left out, as far as the contamination allows.
DEVIATIONS = 6.0

# The deviation is taken from quantiles that this share of bad rows on one side does not move.
SHARE_LEAST, SHARE_MOST = 0.05, 0.25

# If this share of the rows has every column, a model is fitted to these.
WHOLE_LEAST = 0.5

# A column is known by so many values, or by a fourth of the rows: one that has only just appeared is left for
# the next fit, as from a few values its every further one would be far out.
VALUES_LEAST = 20

# What a rolling window says is known from so many windows without common rows.
WINDOWS_LEAST = 8

# So many training rows stay with the model for attribution.
REFERENCE = 256


class _Columns(NamedTuple):
    """Of each feature: its median, its deviations below and above, and whether it has values, (f,)."""

    centre: F64
    below: F64
    above: F64
    known: Bool

    @property
    def scale(self) -> F64:
        """One deviation for both sides."""
        return np.maximum(self.below, self.above)


def fit(job: Job) -> Fit:
    """The model of a job. The same job gives the same bits.

    Raises FitError when there are too few rows, or the backend cannot be fitted to them.
    """
    if len(job.x) < ROWS_LEAST:
        raise FitError(f"Need at least {ROWS_LEAST} samples for training, got {len(job.x)}")
    columns = _columns(job)
    there = np.isfinite(job.x) | ~columns.known
    whole = there.all(axis=1)
    if whole.mean() < WHOLE_LEAST or whole.sum() < ROWS_LEAST:
        # Too few rows have all columns: what is missing counts as the usual value of its column.
        whole = np.ones(len(there), np.bool_)
    at = np.flatnonzero(whole)
    x = np.where(np.isfinite(job.x) & columns.known, job.x, columns.centre)[at]
    expected = job.contamination * len(x)
    # The share is that of all rows ever; in these there may be more by chance: three deviations of a Poisson
    # count. Most of them are never left out.
    spare = min(math.ceil(expected + 3.0 * math.sqrt(expected)), len(x) // 2)
    kept = _kept(x, job.flagged[at], columns, spare)
    model, support, tails, held = _fitted(x, kept, job)
    # What the fit itself finds beyond its line is left out of a second one, so that it cannot hide its like.
    rows = x[kept]
    ratio = np.maximum(tails[0].ratio(model.raw(rows)), tails[1].ratio(support.nats(rows).max(axis=1)))
    beyond = kept[ratio > 1.0]
    if 0 < len(beyond) <= spare - (len(x) - len(kept)):
        kept = np.setdiff1d(kept, beyond)
        model, support, tails, held = _fitted(x, kept, job)
    card = Card(
        backend=job.backend,
        rows=len(kept) - len(held),
        left_out=len(job.x) - len(kept),
        held_back=len(held),
        contamination=job.contamination,
        seed=job.seed,
        data_hash=hashlib.sha256(np.ascontiguousarray(job.x).tobytes()).hexdigest()[:16],
        from_ms=job.span_ms[0],
        to_ms=job.span_ms[1],
    )
    reference = x[kept[:: max(1, -(-len(kept) // REFERENCE))]]
    about = columns.centre, columns.scale, columns.known, reference
    fitted = Fitted(job.names, job.features, *about, model, tails[0], support, tails[1], card)
    try:
        fitted.check()
    except ValueError as error:
        raise FitError(f"the {job.backend} fitted to these rows cannot be used: {error}") from None
    refused = None if job.old is None else refusal(job.old, fitted, job.x[at[held]])
    return Fit(fitted, at[np.setdiff1d(kept, held)], at[held], refused)


def _columns(job: Job) -> _Columns:
    """What is usual for each feature, in spite of some bad rows."""
    x, values = job.x, max(2, min(VALUES_LEAST, len(job.x) // 4))
    reach = job.features.reach(len(job.names))
    known = np.isfinite(x).sum(axis=0) >= np.maximum(values, np.where(reach > 1, WINDOWS_LEAST * reach, 1))
    if not known.any():
        raise FitError(f"no column holds numbers in {values} of the {len(x)} rows; send numeric values")
    filled = np.where(known, np.where(np.isfinite(x), x, np.nan), 0.0)
    tail = min(max(job.contamination, SHARE_LEAST), SHARE_MOST)
    low, centre, high = np.nanquantile(filled, [tail, 0.5, 1.0 - tail], axis=0)
    width = NormalDist().inv_cdf(1.0 - tail)
    least = np.maximum(np.maximum(0.05 * np.nanstd(filled, axis=0), 1e-6 * np.abs(centre)), 1e-12)
    below, above = (np.maximum(side / width, least) for side in (centre - low, high - centre))
    return _Columns(centre, below, above, known)


def _kept(x: F64, flagged: F64, columns: _Columns, spare: int) -> I64:
    """Positions of the rows to learn from: those that were flagged when they came are left out first, then
    those that stand out, the furthest first, ``spare`` at most."""
    away = np.maximum((x - columns.centre) / columns.above, (columns.centre - x) / columns.below).max(axis=1)
    seen_bad = np.nan_to_num(flagged, nan=0.0) > 1.0
    bad = np.flatnonzero(seen_bad | (away > DEVIATIONS))
    first = bad[np.lexsort((-away[bad], ~seen_bad[bad]))][:spare]
    return np.setdiff1d(np.arange(len(x)), first)


def _fitted(x: F64, kept: I64, job: Job) -> tuple[Model, Support, tuple[Tail, Tail], I64]:
    """A model of these rows, where it has seen data, its two lines, and the rows held back for them."""
    every = HELD_EVERY if len(kept) >= FEW else HELD_EVERY_FEW
    # Rows nearer to each other than a window have much of it in common: held back with their like.
    window = max((w for w in job.features.rolling if WINDOWS_LEAST * w <= len(kept)), default=1)
    block = np.arange(len(kept)) // max(1, len(kept) // BLOCKS, window)
    out = block % every == every - 1
    seen, held = x[kept[~out]], kept[out]
    model = job.given or FIT[job.backend](seen, job.contamination, job.seed)
    support = support_of(seen, len(job.names))
    tails = tail_of(model.raw(x[held]), alike=window), tail_of(support.nats(x[held]).max(axis=1), 1.0)
    return model, support, tails, held
