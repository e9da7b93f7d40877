"""Fleets: the sources of one metric against one another."""

from plexus_detect.fleet.bank import Fleet
from plexus_detect.fleet.params import FleetParams
from plexus_detect.fleet.verdict import WORDS, EventParams, FleetEvents, GroupMove, Verdict, verdicts

__all__ = ["WORDS", "EventParams", "Fleet", "FleetEvents", "FleetParams", "GroupMove", "Verdict", "verdicts"]
