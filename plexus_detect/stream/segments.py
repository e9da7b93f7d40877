"""Where a batch has to be cut so that the whole is as if every message had been taken alone.

``evaluate`` gives the same for any cuts of a stream, but for what two messages share: who is compared, when
a newcomer joins a fleet or the budget (``shares``); and rows of groups, when a message comes out of order or
lacks one of their metrics (``cuts``). There, and only there, a message begins a part of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plexus_detect.groups import Group
from plexus_detect.lane import Policy
from plexus_detect.series import I64, Bool, Points


@dataclass(frozen=True)
class Seen:
    """n messages of a batch: the points of all, the message of each point; which messages are older
    than their device's newest one, and which say a late time once more."""

    points: Points
    message: I64
    disordered: Bool
    doubled: Bool


def shares(policy: Policy) -> bool:
    """Whether what is said of one device depends on others."""
    fleets = any(rule.fleet is not None for rule in policy.rules)
    return fleets or policy.alerts_per_day is not None or any(group.shared for group in policy.groups)


def cuts(seen: Seen, policy: Policy, groups: list[Group]) -> I64:
    """The messages that begin a part, ascending."""
    n = len(seen.doubled)
    begins = seen.doubled.copy()
    if policy.groups:
        alone = seen.disordered.copy()
        for group in groups:
            if group.rule.shared:
                alone |= _unsure(seen, group)
        begins |= alone
        begins[1:] |= alone[:-1]
    begins[: min(n, 1)] = False
    return np.flatnonzero(begins)


def _unsure(seen: Seen, group: Group) -> Bool:
    """Messages whose rows may be closed by others than their own points: of those that lack a metric on."""
    n, k = len(seen.doubled), group.join.k
    fresh = ~seen.points.late & (seen.points.series < len(group.cell_of))
    series, message = seen.points.series[fresh], seen.message[fresh]
    mine = np.bincount(message[group.cell_of[series] >= 0], minlength=n)
    partial = (mine > 0) & (mine < k)
    return np.logical_or.accumulate(partial) if not len(group.join.cell) else np.ones(n, np.bool_)
