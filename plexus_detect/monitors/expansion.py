"""From documents to single monitors: globs over the sources and metrics that the platform knows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from plexus_detect.errors import ConfigError
from plexus_detect.monitors.documents import MonitorSpec, filled, near
from plexus_detect.monitors.model import Existing, Expansion, Problem, Wanted
from plexus_detect.monitors.ownership import Key
from plexus_detect.series import RESERVED_SUFFIXES, SUFFIX, Kind


@dataclass(frozen=True)
class KnownSources:
    """What the platform knows: ``slug_of`` maps slugs and ids to slugs; globs reach ``devices`` only."""

    slug_of: Mapping[str, str]
    devices: tuple[str, ...]


def expand(
    specs: Sequence[MonitorSpec],
    known: KnownSources,
    metrics: Mapping[str, Collection[str]],
    existing: Sequence[Existing] = (),
) -> Expansion:
    """Spread every document over the sources it names.

    A glob on ``<metric>.<suffix of ours>`` reaches only devices that have the metric, where ``metrics``
    (source slug -> names seen lately) knows the device, or that carry the monitor already. The score of a
    group of metrics is made from no metric of its name, so its glob reaches every device that it matches.
    Raises ConfigError when two documents claim the same source and metric.
    """
    wanted: list[Wanted] = []
    problems: list[Problem] = []
    notes: list[str] = []
    claims: dict[tuple[str, str], str] = {}
    monitored = {monitor.key[:2] for monitor in existing}
    for spec in specs:
        sources = list(_reached(spec, known, metrics, monitored))
        if not sources and _is_glob(spec.source):
            notes.append(f"{spec.origin}: no device matches {spec.source!r} for now")
        elif not sources:
            problems.append(_unknown(spec, known))
        for source in sources:
            for part, fields in spec.parts.items():
                key = (source, "" if part == "offline" else spec.metric, part)
                if claims.setdefault(key[:2], spec.origin) != spec.origin:
                    raise ConfigError(_claimed_twice(key, claims[key[:2]], spec.origin))
                wanted.append(Wanted(spec.origin, key, filled(part, fields), spec.targets))
    return Expansion(tuple(wanted), tuple(problems), tuple(notes))


def _is_glob(source: str) -> bool:
    return any(sign in source for sign in "*?[")


def _reached(
    spec: MonitorSpec,
    known: KnownSources,
    metrics: Mapping[str, Collection[str]],
    monitored: Collection[tuple[str, str]],
) -> Iterator[str]:
    if not _is_glob(spec.source):
        if spec.source in known.slug_of:
            yield known.slug_of[spec.source]
        return
    base = _measured(spec.metric)
    for slug in known.devices:
        if fnmatchcase(slug, spec.source) and (
            base is None
            or slug not in metrics
            or not {base, spec.metric}.isdisjoint(metrics[slug])
            or (slug, spec.metric) in monitored
        ):
            yield slug


def scored_metric(metric: str) -> str | None:
    """The metric that a name of ours was made from (``t.zscore`` -> ``t``), None when it is not of ours."""
    for suffix in sorted(RESERVED_SUFFIXES, key=len, reverse=True):
        if metric.endswith(suffix) and len(metric) > len(suffix):
            return metric.removesuffix(suffix)
    return None


def _measured(metric: str) -> str | None:
    """The metric that a device must have to be reached; None where any device is."""
    return None if metric.endswith(SUFFIX[Kind.ANOMALY]) else scored_metric(metric)


def _unknown(spec: MonitorSpec, known: KnownSources) -> Problem:
    return Problem(
        "unknown source",
        f"{spec.origin}: source {spec.source!r} is unknown to the platform; it appears once it has sent "
        f"a point, or create it{near(spec.source, known.slug_of)}",
    )


def _claimed_twice(key: Key, first: str, second: str) -> str:
    what = (
        f"metric {key[1]!r} of source {key[0]!r}" if key[1] else f"the offline monitor of source {key[0]!r}"
    )
    return f"{second}: {what} is already claimed by {first}; keep one of the two, or narrow a glob"


def needs_metric_names(spec: MonitorSpec) -> bool:
    """True where knowing what each device measures decides which devices the document reaches."""
    return _is_glob(spec.source) and _measured(spec.metric) is not None
