"""Whether the brokers answer, and what of the topics is there; nothing is made or written."""

from __future__ import annotations

from collections.abc import Iterator

from plexus_detect.config import Config
from plexus_detect.doctor.findings import Finding, fail, failed, ok, warn
from plexus_detect.errors import PlexusDetectError, TransientError

NAME = "brokers"


def topics(config: Config) -> Iterator[Finding]:
    """Of the ends of the configuration that are Kafka."""
    try:
        from plexus_detect.connect.settings import Connection
        from plexus_detect.connect.states import States
    except ModuleNotFoundError as error:
        yield fail(NAME, f"{error.name} is not installed", "pip install 'plexus-detect[kafka]'", exit_code=2)
        return
    end = "source" if config.source.kind == "kafka" else "sink"
    try:
        found = States(config, Connection(config)).topics(end)
    except PlexusDetectError as error:
        yield failed(NAME, error)
        return
    if isinstance(found, str):
        yield fail(NAME, found, f"check {end}.brokers and {end}.options", exit_code=TransientError.exit_code)
        return
    yield ok(NAME, f"{len(found)} topics")
    if end == "source" and config.source.topic in found:
        yield ok("topic", f"{config.source.topic} has {found[config.source.topic]} partitions")
    elif end == "source":
        yield warn("topic", f"there is no topic {config.source.topic} yet", "the worker waits for it")
