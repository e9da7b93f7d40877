"""What a configuration posts, as lint and doctor ask for it."""

from __future__ import annotations

from plexus_detect.config import Config
from plexus_detect.config.rules import any_of
from plexus_detect.monitors.posting import Posting, RuleOf, ScoreGroup


def posting_of(config: Config) -> Posting:
    """What the worker posts with this configuration."""
    details = [config.detect_for(index) for index in range(len(config.series))]
    beat = config.heartbeat
    return Posting(
        series=frozenset(config.post.series),
        rules=tuple(
            RuleOf(detect.threshold, detect.detector, rule.fleet)
            for detect, rule in zip(details, config.series, strict=True)
        ),
        rule_of=config.rule_for,
        cohort_of=_Cohorts(config),
        fleet=config.fleet.enabled,
        fleet_line=config.fleet.threshold,
        fleet_min=config.fleet.group_min,
        group_line=config.detect.threshold,
        groups={
            group.name: ScoreGroup(frozenset(group.metrics), group.may_take) for group in config.detectors
        },
        heartbeat=(beat.source, beat.interval_ms) if beat.enabled else None,
    )


class _Cohorts:
    """The position of the cohort of a source, that of the rest last; None if it is compared with none."""

    def __init__(self, config: Config) -> None:
        self._patterns = [any_of(cohort.sources) for cohort in config.fleet.cohorts]
        self._rest = len(self._patterns) if config.fleet.rest else None

    def __call__(self, source: str) -> int | None:
        for i, pattern in enumerate(self._patterns):
            if pattern.match(source):
                return i
        return self._rest
