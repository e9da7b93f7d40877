"""What the checks of the detector "auto" share: points and panes in, readings out.

A pane is ``PANE`` points of one series in their order. Between two panes everything a check compares with
rests, so that all points of a pane, or one point of each of many series, are scored by the same operations
in the same order: the result does not depend on how points are batched. When a pane is full it is learned.
Values are relative to the first value of their series, which keeps digits of small changes of large values.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Snapshot
from plexus_detect.series import F64, I64, Bool, Reason, Rows

PANE = 16

# Below this a scale is no scale.
TINY = 1e-300


class Block(NamedTuple):
    """Points to be scored: m series (``rows``, distinct), w points of each, none across the end of a pane.

    Matrices (m, w): ``x`` the values, ``smooth`` their running median of three, ``step`` the distance from
    the nearer of the two values before, ``same`` where there is none from the last, ``run`` how many equal
    values in a row, ``mean8`` the mean of the last eight medians, ``floor`` the resolution: the smallest step
    seen so far, infinite before any. ``at`` are the rows as a slice, if they lie together.
    """

    rows: I64
    at: Rows
    t_ms: I64
    x: F64
    smooth: F64
    step: F64
    same: Bool
    run: F64
    mean8: F64
    floor: F64


class Pane(NamedTuple):
    """Full panes of m series: matrices (m, PANE) of times, values, their running medians of three, steps,
    and ``ordered``, the values sorted; columns of length m: ``floor`` the resolution, ``panes`` how many
    there were with this one, ``cadence_ms`` the typical interval, ``mean`` of the running medians."""

    rows: I64
    t_ms: I64
    x: F64
    smooth: F64
    step: F64
    floor: F64
    panes: F64
    cadence_ms: F64
    mean: F64
    ordered: F64

    def take(self, at: Bool) -> Pane:
        """The panes where ``at`` holds."""
        return Pane(self.rows[at], self.t_ms[at], *(column[at] for column in self[2:]))


class Reading(NamedTuple):
    """What a check says of a block, (m, w) or (m, 1): its value is |observed - centre| / scale, and nothing
    where the scale is infinite."""

    observed: F64
    centre: F64
    scale: F64


class Part(NamedTuple):
    """One value a point that a check gives; ``says`` is what it compares, for people.

    ``floor`` is the least value that can be at the alert line and ``weight`` divides the line;
    ``fades`` tells how an alarm is discounted once it was given: within a pane, by the point, or after it.
    """

    reason: Reason
    says: str
    floor: float
    weight: float
    fades: bool


class Check(Protocol):
    """One of the algorithms that "auto" combines: columns of state, one row a series."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the check gives a point."""
        ...

    def read(self, block: Block) -> list[Reading]:
        """One reading for each of ``parts``; its scale is infinite while there is nothing to compare with."""
        ...

    def learn(self, pane: Pane) -> None:
        """Take in full panes."""
        ...

    def accept(self, pane: Pane) -> None:
        """Take the level of these panes, just learned, as the new normal."""
        ...

    def resume(self, rows: I64, gap_panes: F64) -> None:
        """Series go on after a silence of so many panes."""
        ...

    def grow(self, n: int) -> None:
        """Room for ``n`` series."""
        ...

    def save(self, prefix: str = "") -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns."""
        ...

    def restore(self, columns: Snapshot, prefix: str = "") -> None:
        """Take over what ``save`` gave."""
        ...


def clipped(value: F64, limit: F64) -> F64:
    """``value`` within +-``limit``: a Huber step, so that no value moves an estimate by more."""
    return np.minimum(np.maximum(value, -limit), limit)
