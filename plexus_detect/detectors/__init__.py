"""The detectors by name; one algorithm a file."""

from __future__ import annotations

from plexus_detect.detectors.base import Detector, DetectorParams
from plexus_detect.detectors.zscore import ZScore

REGISTRY: dict[str, type[Detector]] = {"zscore": ZScore}
DEFAULT = "zscore"

__all__ = ["DEFAULT", "REGISTRY", "Detector", "DetectorParams", "ZScore"]
