"""Rolling z-score whose baseline excludes the point itself and the points beyond the line.

z = (x - mean) / max(std, resolution, floor) over the last ``window`` accepted points; std is the population
deviation. Inside its own window |z| could never exceed sqrt(n - 1) (Shiffler, The American Statistician 42,
1988), which is why the public tutorial's formula cannot fire. Guard and relearning: see ``guarded``;
a window that is a duration: see ``ringed``.
"""

from __future__ import annotations

from plexus_detect.detectors.base import DetectorParams
from plexus_detect.detectors.ringed import Ringed
from plexus_detect.series import Reason
from plexus_detect.stats import RingBank, Stretch


class ZScore(Ringed[Stretch]):
    """The detector "zscore": see the module's text."""

    REASON = Reason.DEVIATION
    SAYS = "the value against the mean of the window"

    def __init__(self, params: DetectorParams) -> None:
        super().__init__(params, RingBank(0, params.window))
