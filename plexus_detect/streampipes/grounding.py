"""The broker that a stream's grounding names."""

from __future__ import annotations

from streampipes.functions.broker.broker_handler import SupportedBroker
from streampipes.model.resource import DataStream

from plexus_detect.streampipes.brokers import Inlet, Outlet, Reach
from plexus_detect.streampipes.connection import broker_of
from plexus_detect.streampipes.kafkabroker import KafkaInlet, KafkaOutlet
from plexus_detect.streampipes.natsbroker import NatsInlet, NatsOutlet


def inlet_of(stream: DataStream, reach: Reach) -> Inlet:
    """The consumer of a stream."""
    return KafkaInlet(reach) if broker_of(stream) is SupportedBroker.KAFKA else NatsInlet(reach)


def outlet_of(stream: DataStream, reach: Reach) -> Outlet:
    """The publisher of a stream."""
    return KafkaOutlet(reach) if broker_of(stream) is SupportedBroker.KAFKA else NatsOutlet(reach)
