"""state: show reads beside a worker, backup copies beside it, reset moves away and deletes nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fake_platform import FakeClock
from subprocess_worker import finished, said
from test_store import contents, tick
from test_store_migration import filled

from plexus_detect.cli import cli
from plexus_detect.closing import AlertChanges, Debt
from plexus_detect.config import load_config
from plexus_detect.errors import PlexusDetectError, StoreError
from plexus_detect.policy import policy_of
from plexus_detect.statefile import words
from plexus_detect.store import Store
from plexus_detect.store.look import look
from plexus_detect.store.moving import copy, move_away

NOW_MS = 1_800_000_100_000  # 2027-01-15T08:01:40Z
FINGERPRINT = policy_of(load_config([], {})).fingerprint()


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of its own, no settings from outside, a clock that stands."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PLEXUS")]:
        monkeypatch.delenv(name)
    FakeClock(monkeypatch, NOW_MS)


@pytest.fixture(name="store")
def _store() -> Iterator[Store]:
    """A worker's store with something of everything."""
    store = Store("plexus-detect.db")
    store.commit(tick(NOW_MS - 90_000, series=True, tally={"points": 8160, "late": 3}))
    store.save_snapshot(NOW_MS - 80_000, FINGERPRINT, {"n": np.zeros(9000)})
    store.save_snapshot(NOW_MS - 20_000, FINGERPRINT, {"n": np.zeros(9000)})
    store.commit(tick(NOW_MS - 9_000, NOW_MS - 8_000))
    store.settle(99, alerts=AlertChanges({(0, 0): Debt(NOW_MS - 300_000), (1, 1): Debt(5, NOW_MS - 1_000)}))
    store.note("last_tick", "2027-01-15T08:01:38Z")
    yield store
    store.close()


def plexus(*arguments: str, given: str | None = None) -> Result:
    """The command in this process; what it raises is what ``main`` turns into a sentence and a code."""
    return CliRunner().invoke(cli, list(arguments), input=given, catch_exceptions=True)


def refused(result: Result, code: int) -> str:
    """The sentence of a command that ended with an error of ours."""
    assert isinstance(result.exception, PlexusDetectError), result.output
    assert result.exception.exit_code == code
    assert "\n" not in str(result.exception)
    return str(result.exception)


# --- show -----------------------------------------------------------------------------------------------


def test_show_says_all_of_it_beside_a_worker(store: Store) -> None:
    """Aligned, with ages, and who holds the file; the worker goes on undisturbed."""
    before = contents(Path("plexus-detect.db"))
    result = plexus("state", "show")
    assert result.exit_code == 0, result.output
    lines = dict(line.split("  ", 1) for line in result.output.splitlines() if not line.startswith(" "))
    found = {name.strip(): text.strip() for name, text in lines.items()}
    assert found["state file"] == "plexus-detect.db"
    assert "in its WAL" in found["size"]
    assert found["schema"] == "2"
    assert found["in use"].startswith(f"by pid {os.getpid()} on host ")
    assert found["settings"] == "fit the newest snapshot: the next start goes on from it"
    assert found["series"] == "2 of 2 sources"
    assert found["snapshots"] == "2027-01-15T08:01:20Z, 20s ago, 72.3 kB, checksum ok"
    assert "            2027-01-15T08:00:20Z, 1m 20s ago, 72.3 kB, checksum ok" in result.output
    assert found["journal"] == "1 tick with 2 points to step through again"
    assert found["outbox"] == "3 scores in 2 batches, the oldest of 2027-01-15T08:00:10Z, 1m 30s ago"
    assert "dev-1 temperature.zscore        since 2027-01-15T07:56:40Z, 5m ago\n" in result.output
    assert "normal again since 2027-01-15T08:01:39Z" in result.output
    assert "totals      late       3\n            points  8160\n" in result.output
    assert found["notes"] == "last_tick  2027-01-15T08:01:38Z"
    assert contents(Path("plexus-detect.db")) == before
    store.commit(tick(NOW_MS))


