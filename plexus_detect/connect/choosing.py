"""Which delivery a polling worker has: what needs the client library of Kafka is imported only for Kafka."""

from __future__ import annotations

from plexus_detect.config import Config
from plexus_detect.delivery import Delivery, Makes
from plexus_detect.options import extra
from plexus_detect.running import Running


def delivery_of(config: Config, running: Running) -> Makes:
    """What makes the delivery for a configuration. Raises ConfigError without the extra that it needs."""
    if config.sink.kind != "kafka":
        return Delivery
    with extra("kafka", "sink.kind: kafka"):
        from plexus_detect.connect.bus_delivery import bus_delivery
    return bus_delivery(config, running)
