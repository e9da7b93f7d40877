"""What is wrong with documents although they can be read: monitors that cannot fire, or would for nothing.

Pure: what the platform knows is given. A rule is silent where the fact it needs is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from plexus_detect.errors import ConfigError
from plexus_detect.monitors.documents import LEAVE, MonitorSpec, filled, near
from plexus_detect.monitors.expansion import KnownSources, expand, scored_metric
from plexus_detect.monitors.lintbounds import Observed, check_history, check_threshold
from plexus_detect.monitors.lintrules import Finding, Findings
from plexus_detect.monitors.model import Existing, Expansion, Wanted
from plexus_detect.monitors.ownership import Key
from plexus_detect.monitors.posting import JOINT, LATE, OF_FLEET, Posting, parted
from plexus_detect.series import is_own_metric

# Slack refuses a longer text in one block of a message; a person reads less.
TEXT_MAX, TEXT_LONG = 3000, 300
# How often the platform looks for silent sources, and for how long a digest of events silences the next.
LOOK_S, DIGEST_MS = 30, 300_000
# What joins metrics joins at least two.
JOINED_MIN = 2


@dataclass(frozen=True)
class Facts:
    """What is known of the platform; None or a missing key: not known.

    ``lately`` are the metrics of each source in the last hour, ``ever`` all that a source ever sent;
    ``targets`` the ids of integrations that exist for all we know; ``observed`` the last days of a monitor.
    ``reached`` says that the monitors are of single sources, not of patterns.
    """

    reached: bool = False
    lately: Mapping[str, Collection[str]] | None = None
    ever: Mapping[str, Collection[str]] = field(default_factory=dict)
    targets: Collection[str] | None = None
    observed: Mapping[Key, Observed] = field(default_factory=dict)


def lint(
    specs: Sequence[MonitorSpec], wanted: Sequence[Wanted], posting: Posting, facts: Facts
) -> tuple[Finding, ...]:
    """Everything that is wrong with ``wanted`` and the documents that reach nothing.

    Documents come in their order. What no two documents may do together is found by ``reach``.
    """
    found = Findings()
    for spec in specs:
        if spec.parts.get("offline", {}).get("message"):
            what = "the platform throws the message of an offline monitor away"
            found.add("message-dropped", spec.origin, what, "remove it")
    reached = {monitor.origin for monitor in wanted}
    idle = [monitor for spec in specs if spec.origin not in reached for monitor in as_written(spec)]
    linter = _Linter(posting, facts, found)
    for monitor in (*wanted, *idle):
        linter.check(monitor, single=facts.reached and monitor.origin in reached)
    return found.all([spec.origin for spec in specs])


def as_written(spec: MonitorSpec) -> list[Wanted]:
    """The monitors of a document as if its pattern were the one source it is about."""
    return [
        Wanted(
            spec.origin,
            (spec.source, "" if part == "offline" else spec.metric, part),
            filled(part, fields),
            spec.targets,
        )
        for part, fields in spec.parts.items()
    ]


class _Linter:
    """Checks one monitor after another."""

    def __init__(self, posting: Posting, facts: Facts, found: Findings) -> None:
        self._posting, self._facts, self._found = posting, facts, found
        self._fleets: dict[tuple[str, int | None, int | None], int] = {}
        self._counted: set[str] = set()

    def check(self, monitor: Wanted, *, single: bool) -> None:
        """All rules about one monitor; ``single``: its source is one that exists."""
        source, metric, part = monitor.key
        named = single or not _is_glob(source)
        self._targets(monitor)
        if part == "offline":
            self._offline(monitor)
            return
        if part == "threshold":
            line = self._posting.line(metric, source if named else None)
            check_threshold(self._found, monitor, line)
        else:
            self._event(monitor)
        posted = self._posted(monitor, named=named)
        if single and self._facts.lately is not None:
            self._sent(monitor, posted=posted)
        if part == "threshold" and monitor.key in self._facts.observed:
            check_history(self._found, monitor, self._facts.observed[monitor.key])

    def _targets(self, monitor: Wanted) -> None:
        known = self._facts.targets
        if known is None or monitor.targets is None or monitor.targets == LEAVE:
            return
        for target in monitor.targets:
            if target not in known:
                what = f"target {target} is not in monitors.targets, and no monitor of the platform has it"
                to_do = "copy the id from the integration's page, and add it to monitors.targets"
                self._found.add("unknown-target", monitor.origin, what, to_do)

    def _offline(self, monitor: Wanted) -> None:
        source, _metric, _part = monitor.key
        timeout_s = monitor.settings["timeout_seconds"]
        if timeout_s < LOOK_S:
            what = f"a timeout of {timeout_s:g} s is less than the {LOOK_S} s after which the platform looks"
            self._found.add("offline-too-short", monitor.origin, what, f"use at least {LOOK_S}")
            return
        beat, seen = self._posting.heartbeat, self._facts.observed.get(monitor.key)
        interval_ms = seen.interval_ms if seen is not None else None
        if beat is not None and source == beat[0]:
            interval_ms = beat[1]
        if interval_ms is not None and timeout_s * 1000 < 2 * interval_ms:
            what = f"a timeout of {timeout_s:g} s is less than two intervals between points"
            to_do = "one late point would page; raise the timeout"
            every = f"one in {_duration(interval_ms)}"
            self._found.add("offline-too-short", monitor.origin, what, to_do, source, every)

    def _event(self, monitor: Wanted) -> None:
        _source, metric, _part = monitor.key
        message, (base, _kind) = monitor.settings["message"] or "", parted(metric)
        if not message.strip():
            to_do = "say in message what happened and what to do"
            self._found.add("no-message", monitor.origin, f"the event of {metric} has no message", to_do)
        elif len(message) > TEXT_LONG:
            over = "message-too-long" if len(message) > TEXT_MAX else "long-message"
            most = TEXT_MAX if len(message) > TEXT_MAX else TEXT_LONG
            what = f"the event's message has {len(message):,} characters, more than {most:,}"
            self._found.add(over, monitor.origin, what, "shorten it")
        if not monitor.settings["enabled"]:
            return
        seen = self._facts.observed.get(monitor.key)
        if base is not None:
            what = f"{metric} gets a row for every sample, and an event monitor alerts on each"
            self._found.add("event-on-stream", monitor.origin, what, "use a threshold")
        elif seen is not None and seen.interval_ms is not None and seen.interval_ms <= DIGEST_MS:
            what = f"{metric} comes all the time, and each row is an event whatever its value"
            every = f"one in {_duration(seen.interval_ms)}"
            self._found.add("busy-event", monitor.origin, what, "use a threshold", monitor.key[0], every)

    def _posted(self, monitor: Wanted, *, named: bool) -> bool:
        """Whether this configuration posts what is watched; told where it does not."""
        source, metric, _part = monitor.key
        base, kind = parted(metric)
        if kind == LATE:
            what = f"{metric} is for the record: what comes there is old and would page people now"
            self._found.add("late-score", monitor.origin, what, f"watch {base}.zscore")
            return True
        never = self._posting.never(metric)
        at = ""
        if never is None and named and base is not None and not _is_glob(base):
            never, at = self._posting.never(metric, (source,)), source
        if never is None:
            return True
        if metric in (self._facts.lately or {}).get(source, ()):
            what = f"{metric} was posted in the last hour, but not by this configuration: {never.why}"
            to_do = f"lint with the configuration of the worker that posts it, or {never.to_do}"
            self._found.add("posted-by-others", monitor.origin, what, to_do, at)
        else:
            what = f"{metric} is never posted: {never.why}"
            self._found.add("not-posted", monitor.origin, what, never.to_do, at)
        return False

    def _sent(self, monitor: Wanted, *, posted: bool) -> None:
        """Whether the source sends what is watched, or what the score is made from."""
        source, metric, _part = monitor.key
        base, kind = parted(metric)
        lately = (self._facts.lately or {}).get(source, ())
        ever = self._facts.ever.get(source)
        if not posted or metric in lately:
            self._fleet_of(monitor, base, kind)
            return
        sent_by = self._joined(base) if kind == JOINT else {base or metric}
        enough = min(JOINED_MIN, len(sent_by))
        made = metric if base is None else f"{metric} is made from {_either(sent_by)}, which"
        if len(sent_by & set(lately)) >= enough:
            self._fleet_of(monitor, base, kind)
        elif ever is not None and not ever:
            self._silent(monitor, "nothing has ever come from this source")
        elif ever is not None and len(sent_by & set(ever)) >= enough:
            self._silent(monitor, f"{made} did not come in the last hour{self._since(monitor)}")
        elif ever is not None:
            measured = [name for name in ever if not is_own_metric(name)]
            guess = near(base or metric, measured) if kind != JOINT else ""
            self._found.add(
                "unknown-metric",
                monitor.origin,
                f"{made} never came from its source",
                f"correct the metric, or send it first{guess}",
                source,
            )

    def _silent(self, monitor: Wanted, what: str) -> None:
        self._found.add("silent-metric", monitor.origin, what, "see whether the device lives", monitor.key[0])

    def _since(self, monitor: Wanted) -> str:
        seen = self._facts.observed.get(monitor.key)
        return "" if seen is None or seen.count else f", nor in the last {seen.days:g} days"

    def _joined(self, name: str | None) -> set[str]:
        group = self._posting.groups.get(name or "")
        return set(group.metrics) if group is not None else set()

    def _fleet_of(self, monitor: Wanted, base: str | None, kind: str) -> None:
        """Whether enough sources send the metric that those of the monitor's source are compared with."""
        source = monitor.key[0]
        if base is None or kind not in OF_FLEET:
            return
        if base not in self._counted:
            self._counted.add(base)
            self._count(base)
        fleet = (base, self._posting.rule_of(source, base), self._posting.cohort_of(source))
        n, least = self._fleets.get(fleet, 0), self._posting.fleet_min
        if fleet[1] is not None and n < least:
            what = f"{n} sources sent {base} in the last hour, and fewer than {least} are not compared"
            to_do = "lower fleet.group_min (3 at least), or wait until more send it"
            self._found.add("fleet-too-small", monitor.origin, what, to_do)

    def _count(self, base: str) -> None:
        for slug, names in (self._facts.lately or {}).items():
            if base in names:
                fleet = (base, self._posting.rule_of(slug, base), self._posting.cohort_of(slug))
                self._fleets[fleet] = self._fleets.get(fleet, 0) + 1


