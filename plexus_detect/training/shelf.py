"""The models of running detectors on disk: every new one is kept, and what a person chose is taken.

A person chooses by training a model (the command ``train``) or by going back to an older version
(``models roll-back``); otherwise the newest is that of the running detector.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from plexus_detect.errors import ModelError
from plexus_detect.groups import Group
from plexus_detect.learn.stream import Learner
from plexus_detect.learn.windowed import Windowed
from plexus_detect.training.versions import ModelFolder

# Who made a version, and when, in its card.
MADE_BY, TRAIN, MADE_MS = "made_by", "train", "made_ms"


class Shelf:
    """Keeps detectors and their folder in step. ``take`` may be called as often as wanted."""

    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder
        self._in_step: dict[str, tuple[int | None, int]] = {}

    def step(self, learners: Iterable[tuple[str, Learner]]) -> tuple[list[str], list[str]]:
        """Keep what is new in these detectors, by name, and let them take what was chosen.

        Returns the names of those that took a model, and what was the matter with others: a model that cannot
        be used, or a folder that cannot be written; these are tried again with the next step.
        """
        taken, errors = list[str](), list[str]()
        for name, learner in learners:
            try:
                taken += [name] if self._one(name, learner) else []
            except (ModelError, OSError) as error:
                errors.append(f"{name}: {error}")
        return taken, errors

    def _one(self, name: str, learner: Learner) -> bool:
        seen = self._folder.current(name), learner.version
        if self._in_step.get(name) == seen:
            return False
        taken = self._chosen(name, learner)
        if taken:
            learner.take(self._folder.load(name))
        elif learner.fitted is not None and not self._holds(name, learner):
            self._folder.save(name, learner.fitted)
        self._in_step[name] = self._folder.current(name), learner.version
        return taken

    def _chosen(self, name: str, learner: Learner) -> bool:
        """Whether the version in use on disk goes before that of the detector."""
        current = self._folder.current(name)
        if current is None or self._holds(name, learner):
            return False
        known = self._in_step.get(name)
        if known is not None:
            # Nobody else writes there: another version than the last time was chosen.
            return known[0] != current
        older = current not in self._folder.versions(name)[-1:]
        trained = self._folder.card(name, current).get(MADE_BY) == TRAIN
        return learner.fitted is None or older or trained or self._keeps(name, learner)

    def _holds(self, name: str, learner: Learner) -> bool:
        """Whether the version in use on disk is the model of the detector."""
        current = self._folder.current(name)
        return current is not None and self._is(name, current, learner)

    def _keeps(self, name: str, learner: Learner) -> bool:
        """Whether some version on disk is: then it is no news, and another was chosen since."""
        return any(self._is(name, version, learner) for version in self._folder.versions(name))

    def _is(self, name: str, version: int, learner: Learner) -> bool:
        if learner.fitted is None:
            return False
        card, mine = self._folder.card(name, version), learner.fitted.card
        return (card.get("data_hash"), card.get("backend")) == (mine.data_hash, mine.backend)


class WindowShelf:
    """Lets groups of windowed autoencoders take the version in use, as often as that is another one."""

    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder
        self._in_step: dict[str, int | None] = {}

    def step(self, groups: Iterable[Group]) -> tuple[list[str], list[str]]:
        """As ``Shelf.step``; what cannot be used is tried again, and the group goes on with what it has."""
        taken, errors = list[str](), list[str]()
        for group in groups:
            try:
                taken += [group.rule.name] if self._one(group) else []
            except (ModelError, OSError) as error:
                errors.append(f"{group.rule.name}: {error}")
        return taken, errors

    def _one(self, group: Group) -> bool:
        used, name = group.rule.windowed, group.rule.name
        if used is None:
            return False
        version = self._folder.current(name)
        if version is None or self._in_step.get(name) == version:
            return False
        found = Windowed.of(self._folder.arrays(name, version), group.rule.metrics)
        other = not found.is_as(used)
        if other:
            group.take(replace(found, params=replace(found.params, threshold=used.params.threshold)))
        self._in_step[name] = version
        return other
