"""The tables of one platform, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from plexus_detect.sandbox.alerts import AlertStore
from plexus_detect.sandbox.monitors import MonitorStore
from plexus_detect.sandbox.points import PointStore
from plexus_detect.sandbox.sources import SourceStore


@dataclass(frozen=True)
class Stores:
    """What the engines and the services read and write."""

    points: PointStore
    sources: SourceStore
    monitors: MonitorStore
    alerts: AlertStore
