"""The server process: uvicorn around the application."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import sys

import uvicorn

from plexus_detect.errors import ConfigError
from plexus_detect.logs import event
from plexus_detect.serve.app import make_app
from plexus_detect.serve.settings import Settings
from plexus_detect.signals import EXIT_TERMINATED
from plexus_detect.training.trainer import ProcessTrainer, require

log = logging.getLogger(__name__)


# Connections that may wait to be taken.
BACKLOG = 2048

# So long, seconds, a thread that saves or takes a fit in may keep the event loop from going on: by default it
# is as long as several requests take.
SWITCH_S = 0.0005

# After a signal, requests may take so long to end before all is saved.
GRACE_S = 8


def serve_until_stopped(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM; raises ConfigError when the state or the port cannot be used."""
    require()
    try:
        settings.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--state: {settings.state} cannot be made ({error.strerror})") from None
    trainer, batch = ProcessTrainer(meanwhile=True), ProcessTrainer()
    listening = _listening(host, port)
    sys.setswitchinterval(SWITCH_S)
    trainer.warm()
    config = uvicorn.Config(
        make_app(settings, trainer, batch),
        log_config=None,
        access_log=False,
        ws_max_size=settings.body_bytes_max,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
    )
    event(
        log,
        logging.INFO,
        "serving",
        url=f"http://{host}:{listening.getsockname()[1]}",
        state=str(settings.state),
    )
    # When all is saved uvicorn raises the signal again: SIGINT ends as everywhere, SIGTERM like this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """The socket to serve on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"serve: {host} is no address of this machine ({error.strerror})") from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        # From now on whoever asks is kept waiting, and not refused, until the server takes over.
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        reason = "it is in use" if error.errno == errno.EADDRINUSE else error.strerror
        raise ConfigError(f"serve: cannot serve on {host}:{port} ({reason}); choose another --port") from None
    return listening
