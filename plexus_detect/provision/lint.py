"""``plexus-detect monitors lint``: what is wrong with documents, before a monitor is made from them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plexus_detect.errors import ApiError, ConfigError, ContractError
from plexus_detect.options import client_of, config_option, configured, tell
from plexus_detect.provision.shared import own_source, path_argument, specs_of, var_option

# What takes long to import is imported when a command runs, so that --help answers at once.
if TYPE_CHECKING:
    from plexus_detect.client import Client
    from plexus_detect.config import Config
    from plexus_detect.monitors import Key, MonitorSpec, Plan
    from plexus_detect.monitors.lintbounds import Observed
    from plexus_detect.monitors.lintrules import Finding

EXIT_UNREADABLE = 2


@dataclass(frozen=True)
class Report:
    """What lint found in so many documents; ``notes`` say what could not be looked at."""

    findings: tuple[Finding, ...]
    documents: int
    notes: tuple[str, ...] = ()

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> int:
        """How many findings are warnings."""
        return len(self.findings) - self.errors


@click.command()
@path_argument
@config_option
@var_option
@click.option("--offline", is_flag=True, help="Ask the platform nothing: works without a key.")
@click.option("--strict", is_flag=True, help="Exit 1 for warnings too.")
@click.option("--output", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
def lint(
    path: Path | None, config_paths: tuple[Path, ...], output: str, *, offline: bool, strict: bool
) -> None:
    """Say what is wrong with the documents: monitors that cannot fire, or would for nothing.

    PATH is a file or a folder of them (default: monitors.path of the configuration). Exits 0 without an
    error, 1 with one, 2 when a document cannot be read. github: annotations of a pull request.
    """
    config = configured(config_paths)
    try:
        specs = specs_of(config, path)
    except ConfigError as error:
        _print(_unreadable(str(error), path or config.monitors.path), output)
        sys.exit(EXIT_UNREADABLE)
    report = examined_offline(config, specs) if offline else asyncio.run(_asked(config, specs))
    _print(report, output)
    sys.exit(1 if report.errors or (strict and report.warnings) else 0)


def _unreadable(sentence: str, path: Path) -> Report:
    """A document that cannot be read, as a finding of the file and line that its sentence begins with."""
    from plexus_detect.monitors.lintrules import Finding, place_of

    origin, what = place_of(sentence)
    what, _, to_do = what.partition("; ")
    return Report((Finding("unreadable", origin or str(path), what, to_do or "correct it"),), 0)


def examined_offline(config: Config, specs: Sequence[MonitorSpec]) -> Report:
    """What is wrong whatever the platform has."""
    from plexus_detect.monitors import lint as rules
    from plexus_detect.provision.posting import posting_of

    known = rules.patterns_of(specs, own_source(config))
    _reached, found_so_far = rules.reach(specs, known, {})
    # What a pattern reaches is the platform's to say.
    clashes = [finding for finding in found_so_far if finding.rule == "claimed-twice"]
    wanted = [monitor for spec in specs for monitor in rules.as_written(spec)]
    facts = rules.Facts(targets=_configured_targets(config) or None)
    found = rules.lint(specs, wanted, posting_of(config), facts)
    return Report(_merged(specs, clashes, found), len({spec.origin for spec in specs}))


async def _asked(config: Config, specs: Sequence[MonitorSpec]) -> Report:
    async with client_of(config) as client:
        return await examined(config, client, specs)


async def examined(config: Config, client: Client, specs: Sequence[MonitorSpec]) -> Report:
    """What is wrong on this platform; reads only.

    Three requests, and one or two more for each source that did not send lately what is watched, or whose own
    metrics or silence are watched. Without the read API those are left out and a note says so. Raises the
    errors of ``client.Client``.
    """
    from plexus_detect.monitors import lint as rules
    from plexus_detect.provision import observing
    from plexus_detect.provision.posting import posting_of
    from plexus_detect.provision.reading import existing_monitors, known_sources
    from plexus_detect.retry import retried
    from plexus_detect.wire import decode_fleet_health, decode_sources

    own, posting, at_once = own_source(config), posting_of(config), config.plexus.concurrency
    existing = await existing_monitors(client)
    known, _missing = known_sources(decode_sources(await retried(client.sources)), specs, own)
    lately = decode_fleet_health(await retried(client.fleet_health))
    wanted, clashes = rules.reach(specs, known, lately, existing)
    targets = {target for monitor in existing for target in monitor.targets or ()}
    targets |= _configured_targets(config)
    keys = rules.to_observe(wanted, own)
    sources = len({key[0] for key in keys})
    notes: list[str] = []
    ever: Mapping[str, tuple[str, ...]] = {}
    seen: Mapping[Key, Observed] = {}
    try:
        ever = await observing.ever_sent(client, rules.to_ask(wanted, posting, lately), at_once)
        seen = await observing.observe(client, keys, lately, at_once)
        if sources > observing.SOURCES_MAX:
            notes.append(f"the history of {observing.SOURCES_MAX} of {sources:,} sources was looked at")
    except (ApiError, ContractError) as error:
        notes.append(f"the read API does not tell what was sent earlier, so this is not judged: {error}")
    facts = rules.Facts(reached=True, lately=lately, ever=ever, targets=targets, observed=seen)
    found = rules.lint(specs, wanted, posting, facts)
    return Report(_merged(specs, clashes, found), len({spec.origin for spec in specs}), tuple(notes))


def lint_notes(config: Config, specs: Sequence[MonitorSpec], plan: Plan) -> tuple[str, ...]:
    """What lint says of a plan's monitors without a further request, one sentence each."""
    from plexus_detect.monitors import lint as rules
    from plexus_detect.provision.posting import posting_of

    targets = {target for monitor in plan.seen for target in monitor.targets or ()}
    facts = rules.Facts(reached=True, targets=_configured_targets(config) | targets)
    found = rules.lint(specs, plan.expansion.wanted, posting_of(config), facts)
    return tuple(f"{one.origin}: {one.sentence} [{one.rule}]" for one in found)


