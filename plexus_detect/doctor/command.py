"""``plexus-detect doctor``: check everything that the worker needs, and say what to do."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.options import config_option

# What takes long to import is imported when the command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.config import Config, KeyPath, Origin
    from plexus_detect.doctor.findings import Censor, Finding
    from plexus_detect.doctor.settings import Setting


@click.command()
@click.option("--settings", "every", is_flag=True, help="Show all settings, not only those that were given.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@config_option
def doctor(config_paths: tuple[Path, ...], output: str, *, every: bool) -> None:
    """Check configuration, key, hosts, clocks, state, series, monitors and heartbeat; changes nothing.

    Every check is one line: ok, warn or FAIL, what was found, what to do. The exit code is that of the first
    check that failed: 2 configuration, 3 key, 4 state, 75 the platform does not answer, 1 anything else; 0
    when none did.
    """
    from plexus_detect.config import load_config_with_origins
    from plexus_detect.doctor.findings import Censor, exit_code, failed
    from plexus_detect.errors import ConfigError
    from plexus_detect.logs import setup_logging

    try:
        config, origins = load_config_with_origins(config_paths, os.environ)
    except ConfigError as error:
        broken = [failed("configuration", error)]
        _print(Censor(), broken, [], as_json=output == "json")
        sys.exit(exit_code(broken))
    setup_logging("error", config.log.format)
    secret = config.plexus.api_key
    censor = Censor(secret.get_secret_value() if secret is not None else "")
    found = list(examined(config, origins, config_paths))
    _print(censor, found, _shown(config, origins, every=every), as_json=output == "json")
    sys.exit(exit_code(found))


def examined(
    config: Config, origins: Mapping[KeyPath, Origin], config_paths: Sequence[Path]
) -> Iterator[Finding]:
    """Every finding, in order."""
    from plexus_detect.doctor import bus, coverage, local, verdicts
    from plexus_detect.doctor.findings import warn
    from plexus_detect.doctor.network import ask

    yield from local.configuration(config_paths, config)
    if "kafka" in (config.source.kind, config.sink.kind):
        yield from bus.topics(config)
    if config.source.kind == config.sink.kind == "kafka":
        # Neither a key nor a state file is needed.
        yield from local.learned(config)
        yield from local.machine(config)
        return
    yield from local.key(config, origins)
    answers = asyncio.run(ask(config))
    yield from verdicts.findings_of(config, answers)
    yield from local.state(config)
    known = answers.found if isinstance(answers.found, set) else None
    if known is not None:
        yield from coverage.series(config, known)
    else:
        why = str(answers.found) if isinstance(answers.found, Exception) else verdicts.NO_KEY
        yield warn("series", f"not known which there are: {why}")
    yield from local.learned(config)
    yield from _monitors(config, known, given=("monitors", "path") in origins)
    yield from local.manifest(config)
    yield verdicts.heartbeat(config, answers)
    yield from local.machine(config)


def _monitors(config: Config, known: set[tuple[str, str]] | None, *, given: bool) -> Iterator[Finding]:
    from plexus_detect.doctor import coverage
    from plexus_detect.errors import ConfigError
    from plexus_detect.provision.shared import specs_of

    try:
        specs = specs_of(config, None)
    except ConfigError as error:
        yield coverage.documents_missing(config, error, given=given)
        return
    yield from coverage.monitors(config, specs, known)


def _shown(config: Config, origins: Mapping[KeyPath, Origin], *, every: bool) -> list[Setting]:
    from plexus_detect.doctor.settings import settings_of

    return [one for one in settings_of(config, origins, os.environ) if every or not one.is_default]


def _print(censor: Censor, found: Sequence[Finding], settings: Sequence[Setting], *, as_json: bool) -> None:
    from plexus_detect.doctor.findings import exit_code, tally

    told = [(one.key, censor.clean(one.value), censor.clean(one.origin)) for one in settings]
    if as_json:
        named = [dict(zip(("key", "value", "origin"), one, strict=True)) for one in told]
        whole = {"checks": censor.values(found), "settings": named, "exit_code": exit_code(found)}
        click.echo(json.dumps(whole, indent=2))
        return
    lines = censor.lines(found)
    if told:
        lines += ["", *(f"{key} = {value}  ({origin})" for key, value, origin in told)]
    click.echo("\n".join([*lines, "", tally(found)]))
