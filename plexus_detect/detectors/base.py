"""What a detector is: the protocol that every algorithm here follows, and the registry of names.

Laws (each is a test that runs over every registered detector): causal, a point is scored before it is
learned, not ready is NaN, batching does not change a score, a dump and load changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt

from plexus_detect.series import I64, Points, Scores

Columns = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class DetectorParams:
    """The settings of a detector; its fingerprint says whether a snapshot fits.

    ``threshold`` deviations are the alert line; ``window`` points make the baseline, scores begin at
    ``min_points``; ``scale_floor`` is the least deviation in the metric's unit; a level that holds for
    ``relearn_ms`` becomes the new normal; ``close_after`` points inside the line end a suspicion.
    """

    threshold: float = 3.0
    window: int = 300
    min_points: int = 30
    scale_floor: float = 0.0
    relearn_ms: int = 3_600_000
    close_after: int = 3

    def fingerprint(self) -> str:
        """All settings as one stable text."""
        return ",".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))


class Detector(Protocol):
    """Scores a bank of series: state is columns, one row a series."""

    params: DetectorParams

    def __init__(self, params: DetectorParams) -> None: ...

    def __len__(self) -> int:
        """Number of series in the bank."""
        ...

    def grow(self, n_series: int) -> None:
        """Room for ``n_series`` series; the new ones know nothing yet."""
        ...

    def step(self, points: Points) -> Scores:
        """Score every point, then learn it; ``points.series`` are rows of this bank, times ascending."""
        ...

    def ready_count(self, rows: I64) -> I64:
        """How many points each row has learned: the state word "warming 12 of 30" needs it."""
        ...

    def relearned(self) -> I64:
        """Positions, in the points of the last step, at which a series took a new level as normal."""
        ...

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns, for a snapshot."""
        ...

    def load(self, columns: Columns) -> None:
        """Take over what ``dump`` gave under the same parameters."""
        ...
