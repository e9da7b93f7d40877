"""A server for tests: the application in this process, with fits in place or in a real process."""

from __future__ import annotations

import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from plexus_detect.learn.job import Fit, Job, Ticket
from plexus_detect.serve.app import make_app
from plexus_detect.serve.settings import Settings
from plexus_detect.training.trainer import InlineTrainer

with warnings.catch_warnings():
    # Starlette would rather have the successor of httpx, which this package does not use.
    warnings.filterwarnings("ignore", message="Using `httpx` with `starlette.testclient`")
    from starlette.testclient import TestClient

T = TypeVar("T")

STREAM = "/v1/ml/anomaly/stream"


class InPlace:
    """A trainer that fits where it is asked, so that a test sees the same each time."""

    def __init__(self) -> None:
        self._inline = InlineTrainer()

    def submit(self, job: Job) -> Ticket:
        """A fit that is made when it is taken."""
        return self._inline.submit(job)

    def call(self, function: Callable[..., T], *arguments: object) -> Future[T]:
        """The function's result, or what it raised."""
        future: Future[T] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def restart(self) -> None:
        """There is nothing to end."""

    def close(self) -> None:
        """There is nothing to end."""


class _HeldTicket:
    def __init__(self, ticket: Ticket, trainer: Held) -> None:
        self._ticket = ticket
        self._trainer = trainer

    def done(self) -> bool:
        return self._trainer.free

    def result(self) -> Fit:
        return self._ticket.result()


class Held(InPlace):
    """A trainer whose fits are not done before they are let go; first fits do not ask."""

    free = False

    def submit(self, job: Job) -> Ticket:
        """A fit that is held."""
        return _HeldTicket(super().submit(job), self)


@contextmanager
def served(state: Path, trainer: Any = None, **settings: Any) -> Iterator[TestClient]:
    """A client of a server that begins and ends with the block."""
    app = make_app(
        Settings(state=state, **{"save_every_s": 3600.0, **settings}), trainer or InPlace(), InPlace()
    )
    with TestClient(app, raise_server_exceptions=True) as client:
        yield client


def rows(n: int, **columns: float) -> list[dict[str, float]]:
    """Rows that differ a little, without chance."""
    base = columns or {"value": 10.0}
    return [
        {name: value + 0.37 * ((i * 7 + j * 3) % 11) for j, (name, value) in enumerate(base.items())}
        for i in range(n)
    ]


def post(client: TestClient, data: Any, model: str = "m", **fields: Any) -> dict[str, Any]:
    """The answer of the stream endpoint, which must be 200."""
    answer = client.post(STREAM, json={"model": model, "data": data, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@contextmanager
def listening(state: Path, **settings: Any) -> Iterator[str]:
    """The address of a server with a port of its own, in a thread."""
    config = uvicorn.Config(
        make_app(Settings(state=state, **settings), InPlace(), InPlace()),
        port=0,
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    opened = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([opened],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        opened.close()
