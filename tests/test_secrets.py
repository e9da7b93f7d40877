"""Everything that real processes write, searched for the key and for a proxy's password, in every form.

The platform is the sandbox behind a gate that answers every third request with an error and echoes the key
that it was sent: as it is, percent-encoded, in base64, escaped, in a header.
"""

from __future__ import annotations

import base64
import http.server
import itertools
import json
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from subprocess_worker import environment, finished, started, wait_for_state

from plexus_detect.sandbox import Key, Sandbox, Settings

KEY = "plx_S3cretS3cretS3cretS3cretS3cret00"
PASSWORD = "hunter22hunter22"


def forms(secret: str) -> dict[str, bytes]:
    """What of a secret would give it away, by the form that it is in."""
    whole = secret.encode()
    core = {f"base64 at {n}": base64.b64encode(b"\0" * n + whole)[4 * (n > 0) : -4] for n in range(3)}
    return {
        "plain": whole[4:],
        "reversed": whole[:3:-1],
        "percent": "".join(f"%{c:02X}" for c in whole[4:]).encode(),
        "JSON": "".join(f"\\u{c:04x}" for c in whole[4:]).encode(),
        "hexadecimal": whole[4:].hex().encode(),
        **core,
    }


def found(text: bytes, secret: str) -> list[str]:
    """The forms in which a secret stands in a text, in capitals or not."""
    low = text.lower()
    return [name for name, form in forms(secret).items() if form in text or form.lower() in low]


ECHOES = [
    (500, lambda key: f"no such key: {key}"),
    (500, lambda key: "".join(f"%{ord(c):02x}" for c in key)),
    (503, lambda key: base64.b64encode(f"x-api-key:{key}".encode()).decode()),
    (400, lambda key: json.dumps({"error": "".join(f"\\u{ord(c):04x}" for c in key)})),
    (429, lambda key: key.encode().hex()),
    (404, lambda key: f"<h1>{''.join(f'&#{ord(c)};' for c in key)}</h1>"),
    (302, lambda key: key),
    (200, lambda key: f"<html>{key}"),
]


@contextmanager
def gate(box: Sandbox, every: int = 3) -> Iterator[str]:
    """The address of a server that passes requests on to the sandbox, and echoes the key in between."""
    echoes, numbers = itertools.cycle(ECHOES), itertools.count(1)

    class Gate(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))) or None
            number = next(numbers)
            if number > 8 and number % every == 0:  # the start has to succeed
                status, echo = next(echoes)
                said = echo(self.headers["x-api-key"])
                self.answer(status, {"content-type": "text/html", "location": f"/x?{said}"}, said.encode())
                return
            headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
            asked = urllib.request.Request(box.url + self.path, body, headers, method=self.command)
            try:
                with urllib.request.urlopen(asked) as passed:
                    self.answer(passed.status, dict(passed.headers), passed.read())
            except urllib.error.HTTPError as error:
                self.answer(error.code, dict(error.headers), error.read())

        do_POST = do_PATCH = do_GET  # noqa: N815  the names are the base class's

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in (
                    "content-length",
                    "transfer-encoding",
                    "connection",
                    "date",
                    "server",
                ):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module", name="box")
def _box() -> Iterator[Sandbox]:
    """A platform that knows the key, with two devices that have a past."""
    with Sandbox(Settings(keys={KEY: Key()})) as box:
        now = time.time_ns() // 1_000_000
        for d in range(2):
            box.load([(f"dev-{d}", "temperature", now - 1000 * k, 20 + k % 5 / 10) for k in range(90, 1, -1)])
        yield box


def everything_in(folder: Path) -> dict[str, bytes]:
    """Every file, as it lies on the disk, but for the key's own."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "key"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("layout", ["logfmt", "json"])
def test_a_worker_in_trouble_writes_no_key(box: Sandbox, tmp_path: Path, layout: str) -> None:
    """Log at the level debug, state file, WAL, lock and holder, while it runs and after; the command line."""
    (tmp_path / "key").write_text(f"\n {KEY}\r\n\n")
    with gate(box) as url, (tmp_path / "log").open("w") as log:
        env = environment(url, "", poll__interval="100ms", log__level="debug", log__format=layout)
        env |= {"PLEXUS_API_KEY_FILE": "key", "PLEXUS_DETECT_STATE__SNAPSHOT_INTERVAL": "500ms"}
        worker = started(["run"], env, tmp_path, log)
        try:
            wait_for_state(tmp_path)
            until(lambda: (tmp_path / "log").read_text().count("plx_***") >= 3, worker.poll)
            running = everything_in(tmp_path)
            running["command line"] = Path(f"/proc/{worker.pid}/cmdline").read_bytes()
        finally:
            worker.send_signal(signal.SIGTERM)
            code = worker.wait(20)
    assert code == 143
    for name, content in [*running.items(), *everything_in(tmp_path).items()]:
        assert not found(content, KEY), name
    assert "plexus-detect.db-wal" in running
    assert "Traceback" not in (tmp_path / "log").read_text()


def until(done: object, ended: object, patience_s: float = 15.0) -> None:
    """Wait until something is so in another process, which must not end meanwhile."""
    deadline = time.monotonic() + patience_s
    while not done():  # type: ignore[operator]
        assert ended() is None  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_report_of_the_platform_holds_no_key(box: Sandbox, tmp_path: Path) -> None:
    """The page of a backtest, and what is printed."""
    env = environment(box.url, KEY)
    done = finished(["backtest", "--from", "1h", "--jobs", "1", "--html", "report.html"], env, tmp_path)
    assert done.returncode == 0, done.stderr
    files = everything_in(tmp_path)
    assert "report.html" in files
    for name, content in {**files, "out": done.stdout.encode(), "err": done.stderr.encode()}.items():
        assert not found(content, KEY), name


def test_a_server_that_is_not_trusted_gets_and_shows_no_key(tmp_path: Path) -> None:
    """Exit 2 and one sentence, through the real process."""
    certificate = trustme.CA().issue_cert("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *args: object) -> None:
            pass

    server = Quiet(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        env = environment(f"https://127.0.0.1:{server.server_port}", KEY)
        env.pop("SSL_CERT_FILE", None)
        done = finished(["run"], {**env, "NO_PROXY": "127.0.0.1"}, tmp_path)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert done.returncode == 2, done.stderr
    assert "is not trusted" in done.stderr
    assert not found(done.stderr.encode(), KEY)


def test_a_proxy_that_is_away_shows_no_password(tmp_path: Path) -> None:
    """Neither in the error nor in the log."""
    env = environment("https://platform.test", KEY, log__level="debug")
    env |= {"HTTPS_PROXY": f"http://me:{PASSWORD}@127.0.0.1:9", "NO_PROXY": ""}
    done = finished(["run", "--once"], env, tmp_path)
    assert done.returncode == 75, done.stderr
    for secret in (KEY, PASSWORD, f"me:{PASSWORD}"):
        assert not found(done.stderr.encode(), secret)


def test_a_sandbox_that_others_can_reach_says_so(tmp_path: Path) -> None:
    """Loopback is the default; another address has to be asked for, and is told on standard error."""
    assert Settings().host == "127.0.0.1"
    path = tmp_path / "log"
    with path.open("w") as log:
        command = ["sandbox", "--host", "0.0.0.0", "--port", "0"]
        process = started(command, environment("", KEY), tmp_path, log)
        try:
            until(lambda: "everybody who reaches the port" in path.read_text(), process.poll)
        finally:
            process.terminate()
            process.wait(10)
