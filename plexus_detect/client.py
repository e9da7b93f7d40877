"""One async method per endpoint of the platform, all through one seam.

A method makes one HTTP request and either returns the body of a JSON answer or raises one of our own
errors; trying again is the business of ``retry``. Redirects are never followed: a missing or malformed
key is answered with one to a sign-in page, which would come back as 200 and HTML (contract trap 2).
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

from plexus_detect import clock, wire
from plexus_detect.answers import Answer, judge
from plexus_detect.bucket import Bucket
from plexus_detect.errors import (
    ConfigError,
    ContractError,
    RejectedError,
    TransientError,
    UntrustedError,
)
from plexus_detect.trust import trusted, untrusted
from plexus_detect.unpacking import ENCODING, Unpacking

BURST_S = 10.0  # so many seconds' worth of requests may be made at once
ERROR_BYTES_MAX = 64 * 1024  # of an error's body more is not read
DEADLINE_TIMEOUTS = 4  # a whole exchange may take this many timeouts, since each read has its own
KEEPALIVE_S = 4.0  # below the 5 s of common servers, so that a request rarely meets a connection just closed
_KEY = re.compile(r"plx_[A-Za-z0-9+/=_-]+")
_HEADERS = {"accept": "application/json", "accept-encoding": ENCODING, "user-agent": "plexus-detect"}


@dataclass(frozen=True)
class Endpoints:
    """Base addresses of the platform's three services, without a trailing slash (contract section 1), and a
    file of the certificates to trust in place of the usual ones."""

    app: str
    gateway: str
    api: str
    ca_file: Path | None = None


class Client:
    """The platform's HTTP interface, as an async context manager.

    ``timeout_s`` bounds connecting, sending and each wait for data; a whole exchange takes at most four
    times as long. ``answer_bytes_max`` bounds what is read of an answer, after decompression. Requests keep
    to ``requests_per_s`` in the long run: one that comes too early waits.
    ``requests`` counts the HTTP requests made so far, failed ones included, ``answers`` what came of them (a
    status code, or "none"), ``waited_s`` the time that requests waited for their turn.

    Errors, of every method: TransientError (no answer, 408, 425, 429, 5xx, 401 of the gateway),
    AuthError (401, 402, 403, sign-in), RejectedError (other 4xx), ContractError (an answer that is not
    JSON, too large, or an unknown redirect). Of the constructor: ConfigError for a key, an address or a
    proxy variable that cannot be used.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        api_key: str,
        *,
        timeout_s: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        answer_bytes_max: int = wire.ANSWER_BYTES_MAX,
        requests_per_s: float = 20.0,
    ) -> None:
        if not _KEY.fullmatch(api_key):
            raise ConfigError(
                "the API key is not one of the platform: it starts with plx_ and goes on with letters and "
                "digits, without spaces or line breaks; set PLEXUS_API_KEY to the whole key"
            )
        self._app = _base_url("app", endpoints.app)
        self._gateway = _base_url("gateway", endpoints.gateway)
        self._api = _base_url("read API", endpoints.api)
        self._deadline_s = DEADLINE_TIMEOUTS * timeout_s
        self._answer_bytes_max = answer_bytes_max
        self._turns = Bucket(requests_per_s, BURST_S * requests_per_s)
        self.requests = 0
        self.answers: Counter[str] = Counter()
        self.waited_s = 0.0
        verify = trusted(endpoints.ca_file)
        try:
            self._http = httpx.AsyncClient(
                headers={**_HEADERS, "x-api-key": api_key},
                timeout=httpx.Timeout(timeout_s),
                limits=httpx.Limits(max_connections=32, keepalive_expiry=KEEPALIVE_S),
                follow_redirects=False,
                transport=transport,
                verify=verify,
            )
        except (ValueError, ImportError, OSError, httpx.InvalidURL) as exc:
            # Our own arguments are checked above; what is left comes from variables such as HTTPS_PROXY.
            raise ConfigError(
                f"a proxy or certificate variable of the environment is unusable: {exc}"
            ) from exc

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, exc, trace)

    # --- reading ----------------------------------------------------------------------------------------

    async def telemetry(self, params: dict[str, str]) -> bytes:
        """``GET {app}/api/v1/telemetry`` with the parameters of ``wire.telemetry_params``."""
        return await self._get(f"{self._app}/api/v1/telemetry", params)

    async def fleet_health(self) -> bytes:
        """``GET {app}/api/fleet/health``: sources and metrics of the last hour; needs no scope."""
        return await self._get(f"{self._app}/api/fleet/health")

    async def sources(self) -> bytes:
        """``GET {app}/api/sources``: every source of the organisation."""
        return await self._get(f"{self._app}/api/sources")

    async def source_metrics(self, slug: str) -> bytes:
        """``GET {api}/v1/sources/{slug}/metrics``: every name ever stored of one source."""
        return await self._get(f"{self._api}/v1/sources/{quote(slug, safe='')}/metrics")

    async def raw_rows(self, slug: str, params: dict[str, str]) -> bytes:
        """``GET {api}/v1/sources/{slug}/metrics/query`` with the parameters of ``wire.raw_params``.

        Another service over the same store: unlike the app it says when the store fails (contract section 9).
        """
        return await self._get(f"{self._api}/v1/sources/{quote(slug, safe='')}/metrics/query", params)

    async def ping(self) -> bytes:
        """``GET {app}/api/ping``: whether the platform's loops run; a TransientError when one is stale."""
        return await self._get(f"{self._app}/api/ping")

    async def monitors(self) -> bytes:
        """``GET {app}/api/monitors``: every monitor."""
        return await self._get(f"{self._app}/api/monitors")

    async def alerts(self, params: dict[str, str]) -> bytes:
        """``GET {app}/api/alerts``: the newest first; ``limit`` is at most 1000 (contract section 7)."""
        return await self._get(f"{self._app}/api/alerts", params)

    # --- writing ----------------------------------------------------------------------------------------

    async def ingest(self, body: bytes) -> bytes:
        """``POST {gateway}/ingest``, compressed; ``body`` as of ``wire.encode_points``.

        ``maybe_applied`` on a TransientError says that points may be stored: sending them again could
        store them twice.
        """
        return await self._post_points(body, unrepeatable=True)

    async def check_write(self) -> None:
        """Post no points, which the gateway answers as it would answer some: AuthError without ``write``."""
        await self._post_points(b'{"points":[]}', unrepeatable=False)

    async def create_monitor(self, body: dict[str, Any]) -> None:
        """``POST {app}/api/monitors``: create or replace (offline monitors: always create)."""
        # A threshold is an upsert that leaves rows and open alerts as they are when repeated, so a lost
        # answer does no harm. An offline monitor is a plain insert (twice means two notifications) and an
        # event monitor restarts its cursor, blind for up to 30 s: those must not be sent again blindly.
        # This covers the 500 as well. INTERNAL_ERROR is what the platform says of a body that is not
        # JSON, before it touches anything; but ours always is, so the trouble lies deeper, possibly after
        # the first of its two writes (contract section 4).
        unrepeatable = body.get("offline") is not None or body.get("event") is not None
        request = self._json_post(f"{self._app}/api/monitors", msgspec.json.encode(body))
        await self._exchange(request, unrepeatable=unrepeatable)

    async def patch_monitor(self, body: dict[str, Any]) -> None:
        """``PATCH {app}/api/monitors``: change the notification targets and nothing else; safe to repeat."""
        request = self._http.build_request(
            "PATCH",
            f"{self._app}/api/monitors",
            content=msgspec.json.encode(body),
            headers={"content-type": "application/json"},
        )
        await self._exchange(request, unrepeatable=False)

    async def delete_pair(self, source: str, metric: str) -> None:
        """``DELETE {app}/api/monitors``: the threshold and the event of a pair at once; safe to repeat.

        Raises ValueError without a metric: the platform would delete every offline monitor of the source.
        """
        if not (source and metric):
            raise ValueError("a delete without a source or without a metric would reach others")
        await self._delete_monitor({"source_id": source, "metric": metric})

    async def delete_offline(self, monitor_id: str) -> None:
        """``DELETE {app}/api/monitors``: one offline monitor; one that is gone counts as done."""
        if not monitor_id:
            raise ValueError("an offline monitor is deleted by its id, which is missing")
        await self._delete_monitor({"offline_id": monitor_id})

    async def _delete_monitor(self, params: dict[str, str]) -> None:
        request = self._http.build_request("DELETE", f"{self._app}/api/monitors", params=params)
        answer = await self._send(request, unrepeatable=False)
        if not (answer.status == 404 and b"Monitor not found" in answer.body):
            judge(answer)

    async def create_source(self, slug: str, name: str) -> None:
        """``POST {app}/api/sources``: make a recorded device source exist; one that does counts as done."""
        body = msgspec.json.encode({"source_type": "device", "slug": slug, "name": name})
        answer = await self._send(self._json_post(f"{self._app}/api/sources", body), unrepeatable=False)
        # The platform says 400 for a slug that is taken, as it does for one that is not allowed.
        if not (answer.status == 400 and b"already exists" in answer.body):
            judge(answer)

    # --- the seam ---------------------------------------------------------------------------------------

    async def _get(self, url: str, params: dict[str, str] | None = None) -> bytes:
        try:
            request = self._http.build_request("GET", url, params=params)
        except httpx.InvalidURL as exc:  # a source's name is part of it, and may be of any length
            raise RejectedError(f"GET {wire.excerpt(url.encode())} -> not asked: {exc}") from exc
        return await self._exchange(request, unrepeatable=False)

    def _json_post(self, url: str, body: bytes) -> httpx.Request:
        return self._http.build_request(
            "POST", url, content=body, headers={"content-type": "application/json"}
        )

    async def _post_points(self, body: bytes, *, unrepeatable: bool) -> bytes:
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        request = self._http.build_request(
            "POST", f"{self._gateway}/ingest", content=wire.compressed(body), headers=headers
        )
        return await self._exchange(request, unrepeatable=unrepeatable, ingest=True)

    async def _exchange(self, request: httpx.Request, *, unrepeatable: bool, ingest: bool = False) -> bytes:
        return judge(await self._send(request, unrepeatable=unrepeatable, ingest=ingest))

    async def _send(self, request: httpx.Request, *, unrepeatable: bool, ingest: bool = False) -> Answer:
        path = request.url.raw_path.partition(b"?")[0].decode("ascii")
        call = f"{request.method} {request.url.scheme}://{_host(request.url)}{path}"
        await self._turn()
        self.requests += 1
        outcome = "none"
        try:
            async with asyncio.timeout(self._deadline_s):
                response = await self._http.send(request, stream=True)
                try:
                    body = await self._read(call, response)
                finally:
                    await response.aclose()
            outcome = str(response.status_code)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError) as exc:
            raise _no_answer(call, request.url, exc, maybe_applied=False) from exc
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as exc:
            raise ConfigError(f"{call}: {exc}; check the address") from exc
        except (httpx.TransportError, TimeoutError) as exc:  # the request was on its way
            raise _no_answer(call, request.url, exc, maybe_applied=unrepeatable) from exc
        finally:
            self.answers[outcome] += 1
        return Answer(call, response.status_code, response.headers, body, ingest, unrepeatable)

    async def _turn(self) -> None:
        """Wait until another request is allowed."""
        wait_s = self._turns.take(clock.monotonic_s())
        if wait_s > 0.0:
            self.waited_s += wait_s
            await clock.sleep_s(wait_s)

    async def _read(self, call: str, response: httpx.Response) -> bytes:
        """The decompressed body; of an error no more than its beginning is wanted."""
        failed = response.status_code >= 400
        bytes_max = min(ERROR_BYTES_MAX, self._answer_bytes_max) if failed else self._answer_bytes_max
        try:
            unpacking = Unpacking(response.headers.get("content-encoding", ""), bytes_max)
            async for piece in response.aiter_raw():
                if not unpacking.take(piece):
                    if failed:
                        break
                    raise ContractError(
                        f"{call} -> {response.status_code}: more than {bytes_max} bytes of answer"
                    )
            return unpacking.body()
        except ValueError as exc:
            raise ContractError(f"{call} -> {response.status_code}: an answer in {exc}") from exc


