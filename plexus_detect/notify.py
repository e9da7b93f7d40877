"""Tells a service manager how the process is doing: the protocol of sd_notify(3), without a library."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from plexus_detect import clock

# A manager that does not read is waited for so long with what it must not miss, and not at all else.
PATIENCE_S = 0.5


class Notifier:
    """Sends to the socket that ``NOTIFY_SOCKET`` names; without one, or when nobody listens, it does nothing.

    ``watchdog_s`` is how often the manager wants a sign of life at the latest (sd_watchdog_enabled(3)); None:
    it wants none, or from another process.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        # Of the forms of an address only Unix sockets are meant for us; @ stands for the abstract ones.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path if path.startswith("/") else ""
        self._status = ""
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        ours = self._address and pid in ("", str(os.getpid()))
        self.watchdog_s = int(usec) / 1e6 if ours and usec.isdecimal() and int(usec) > 0 else None

    def ready(self) -> None:
        """The start is over, or a reload."""
        self._send("READY=1", PATIENCE_S)

    def reloading(self) -> None:
        """A reload begins; ``ready`` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={int(clock.monotonic_s() * 1e6)}", PATIENCE_S)

    def stopping(self) -> None:
        """The process is about to end."""
        self._send("STOPPING=1", PATIENCE_S)

    def alive(self) -> None:
        """A sign of life for the watchdog, where there is one."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for people, sent when it has changed."""
        line = " ".join(text.split())
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def _send(self, message: str, patience_s: float = 0.0) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as room:
                room.settimeout(patience_s)
                room.connect(self._address)
                room.send(message.encode())
        except OSError:
            return