def test_show_as_json(store: Store) -> None:
    """The same for programs."""
    result = plexus("state", "show", "--output", "json")
    found = json.loads(result.output)
    assert (found["held"], found["holder"]["pid"]) == (True, os.getpid())
    assert (found["settings_fit"], found["series"], found["schema"]) == (True, 2, 2)
    assert found["outbox"] == {"points": 3, "batches": 2, "oldest_ms": NOW_MS - 90_000}
    assert found["journal"] == {"ticks": 1, "points": 2}
    assert {alert["series"]: alert["calm_ms"] for alert in found["alerts"]} == {
        "dev-1 temperature.zscore": None,
        "dev-2 temperature.fleet_zscore": NOW_MS - 1_000,
    }
    assert [snapshot["intact"] for snapshot in found["snapshots"]] == [True, True]


def test_show_says_what_is_wrong(store: Store) -> None:
    """Other settings, and a damaged snapshot."""
    assert "do not fit the newest snapshot" in plexus("state", "show", "-c", str(other_settings())).output
    store.close()
    with sqlite3.connect("plexus-detect.db") as db:
        db.execute("UPDATE snapshot SET body = zeroblob(9) WHERE id = 2")
    db.close()
    output = plexus("state", "show").output
    assert "in use      by nobody" in output
    assert "20s ago, 9 bytes, DAMAGED, not used" in output
    assert "journal     1 tick with 2 points" in output


def other_settings() -> Path:
    """A file of settings under which a snapshot does not fit."""
    path = Path("other.yaml")
    path.write_text("version: 1\ndetect:\n  threshold: 4\n")
    return path


def test_show_of_an_older_file(tmp_path: Path) -> None:
    """It is read as it is, and not brought to our schema."""
    filled(tmp_path / "plexus-detect.db")
    output = plexus("state", "show").output
    assert "schema      1; the next start brings it to 2" in output
    assert "alerts      none" in output
    assert not Path("plexus-detect.db.v1.bak").exists()


@pytest.mark.parametrize("command", [["show"], ["backup"], ["reset", "--yes"]], ids=" ".join)
def test_without_a_file(command: list[str]) -> None:
    """One sentence, exit 4, and nothing is made."""
    assert "there is no state file plexus-detect.db" in refused(plexus("state", *command), 4)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", [["show"], ["backup"], ["reset", "--yes"]], ids=" ".join)
def test_a_file_of_another_program_is_left_alone(command: list[str]) -> None:
    """Not read, not copied, not moved."""
    with sqlite3.connect("plexus-detect.db") as db:
        db.execute("CREATE TABLE series (id INTEGER)")
    db.close()
    before = Path("plexus-detect.db").read_bytes()
    assert "another program" in refused(plexus("state", *command), 4)
    assert Path("plexus-detect.db").read_bytes() == before


