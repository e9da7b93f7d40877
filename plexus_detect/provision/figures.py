"""What the last provisioning of monitors came to, for Prometheus: read from the manifest when it asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from plexus_detect.families import gauge
from plexus_detect.monitors.manifest import LastRun
from plexus_detect.provision.manifestfile import BYTES_MAX

PREFIX = "plexus_detect_monitors"


class Provisioned(Collector):
    """The figures of the last run that the manifest tells of; none where there is no manifest of ours.

    The file is read again only after it has changed, and whatever it holds, a scrape does not fail.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._families: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """Both metrics; called by the registry, in whatever thread asks."""
        try:
            stat = self._path.stat()
            seen = stat.st_mtime_ns, stat.st_size, stat.st_ino
            if seen != self._seen:
                self._families = list(figures(_last_run(self._path, stat.st_size)))
                self._seen = seen
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
            self._seen, self._families = None, []
        yield from self._families


def figures(run: LastRun) -> Iterator[Metric]:
    """The metrics of a run."""
    ended_s = datetime.fromisoformat(run.at).timestamp()
    counts = {state: int(n) for state, n in asdict(run).items() if state != "at"}
    about = "Monitors in the last apply or prune: planned changes, applied ones, edited by a person, failed."
    yield gauge(PREFIX, about, counts, "state")
    about = "When monitors were last applied or pruned."
    yield gauge(f"{PREFIX}_last_run_timestamp_seconds", about, ended_s)


def _last_run(path: Path, size_bytes: int) -> LastRun:
    """How the last run ended; the monitors of the manifest are of no interest here."""
    if size_bytes > BYTES_MAX:
        raise ValueError(f"{path} is too large for a manifest")
    return LastRun(**json.loads(path.read_text("utf-8"))["last_run"])
