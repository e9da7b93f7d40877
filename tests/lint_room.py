"""A fleet and documents, to be linted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plexus_detect import monitors
from plexus_detect.config import Config
from plexus_detect.monitors import KnownSources, MonitorSpec
from plexus_detect.monitors import lint as rules
from plexus_detect.monitors.lintbounds import Observed
from plexus_detect.monitors.lintrules import Finding
from plexus_detect.provision.posting import posting_of

FLEET = {f"dev-{i}": ("t", "humidity") for i in range(1, 6)}


def threshold(metric: str = "t.zscore", source: str = "dev-*", **fields: Any) -> dict[str, Any]:
    """The document of a threshold, ``max: 3`` where no other bound is given."""
    return {"source_id": source, "metric": metric, "threshold": fields or {"max": 3}}


def event(
    message: str = "look", metric: str = "door", source: str = "dev-1", **fields: Any
) -> dict[str, Any]:
    """The document of an event monitor."""
    return {"source_id": source, "metric": metric, "event": {"message": message, **fields}}


def offline(timeout_s: int, **more: Any) -> dict[str, Any]:
    """The document of an offline monitor."""
    return {"source_id": "dev-1", "offline": {"timeout_seconds": timeout_s, **more}}


@dataclass(frozen=True)
class World:
    """What lint is told besides documents: settings, and a platform on which five devices are alive."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    fleet: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: FLEET)
    silent: tuple[str, ...] = ()
    ever: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    seen: Observed | None = None

    def findings(self, documents: Sequence[Mapping[str, Any]]) -> list[Finding]:
        """All that lint finds in documents, each of which is a file of its own."""
        specs: list[MonitorSpec] = []
        for i, document in enumerate(documents):
            specs += monitors.parse(json.dumps(document), f"{i}.json")
        config = Config.model_validate(self.settings)
        slugs = (*self.fleet, *self.silent, "plexus-detect")
        known = KnownSources({slug: slug for slug in slugs}, (*self.fleet, *self.silent))
        wanted, clashes = rules.reach(specs, known, self.fleet)
        posting = posting_of(config)
        asked = rules.to_ask(wanted, posting, self.fleet)
        seen = {} if self.seen is None else {monitor.key: self.seen for monitor in wanted}
        ever = {slug: self.ever.get(slug, self.fleet.get(slug, ())) for slug in asked}
        facts = rules.Facts(reached=True, lately=self.fleet, ever=ever, targets=self.targets, observed=seen)
        return [*clashes, *rules.lint(specs, wanted, posting, facts)]
