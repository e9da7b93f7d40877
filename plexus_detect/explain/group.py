"""One score of a group of metrics taken apart: the past joined and judged again up to a row. Pure.

The replay is the worker's own, as in a backtest: every sample counts as having arrived in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plexus_detect.backtest.replay import chunks, in_order
from plexus_detect.evaluate import Policy
from plexus_detect.explain.account import Episode, episode_of
from plexus_detect.groups import Group, Grouped, GroupRule
from plexus_detect.learn.fitted import Card
from plexus_detect.learn.job import Trainer
from plexus_detect.learn.judge import WindowJudge
from plexus_detect.learn.stream import Learner
from plexus_detect.series import F64, SUFFIX, Kind, Points, SeriesKey


@dataclass(frozen=True)
class Part:
    """A metric in a row: its value (NaN: missing), the median of its training rows, and its share in the
    score (both NaN while there is no model)."""

    metric: str
    value: float
    usual: float
    share: float


@dataclass(frozen=True)
class GroupAccount:
    """Everything about the score of one row. ``z`` is NaN without a model, then ``error`` says why if a fit
    failed; ``collected`` rows were known, and models begin with ``needed``. ``joined`` rows were read,
    ``left_out`` points came too late for theirs, and ``alone`` rows had too few values."""

    key: SeriesKey
    t_ms: int
    rule: GroupRule
    z: float
    posted: float
    parts: tuple[Part, ...]
    card: Card | None
    episode: Episode
    joined: int
    left_out: int
    alone: int
    collected: int
    needed: int
    error: str | None


def group_asked(policy: Policy, source: str, metric: str) -> GroupRule | None:
    """The group whose scores are asked for, by its name or that of the posted series."""
    name = metric.removesuffix(SUFFIX[Kind.ANOMALY])
    return next((rule for rule in policy.groups if rule.is_named(SeriesKey(source, name))), None)


def members(rule: GroupRule, source: str, keys: Sequence[SeriesKey]) -> list[int]:
    """The positions in ``keys`` of all series that have a part in the scores of a source."""
    taken = (i for i, key in enumerate(keys) if rule.takes(key))
    return [i for i in taken if rule.shared or keys[i].source == source]


def group_account(
    rule: GroupRule, trainer: Trainer, source: str, keys: Sequence[SeriesKey], points: Points
) -> GroupAccount | None:
    """The score of the newest row of ``source`` that ``points`` make; None when they make none."""
    group = Group(rule, trainer)
    chosen = members(rule, source, keys)
    for series in chosen:
        group.admit(series, keys[series])
    if source not in group.feed_of:
        return None
    feed, joined = group.feed_of[source], 0
    last: tuple[Grouped, int] | None = None
    now_ms = int(points.t_ms.max(initial=0)) + 1
    parts = [in_order(part) for part in chunks(points.take(np.isin(points.series, chosen)))]
    for part in [*parts, Points.empty()]:
        found = group.step(part, now_ms, 0)
        mine = np.flatnonzero(found.rows.feed == feed)
        joined += len(mine)
        last = (found, int(mine[-1])) if len(mine) else last
    return None if last is None else _account(group, source, last, joined)


def _account(group: Group, source: str, last: tuple[Grouped, int], joined: int) -> GroupAccount:
    found, row = last
    rule, feed, t_ms = group.rule, group.feed_of[source], int(found.rows.t_ms[row])
    judge = group.learner(feed)
    feeds = group.join.feeds
    values, shares = found.rows.x[row], found.shares[row]
    if isinstance(judge, Learner):
        parts, card = _learned(judge, int(found.version[row]), t_ms, values, shares)
        collected, needed = judge.collected, rule.learn.min_samples + (rule.learn.handover or 0)
    else:
        assert isinstance(judge, WindowJudge)  # noqa: S101 - the other kind of judge
        windowed = judge.windowed
        parts = _parts(rule.metrics, values, windowed.scale.centre, shares)
        card, collected, needed = windowed.about, joined, min(windowed.params.sizes)
    return GroupAccount(
        key=SeriesKey(source, rule.name),
        t_ms=t_ms,
        rule=rule,
        z=float(found.z[row]),
        posted=float(found.value[row]),
        parts=parts,
        card=card,
        episode=episode_of(group.episodes, feed),
        joined=joined,
        left_out=int(feeds.left_out[feed]),
        alone=int(feeds.alone[feed]),
        collected=collected,
        needed=needed,
        error=judge.error,
    )


def _learned(
    learner: Learner, version: int, t_ms: int, values: F64, shares: F64
) -> tuple[tuple[Part, ...], Card | None]:
    """The parts of a row that a learned model judged, and the card of that model."""
    models = [m for m in (learner.fitted, learner.previous) if m is not None and m.card.version == version]
    if not models:
        return _parts(learner.names, values, np.full(len(values), np.nan), shares), None
    model = models[0]
    x, _ratio, times = learner.window.rows()
    features = x[np.flatnonzero(times == t_ms)[-1:]]
    if np.isnan(shares).all() and len(features):
        # Inside the line nobody is blamed; who has the largest part in the score is asked for all the same.
        shares = model.blame(features[0])
    return _parts(learner.names, values, model.centre[: len(values)], shares), model.card


def _parts(metrics: Sequence[str], values: F64, usual: F64, shares: F64) -> tuple[Part, ...]:
    columns = zip(metrics, values.tolist(), usual.tolist(), shares.tolist(), strict=True)
    parts = [Part(*column) for column in columns]
    return tuple(sorted(parts, key=lambda part: -np.nan_to_num(part.share)))
