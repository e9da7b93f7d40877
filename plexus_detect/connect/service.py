"""``run`` with a topic of Kafka as its source: the loop in a thread, seen from outside like a worker."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from plexus_detect import clock
from plexus_detect.client import Client
from plexus_detect.config import Config
from plexus_detect.connect.kafka_sink import AcknowledgedSink, TransactionalSink
from plexus_detect.connect.kafka_source import KafkaSource
from plexus_detect.connect.pipeline import Pipeline, PipelineParams
from plexus_detect.connect.plexus_sink import PlexusSink
from plexus_detect.connect.protocol import Unavailable
from plexus_detect.connect.report import StreamReport
from plexus_detect.connect.settings import Connection
from plexus_detect.connect.states import States
from plexus_detect.lane import Policy
from plexus_detect.logs import event
from plexus_detect.policy import policy_of
from plexus_detect.report import TickReport
from plexus_detect.retry import retried
from plexus_detect.stream.engine import EngineParams, PartitionEngine
from plexus_detect.training.trainer import InlineTrainer
from plexus_detect.vitals import Vitals

log = logging.getLogger(__name__)

# A line of figures this often, while there is anything to tell; and how often vitals are brought up to date.
LINE_S, LOOK_S = 10.0, 1.0

# While brokers or the topic are missing at the start they are looked for so often.
PREPARE_S = 2.0


def engine_params(config: Config, partition: int) -> EngineParams:
    """The parameters of the engine of a partition."""
    source = config.source
    return EngineParams(
        name=f"{source.topic}/{partition}",
        shape=source.mapping.shape(),
        max_ahead_ms=source.max_ahead_ms,
        cooldown_ms=config.sink.cooldown_ms,
        series_max=config.state.series_max,
        expire_after_ms=config.state.expire_after_ms,
    )


class StreamService:
    """One stream worker; ``report`` is filled from its start. ``client`` is there when results go to the
    platform. Raises ConfigError."""

    def __init__(self, config: Config, vitals: Vitals, client: Client | None = None) -> None:
        self._config, self._vitals, self._client = config, vitals, client
        self.report = StreamReport()
        self._policy: Policy = policy_of(config)
        # In place, not in a process: what is learned when must depend on the messages alone, or a replay
        # would not find the same state.
        self._trainer = InlineTrainer() if config.detectors else None
        self._connection = Connection(config)
        self._states = States(config, self._connection)
        source = KafkaSource(config.source, self._connection, self._states)
        params = PipelineParams(
            batch=config.source.batch,
            exactly_once=config.exactly_once,
            snapshot_s=config.source.snapshot_interval_ms / 1000,
            warmup=config.source.warmup,
            from_end=config.source.start == "latest",
            stop_s=config.health.stop_within_ms / 1000,
        )
        self._pipeline = Pipeline(source, self._states, self._engine, params, self.report)

    def _engine(self, partition: int) -> PartitionEngine:
        return PartitionEngine(
            self._policy, self._config.rule_for, engine_params(self._config, partition), self._trainer
        )

    def _sink(self) -> AcknowledgedSink | TransactionalSink | PlexusSink:
        config = self._config
        self._states.waiting = self._pipeline.waiting
        if self._client is not None:
            return PlexusSink(config, self._client, self._states, asyncio.get_running_loop())
        if config.exactly_once:
            return TransactionalSink(config, self._connection, self._states, self._pipeline.waiting)
        return AcknowledgedSink(config, self._connection, self._pipeline.waiting)

    async def run(self, stop: asyncio.Event, reload: asyncio.Event | None = None) -> None:
        """Run until ``stop`` is set; ``reload`` is answered in the log: what is learned is bound to its
        settings. Raises errors that a person must act on."""
        self._reload = reload or asyncio.Event()
        self._pipeline.sink = self._sink()
        try:
            if self._client is not None:
                await retried(self._client.check_write)
            await self._prepare(stop)
            if not stop.is_set():
                await self._run(stop)
        finally:
            self._states.close()

    async def _prepare(self, stop: asyncio.Event) -> None:
        """Wait for the brokers and the topic, and make the topics that are missing."""
        said = ""
        while not stop.is_set():
            try:
                count = await asyncio.to_thread(self._states.prepare)
                said_now = "" if count else f"there is no topic {self._config.source.topic}"
            except Unavailable as error:
                said_now = str(error)
            self._vitals.bus_trouble = said_now
            if not said_now:
                return
            if said_now != said:
                said = said_now
                event(log, logging.WARNING, "bus_trouble", err=said, msg="it is tried again")
            await clock.wait_s(stop, PREPARE_S)

    async def _run(self, stop: asyncio.Event) -> None:
        loop = asyncio.create_task(asyncio.to_thread(self._pipeline.run))
        waiting = asyncio.create_task(stop.wait())
        told_s = clock.monotonic_s()
        try:
            while not loop.done() and not stop.is_set():
                await asyncio.wait({loop, waiting}, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                self._look()
                if self._reload.is_set():
                    self._reload.clear()
                    event(log, logging.WARNING, "reload_ignored", msg="restart a stream worker instead")
                if clock.monotonic_s() - told_s >= LINE_S:
                    told_s = clock.monotonic_s()
                    self._tell("stream")
        finally:
            self._pipeline.stop()
            waiting.cancel()
            await loop
            self._tell("stream_ended")

    def _tell(self, name: str) -> None:
        """A line of figures."""
        fields: dict[str, Any] = dict(self.report.line())
        event(log, logging.INFO, name, **fields)

    def _look(self) -> None:
        """Tell the vitals how the stream is."""
        vitals, trouble = self._vitals, self._pipeline.trouble
        vitals.bus_trouble = trouble
        ready = self.report.partitions > 0 or self.report.rebalances.total() > 0
        report = TickReport(
            tick=vitals.ticks + 1,
            series=self.report.series,
            answers=int(ready),
            under_way=int(not ready),
            errors=[trouble] if trouble else [],
        )
        vitals.ticked(report, clock.monotonic_s(), clock.now_ms())
        sink = self._pipeline.sink
        if isinstance(sink, PlexusSink):
            vitals.delivery = sink.report
