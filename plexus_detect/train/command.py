"""``plexus-detect train``: the name of a group in, a fitted, exported and checked model and its card out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.errors import ConfigError
from plexus_detect.options import config_option, configured, tell

# What takes long to import is imported when the command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.backtest.moments import Span
    from plexus_detect.config import Config, DetectorConfig
    from plexus_detect.groups import GroupRule
    from plexus_detect.train.history import Past
    from plexus_detect.train.making import Made


@click.command()
@click.argument("name")
@click.option(
    "--from",
    "start",
    default="14d",
    show_default=True,
    help="Start of the past to learn from: ISO time, epoch, or a duration back. Of a file: its beginning.",
)
@click.option("--to", "end", help="End of it, not included. Default: now, or the end of the file.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Read this CSV, not the platform.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def train(config_paths: tuple[Path, ...], name: str, output: str, **asked: str | Path | None) -> None:
    """Fit the model of a group of detectors: from history, with what is normal in most of it.

    NAME is that of an entry of detectors in the configuration. The model is checked on rows that were held
    back, kept as the newest version in the folder state.models, taken by a running worker (kind autoencoder:
    at its next start), and its card is printed.
    """
    from plexus_detect.policy import group_rule

    config = configured(config_paths)
    group = group_of(config, name)
    rule = group_rule(config, group, with_model=False)
    show_cards(keep_models(config, group, rule, _pasts(config, rule, asked)), output)


def keep_models(
    config: Config,
    group: DetectorConfig,
    rule: GroupRule,
    pasts: list[Past],
    facts_of_all: Mapping[str, object] | None = None,
) -> list[dict[str, object]]:
    """Fit the models of a group and keep them as the newest versions; their cards. Raises FitError."""
    from plexus_detect.training.shelf import MADE_BY, TRAIN
    from plexus_detect.training.versions import ModelFolder

    folder, cards = ModelFolder(config.models), list[dict[str, object]]()
    for kept_as, made in _made(group, rule, pasts):
        facts = {"metrics": list(group.metrics), **made.card, "parity": made.parity, MADE_BY: TRAIN}
        facts |= facts_of_all or {}
        version = folder.keep(kept_as, made.arrays, facts, made.onnx)
        cards.append(
            {"name": kept_as, **facts, "version": version, "path": str(folder.path_of(kept_as, version))}
        )
    return cards


def show_cards(cards: list[dict[str, object]], output: str) -> None:
    """Print cards as text or JSON."""
    if output == "json":
        click.echo(json.dumps(cards, indent=2))
    else:
        tell("\n\n".join(card_text(card) for card in cards))


def group_of(config: Config, name: str) -> DetectorConfig:
    """The entry of detectors with this name. Raises ConfigError."""
    from plexus_detect.config.mistakes import near_match

    found = next((group for group in config.detectors if group.name == name), None)
    if found is None:
        names = [group.name for group in config.detectors]
        near = near_match(name, names)
        hint = f"did you mean '{near}'?" if near else f"there are: {', '.join(names) or 'none'}"
        raise ConfigError(f"NAME: detectors has no entry '{name}'; {hint}")
    if found.kind == "onnx":
        raise ConfigError(
            f"NAME: '{name}' is of kind onnx, whose model is made elsewhere; train another kind"
        )
    return found


def _pasts(config: Config, rule: GroupRule, asked: Mapping[str, str | Path | None]) -> list[Past]:
    """The rows to learn from. Raises ConfigError when there are none."""
    from plexus_detect.train.history import from_file, from_platform

    file = asked["csv_file"]
    span = _span(config, asked)
    pasts = from_file(Path(file), rule, span) if file else asyncio.run(from_platform(config, rule, span))
    if not pasts:
        raise ConfigError(
            f"detectors: no rows of {', '.join(rule.metrics)} on sources {', '.join(rule.sources)} in "
            f"{file or 'that span'}; check metrics, sources and align, or choose an earlier --from"
        )
    return pasts


def _span(config: Config, asked: Mapping[str, str | Path | None]) -> Span:
    """What of the past is read. Raises ConfigError."""
    from plexus_detect.backtest.moments import TIME_FORMS, Span, moment_ms
    from plexus_detect.backtest.run import platform_now_ms

    context = click.get_current_context()
    now_ms, times = platform_now_ms(config), list[int]()
    # Of a file all is read unless somebody asks for less.
    defaults = {"start": 0, "end": 1 << 62} if asked["csv_file"] else {"end": now_ms}
    for option, place in (("--from", "start"), ("--to", "end")):
        given = context.get_parameter_source(place) is not click.core.ParameterSource.DEFAULT
        try:
            use = given or place not in defaults
            times.append(moment_ms(str(asked[place]), now_ms) if use else defaults[place])
        except (ValueError, OverflowError):
            raise ConfigError(
                f"{option}: '{asked[place]}' is no time; write {TIME_FORMS}, or 30d for thirty days back"
            ) from None
    if times[0] >= times[1]:
        raise ConfigError("--from: it is not before --to; choose an earlier one")
    return Span(times[0], times[1])


def _made(group: DetectorConfig, rule: GroupRule, pasts: list[Past]) -> list[tuple[str, Made]]:
    """The models, by the names that they are kept under. Raises FitError."""
    from plexus_detect.groups import model_name
    from plexus_detect.learn.windowed import WindowedParams
    from plexus_detect.train.making import learned, windowed
    from plexus_detect.training.trainer import require

    require()
    if group.kind == "autoencoder":
        return [(group.name, windowed(pasts, group.metrics, WindowedParams(group.windows, group.level)))]
    if rule.shared:
        return [(group.name, learned(pasts, group.metrics, rule.learn))]
    return [(model_name(rule, past.source), learned([past], group.metrics, rule.learn)) for past in pasts]


def card_text(card: Mapping[str, object]) -> str:
    """A model card in lines, one fact each."""
    facts = {key: value for key, value in card.items() if key not in ("name", "version", "columns")}
    for key in ("from_ms", "to_ms"):
        if key in facts:
            facts[key.removesuffix("_ms")] = time_fact(facts.pop(key))
    rows = [f"  {key.replace('_', ' '):22}{_fact(value)}" for key, value in facts.items()]
    return "\n".join([f"{card['name']} version {card['version']}", *rows])


def time_fact(value: object) -> str:
    """A time of a card as a person reads it, or whatever stands there in its place."""
    from plexus_detect.backtest.moments import exact_stamp

    try:
        return exact_stamp(int(str(value)))
    except (ValueError, OverflowError):
        return _fact(value)


def _fact(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
