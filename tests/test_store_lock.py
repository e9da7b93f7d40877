"""store: one worker a state file, and the one that holds it is named."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_store import one_sentence

from plexus_detect import __version__
from plexus_detect.errors import StoreError
from plexus_detect.store import Store
from plexus_detect.store.lock import Holder, holder_of, is_held

ENDED = 2**22 + 1  # more than Linux gives to a process


def holder_file(path: Path) -> Path:
    """Where the holder signs."""
    return path.with_name(f"{path.name}.holder")


def test_the_holder_is_named(tmp_path: Path) -> None:
    """The second worker learns the process, host and time of the first; after it nothing is left but the lock
    file."""
    path = tmp_path / "s.db"
    store = Store(path)
    me = rf"pid {os.getpid()} on host {socket.gethostname()} since 20\d\d-.*"
    with pytest.raises(StoreError, match=rf"in use by another worker \({me}\); stop") as error:
        Store(path)
    one_sentence(error, path)
    signed = json.loads(holder_file(path).read_text())
    assert (signed["pid"], signed["version"]) == (os.getpid(), __version__)
    assert holder_file(path).stat().st_mode & 0o777 == 0o600
    assert holder_of(str(path)) == Holder(**signed)
    store.close()
    assert holder_of(str(path)) is None
    assert {file.name for file in tmp_path.iterdir()} == {"s.db", "s.db.lock"}


STRANGE = {
    "nothing": b"",
    "bytes": b"\xff\xfe\x00",
    "a list": b"[1]",
    "a number": b"7",
    "deep": b"[" * 4000,
    "no pid": b'{"host": "h", "started": "s", "version": "v"}',
    "pid of text": b'{"pid": "7", "host": "h", "started": "s", "version": "v"}',
    "pid too large": b'{"pid": 1e300, "host": "h", "started": "s", "version": "v"}',
    "a line break": b'{"pid": 7, "host": "h\\n", "started": "s", "version": "v"}',
    "long": b'{"pid": 7, "host": "' + b"h" * 900 + b'", "started": "s", "version": "v"}',
    "too long": b'{"pid": 7, "host": "' + b"h" * 9000 + b'", "started": "s", "version": "v"}',
    "an ended process": json.dumps(
        {"pid": ENDED, "host": socket.gethostname(), "started": "s", "version": "v"}
    ).encode(),
}


@pytest.mark.parametrize("what", STRANGE)
def test_a_strange_name_is_no_name(tmp_path: Path, what: str) -> None:
    """The second worker is refused all the same, in one sentence without a name."""
    path = tmp_path / "s.db"
    store = Store(path)
    holder_file(path).write_bytes(STRANGE[what])
    with pytest.raises(StoreError, match="is in use by another worker; stop it") as error:
        Store(path)
    one_sentence(error, path)
    assert is_held(str(path))
    assert holder_of(str(path)) is None
    store.close()


def test_a_folder_in_the_place_of_the_name_stops_nobody(tmp_path: Path) -> None:
    """The lock is what counts."""
    path = tmp_path / "s.db"
    holder_file(path).mkdir()
    store = Store(path)
    with pytest.raises(StoreError, match="is in use by another worker; stop it"):
        Store(path)
    store.close()


def test_the_name_of_a_killed_worker_is_overwritten(tmp_path: Path) -> None:
    """Its lock ended with it, whatever its file says; the next worker signs with its own name."""
    path = tmp_path / "s.db"
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from plexus_detect.store import Store
store = Store({str(path)!r})
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert holder_file(path).exists()
    assert not is_held(str(path))
    assert holder_of(str(path)) is None
    store = Store(path)
    assert json.loads(holder_file(path).read_text())["pid"] == os.getpid()
    store.close()


def test_looking_takes_no_lock(tmp_path: Path) -> None:
    """A worker can start while others look, and looking makes no file."""
    path = tmp_path / "s.db"
    assert not is_held(str(path))
    assert list(tmp_path.iterdir()) == []
    Store(path).close()
    assert not is_held(str(path))
    store = Store(path)
    assert is_held(str(path))
    store.close()


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    """Whatever the umask: the file, its WAL and its lock hold what devices measured."""
    before = os.umask(0)
    try:
        store = Store(tmp_path / "s.db")
        store.note("a", "b")
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}
    assert {"s.db", "s.db-wal", "s.db-shm", "s.db.lock", "s.db.holder"} <= modes.keys()


def test_a_file_that_was_shared_stays_shared(tmp_path: Path) -> None:
    """The mode of an existing file is its owner's choice."""
    path = tmp_path / "s.db"
    Store(path).close()
    path.chmod(0o640)
    Store(path).close()
    assert path.stat().st_mode & 0o777 == 0o640
