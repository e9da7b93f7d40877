"""The sandbox starts, serves, delivers and stops in each of its ways, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from plexus_detect.sandbox import FULL_KEY, READ_KEY, WRITE_KEY, Key, Sandbox, Settings


class Inbox:
    """A webhook that remembers what it got, and fails as often as it is told."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.failures = 0
        inbox = self

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                inbox.failures -= 1
                if inbox.failures < 0:
                    inbox.bodies.append(body)
                self.send_response(200 if inbox.failures < 0 else 500)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Hook)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """Serve a webhook on loopback."""
    inbox = Inbox()
    yield inbox
    inbox.close()


def wait_for(check: Callable[[], bool]) -> None:
    """Wait until what another thread does is done."""
    deadline = time.monotonic() + 5
    while not check():
        assert time.monotonic() < deadline, "it did not happen within 5 s"
        time.sleep(0.01)


def alarm(box: Sandbox) -> None:
    """Bring about one Slack message."""
    with httpx.Client(base_url=box.url, headers={"x-api-key": box.key}, trust_env=False) as client:
        box.create_source("d")
        client.post("/api/monitors", json={"source_id": "d", "metric": "x", "threshold": {"max": 3}})
        client.post("/ingest", json={"source_id": "d", "points": [{"metric": "x", "value": 9}]})


def test_messages_are_delivered_and_retried(inbox: Inbox) -> None:
    """The webhook gets the message as it is kept; two failures are retried (at a scaled minute)."""
    inbox.failures = 2
    with Sandbox(Settings(slack_webhook=inbox.url, time_scale=10_000)) as box:
        alarm(box)
        wait_for(lambda: len(inbox.bodies) == 1)
        wait_for(lambda: box.slack_messages()[0].delivery == "delivered")
        assert b"Alert Triggered" in inbox.bodies[0]


def test_a_dead_webhook_gives_up_and_never_holds_up_the_server(inbox: Inbox) -> None:
    """After three retries a message counts as failed; requests were answered meanwhile."""
    inbox.failures = 99
    with Sandbox(Settings(slack_webhook=inbox.url, time_scale=100_000)) as box:
        alarm(box)
        wait_for(lambda: box.slack_messages()[0].delivery == "failed")
        assert inbox.failures == 95


def test_an_address_that_is_none_fails_quietly() -> None:
    """A webhook that cannot be reached at all is a failed delivery, no more."""
    with Sandbox(Settings(slack_webhook="http://127.0.0.1:1/x", time_scale=1e9)) as box:
        alarm(box)
        wait_for(lambda: box.slack_messages()[0].delivery == "failed")


def test_the_loops_run_by_themselves() -> None:
    """With a time scale the 30 s loops run in fractions of a second without being called."""
    with Sandbox(Settings(time_scale=300)) as box:
        now = int(time.time() * 1000)
        box.load([("d", "m", now - 1000, 1.0)])
        with httpx.Client(base_url=box.url, headers={"x-api-key": box.key}, trust_env=False) as client:
            client.post("/api/monitors", json={"source_id": "d", "offline": {"timeout_seconds": 60}})
        wait_for(
            lambda: [sent.event for sent in box.slack_messages()] == ["alert.triggered", "device.offline"]
        )


def test_it_serves_from_a_running_loop() -> None:
    """As an async context manager it shares the loop with its caller."""

    async def ask() -> int:
        async with Sandbox() as box, httpx.AsyncClient(base_url=box.url, trust_env=False) as client:
            return (await client.get("/health")).status_code

    assert asyncio.run(ask()) == 200


