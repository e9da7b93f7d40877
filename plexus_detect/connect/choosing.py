"""Which delivery a polling worker has: what needs the client library of Kafka is imported only for Kafka."""

from __future__ import annotations

from plexus_detect.config import Config
from plexus_detect.delivery import Delivery, Makes
from plexus_detect.errors import ConfigError
from plexus_detect.running import Running


def delivery_of(config: Config, running: Running) -> Makes:
    """What makes the delivery for a configuration. Raises ConfigError without the extra that it needs."""
    if config.sink.kind != "kafka":
        return Delivery
    try:
        from plexus_detect.connect.bus_delivery import bus_delivery
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"sink.kind: kafka needs the extra 'kafka' ({error.name} is not installed); "
            "run: pip install 'plexus-detect[kafka]'"
        ) from error
    return bus_delivery(config, running)
