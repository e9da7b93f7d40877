"""From documents to single monitors: globs over the sources and metrics that the platform knows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from plexus_detect.errors import ConfigError
from plexus_detect.monitors.documents import MonitorSpec, filled, is_glob, near
from plexus_detect.monitors.model import Existing, Expansion, Problem, Wanted
from plexus_detect.monitors.ownership import Key
from plexus_detect.monitors.shortform import filled_message
from plexus_detect.series import RESERVED_SUFFIXES, SUFFIX, Kind, is_own_metric


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
    """Spread every document over the sources and metrics it names.

    A glob of sources on ``<metric>.<suffix of ours>`` reaches only devices that have the metric, where
    ``metrics`` (source slug -> names seen lately) knows the device, or that carry the monitor already. The
    score of a group of metrics is made from no metric of its name, so its glob reaches every device that it
    matches. A glob of metrics reaches those that a source sent lately and those for which it carries such a
    monitor, so that a silent device keeps its monitors.
    Raises ConfigError when two documents claim the same source and metric.
    """
    wanted: dict[Key, Wanted] = {}
    problems: dict[Problem, None] = {}
    notes: dict[str, None] = {}
    claims: dict[tuple[str, str], MonitorSpec] = {}
    reach = _Reach(known, metrics, frozenset(monitor.key for monitor in existing))
    for spec in specs:
        pairs = list(reach.pairs(spec))
        if not pairs and not is_glob(spec.source) and spec.source not in known.slug_of:
            problems[_unknown(spec, known)] = None
        elif not pairs:
            notes[_idle(spec)] = None
        for source, metric in pairs:
            for part, fields in spec.parts.items():
                key = (source, "" if part == "offline" else metric, part)
                first = claims.setdefault(key[:2], spec)
                if first.origin != spec.origin:
                    raise ConfigError(_claimed_twice(key, first.where, spec.where))
                settings = filled(part, _worded(spec, fields, source, metric))
                wanted.setdefault(key, Wanted(spec.origin, key, settings, spec.targets))
    return Expansion(tuple(wanted.values()), tuple(problems), tuple(notes))


@dataclass(frozen=True)
class _Reach:
    """Which sources and metrics a document is about."""

    known: KnownSources
    metrics: Mapping[str, Collection[str]]
    carried: Collection[Key]

    @cached_property
    def _monitored(self) -> frozenset[tuple[str, str]]:
        return frozenset(key[:2] for key in self.carried)

    @cached_property
    def _carried_by(self) -> Mapping[str, Sequence[Key]]:
        by_source: defaultdict[str, list[Key]] = defaultdict(list)
        for key in self.carried:
            by_source[key[0]].append(key)
        return by_source

    def pairs(self, spec: MonitorSpec) -> Iterator[tuple[str, str]]:
        """The sources of a document, each with the names it watches there."""
        if _is_metric_glob(spec):
            for slug in self._sources(spec):
                yield from ((slug, metric) for metric in self._names(spec, slug))
        elif not _excluded(spec.measured, spec.exclude_metrics):
            yield from ((slug, spec.metric) for slug in self._sources(spec) if self._has(spec, slug))

    def _sources(self, spec: MonitorSpec) -> Iterator[str]:
        if is_glob(spec.source):
            slugs = [slug for slug in self.known.devices if fnmatchcase(slug, spec.source)]
        else:
            slugs = [self.known.slug_of[spec.source]] if spec.source in self.known.slug_of else []
        named = {self.known.slug_of.get(pattern) for pattern in spec.exclude_sources}
        yield from (s for s in slugs if s not in named and not _excluded(s, spec.exclude_sources))

    def _has(self, spec: MonitorSpec, slug: str) -> bool:
        """Whether a source has what a document with one metric watches; one that is named in full is taken at
        its word."""
        base = _measured(spec)
        return (
            not is_glob(spec.source)
            or base is None
            or slug not in self.metrics
            or not {base, spec.metric}.isdisjoint(self.metrics[slug])
            or (slug, spec.metric) in self._monitored
        )

    def _names(self, spec: MonitorSpec, slug: str) -> list[str]:
        """The names that a glob of metrics watches at one source."""
        sent, suffix = self.metrics.get(slug, ()), spec.suffix
        found = {name.removesuffix(suffix) for name in sent if suffix and name.endswith(suffix)}
        if suffix != SUFFIX[Kind.ANOMALY]:
            found |= {name for name in sent if not is_own_metric(name)}
        found |= {
            key[1].removesuffix(suffix)
            for key in self._carried_by.get(slug, ())
            if key[2] in spec.parts and key[1].endswith(suffix) and (suffix or not is_own_metric(key[1]))
        }
        pattern = spec.measured or ""
        taken = (n for n in found if n and fnmatchcase(n, pattern) and not _excluded(n, spec.exclude_metrics))
        return sorted(name + suffix for name in taken)


def _is_metric_glob(spec: MonitorSpec) -> bool:
    return spec.measured is not None and is_glob(spec.measured)


def _excluded(name: str | None, patterns: Sequence[str]) -> bool:
    return name is not None and any(fnmatchcase(name, pattern) for pattern in patterns)


def _worded(spec: MonitorSpec, fields: Mapping[str, Any], source: str, metric: str) -> Mapping[str, Any]:
    """The fields of one monitor: in the short form a message may name its source and metric."""
    if spec.measured is None:
        return fields
    return filled_message(fields, source, metric.removesuffix(spec.suffix))


def scored_metric(metric: str) -> str | None:
    """The metric that a name of ours was made from (``t.zscore`` -> ``t``), None when it is not of ours."""
    for suffix in sorted(RESERVED_SUFFIXES, key=len, reverse=True):
        if metric.endswith(suffix) and len(metric) > len(suffix):
            return metric.removesuffix(suffix)
    return None


def _measured(spec: MonitorSpec) -> str | None:
    """The metric that a device must have to be reached; None where any device is."""
    if spec.measured is not None:
        return spec.measured if spec.suffix not in ("", SUFFIX[Kind.ANOMALY]) else None
    return None if spec.metric.endswith(SUFFIX[Kind.ANOMALY]) else scored_metric(spec.metric)


def _idle(spec: MonitorSpec) -> str:
    if _is_metric_glob(spec):
        return f"{spec.origin}: no source like {spec.source!r} has a metric like {spec.measured!r} for now"
    return f"{spec.origin}: no device matches {spec.source!r} for now"


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
    """True where knowing what each device measures decides what the document reaches."""
    return _is_metric_glob(spec) or (is_glob(spec.source) and _measured(spec) is not None)
