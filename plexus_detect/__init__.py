"""plexus-detect: anomaly detection for device fleets, beside the Plexus telemetry platform.

The command line is ``python -m plexus_detect``; for data people there are ``score_series`` and
``score_fleet``, which run the worker's own detectors over columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plexus_detect.scoring import score_fleet, score_series

__version__ = "0.6.0"

__all__ = ["__version__", "score_fleet", "score_series"]


def __getattr__(name: str) -> object:
    # NumPy takes a tenth of a second to import; `--help` does not need it.
    if name in ("score_fleet", "score_series"):
        from plexus_detect import scoring

        return getattr(scoring, name)
    raise AttributeError(f"module 'plexus_detect' has no attribute {name!r}")