def _base_url(service: str, text: str) -> str:
    """The address without trailing slashes, or a ConfigError that tells what is wrong with it."""
    try:
        url = httpx.URL(text)
        host = url.host
    except (httpx.InvalidURL, ValueError) as exc:  # ValueError: a host name that IDNA does not know
        raise ConfigError(f"the address of the {service} is malformed: {exc}") from exc
    if url.scheme not in {"http", "https"} or not host or "?" in text or "#" in text:
        shown = wire.excerpt(text.encode(), 80)
        raise ConfigError(
            f"the address of the {service} must look like https://host or http://host:port, not {shown!r}"
        )
    return text.rstrip("/")


def _host(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")  # host and port; never the user and password that a URL may hold


def _no_answer(call: str, url: httpx.URL, exc: Exception, *, maybe_applied: bool) -> TransientError:
    if (why := untrusted(exc)) is not None:
        return UntrustedError(
            f"{call} -> the certificate of {_host(url)} is not trusted ({why}); if it is yours, name a file "
            "with its authority's in plexus.ca_file or SSL_CERT_FILE"
        )
    reason = wire.excerpt(str(exc).encode()) or "no time left"
    return TransientError(
        f"{call} -> no answer from {_host(url)}: {type(exc).__name__}: {reason}", maybe_applied=maybe_applied
    )
