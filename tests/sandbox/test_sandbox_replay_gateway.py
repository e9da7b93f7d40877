"""The gateway answers as recorded, over HTTP and over the device WebSocket."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from sandbox_replay import RECORDED, UNKNOWN, Scene, differences, key_text, named, replay
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

# What cannot match, and why. The test fails when one of these starts to match.
CANNOT = {
    "gateway.health_degraded": "the message of the lost store; the sandbox has no such store to lose",
}
FAULTS = {
    "ingest.auth_backend_unreachable_valid_key": {"status": 401},
    "ingest.valid_key_while_verify_key_rate_limited": {"status": 401},
    "ingest.redis_hung": {"status": 502},
    "ingest.redis_hung_again": {"status": 502},
    "ingest.redis_circuit_open": {"status": 503},
}
# Key by exchange; the recorder masked the keys inside of frames.
SOCKET_KEYS = {"ws_device.bad_key": UNKNOWN, "ws_device.read_key": key_text("read")}
DROP = "ingest.source_limit_drop_silent"
INGEST = [name for name in named(r"ingest\..*|gateway\.health\w*") if name != DROP]
SOCKET = named(r"ws_device\..*")
PLAYED = {DROP, *INGEST, *SOCKET}
DESCRIBED = ("ws_device.burst_4000_frames", "ws_device.same_source_second_connection_evicts_first")


def _at_fault(name: str) -> Any:
    if name == DROP:
        return lambda scene: scene.box.faults.add("rate_drop", route="/ingest", next=1)
    return lambda scene: scene.box.faults.add("status", route="/ingest", next=1, **FAULTS[name])


def test_ingest_answers_as_recorded() -> None:
    """Every recorded request to /ingest gets the recorded status, CORS header and sentence."""
    with Scene("2026-11-22T02:02:25Z") as scene:
        scene.source("dev-1", name="Device One")
        scene.source("dev-2")
        scene.source("norec", config={"recording": False})
        replay(scene, INGEST, CANNOT, {name: _at_fault(name) for name in FAULTS})


def test_a_rate_drop_answers_as_recorded() -> None:
    """A request over the source's rate gets 200 and a count of 0."""
    with Scene("2026-11-22T02:02:25Z") as scene:
        RECORDED[DROP]["request"]["key"] = "full"  # the recorder left it out
        replay(scene, [DROP], CANNOT, {DROP: _at_fault(DROP)})


def test_points_land_as_recorded() -> None:
    """Times in seconds, ms, fractions, none and nonsense land where the recording saw them, or nowhere."""
    with Scene("2026-11-22T02:04:09.357Z") as scene:
        scene.source("dev-1")
        scene.source("norec", config={"recording": False})
        for name in [name for name in named(r"ingest\.(landing|duplicate).*") if "#" not in name]:
            scene.play(RECORDED[name])
        landed = {row.metric: row.t_ms for row in scene.box.rows(org="org_a")}
        now = scene.now_ms
        assert landed == {
            "land_ms": 1795313049357,
            "land_s": 1795313049358,
            "land_s_int": 1795313049000,
            "land_frac_ms": 1795313049358,
            "land_neg": now,
            "land_zero": now,
            "land_none": now,
            "dup": 1795313049357,
        }
        assert len(scene.box.rows(metric="dup", org="org_a")) == 2


@contextlib.contextmanager
def device(scene: Scene) -> Iterator[ClientConnection]:
    """Open a device WebSocket."""
    with connect(scene.box.url.replace("http", "ws") + "/ws/device", proxy=None, max_queue=None) as socket:
        yield socket


@pytest.mark.parametrize("name", [name for name in SOCKET if name not in DESCRIBED])
def test_the_device_socket_answers_as_recorded(name: str) -> None:
    """Each recorded conversation goes the same way: frames, silence, close code and reason."""
    for last in (False, False, True):
        try:
            _converse(name)
        except PeerResetError:
            # Where the server closes in the middle of a frame, the kernel may throw away what it said before.
            if last:
                raise
        else:
            return


class PeerResetError(Exception):
    """The connection ended without a close frame before everything was received."""


def _converse(name: str) -> None:
    """Hold one recorded conversation and compare."""
    exchange = RECORDED[name]
    with Scene("2026-11-22T02:09:11Z") as scene, device(scene) as socket:
        wanted, got = exchange["response"]["json"], []
        for frame in exchange["request"]["json"]:
            if name.endswith("oversize_frame") and isinstance(frame, str):
                # A frame that ends the conversation must not overtake the answers to those before it.
                got = [json.loads(socket.recv(timeout=5)) for _ in wanted]
            # The server may close in the middle of too large a frame; how it ends is looked at below.
            with contextlib.suppress(ConnectionClosed):
                socket.send(_frame(frame, SOCKET_KEYS.get(name, key_text("full"))))
        try:
            got += [json.loads(socket.recv(timeout=5)) for _ in wanted[len(got) :]]
        except ConnectionClosed as closed:
            raise PeerResetError if closed.rcvd is None else closed from closed
        assert list(differences(wanted, got, {})) == []
        ending = _ending(socket, exchange["response"].get("close"))
        if ending == LOST and exchange["response"].get("close"):
            raise PeerResetError
        assert ending is None


LOST = "the close frame was lost"


def _ending(socket: ClientConnection, close: dict[str, Any] | None) -> str | None:
    """Return what is wrong with what comes after the last frame, or None."""
    try:
        return f"a frame too many: {socket.recv(timeout=0.1)!r}"
    except TimeoutError:
        return None if close is None else "it stays open"
    except ConnectionClosed as closed:
        got = closed.rcvd
    if got is None and close is not None:
        return LOST
    if got is None or close is None or got.code != close["code"]:
        return f"it ends with {got}"
    # Too large a frame is refused by the server's library, in words of its own.
    return None if got.code == 1009 or got.reason == close["reason"] else f"the reason is {got.reason}"


def _frame(frame: Any, key: str) -> str:
    if isinstance(frame, str):
        return "x" * (1024 * 1024 + 100) if frame.startswith("xxx") else frame
    return json.dumps({**frame, "api_key": key} if "api_key" in frame else frame)


def auth(slug: str) -> str:
    """Return the first frame of a device."""
    return json.dumps({"type": "device_auth", "api_key": key_text("full"), "source_id": slug})


def test_a_second_connection_evicts_the_first() -> None:
    """The newer connection of a source stays; the older is dropped without a close frame."""
    with Scene("2026-11-22T02:09:11Z") as scene, device(scene) as first:
        first.send(auth("evict-me"))
        first.recv(timeout=5)
        with device(scene) as second:
            second.send(auth("evict-me"))
            second.recv(timeout=5)
            with pytest.raises(ConnectionClosed) as closed:
                first.recv(timeout=5)
            assert closed.value.rcvd is None
            second.send(json.dumps({"type": "nope"}))
            assert json.loads(second.recv(timeout=5))["code"] == "INVALID_MESSAGE"


def test_a_burst_of_frames_is_rate_limited() -> None:
    """Beyond 2000 frames at once the gateway answers RATE_LIMITED."""
    with Scene("2026-11-22T02:09:11Z") as scene, device(scene) as socket:
        socket.send(auth("burst"))
        socket.recv(timeout=5)
        for _ in range(3500):
            socket.send('{"type":"heartbeat"}')
        assert json.loads(socket.recv(timeout=5)) == RECORDED[DESCRIBED[0]]["response"]["json"][0]["first"][0]
