"""The network between a worker and the platform: delays, refused and hanging connections, cut answers.

Every request is carried out in a task of its own that belongs to the platform. So what was on its way when
the worker died is processed all the same, and a client that gave up does not undo what it asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from sim_death import Killed, Life
from sim_loop import VirtualLoop

# What happens to a request on its way. Hanging: the answer never comes; lost: neither does the request.
Fate = Literal["refused", "hanging", "lost"]

DELAY_S_MAX = 0.03


class Trace:
    """What happened, as a running hash: two runs are the same if theirs are."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.lines: list[str] | None = None

    def note(self, *what: object) -> None:
        """Add an event."""
        line = " ".join(map(str, what))
        self._hash.update(line.encode() + b"\n")
        if self.lines is not None:
            self.lines.append(line)

    def digest(self) -> str:
        """The hash of all events so far."""
        return self._hash.hexdigest()


@dataclass
class _Answer:
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False


class _Stream(httpx.AsyncByteStream):
    """The body of an answer, which may end too early."""

    def __init__(self, answer: _Answer) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._answer.body
        if not self._answer.whole:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")


class Network:
    """Carries requests to the ASGI application ``app``.

    ``fate`` says what happens to a request at this moment, by its path; ``watch`` is called around the
    platform's work on a request. ``hits`` counts the fates that were met.
    """

    def __init__(self, loop: VirtualLoop, app: Any, seed: int, trace: Trace) -> None:
        self._loop = loop
        self._app = app
        self._rng = random.Random(seed)
        self._trace = trace
        self._tasks: set[asyncio.Task[_Answer]] = set()
        self.fate: Callable[[str], Fate | None] = lambda path: None
        self.hits: Counter[str] = Counter()
        self.requests = 0

    def wire(self, life: Life) -> httpx.AsyncBaseTransport:
        """The transport of one worker."""
        return _Wire(self, life)

    async def exchange(self, request: httpx.Request, timeout_s: float) -> httpx.Response:
        """Send a request and wait for its answer, at most so long."""
        self.requests += 1
        path = request.url.path
        fate = self.fate(path)
        there_s, back_s = self._rng.uniform(0.001, DELAY_S_MAX), self._rng.uniform(0.001, DELAY_S_MAX)
        if fate is not None:
            self.hits[fate] += 1
            self._trace.note(f"{self._loop.time():.6f}", request.method, path, fate)
        if fate == "refused":
            await asyncio.sleep(there_s)
            raise httpx.ConnectError("All connection attempts failed")
        if fate == "lost":
            await asyncio.sleep(timeout_s)
            raise httpx.ReadTimeout("")
        body = await request.aread()
        task = self._loop.create_task(self._carry(request, body, there_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await asyncio.shield(task)
                if fate == "hanging":
                    await asyncio.sleep(timeout_s)
                await asyncio.sleep(back_s)
        except TimeoutError:
            raise httpx.ReadTimeout("") from None
        if not answer.status:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return httpx.Response(answer.status, headers=answer.headers, stream=_Stream(answer), request=request)

    async def settle(self) -> None:
        """Wait until the platform has processed everything that was sent."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _carry(self, request: httpx.Request, body: bytes, there_s: float) -> _Answer:
        await asyncio.sleep(there_s)
        answer = _Answer()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], message["headers"]
            else:
                answer.body += message.get("body", b"")
                answer.whole = not message.get("more_body", False)

        try:
            await self._app(_scope(request), receive, send)
        except httpx.RemoteProtocolError:
            answer.whole = False
        note = f"{self._loop.time():.6f}", request.method, request.url.raw_path.decode(), answer.status
        self._trace.note(*note, len(answer.body), answer.whole)
        return answer


class _Wire(httpx.AsyncBaseTransport):
    def __init__(self, network: Network, life: Life) -> None:
        self._network = network
        self._life = life

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._life.dead:
            raise Killed
        return await self._network.exchange(request, request.extensions["timeout"]["read"])


def _scope(request: httpx.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "scheme": request.url.scheme,
        "path": request.url.path,
        "raw_path": request.url.raw_path.split(b"?")[0],
        "query_string": request.url.query,
        "server": (request.url.host, request.url.port),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }
