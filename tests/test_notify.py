"""What a service manager is told, on real sockets."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from plexus_detect.notify import Notifier

ABSTRACT = pytest.param("abstract", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux only"))


class Manager:
    """A service manager: a datagram socket that is read at once, and the variables its children get."""

    def __init__(self, address: str) -> None:
        self.environ = {"NOTIFY_SOCKET": address}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            self._told.put(message.decode())

    def heard(self) -> str:
        """The next message."""
        return self._told.get(timeout=5)

    def all(self) -> list[str]:
        """The messages that have come, since the last call."""
        return [self._told.get() for _ in range(self._told.qsize())]

    def close(self) -> list[str]:
        """Read to the end; the messages that are left."""
        self._socket.shutdown(socket.SHUT_RD)
        self._thread.join()
        self._socket.close()
        return self.all()


@pytest.fixture(params=["path", ABSTRACT])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """One that listens in the file system, and one with an abstract address."""
    manager = Manager(str(tmp_path / "n") if request.param == "path" else f"@plexus-detect-{os.getpid()}")
    yield manager
    manager.close()


def test_the_messages_of_the_protocol(manager: Manager) -> None:
    """Ready, reloading with the time, stopping: as sd_notify(3) has them."""
    notifier = Notifier(manager.environ)
    notifier.ready()
    notifier.reloading()
    notifier.stopping()
    assert manager.heard() == "READY=1"
    first, _, second = manager.heard().partition("\n")
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert int(second.partition("=")[2]) > 0
    assert manager.heard() == "STOPPING=1"


def test_a_status_is_one_line_and_told_once(manager: Manager) -> None:
    """Line breaks could smuggle in other messages; the same line is not sent again."""
    notifier = Notifier(manager.environ)
    notifier.status("no successful poll\nREADY=1")
    notifier.status("no successful poll READY=1")
    assert manager.heard() == "STATUS=no successful poll READY=1"
    notifier.ready()
    assert manager.heard() == "READY=1"


def test_the_watchdog_is_fed_only_when_it_asks(manager: Manager) -> None:
    """With WATCHDOG_USEC for this process; not without, and not when it is meant for another process."""
    asked = {**manager.environ, "WATCHDOG_USEC": "3000000"}
    notifier = Notifier(asked)
    notifier.alive()
    assert (notifier.watchdog_s, manager.heard()) == (3.0, "WATCHDOG=1")
    mine = Notifier({**asked, "WATCHDOG_PID": str(os.getpid())})
    assert mine.watchdog_s == 3.0
    for environ in (
        manager.environ,
        {**asked, "WATCHDOG_PID": "1"},
        {**asked, "WATCHDOG_USEC": "0"},
        {**asked, "WATCHDOG_USEC": "soon"},
    ):
        other = Notifier(environ)
        other.alive()
        assert other.watchdog_s is None
    notifier.ready()
    assert manager.heard() == "READY=1"


def test_nobody_listens(tmp_path: Path) -> None:
    """Without the variable, with one of another kind and with a socket that has gone, nothing happens."""
    gone = str(tmp_path / "gone")
    for environ in ({}, {"NOTIFY_SOCKET": "vsock:2:1234"}, {"NOTIFY_SOCKET": gone}):
        notifier = Notifier({**environ, "WATCHDOG_USEC": "1000000"})
        notifier.ready()
        notifier.status("up")
        notifier.alive()


def test_a_manager_that_does_not_read_stops_nobody(tmp_path: Path) -> None:
    """A full socket swallows signs of life; what must not be missed waits for a moment."""
    address = str(tmp_path / "full")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as room:
        room.bind(address)
        notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
        began_s = time.monotonic()
        for _ in range(2000):
            notifier.alive()
        notifier.stopping()
        assert room.recv(100) == b"WATCHDOG=1"
        assert time.monotonic() - began_s < 5
