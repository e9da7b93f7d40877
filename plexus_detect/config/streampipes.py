"""Apache StreamPipes: where its core is, which streams are judged, and what the result is called."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from plexus_detect.config.values import Duration, FilePath, Number, Section, Unique, mistake

# A name or an IPv4 address, or an IPv6 address in brackets, as in an address of the web.
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)

Port = Annotated[int, Field(ge=1, le=65_535), Number]


def _host(text: str) -> str:
    """A host by itself, without scheme, port and path; raises a mistake."""
    if not _HOST.fullmatch(text):
        raise mistake(
            "{value} is not a host", "write its name or address alone; the port and https have their own keys"
        )
    return text


Host = Annotated[str, AfterValidator(_host)]


class StreamPipesConfig(Section):
    """What the ``streampipes`` commands read, judge and publish."""

    host: Host = Field(default="localhost", description="Host of the StreamPipes core, or of its UI.")
    port: Port = Field(default=80, description="Its port.")
    https: bool = Field(default=False, description="Whether it speaks https.")
    ca_file: FilePath | None = Field(
        default=None, description="A file of certificates (PEM) to trust instead of the usual ones."
    )
    user: str = Field(default="", description="Whose API key it is. Environment: SP_USERNAME.")
    api_key_file: FilePath | None = Field(
        default=None,
        description="A file that holds the API key of StreamPipes and nothing else. Environment: SP_API_KEY.",
    )
    timeout_ms: Annotated[int, Duration("1s", "300s")] = Field(
        default=30_000, alias="timeout", description="How long one request to the core may take."
    )
    measure: str = Field(
        default="", description="The measure of the data lake that `train` and the warm-up read."
    )
    streams: Annotated[tuple[str, ...], Unique] = Field(
        default=(), description="Names or ids of the data streams whose events are judged."
    )
    device: str = Field(
        default="", description="The event property that names the device. Default: a stream is one device."
    )
    timestamp: str = Field(
        default="",
        description="The event property that holds the time. Default: as the stream's schema says.",
    )
    metrics: dict[str, str] = Field(
        default_factory=dict, description="Event properties by the metrics they are, where the names differ."
    )
    statistics: bool = Field(
        default=False, description="Judge each metric by itself too, as series, metrics and detect say."
    )
    output: str = Field(
        default="plexus-detect-anomalies",
        min_length=1,
        description="Name of the data stream that is published.",
    )
    broker_host: str = Field(
        default="", description="Where the broker is reached, if not where the streams say (kafka, nats)."
    )
    broker_port: Port | None = Field(default=None, description="Its port, if it is another one from here.")
    batch: Annotated[int, Field(ge=1, le=100_000), Number] = Field(
        default=500, description="Events judged together at most."
    )
    linger_ms: Annotated[int, Duration("0s", "10s")] = Field(
        default=10, alias="linger", description="How long an event waits for others to be judged together."
    )
    results_max: Annotated[int, Field(ge=1, le=10_000_000), Number] = Field(
        default=100_000, description="Results kept while the broker takes none; the oldest give way."
    )
