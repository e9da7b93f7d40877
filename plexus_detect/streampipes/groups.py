"""Rows of events judged by the models of the detectors, with the episodes that the worker would open."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from plexus_detect.episode import Episodes
from plexus_detect.errors import ModelError
from plexus_detect.groups import GroupRule
from plexus_detect.groups.group import BLAMED_LEAST, BLAMED_MAX
from plexus_detect.groups.join import VALUES_LEAST
from plexus_detect.learn.windowed import Threshold
from plexus_detect.logs import event
from plexus_detect.series import F64, I64, Bool, Reason
from plexus_detect.streampipes.models import RowModel, load_rows, name_of
from plexus_detect.training.versions import ModelFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watched:
    """A detector that judges: its rule, what it is called in a reason, and the ``level`` of its line if it is
    one of windows."""

    rule: GroupRule
    backend: str
    level: Threshold | None = None


class Findings(NamedTuple):
    """Of m rows: the score, 1.0 at the line (NaN: none), whether an episode is open, and the reason."""

    score: F64
    in_episode: Bool
    reason: list[str]


class RowGroup:
    """The models and episodes of one detector: a feed for each device."""

    def __init__(self, watched: Watched, metrics: Sequence[str], folder: ModelFolder) -> None:
        self.watched = watched
        self._folder = folder
        self._columns = np.array([metrics.index(name) for name in watched.rule.metrics], np.int64)
        self._feeds: dict[str, int] = {}
        self._episodes = Episodes(watched.rule.episode)
        self._models: dict[str, RowModel | None] = {}
        self._said: set[str] = set()

    def model(self, device: str) -> RowModel | None:
        """The model that judges a device; the first time it is read from the folder."""
        name = name_of(self.watched.rule, device, self.watched.level)
        if name not in self._models:
            self._models[name] = self._load(name, device)
        return self._models[name]

    def preload(self) -> None:
        """Read the models that are there, before the first event has to wait for it."""
        rule = self.watched.rule
        if rule.shared or self.watched.level is not None:
            self.model("")
        for name in self._folder.names():
            group, at, device = name.partition("@")
            if at and group == rule.name and not rule.shared:
                self.model(device)

    def _load(self, name: str, device: str) -> RowModel | None:
        try:
            found = load_rows(self._folder, self.watched.rule, device, self.watched.level)
        except (ModelError, OSError) as error:
            found, why = None, str(error)
        else:
            why = f"there is no model '{name}'; make one with: streampipes train {self.watched.rule.name}"
        if found is None and name not in self._said:
            self._said.add(name)
            event(log, logging.WARNING, "model_missing", model=name, err=why)
        elif found is not None:
            self._said.discard(name)
            event(log, logging.INFO, "model_in_use", model=name, version=found.version)
        return found

    def refresh(self) -> None:
        """Take the versions that are in use in the folder now; one that cannot be used changes nothing."""
        for name, held in list(self._models.items()):
            version = self._folder.current(name)
            if version is None or (held is not None and version == held.version):
                continue
            device = name.partition("@")[2]
            self._models[name] = self._load(name, device) or held

    def step(self, devices: Sequence[str], t_ms: I64, x: F64, late: Bool) -> Findings:
        """Judge rows in the order of their arrival; those that are late leave episodes as they are."""
        m = len(devices)
        score, is_open, reason = np.full(m, np.nan), np.zeros(m, np.bool_), [""] * m
        mine = x[:, self._columns]
        parts: dict[int, tuple[RowModel, list[int]]] = {}
        for i, device in enumerate(devices):
            if not any(fnmatchcase(device, glob) for glob in self.watched.rule.sources):
                continue
            model = self.model(device)
            if model is None:
                reason[i] = f"{self.watched.rule.name}: no model yet"
            elif late[i] and model.remembers:
                reason[i] = f"{self.watched.rule.name}: newer events of this device came before"
            else:
                parts.setdefault(id(model), (model, []))[1].append(i)
        for model, rows in parts.values():
            self._score(model, np.array(rows, np.int64), (devices, t_ms, mine), (score, reason))
        at = np.flatnonzero(~np.isnan(score))
        feed = self._feed_of([devices[i] for i in at.tolist()])
        z = score[at] * self.watched.rule.episode.threshold
        learned = np.full(len(at), Reason.LEARNED, np.int8)
        value, _moves = self._episodes.step(feed, t_ms[at], z, late[at], learned)
        is_open[at] = value > 0.0
        return Findings(score, is_open, reason)

    def _score(
        self,
        model: RowModel,
        at: I64,
        given: tuple[Sequence[str], I64, F64],
        out: tuple[F64, list[str]],
    ) -> None:
        """Score the rows ``at`` with one model, and say of those beyond the line by which metrics."""
        devices, t_ms, x = given
        score, reason = out
        feed = self._feed_of([devices[i] for i in at.tolist()])
        ratio, shares = model.score(feed, t_ms[at], x[at])
        enough = np.isfinite(x[at]).sum(axis=1) >= VALUES_LEAST
        score[at] = np.where(enough, ratio / self.watched.rule.sensitivity, np.nan)
        for row in np.flatnonzero(score[at] > 1.0).tolist():
            reason[at[row]] = self._words(shares(row))
        for row in np.flatnonzero(np.isnan(score[at])).tolist():
            few = f"fewer than {VALUES_LEAST} of its metrics are there"
            reason[at[row]] = f"{self.watched.rule.name}: {'too few rows yet' if enough[row] else few}"

    def _feed_of(self, devices: Sequence[str]) -> I64:
        """The feed of each device."""
        feeds = [self._feeds.setdefault(device, len(self._feeds)) for device in devices]
        if len(self._feeds) > len(self._episodes):
            self._episodes.grow(max(16, 2 * len(self._feeds)))
        return np.array(feeds, np.int64)

    def _words(self, shares: F64) -> str:
        """The metrics with the largest shares, and who found them."""
        known = np.nan_to_num(shares)
        order = np.argsort(-known, kind="stable")[:BLAMED_MAX].tolist()
        names = [
            f"{self.watched.rule.metrics[i]} {known[i]:.0%}".replace("%", " %")
            for i in order
            if known[i] >= BLAMED_LEAST
        ]
        return f"{self.watched.rule.name}: {', '.join(names) or 'no single metric'} ({self.watched.backend})"
