"""The monitors we want, compared with those the platform has: which requests make the two agree.

A monitor is one threshold, event or offline watch on one source; a document may hold several.
Pure: text in, values out. ``provision`` does the reading and sending.
Field names, defaults and upsert rules are those of the platform's ``/api/monitors``.
"""

from plexus_detect.monitors.documents import DEFAULTS, LEAVE, MonitorSpec, Targets, parse
from plexus_detect.monitors.expansion import KnownSources, expand, needs_metric_names, scored_metric
from plexus_detect.monitors.planning import (
    Change,
    Existing,
    Expansion,
    Key,
    Plan,
    Problem,
    Wanted,
    existing_from,
    merged,
    plan,
)
from plexus_detect.monitors.rendering import render

__all__ = [
    "DEFAULTS",
    "LEAVE",
    "Change",
    "Existing",
    "Expansion",
    "Key",
    "KnownSources",
    "MonitorSpec",
    "Plan",
    "Problem",
    "Targets",
    "Wanted",
    "existing_from",
    "expand",
    "merged",
    "needs_metric_names",
    "parse",
    "plan",
    "render",
    "scored_metric",
]
