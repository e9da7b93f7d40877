"""Which of the platform's series are read, by which rule, and why others are not. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from plexus_detect.config import Config, SeriesRule
from plexus_detect.config.rules import any_of
from plexus_detect.doctor.findings import Finding, fail, ok, warn
from plexus_detect.errors import ConfigError
from plexus_detect.monitors import MonitorSpec, scored_metric
from plexus_detect.monitors.posting import Posting
from plexus_detect.provision.posting import posting_of
from plexus_detect.series import is_own_metric

Pair = tuple[str, str]
EXAMPLES = 3


def series(config: Config, found: Collection[Pair]) -> Iterator[Finding]:
    """What the rules make of the series that the platform knows."""
    own = {pair for pair in found if is_own_metric(pair[1]) or pair[0] == config.heartbeat.source}
    measured = sorted(set(found) - own)
    taken = [config.rule_for(*pair) for pair in measured]
    n = sum(rule is not None for rule in taken) + len(_only_of_groups(config, measured))
    told = f"{n:,} of {len(measured):,} series are read; {len(own):,} more are the detector's own"
    if not n:
        yield warn("series", told, "change series[].sources and metrics, or let a device send")
    elif n > config.state.series_max:
        yield warn(
            "series", f"{told}; {config.state.series_max:,} are watched at most", "raise state.series_max"
        )
    else:
        yield ok("series", told)
    for i, rule in enumerate(config.series):
        mine = [pair for pair, index in zip(measured, taken, strict=True) if index == i]
        yield _rule(rule, mine, [pair for pair in measured if rule.selects(*pair)])
    yield from _left_out(config, [pair for pair, index in zip(measured, taken, strict=True) if index is None])
    yield from _groups(config, measured)


def _only_of_groups(config: Config, measured: Iterable[Pair]) -> list[Pair]:
    groups = [(any_of(group.sources), group.metrics) for group in config.detectors]
    return [
        (source, metric)
        for source, metric in measured
        if config.rule_for(source, metric) is None
        and any(metric in metrics and sources.match(source) for sources, metrics in groups)
    ]


def _rule(rule: SeriesRule, mine: Sequence[Pair], matching: Sequence[Pair]) -> Finding:
    name = f"rule {rule.name}"
    if mine:
        return ok(name, f"{len(mine):,} series, such as {_such_as(mine)}")
    if matching:
        found = f"earlier rules take all {len(matching):,} series that it matches"
        return warn(name, found, "the first rule that matches wins: move it up")
    patterns = f"sources {', '.join(rule.sources)}; metrics {', '.join(rule.metrics)}"
    return warn(name, f"matches nothing ({patterns})", "correct its patterns, or remove it")


def _such_as(pairs: Sequence[Pair]) -> str:
    return ", ".join(f"{source}/{metric}" for source, metric in pairs[:EXAMPLES])


def _left_out(config: Config, pairs: Sequence[Pair]) -> Iterator[Finding]:
    """Series without a rule: excluded on purpose, or simply not named."""
    by_rule: dict[str, list[Pair]] = defaultdict(list)
    unnamed: list[Pair] = []
    grouped = set(_only_of_groups(config, pairs))
    for pair in pairs:
        excluder = next((rule for rule in config.series if _excludes(rule, pair)), None)
        if excluder is not None:
            by_rule[excluder.name].append(pair)
        elif pair not in grouped:
            unnamed.append(pair)
    for name, excluded in by_rule.items():
        for_groups = sum(pair in grouped for pair in excluded)
        but = f"; groups read {for_groups:,} of them" if for_groups else ""
        yield ok(f"rule {name}", f"excludes {len(excluded):,} series, such as {_such_as(excluded)}{but}")
    if unnamed:
        counts = Counter(metric for _source, metric in unnamed).most_common()
        named = ", ".join(f"{metric} ({n:,})" for metric, n in counts[:10])
        more = f" and {len(counts) - 10} more" if len(counts) > 10 else ""
        yield ok("not read", f"no rule takes {len(unnamed):,} series of the metrics {named}{more}")


def _excludes(rule: SeriesRule, pair: Pair) -> bool:
    source, metric = pair
    named = any_of(rule.sources).match(source) and any_of(rule.metrics).match(metric)
    left_out = any_of(rule.exclude_sources).match(source) or any_of(rule.exclude_metrics).match(metric)
    return bool(named and left_out)


def _groups(config: Config, measured: Sequence[Pair]) -> Iterator[Finding]:
    for group in config.detectors:
        sources, metrics = any_of(group.sources), set(group.metrics)
        have = Counter(source for source, metric in measured if metric in metrics and sources.match(source))
        enough = sorted(source for source, n in have.items() if n >= 2)
        name = f"group {group.name}"
        if enough:
            yield ok(name, f"{len(enough):,} sources, such as {', '.join(enough[:EXAMPLES])}")
        else:
            yield warn(name, "no source has two of its metrics", "correct its metrics and sources")


def monitors(
    config: Config, specs: Sequence[MonitorSpec], found: Collection[Pair] | None
) -> Iterator[Finding]:
    """Whether what the documents watch is what this configuration posts; ``found`` None: not known."""
    posting = posting_of(config)
    silent = dict.fromkeys(said for spec in specs if (said := _never_posted(posting, spec, found)))
    for sentence, to_do in silent:
        yield warn("monitors", sentence, to_do)
    yield ok("monitors", f"{len({spec.origin for spec in specs}):,} documents in {config.monitors.path}")


def _never_posted(
    posting: Posting, spec: MonitorSpec, found: Collection[Pair] | None
) -> tuple[str, str] | None:
    """Why the score that a document watches is never posted, and what to do; None when it may be, or is none
    of ours."""
    base = scored_metric(spec.metric)
    if base is None or spec.parts.keys() == {"offline"}:
        return None
    never = posting.never(spec.metric, {source for source, metric in found or () if metric == base})
    return never and (f"{spec.origin} watches {spec.metric}, but {never.why}", never.to_do)


def documents_missing(config: Config, error: ConfigError, *, given: bool) -> Finding:
    """The documents cannot be loaded; a default folder that is not there is no mistake."""
    if not given and not config.monitors.path.exists():
        found = f"{config.monitors.path}: no such folder; without a monitor on a score nobody is told"
        return warn("monitors", found, "name one in monitors.path, or make it: see examples/monitors")
    return fail("monitors", str(error), exit_code=error.exit_code)