@pytest.mark.parametrize("wal", [False, True], ids=["stopped", "killed"])
def test_show_and_backup_on_a_read_only_disk(tmp_path: Path, *, wal: bool) -> None:
    """What is there can be read, also what a killed worker left in the WAL, and be copied elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.db"
        store = Store(path)
        store.commit(tick(10, series=True))
        if wal:
            for end in ("", "-wal", "-shm"):
                kept = Path(f"{path}{end}").read_bytes()
                Path(f"{path}{end}.kept").write_bytes(kept)
        store.close()
        for kept_file in Path(folder).glob("*.kept"):
            kept_file.rename(str(kept_file).removesuffix(".kept"))
        for file in Path(folder).iterdir():
            file.chmod(0o444)
        Path(folder).chmod(0o555)
        mine = os.geteuid()
        target = Path(tempfile.mkdtemp()) / "copy.db"
        target.parent.chmod(0o777)
        try:
            if mine == 0:
                os.seteuid(65534)  # root may write anywhere, so the test is somebody else for a moment
            assert len(look(str(path)).series) == 2
            copy(str(path), str(target))
            with pytest.raises(StoreError, match="writable"):
                move_away(str(path))
        finally:
            os.seteuid(mine)
            Path(folder).chmod(0o755)
        assert contents(target)["journal"] == 1
        assert (path.exists(), list(Path(folder).glob("*.bak"))) == (True, [])


# --- backup ---------------------------------------------------------------------------------------------


def test_backup_is_one_whole_file(store: Store) -> None:
    """Beside the state file, named by the time, for its owner only, and a worker can start from it."""
    result = plexus("state", "backup")
    name = "plexus-detect.db.20270115T080140Z.bak"
    assert result.output.startswith(f"{name}: ")
    assert result.output.endswith("2 snapshots, checked\n")
    assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
    assert [file.name for file in Path().glob("*.bak*")] == [name]
    assert contents(Path(name)) == contents(Path("plexus-detect.db"))
    again = plexus("state", "backup")
    assert again.output.startswith("plexus-detect.db.20270115T080140Z-2.bak: ")
    store.commit(tick(NOW_MS))
    restored = Store(name)
    assert (restored.outbox_points(), len(list(restored.snapshots()))) == (3, 2)
    restored.close()


def test_backup_overwrites_nothing(store: Store) -> None:
    """A file, a folder and a dangling link stay what they are; a folder that is missing is not made."""
    Path("file").write_text("mine")
    Path("folder").mkdir()
    Path("link").symlink_to("nowhere")
    for name in ("file", "folder", "link"):
        assert f"{name} exists and is not overwritten" in refused(plexus("state", "backup", name), 4)
    assert Path("file").read_text() == "mine"
    assert "cannot be written" in refused(plexus("state", "backup", "no/copy"), 4)
    assert not list(Path().glob("*.tmp"))
    assert not Path("no").exists()


def test_backup_says_when_a_snapshot_is_damaged(store: Store) -> None:
    """The copy is true to the file, damage included, and the command says so."""
    with sqlite3.connect("plexus-detect.db") as db:
        db.execute("UPDATE snapshot SET body = zeroblob(9) WHERE id = 2")
    db.close()
    result = plexus("state", "backup", "copy.db")
    assert result.exit_code == 0
    assert "1 of the snapshots fail their checksum" in result.output


def test_backup_of_a_damaged_file_leaves_no_copy() -> None:
    """What is not whole does not get the name of a backup."""
    store = Store("plexus-detect.db")
    for n in range(100):
        store.commit(tick(*range(n, n + 50)))
    store.close()
    body = bytearray(Path("plexus-detect.db").read_bytes())
    body[20480:28672] = b"\x55" * 8192
    Path("plexus-detect.db").write_bytes(body)
    assert "is damaged" in refused(plexus("state", "backup", "copy.db"), 4)
    assert {file.name for file in Path().iterdir()} <= {
        "plexus-detect.db",
        "plexus-detect.db-wal",
        "plexus-detect.db-shm",
        "plexus-detect.db.lock",
    }


def test_backup_while_a_worker_writes(store: Store) -> None:
    """Each copy is the file at one moment: what belongs together is in it together, or not at all."""
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent.parent), str(Path(__file__).parent)]!r}
from test_store import Store, tick
store = Store("busy.db")
print("ready", flush=True)
for n in range(10**6):
    store.commit(tick(*range(100 * n, 100 * n + 100), series=n == 0))
"""
    worker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        for number in range(4):
            copy("busy.db", f"copy-{number}.db")
            found = look(f"copy-{number}.db")
            with sqlite3.connect(f"copy-{number}.db") as db:
                ticks = db.execute("SELECT COUNT(*) FROM journal").fetchone()[0]
            db.close()
            assert (found.outbox.points, found.journal.points) == (100 * ticks, 100 * ticks)
        assert worker.poll() is None
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close() if worker.stdout else None


