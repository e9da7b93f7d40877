"""What a detector is: the protocol that every algorithm here follows, and the registry of names.

Laws (each is a test that runs over every registered detector): causal, a point is scored before it is
learned, not ready is NaN, batching does not change a score, a dump and load changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Snapshot
from plexus_detect.series import I64, Points, Reason, Scores
from plexus_detect.stats import Z_MAX


@dataclass(frozen=True)
class DetectorParams:
    """The settings of a detector; its fingerprint says whether a snapshot fits.

    ``threshold`` deviations are the alert line; ``window`` points make the baseline, scores begin at
    ``min_points``; ``scale_floor`` is the least deviation in the metric's unit; a level that holds for
    ``relearn_ms`` becomes the new normal; ``close_after`` points inside the line end a suspicion.
    ``window_ms`` is the baseline as a duration, where it was given as one; ``timezone`` (an IANA name) is
    that of the hours and days of a season.
    """

    threshold: float = 3.0
    window: int = 300
    min_points: int = 30
    scale_floor: float = 0.0
    relearn_ms: int = 3_600_000
    close_after: int = 3
    window_ms: int | None = None
    timezone: str = "UTC"

    def fingerprint(self) -> str:
        """All settings as one stable text."""
        return ",".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))


class Term(NamedTuple):
    """One of the scores that a detector can give a point, as numbers: of several the largest counts.

    ``observed`` and ``centre`` are what ``says`` names, levels relative to the receipt's origin; without
    anything to compare with yet, ``scale`` is infinite. ``z`` gives the detector's own bits.
    """

    reason: Reason
    says: str
    observed: float
    centre: float
    scale: float
    factor: float = 1.0
    most: float = Z_MAX
    sign: float = 1.0

    @property
    def z(self) -> float:
        """The score, operation by operation as the detector computes it."""
        distance = min(abs((self.observed - self.centre) / self.scale), self.most)
        return self.sign * min(distance * self.factor, Z_MAX)


class Receipt(NamedTuple):
    """What the score of a point is made from, before that point is learned.

    ``terms`` are empty while there is no score. ``learned`` points are known, scores begin with ``needed``
    ones; at most ``window`` make the baseline (None: older ones fade). ``aside`` points of a suspicion are
    kept out of the baseline (None: none are, what they move is bounded). The typical interval and the
    smallest step seen are None until known or where the detector measures none.
    """

    terms: tuple[Term, ...]
    learned: int
    needed: int
    window: int | None = None
    aside: int | None = None
    cadence_ms: float | None = None
    resolution: float | None = None
    origin: float = 0.0

    @property
    def deciding(self) -> Term | None:
        """The term whose score is the detector's: the first of the largest."""
        return max(self.terms, key=lambda term: abs(term.z), default=None)


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

    def receipt(self, points: Points) -> Receipt:
        """What ``step`` would make the score of this one point from; the state stays as it is."""
        ...

    def relearned(self) -> I64:
        """Positions, in the points of the last step, at which a series took a new level as normal."""
        ...

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns, for a snapshot."""
        ...

    def load(self, columns: Snapshot) -> None:
        """Take over what ``dump`` gave under the same parameters."""
        ...
