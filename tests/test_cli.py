"""cli: one sentence and the documented exit code for everything that can be wrong, by the real process."""

from __future__ import annotations

import http.server
import json
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from subprocess_worker import UNKNOWN_KEY, environment, finished, said, started, wait_for_state

from plexus_detect.sandbox import READ_KEY, WRITE_KEY, Sandbox

COMMANDS = [
    [],
    ["run"],
    ["monitors"],
    ["monitors", "plan"],
    ["monitors", "apply"],
    ["sandbox"],
    ["demo"],
    ["score"],
    ["backtest"],
    ["explain"],
]


@pytest.fixture(scope="module", name="box")
def _box() -> Iterator[Sandbox]:
    """One platform with a device that has a past."""
    with Sandbox() as box:
        now = time.time_ns() // 1_000_000
        box.load([("dev-1", "temperature", now - 1000 * k, 20 + k % 5 / 10) for k in range(60, 1, -1)])
        yield box


# --- the key and the address ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (UNKNOWN_KEY, "401"),
        (WRITE_KEY, "reading telemetry needs read"),
        (READ_KEY, "posting points needs write"),
    ],
    ids=["unknown", "without read", "without write"],
)
def test_a_key_that_is_refused(box: Sandbox, tmp_path: Path, key: str, words: str) -> None:
    """Exit 3, with what the key lacks."""
    done = finished(["run"], environment(box.url, key), tmp_path)
    sentence = said(done, 3)
    assert words in sentence
    assert key not in done.stderr


@pytest.mark.parametrize(
    ("key", "words"),
    [("", "is not set"), ("S3cret", "starts with plx_"), ("plx_S3 cret", "starts with plx_")],
)
def test_a_key_that_is_none(box: Sandbox, tmp_path: Path, key: str, words: str) -> None:
    """Exit 2 before anything is asked, and nothing is written."""
    env = environment(box.url, key)
    if not key:
        del env["PLEXUS_API_KEY"]
    done = finished(["run"], env, tmp_path)
    assert words in said(done, 2)
    assert "S3" not in done.stderr


@contextmanager
def website(status: int, kind: str, body: bytes) -> Iterator[str]:
    """Some other server, which gives the same answer to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  the names are the base class's

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "kind", "body", "words"),
    [
        (200, "text/html", b"<html>Welcome</html>", "not JSON: check the address"),
        (404, "text/html", b"<html>404</html>", "the address is not that of the platform"),
        (200, "application/json", b'{"hello":"world"}', "telemetry answer"),
    ],
    ids=["html", "404", "json"],
)
def test_a_wrong_address(tmp_path: Path, status: int, kind: str, body: bytes, words: str) -> None:
    """Exit 1: the server answers, but it is not the platform."""
    with website(status, kind, body) as url:
        done = finished(["run"], environment(url, READ_KEY), tmp_path)
    assert words in said(done, 1)


def test_a_host_that_does_not_answer(tmp_path: Path) -> None:
    """Exit 75 within seconds: a service manager may try again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    began = time.monotonic()
    done = finished(["run", "--once"], environment(url, READ_KEY), tmp_path)
    assert url.removeprefix("http://") in said(done, 75)
    assert time.monotonic() - began < 10


# --- the state file ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["run"], ["run", "--once"]], ids=" ".join)
def test_a_damaged_state_file(box: Sandbox, tmp_path: Path, command: list[str]) -> None:
    """Exit 4; the file is left as it is."""
    path = tmp_path / "s.db"
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    before = path.read_bytes()
    done = finished(command, environment(box.url, box.key, state__path=str(path)), tmp_path)
    assert "is damaged" in said(done, 4)
    assert path.read_bytes() == before


def test_a_state_file_in_use(box: Sandbox, tmp_path: Path) -> None:
    """The second worker on a file ends with exit 4, the first goes on."""
    env = environment(box.url, box.key, poll__interval="200ms")
    first = started(["run"], env, tmp_path, subprocess.DEVNULL)
    try:
        wait_for_state(tmp_path)
        assert "in use by another worker" in said(finished(["run"], env, tmp_path), 4)
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()


# --- configuration ----------------------------------------------------------------------------------------


def test_an_unknown_key_of_the_configuration(box: Sandbox, tmp_path: Path) -> None:
    """Exit 2, with file, line, key and what was probably meant."""
    (tmp_path / "fleet.yaml").write_text("poll:\n  intervall: 5s\n")
    done = finished(["run", "-c", "fleet.yaml"], environment(box.url, box.key), tmp_path)
    sentence = said(done, 2)
    assert "fleet.yaml:2" in sentence
    assert "poll.intervall" in sentence
    assert "'interval'" in sentence


def test_a_missing_configuration_file(box: Sandbox, tmp_path: Path) -> None:
    """Exit 2, with its name."""
    done = finished(["run", "-c", "nowhere.yaml"], environment(box.url, box.key), tmp_path)
    assert "nowhere.yaml" in said(done, 2)


def test_an_unknown_option(tmp_path: Path) -> None:
    """Exit 2 and a usage line."""
    done = finished(["run", "--forever"], environment("http://127.0.0.1:1", READ_KEY), tmp_path)
    assert done.returncode == 2
    assert "No such option" in done.stderr


