"""One connection to a host, taken apart: name, TCP, TLS, answer. It carries no key.

It goes the way that the client's requests go: through the proxies of the environment, with the certificates
of ``plexus.ca_file``, without following redirects.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from plexus_detect import clock

Step = Literal["name", "proxy", "connection", "certificate", "answer"]

# A Date header has whole seconds: on average it is half of one behind.
DATE_HALF_MS = 500

_USER = re.compile(r"//[^/@\s]*@")


@dataclass(frozen=True)
class Probe:
    """How a host was reached, or the step that ``failed`` and why.

    ``took_ms`` are the times of the steps that were made. ``ahead_ms`` is how far the server's clock is ahead
    of ours by the Date of its answer, give or take a second.
    """

    proxy: str | None = None
    took_ms: dict[Step, float] = field(default_factory=dict)
    status: int | None = None
    ahead_ms: float | None = None
    failed: Step | None = None
    error: str = ""


def without_user(text: str) -> str:
    """The text without the user and password of any address in it."""
    return _USER.sub("//", text)


def proxy_of(url: str) -> str | None:
    """The proxy that requests to ``url`` go through, without its password; None for none."""
    try:
        parts = urlsplit(url)
        found = getproxies().get(parts.scheme) or getproxies().get("all")
        if not found or proxy_bypass(parts.hostname or ""):
            return None
    except ValueError:
        return None
    return without_user(found if "://" in found else f"http://{found}")


async def probes(
    urls: Mapping[str, str], ca_file: Path | None = None, *, timeout_s: float = 10.0
) -> dict[str, Probe]:
    """Ask every address once, by its name; what goes wrong is in the answer, nothing is raised for it."""
    try:
        client = httpx.AsyncClient(verify=_trusted(ca_file), timeout=timeout_s)
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
        # Certificates or a proxy of the environment that cannot be used.
        return {name: _Watch().failure(proxy_of(url), str(error)) for name, url in urls.items()}
    async with client:
        found = await asyncio.gather(*(_probe(client, url, timeout_s) for url in urls.values()))
    return dict(zip(urls, found, strict=True))


async def _probe(client: httpx.AsyncClient, url: str, timeout_s: float) -> Probe:
    proxy, watch = proxy_of(url), _Watch()
    try:
        async with asyncio.timeout(timeout_s):
            if proxy is None:
                await _looked_up(url, watch)
            return await _asked(client, url, proxy, watch)
    except TimeoutError:
        return watch.failure(proxy, f"nothing within {timeout_s:g} s")
    except socket.gaierror as error:
        return watch.failure(proxy, error.strerror or str(error), "name")
    except httpx.ProxyError as error:
        return watch.failure(proxy, str(error), "proxy")
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return watch.failure(proxy, str(error) or type(error).__name__)


def _trusted(ca_file: Path | None) -> ssl.SSLContext | bool:
    return True if ca_file is None else ssl.create_default_context(cafile=ca_file)


async def _looked_up(url: str, watch: _Watch) -> None:
    parts = urlsplit(url)
    watch.begin("name")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    await asyncio.get_running_loop().getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    watch.end()


async def _asked(client: httpx.AsyncClient, url: str, proxy: str | None, watch: _Watch) -> Probe:
    sent_ms = clock.now_ms()
    request = client.build_request("GET", url, headers={"user-agent": "plexus-detect"})
    request.extensions["trace"] = watch.trace
    response = await client.send(request, stream=True, follow_redirects=False)
    await response.aclose()
    watch.end()
    middle_ms = (sent_ms + clock.now_ms()) / 2
    return Probe(proxy, watch.took_ms, response.status_code, _ahead_ms(response, middle_ms))


def _ahead_ms(response: httpx.Response, middle_ms: float) -> float | None:
    try:
        at = parsedate_to_datetime(response.headers.get("date", ""))
    except (ValueError, TypeError):
        return None
    return at.timestamp() * 1000 + DATE_HALF_MS - middle_ms if at.tzinfo is not None else None


class _Watch:
    """Times the steps of a connection as httpx tells of them (its "trace" extension)."""

    def __init__(self) -> None:
        self.took_ms: dict[Step, float] = {}
        self._step: Step = "connection"
        self._began_s = clock.monotonic_s()

    def begin(self, step: Step) -> None:
        """A step begins."""
        self._step, self._began_s = step, clock.monotonic_s()

    def end(self) -> None:
        """The step that began last is done."""
        self.took_ms[self._step] = (clock.monotonic_s() - self._began_s) * 1000

    async def trace(self, event: str, _info: dict[str, Any]) -> None:
        """What httpx calls: "connection.connect_tcp.started" and the like."""
        steps: dict[str, Step] = {"connect_tcp": "connection", "start_tls": "certificate"}
        what, _, how = event.rpartition(".")
        name = what.rpartition(".")[2]
        if name in steps and how == "started":
            self.begin(steps[name])
        elif name in steps and how == "complete":
            self.end()
        elif name == "send_request_headers" and how == "started":
            self.begin("answer")

    def failure(self, proxy: str | None, error: str, step: Step | None = None) -> Probe:
        """The probe that ended in the step that began last."""
        failed: Step = step or self._step
        if proxy is not None and failed == "connection":
            failed = "proxy"
        return Probe(proxy, self.took_ms, failed=failed, error=" ".join(without_user(error).split())[:200])
