"""Brings the platform's monitors to what the documents say: reads both, carries out a plan and checks it.

Exit codes of ``monitors apply``: 0 all monitors are as wanted, 1 some are not (each was named), 2 a document
is wrong, 3 the key is refused, 75 the platform does not answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from plexus_detect import monitors
from plexus_detect.errors import ApiError, AuthError, ConfigError, ContractError, TransientError
from plexus_detect.heartbeat import NAME as OWN_NAME
from plexus_detect.monitors import Change, Existing, Expansion, KnownSources, MonitorSpec, Plan
from plexus_detect.retry import retried
from plexus_detect.wire import decode_fleet_health, decode_monitors, decode_sources

SCHEMA_SUFFIX = ".schema.json"


class MonitorApi(Protocol):
    """The calls that provisioning makes; ``client.Client`` has them, tests bring a fake."""

    async def monitors(self) -> bytes:
        """GET {app}/api/monitors."""

    async def sources(self) -> bytes:
        """GET {app}/api/sources."""

    async def fleet_health(self) -> bytes:
        """GET {app}/api/fleet/health: which metrics each source sent in the last hour."""

    async def create_source(self, slug: str, name: str) -> None:
        """POST {app}/api/sources: one that exists counts as made."""

    async def create_monitor(self, body: dict[str, Any]) -> None:
        """POST {app}/api/monitors: creates or replaces; an offline monitor is always added."""

    async def patch_monitor(self, body: dict[str, Any]) -> None:
        """PATCH {app}/api/monitors: changes notification targets and nothing else."""


@dataclass(frozen=True)
class ApplyResult:
    """What an apply did: monitors ``applied`` and ``failed``, and the plan that ``remaining`` work makes."""

    applied: int
    failed: int
    remaining: Plan

    @property
    def ok(self) -> bool:
        """True when every monitor is as wanted and the platform's own list says so."""
        return self.failed == 0 and self.remaining.empty


def load_specs(path: Path, *, size_bytes_max: int = 1 << 20) -> tuple[MonitorSpec, ...]:
    """The documents of one JSON file, or of every ``*.json`` of a directory in name order.

    Files named ``*.schema.json`` are schemas, not monitors. Raises ConfigError, one sentence each: a path
    that does not exist, a file that cannot be read or is larger than ``size_bytes_max``, a document that is
    wrong, and nothing to load at all, since an empty directory is more often a wrong path than a wish.
    """
    specs = [spec for file in _files(path) for spec in monitors.parse(_read(file, size_bytes_max), str(file))]
    if not specs:
        raise ConfigError(
            f"{path}: no monitor in it; put at least one *.json file there or name another path"
        )
    return tuple(specs)


def _files(path: Path) -> list[Path]:
    try:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or directory; it should hold the monitors' JSON files")
        if not path.is_dir():
            return [path]
        return [f for f in sorted(path.glob("*.json")) if not f.name.endswith(SCHEMA_SUFFIX)]
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; check the path and its rights"
        ) from error


def _read(file: Path, size_bytes_max: int) -> str:
    try:
        if file.stat().st_size > size_bytes_max:
            raise ConfigError(f"{file}: larger than {size_bytes_max} bytes; split it into several files")
        return file.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text: {error.reason} at byte {error.start}") from error


async def make_plan(api: MonitorApi, specs: Sequence[MonitorSpec], own: str = "") -> Plan:
    """What would have to change for every document to hold; reads only.

    A document may be about ``own``, the source of the worker's sign of life, before a worker has made it.

    Metric names are asked for only where a glob needs them. Raises ConfigError when two documents claim the
    same source and metric, and the errors of ``client.Client``.
    """
    existing = await _existing(api)
    sources = decode_sources(await retried(api.sources))
    slug_of = {row.slug: row.slug for row in sources} | {row.id: row.slug for row in sources}
    missing = own not in slug_of and any(spec.source == own for spec in specs)
    known = KnownSources(
        slug_of=slug_of | ({own: own} if missing else {}),
        # No device: a glob does not reach it.
        devices=tuple(sorted(r.slug for r in sources if r.source_type == "device" and r.slug != own)),
    )
    metrics: dict[str, tuple[str, ...]] = {}
    if any(monitors.needs_metric_names(spec) for spec in specs):
        metrics = decode_fleet_health(await retried(api.fleet_health))
    plan = monitors.plan(monitors.expand(specs, known, metrics, existing), existing)
    return replace(plan, source=own if missing else "")


async def _existing(api: MonitorApi) -> tuple[Existing, ...]:
    return monitors.existing_from(decode_monitors(await retried(api.monitors)))


async def apply_plan(
    api: MonitorApi, plan: Plan, on_result: Callable[[str], None], *, unanswered_max: int = 3
) -> ApplyResult:
    """Make the requests of the plan, one after another, then read back and plan again.

    ``on_result`` gets one line for each monitor. A monitor that fails is named and the others go on, but
    ``unanswered_max`` monitors in a row without an answer end the run, since the platform is then away.
    Raises AuthError at once, and the errors of the reads before and after; rerunning is safe at any point.
    """
    if plan.source:
        await retried(partial(api.create_source, plan.source, OWN_NAME))
        on_result(f"created source {plan.source}")
    for problem in plan.problems:
        on_result(f"failed: {problem.kind}: {problem.sentence}")
    applied, failed, unanswered = 0, len(plan.problems), 0
    changes = await _still_missing(api, plan, on_result)
    for i, change in enumerate(changes):
        try:
            await _carry_out(api, change)
        except AuthError:
            raise
        except (ApiError, ContractError) as error:
            failed += 1
            unanswered = unanswered + 1 if isinstance(error, TransientError) else 0
            on_result(f"failed: {change.action} {change.label}: {error}")
            if unanswered == unanswered_max and i + 1 < len(changes):
                failed += len(changes) - i - 1
                on_result(f"failed: the platform does not answer; {len(changes) - i - 1} monitors not tried")
                break
        else:
            applied, unanswered = applied + 1, 0
            on_result(f"{change.action}d {change.label}")
    return ApplyResult(applied, failed, await _read_back(api, plan.expansion))


async def _carry_out(api: MonitorApi, change: Change) -> None:
    send = api.create_monitor if change.method == "POST" else api.patch_monitor
    await retried(partial(send, dict(change.body)))


async def _still_missing(api: MonitorApi, plan: Plan, on_result: Callable[[str], None]) -> Sequence[Change]:
    """The plan's changes without new monitors that exist by now and would be doubled or reset by a post.

    The platform's list can be partial without saying so: a second offline monitor notifies twice, and
    posting an event monitor again blinds it for up to 30 s. Threshold posts are harmless and not asked about.
    """
    if not any(_must_not_repeat(change) for change in plan.changes):
        return plan.changes
    present = {monitor.key for monitor in await _existing(api)}
    changes: list[Change] = []
    for change in plan.changes:
        if _must_not_repeat(change) and change.wanted.key in present:
            on_result(f"kept {change.label}: it exists by now, the next plan compares it")
        else:
            changes.append(change)
    return changes


def _must_not_repeat(change: Change) -> bool:
    return change.action == "create" and change.wanted.key[2] in ("offline", "event")


async def _read_back(api: MonitorApi, expansion: Expansion, *, reads_max: int = 3) -> Plan:
    """Plan again on what the platform lists now; what one reading leaves out, another may show."""
    seen = await _existing(api)
    plan = monitors.plan(expansion, seen)
    for _ in range(reads_max - 1):
        if not any(change.action == "create" for change in plan.changes):
            break
        seen = monitors.merged(seen, await _existing(api))
        plan = monitors.plan(expansion, seen)
    return plan
