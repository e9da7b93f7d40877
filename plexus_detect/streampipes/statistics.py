"""Rows of events judged metric by metric, against the past of each, as the worker judges series. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from plexus_detect.evaluate import Policy, State, evaluate
from plexus_detect.series import F64, I64, Bool, Kind, Points, Reason, SeriesTable
from plexus_detect.streampipes.groups import Findings

# Words for a score that is missing.
_WHY = {
    Reason.WARMING: "too few values yet",
    Reason.FLAT: "it never changed yet",
    Reason.STALE: "it was away for too long",
    Reason.NOT_A_NUMBER: "no number",
}


class Statistics:
    """A state of ``evaluate`` for every device and metric, without fleets: those wait for all of their
    devices, and an event is answered at once.

    ``rule_for`` says under which rule a series is scored, None for none; ``series_max`` bounds the memory.
    """

    def __init__(
        self,
        policy: Policy,
        metrics: Sequence[str],
        rule_for: Callable[[str, str], int | None],
        series_max: int,
    ) -> None:
        alone = replace(
            policy,
            rules=tuple(replace(rule, fleet=None) for rule in policy.rules),
            kinds=frozenset({Kind.ZSCORE}),
            groups=(),
        )
        self._state = State(SeriesTable(), alone)
        self._metrics = tuple(metrics)
        self._rule_for = rule_for
        self._series_max = series_max
        self._rows: dict[str, I64] = {}
        self._line = np.zeros(0)

    def _series(self, device: str) -> I64:
        """The series of a device's metrics, -1 for those that are not judged."""
        known = self._rows.get(device)
        if known is None:
            known = np.full(len(self._metrics), -1, np.int64)
            for column, metric in enumerate(self._metrics):
                rule = self._rule_for(device, metric)
                if rule is not None and len(self._state.table) < self._series_max:
                    series = known[column] = self._state.table.add(device, metric)
                    self._state.admit(int(series), rule)
                    self._line = np.append(self._line, self._state.lanes[rule].line.threshold)
            self._rows[device] = known
        return known

    def step(self, devices: Sequence[str], t_ms: I64, x: F64, late: Bool, now_ms: int) -> Findings:
        """Judge rows in the order of their arrival, and learn them."""
        m, k = x.shape
        score, is_open, reason = np.full(m, np.nan), np.zeros(m, np.bool_), [""] * m
        series = np.stack([self._series(device) for device in devices]) if m else np.zeros((0, k), np.int64)
        row, column = np.nonzero((series >= 0) & np.isfinite(x))
        points = Points(series[row, column], t_ms[row], x[row, column], late[row])
        found = evaluate(self._state, points, now_ms)
        size = np.abs(found.scores.z) / self._line[points.series]
        best = np.full((m, k), np.nan)
        best[row, column] = size
        posted = found.derived
        loud = posted.value > 0.0
        pairs = set(zip(posted.series[loud].tolist(), posted.t_ms[loud].tolist(), strict=True))
        place = np.full((m, k), -1, np.int64)
        place[row, column] = np.arange(len(row))
        for i in range(m):
            if np.isnan(best[i]).all():
                at = place[i][place[i] >= 0]
                code = Reason(int(found.scores.reason[at[0]])) if len(at) else Reason.NOT_A_NUMBER
                reason[i] = _WHY.get(code, _WHY[Reason.WARMING])
                continue
            j = int(np.nanargmax(best[i]))
            score[i] = best[i, j]
            is_open[i] = any((s, int(t_ms[i])) in pairs for s in series[i].tolist())
            if score[i] > 1.0:
                p = place[i, j]
                check = Reason(int(found.scores.reason[p])).name.lower()
                expected = float(found.scores.centre[p])
                reason[i] = f"{self._metrics[j]} is {x[i, j]:.6g}, expected {expected:.6g} ({check})"
        return Findings(score, is_open, reason)
