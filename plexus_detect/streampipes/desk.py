"""What outlives a connection: the detectors with what they remember, and results that no broker has yet."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import msgspec

from plexus_detect import clock
from plexus_detect.logs import event
from plexus_detect.streampipes.brokers import Result
from plexus_detect.streampipes.judging import Judging
from plexus_detect.streampipes.reading import Form, answer, read

log = logging.getLogger(__name__)

# How often the models folder is looked at, and how often what was done is told, seconds.
MODELS_S, TELL_S = 10.0, 60.0


class Desk:
    """Events in, results out, in the order of arrival. ``results`` are those not yet acknowledged."""

    def __init__(self, judging: Judging, metrics: Sequence[str], results_max: int) -> None:
        self.judging = judging
        self.metrics = tuple(metrics)
        self.results: deque[Result] = deque()
        self.events = self.anomalies = self.published = self.dropped = 0
        self.refused: Counter[str] = Counter()
        self._results_max = results_max
        self._looked_s = self._told_s = clock.monotonic_s()

    def judge(self, events: Sequence[tuple[Form, object]]) -> list[tuple[str, dict[str, Any]]]:
        """The results of events with their devices; events that cannot be read have none, and are counted."""
        self._look()
        now_ms = clock.now_ms()
        found = read(events, self.metrics, now_ms)
        verdicts = self.judging.step(found.devices, found.t_ms, found.x, now_ms)
        self.events += len(events)
        self.refused += found.refused
        self.anomalies += sum(verdict.is_anomaly for verdict in verdicts)
        rows = zip(found.at, found.devices, found.t_ms.tolist(), verdicts, strict=True)
        out = [(device, answer(events[at][0], device, t_ms, one)) for at, device, t_ms, one in rows]
        self._tell()
        return out

    def add(self, device: str, result: dict[str, Any]) -> None:
        """Keep a result until a broker has it; the oldest give way when there are too many."""
        if len(self.results) >= self._results_max:
            self.results.popleft()
            self.dropped += 1
        self.results.append(Result(device, msgspec.json.encode(result)))

    def acknowledged(self, count: int) -> None:
        """The broker has the oldest ``count`` results."""
        for _ in range(count):
            self.results.popleft()
        self.published += count

    def counts(self) -> dict[str, int]:
        """What was done since the start."""
        return {
            "events": self.events,
            "anomalies": self.anomalies,
            "published": self.published,
            "waiting": len(self.results),
            "refused": self.refused.total(),
            "dropped": self.dropped,
        }

    def _look(self) -> None:
        now_s = clock.monotonic_s()
        if now_s - self._looked_s >= MODELS_S:
            self._looked_s = now_s
            self.judging.refresh()

    def _tell(self) -> None:
        now_s = clock.monotonic_s()
        if now_s - self._told_s >= TELL_S:
            self._told_s = now_s
            self.tell("judged")

    def tell(self, name: str) -> None:
        """Log what was done, and why events were refused."""
        said: dict[str, Any] = dict(self.counts())
        if self.refused:
            said["because"] = "; ".join(f"{why}: {count}" for why, count in self.refused.most_common(3))
        event(log, logging.INFO, name, **said)
