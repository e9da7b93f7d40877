"""``plexus-detect monitors import``: take monitors that are nobody's over, as a document."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plexus_detect.errors import ConfigError
from plexus_detect.options import config_option, configured, tell
from plexus_detect.provision.locking import lock_timeout_option, locked
from plexus_detect.provision.shared import ledger_of, monitors_client, own_source, specs_of, var_option

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.config import Config
    from plexus_detect.monitors import MonitorSpec, Ownership, Plan
    from plexus_detect.monitors.adopting import Adoption
    from plexus_detect.provision.api import MonitorApi


@click.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@config_option
@var_option
@click.option("--source", default="*", show_default=True, metavar="GLOB", help="Only of these sources.")
@click.option("--metric", default="*", show_default=True, metavar="GLOB", help="Only of these metrics.")
@click.option("--yes", is_flag=True, help="Do not ask, also on a terminal.")
@lock_timeout_option
def import_(
    file: Path,
    config_paths: tuple[Path, ...],
    *,
    source: str,
    metric: str,
    yes: bool,
    lock_timeout_s: float,
) -> None:
    """Write monitors that nobody owns into FILE, a new document, and own them from now on.

    Nothing is changed on the platform. What a document wants otherwise is named, with what to write to keep
    it as it is there.
    """
    config = configured(config_paths)
    _require_new(file)
    found, differing = asyncio.run(_found(config, source, metric))
    for line in (*found.left, *differing):
        tell(f"! {line}")
    if found.others:
        tell(f"  of other owners: {found.others}, left alone")
    if not found.taken:
        tell("nothing to import")
        return
    if sys.stdin.isatty() and not yes:
        tell("\n".join(_lines(found)))
        click.confirm(f"Write these {len(found.taken)} monitors into {file}?", abort=True)
    with locked(config, lock_timeout_s):
        _write(file, found.to_json())
        sys.exit(0 if asyncio.run(_adopt(config, file, found)) else 1)


def _lines(found: Adoption) -> list[str]:
    from plexus_detect.monitors import label

    return [f"+ import {label(monitor.key)}" for monitor in found.taken]


def _require_new(file: Path) -> None:
    """Raise ConfigError unless the file can be made."""
    if file.suffix != ".json":
        raise ConfigError(f"{file}: a document of monitors that is imported ends in .json; name it so")
    if file.exists() or file.is_symlink():
        raise ConfigError(f"{file}: exists already, and nothing is ever overwritten; name a new file")
    if not file.parent.is_dir():
        raise ConfigError(f"{file.parent}: no such folder; make it first, or name a file elsewhere")


def _write(file: Path, text: str) -> None:
    made = False
    try:
        with file.open("x", encoding="utf-8") as document:
            made = True
            document.write(text)
    except OSError as error:
        if made:
            file.unlink(missing_ok=True)
        raise ConfigError(f"{file}: cannot be written ({error.strerror}); name a file elsewhere") from error


def _documents(config: Config) -> tuple[MonitorSpec, ...]:
    """The documents that there are; none yet is as good as any."""
    from plexus_detect.positions import SUFFIXES

    path = config.monitors.path
    if not path.exists() or (path.is_dir() and not any(f.suffix in SUFFIXES for f in path.iterdir())):
        return ()
    return specs_of(config, None)


def _ownership(config: Config) -> Ownership:
    return ledger_of(config).ownership(mark=config.monitors.mark, overwrite=False)


async def _found(config: Config, source: str, metric: str) -> tuple[Adoption, list[str]]:
    """What can be taken over, and how monitors are that a document wants otherwise."""
    from plexus_detect.monitors.adopting import differing

    async with monitors_client(config) as client:
        plan, found = await read_adoption(
            client, _documents(config), own_source(config), _ownership(config), source=source, metric=metric
        )
    return found, differing(plan, source=source, metric=metric)


async def read_adoption(
    api: MonitorApi,
    specs: tuple[MonitorSpec, ...],
    own: str,
    ours: Ownership,
    *,
    source: str = "*",
    metric: str = "*",
) -> tuple[Plan, Adoption]:
    """The plan of the documents, and what can be taken over beside them; reads only."""
    from plexus_detect.monitors.adopting import adoption, origins
    from plexus_detect.provision.reading import existing_monitors, make_plan

    plan = await make_plan(api, specs, own, ownership=ours)
    existing = await existing_monitors(api)
    return plan, adoption(existing, origins(plan), ours, source=source, metric=metric)


async def _adopt(config: Config, file: Path, found: Adoption) -> bool:
    """Load the new document as any other, see that it asks for nothing, and own what is in it."""
    from plexus_detect.monitors import label
    from plexus_detect.monitors.adopting import adopted
    from plexus_detect.provision.files import load_specs
    from plexus_detect.provision.manifestfile import manifest_file, utc_now
    from plexus_detect.provision.reading import make_plan

    specs = load_specs(file)
    async with monitors_client(config) as client:
        plan = await make_plan(client, specs, own_source(config), ownership=_ownership(config))
    ledger = manifest_file(config)
    manifest = adopted(ledger.load(), plan, utc_now())
    ledger.save(manifest)
    owned = {entry.key for entry in manifest.owned}
    for monitor in found.taken:
        if monitor.key in owned:
            tell(f"imported {label(monitor.key)}")
    for problem in plan.problems:
        tell(f"failed: {problem.kind}: {problem.sentence}")
    for change in plan.work:
        tell(f"failed: import {change.label}: it changed meanwhile; see plexus-detect monitors plan")
    path = config.monitors.path
    if file.parent.resolve() != path.resolve():
        tell(f"note: monitors.path is {path}: move {file.name} there, so that apply reads it")
    return plan.empty
