"""``plexus-detect explain``: a source, a metric and a time in, the receipt of the score out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.errors import ConfigError
from plexus_detect.options import client_of, config_option, configured, tell

# What takes long to import is imported when the command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.backtest.replay import Admitted
    from plexus_detect.config import Config
    from plexus_detect.evaluate import Policy
    from plexus_detect.explain.account import Account
    from plexus_detect.explain.group import GroupAccount
    from plexus_detect.groups import GroupRule
    from plexus_detect.reader import Reader
    from plexus_detect.series import Points, SeriesKey, SeriesTable


# Known names that an error lists when none is near.
NAMED = 10


@dataclass(frozen=True)
class Question:
    """What the arguments say: whose score, at ``asked_ms``, from samples since ``from_ms`` (None: as far as
    the default reaches), of a file or of the platform."""

    source: str
    metric: str
    asked_ms: int
    from_ms: int | None
    csv_file: Path | None


@click.command()
@click.argument("source")
@click.argument("metric")
@click.argument("time")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Read this CSV, not the platform.")
@click.option(
    "--from",
    "start",
    metavar="TIME",
    help="First sample read. Default: poll.history before TIME; of a file its beginning.",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def explain(config_paths: tuple[Path, ...], output: str, **asked: str | Path | None) -> None:
    """Print the receipt of one score: which check gave it, from which numbers, against which past.

    SOURCE and METRIC name the series, or METRIC a group of detectors. TIME is an ISO time, an epoch or a
    duration back such as 2h; the newest sample at or before it is taken. The past is replayed as in a
    backtest; nothing is posted.
    """
    config = configured(config_paths)
    question = _question(config, asked)
    _print(config, question, as_json=output == "json")


def _print(config: Config, question: Question, *, as_json: bool) -> None:
    from plexus_detect.explain import group_words, words
    from plexus_detect.explain.group import group_asked
    from plexus_detect.policy import policy_of

    rule, asked_ms = group_asked(policy_of(config), question.source, question.metric), question.asked_ms
    if rule is not None:
        judged = _group_account(config, rule, question)
        text, told = group_words.text_of(judged, asked_ms), group_words.json_of(judged, asked_ms)
    else:
        found = _account(config, question)
        text, told = words.text_of(found, asked_ms), words.json_of(found, asked_ms)
    tell(json.dumps(told, indent=2, allow_nan=False) if as_json else text, nl=as_json)


def _group_account(config: Config, rule: GroupRule, question: Question) -> GroupAccount:
    """Read what is needed and take the score of a group of metrics apart.

    Raises ConfigError, ApiError and ContractError.
    """
    from plexus_detect.backtest.moments import exact_stamp
    from plexus_detect.backtest.run import read_csv
    from plexus_detect.explain.group import group_account, members
    from plexus_detect.training.trainer import InlineTrainer, require

    require()
    if question.csv_file is not None:
        keys, points = read_csv(question.csv_file)
        points = points.take((points.t_ms >= (question.from_ms or 0)) & (points.t_ms <= question.asked_ms))
    else:
        keys, points = asyncio.run(group_from_platform(config, rule, question))
    if not members(rule, question.source, keys):
        raise _unknown("SOURCE", question.source, sorted({key.source for key in keys if rule.takes(key)}))
    found = group_account(rule, InlineTrainer(), question.source, keys, points)
    if found is None:
        raise ConfigError(
            f"TIME: {question.source}/{rule.name} has no row of two metrics at or before "
            f"{exact_stamp(question.asked_ms)} in what was read; choose a later time, or an earlier --from"
        )
    return found


async def group_from_platform(
    config: Config, rule: GroupRule, question: Question
) -> tuple[list[SeriesKey], Points]:
    """All series that are known, and the points up to TIME of those with a part in the group's score."""
    from plexus_detect.explain.group import members

    async with _platform(config) as (reader, table):
        wanted = {table.keys[i] for i in members(rule, question.source, table.keys)}
        return table.keys, await _points(config, (reader, table), wanted, question)


def _question(config: Config, asked: dict[str, str | Path | None]) -> Question:
    from plexus_detect.backtest.moments import TIME_FORMS, moment_ms, stamp
    from plexus_detect.backtest.run import platform_now_ms

    now_ms, times = platform_now_ms(config), list[int | None]()
    for name, text in (("TIME", asked["time"]), ("--from", asked["start"])):
        try:
            times.append(None if text is None else moment_ms(str(text), now_ms))
        except (ValueError, OverflowError):
            raise ConfigError(
                f"{name}: '{text}' is no time; write {TIME_FORMS}, or 2h for two hours back from now"
            ) from None
    at, start = times
    if at is None or (start is not None and start >= at):
        raise ConfigError(f"--from: {stamp(start or 0)} is not before TIME; choose an earlier one")
    file = asked["csv_file"]
    return Question(str(asked["source"]), str(asked["metric"]), at, start, Path(file) if file else None)