def _is_glob(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _either(names: Collection[str]) -> str:
    return " and ".join(sorted(names)) if len(names) < JOINED_MIN else f"two of {', '.join(sorted(names))}"


def _duration(ms: int) -> str:
    return f"{ms / 1000:g} s" if ms < 120_000 else f"{ms / 60_000:.3g} min"


def reach(
    specs: Sequence[MonitorSpec],
    known: KnownSources,
    metrics: Mapping[str, Collection[str]],
    existing: Sequence[Existing] = (),
) -> tuple[tuple[Wanted, ...], tuple[Finding, ...]]:
    """The monitors that documents want on the platform, each claim once, and what is wrong with that: sources
    that are unknown, globs that reach nothing, and all pairs that two documents claim."""
    found, origins = Findings(), list(dict.fromkeys(spec.origin for spec in specs))
    expansions, wanted = _expansions(specs, known, metrics, existing), []
    claims: dict[tuple[str, str], str] = {}
    for expansion in expansions:
        for monitor in expansion.wanted:
            source, metric, _part = monitor.key
            first = claims.setdefault((source, metric), monitor.origin)
            if first == monitor.origin:
                wanted.append(monitor)
                continue
            what = f"{f'{metric}' if metric else 'the offline monitor'} is already claimed by {first}"
            to_do = "keep one of the two, or narrow a glob"
            found.add("claimed-twice", monitor.origin, what, to_do, source)
        for note in expansion.notes:
            origin, sentence = _split(note, origins)
            what, to_do = _idle(sentence, [s for s in specs if s.origin == origin], known, metrics)
            found.add("reaches-nothing", origin, what, to_do)
    for spec in specs:
        if not _is_glob(spec.source) and spec.source not in known.slug_of:
            what = f"source {spec.source!r} is unknown to the platform"
            to_do = f"it appears once it has sent a point{near(spec.source, known.slug_of)}"
            found.add("unknown-source", spec.origin, what, to_do)
    return tuple(wanted), found.all(origins)


def _expansions(
    specs: Sequence[MonitorSpec],
    known: KnownSources,
    metrics: Mapping[str, Collection[str]],
    existing: Sequence[Existing],
) -> list[Expansion]:
    """One of all documents; where they claim the same, one of each, so that every such claim can be told."""
    try:
        return [expand(specs, known, metrics, existing)]
    except ConfigError:
        by_origin: defaultdict[str, list[MonitorSpec]] = defaultdict(list)
        for spec in specs:
            by_origin[spec.origin].append(spec)
        return [expand(mine, known, metrics, existing) for mine in by_origin.values()]


def _split(note: str, origins: Sequence[str]) -> tuple[str, str]:
    """The document that a note is about, and what it says."""
    of = max((o for o in origins if note.startswith(f"{o}: ")), key=len, default="")
    return of, note.removeprefix(f"{of}: ")


def _idle(
    note: str, specs: Sequence[MonitorSpec], known: KnownSources, metrics: Mapping[str, Collection[str]]
) -> tuple[str, str]:
    """Why a document reaches nothing, and what to do: where its source is right, its metric may be wrong."""
    spec = next((spec for spec in specs if any(fnmatchcase(d, spec.source) for d in known.devices)), None)
    base = spec and (scored_metric(spec.metric) or spec.metric)
    if spec is None or not base or _is_glob(base):
        return note, "correct it, or wait for one"
    devices = [device for device in known.devices if fnmatchcase(device, spec.source)]
    sent = {name for device in devices for name in metrics.get(device, ()) if not is_own_metric(name)}
    what = f"no device like {spec.source!r} sent {base} in the last hour"
    return what, f"correct it, or wait for one{near(base, sent)}"


def patterns_of(specs: Sequence[MonitorSpec], own: str) -> KnownSources:
    """The sources of documents as if each pattern were one source: what is known without a platform."""
    sources = dict.fromkeys(spec.source for spec in specs)
    return KnownSources({s: s for s in sources}, tuple(s for s in sources if s != own))


def to_ask(wanted: Sequence[Wanted], posting: Posting, lately: Mapping[str, Collection[str]]) -> list[str]:
    """The sources all of whose names have to be known: they did not send lately what is watched."""
    asked: dict[str, None] = {}
    for monitor in wanted:
        source, metric, part = monitor.key
        base, kind = parted(metric)
        sent = set(lately.get(source, ()))
        group = posting.groups.get(base or "") if kind == JOINT else None
        if group is not None:
            there = len(group.metrics & sent) >= JOINED_MIN
        else:
            there = not {metric, base or metric}.isdisjoint(sent)
        if part != "offline" and not there:
            asked[source] = None
    return list(asked)


def to_observe(wanted: Sequence[Wanted], own: str) -> list[Key]:
    """The monitors whose history says something: on what devices send, and on silence of others than us."""
    return [
        monitor.key
        for monitor in wanted
        if parted(monitor.key[1])[0] is None and (monitor.key[2] != "offline" or monitor.key[0] != own)
    ]
