"""The whole job on the embedded platform, live in the terminal (extra: ``sandbox``)."""

from plexus_detect.demo.play import Options, run_demo
from plexus_detect.demo.scenario import Scenario

__all__ = ["Options", "Scenario", "run_demo"]
