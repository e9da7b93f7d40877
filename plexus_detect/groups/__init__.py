"""Groups: several metrics of a source that move together, joined into rows and judged by a learned detector.

``join`` makes the rows, ``group`` has them judged and keeps their episodes.
"""

from plexus_detect.groups.group import Group, Grouped, GroupRule, model_name
from plexus_detect.groups.join import Join, Rows

__all__ = ["Group", "GroupRule", "Grouped", "Join", "Rows", "model_name"]
