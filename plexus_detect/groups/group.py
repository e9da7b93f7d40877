"""Groups: the rows of several metrics that move together, judged by learned detectors, one a source or one
for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Snapshot, rooms, under
from plexus_detect.episode import EpisodeParams, Episodes, Transition
from plexus_detect.groups.join import Join, Rows, no_rows
from plexus_detect.learn.job import Trainer
from plexus_detect.learn.judge import Judge, WindowJudge, judge_of, judge_together
from plexus_detect.learn.stream import Learner, LearnParams
from plexus_detect.learn.windowed import Windowed
from plexus_detect.series import F64, I64, Points, Reason, SeriesKey, released
from plexus_detect.stats import grown

# Contributors that an event names at most, and the least share of one.
BLAMED_MAX, BLAMED_LEAST = 3, 0.05


@dataclass(frozen=True)
class GroupRule:
    """Which metrics of which sources make rows, and how those are judged.

    ``sources`` are patterns of ``fnmatch``. With ``shared`` one model is learned from all sources together.
    Values within ``align_ms`` are one row (0: equal times). ``sensitivity`` is how many times further out
    than the model's the line is. A model that ``learn`` is given is known by ``model_hash``, autoencoders of
    ``windowed`` rows by their threshold: others take their place while it runs.
    """

    name: str
    metrics: tuple[str, ...]
    sources: tuple[str, ...] = ("*",)
    shared: bool = False
    learn: LearnParams = field(default_factory=LearnParams)
    align_ms: int = 1_000
    episode: EpisodeParams = field(default_factory=EpisodeParams)
    sensitivity: float = 1.0
    windowed: Windowed | None = None
    model_hash: str = ""

    @property
    def backend(self) -> str:
        """What judges the rows."""
        return self.learn.backend if self.windowed is None else "windowed autoencoder"

    def fingerprint(self) -> str:
        """Everything that a snapshot of this group's state depends on."""
        return repr(replace(self, learn=replace(self.learn, given=None), windowed=None))

    def _reaches(self, source: str) -> bool:
        return any(fnmatchcase(source, glob) for glob in self.sources)

    def takes(self, key: SeriesKey) -> bool:
        """Whether a series is one of those that are joined."""
        return key.metric in self.metrics and self._reaches(key.source)

    def is_named(self, key: SeriesKey) -> bool:
        """Whether a series is that of this group's own scores, which is never read."""
        return key.metric == self.name and self._reaches(key.source)


def model_name(rule: GroupRule, source: str) -> str:
    """Under which name the model of a source is kept; one for all sources has that of the group."""
    return rule.name if rule.shared or not source else f"{rule.name}@{source}"


class Grouped(NamedTuple):
    """What a group says of n rows: ``z`` in units in which its threshold is the line (NaN while there is no
    model), the ``value`` to post, what opened and closed, the ``shares`` of the metrics, (n, k), NaN for rows
    inside the model's line, and the ``version`` of the model, 0: none."""

    rows: Rows
    z: F64
    value: F64
    moves: list[Transition]
    shares: F64
    version: I64


