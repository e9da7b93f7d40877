"""Whether a new model may take the place of the one in use: its verdicts must be comparable.

A model that was fitted to a fault calls the fault normal, and one fitted to too little is blind. Both show
on rows that the new model has not seen.
"""

from __future__ import annotations

import numpy as np

from plexus_detect.learn.fitted import Fitted
from plexus_detect.series import F64

# Of the held-back rows the two models may judge so many differently, but for the allowed contamination.
DIFFERENT_MAX = 0.1

# A metric moved by so many deviations must not be found by far fewer models than before.
PROBE_DEVIATIONS, PROBE_ROWS, PROBE_LOSS_MAX = 10.0, 32, 0.5


def refusal(old: Fitted, new: Fitted, held: F64) -> str | None:
    """Why ``new`` may not take the place of ``old``, in words; None if it may.

    ``held`` are rows of features, (h, f), which ``new`` was not fitted to. Models of other metrics cannot be
    compared: then the new one is taken.
    """
    if old.names != new.names or not len(held):
        return None
    was, now = old.score(held).ratio > 1.0, new.score(held).ratio > 1.0
    different = float(np.mean(was != now))
    if different > max(DIFFERENT_MAX, new.card.contamination):
        return f"it judges {different:.0%} of {len(held)} held-back rows differently"
    probes = _probes(new, held)
    found, finds = (float(np.mean(m.score(probes).ratio > 1.0)) for m in (old, new))
    if found - finds > PROBE_LOSS_MAX:
        return f"it finds {finds:.0%} of the probes of which the model in use finds {found:.0%}"
    return None


def _probes(new: Fitted, held: F64) -> F64:
    """Some of the held-back rows, each with one metric moved up and down by many deviations."""
    rows = held[:: max(1, len(held) // PROBE_ROWS)]
    source = new.features.source(len(new.names))
    moves = [
        sign * np.where(source == metric, PROBE_DEVIATIONS * new.scale, 0.0)
        for metric in range(len(new.names))
        for sign in (1.0, -1.0)
    ]
    return np.concatenate([rows + move for move in moves])
