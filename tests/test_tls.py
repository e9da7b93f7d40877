"""TLS: who is trusted and who is not, through which proxy, by real sockets on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from client_uses import KEY, telemetry

from plexus_detect.client import Client, Endpoints
from plexus_detect.errors import ConfigError, TransientError, UntrustedError
from plexus_detect.retry import retried

HOST = "127.0.0.1"
ANSWER = b'{"data":[]}'
REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER
)
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the environment of the test run counts."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module", name="authority")
def _authority() -> trustme.CA:
    """An authority of our own."""
    return trustme.CA()


@pytest.fixture(name="ca_file")
def _ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    """A file with its certificate."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


class Heads:
    """The request heads that a server read."""

    def __init__(self) -> None:
        self.read: list[bytes] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one head and answer it."""
        try:
            self.read.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(REPLY)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def served(certificate: trustme.LeafCert) -> AsyncIterator[tuple[int, Heads]]:
    """A server with this certificate: its port, and what was asked."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    heads = Heads()
    server = await asyncio.start_server(heads.answer, HOST, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


async def asked(base: str, ca_file: Path | None = None, timeout_s: float = 30.0) -> bytes:
    """One read of the platform at this address."""
    async with Client(Endpoints(base, base, base, ca_file), KEY, timeout_s=timeout_s) as client:
        return await telemetry(client)


def against(
    certificate: trustme.LeafCert, use: Callable[[str], Awaitable[bytes]], host: str = HOST
) -> tuple[bytes, Heads]:
    """What one use of such a server gave."""

    async def run() -> tuple[bytes, Heads]:
        async with served(certificate) as (port, heads):
            return await use(f"https://{host}:{port}"), heads

    return asyncio.run(run())


def refusal(certificate: trustme.LeafCert, ca_file: Path | None = None) -> UntrustedError:
    """The error of a client that does not trust the server; the key was not sent."""

    async def run() -> UntrustedError:
        async with served(certificate) as (port, heads):
            with pytest.raises(UntrustedError) as caught:
                await asked(f"https://{HOST}:{port}", ca_file)
            assert heads.read == []
            return caught.value

    return asyncio.run(run())


def test_an_unknown_authority_is_not_trusted(authority: trustme.CA) -> None:
    """One sentence with host, reason and what to do; exit 2; the key never left."""
    error = refusal(authority.issue_cert(HOST))
    assert "the certificate of 127.0.0.1:" in str(error)
    assert "unable to get local issuer certificate" in str(error)
    assert "plexus.ca_file or SSL_CERT_FILE" in str(error)
    assert error.exit_code == 2


def test_the_file_of_the_configuration_is_trusted(authority: trustme.CA, ca_file: Path) -> None:
    """plexus.ca_file makes the private platform reachable."""
    body, heads = against(authority.issue_cert(HOST), lambda base: asked(base, ca_file))
    assert body == ANSWER
    assert KEY.encode() in heads.read[0]


def test_the_file_of_the_environment_is_trusted(
    authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE does the same, and plexus.ca_file goes before it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    assert against(authority.issue_cert(HOST), asked)[0] == ANSWER
    other = trustme.CA()
    other.cert_pem.write_to_path(ca_file.with_name("other.pem"))
    assert isinstance(refusal(authority.issue_cert(HOST), ca_file.with_name("other.pem")), UntrustedError)


def test_another_host_is_not_trusted(authority: trustme.CA, ca_file: Path) -> None:
    """A certificate that is good, but of somebody else."""
    assert "IP address mismatch" in str(refusal(authority.issue_cert("other.test"), ca_file))


def test_an_expired_certificate_is_not_trusted(authority: trustme.CA, ca_file: Path) -> None:
    """It was good until yesterday."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert "certificate has expired" in str(refusal(authority.issue_cert(HOST, not_after=yesterday), ca_file))


def test_trust_is_not_tried_again_and_again(authority: trustme.CA) -> None:
    """A certificate does not heal within seconds: one attempt, and the next in a minute at the earliest."""

    async def run() -> tuple[int, UntrustedError]:
        async with served(authority.issue_cert(HOST)) as (port, _heads):
            base = f"https://{HOST}:{port}"
            async with Client(Endpoints(base, base, base), KEY) as client:
                with pytest.raises(UntrustedError) as caught:
                    await retried(client.monitors)
                return client.requests, caught.value

    requests, error = asyncio.run(run())
    assert requests == 1
    assert error.retry_after_s == 60
    assert not error.maybe_applied


def test_plain_http_behind_https_is_no_answer() -> None:
    """A server that does not speak TLS is a server that does not answer."""

    async def run() -> None:
        server = await asyncio.start_server(Heads().answer, HOST, 0)
        async with server:
            await asked(f"https://{HOST}:{server.sockets[0].getsockname()[1]}", timeout_s=0.1)

    with pytest.raises(TransientError, match="no answer from") as caught:
        asyncio.run(run())
    assert not isinstance(caught.value, UntrustedError)


# --- proxies ------------------------------------------------------------------------------------------------


class Proxy:
    """A proxy that knows CONNECT: every tunnel leads to one port of loopback."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.heads: list[bytes] = []

    async def tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read the CONNECT and pass bytes on until either side ends."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if not head.startswith(b"CONNECT platform.test:443 "):
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        there, back = await asyncio.open_connection(HOST, self.port)
        await asyncio.gather(_passed(reader, back), _passed(there, writer))


async def _passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def through_proxy(
    authority: trustme.CA, use: Callable[[str], Awaitable[bytes]], monkeypatch: pytest.MonkeyPatch
) -> tuple[bytes, Proxy]:
    """One use behind a proxy that HTTPS_PROXY names, with a password; ``use`` gets the server's address."""

    async def run() -> tuple[bytes, Proxy]:
        async with served(authority.issue_cert("platform.test", HOST)) as (port, _heads):
            proxy = Proxy(port)
            server = await asyncio.start_server(proxy.tunnel, HOST, 0)
            async with server:
                where = server.sockets[0].getsockname()[1]
                monkeypatch.setenv("HTTPS_PROXY", f"http://me:hunter22@{HOST}:{where}")
                return await use(f"https://{HOST}:{port}"), proxy

    return asyncio.run(run())


def test_a_proxy_is_used(authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY: the tunnel is asked for with its password, and the key goes only inside it."""
    body, proxy = through_proxy(authority, lambda _base: asked("https://platform.test", ca_file), monkeypatch)
    assert body == ANSWER
    (head,) = proxy.heads
    assert b"Proxy-Authorization: Basic bWU6aHVudGVyMjI=" in head
    assert b"plx_" not in head


def test_a_host_without_proxy(authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY: that host is asked directly."""
    monkeypatch.setenv("NO_PROXY", HOST)
    body, proxy = through_proxy(authority, lambda base: asked(base, ca_file), monkeypatch)
    assert body == ANSWER
    assert proxy.heads == []


def test_a_proxy_does_not_make_trust(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who listens in between has no certificate that we trust."""
    with pytest.raises(UntrustedError) as caught:
        through_proxy(authority, lambda _base: asked("https://platform.test"), monkeypatch)
    assert "hunter22" not in str(caught.value)


def test_a_proxy_that_refuses(authority: trustme.CA, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named as the one who did, without its password."""
    with pytest.raises(TransientError, match="403 Forbidden") as caught:
        through_proxy(authority, lambda _base: asked("https://elsewhere.test", ca_file), monkeypatch)
    assert "hunter22" not in str(caught.value)


def test_a_file_that_holds_no_certificate(ca_file: Path) -> None:
    """It is named, whichever way it was given."""
    ca_file.write_text("hello")
    with pytest.raises(ConfigError, match=r"plexus\.ca_file: .* holds no certificate in PEM form"):
        asyncio.run(asked("https://platform.test", ca_file))