def _configured_targets(config: Config) -> set[str]:
    """The integrations that the configuration names."""
    return {target.lower() for target in config.monitors.targets.values()}


def _merged(specs: Sequence[MonitorSpec], *parts: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings of all kinds in the order of the documents."""
    place = {spec.origin: i for i, spec in reversed(list(enumerate(specs)))}
    every = [finding for part in parts for finding in part]
    return tuple(sorted(every, key=lambda f: (place.get(f.origin, -1), f.severity)))


def _print(report: Report, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(_as_json(report), ensure_ascii=False, indent=2))
        return
    for finding in report.findings:
        tell(_annotation(finding) if output == "github" else _line(finding))
    for note in report.notes:
        tell(f"::notice::{_escaped(note)}" if output == "github" else f"  note: {note}")
    if output == "text":
        counts = f"{_n(report.errors, 'error')}, {_n(report.warnings, 'warning')}"
        tell(f"lint: {_n(report.documents, 'document')}, {counts}")


def _n(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def _line(finding: Finding) -> str:
    return f"{finding.origin}: {finding.severity}: {finding.sentence} [{finding.rule}]"


def _annotation(finding: Finding) -> str:
    """A workflow command of GitHub's."""
    file, line = finding.place
    properties = {"file": file, "line": "" if line is None else str(line), "title": finding.rule}
    given = ",".join(f"{k}={_escaped(v, ':,')}" for k, v in properties.items() if v)
    return f"::{finding.severity} {given}::{_escaped(finding.sentence)}"


def _escaped(text: str, more: str = "") -> str:
    """A text in which no character begins or ends a part of a workflow command."""
    for char in f"%\r\n{more}":
        text = text.replace(char, f"%{ord(char):02X}")
    return text


def _as_json(report: Report) -> dict[str, Any]:
    found = [
        {
            "severity": finding.severity,
            "rule": finding.rule,
            "origin": finding.origin,
            "file": finding.place[0],
            "line": finding.place[1],
            "message": finding.sentence,
            "sources": [source for source, _detail in finding.where],
        }
        for finding in report.findings
    ]
    return {
        "findings": found,
        "documents": report.documents,
        "errors": report.errors,
        "warnings": report.warnings,
        "notes": list(report.notes),
    }
