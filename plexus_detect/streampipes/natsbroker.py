"""Subjects of NATS, of which the broker keeps nothing for who is not there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from collections.abc import Sequence

import nats
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from plexus_detect import clock
from plexus_detect.logs import event
from plexus_detect.streampipes.brokers import ANSWER_S, IDLE_S, BrokerLostError, Inlet, Outlet, Reach, Result

log = logging.getLogger(__name__)

# Events of a subject that wait here; more wait with the connection, which drops some when it has too many.
WAITING_MAX = 20_000


class _Nats:
    """A connection that is not mended behind our back: who was away has to be said."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._lost = asyncio.Event()
        self._error_seen: Exception | None = None
        self.client: NatsClient | None = None

    async def connect_to(self, host: str, port: int) -> NatsClient:
        """Connect. Raises BrokerLostError."""
        host, port = self._reach.host or host, self._reach.port or port
        try:
            self.client = await nats.connect(
                f"nats://{host}:{port}",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=int(ANSWER_S),
                error_cb=self._error,
                disconnected_cb=self._gone,
                closed_cb=self._gone,
            )
        except (OSError, TimeoutError, nats.errors.Error) as error:
            why = _said(self._error_seen or error)
            raise BrokerLostError(f"NATS at {host}:{port} does not answer ({why})") from None
        return self.client

    async def _error(self, error: Exception) -> None:
        self._error_seen = error
        if isinstance(error, nats.errors.SlowConsumerError):
            event(log, logging.WARNING, "events_missed", broker="nats", err="they came faster than judged")

    async def _gone(self) -> None:
        self._lost.set()

    @property
    def lost(self) -> bool:
        """Whether there is no connection any more."""
        return self._lost.is_set()

    async def close(self) -> None:
        """End the connection."""
        if self.client is not None and not self.client.is_closed:
            with contextlib.suppress(OSError, TimeoutError, nats.errors.Error):
                await self.client.close()


class NatsInlet(Inlet):
    """A subject of NATS. What is published while nobody is connected is not kept by the broker."""

    def __init__(self, reach: Reach) -> None:
        self._nats = _Nats(reach)
        self._waiting: deque[bytes] = deque()
        self._some, self._room = asyncio.Event(), asyncio.Event()

    async def _make_connection(self, hostname: str, port: int) -> None:
        await self._nats.connect_to(hostname, port)

    async def _create_subscription(self) -> None:
        client = self._nats.client
        assert client is not None  # noqa: S101 - connected before
        await client.subscribe(self.topic_name, cb=self._take)
        # A subscription holds once the server has answered what was sent after it.
        await _flushed(client)

    async def _take(self, message: Msg) -> None:
        while len(self._waiting) >= WAITING_MAX:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(message.data)
        self._some.set()

    async def receive(self, most: int, linger_s: float) -> list[bytes]:
        """See ``Inlet``."""
        if not self._waiting:
            if self._nats.lost:
                raise BrokerLostError("the connection to NATS is lost")
            self._some.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await self._some.wait()
        if self._waiting and len(self._waiting) < most and linger_s:
            await clock.sleep_s(linger_s)
        out = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._room.set()
        return out

    def left(self) -> list[bytes]:
        """See ``Inlet``."""
        out = list(self._waiting)
        self._waiting.clear()
        return out

    async def disconnect(self) -> None:
        """End the connection."""
        await self._nats.close()


class NatsOutlet(Outlet):
    """A subject of NATS."""

    def __init__(self, reach: Reach) -> None:
        self._nats = _Nats(reach)

    async def _make_connection(self, hostname: str, port: int) -> None:
        await self._nats.connect_to(hostname, port)

    async def publish(self, results: Sequence[Result]) -> None:
        """See ``Outlet``: the server has what was sent before a ping that it answers."""
        client = self._nats.client
        if client is None or self._nats.lost:
            raise BrokerLostError("the connection to NATS is lost")
        try:
            for result in results:
                await client.publish(self.topic_name, result.payload)
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise BrokerLostError(f"NATS took no result ({_said(error)})") from None
        await _flushed(client)

    async def disconnect(self) -> None:
        """End the connection."""
        await self._nats.close()


async def _flushed(client: NatsClient) -> None:
    try:
        await client.flush(timeout=int(ANSWER_S))
    except (OSError, TimeoutError, nats.errors.Error) as error:
        raise BrokerLostError(f"NATS does not answer ({_said(error)})") from None


def _said(error: BaseException) -> str:
    """The reason in few words."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error).removeprefix("nats: ") or type(error).__name__
