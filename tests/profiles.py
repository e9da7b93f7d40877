"""How many examples a law is tried with: a share in the ordinary run, all of them in the one at night.

`HYPOTHESIS_PROFILE=soak pytest` tries all. The ordinary run draws other examples each time, so that what one
leaves out the next may try.
"""

from __future__ import annotations

import os

from hypothesis import settings

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")

# Of the examples that a law names, the share that is tried; and the least number of them.
SHARES = {"default": 1 / 30, "soak": 1.0}
EXAMPLES_MIN = 4


def load() -> None:
    """Make the profile that the environment names that of every law; a law that names no number has 1,000."""
    for name in SHARES:
        settings.register_profile(name, max_examples=share_of(1000, name), deadline=None)
    settings.load_profile(PROFILE)


def share_of(full: int, profile: str = PROFILE) -> int:
    """How many of ``full`` examples a profile tries."""
    return max(EXAMPLES_MIN, round(full * SHARES[profile]))


def examples(full: int) -> settings:
    """Decorate a law that is tried with ``full`` examples at night."""
    return settings(max_examples=share_of(full), deadline=None)