def test_a_missing_extra(tmp_path: Path) -> None:
    """Exit 2 and the command that installs it."""
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('no uvicorn', name='uvicorn')\n")
    env = environment("http://127.0.0.1:1", READ_KEY)
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    sentence = said(finished(["sandbox"], env, tmp_path), 2)
    assert "pip install 'plexus-detect[sandbox]'" in sentence
    assert "uvicorn is not installed" in sentence


# --- help -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is compiled once has been compiled."""
    finished(["--version"], environment("http://127.0.0.1:1", READ_KEY), tmp_path_factory.mktemp("version"))


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c) or "plexus-detect")
def test_help_of_every_command(tmp_path: Path, command: list[str]) -> None:
    """It ends with 0, explains itself on standard output, and costs less than 0.4 s of CPU."""
    env = environment("http://127.0.0.1:1", READ_KEY)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = finished([*command, "--help"], env, tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")
    assert "Options:" in done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 0.4


# --- score ------------------------------------------------------------------------------------------------


def test_score_reads_csv_and_prints_a_score_a_line(tmp_path: Path) -> None:
    """Without key and configuration; nan while not ready; seconds and milliseconds alike."""
    rows = [(1_700_000_000 + k, 20 + k % 5 / 10 + (9 if k > 95 else 0)) for k in range(100)]
    outputs = []
    for factor in (1, 1000):
        text = "ts,v0\n" + "".join(f"{t * factor},{v}\n" for t, v in rows)
        done = finished(["score"], {"PYTHONPATH": environment("", "")["PYTHONPATH"]}, tmp_path, text)
        assert (done.returncode, done.stderr) == (0, "")
        outputs.append(done.stdout.splitlines())
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 100
    assert outputs[0][:30] == ["nan"] * 30
    assert float(outputs[0][50]) < 1 < float(outputs[0][97])


@pytest.mark.parametrize(("given", "detector"), [("ts,v0\n1,x\n", "default"), ("1,2\n", "nosuch")])
def test_score_says_what_it_cannot_read(tmp_path: Path, given: str, detector: str) -> None:
    """Exit 2 and one sentence."""
    done = finished(["score", "--detector", detector], environment("http://x", READ_KEY), tmp_path, given)
    said(done, 2)


def test_a_closed_pipe_is_no_error_message(tmp_path: Path) -> None:
    """``plexus-detect score | head -1`` prints one line and nothing else."""
    text = "".join(f"{1_700_000_000 + k},{k % 7}\n" for k in range(20_000))
    env = environment("http://x", READ_KEY)
    command = f"{sys.executable} -m plexus_detect score | head -1"
    done = subprocess.run(
        ["bash", "-c", command],
        env=env,
        cwd=tmp_path,
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("nan\n", "")


# --- monitors ---------------------------------------------------------------------------------------------


def test_plan_apply_and_plan_again(box: Sandbox, tmp_path: Path) -> None:
    """Pending changes are exit 2 with --detailed-exitcode; after apply there are none, and it is silent."""
    (tmp_path / "monitors").mkdir()
    body = {"source_id": "dev-*", "metric": "temperature.zscore", "threshold": {"max": 3}}
    (tmp_path / "monitors" / "room.json").write_text(json.dumps(body))
    env = environment(box.url, box.key)

    def monitors(*arguments: str) -> subprocess.CompletedProcess[str]:
        return finished(["monitors", *arguments], env, tmp_path)

    before = monitors("plan", "--detailed-exitcode")
    assert before.returncode == 2, before.stderr
    assert "dev-1" in before.stdout
    assert monitors("plan").returncode == 0
    applied = monitors("apply")
    assert (applied.returncode, applied.stderr) == (0, "")
    assert "dev-1" in applied.stdout
    after = monitors("plan", "--detailed-exitcode")
    assert after.returncode == 0, after.stdout
    again = monitors("apply")
    assert (again.returncode, again.stdout) == (0, "")


def test_an_unknown_source_in_a_monitor_leaves_the_others(box: Sandbox, tmp_path: Path) -> None:
    """Exit 1, the monitor is named, and the other one exists."""
    specs = [
        {"source_id": source, "metric": "temperature.fleet_zscore", "threshold": {"max": 3}}
        for source in ("dev-404", "dev-1")
    ]
    (tmp_path / "m.json").write_text(json.dumps(specs))
    env = environment(box.url, box.key)
    done = finished(["monitors", "apply", "m.json"], env, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "dev-404" in done.stdout + done.stderr
    assert "created" in done.stdout
    assert finished(["monitors", "plan", "m.json"], env, tmp_path).returncode == 1


def test_monitors_that_are_not_there(box: Sandbox, tmp_path: Path) -> None:
    """Exit 2 for a path without monitors, exit 3 for a bad key."""
    assert "no such file" in said(finished(["monitors", "plan"], environment(box.url, box.key), tmp_path), 2)
    (tmp_path / "m.json").write_text('{"source_id":"dev-1","metric":"t.zscore","threshold":{"max":3}}')
    bad = finished(["monitors", "plan", "m.json"], environment(box.url, UNKNOWN_KEY), tmp_path)
    assert "401" in said(bad, 3)
