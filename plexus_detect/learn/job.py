"""What is asked of a trainer, and what comes back: the seam between scoring and fitting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from plexus_detect.learn.features import FeatureParams
from plexus_detect.learn.fitted import Fitted
from plexus_detect.learn.model import Model
from plexus_detect.series import F64, I64


@dataclass(frozen=True)
class Job:
    """Fit a model to rows of features x, (n, f), NaN for what is missing.

    ``flagged`` is the score that each row had when it came, (n,), 1.0 at the line and NaN for none: rows
    beyond the line are left out of the fit first, up to the share ``contamination`` of all. A model that is
    ``given`` is not fitted: only its line is measured on the rows. ``old`` is the model that the new one is
    to follow: the two are compared where the fit is made, as that takes time.
    """

    backend: str
    names: tuple[str, ...]
    features: FeatureParams
    x: F64
    flagged: F64
    contamination: float
    seed: int
    span_ms: tuple[int, int] = (-1, -1)
    given: Model | None = None
    old: Fitted | None = None


@dataclass(frozen=True)
class Fit:
    """A model, the positions of the rows of its job that it was fitted to, and of those that were held back
    to measure its line, (h,); ``refused`` says why it may not follow the ``old`` one, None if it may."""

    fitted: Fitted
    seen: I64
    held: I64
    refused: str | None = None


class Ticket(Protocol):
    """A fit that has been asked for."""

    def done(self) -> bool:
        """Whether ``result`` answers at once."""
        ...

    def result(self) -> Fit:
        """The fit; waits for it. Raises FitError."""
        ...


class Trainer(Protocol):
    """Fits models elsewhere: in a process of its own, or in place."""

    def submit(self, job: Job) -> Ticket:
        """Ask for a fit; returns at once."""
        ...