# --- reset ----------------------------------------------------------------------------------------------


def test_reset_is_refused_while_a_worker_runs(store: Store) -> None:
    """It names the worker, and moves nothing."""
    sentence = refused(plexus("state", "reset", "--yes"), 4)
    assert f"in use by another worker (pid {os.getpid()} on host " in sentence
    assert Path("plexus-detect.db").exists()


def test_reset_moves_away_and_says_what_comes(store: Store) -> None:
    """What is given up is said before, what happens next after; the moved file is whole by itself."""
    store.close()
    before = contents(Path("plexus-detect.db"))
    result = plexus("state", "reset", "--yes")
    name = "plexus-detect.db.20270115T080140Z.bak"
    assert result.exit_code == 0
    for words_said in (
        "plexus-detect.db holds the state of 2 series",
        "3 scores in its outbox will not be posted",
        "2 alerts may be open on the platform; each resolves once its series is scored as normal again",
        f"moved to {name}; nothing was deleted",
        "the next start warms up from the platform's history",
        "may be posted a second time",
        "learned models in plexus-detect.models stay",
    ):
        assert words_said in result.output
    assert {file.name for file in Path().iterdir()} == {name, "plexus-detect.db.lock"}
    assert contents(Path(name)) == before
    fresh = Store("plexus-detect.db")
    assert (fresh.series(), fresh.outbox_points()) == ([], 0)
    fresh.close()


def test_reset_after_a_kill_takes_the_wal_along(tmp_path: Path) -> None:
    """What the worker had committed is in the moved file."""
    code = f"""
import os, sys
sys.path[:0] = {[str(Path(__file__).parent.parent), str(Path(__file__).parent)]!r}
from test_store import Store, tick
Store("plexus-detect.db").commit(tick(10, series=True))
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path).returncode == 9
    assert Path("plexus-detect.db-wal").stat().st_size > 0
    name = move_away("plexus-detect.db")
    assert {file.name for file in Path().glob("plexus-detect.db*")} == {
        name,
        "plexus-detect.db.lock",
        *(["plexus-detect.db.lock-journal"] if Path("plexus-detect.db.lock-journal").exists() else []),
    }
    assert contents(Path(name))["journal"] == 1


def test_reset_takes_what_cannot_be_read() -> None:
    """That is when it is needed most; the file is moved as it is."""
    body = b"SQLite format 3\0" + b"\xff" * 5000
    Path("plexus-detect.db").write_bytes(body)
    result = plexus("state", "reset", "--yes")
    assert "is damaged" in result.output
    assert Path("plexus-detect.db.20270115T080140Z.bak").read_bytes() == body
    Store("plexus-detect.db").close()


def test_reset_asks_and_without_a_terminal_wants_a_word(store: Store, tmp_path: Path) -> None:
    """Nothing moves without --yes from a script; exit 2."""
    store.close()
    env = {name: value for name, value in os.environ.items() if not name.startswith("PLEXUS")}
    env["PYTHONPATH"] = str(Path(__file__).parent.parent)
    assert "add --yes" in said(finished(["state", "reset"], env, tmp_path, given="y\n"), 2)
    assert Path("plexus-detect.db").exists()


# --- words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (872_512, "873 kB"), (2_092_992, "2.09 MB")],
)
def test_sizes_are_short(n: int, text: str) -> None:
    """Three digits and a unit."""
    assert words.size(n) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s ago"),
        (59_999, "59s ago"),
        (60_000, "1m ago"),
        (90_000, "1m 30s ago"),
        (3_600_000, "1h ago"),
        (90_061_000, "1d 1h ago"),
        (-5, "in the future"),
    ],
)
def test_ages_are_two_units(ms: int, text: str) -> None:
    """The largest that is not zero and the next."""
    assert words.age(ms) == text
