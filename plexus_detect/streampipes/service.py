"""The function under supervision: begun anew whenever the core or a broker was away, until a signal."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from contextlib import closing

from plexus_detect import clock
from plexus_detect.backtest.moments import Span
from plexus_detect.config import Config
from plexus_detect.config.exposure import unprotected
from plexus_detect.errors import AuthError, ConfigError, PlexusDetectError
from plexus_detect.logs import event
from plexus_detect.policy import HISTORY_ROWS, group_rule, policy_of
from plexus_detect.signals import catch_signals
from plexus_detect.streampipes.connection import Core, broker_of
from plexus_detect.streampipes.desk import Desk
from plexus_detect.streampipes.function import AnomalyFunction, reach_of
from plexus_detect.streampipes.groups import RowGroup, Watched
from plexus_detect.streampipes.handler import Handler
from plexus_detect.streampipes.history import lake_rows
from plexus_detect.streampipes.judging import Judging
from plexus_detect.streampipes.statistics import Statistics
from plexus_detect.training.versions import ModelFolder

log = logging.getLogger(__name__)


# From one try to the next, seconds: doubled up to the most, and short again after a life this long.
WAIT_S_FIRST, WAIT_S_MAX, LONG_S = 0.25, 15.0, 30.0


def desk_of(config: Config) -> Desk:
    """The detectors of the configuration, with the models in its folder. Raises ConfigError."""
    settings, folder = config.streampipes, ModelFolder(config.models)
    watched = [_watched(config, i) for i in range(len(config.detectors))]
    if not watched and not settings.statistics:
        raise ConfigError(
            "detectors: there is nothing to judge with; add an entry, or set streampipes.statistics: true"
        )
    names = dict.fromkeys(name for one in watched for name in one.rule.metrics)
    metrics = tuple(names | dict.fromkeys(settings.metrics))
    if not metrics:
        raise ConfigError(
            "streampipes.metrics: no metric is named; write a line for each, such as temperature: temperature"
        )
    statistics = None
    if settings.statistics:
        statistics = Statistics(policy_of(_alone(config)), metrics, config.rule_for, config.state.series_max)
    groups = [RowGroup(one, metrics, folder) for one in watched]
    return Desk(Judging(groups, statistics), metrics, settings.results_max)


def _watched(config: Config, index: int) -> Watched:
    group = config.detectors[index]
    if group.kind == "onnx":
        raise ConfigError(
            f"detectors[{index}]: '{group.name}' is of kind onnx, which streams cannot be judged with; train "
            "another kind with: streampipes train"
        )
    rule = group_rule(config, group, with_model=False)
    windowed = group.kind == "autoencoder"
    backend = "windowed autoencoder" if windowed else rule.learn.backend
    return Watched(rule, backend, group.level if windowed else None)


def _alone(config: Config) -> Config:
    """Without its groups, whose models need not be there for the policy of single metrics."""
    return config.model_copy(update={"detectors": ()})


class Service:
    """One function for the streams of the configuration. ``started`` is set while it runs."""

    def __init__(self, config: Config, env: Mapping[str, str]) -> None:
        self._config = config
        self._env = env
        self.desk = desk_of(config)
        self._reach = reach_of(config.streampipes)
        self._warm = self._told = False
        self._guard = threading.Lock()
        self._stopped = False
        self._handler: Handler | None = None
        self.lives = 0

    def stop_soon(self) -> None:
        """Ask the life under way to end, and let no other begin."""
        with self._guard:
            self._stopped = True
            if self._handler is not None:
                self._handler.stop_soon()

    @property
    def running(self) -> bool:
        """Whether events are read now."""
        handler = self._handler
        return handler is not None and handler.started.is_set()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until ``stop``; then all is published that was read, and every thread has ended.

        Raises ConfigError and AuthError of the first try; later ones are tried again, as everything else.
        """
        wait_s, lost_s = WAIT_S_FIRST, 0.0
        while not stop.is_set():
            began_s = clock.monotonic_s()
            life = asyncio.create_task(asyncio.to_thread(self._live, lost_s))
            error = await self._ended(life, stop)
            if error is None:
                continue
            hopeless = isinstance(error, ConfigError | AuthError) and self.lives == 0
            if hopeless or not isinstance(error, PlexusDetectError):
                raise error
            now_s = clock.monotonic_s()
            long = now_s - began_s >= LONG_S
            lost_s = now_s if self._was_up() else lost_s
            wait_s = WAIT_S_FIRST if long else wait_s
            event(log, logging.WARNING, "function_lost", err=str(error), again_in_s=wait_s)
            await clock.wait_s(stop, wait_s)
            wait_s = min(2.0 * wait_s, WAIT_S_MAX)

    def _was_up(self) -> bool:
        """Whether the life that ended had begun to read events; asked once."""
        handler, self._handler = self._handler, None
        return handler is not None and handler.started.is_set()

    async def _ended(self, life: asyncio.Task[None], stop: asyncio.Event) -> Exception | None:
        """The error of a life, None when it was asked to end."""
        waiting = asyncio.create_task(stop.wait())
        await asyncio.wait({life, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if stop.is_set():
            self.stop_soon()
        try:
            await life
        except Exception as error:
            # Who asked for the end is not kept by what went wrong on the way there.
            return None if stop.is_set() else error
        return None

    def _live(self, lost_s: float) -> None:
        """One life of the function: blocks until it is asked to end. Raises when core or broker are lost."""
        with closing(Core.of(self._config, self._env)) as core:
            self._with(core, lost_s)

    def _with(self, core: Core, lost_s: float) -> None:
        streams = core.chosen()
        output = core.output(streams[0])
        kinds = {broker_of(stream).name.lower() for stream in (*streams, output)}
        self.desk.judging.preload()
        self._warmed(core)
        function = AnomalyFunction(streams, output, self.desk, core.settings, self._reach)
        handler = Handler(function, core, lambda: self._begun(kinds, lost_s))
        with self._guard:
            self._handler = handler
            if self._stopped:
                return
        if not self._told:
            self._told = True
            event(log, logging.INFO, "streampipes", url=core.url, version=core.version)
            for warning in unprotected({"streampipes": core.url}):
                event(log, logging.WARNING, "config_warning", msg=warning)
        handler.run()

    def _begun(self, kinds: set[str], lost_s: float) -> None:
        self.lives += 1
        if lost_s:
            kept = "those of Kafka are read now" if "kafka" in kinds else ""
            gone = "those published to NATS meanwhile are missed" if "nats" in kinds else ""
            away_s = round(clock.monotonic_s() - lost_s, 1)
            said = "; ".join(filter(None, (gone, kept)))
            event(log, logging.WARNING, "function_back", away_s=away_s, events=said)

    def _warmed(self, core: Core) -> None:
        """Let the statistics learn from the data lake, once."""
        statistics, measure = self.desk.judging.statistics, core.settings.measure
        if self._warm or statistics is None or not measure:
            return
        now_ms = clock.now_ms()
        span = Span(now_ms - self._config.poll.history_ms, now_ms)
        rows_max = max(1, HISTORY_ROWS // len(self.desk.metrics))
        devices, t_ms, x = lake_rows(core, measure, span, self.desk.metrics, rows_max)
        self.desk.judging.warm(devices, t_ms, x)
        self._warm = True
        event(log, logging.INFO, "warmed_up", measure=measure, rows=len(devices), devices=len(set(devices)))


async def serve(config: Config, env: Mapping[str, str]) -> int:
    """Serve until SIGINT or SIGTERM; the exit code."""
    stop = asyncio.Event()
    service, caught = Service(config, env), catch_signals(stop)
    await service.run(stop)
    return caught[0] if caught else 0
