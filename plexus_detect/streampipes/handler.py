"""From registration to stop: one life of the function, as long as its brokers stay."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence

from streampipes.functions.function_handler import FunctionHandler
from streampipes.functions.registration import Registration
from streampipes.functions.utils.function_context import FunctionContext

from plexus_detect.streampipes.brokers import Inlet
from plexus_detect.streampipes.connection import Core
from plexus_detect.streampipes.function import AnomalyFunction, parsed
from plexus_detect.streampipes.grounding import inlet_of


class Handler(FunctionHandler):
    """The client's handler, which registers the output and finds the streams, with a loop of our own: the
    client's ends with the first message that is no text, and tells nobody when a broker is lost."""

    def __init__(self, function: AnomalyFunction, core: Core, on_start: Callable[[], None]) -> None:
        super().__init__(Registration().register(function), core.client)
        self._on_start = on_start
        self.started = threading.Event()
        self._function = function
        self._core = core
        self._guard = threading.Lock()
        self._asked = False
        self._stopping: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._failure: Exception | None = None

    def run(self) -> None:
        """Register and serve until stopped: blocks. Raises BrokerLostError, and what ``Core`` raises."""
        self._core.asked("the registration of a function", self.initializeFunctions)
        if self._failure is not None:
            raise self._failure

    def stop_soon(self) -> None:
        """Ask ``run``, in whatever thread it is, to end."""
        with self._guard:
            self._asked = True
            if self._stopping is not None:
                loop, stopping = self._stopping
                loop.call_soon_threadsafe(stopping.set)

    async def _function_loop(self) -> None:
        """What the client starts when all is registered. Errors are kept for ``run``."""
        stopping = asyncio.Event()
        with self._guard:
            self._stopping = asyncio.get_running_loop(), stopping
            if self._asked:
                stopping.set()
        try:
            await self._serve(stopping)
        except Exception as error:
            self._failure = error
        finally:
            with self._guard:
                self._stopping = None

    async def _serve(self, stopping: asyncio.Event) -> None:
        function = self._function
        inlets: list[tuple[str, Inlet]] = []
        try:
            if not await _unless(stopping, self._connected(inlets)):
                return
            schemas = {stream_id: context.schema for stream_id, context in self.stream_contexts.items()}
            number = function.getFunctionId().id
            function.onServiceStarted(
                FunctionContext(number, schemas, self.client, function.requiredStreamIds())
            )
            self.started.set()
            self._on_start()
            try:
                await _together([self._pump(stream_id, inlet, stopping) for stream_id, inlet in inlets])
            finally:
                self._take([(stream_id, payload) for stream_id, inlet in inlets for payload in inlet.left()])
            await function.publish()
        finally:
            for broker in self.brokers:
                await broker.disconnect()
            await function.close()
            if self.started.is_set():
                function.onServiceStopped()

    async def _connected(self, inlets: list[tuple[str, Inlet]]) -> None:
        """Connect the output, and every stream, which is then among ``inlets``."""
        await self._function.open()
        for stream_id, context in self.stream_contexts.items():
            inlet = context.broker = inlet_of(context.schema, self._function.reach)
            self.brokers.append(inlet)
            await inlet.connect(context.schema)
            inlets.append((stream_id, inlet))

    async def _pump(self, stream_id: str, inlet: Inlet, stopping: asyncio.Event) -> None:
        """Events of one stream to the function, a batch after another: no more is read while results wait."""
        settings, function = self._core.settings, self._function
        # What no broker took the last time goes first.
        await function.publish()
        while not stopping.is_set():
            payloads = await inlet.receive(settings.batch, settings.linger_ms / 1000)
            if payloads:
                # Nothing else comes between: an event is either judged, or read again.
                self._take([(stream_id, payload) for payload in payloads])
                inlet.judged()
                await function.publish()
                await inlet.commit()

    def _take(self, payloads: Sequence[tuple[str, bytes]]) -> None:
        """Let the function judge messages of streams; their results wait."""
        for stream_id, payload in payloads:
            self._function.onEvent(parsed(payload), stream_id)
        self._function.judge()


async def _unless(stopping: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Whether the work was done; it is not, when it was time to stop before."""
    task, stop = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return task.done()
    finally:
        for one in (task, stop):
            one.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)


async def _together(pumps: list[Coroutine[None, None, None]]) -> None:
    """Run all of them; the first that fails ends the others."""
    tasks = [asyncio.create_task(pump) for pump in pumps]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
