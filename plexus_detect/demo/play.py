"""Plays the demo: sandbox, devices, monitors and the real worker in one process, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from rich.console import Console

from plexus_detect import clock, wire
from plexus_detect.client import Client, Endpoints
from plexus_detect.config import Config, load_config
from plexus_detect.demo.board import Board
from plexus_detect.demo.outlets import Heard, JsonLines, Outlet, PlainLines
from plexus_detect.demo.recording import data_folder, read_recording
from plexus_detect.demo.scenario import METRIC, RAW_SCORE, SCORE, Replay, Scenario, make_replay
from plexus_detect.demo.screen import Screen
from plexus_detect.demo.story import Anomaly, Story, read_slack
from plexus_detect.provision.applying import apply_plan
from plexus_detect.provision.files import load_specs
from plexus_detect.provision.reading import make_plan
from plexus_detect.report import TickReport
from plexus_detect.retry import retried
from plexus_detect.sandbox import Sandbox, Settings
from plexus_detect.series import F64, I64, SUFFIX
from plexus_detect.store import Store
from plexus_detect.worker import Worker, open_worker

EXIT_OK, EXIT_FAILED = 0, 1
THRESHOLD = 3.0
MONITOR = {
    "source_id": "*",
    "metric": SCORE,
    "threshold": {"max": THRESHOLD, "severity": "warning", "message": "Departs from this device's own past"},
}
LOOK_S = 0.25
# How far back the screen reads again: scores come a moment after their readings.
LOOK_BACK_MS = 5_000
# The first tick comes at once, the second at the worker's own time of the interval.
TICKS_BEFORE = 2
# How long the end waits for the last scores; fleets wait 2 s for stragglers by default.
DRAIN_S_MAX = 4.0


@dataclass(frozen=True)
class Options:
    """How the demo is shown, and whether it goes on after the summary."""

    as_json: bool = False
    keep: bool = False
    color: bool = True


def run_demo(
    options: Options, scenario: Scenario | None = None, settings: Mapping[str, str] | None = None
) -> int:
    """Play the demo and return the exit code: 0 when the fault was alerted and resolved in Slack, else 1,
    130 after Ctrl-C and 143 after SIGTERM.

    ``settings`` are further ``PLEXUS_DETECT_*`` variables for the worker. Raises ConfigError.
    """
    replay = make_replay(read_recording(data_folder()), scenario or Scenario())
    stage = Stage(options, replay, settings or {})
    return asyncio.run(_until_signal(stage))


async def _until_signal(stage: Stage) -> int:
    """Play until the end or a signal; a signal ends everything in good order."""
    playing = asyncio.ensure_future(stage.play())
    caught: list[int] = []

    def on_signal(number: int) -> None:
        caught.append(number)
        playing.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    try:
        return await playing
    except asyncio.CancelledError:
        if not caught:
            raise
        return 128 + caught[0]


class Stage:
    """One performance."""

    def __init__(self, options: Options, replay: Replay, settings: Mapping[str, str]) -> None:
        self.options = options
        self.replay = replay
        self.scenario = replay.scenario
        self.settings = settings
        samples = self.scenario.history_samples + self.scenario.live_samples
        self.board = Board(replay.sources, samples)
        self.story = Story(replay.faulty, lambda happening: self.outlet.show(happening))
        self.outlet = self._outlet()
        self.readings = 0
        self.slack_seen = 0

    def _outlet(self) -> Outlet:
        if self.options.as_json:
            return JsonLines(sys.stdout)
        if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
            return PlainLines(sys.stdout)
        console = Console(no_color=not self.options.color)
        return Screen(console, self.story, self.board)

    async def play(self) -> int:
        """Set the stage, play and sum up."""
        with self._heard(), tempfile.TemporaryDirectory(prefix="plexus-detect-demo-") as folder:
            try:
                with Sandbox(Settings(time_scale=self.scenario.time_scale)) as box:
                    return await self._play(box, Path(folder))
            finally:
                self.outlet.close()

    @contextmanager
    def _heard(self) -> Iterator[None]:
        handler = Heard(
            lambda component, message: self.story.tell("log", component=component, message=message)
        )
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)

    async def _play(self, box: Sandbox, folder: Path) -> int:
        config = self._config(box, folder)
        scenario = self.scenario
        self.story.tell(
            "started",
            url=box.url,
            devices=scenario.devices,
            sample_s=scenario.sample_ms / 1000,
            time_scale=scenario.time_scale,
            recovery_s=scenario.recovery_s,
        )
        async with _client(box) as devices, _client(box) as polling, _client(box) as looking:
            await self._post_history(devices)
            await self._apply_monitors(devices, folder)
            store = Store(config.state.path)
            try:
                return await self._with_worker(box, config, store, (devices, polling, looking))
            finally:
                store.close()

    def _config(self, box: Sandbox, folder: Path) -> Config:
        """The worker's defaults, but for the addresses, a pace that fits the replay, and the raw score, which
        the screen shows."""
        urls = dict.fromkeys(("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL"), box.url)
        own = {
            "PLEXUS_DETECT_POLL__INTERVAL": f"{self.scenario.sample_ms}ms",
            "PLEXUS_DETECT_POST__SERIES": '["zscore", "fleet_zscore", "zscore_raw"]',
            "PLEXUS_DETECT_STATE__PATH": str(folder / "state.db"),
        }
        return load_config([], {**urls, "PLEXUS_API_KEY": box.key, **own, **self.settings})

    async def _post_history(self, devices: Client) -> None:
        """Create the sources and post what the devices measured before the demo began."""
        sources, history = self.replay.sources, self.replay.history
        n = self.scenario.history_samples
        t_ms = clock.now_ms() - np.arange(n, 0, -1) * self.scenario.sample_ms
        for source, values in zip(sources, history, strict=True):
            await retried(partial(devices.create_source, source, source))
            await self._post(devices, [source] * n, t_ms, values)
        self.story.tell("history_posted", devices=len(sources), points=history.size)

    async def _post(
        self,
        devices: Client,
        sources: list[str],
        t_ms: I64,
        values: F64,
    ) -> None:
        body = wire.encode_points(sources, [METRIC] * len(sources), t_ms, values)
        reply = await retried(lambda: devices.ingest(body))
        accepted = wire.decode_ingest_reply(reply, len(sources))
        self.story.points_sent += accepted
        if accepted < len(sources):
            message = f"the gateway took {accepted} of {len(sources)} readings"
            self.story.tell("log", component="devices", message=message)

    async def _apply_monitors(self, api: Client, folder: Path) -> None:
        """One document for all devices, by the same path as ``monitors apply``."""
        document = folder / f"{SCORE}.json"
        document.write_text(json.dumps(MONITOR), "utf-8")
        plan = await make_plan(api, load_specs(document))
        result = await apply_plan(api, plan, lambda line: self.story.tell("monitor_applied", result=line))
        self.story.tell(
            "monitors_ready", applied=result.applied, failed=result.failed, metric=SCORE, threshold=THRESHOLD
        )

    async def _with_worker(
        self, box: Sandbox, config: Config, store: Store, clients: tuple[Client, Client, Client]
    ) -> int:
        devices, polling, looking = clients
        worker = await open_worker(
            config, polling, store, lambda report: self._ticked(worker, report, polling.requests)
        )
        self.story.tell(
            "worker_started", series=worker.running.series_count(), interval_s=config.poll.interval_ms / 1000
        )
        stop = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                working = group.create_task(worker.run(stop))
                watching = group.create_task(self._watch(box, worker, looking))
                await self._between_ticks()
                await self._feed(devices, rounds_max=1)
                await self._drain(worker, store)
                if not self.options.keep:
                    stop.set()
                    await working
                    watching.cancel()
                await self._look(box, worker, looking)
                code = self._sum_up(box, worker, polling)
                if self.options.keep:
                    self.story.tell("keeping")
                    await self._between_ticks()
                    await self._feed(devices, rounds_max=None)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return code

    # -- devices

    async def _between_ticks(self) -> None:
        """Wait until half way between two ticks, which from the second on keep to their time of the interval.

        The gateway drops a message that comes within 0.5 ms of another one of the same source (contract
        section 3), so the devices must not post at the moment at which the worker does.
        """
        ticks = max(self.story.ticks + 1, TICKS_BEFORE)
        while self.story.ticks < ticks:
            await clock.sleep_s(self.scenario.sample_ms / 20_000)
        await clock.sleep_s(self.scenario.sample_ms / 2_000)

    async def _feed(self, devices: Client, rounds_max: int | None) -> None:
        """Post live readings at their pace, as a hub does for its rooms: one round, or without end."""
        began_s, first = clock.monotonic_s(), self.readings
        while rounds_max is None or self.readings < rounds_max * self.scenario.live_samples:
            if rounds_max is not None and self.story.elapsed_s > self.scenario.elapsed_s_max:
                return
            t_ms = clock.now_ms()
            self._tell_fault(t_ms)
            values = self.replay.reading(self.readings)
            await self._post(devices, list(self.replay.sources), np.full(len(values), t_ms), values)
            self.readings += 1
            due_s = began_s + (self.readings - first) * self.scenario.sample_ms / 1000
            await clock.sleep_s(due_s - clock.monotonic_s())

    def _tell_fault(self, t_ms: int) -> None:
        """Say when the fault begins and ends; the first one is the one that the summary is about."""
        story, now, before = self.story, self.readings, self.readings - 1
        is_faulty, was_faulty = self.replay.is_faulty(now), now > 0 and self.replay.is_faulty(before)
        if is_faulty and story.fault_over_ms is None:
            story.fault_times_ms.append(t_ms)
        story.fault_on = is_faulty
        if is_faulty and not was_faulty:
            story.tell(
                "fault_started",
                source=self.replay.faulty,
                offset=round(self.replay.offset, 3),
                deviations=self.scenario.fault_deviations,
                samples=self.scenario.fault_samples,
                t_ms=t_ms,
            )
        if was_faulty and not is_faulty:
            story.fault_over_ms = story.fault_over_ms or t_ms
            story.tell("fault_ended", source=self.replay.faulty, t_ms=t_ms)

    # -- worker

    def _ticked(self, worker: Worker, report: TickReport, requests: int) -> None:
        for happened in report.events:
            source, metric = worker.running.table.keys[happened.series]
            series = f"{metric}{SUFFIX[happened.kind]}"
            if happened.what == "opened":
                self.story.anomalies.append(Anomaly(source, series, happened.t_ms))
            self.story.tell(
                f"anomaly_{happened.what}",
                source=source,
                metric=metric,
                series=series,
                check=happened.reason.name.lower(),
                t_ms=happened.t_ms,
                value=round(happened.value, 3),
                expected=round(happened.expected, 3),
                score=round(happened.score, 2),
            )
        self.story.tick(report, requests)

    async def _drain(self, worker: Worker, store: Store) -> None:
        """Wait until the last readings are scored against the fleet too and every score is delivered."""
        began_s = clock.monotonic_s()
        while clock.monotonic_s() - began_s < DRAIN_S_MAX:
            read = self.story.points_read >= self.story.points_sent
            if read and not len(worker.running.state.waiting) and not store.outbox_points():
                return
            await clock.sleep_s(LOOK_S)

    # -- watching

    async def _watch(self, box: Sandbox, worker: Worker, looking: Client) -> None:
        while True:
            await self._look(box, worker, looking)
            await clock.sleep_s(LOOK_S)

    async def _look(self, box: Sandbox, worker: Worker, looking: Client) -> None:
        """Tell new Slack messages; for a live screen also read back what devices and worker posted."""
        messages = box.slack_messages()
        for sent in messages[self.slack_seen :]:
            self.story.message(read_slack(sent.t_ms, sent.event, sent.body))
        self.slack_seen = len(messages)
        if isinstance(self.outlet, Screen):
            newest_ms = self.board.newest_ms()
            back_ms = self.scenario.history_samples * self.scenario.sample_ms + 60_000
            from_ms = newest_ms - LOOK_BACK_MS if newest_ms else clock.now_ms() - back_ms
            params = wire.telemetry_params(None, (METRIC, RAW_SCORE), from_ms, None, 100_000)
            body = await retried(lambda: looking.telemetry(params))
            self.board.take(wire.decode_telemetry(body, self.board.table).points)
            self.board.feel(worker.running.state)
            self.outlet.refresh()

    def _sum_up(self, box: Sandbox, worker: Worker, polling: Client) -> int:
        summary = self.story.summary(worker.delivery.report.posted, polling.requests, box.requests.total)
        self.story.tell("summary", **summary.shown())
        return EXIT_OK if summary.failure is None else EXIT_FAILED


@asynccontextmanager
async def _client(box: Sandbox) -> AsyncIterator[Client]:
    # A transport of our own, so that the environment's proxy is not asked for an address of this machine.
    transport = httpx.AsyncHTTPTransport()
    async with Client(Endpoints(box.url, box.url, box.url), box.key, transport=transport) as client:
        yield client
