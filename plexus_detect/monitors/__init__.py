"""The monitors we want, compared with those the platform has: which requests make the two agree.

A monitor is one threshold, event or offline watch on one source; a document may hold several.
Pure: text in, values out. ``provision`` does the reading and sending.
Field names, defaults and upsert rules are those of the platform's ``/api/monitors``.
"""

from plexus_detect.monitors.documents import DEFAULTS, LEAVE, MonitorSpec, Targets
from plexus_detect.monitors.expansion import KnownSources, expand, needs_metric_names, scored_metric
from plexus_detect.monitors.manifest import Manifest
from plexus_detect.monitors.markdown import Cost, markdown
from plexus_detect.monitors.marks import OWNER
from plexus_detect.monitors.model import (
    Change,
    Existing,
    Expansion,
    Plan,
    Problem,
    Wanted,
    existing_from,
    label,
    merged,
)
from plexus_detect.monitors.ownership import Key, Owned, Ownership
from plexus_detect.monitors.parsing import parse
from plexus_detect.monitors.planning import SAME, distance, is_ours, plan
from plexus_detect.monitors.rendering import painted, render
from plexus_detect.monitors.schema import monitor_schema
from plexus_detect.monitors.shortform import Variable
from plexus_detect.monitors.values import values

__all__ = [
    "DEFAULTS",
    "LEAVE",
    "OWNER",
    "SAME",
    "Change",
    "Cost",
    "Existing",
    "Expansion",
    "Key",
    "KnownSources",
    "Manifest",
    "MonitorSpec",
    "Owned",
    "Ownership",
    "Plan",
    "Problem",
    "Targets",
    "Variable",
    "Wanted",
    "distance",
    "existing_from",
    "expand",
    "is_ours",
    "label",
    "markdown",
    "merged",
    "monitor_schema",
    "needs_metric_names",
    "painted",
    "parse",
    "plan",
    "render",
    "scored_metric",
    "values",
]
