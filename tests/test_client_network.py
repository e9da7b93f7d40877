"""client: addresses and keys, servers that do not answer, and answers over a real socket."""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import closing
from typing import Any

import httpx
import pytest
import respx
from client_uses import (
    API,
    APP,
    ENDPOINTS,
    GATEWAY,
    KEY,
    Use,
    failure,
    ingest,
    telemetry,
    threshold,
    use,
)

from plexus_detect import wire
from plexus_detect.client import Client, Endpoints
from plexus_detect.errors import (
    ConfigError,
    ContractError,
    PlexusDetectError,
    TransientError,
)

# --- no answer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "reached"),
    [
        (httpx.ConnectError("Name or service not known"), False),
        (httpx.ConnectTimeout(""), False),
        (httpx.PoolTimeout(""), False),
        (httpx.ProxyError("407"), False),
        (httpx.WriteTimeout(""), True),
        (httpx.WriteError("reset"), True),
        (httpx.ReadTimeout(""), True),
        (httpx.ReadError("reset"), True),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), True),
        (TimeoutError(), True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("use_client", [telemetry, ingest, threshold])
def test_no_answer(use_client: Use, broken: Exception, reached: bool) -> None:
    """Every way of not answering is transient, names host and reason, and is honest about a sent post."""
    with respx.mock() as router:
        router.route().mock(side_effect=broken)
        error = failure(use_client)
    assert isinstance(error, TransientError)
    assert error.maybe_applied == (reached and use_client is ingest)
    assert ".test" in str(error)
    assert (str(broken) or type(broken).__name__) in str(error)


# --- configuration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["", "plx_", "S3cret", "PLX_S3cret", "plx_S3cret\n", " plx_S3cret", "plx_S3 cret", "plx_S3crét"]
)
def test_a_key_that_cannot_be_one_is_refused_unseen(key: str) -> None:
    """One sentence says what a key looks like, and does not show the one given."""
    with pytest.raises(ConfigError, match="starts with plx_") as caught:
        Client(ENDPOINTS, key)
    assert "S3" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "app.plexus.company",
        "ftp://user:S3cret@app.test",
        "https://",
        "https://app.test:port",
        "https://app.test?x=1",
        "https://app.test/#x",
        "https://app.test\n",
        "https://[::1",
    ],
)
@pytest.mark.parametrize("service", ["app", "gateway", "api"])
def test_a_malformed_address_is_a_config_error(address: str, service: str) -> None:
    """The sentence says which of the three addresses is wrong, and shows no password."""
    given = {"app": APP, "gateway": GATEWAY, "api": API, service: address}
    named = {"app": "app", "gateway": "gateway", "api": "read API"}[service]
    with pytest.raises(ConfigError, match=f"the address of the {named} ") as caught:
        Client(Endpoints(**given), KEY)
    assert "S3cret" not in str(caught.value)


def test_a_password_in_an_address_stays_out_of_messages() -> None:
    """Basic authentication in front of a self-hosted platform is used and never shown."""
    with respx.mock() as router:
        route = router.route().mock(return_value=httpx.Response(500))
        error = failure(telemetry, endpoints=Endpoints("https://user:S3cret@app.test", GATEWAY, API))
    assert "https://app.test/api/v1/telemetry" in str(error)
    assert route.calls.last.request.headers["authorization"].startswith("Basic ")


def test_an_unusable_proxy_variable_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies of the environment are honoured; one that cannot be used is named as the cause."""
    monkeypatch.setenv("HTTPS_PROXY", "gopher://user:S3cret@proxy.test")
    with pytest.raises(ConfigError, match="variable of the environment") as caught:
        Client(ENDPOINTS, KEY)
    assert "S3cret" not in str(caught.value)


# --- a real socket ----------------------------------------------------------------------------------------


class RawServer:
    """A loopback server that reads a request's head and then writes fixed bytes and closes.

    With ``linger`` it keeps the connection open and silent instead of closing it.
    """

    def __init__(self, answer: bytes, *, linger: bool = False) -> None:
        self.answer = answer
        self.linger = linger

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)
            await writer.drain()
            if self.linger:
                await reader.read()  # until the client gives up
        finally:
            writer.close()

    async def failure_of(self, use_client: Use, **options: Any) -> PlexusDetectError:
        """The error of one use of a client against this server."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Client(Endpoints(base, base, base), KEY, **options) as client:
            with pytest.raises(PlexusDetectError) as caught:
                await use_client(client)
        return caught.value


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is reached without a proxy, whatever the environment of the test run says."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("use_client", [telemetry, ingest])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        HEAD + b'Content-Length: 100\r\n\r\n{"data":[',
        HEAD + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"dat',
        b"not http at all\r\n\r\n",
    ],
)
def test_a_cut_answer_is_transient(use_client: Use, answer: bytes) -> None:
    """A connection cut before the answer is whole never looks like a short answer."""
    error = asyncio.run(RawServer(answer).failure_of(use_client))
    assert isinstance(error, TransientError)
    assert error.maybe_applied == (use_client is ingest)


