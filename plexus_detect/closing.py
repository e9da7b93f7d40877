"""Which alerts the platform may have open because of what we posted, and what it takes to close them. Pure.

Facts of the platform (contract section 5.1): one value above a monitor's bound opens an alert at once; it
closes when two values inside the bound arrive 30 s or more apart, by the clock of the platform. So whoever
posted a value above 0 owes two zeros, that far apart. They come with the samples that follow, as long as
there are scores; this room knows the debts of series that have none any more. A device's own source gets no
point without a sample of its own: that would be a sign of life (contract section 5.3).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from plexus_detect.series import I64, Bool, Derived, Kind, Points, SeriesKey

# What monitors watch.
MONITORED = (Kind.ZSCORE, Kind.FLEET_ZSCORE, Kind.ANOMALY, Kind.ZSCORE_CRITICAL)

# The platform's 30 s and what may lie between our clock and its.
CALM_MS = 35_000

# A debt that no sample came to pay is forgotten: the platform's offline monitor has long said why.
FORGET_MS = 7 * 86_400_000

Alert = tuple[int, int]  # series and kind


class Debt(NamedTuple):
    """``since_ms``: the sample that may have opened the alert; ``calm_ms``: when the first value inside the
    bound after the last one outside was accepted (None: none yet)."""

    since_ms: int
    calm_ms: int | None = None


@dataclass(frozen=True)
class AlertChanges:
    """What a delivery changed: debts to put down, and those that are paid."""

    put: Mapping[Alert, Debt] = field(default_factory=dict)
    gone: Collection[Alert] = ()

    def __bool__(self) -> bool:
        return bool(self.put or self.gone)


def delivered(derived: Derived, now_ms: int, debts: Mapping[Alert, Debt]) -> AlertChanges:
    """What becomes of the debts when points, each series' in order of time, are accepted at ``now_ms``."""
    at = np.flatnonzero(np.isin(derived.kind, MONITORED))
    breaching = derived.series[at[derived.value[at] > 0.0]]
    owing_ones = np.array([series for series, _kind in debts], np.int64)
    at = at[np.isin(derived.series[at], np.append(breaching, owing_ones))]
    # One alert after the other, each in order of time.
    at = at[np.lexsort((derived.kind[at], derived.series[at]))]
    series, kind = derived.series[at].tolist(), derived.kind[at].tolist()
    starts = [i for i in range(len(at)) if i == 0 or (series[i], kind[i]) != (series[i - 1], kind[i - 1])]
    put, gone = {}, []
    for start, end in pairwise([*starts, len(at)]):
        alert, mine = (series[start], kind[start]), at[start:end]
        debt = debts.get(alert)
        breach = derived.value[mine] > 0.0
        if debt is None and not breach.any():
            continue
        after = _after(derived.t_ms[mine], breach, now_ms, debt)
        if after is None:
            gone.append(alert)
        elif after != debt:
            put[alert] = after
    return AlertChanges(put, gone)


def _after(t_ms: I64, breach: Bool, now_ms: int, debt: Debt | None) -> Debt | None:
    """The debt of one alert after a delivery; None when it is paid."""
    if breach.any():
        since_ms = int(t_ms[np.argmax(breach)]) if debt is None else debt.since_ms
        return Debt(since_ms, None if breach[-1] else now_ms)
    if debt is None or (debt.calm_ms is not None and now_ms - debt.calm_ms >= CALM_MS):
        return None
    return debt if debt.calm_ms is not None else debt._replace(calm_ms=now_ms)


def owing(debts: Collection[Alert], kind: Kind, n: int) -> Bool:
    """Which of ``n`` series owe zeros of a kind."""
    out = np.zeros(n, np.bool_)
    out[[series for series, of in debts if of == kind and series < n]] = True
    return out


def zeros(debts: Collection[Alert], points: Points, keys: list[SeriesKey]) -> Derived:
    """A zero for each debt whose source has just sent something, at the time of its newest sample."""
    newest: dict[str, int] = {}
    fresh = points.take(~points.late)
    for series, t_ms in zip(fresh.series.tolist(), fresh.t_ms.tolist(), strict=True):
        source = keys[series].source
        newest[source] = max(newest.get(source, 0), t_ms)
    paid = [alert for alert in sorted(debts) if keys[alert[0]].source in newest]
    return Derived(
        np.array([series for series, _ in paid], np.int64),
        np.array([kind for _, kind in paid], np.int8),
        np.array([newest[keys[series].source] for series, _ in paid], np.int64),
        np.zeros(len(paid)),
    )