def test_it_answers_as_a_bare_app() -> None:
    """Without sockets the app answers to a transport, and the loops run when called."""

    async def ask(box: Sandbox) -> int:
        transport = httpx.ASGITransport(app=box.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://box") as client:
            return (await client.get("/health")).status_code

    now = [1_795_312_000_000]
    box = Sandbox(now_ms=lambda: now[0])
    assert asyncio.run(ask(box)) == 200
    assert not box.tick()
    now[0] += 30_000
    assert box.tick()
    box.close()


def test_a_file_keeps_everything(tmp_path: Path) -> None:
    """Points, sources, monitors and alerts are there after a restart on the same file."""
    settings = Settings(path=str(tmp_path / "plexus.db"))
    with Sandbox(settings) as box:
        alarm(box)
        before = (box.rows(), box.alerts())
    with Sandbox(settings) as box:
        assert (box.rows(), box.alerts()) == before
        with httpx.Client(base_url=box.url, headers={"x-api-key": box.key}, trust_env=False) as client:
            assert len(client.get("/api/monitors").json()["monitors"]) == 1
            client.post("/ingest", json={"source_id": "d", "points": [{"metric": "y", "value": 1}]})
        assert [row.metric for row in box.rows()] == ["x", "y"]


def test_a_taken_port_is_an_error_at_once() -> None:
    """Starting on a port in use raises OSError, and the sandbox can still be closed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        box = Sandbox(Settings(port=taken.getsockname()[1]))
        with pytest.raises(OSError, match="in use"):
            box.__enter__()
        box.close()


def test_requests_are_counted_by_route() -> None:
    """The counter joins the ids of one route; management is not counted; the log has status and query."""
    with Sandbox() as box, httpx.Client(base_url=box.url, headers={"x-api-key": box.key}) as client:
        for path in (
            "/v1/sources/a/metrics",
            "/v1/sources/b/metrics",
            "/v1/sources",
            "/manage/requests",
            "/slack",
        ):
            client.get(path, params={"x": 1})
        assert box.requests.counts == {"GET /v1/sources/{id}/metrics": 2, "GET /v1/sources": 1}
        assert box.requests.total == 3
        assert {(request.status, request.query) for request in box.requests.log} == {(200, "x=1")}
        assert client.get("/manage/requests").json()["total"] == 3
        box.requests.clear()
        assert box.requests.total == 0


def test_the_banner_says_how_to_connect() -> None:
    """The banner names the address for each service and the key that reads and writes."""
    with Sandbox() as box:
        lines = box.banner().splitlines()
        assert f"export PLEXUS_API_KEY={FULL_KEY}" in lines
        for name in ("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL"):
            assert f"export {name}={box.url}" in lines


def test_the_default_keys_have_the_form_of_real_ones() -> None:
    """36 characters, the first four plx_; full, read only and write only."""
    keys = Settings().keys
    assert {(len(key), key[:4]) for key in keys} == {(36, "plx_")}
    assert [keys[key].scopes for key in (FULL_KEY, READ_KEY, WRITE_KEY)] == [
        ("read", "write"),
        ("read",),
        ("write",),
    ]


def test_settings_that_make_no_sense_are_refused() -> None:
    """Time cannot be scaled by nothing; a sandbox without a full key has none to print."""
    with pytest.raises(ValueError, match="time_scale"):
        Settings(time_scale=0)
    assert Settings(keys={READ_KEY: Key(scopes=("read",))}).full_key is None


SERVE = "from plexus_detect.sandbox import *; Sandbox().serve_forever(lambda box: print(box.url, flush=True))"


def test_it_serves_until_it_is_told_to_stop() -> None:
    """As a program it prints its address, answers, and ends on SIGINT with exit code 0."""
    root = Path(__file__).parent.parent.parent
    program = subprocess.Popen(
        [sys.executable, "-c", SERVE], cwd=root, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert program.stdout is not None
        url = program.stdout.readline().strip()
        wait_for(lambda: _answers(url))
        program.send_signal(signal.SIGINT)
        assert program.wait(10) == 0
    finally:
        program.kill()
        program.wait()
        if program.stdout is not None:
            program.stdout.close()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_tick_of_ten_thousand_series_is_quick() -> None:
    """10,000 points are taken in one request and 100,000 rows read in another, within seconds of CPU."""
    with (
        Sandbox() as box,
        httpx.Client(base_url=box.url, headers={"x-api-key": box.key}, timeout=30) as client,
    ):
        now = int(time.time() * 1000)
        box.load((f"d{i}", "m", now - 1000 * k, float(i)) for k in range(10) for i in range(10_000))
        begun = time.process_time()
        answer = client.get("/api/v1/telemetry", params={"limit": 100_000})
        points = [{"metric": "m.z", "value": 1.5, "source_id": f"d{i}"} for i in range(10_000)]
        taken = client.post("/ingest", json={"points": points})
        assert time.process_time() - begun < 5
        assert answer.json()["count"] == 100_000
        assert taken.json()["count"] == 10_000
