"""What the platform has beside what the documents want; reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from plexus_detect import monitors
from plexus_detect.monitors import Existing, KnownSources, MonitorSpec, Ownership, Plan
from plexus_detect.monitors.freshness import missing, still_to_do
from plexus_detect.monitors.guard import without_unlisted
from plexus_detect.provision.api import MonitorApi
from plexus_detect.retry import retried
from plexus_detect.wire import SourceRow, decode_fleet_health, decode_monitors, decode_sources


async def make_plan(
    api: MonitorApi,
    specs: Sequence[MonitorSpec],
    own: str = "",
    *,
    ownership: Ownership | None = None,
    prune: bool = False,
) -> Plan:
    """What would have to change for every document to hold; reads only.

    A document may be about ``own``, the source of the worker's sign of life, before a worker has made it.

    Metric names are asked for only where a glob needs them. Raises ConfigError when two documents claim the
    same source and metric, UnsafePlanError for deletes where no source is listed, and the errors of
    ``client.Client``.
    """
    existing = await existing_monitors(api)
    sources = decode_sources(await retried(api.sources))
    if prune:
        # What one reading leaves out, another may show: a monitor that hangs on the same pair, or a device.
        existing = monitors.merged(existing, await existing_monitors(api))
        sources = (*sources, *decode_sources(await retried(api.sources)))
    known, missing = known_sources(sources, specs, own)
    metrics: dict[str, tuple[str, ...]] = {}
    if any(monitors.needs_metric_names(spec) for spec in specs):
        metrics = decode_fleet_health(await retried(api.fleet_health))
    plan = monitors.plan(monitors.expand(specs, known, metrics, existing), existing, ownership, prune=prune)
    return without_unlisted(
        replace(plan, source=own if missing else ""), known.slug_of.keys() - ({own} if missing else set())
    )


def known_sources(
    sources: Sequence[SourceRow], specs: Sequence[MonitorSpec], own: str
) -> tuple[KnownSources, bool]:
    """What documents may be about, with ``own``, and whether that one has yet to be made for them."""
    slug_of = {row.slug: row.slug for row in sources} | {row.id: row.slug for row in sources}
    missing = own not in slug_of and any(spec.source == own for spec in specs)
    known = KnownSources(
        slug_of=slug_of | ({own: own} if missing else {}),
        # No device: a glob does not reach it.
        devices=tuple(sorted({r.slug for r in sources if r.source_type == "device" and r.slug != own})),
    )
    return known, missing


async def rechecked(api: MonitorApi, made: Plan, ours: Ownership) -> Plan:
    """What is left to do of a plan that was made before, by one reading, or two where one lacks something.

    Raises UnsafePlanError when the plan no longer fits.
    """
    now = await existing_monitors(api)
    if missing(made, now):
        now = monitors.merged(now, await existing_monitors(api))
    return still_to_do(made, now, ours)


async def existing_monitors(api: MonitorApi) -> tuple[Existing, ...]:
    """Every monitor that the platform lists; the list can be partial and does not say so."""
    return monitors.existing_from(decode_monitors(await retried(api.monitors)))
