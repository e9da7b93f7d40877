"""What the ``monitors`` commands share: arguments, and what the configuration says of ownership."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.options import client_of

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.client import Client
    from plexus_detect.config import Config
    from plexus_detect.monitors import MonitorSpec, Plan, Variable
    from plexus_detect.monitors.guard import Limits
    from plexus_detect.monitors.savedplan import SavedPlan
    from plexus_detect.provision.api import MonitorApi
    from plexus_detect.provision.backups import Backups
    from plexus_detect.provision.ledger import FileLedger

path_argument = click.argument("path", required=False, type=click.Path(path_type=Path))
_VARIABLES = f"{__name__}.variables"


def _keep_variables(context: click.Context, _parameter: object, given: Sequence[str]) -> None:
    context.meta[_VARIABLES] = variables_of(given)


# Kept with the command that runs, where ``specs_of`` finds them: every command that reads documents takes
# the option, and none has to hand it on.
var_option = click.option(
    "--var",
    multiple=True,
    expose_value=False,
    callback=_keep_variables,
    metavar="NAME=VALUE",
    help="A variable ${name} of documents in the short form, over monitors.vars; repeatable.",
)
force_option = click.option(
    "--force", is_flag=True, help="Overwrite also what a person edited or somebody else made."
)


def variables_of(given: Sequence[str]) -> dict[str, Variable]:
    """The texts ``name=value`` as a mapping; a value that is JSON of a single value is that value."""
    found: dict[str, Variable] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not (sign and name):
            raise click.BadParameter(f"{text!r} is not of the form name=value")
        try:
            parsed = json.loads(value)
        except (ValueError, RecursionError):
            parsed = value
        found[name] = value if isinstance(parsed, dict | list) else parsed
    return found


def specs_of(
    config: Config, path: Path | None, variables: Mapping[str, Variable] | None = None
) -> tuple[MonitorSpec, ...]:
    """The documents at ``path``, or where the configuration has them; raises ConfigError.

    Their ``variables`` are those of ``var_option`` where none are given, over those of the configuration.
    """
    from plexus_detect.provision.files import load_specs

    if variables is None:
        context = click.get_current_context(silent=True)
        variables = context.meta.get(_VARIABLES, {}) if context else {}
    given = {**config.monitors.vars, **variables}
    return load_specs(path or config.monitors.path, variables=given, targets=config.monitors.targets)


def own_source(config: Config) -> str:
    """The source of the worker's sign of life, empty when there is none."""
    return config.heartbeat.source if config.heartbeat.enabled else ""


def overwrites(config: Config, *, force: bool) -> bool:
    """Whether what a person edited, or somebody else made, is overwritten."""
    return force or config.monitors.drift == "overwrite"


def limits_of(config: Config, max_deletes: int | None = None, max_share: float | None = None) -> Limits:
    """How much one run may delete: as given, else as configured."""
    from plexus_detect.monitors.guard import Limits

    return Limits(
        config.monitors.prune_max if max_deletes is None else max_deletes,
        config.monitors.prune_share if max_share is None else max_share,
    )


def monitors_client(config: Config) -> Client:
    """A client at the rate of the monitors commands. Raises ConfigError when there is no key."""
    return client_of(config, requests_per_s=config.monitors.requests_per_s)


async def plan_of(
    api: MonitorApi,
    config: Config,
    specs: Sequence[MonitorSpec],
    ledger: FileLedger,
    *,
    force: bool,
    prune: bool = False,
) -> Plan:
    """How the platform differs from documents, by what the manifest says is ours; reads only."""
    from plexus_detect.provision.reading import make_plan

    ours = ledger.ownership(mark=config.monitors.mark, overwrite=overwrites(config, force=force))
    return await make_plan(api, specs, own_source(config), ownership=ours, prune=prune)


def ledger_of(config: Config, command: str = "apply") -> FileLedger:
    """The manifest of this deployment, with backups named for ``command``. Raises ConfigError."""
    from plexus_detect.provision.ledger import FileLedger
    from plexus_detect.provision.manifestfile import manifest_file

    return FileLedger(manifest_file(config), backups_of(config), command)


def backups_of(config: Config) -> Backups:
    """The backups of this deployment."""
    from plexus_detect.provision.backups import Backups

    return Backups(config.manifest(), config.monitors.owner, config.plexus.endpoint)


def saved_plan_of(config: Config, path: Path | None) -> SavedPlan | None:
    """The saved plan at a path, None where something else is. Raises ConfigError for one that will not do."""
    from plexus_detect.provision.planfile import read_plan

    return None if path is None else read_plan(path, config.monitors.owner, config.plexus.endpoint)


def refuse_with_saved(path: Path | None, given: Mapping[str, bool]) -> None:
    """Raise a usage error for an option that a saved plan has no room for."""
    for option, is_given in given.items():
        if is_given:
            raise click.UsageError(f"{option} cannot be given with the saved plan {path}: it holds one plan")
