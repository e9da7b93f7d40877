"""The sandbox as one object: served from a thread or a running loop, or called as a bare ASGI app."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from plexus_detect.sandbox.device_socket import FRAME_BYTES_MAX
from plexus_detect.sandbox.doors import application
from plexus_detect.sandbox.faults import Faults
from plexus_detect.sandbox.houston import RECOVERY_S
from plexus_detect.sandbox.plexus import Plexus
from plexus_detect.sandbox.points import Point, StoredRow
from plexus_detect.sandbox.settings import Settings
from plexus_detect.sandbox.slack import Sent
from plexus_detect.sandbox.stamps import wall_ms
from plexus_detect.sandbox.traffic import Traffic

_START_WAIT_S = 10.0
_STOP_WAIT_S = 10.0
_TICK_S_MAX = 1.0
_TICK_S_MIN = 0.02


class _Quiet(uvicorn.Server):
    """A server inside somebody else's process: the signals are not its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Sandbox:
    """An embedded Plexus: app, gateway and read API on one loopback port, over SQLite.

    Three ways to use it::

        with Sandbox() as box: ...            # a thread serves box.url
        async with Sandbox() as box: ...      # the running loop serves box.url
        httpx.ASGITransport(app=box.app)      # no sockets; call box.tick() for the loops

    ``now_ms`` is the clock in ms that everything is judged by; the default is the wall clock.
    """

    def __init__(self, settings: Settings | None = None, *, now_ms: Callable[[], int] = wall_ms) -> None:
        self.settings = settings or Settings()
        self._plexus = Plexus(self.settings, now_ms)
        self._transports: dict[tuple[str, int], asyncio.Transport] = {}
        self.app: ASGIApp = application(self._plexus, self._cut)
        self.url = f"http://{self.settings.host}:{self.settings.port}"
        self._plexus.slack.app_url = self.url
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._ticker: threading.Thread | None = None
        self._stopping = threading.Event()

    # What a caller needs to connect.

    @property
    def key(self) -> str:
        """The first key that may read and write; empty when the settings hold none."""
        return self.settings.full_key or ""

    def banner(self) -> str:
        """Return what to print at start: the address and the three variables that point a client here."""
        names = ("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL")
        lines = [f"Sandbox on {self.url} (app, gateway and read API); messages at {self.url}/slack"]
        lines += [f"export {name}={self.url}" for name in names]
        lines.append(f"export PLEXUS_API_KEY={self.key}")
        return "\n".join(lines)

    # Serving.

    def __enter__(self) -> Self:
        """Serve from a background thread; returns when the port answers."""
        sock = self._bind()
        self._server = _Quiet(self._config())
        self._thread = threading.Thread(target=self._server.run, args=([sock],), name="sandbox", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_WAIT_S
        while not self._server.started:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise RuntimeError("the sandbox did not start")
            time.sleep(0.002)
        self._start_ticker()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving and close the store."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOP_WAIT_S)
        self.close()

    async def __aenter__(self) -> Self:
        """Serve from the running loop; returns when the port answers."""
        sock = self._bind()
        self._server = _Quiet(self._config())
        self._task = asyncio.create_task(self._server.serve([sock]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise RuntimeError("the sandbox did not start")
            await asyncio.sleep(0.002)
        self._start_ticker()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving and close the store."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        self.close()

    def serve_forever(self, started: Callable[[Sandbox], None] | None = None) -> None:
        """Serve until Ctrl-C or SIGTERM; ``started`` is called once the address is known.

        Raises:
            OSError: when the port is taken or the host is not ours.

        """
        sock = self._bind()
        self._server = uvicorn.Server(self._config())
        self._start_ticker()
        if started is not None:
            started(self)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                self._server.run([sock])
        finally:
            self.close()

    def close(self) -> None:
        """Stop the loops and close the store. The context managers do this themselves."""
        self._stopping.set()
        if self._ticker is not None:
            self._ticker.join(_STOP_WAIT_S)
        self._plexus.close()

    def _bind(self) -> socket.socket:
        # asyncio switches Nagle's delay off only for sockets that say TCP aloud; create_server does not.
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((self.settings.host, self.settings.port))
            sock.listen(512)
        except OSError:
            sock.close()
            raise
        self.url = f"http://{self.settings.host}:{sock.getsockname()[1]}"
        self._plexus.slack.app_url = self.url
        return sock

    def _config(self) -> uvicorn.Config:
        return uvicorn.Config(
            self.app,
            http=_protocol(self._transports),
            ws="websockets-sansio",
            ws_max_size=FRAME_BYTES_MAX,
            ws_ping_interval=30.0,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_config=None,
            log_level="warning",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )

    def _cut(self, client: tuple[str, int]) -> bool:
        transport = self._transports.get(client)
        if transport is None:
            # Where we serve, a connection that is not there has been cut by the other side.
            return self._server is not None
        transport.abort()
        return True

    def _start_ticker(self) -> None:
        period_s = min(_TICK_S_MAX, max(_TICK_S_MIN, RECOVERY_S / self.settings.time_scale / 10))

        def run() -> None:
            while not self._stopping.wait(period_s):
                self.tick()

        self._ticker = threading.Thread(target=run, name="sandbox-loops", daemon=True)
        self._ticker.start()

    # Looking in and stepping, for tests.

    def tick(self) -> bool:
        """Run the 30 s loops if they are due by the sandbox's clock, and tell whether they ran."""
        return self._plexus.watch.tick()

    def restart_houston(self) -> None:
        """Let the engine behind threshold monitors start anew, as the platform does on a deployment."""
        self._plexus.restart_houston()

    @property
    def faults(self) -> Faults:
        """The faults in force."""
        return self._plexus.faults

    @property
    def requests(self) -> Traffic:
        """What was asked so far: ``.counts`` by route, ``.log``, ``.total``."""
        return self._plexus.traffic

    def rows(
        self, source: str | None = None, metric: str | None = None, *, org: str | None = None
    ) -> list[StoredRow]:
        """Return the stored rows in order of writing, duplicates and not yet visible ones included."""
        return self._plexus.stores.points.stored(org or self.settings.default_org, source, metric)

    def load(self, rows: Iterable[tuple[Any, ...]], *, org: str | None = None) -> int:
        """Store (source, metric, t_ms, value[, tags as JSON text]) at once and return how many.

        Sources are created with recording on; monitors do not see these points.
        """
        return self._plexus.load(org or self.settings.default_org, (Point(*row) for row in rows))

    def create_source(self, slug: str, name: str | None = None, *, org: str | None = None) -> None:
        """Make a source exist and be recorded from its first point on; one that exists stays."""
        self._plexus.stores.sources.create(org or self.settings.default_org, slug, name=name)

    def slack_messages(self) -> list[Sent]:
        """Return the kept Slack messages, newest last."""
        return self._plexus.slack.messages()

    def alerts(self, *, org: str | None = None) -> list[dict[str, Any]]:
        """Return the alerts, the newest trigger first."""
        return self._plexus.stores.alerts.listed(org or self.settings.default_org)


def _protocol(transports: dict[tuple[str, int], asyncio.Transport]) -> type[H11Protocol]:
    """Return uvicorn's HTTP protocol, remembering each connection so that a fault can cut it."""

    class Remembered(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            transports[transport.get_extra_info("peername")] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            transports.pop(self.transport.get_extra_info("peername"), None)
            super().connection_lost(exc)

    return Remembered
