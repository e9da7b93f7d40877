"""Packing derived points for delivery, and what the outcome of a delivery means.

Facts of the platform (contract sections 3 and 5): nothing is de-duplicated, so a repeated post is a
second row; an answer can be lost although its points were stored; a whole source can be dropped while
the answer says success and only its count is short; monitors judge points when they arrive, so an old
score pages a person now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from plexus_detect.series import SUFFIX, Bool, Derived, Kind, Points, SeriesKey, SeriesTable
from plexus_detect.wire import encode_points

_KIND_NAMES = {int(kind): suffix for kind, suffix in SUFFIX.items()}


@dataclass(frozen=True)
class Verdict:
    """What to do with a delivered batch: ``settled`` it is done; otherwise ask the platform what it has."""

    settled: bool
    short: int = 0


def pack(derived: Derived, points_max: int) -> list[Derived]:
    """Batches of at most ``points_max`` points in order of time, so that a source's points stay in order."""
    order = np.argsort(derived.t_ms, kind="stable")
    return [derived.take(order[i : i + points_max]) for i in range(0, len(order), points_max)]


def in_time(derived: Derived, now_ms: int, age_ms_max: int, *, keep: bool) -> Derived:
    """What may be posted now: samples older than ``age_ms_max`` would page a person about the past.

    With ``keep`` their scores get a name that nobody watches (ZSCORE_LATE), else they are left out like the
    other kinds of old points. The batch itself where nothing is too old.
    """
    old = (derived.t_ms < now_ms - age_ms_max) & (derived.kind != Kind.ZSCORE_LATE)
    if not old.any():
        return derived
    late = old & (derived.kind == Kind.ZSCORE) & keep
    kind = np.where(late, np.int8(Kind.ZSCORE_LATE), derived.kind)
    return replace(derived, kind=kind).take(~old | late)


def names(derived: Derived, keys: Sequence[SeriesKey]) -> tuple[list[str], list[str]]:
    """The source and the metric name of each derived point."""
    pairs = [keys[i] for i in derived.series.tolist()]
    ends = [_KIND_NAMES[k] for k in derived.kind.tolist()]
    return [pair[0] for pair in pairs], [pair[1] + end for pair, end in zip(pairs, ends, strict=True)]


def body(derived: Derived, keys: Sequence[SeriesKey]) -> bytes:
    """The body of ``POST /ingest`` for these points."""
    return encode_points(*names(derived, keys), derived.t_ms, derived.value)


def judge(sent: int, accepted: int) -> Verdict:
    """A short count means that whole sources were dropped, but not which: only reading back tells."""
    return Verdict(accepted >= sent, max(0, sent - accepted))


def missing(derived: Derived, keys: Sequence[SeriesKey], stored: Points, table: SeriesTable) -> Bool:
    """Which derived points are not among ``stored`` (decoded with ``table``), by source, metric and time."""
    have = set(zip(stored.series.tolist(), stored.t_ms.tolist(), strict=True))
    sources, metrics = names(derived, keys)
    index = [table.by_source.get(s, {}).get(m, -1) for s, m in zip(sources, metrics, strict=True)]
    pairs = zip(index, derived.t_ms.tolist(), strict=True)
    return np.array([pair not in have for pair in pairs], np.bool_)


def derived_metrics(derived: Derived, keys: Sequence[SeriesKey]) -> list[str]:
    """The distinct metric names of these points, sorted."""
    codes = np.unique(derived.series * len(Kind) + derived.kind)
    return sorted({keys[c // len(Kind)].metric + _KIND_NAMES[c % len(Kind)] for c in codes.tolist()})
