"""What the last provisioning of monitors came to, for Prometheus: read from the manifest when it asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from plexus_detect.errors import ConfigError
from plexus_detect.families import gauge
from plexus_detect.monitors.manifest import LastRun
from plexus_detect.provision.manifestfile import ManifestFile

PREFIX = "plexus_detect_monitors"


class Provisioned(Collector):
    """The figures of the last run that the manifest tells of; none where there is no manifest of ours.

    The file is read again only after it has changed, and whatever it holds, a scrape does not fail.
    """

    def __init__(self, file: ManifestFile) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._families: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """Both metrics; called by the registry, in whatever thread asks."""
        try:
            stat = self._file.path.stat()
            seen = stat.st_mtime_ns, stat.st_size, stat.st_ino
            if seen != self._seen:
                run = self._file.load().last_run
                self._families = [] if run is None else list(figures(run))
                self._seen = seen
        except (OSError, ConfigError, ValueError, TypeError, ArithmeticError):
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
