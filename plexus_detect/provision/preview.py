"""What the monitors of a plan would have fired in the last days: asked of the platform's own history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from plexus_detect.backtest.moments import DAY_MS, Span
from plexus_detect.client import Client
from plexus_detect.config import Config
from plexus_detect.errors import ApiError, AuthError, ConfigError, ContractError, ModelError
from plexus_detect.monitors import Key, Plan, scored_metric
from plexus_detect.monitors.firing import Engine, engine
from plexus_detect.monitors.forecast import Forecast, Preview
from plexus_detect.options import progress_bar
from plexus_detect.provision.history import Progress, doubt_of_silence, read_replayed, read_stored, settled_ms
from plexus_detect.series import F64, I64, SeriesKey

# What an offline monitor watches is no series but all of a source: it is not previewed.
PARTS = ("threshold", "event")


@dataclass(frozen=True)
class Question:
    """One monitor to preview: its settings on the platform and as planned, None where there is none."""

    key: Key
    document: str
    now: Mapping[str, Any] | None
    then: Mapping[str, Any] | None


def questions(plan: Plan, *, everything: bool = False) -> list[Question]:
    """What a plan creates and changes, in its order; with ``everything`` also what it keeps."""
    changed = {change.key: change for change in plan.changes}
    found = []
    for wanted in plan.expansion.wanted:
        change = changed.get(wanted.key)
        if wanted.key[2] not in PARTS or (change is None and not everything):
            continue
        now: Mapping[str, Any] | None = wanted.settings
        if change is not None:
            old = {name: before for name, before, _after in change.fields if name in wanted.settings}
            now = None if change.action == "create" else {**wanted.settings, **old}
        found.append(Question(wanted.key, wanted.origin, now, wanted.settings))
    return found


async def forecasts(
    config: Config, client: Client, plan: Plan, days: float, *, replay: bool = False, everything: bool = False
) -> Preview:
    """The firings of a plan's monitors in the last ``days``; no request where there is nothing to preview.

    Stored points are judged as they are; where there are none of a name of ours, or with ``replay``, the
    scores are made anew from the samples with the settings of ``config``. What cannot be had is said in the
    preview's ``missing``, since a plan is worth reading without one: this raises nothing of the platform's.
    """
    asked = questions(plan, everything=everything) if days > 0 else []
    return await answered(config, client, asked, days, replay=replay)


async def answered(
    config: Config, client: Client, asked: Sequence[Question], days: float, *, replay: bool = False
) -> Preview:
    """As ``forecasts``, for questions that somebody else puts."""
    if not asked:
        return Preview(days)
    try:
        to_ms = await settled_ms(client, config)
        inquiry = Inquiry(asked, Span(to_ms - round(days * DAY_MS), to_ms))
        with progress_bar("preview of firings") as progress:
            await inquiry.read(config, client, progress, replay=replay)
    except AuthError as error:
        return Preview(days, missing=f"the key may not read telemetry: {error}")
    except (ApiError, ContractError) as error:
        return Preview(days, missing=f"the history cannot be read: {error}")
    documents = {question.key: question.document for question in asked}
    return Preview(days, inquiry.answers(), documents)


class Watch:
    """One question while points come in: its engines, and how many points they judged."""

    def __init__(self, question: Question, span: Span) -> None:
        self.question = question
        self._span = span
        part = question.key[2]
        self._engines: list[Engine | None] = [
            None if settings is None else engine(part, settings, span.from_ms)
            for settings in (question.now, question.then)
        ]
        self.points = 0
        self.first_ms: int | None = None

    def step(self, t_ms: I64, value: F64, posted: int) -> None:
        """Take points in order of time."""
        if posted and self.first_ms is None:
            self.first_ms = int(t_ms[0])
        self.points += posted
        for each in self._engines:
            if each is not None:
                each.step(t_ms, value)

    def answer(self, origin: Literal["stored", "replayed"], reason: str) -> Forecast:
        """What there is to say when all points were there."""
        now, then = (None if each is None else each.finish(self._span.to_ms) for each in self._engines)
        source = origin if self.points else "none"
        said = "" if self.points else reason or "no points in the period"
        return Forecast(now, then, self.points, source, *self._span, first_ms=self.first_ms, reason=said)


class Inquiry:
    """All questions over one period, and the series that answer them."""

    def __init__(self, asked: Sequence[Question], span: Span) -> None:
        self._span = span
        self._watches = [Watch(question, span) for question in asked]
        self._of: defaultdict[SeriesKey, list[Watch]] = defaultdict(list)
        for watch in self._watches:
            self._of[SeriesKey(*watch.question.key[:2])].append(watch)
        self._replayed: set[SeriesKey] = set()
        self._reasons: dict[SeriesKey, str] = {}

    async def read(self, config: Config, client: Client, progress: Progress, *, replay: bool) -> None:
        """Let the engines see every point, the stored ones first. Raises ApiError and ContractError."""
        ours = {key for key in self._of if scored_metric(key.metric) is not None}
        stored = self._of.keys() - (ours if replay else set())
        share = 0.5 if ours else 1.0
        if stored:
            await read_stored(
                client,
                config,
                stored,
                self._span,
                take=self._take,
                progress=lambda done: progress(share * done),
            )
        measured = sorted(self._of.keys() - ours)
        if measured and not any(watch.points for watch in self._watches):
            doubt = await doubt_of_silence(client, measured[0], self._span)
            self._reasons = dict.fromkeys(measured, doubt)
        self._replayed = {key for key in ours if not any(watch.points for watch in self._of[key])}
        if self._replayed:
            try:
                self._reasons |= await read_replayed(
                    client,
                    config,
                    self._replayed,
                    self._span,
                    take=self._take,
                    progress=lambda done: progress(share + (1 - share) * done),
                )
            except (ConfigError, ModelError) as error:
                self._reasons |= dict.fromkeys(self._replayed, f"the scores cannot be replayed: {error}")
        progress(1.0)

    def _take(self, key: SeriesKey, t_ms: I64, value: F64, posted: int) -> None:
        for watch in self._of[key]:
            watch.step(t_ms, value, posted)

    def answers(self) -> dict[Key, Forecast]:
        """A forecast for each question, in their order."""
        found = {}
        for watch in self._watches:
            key = SeriesKey(*watch.question.key[:2])
            origin: Literal["stored", "replayed"] = "replayed" if key in self._replayed else "stored"
            found[watch.question.key] = watch.answer(origin, self._reasons.get(key, ""))
        return found