class Group:
    """The rows of one rule with their models and episodes: a feed for each source."""

    def __init__(self, rule: GroupRule, trainer: Trainer) -> None:
        self.rule = rule
        self._trainer = trainer
        self.join = Join(len(rule.metrics), rule.align_ms)
        self.episodes = Episodes(rule.episode)
        self.learners: list[Judge] = []
        self.feed_of: dict[str, int] = {}
        # The series under which a feed is posted (-1: not known yet), and the cell of every series.
        self.posted_as: I64 = np.zeros(0, np.int64)
        self.cell_of: I64 = np.full(0, -1)
        self.waiting = no_rows(self.join.k)

    def admit(self, series: int, key: SeriesKey) -> None:
        """Take part, if this series is one of the group's; to say so again changes nothing."""
        if self.rule.is_named(key):
            feed = self._feed(key.source)
            self.posted_as[feed] = series
        elif self.rule.takes(key):
            column = self.rule.metrics.index(key.metric)
            self._member(series, self._feed(key.source) * self.join.k + column)

    def _feed(self, source: str) -> int:
        feed = self.feed_of.setdefault(source, len(self.feed_of))
        if feed >= len(self.join):
            room = max(8, 2 * feed)
            self.join.grow(room)
            self.episodes.grow(room)
            self.posted_as = grown(self.posted_as, room, -1)  # type: ignore[assignment]
        if not self.learners or (feed == len(self.learners) and not self.rule.shared):
            self.learners.append(judge_of(self.rule.learn, self._trainer, self.rule.windowed))
        return feed

    def _member(self, series: int, cell: int) -> None:
        if series >= len(self.cell_of):
            room = max(64, 2 * len(self.cell_of), series + 1)
            self.cell_of = grown(self.cell_of, room, -1)  # type: ignore[assignment]
        self.cell_of[series] = cell

    def release(self, gone: set[int]) -> None:
        """Forget what was learned of sources none of whose series is left."""
        for feed in range(0 if self.rule.shared else len(self.feed_of)):
            members = np.flatnonzero(self.cell_of // self.join.k == feed).tolist()
            if members and gone.issuperset(members):
                self.learners[feed] = judge_of(self.rule.learn, self._trainer, self.rule.windowed)

    def learner(self, feed: int) -> Judge:
        """The detector that judges a feed."""
        return self.learners[0 if self.rule.shared else feed]

    def series(self) -> I64:
        """Every series that takes part: those that are joined, and those of the scores."""
        posted = self.posted_as[: len(self.feed_of)]
        return np.append(np.flatnonzero(self.cell_of >= 0), posted[posted >= 0])

    def posted(self) -> Iterator[tuple[int, I64]]:
        """The series that are posted, each with those that are joined for it."""
        for feed, series in enumerate(self.posted_as[: len(self.feed_of)].tolist()):
            if series >= 0:
                yield series, np.flatnonzero(self.cell_of // self.join.k == feed)

    def judges(self) -> Iterator[tuple[str, Judge]]:
        """The judge of each source; one for all of them has no source's name."""
        sources = [""] if self.rule.shared else list(self.feed_of)
        yield from zip(sources, self.learners, strict=False)

    def models(self) -> Iterator[tuple[str, Learner]]:
        """The detectors that learn, each with the name of its model: of the group, or group@source."""
        for source, judge in self.judges():
            if isinstance(judge, Learner):
                yield model_name(self.rule, source), judge

    def take(self, windowed: Windowed) -> None:
        """Let autoencoders of windows take the place of those in use. Raises ModelError for other metrics."""
        for _source, judge in self.judges():
            if isinstance(judge, WindowJudge):
                judge.take(windowed)
        self.rule = replace(self.rule, windowed=windowed)

    def learned_ms(self) -> list[int]:
        """The newest time that each model in use has learned, where that is known."""
        found = [judge.fitted.card.to_ms for _name, judge in self.models() if judge.fitted is not None]
        if self.rule.windowed is not None:
            found.append(self.rule.windowed.about.to_ms)
        return [t_ms for t_ms in found if t_ms >= 0]

    def troubles(self) -> Iterator[tuple[str, str]]:
        """Sources whose last fit failed or was not taken, and why."""
        return ((source, judge.error) for source, judge in self.judges() if judge.error is not None)

    def step(self, points: Points, now_ms: int, settle_ms: int, clock: I64 | None = None) -> Grouped:
        """Join points of any series, those of each in order of time, and judge the rows that are closed.

        Sources with one model between them are judged ``settle_ms`` later, all in one order of time, so that
        what the model learns does not depend on which poll brought which point. With the ``clock`` at each
        point they are judged as if every point had been taken alone, if each row is closed by its own points.
        """
        known = points.series < len(self.cell_of)
        at = np.flatnonzero(known)
        at = at[self.cell_of[points.series[at]] >= 0]
        rows = self.join.step(self.cell_of[points.series[at]], points.take(at))
        if self.rule.shared:
            step = self._released(rows, (points, at), settle_ms, clock)
            rows = self.waiting.and_then(rows)
            if clock is None:
                # A device whose clock is ahead is not waited for.
                due = (rows.t_ms <= now_ms - settle_ms) | (rows.t_ms > now_ms + settle_ms)
            else:
                due = step < len(clock)
            self.waiting, rows = rows.take(~due), rows.take(due)
            rows = rows.take(np.lexsort((rows.feed, rows.t_ms, step[due])))
        return self._judge(rows)

    def _released(self, rows: Rows, of: tuple[Points, I64], settle_ms: int, clock: I64 | None) -> I64:
        """At which point the rows that wait, and after them these new ones, are let go; see ``released``."""
        held = self.waiting.t_ms
        if clock is None:
            return np.zeros(len(held) + len(rows.t_ms), np.int64)
        points, at = of
        at = at[~points.late[at]]
        came = {
            (cell // self.join.k, t): i
            for cell, t, i in zip(
                self.cell_of[points.series[at]].tolist(), points.t_ms[at].tolist(), at.tolist(), strict=True
            )
        }
        new = [came.get(row, 0) for row in zip(rows.feed.tolist(), rows.t_ms.tolist(), strict=True)]
        t_ms = np.append(held, rows.t_ms)
        return released(t_ms, np.append(np.full(len(held), -1), np.array(new, np.int64)), clock, settle_ms)

    def _judge(self, rows: Rows) -> Grouped:
        n, k = rows.x.shape
        ratio, shares, version = np.full(n, np.nan), np.full((n, k), np.nan), np.zeros(n, np.int64)
        starts = [*np.flatnonzero(np.diff(rows.feed, prepend=-1)).tolist(), n]
        runs = [slice(start, end) for start, end in pairwise(starts)]
        feeds = rows.feed[starts[:-1]].tolist()
        of = [(self.learner(feed), feed if self.rule.shared else 0) for feed in feeds]
        x, t_ms = [rows.x[at] for at in runs], [rows.t_ms[at] for at in runs]
        said = judge_together(of, x, t_ms, self.rule.metrics)
        for at, judged in zip(runs, said, strict=True):
            ratio[at], shares[at], version[at] = judged.ratio, judged.shares, judged.version
        z = ratio * (self.rule.episode.threshold / self.rule.sensitivity)
        reason = np.full(n, Reason.LEARNED, np.int8)
        value, moves = self.episodes.step(rows.feed, rows.t_ms, z, np.zeros(n, np.bool_), reason)
        return Grouped(rows, z, value, moves, shares, version)

    def blamed(self, shares: F64) -> tuple[tuple[str, float], ...]:
        """The metrics with the largest parts in a score, from their shares, (k,)."""
        known = np.nan_to_num(shares)
        order = np.argsort(-known, kind="stable")[:BLAMED_MAX].tolist()
        return tuple((self.rule.metrics[i], float(known[i])) for i in order if known[i] >= BLAMED_LEAST)

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as named columns."""
        n = len(self.feed_of)
        members = np.flatnonzero(self.cell_of >= 0)
        out: dict[str, npt.NDArray[np.generic]] = {
            "posted_as": self.posted_as[:n],
            "members": members,
            "cells": self.cell_of[members],
            **{f"waiting.{name}": column for name, column in self.waiting._asdict().items()},
            **{f"join.{name}": column for name, column in self.join.dump(n).items()},
            **{f"episodes.{name}": column[:n] for name, column in self.episodes.dump().items()},
        }
        for i, learner in enumerate(self.learners):
            out |= {f"learner.{i}.{name}": column for name, column in learner.dump().items()}
        return out

    def load(self, columns: Snapshot, keys: Sequence[SeriesKey]) -> None:
        """Take over what ``dump`` gave under the same rule; ``keys`` names the series. It must be new."""
        posted, k = columns["posted_as"].astype(np.int64), self.join.k
        pairs = zip(columns["members"].tolist(), columns["cells"].tolist(), strict=True)
        cells = dict(pairs)
        named = {cell // k: keys[series].source for series, cell in cells.items()}
        named |= {feed: keys[series].source for feed, series in enumerate(posted.tolist()) if series >= 0}
        for feed in range(len(posted)):
            self._feed(named[feed])
        for series, cell in cells.items():
            self._member(series, cell)
        self.posted_as = posted
        self.waiting = Rows(*(columns[f"waiting.{name}"].copy() for name in Rows._fields))  # type: ignore[arg-type]
        self.join.load(under(columns, "join."))
        self.episodes.load(under(columns, "episodes."))
        saved = rooms(under(columns, "learner."))
        for i, learner in enumerate(self.learners):
            # One of windows that has seen no row yet has nothing to save.
            learner.load(saved.get(str(i), {}))
