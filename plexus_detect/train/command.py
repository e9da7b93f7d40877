"""``plexus-detect train``: the name of a group in, a fitted, exported and checked model and its card out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    from plexus_detect.training.versions import ModelFolder

    Make = Callable[[Sequence[Past]], Made]


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
@click.option(
    "--deploy-if-comparable",
    is_flag=True,
    help="Use the new model only if it is comparable with the one in use on the newest fifth of the rows, "
    "which it then has not learned; else exit 5.",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def train(config_paths: tuple[Path, ...], name: str, output: str, **asked: str | Path | bool | None) -> None:
    """Fit the model of a group of detectors: from history, with what is normal in most of it.

    NAME is that of an entry of detectors in the configuration. The model is checked on rows that were held
    back, compared with the version in use, kept as the newest version in the folder state.models, taken by a
    running worker, and its card is printed.
    """
    from plexus_detect.policy import group_rule

    config = configured(config_paths)
    group = group_of(config, name)
    rule, gate = group_rule(config, group, with_model=False), bool(asked["deploy_if_comparable"])
    show_cards(keep_models(config, group, rule, _pasts(config, rule, asked), gate=gate), output)


def keep_models(
    config: Config,
    group: DetectorConfig,
    rule: GroupRule,
    pasts: list[Past],
    facts_of_all: Mapping[str, object] | None = None,
    *,
    gate: bool = False,
) -> list[dict[str, object]]:
    """Fit the models of a group and keep them as the newest versions; their cards. With a ``gate`` they are
    used only if they are comparable with those in use. Raises FitError."""
    from plexus_detect.training.trainer import require
    from plexus_detect.training.versions import ModelFolder

    require()
    folder, facts = ModelFolder(config.models), facts_of_all or {}
    return [_kept(folder, group, unit, facts, gate=gate) for unit in list(_units(group, rule, pasts))]


def show_cards(cards: list[dict[str, object]], output: str) -> None:
    """Print cards as text or JSON. Raises NotDeployedError when a model is not used."""
    from plexus_detect.errors import NotDeployedError

    if output == "json":
        click.echo(json.dumps(cards, indent=2))
    else:
        tell("\n\n".join(card_text(card) for card in cards))
    if refused := [sentence for card in cards if (sentence := _refusal(card))]:
        raise NotDeployedError("; ".join(refused))


def _kept(
    folder: ModelFolder,
    group: DetectorConfig,
    unit: tuple[str, Sequence[Past], Make],
    facts_of_all: Mapping[str, object],
    *,
    gate: bool,
) -> dict[str, object]:
    """Make one model, keep it, and use it unless a gate says otherwise; its card. Raises FitError."""
    from plexus_detect import clock
    from plexus_detect.train.gating import in_use, trained
    from plexus_detect.training.shelf import MADE_BY, MADE_MS, TRAIN

    kept_as, pasts, make = unit
    one = trained(pasts, make, group, in_use(folder, kept_as, group), gate=gate)
    made, use = one.made, not gate or one.comparison is None or one.comparison.may_follow
    facts = {
        "metrics": list(group.metrics),
        **made.card,
        "parity": made.parity,
        MADE_BY: TRAIN,
        MADE_MS: clock.now_ms(),
        **facts_of_all,
        **one.facts(),
        "deployed": use,
    }
    version = folder.keep(kept_as, made.arrays, facts, made.onnx, use=use)
    return {"name": kept_as, **facts, "version": version, "path": str(folder.path_of(kept_as, version))}


def _refusal(card: Mapping[str, object]) -> str | None:
    """Why a model is not used, as a sentence; None for one that is."""
    about = card.get("comparison")
    if card["deployed"] or not isinstance(about, dict):
        return None
    name, version, used = card["name"], card["version"], card["compared_with"]
    return (
        f"{name}: version {version} is kept but not used ({about['verdict']}): {about['why']}; version "
        f"{used} stays, and to use the new one all the same: models roll-back {name} --to {version}"
    )


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


def _pasts(config: Config, rule: GroupRule, asked: Mapping[str, str | Path | bool | None]) -> list[Past]:
    """The rows to learn from. Raises ConfigError when there are none."""
    from plexus_detect.train.history import from_file, from_platform

    file = asked["csv_file"]
    span = _span(config, asked)
    pasts = from_file(Path(str(file)), rule, span) if file else asyncio.run(from_platform(config, rule, span))
    if not pasts:
        raise ConfigError(
            f"detectors: no rows of {', '.join(rule.metrics)} on sources {', '.join(rule.sources)} in "
            f"{file or 'that span'}; check metrics, sources and align, or choose an earlier --from"
        )
    return pasts


def _span(config: Config, asked: Mapping[str, str | Path | bool | None]) -> Span:
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


def _units(
    group: DetectorConfig, rule: GroupRule, pasts: Sequence[Past]
) -> Iterator[tuple[str, Sequence[Past], Make]]:
    """The models to make: the name that each is kept under, its rows, and how it is made of some."""
    from plexus_detect.groups import model_name
    from plexus_detect.learn.windowed import WindowedParams
    from plexus_detect.train.making import learned, windowed

    params = WindowedParams(group.windows, group.level)

    def make(of: Sequence[Past]) -> Made:
        if group.kind == "autoencoder":
            return windowed(of, group.metrics, params)
        return learned(of, group.metrics, rule.learn)

    if group.kind == "autoencoder" or rule.shared:
        yield group.name, pasts, make
        return
    for past in pasts:
        yield model_name(rule, past.source), [past], make


def card_text(card: Mapping[str, object]) -> str:
    """A model card in lines, one fact each."""
    facts = {key: value for key, value in card.items() if key not in ("name", "version", "columns")}
    if isinstance(about := facts.pop("comparison", None), dict):
        facts |= {"rows compared" if key == "rows" else key: value for key, value in about.items()}
    for key in ("made_ms", "from_ms", "to_ms"):
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
