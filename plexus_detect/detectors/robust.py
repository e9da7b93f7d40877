"""Rolling median and median absolute deviation: a z-score that half of its own window cannot mislead.

z = (x - median) / max(1.4826 x median absolute deviation, resolution, floor) over the last ``window``
accepted points, with 1.2533 x mean absolute deviation where more than half of the values are one. It is
Hampel's identifier (Hampel, "The influence curve and its role in robust estimation", JASA 69, 1974; scale
factors: Rousseeuw and Croux, JASA 88, 1993; its use on data: Leys et al., Journal of Experimental Social
Psychology 49, 2013) over the points before the one that is scored. Guard and relearning: see ``guarded``;
a window that is a duration: see ``ringed``.
"""

from __future__ import annotations

from plexus_detect.detectors.base import DetectorParams
from plexus_detect.detectors.medians import AheadOrdered, MedianBank
from plexus_detect.detectors.ringed import Ringed
from plexus_detect.series import Reason


class Robust(Ringed[AheadOrdered]):
    """The detector "robust": see the module's text."""

    REASON = Reason.ROBUST
    SAYS = "the value against the median of the window"

    # Every point of a stretch sorts a window, so what is thrown away is dear.
    STRETCH_POINTS = 128

    def __init__(self, params: DetectorParams) -> None:
        super().__init__(params, MedianBank(0, params.window))
