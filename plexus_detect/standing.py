"""Where all series stand, in a handful of numbers. Pure."""

from __future__ import annotations

import numpy as np

from plexus_detect.cursor import SILENT_MS, SILENT_SAMPLES
from plexus_detect.report import Standing
from plexus_detect.running import Running


def standing(running: Running, now_ms: int) -> Standing:
    """Count the watched series by what they are doing, and the open episodes by what they are against."""
    cursors, state = running.cursors, running.state
    watched = np.flatnonzero(cursors.selected)
    last_ms, cadence_ms = cursors.last_ms[watched], cursors.cadence_ms[watched]
    silent = (last_ms < 0) | (now_ms - last_ms > np.maximum(SILENT_MS, SILENT_SAMPLES * cadence_ms))
    grouped = ~silent & (state.rule_of[watched] < 0)
    scored = ~silent & ~grouped & ~np.isnan(state.last_z[watched])
    covered_ms = cursors.covered_ms[watched]
    lanes = state.lanes
    return Standing(
        series={
            "scored": int(scored.sum()),
            "warming": int((~silent & ~grouped & ~scored).sum()),
            "grouped": int(grouped.sum()),
            "silent": int(silent.sum()),
        },
        episodes={
            "own_past": sum(int(lane.line.episodes.is_open.sum()) for lane in lanes),
            "fleet": sum(int(lane.fleet_line.episodes.is_open.sum()) for lane in lanes),
            "group": sum(int(group.episodes.is_open.sum()) for group in state.groups),
        },
        cursor_age_ms=max(0, now_ms - int(covered_ms.max())) if (covered_ms >= 0).any() else None,
    )
