"""A small HTTP server in a thread of its own: /metrics, /livez and /readyz.

It answers also while the event loop stands still, which is when it is needed most. What it says is only read
from the vitals; nothing that a client sends changes anything.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from prometheus_client.exposition import choose_encoder

from plexus_detect import __version__, clock
from plexus_detect.logs import event
from plexus_detect.meters import Meters
from plexus_detect.redaction import redact
from plexus_detect.vitals import Trouble, Vitals, liveness, readiness

log = logging.getLogger(__name__)

# A client that says nothing, or stops reading, is left after so long.
SILENCE_S_MAX = 5.0

# Beyond so many connections at once the oldest is cut: whoever comes is answered.
CONNECTIONS_MAX = 32

# How soon the thread notices that it is to end.
_LOOK_S = 0.1

_INDEX = (
    f"plexus-detect {__version__}\n\n"
    "/metrics  figures for Prometheus\n"
    "/livez    200 while the process should go on, else 503 and why\n"
    "/readyz   200 while the worker does its job, else 503 and why (also /health)\n"
)


class Health(ThreadingHTTPServer):
    """Serves the health of one worker at ``listen`` (host:port; an IPv6 address may stand in brackets).

    Raises OSError when it cannot listen there.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_port = False
    request_queue_size = CONNECTIONS_MAX

    def __init__(self, listen: str, vitals: Vitals, meters: Meters) -> None:
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.vitals, self.meters = vitals, meters
        self._open: dict[Any, None] = {}
        self._lock = threading.Lock()
        super().__init__((host, int(port)), _Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(_LOOK_S,), daemon=True)
        self._thread.start()

    def server_bind(self) -> None:
        """Bind without asking the name service for our own name, which may take long."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    @property
    def url(self) -> str:
        """Where it is served."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}"

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  as in the base class
        """Answer in a thread; who has been connected for longest makes room."""
        with self._lock:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > CONNECTIONS_MAX else None
            if oldest is not None:
                self._open.pop(oldest)
        if oldest is not None:
            _cut(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401  as in the base class
        """Forget a connection that has ended."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  as in the base class
        """A connection broke off, or was cut: nothing to tell."""

    def close(self) -> None:
        """Stop listening; answers under way are cut short."""
        self.shutdown()
        self.server_close()


def _cut(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


class _Handler(BaseHTTPRequestHandler):
    """One request; HTTP/1.0, so that every connection ends with its answer."""

    server: Health
    timeout = SILENCE_S_MAX

    def version_string(self) -> str:
        """Our name, and nothing about what it runs on."""
        return "plexus-detect"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401  as in the base class
        """Probes come every few seconds: they are not logged."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """An error as JSON; what the client sent is not repeated."""
        self._send(code, "application/json", _json({"error": HTTPStatus(code).phrase}))

    def do_GET(self) -> None:
        """Answer a request."""
        page = _PAGES.get(self.path.partition("?")[0])
        if page is None:
            self._send(404, "application/json", _json({"error": f"there is only {', '.join(_PAGES)}"}))
            return
        try:
            status, kind, body = page(self.server, self.headers.get("Accept", ""))
        except Exception as error:  # a bug here must not reach the client, nor end the probes
            event(log, logging.ERROR, "health_failed", exc_info=error)
            status, kind, body = 500, "application/json", _json({"error": "a bug; the log has its trace"})
        self._send(status, kind, body)

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self.do_GET()

    def _refuse(self) -> None:
        self._send(405, "application/json", _json({"error": "only GET and HEAD"}), allow="GET, HEAD")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse  # noqa: N815

    def _send(self, status: int, kind: str, body: bytes, allow: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if allow:
            self.send_header("Allow", allow)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


Page = tuple[int, str, bytes]


def _json(value: object) -> bytes:
    return redact(json.dumps(value)).encode() + b"\n"


def _probe(troubles: Sequence[Trouble]) -> Page:
    said = {"ok": not troubles, "reasons": [trouble._asdict() for trouble in troubles]}
    return 503 if troubles else 200, "application/json", _json(said)


def _livez(server: Health, _accept: str) -> Page:
    return _probe(liveness(server.vitals, clock.monotonic_s()))


def _readyz(server: Health, _accept: str) -> Page:
    return _probe(readiness(server.vitals, clock.monotonic_s()))


def _metrics(server: Health, accept: str) -> Page:
    encode, kind = choose_encoder(accept)
    return 200, kind, encode(server.meters.registry)


def _index(_server: Health, _accept: str) -> Page:
    return 200, "text/plain; charset=utf-8", _INDEX.encode()


_PAGES: Mapping[str, Callable[[Health, str], Page]] = {
    "/": _index,
    "/metrics": _metrics,
    "/livez": _livez,
    "/readyz": _readyz,
    "/health": _readyz,
}


def serve_health(listen: str, vitals: Vitals, meters: Meters) -> Health | None:
    """The server, or None when ``listen`` is "off" or cannot be had: detecting does not depend on it."""
    if listen == "off":
        return None
    try:
        health = Health(listen, vitals, meters)
    except OSError as error:
        event(
            log,
            logging.ERROR,
            "health_unavailable",
            listen=listen,
            err=error.strerror or str(error),
            msg="the worker goes on without /metrics, /livez and /readyz; set health.listen to a free "
            "address (another worker may have this one), or to off",
        )
        return None
    event(log, logging.INFO, "health_serving", url=health.url)
    return health
