"""Values of many series over a period, in order of time: stored ones, and scores that the worker would post.

Nothing holds a whole history: what is read is handed on window after window.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from plexus_detect.backtest.moments import Span
from plexus_detect.backtest.platform import History, discover
from plexus_detect.backtest.replay import Admitted, in_order
from plexus_detect.backtest.run import warm_from_ms
from plexus_detect.backtest.selection import Selection
from plexus_detect.backtest.shards import unit_of
from plexus_detect.client import Client
from plexus_detect.config import Config
from plexus_detect.errors import ApiError, ContractError, TransientError
from plexus_detect.evaluate import Evaluation, State, evaluate
from plexus_detect.monitors import scored_metric
from plexus_detect.policy import policy_of, poll_params
from plexus_detect.reader import Reader
from plexus_detect.series import (
    F64,
    I64,
    SUFFIX,
    Bool,
    Derived,
    Kind,
    Points,
    SeriesKey,
    SeriesTable,
    is_own_metric,
)
from plexus_detect.training.trainer import InlineTrainer, require
from plexus_detect.wire import decode_raw_times, raw_params

Progress = Callable[[float], None]

_KIND_OF = {suffix: kind for kind, suffix in SUFFIX.items()}
_FLEET = frozenset({Kind.FLEET_ZSCORE, Kind.FLEET_ZSCORE_RAW, Kind.FLEET_EVENT})
_PAID = (Kind.ZSCORE, Kind.FLEET_ZSCORE, Kind.ANOMALY)

# Bits of a time in ms, beside which the number of a series has room in 64.
_TIME_BITS = 42


class Take(Protocol):
    """Takes points of a series that was asked for, in order of time, none older than those before."""

    def __call__(self, key: SeriesKey, t_ms: I64, value: F64, posted: int) -> None:
        """``posted`` of them are on the platform, or would be; the others are zeros that the worker posts
        only while an alert may be open, to close it: where none is, an engine does not notice them."""


async def settled_ms(client: Client, config: Config) -> int:
    """The newest time, on the platform's clock, up to which points are whole.

    One request, which also proves that the key may read. Raises the errors of ``client.Client``.
    """
    poll = poll_params(config)
    reader = Reader(client, SeriesTable(), poll, config.plexus.concurrency)
    await reader.check()
    return reader.now_ms() - poll.settle_ms


async def doubt_of_silence(client: Client, key: SeriesKey, span: Span) -> str:
    """Why one may doubt that a series has no points in the period, although the app showed none; else empty.

    The app answers without rows also when its store fails (contract section 2); the read API says so.
    Raises TransientError when that has rows.
    """
    params = raw_params(key.metric, span.from_ms, span.to_ms)
    try:
        rows = len(decode_raw_times(await client.raw_rows(key.source, params)))
    except (ApiError, ContractError) as error:
        return f"the app shows none, and the read API does not confirm it: {error}"
    if rows:
        raise TransientError(
            f"the app shows no point of {key.metric} of {key.source}, but the read API has {rows} or more; "
            "try again when the app shows them"
        )
    return ""


async def read_stored(
    client: Client,
    config: Config,
    wanted: Collection[SeriesKey],
    span: Span,
    *,
    take: Take,
    progress: Progress,
) -> None:
    """Hand on all stored points of series by their literal names, be they measured or scores of ours.

    Raises ApiError and ContractError: a history with holes proves nothing.
    """
    table = SeriesTable()
    for key in sorted(wanted):
        table.add(*key)
    n, poll = len(table), poll_params(config)
    reader = Reader(client, table, poll, config.plexus.concurrency)
    # A wide query brings rows of others too; the table learns of them, and the next queries are narrower.
    history = History(reader, table, poll, lambda *key: key in wanted)
    async for part in history.parts(span):
        for series, t_ms, value in _columns(part.points.take(part.points.series < n)):
            take(table.keys[series], t_ms, value, len(t_ms))
        progress((part.to_ms - span.from_ms) / (span.to_ms - span.from_ms))


def _columns(points: Points) -> Iterator[tuple[int, I64, F64]]:
    """The points of each series in order of time; a row that two pages brought counts once."""
    order = np.lexsort((points.value, points.t_ms, points.series))
    series, t_ms, value = points.series[order], points.t_ms[order], points.value[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (series[1:] != series[:-1]) | (t_ms[1:] != t_ms[:-1]) | (value[1:] != value[:-1])
    series, t_ms, value = series[new], t_ms[new], value[new]
    starts = np.flatnonzero(np.diff(series, prepend=-1))
    for start, end in pairwise([*starts.tolist(), len(series)]):
        yield int(series[start]), t_ms[start:end], value[start:end]


async def read_replayed(
    client: Client,
    config: Config,
    wanted: Collection[SeriesKey],
    span: Span,
    *,
    take: Take,
    progress: Progress,
) -> dict[SeriesKey, str]:
    """Hand on the scores that the worker would have posted under names of ours, from the samples behind them.

    The samples go the worker's own path, those from before the period (``poll.history``) to warm it up, with
    all series that have a part in these scores. Returns why a name has no scores, where the configuration
    is the reason. Raises ApiError and ContractError, and ConfigError when models are needed and not there.
    """
    replay = Replayer(config, wanted, span, take)
    if not replay.asked:
        return replay.reasons
    table, poll = replay.table, poll_params(config)
    reader = Reader(client, table, poll, config.plexus.concurrency)
    await reader.check()
    await discover(reader, table, config)
    replay.admit()
    whole = Span(warm_from_ms(config, span), span.to_ms)
    history = History(reader, table, poll, replay.reads)
    async for part in history.parts(whole):
        replay.admit()
        replay.step(part.points, part.to_ms)
        progress((part.to_ms - whole.from_ms) / (whole.to_ms - whole.from_ms))
    replay.finish()
    samples = sorted({key for key, _kind in replay.asked if replay.reads(*key)})
    if not replay.seen and samples and (doubt := await doubt_of_silence(client, samples[0], span)):
        return {**dict.fromkeys(replay.asked.values(), doubt), **replay.reasons}
    return replay.reasons


class Replayer:
    """The worker's path for the series that scores under ``wanted`` names depend on.

    ``table`` are the series that are known: whoever reads adds to it and calls ``admit``. ``asked`` maps the
    scored series and the kind of score to the name, ``reasons`` says of the others why there are none;
    ``seen`` counts samples.
    """

    def __init__(self, config: Config, wanted: Collection[SeriesKey], span: Span, take: Take) -> None:
        self._config, self._span, self._take = config, span, take
        self.table = SeriesTable()
        self.reasons: dict[SeriesKey, str] = {}
        self.asked = dict(self._askable(sorted(wanted)))
        kinds = {kind for _key, kind in self.asked}
        raw = {Kind.ZSCORE_RAW, Kind.FLEET_ZSCORE_RAW}
        # Scores against the fleet need also whom only the reading shows; others no fleet too small to score.
        self._selection = None if kinds & _FLEET else Selection(config)
        policy = self._selection.policy if self._selection else policy_of(config)
        policy = replace(policy, kinds=frozenset(kinds | raw))
        if Kind.ANOMALY not in kinds:
            # Groups of metrics have no part in other scores, and their models take long.
            policy = replace(policy, groups=())
        if policy.groups:
            require()
        self._policy = policy
        self._state = State(self.table, policy, trainer=InlineTrainer() if policy.groups else None)
        self._units: set[tuple[str, ...]] = set()
        self._chosen: set[SeriesKey] = set()
        self._is_chosen = np.zeros(0, np.bool_)
        self._name_of: dict[int, SeriesKey] = {}
        self._known = self.seen = 0
        for key, kind in self.asked:
            if kind is not Kind.ANOMALY:
                self.table.add(*key)

    def _askable(self, wanted: list[SeriesKey]) -> Iterator[tuple[tuple[SeriesKey, Kind], SeriesKey]]:
        kinds = policy_of(self._config).kinds
        for name in wanted:
            metric = scored_metric(name.metric) or ""
            kind = _KIND_OF.get(name.metric.removeprefix(metric))
            if kind is None or kind not in kinds:
                suffix = name.metric.removeprefix(metric)
                self.reasons[name] = f"the configuration posts no *{suffix} (post.series)"
            else:
                yield (SeriesKey(name.source, metric), kind), name

    def admit(self) -> None:
        """Take those of the series that the table learned lately which have a part in what is asked."""
        for key in self.table.keys[self._known :]:
            for group in self._policy.groups_of(key):
                self.table.add(key.source, group.name)
        first, n = self._known == 0, len(self.table)
        if n == self._known:
            return
        if self._selection is not None:
            new = self._selection.admit(self.table.keys, self._known)
        else:
            new = [each for i in range(self._known, n) if (each := self._admitted(i)) is not None]
        self._known = n
        self._is_chosen = np.append(self._is_chosen, np.zeros(n - len(self._is_chosen), np.bool_))
        asked = {key for key, _kind in self.asked}
        if first:
            self._units = {unit_of(self._policy, each) for each in new if each.key in asked}
            admitted = {each.key for each in new}
            for (key, _kind), name in self.asked.items():
                if key not in admitted:
                    self.reasons[name] = "the configuration scores no such series"
        together = self._policy.alerts_per_day is not None  # all series share the budget
        for each in new:
            if together or unit_of(self._policy, each) in self._units:
                self._state.admit(each.series, each.rule)
                self._is_chosen[each.series] = True
                self._chosen.add(each.key)
        self._name_scores()

    def _admitted(self, series: int) -> Admitted | None:
        """A series under its rule; None if it is not scored, nor a part of a group, nor a group's scores."""
        key, policy = self.table.keys[series], self._policy
        if policy.is_score(key):
            return Admitted(series, key, None)
        rule = None if is_own_metric(key.metric) else self._config.rule_for(*key)
        return Admitted(series, key, rule) if rule is not None or policy.groups_of(key) else None

    def _name_scores(self) -> None:
        numbers = {key: series for series, key in enumerate(self.table.keys)}
        known = [(pair, name) for pair, name in self.asked.items() if pair[0] in numbers]
        self._name_of = {numbers[key] * len(Kind) + kind: name for (key, kind), name in known}
        # The worker posts a zero where there is no score and an alert may be open. Here each may be.
        self._state.owed = {(numbers[key], int(kind)) for (key, _), _name in known for kind in _PAID}

    def reads(self, source: str, metric: str) -> bool:
        """Whether a series has to be read."""
        key = SeriesKey(source, metric)
        return key in self._chosen and not self._policy.is_score(key)

    def step(self, points: Points, now_ms: int) -> None:
        """Take all points up to ``now_ms`` that are newer than those before."""
        known = points.series < len(self._is_chosen)
        points = points if known.all() else points.take(known)
        points = points.take(self._is_chosen[points.series])
        self.seen += len(points)
        self._evaluate(in_order(points), now_ms)

    def finish(self) -> None:
        """Let the fleets see what they still wait for."""
        waiting = [self._state.waiting.t_ms, *(group.waiting.t_ms for group in self._state.groups)]
        newest_ms = int(np.concatenate(waiting).max(initial=0))
        self._evaluate(Points.empty(), newest_ms + self._policy.fleet_settle_ms)

    def _evaluate(self, points: Points, now_ms: int) -> None:
        found = evaluate(self._state, points, now_ms)
        posted = found.derived
        inside = (posted.t_ms >= self._span.from_ms) & (posted.t_ms < self._span.to_ms)
        code = posted.series * len(Kind) + posted.kind
        mine = inside & np.isin(code, np.fromiter(self._name_of, np.int64, len(self._name_of)))
        derived, code, scored = posted.take(mine), code[mine], _scored(posted.take(mine), found)
        order = np.lexsort((derived.t_ms, code))
        starts = np.flatnonzero(np.diff(code[order], prepend=-1))
        for start, end in pairwise([*starts.tolist(), len(order)]):
            at = order[start:end]
            name = self._name_of[int(code[at[0]])]
            self._take(name, derived.t_ms[at], derived.value[at], int(scored[at].sum()))


def _scored(derived: Derived, found: Evaluation) -> Bool:
    """Which derived points have a score of their own: the others are zeros that close alerts."""
    out = np.zeros(len(derived), np.bool_)
    every, rows = found.derived, found.groups.take(np.isfinite(found.groups.value))
    of_fleet = np.isin(derived.kind, (Kind.FLEET_ZSCORE, Kind.FLEET_ZSCORE_RAW))
    of_group = derived.kind == Kind.ANOMALY
    for mine, series, t_ms in (
        (of_fleet, *_places(every, Kind.FLEET_ZSCORE_RAW)),
        (of_group, rows.series, rows.t_ms),
        (~of_fleet & ~of_group, *_places(every, Kind.ZSCORE_RAW)),
    ):
        have = (series << _TIME_BITS) | t_ms
        out[mine] = np.isin((derived.series[mine] << _TIME_BITS) | derived.t_ms[mine], have)
    return out


def _places(derived: Derived, kind: Kind) -> tuple[I64, I64]:
    at = derived.kind == kind
    return derived.series[at], derived.t_ms[at]
