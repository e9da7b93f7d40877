"""Which series are replayed, and under which rule: those of fleets too small to score go without a fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from plexus_detect.backtest.replay import Admitted
from plexus_detect.config import Config
from plexus_detect.policy import policy_of
from plexus_detect.series import SeriesKey

Group = tuple[int, str, int | None]


class Selection:
    """The series that the configuration selects.

    A fleet of fewer sources than ``group_min`` has no scores, but keeping its time costs more than all else
    that is done for a point. So ``policy`` holds every rule twice, the second time without a fleet, for the
    series of fleets that are too small when their first series is seen. With a budget of alerts nothing is
    changed: who is compared with a fleet has a share in it.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._alone: dict[Group, bool] = {}
        policy = policy_of(config)
        self._n = len(policy.rules)
        if policy.alerts_per_day is None:
            rules = (*policy.rules, *(replace(rule, fleet=None) for rule in policy.rules))
            policy = replace(policy, rules=rules)
        self.policy = policy

    def wants(self, source: str, metric: str) -> bool:
        """Whether some rule selects the series."""
        return self._config.rule_for(source, metric) is not None

    def admit(self, keys: Sequence[SeriesKey], start: int = 0) -> list[Admitted]:
        """The selected ones of the series from number ``start`` on."""
        found = [(i, keys[i], self._config.rule_for(*keys[i])) for i in range(start, len(keys))]
        chosen = [(i, key, rule) for i, key, rule in found if rule is not None]
        if len(self.policy.rules) == self._n:
            return [Admitted(i, key, rule) for i, key, rule in chosen]
        sizes = Counter(self._group(key, rule) for _i, key, rule in chosen)
        for group, size in sizes.items():
            fleet = self.policy.rules[group[0]].fleet
            small = fleet is None or group[2] is None or size < fleet.group_min
            self._alone.setdefault(group, small)
        return [
            Admitted(i, key, rule + self._n * self._alone[self._group(key, rule)]) for i, key, rule in chosen
        ]

    def _group(self, key: SeriesKey, rule: int) -> Group:
        """The sources that are compared with one another."""
        return rule, key.metric, self.policy.cohort_of(key.source)