def test_a_short_json_is_left_to_the_decoder() -> None:
    """A whole answer with half a JSON passes the client and is refused by wire."""
    with respx.mock() as router:
        router.route().mock(return_value=httpx.Response(200, json={}, content=b'{"data":['))
        with pytest.raises(ContractError):
            wire.decode_monitors(use(telemetry))


@pytest.mark.parametrize("answer", [b"", HEAD + b"Content-Length: 100\r\n\r\n{"])
@pytest.mark.parametrize("use_client", [telemetry, ingest])
def test_silence_ends_at_the_timeout(use_client: Use, answer: bytes) -> None:
    """A server that stops talking costs the timeout, and a post then may have been applied."""
    error = asyncio.run(RawServer(answer, linger=True).failure_of(use_client, timeout_s=0.05))
    assert isinstance(error, TransientError)
    assert "ReadTimeout" in str(error)
    assert error.maybe_applied == (use_client is ingest)


@pytest.mark.parametrize(
    "headers",
    [b"Content-Length: 4000\r\n\r\n", b"\r\n"],
    ids=["announced", "unannounced"],
)
def test_an_endless_answer_is_cut_off(headers: bytes) -> None:
    """No more than the limit is kept of an answer, whatever its length claims to be."""
    answer = HEAD + headers + b"[" + b" " * 3998 + b"]"
    error = asyncio.run(RawServer(answer).failure_of(telemetry, answer_bytes_max=1000))
    assert isinstance(error, ContractError)
    assert "more than 1000 bytes" in str(error)


def test_a_compressed_bomb_is_cut_off() -> None:
    """The limit counts bytes after decompression."""
    packed = gzip.compress(b"[" + b" " * 10_000_000 + b"]")
    answer = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    error = asyncio.run(RawServer(answer).failure_of(telemetry, answer_bytes_max=1_000_000))
    assert isinstance(error, ContractError)


@pytest.mark.parametrize("encoding", [b"gzip, gzip", b"br", b"deflate"])
def test_an_encoding_that_was_not_asked_for(encoding: bytes) -> None:
    """Only what is bounded while it is decompressed is taken; a bomb in a bomb is not."""
    packed = gzip.compress(gzip.compress(b"[" + b" " * 10_000_000 + b"]"))
    answer = HEAD + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (encoding, len(packed)) + packed
    error = asyncio.run(RawServer(answer).failure_of(telemetry))
    assert isinstance(error, ContractError)
    assert "not asked for" in str(error)


def test_of_an_error_only_the_beginning_is_read() -> None:
    """A 500 with a body without end is a 500."""
    answer = b"HTTP/1.1 500 Oops\r\nContent-Type: text/html\r\n\r\n<h1>" + b"x" * 3_000_000
    error = asyncio.run(RawServer(answer).failure_of(telemetry))
    assert isinstance(error, TransientError)
    assert "500: <h1>xxx" in str(error)


def test_broken_compression_is_a_contract_error() -> None:
    """An answer that claims gzip and is not is no answer we know."""
    answer = HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"
    assert isinstance(asyncio.run(RawServer(answer).failure_of(telemetry)), ContractError)


@pytest.mark.parametrize("use_client", [telemetry, ingest])
def test_a_closed_port_is_a_sentence_with_host_and_reason(use_client: Use) -> None:
    """Nothing was sent, so nothing can have been applied."""
    with closing(socket.create_server(("127.0.0.1", 0))) as port:
        base = f"http://127.0.0.1:{port.getsockname()[1]}"
    error = failure(use_client, endpoints=Endpoints(base, base, base))
    assert isinstance(error, TransientError)
    assert not error.maybe_applied
    assert f"no answer from {base.removeprefix('http://')}: ConnectError: " in str(error)


def test_a_trickle_ends_at_the_deadline() -> None:
    """A server that sends a byte now and then within each timeout does not hold a call for ever."""

    async def run() -> PlexusDetectError:
        async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            gone = asyncio.ensure_future(reader.read())
            try:
                writer.write(HEAD + b"\r\n")
                while not gone.done():
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.wait([gone], timeout=0.02)
            finally:
                gone.cancel()
                writer.close()

        server = await asyncio.start_server(trickle, "127.0.0.1", 0)
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Client(Endpoints(base, base, base), KEY, timeout_s=0.05) as client:
            with pytest.raises(TransientError) as caught:
                await client.ingest(b"{}")
        return caught.value

    error = asyncio.run(run())
    assert "TimeoutError" in str(error)
    assert error.maybe_applied


def test_connections_are_kept() -> None:
    """Two requests travel over one connection."""

    async def run() -> int:
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            try:
                for _ in range(2):
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(HEAD + b"Content-Length: 2\r\n\r\n{}")
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Client(Endpoints(base, base, base), KEY) as client:
            await client.monitors()
            await client.monitors()
        return connections

    assert asyncio.run(run()) == 1