def _account(config: Config, question: Question) -> Account:
    """Read what is needed and take the score apart. Raises ConfigError, ApiError and ContractError."""
    from plexus_detect.backtest.run import read_csv
    from plexus_detect.policy import policy_of

    policy = policy_of(config)
    if question.csv_file is not None:
        keys, points = read_csv(question.csv_file)
        series, members = _chosen(config, policy, question, keys)
        points = points.take(points.t_ms >= (question.from_ms or 0))
    else:
        series, members, points = asyncio.run(from_platform(config, policy, question))
    return taken_apart(policy, question, members, series, points)


def taken_apart(
    policy: Policy, question: Question, members: Sequence[Admitted], series: int, points: Points
) -> Account:
    """The account of the sample that is asked for. Raises ConfigError when there is none."""
    from plexus_detect.backtest.moments import exact_stamp
    from plexus_detect.explain.account import account, sample_at

    sample = sample_at(points, series, question.asked_ms)
    if sample is None:
        raise ConfigError(
            f"TIME: {question.source}/{question.metric} has no sample at or before "
            f"{exact_stamp(question.asked_ms)} in what was read; choose a later time, or an earlier --from"
        )
    return account(policy, members, points, series, sample)


async def from_platform(
    config: Config, policy: Policy, question: Question
) -> tuple[int, list[Admitted], Points]:
    """The number of the series, who is compared with it, and the points of all of them up to TIME."""
    from plexus_detect.explain.account import mates

    async with _platform(config) as (reader, table):
        series, members = _chosen(config, policy, question, table.keys)
        own = next(member for member in members if member.series == series)
        wanted = {member.key for member in mates(policy, members, own)}
        return series, members, await _points(config, (reader, table), wanted, question)


@asynccontextmanager
async def _platform(config: Config) -> AsyncIterator[tuple[Reader, SeriesTable]]:
    """The platform, and a table of all series that it knows."""
    from plexus_detect.backtest.platform import discover
    from plexus_detect.policy import poll_params
    from plexus_detect.reader import Reader
    from plexus_detect.series import SeriesTable

    table = SeriesTable()
    async with client_of(config) as client:
        reader = Reader(client, table, poll_params(config), config.plexus.concurrency)
        await reader.check()
        await discover(reader, table, config)
        yield reader, table


async def _points(
    config: Config, platform: tuple[Reader, SeriesTable], wanted: set[SeriesKey], question: Question
) -> Points:
    """The points of these series up to TIME."""
    from plexus_detect.backtest.moments import Span
    from plexus_detect.backtest.platform import History
    from plexus_detect.backtest.run import platform_now_ms
    from plexus_detect.policy import poll_params
    from plexus_detect.series import Points

    history = History(*platform, poll_params(config), lambda source, metric: (source, metric) in wanted)
    from_ms = question.from_ms
    if from_ms is None:
        from_ms = max(0, question.asked_ms - config.poll.history_ms)
    span = Span(from_ms, min(question.asked_ms, platform_now_ms(config)) + 1)
    return Points.concat([part.points async for part in history.parts(span)])


def _chosen(
    config: Config, policy: Policy, question: Question, keys: Sequence[SeriesKey]
) -> tuple[int, list[Admitted]]:
    """The number of the series that is asked for among ``keys``, and all that have to be admitted for its
    score. Raises ConfigError."""
    from plexus_detect.backtest.replay import Admitted
    from plexus_detect.explain.account import mates

    series = _series(config, question, keys)
    rules = ((i, key, config.rule_for(*key)) for i, key in enumerate(keys))
    selected = [Admitted(i, key, rule) for i, key, rule in rules if rule is not None]
    # All that share a budget of alerts count, if only by their number.
    if policy.alerts_per_day is not None:
        return series, selected
    own = next(member for member in selected if member.series == series)
    return series, mates(policy, selected, own)


def _series(config: Config, question: Question, keys: Sequence[SeriesKey]) -> int:
    """The place of the series in ``keys``; raises ConfigError when there is none that is scored."""
    from plexus_detect.series import SeriesKey, is_own_metric

    key = SeriesKey(question.source, question.metric)
    if is_own_metric(key.metric):
        raise ConfigError(f"METRIC: '{key.metric}' is a name that the detector posts; it is never scored")
    if key not in keys:
        sources = sorted({other.source for other in keys})
        if key.source not in sources:
            raise _unknown("SOURCE", key.source, sources)
        raise _unknown("METRIC", key.metric, sorted(k.metric for k in keys if k.source == key.source))
    if config.rule_for(*key) is None:
        raise ConfigError(
            f"series: {key.source}/{key.metric} is selected by no rule; change sources and metrics"
        )
    return list(keys).index(key)


def _unknown(what: str, name: str, known: Sequence[str]) -> ConfigError:
    from plexus_detect.config.mistakes import near_match

    near = near_match(name, known)
    hint = f"did you mean '{near}'?" if near else f"choose one of {', '.join(known[:NAMED]) or 'none'}"
    return ConfigError(f"{what}: '{name}' is not known here; {hint}")
