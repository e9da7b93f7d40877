"""The detectors by name; one algorithm a file.

``drift``, ``season``, ``noise`` and ``stuck`` are single checks of ``auto``, each against its own line.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from plexus_detect.detectors.auto import Auto
from plexus_detect.detectors.base import Detector, DetectorParams
from plexus_detect.detectors.ewma import Ewma
from plexus_detect.detectors.gap import Gap
from plexus_detect.detectors.robust import Robust
from plexus_detect.detectors.zscore import ZScore
from plexus_detect.series import Reason

REGISTRY: dict[str, Callable[[DetectorParams], Detector]] = {
    "auto": Auto,
    "zscore": ZScore,
    "robust": Robust,
    "ewma": Ewma,
    "gap": Gap,
    "drift": partial(Auto, reasons={Reason.LEVEL, Reason.DRIFT}),
    "season": partial(Auto, reasons={Reason.SEASON}),
    "noise": partial(Auto, reasons={Reason.STEP, Reason.NOISE, Reason.QUIET}),
    "stuck": partial(Auto, reasons={Reason.STUCK, Reason.RARE}),
}
DEFAULT = "auto"

__all__ = ["DEFAULT", "REGISTRY", "Auto", "Detector", "DetectorParams", "Ewma", "Gap", "Robust", "ZScore"]
