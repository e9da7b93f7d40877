"""``plexus-detect streampipes``: models from the data lake, and a function that judges live events."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.errors import ConfigError
from plexus_detect.options import config_option, configured
from plexus_detect.train.command import group_of, keep_models, show_cards

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.backtest.moments import Span


@click.group()
def streampipes() -> None:
    """Judge the data streams of Apache StreamPipes (extra: streampipes)."""


@streampipes.command()
@click.argument("name")
@click.option("--measure", help="Measure of the data lake. Default: streampipes.measure.")
@click.option(
    "--from",
    "start",
    default="30d",
    show_default=True,
    help="Start of the past to learn from: ISO time, epoch, or a duration back.",
)
@click.option("--to", "end", default="now", show_default=True, help="End of it, not included.")
@click.option("--rows", default=500_000, show_default=True, type=click.IntRange(10), help="Newest rows read.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def train(config_paths: tuple[Path, ...], name: str, output: str, **asked: str | int | None) -> None:
    """Fit a model from the data lake.

    NAME is that of an entry of detectors in the configuration. The model becomes the newest version in the
    folder state.models, exported as ONNX where there is such a form, and is taken by a running function.
    """
    _require()
    from plexus_detect import clock
    from plexus_detect.policy import group_rule
    from plexus_detect.streampipes.connection import Core
    from plexus_detect.streampipes.history import from_lake

    config = configured(config_paths)
    group = group_of(config, name)
    # Of StreamPipes a row is one event: nothing has to be joined.
    rule = replace(group_rule(config, group, with_model=False), align_ms=0)
    measure = str(asked["measure"] or config.streampipes.measure)
    if not measure:
        raise ConfigError("--measure: no measure is named; give one of the data lake")
    span = _span(str(asked["start"]), str(asked["end"]), clock.now_ms())
    with closing(Core.of(config, os.environ)) as core:
        pasts = from_lake(core, measure, rule, span, int(asked["rows"] or 0))
    if not pasts:
        raise ConfigError(
            f"--measure: '{measure}' has no rows in that span of sources {', '.join(rule.sources)}; check "
            "streampipes.device and detectors[].sources, or choose an earlier --from"
        )
    facts = {"measure": measure, "core": core.url}
    show_cards(keep_models(config, group, rule, pasts, facts), output)


@streampipes.command()
@config_option
def run(config_paths: tuple[Path, ...]) -> None:
    """Judge live events until stopped.

    Each event of streampipes.streams gives one on the stream streampipes.output, with is_anomaly, score (1.0
    is at the line) and reason.
    """
    _require()
    from plexus_detect.streampipes.service import serve

    sys.exit(asyncio.run(serve(configured(config_paths), os.environ)))


def _span(start: str, end: str, now_ms: int) -> Span:
    """What of the past is read. Raises ConfigError."""
    from plexus_detect.backtest.moments import TIME_FORMS, Span, moment_ms

    times = []
    for option, text in (("--from", start), ("--to", end)):
        try:
            times.append(moment_ms(text, now_ms))
        except (ValueError, OverflowError):
            raise ConfigError(
                f"{option}: '{text}' is no time; write {TIME_FORMS}, or 30d for thirty days back"
            ) from None
    if times[0] >= times[1]:
        raise ConfigError("--from: it is not before --to; choose an earlier one")
    return Span(times[0], times[1])


def _require() -> None:
    """Raise ConfigError when what speaks with StreamPipes is not installed."""
    missing = [
        name for name in ("streampipes", "nats", "confluent_kafka") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ConfigError(
            f"this command needs the extra 'streampipes' ({', '.join(missing)} is not installed); "
            "run: pip install 'plexus-detect[streampipes]'"
        )
