"""The models of a running worker: kept on disk, taken from there when a person chose, their troubles told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from plexus_detect import clock
from plexus_detect.groups import Group
from plexus_detect.logs import event
from plexus_detect.training.shelf import Shelf, WindowShelf
from plexus_detect.training.versions import ModelFolder

log = logging.getLogger(__name__)

# New models are kept, and chosen ones looked for, this often.
EVERY_S = 10.0


class Keeping:
    """Looks after the models in ``folder``; ``step`` may be called as often as wanted."""

    def __init__(self, folder: Path) -> None:
        self._shelf, self._windows = Shelf(ModelFolder(folder)), WindowShelf(ModelFolder(folder))
        # The newest time that the oldest model in use has learned.
        self.learned_ms: int | None = None
        self._next_s = 0.0
        self._errors: list[str] = []
        self._failing: dict[tuple[str, str], str] = {}

    def step(self, groups: Sequence[Group]) -> bool:
        """Tell what is new, keep and take models; True when one was taken, which is in no journal."""
        self._tell_fits(groups)
        if clock.monotonic_s() < self._next_s:
            return False
        self._next_s = clock.monotonic_s() + EVERY_S
        taken, errors = self._shelf.step(pair for group in groups for pair in group.models())
        others, more = self._windows.step(groups)
        taken, errors = taken + others, errors + more
        self.learned_ms = min((t_ms for group in groups for t_ms in group.learned_ms()), default=None)
        for error in errors:
            if error not in self._errors:
                event(log, logging.WARNING, "models_failed", err=error)
        self._errors = errors
        if taken:
            event(log, logging.INFO, "models_taken", models=taken)
        return bool(taken)

    def _tell_fits(self, groups: Sequence[Group]) -> None:
        """Why a group has no model, or goes on with an old one: once, until something else is the matter."""
        failing = {(group.rule.name, source): error for group in groups for source, error in group.troubles()}
        for (name, source), error in failing.items():
            if self._failing.get((name, source)) != error:
                event(log, logging.WARNING, "fit_failed", group=name, source=source or "all", err=error)
        self._failing = failing
