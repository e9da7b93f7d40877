"""The function that StreamPipes knows: events of its streams in, an anomaly stream out."""

from __future__ import annotations

import asyncio
import json
import logging
from itertools import islice
from typing import Any

import msgspec
from streampipes.functions.streampipes_function import StreamPipesFunction
from streampipes.functions.utils.function_context import FunctionContext
from streampipes.model.resource import DataStream, FunctionDefinition
from streampipes.model.resource.function_definition import FunctionId

from plexus_detect import clock
from plexus_detect.config.streampipes import StreamPipesConfig
from plexus_detect.logs import event
from plexus_detect.streampipes.brokers import Reach
from plexus_detect.streampipes.desk import Desk
from plexus_detect.streampipes.grounding import outlet_of
from plexus_detect.streampipes.history import form_of
from plexus_detect.streampipes.reading import Form

log = logging.getLogger(__name__)

# What StreamPipes calls the meaning of a time, and the part of an event that it is in.
DATE_TIME, HEADER = "http://schema.org/DateTime", "HEADER_PROPERTY"

# Results that are published at once.
PUBLISHED_MAX = 5_000


class AnomalyFunction(StreamPipesFunction):
    """Judges each event and adds one to the output stream: ``onEvent`` takes, ``judge`` judges what was
    taken together, ``publish`` sends it. A new one is made for each connection; they share ``desk``."""

    def __init__(
        self,
        streams: list[DataStream],
        output: DataStream,
        desk: Desk,
        settings: StreamPipesConfig,
        reach: Reach,
    ) -> None:
        # The client would connect an output here, in a loop that ends at once: ours is opened later.
        super().__init__(
            FunctionDefinition(
                function_id=FunctionId(id=f"plexus-detect.{output.element_id}"),
                consumed_streams=[stream.element_id for stream in streams],
            )
        )
        self.function_definition.add_output_data_stream(output)
        self.desk = desk
        self.reach = reach
        self._settings = settings
        self._output = output
        self._outlet = outlet_of(output, reach)
        self._forms: dict[str, Form] = {}
        self._taken: list[tuple[Form, object]] = []
        self._turn = asyncio.Lock()

    # -- what the client calls

    def onServiceStarted(self, context: FunctionContext) -> None:  # noqa: N802 - the client's name
        """Learn from the schema of each stream how its events are read."""
        for stream_id, stream in context.schema.items():
            timestamp = self._settings.timestamp or timestamp_of(stream)
            self._forms[stream_id] = form_of(self._settings, stream.name, timestamp, self.desk.metrics)
        names = ", ".join(form.name for form in self._forms.values())
        event(log, logging.INFO, "function_started", streams=names, output=self._output.name)

    def onEvent(self, event: object, streamId: str) -> None:  # noqa: N802, N803 - its names
        """Take an event, to be judged with those that come soon after it."""
        self._taken.append((self._forms[streamId], event))

    def onServiceStopped(self) -> None:  # noqa: N802 - the client's name
        """Say what was done."""
        self.desk.tell("function_stopped")

    def add_output(self, stream_id: str, event: dict[str, Any]) -> None:  # noqa: ARG002 - its names
        """Publish an event with the next ones."""
        self.desk.add("", {"timestamp": clock.now_ms(), **event})

    # -- what the handler calls

    async def open(self) -> None:
        """Connect the output. Raises BrokerLostError."""
        await self._outlet.connect(self._output)

    def judge(self) -> None:
        """Judge what was taken; the results wait."""
        taken, self._taken = self._taken, []
        for device, result in self.desk.judge(taken):
            self.desk.add(device, result)

    async def publish(self) -> None:
        """Publish all results that wait. Raises BrokerLostError; they go on waiting then."""
        async with self._turn:
            while self.desk.results:
                part = list(islice(self.desk.results, PUBLISHED_MAX))
                await self._outlet.publish(part)
                self.desk.acknowledged(len(part))

    async def close(self) -> None:
        """Disconnect the output."""
        await self._outlet.disconnect()


def reach_of(settings: StreamPipesConfig) -> Reach:
    """How the brokers are reached."""
    return Reach(settings.broker_host, settings.broker_port, f"plexus-detect.{settings.output}")


def timestamp_of(stream: DataStream) -> str:
    """The property of a stream that holds the time, as its schema says; else ``timestamp``."""
    properties = stream.event_schema.event_properties if stream.event_schema is not None else []
    for found in (
        next((p for p in properties if p.semantic_type == DATE_TIME), None),
        next((p for p in properties if p.property_scope == HEADER), None),
    ):
        if found is not None:
            return str(found.runtime_name)
    return "timestamp"


def parsed(payload: bytes) -> object:
    """The event of a message, None for what is no JSON. NaN, which is none either but is sent, is taken."""
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        try:
            found: object = json.loads(payload)
        except (ValueError, RecursionError):
            return None
        return found
