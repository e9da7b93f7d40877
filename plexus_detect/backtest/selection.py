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
        """Whether a series is read: some rule selects it, or a group of metrics takes it."""
        key = SeriesKey(source, metric)
        return self._rule(key) is not None or bool(self.policy.groups_of(key))

    def _rule(self, key: SeriesKey) -> int | None:
        return None if self.policy.is_score(key) else self._config.rule_for(*key)

    def named(self, keys: Sequence[SeriesKey]) -> list[SeriesKey]:
        """The series under which groups of these are posted, as far as they are not among them."""
        if not self.policy.groups:
            return []
        names = (SeriesKey(key.source, group.name) for key in keys for group in self.policy.groups_of(key))
        known = set(keys)
        return [key for key in dict.fromkeys(names) if key not in known]

    def admit(self, keys: Sequence[SeriesKey], start: int = 0) -> list[Admitted]:
        """The selected ones of the series from number ``start`` on."""
        found = [Admitted(i, keys[i], self._rule(keys[i])) for i in range(start, len(keys))]
        chosen = [a for a in found if a.rule is not None or self.wants(*a.key) or self.policy.is_score(a.key)]
        if len(self.policy.rules) == self._n:
            return chosen
        sizes = Counter(self._group(a.key, a.rule) for a in chosen if a.rule is not None)
        for group, size in sizes.items():
            fleet = self.policy.rules[group[0]].fleet
            small = fleet is None or group[2] is None or size < fleet.group_min
            self._alone.setdefault(group, small)
        return [
            a
            if a.rule is None
            else replace(a, rule=a.rule + self._n * self._alone[self._group(a.key, a.rule)])
            for a in chosen
        ]

    def _group(self, key: SeriesKey, rule: int) -> Group:
        """The sources that are compared with one another."""
        return rule, key.metric, self.policy.cohort_of(key.source)
