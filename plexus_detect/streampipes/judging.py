"""One verdict for each event, of all detectors together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from plexus_detect.series import F64, I64, Bool
from plexus_detect.streampipes.groups import Findings, RowGroup
from plexus_detect.streampipes.reading import Verdict
from plexus_detect.streampipes.statistics import Statistics


class Judging:
    """The detectors of all devices, with what they remember; it outlives every connection."""

    def __init__(self, groups: Sequence[RowGroup], statistics: Statistics | None) -> None:
        self.groups = tuple(groups)
        self.statistics = statistics
        self._newest: dict[str, int] = {}

    def preload(self) -> None:
        """Read the models that are there."""
        for group in self.groups:
            group.preload()

    def refresh(self) -> None:
        """Take the versions of models that are in use now."""
        for group in self.groups:
            group.refresh()

    def step(self, devices: Sequence[str], t_ms: I64, x: F64, now_ms: int) -> list[Verdict]:
        """Judge rows, (m, k), in the order of their arrival.

        The score of an event is the largest of all detectors. An event that is not newer than one before it
        of its device, or that came before, is judged, but neither learned nor part of an episode.
        """
        if not devices:
            return []
        late = self._late(devices, t_ms)
        findings = [group.step(devices, t_ms, x, late) for group in self.groups]
        if self.statistics is not None:
            findings.append(self.statistics.step(devices, t_ms, x, late, now_ms))
        return [_verdict(findings, i) for i in range(len(devices))]

    def warm(self, devices: Sequence[str], t_ms: I64, x: F64) -> None:
        """Let the statistics learn rows of the past, in order of time; nothing is said of them."""
        if self.statistics is not None and devices:
            late = self._late(devices, t_ms)
            self.statistics.step(devices, t_ms, x, late, int(t_ms.max()))

    def _late(self, devices: Sequence[str], t_ms: I64) -> Bool:
        late = np.zeros(len(devices), np.bool_)
        for i, (device, at) in enumerate(zip(devices, t_ms.tolist(), strict=True)):
            late[i] = at <= self._newest.get(device, -1)
            if not late[i]:
                self._newest[device] = at
        return late


def _verdict(findings: Sequence[Findings], i: int) -> Verdict:
    scores = [float(found.score[i]) for found in findings]
    known = sorted((-score, place) for place, score in enumerate(scores) if score == score)
    is_open = any(bool(found.in_episode[i]) for found in findings)
    if not known:
        why = [found.reason[i] for found in findings if found.reason[i]]
        said = "; ".join(why) or "no detector takes this device"
        return Verdict(float("nan"), is_anomaly=False, in_episode=is_open, reason=said)
    beyond = [findings[place].reason[i] for score, place in known if -score > 1.0]
    return Verdict(-known[0][0], bool(beyond), is_open, "; ".join(beyond))
