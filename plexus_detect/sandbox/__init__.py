"""An embedded stand-in for the Plexus platform (extra: ``sandbox``).

It shares no code with the client, answers as the recorded platform does, and is less kind on purpose.
"""

from plexus_detect.sandbox.faults import Fault, Faults
from plexus_detect.sandbox.server import Sandbox
from plexus_detect.sandbox.settings import (
    DEFAULT_ORG,
    FULL_KEY,
    READ_KEY,
    SLACK_TARGET,
    WRITE_KEY,
    Key,
    Settings,
)

__all__ = [
    "DEFAULT_ORG",
    "FULL_KEY",
    "READ_KEY",
    "SLACK_TARGET",
    "WRITE_KEY",
    "Fault",
    "Faults",
    "Key",
    "Sandbox",
    "Settings",
]
