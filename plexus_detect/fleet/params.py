"""The settings of a fleet."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class FleetParams:
    """``threshold`` is the alert line in the units of z; ``group_min`` fresh sources make a group, and scores
    of a source begin at ``min_points``; ``bucket_ms`` and ``stale_ms`` of None follow the cadence (a source
    is stale after 3 buckets); ``offset_window`` points is the least memory of a device's offset, which lasts
    half a day at least; ``scale_floor`` is the least deviation in the metric's unit; a suspicion ends after
    ``close_after`` points inside or, when it has lasted ``relearn_ms``, as the new normal."""

    threshold: float = 3.0
    group_min: int = 5
    min_points: int = 30
    offset_window: int = 300
    bucket_ms: int | None = None
    stale_ms: int | None = None
    scale_floor: float = 0.0
    relearn_ms: int = 86_400_000
    close_after: int = 3

    def fingerprint(self) -> str:
        """All settings as one stable text."""
        return ",".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))
