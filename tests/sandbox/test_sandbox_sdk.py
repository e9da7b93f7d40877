"""The platform's own SDK, unmodified, sends to the sandbox."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from plexus import Plexus
from plexus.ws import WebSocketTransport

from plexus_detect.sandbox import Sandbox


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """Serve a sandbox in which the device exists."""
    with Sandbox() as box:
        box.create_source("pump-1")
        yield box


@pytest.fixture
def sdk(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Plexus]]:
    """Return a maker of clients that know nothing but loopback; they are closed at the end."""
    monkeypatch.setenv("PLEXUS_GATEWAY_URL", box.url)
    made: list[Plexus] = []

    def make(ws_url: str) -> Plexus:
        made.append(
            Plexus(
                api_key=box.key,
                endpoint=box.url,
                source_id="pump-1",
                timeout=2.0,
                persistent_buffer=False,
                ws_url=ws_url,
            )
        )
        return made[-1]

    yield make
    for client in made:
        client.close()


def wait_for(check: Callable[[], bool]) -> None:
    """Wait until what another thread does is done."""
    deadline = time.monotonic() + 5
    while not check():
        assert time.monotonic() < deadline, "it did not happen within 5 s"
        time.sleep(0.01)


def test_it_sends_by_websocket(box: Sandbox, sdk: Callable[[str], Plexus]) -> None:
    """Points, tags and batches arrive through /ws/device alone; a boolean is an event and no metric.

    Each waits for the one before: frames of one source within half a millisecond are dropped, as there.
    """
    client = sdk(box.url.replace("http", "ws"))
    assert client.send("temperature", 21.5, tags={"room": "a"})
    wait_for(lambda: len(box.rows("pump-1")) == 1)
    stamp = time.time() - 5
    assert client.send_batch([("pressure", 101.25), ("humidity", 40)], timestamp=stamp)
    wait_for(lambda: len(box.rows("pump-1")) == 3)
    assert client.send("running", value=True)
    rows = {row.metric: row for row in box.rows("pump-1")}
    assert rows["temperature"].value == 21.5
    assert rows["temperature"].tags == '{"room":"a"}'
    assert rows["pressure"].t_ms == pytest.approx(stamp * 1000, abs=1000)
    assert rows["humidity"].value == 40
    assert box.requests.counts["POST /ingest"] == 0
    transport = client._ws
    assert isinstance(transport, WebSocketTransport)
    assert transport.is_authenticated
    assert not transport.acks_enabled


def test_a_connected_device_is_online(box: Sandbox, sdk: Callable[[str], Plexus]) -> None:
    """The read API calls a device online for as long as its socket is open."""
    import httpx

    client = sdk(box.url.replace("http", "ws"))
    assert client.send("temperature", 1.0)
    wait_for(lambda: len(box.rows("pump-1")) == 1)
    with httpx.Client(base_url=box.url, headers={"x-api-key": box.key}, trust_env=False) as http:
        assert (
            http.get("/v1/sources", params={"status": "online"}).json()["devices"][0]["source_id"] == "pump-1"
        )
        client.close()
        wait_for(lambda: http.get("/v1/fleet/health").json() == {"sources_total": 1, "sources_online": 0})


def test_it_falls_back_to_http(box: Sandbox, sdk: Callable[[str], Plexus]) -> None:
    """With nobody at the WebSocket's address the points go through POST /ingest, compressed when large."""
    with socket.socket() as nobody:  # bound and not listening: a connection is refused
        nobody.bind(("127.0.0.1", 0))
        client = sdk(f"ws://127.0.0.1:{nobody.getsockname()[1]}")
        assert client.send("temperature", 21.5)
        assert client.send_batch([(f"m{i}", float(i)) for i in range(100)])
    wait_for(lambda: box.requests.counts["POST /ingest"] >= 2)
    assert box.requests.counts["POST /ingest"] == 2
    assert len(box.rows("pump-1")) == 101


def test_it_retries_what_the_gateway_could_not_take(box: Sandbox, sdk: Callable[[str], Plexus]) -> None:
    """A 503 on the way is retried by the SDK and the point arrives once."""
    box.faults.add("status", route="/ingest", status=503, next=1)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        client = sdk(f"ws://127.0.0.1:{nobody.getsockname()[1]}")
        client.retry_config.base_delay = 0.05
        assert client.send("temperature", 21.5)
    # A request is logged when its answer has gone out, which the SDK may see first.
    wait_for(lambda: len(box.requests.log) >= 2)
    assert [row.status for row in box.requests.log] == [503, 200]
    assert len(box.rows("pump-1")) == 1
