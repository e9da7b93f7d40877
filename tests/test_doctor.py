"""doctor: what it finds on a good platform and on every bad one, with the exit code and without the key."""

from __future__ import annotations

import http.server
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from subprocess_worker import UNKNOWN_KEY, environment, finished

from plexus_detect import cli, clock
from plexus_detect.config import variable_names
from plexus_detect.doctor import command
from plexus_detect.doctor.findings import Finding
from plexus_detect.sandbox import FULL_KEY, READ_KEY, WRITE_KEY, Sandbox

CERTIFICATE = Path(__file__).parent / "fixtures" / "self_signed.pem"
PLATFORM = ("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL")


@pytest.fixture(scope="module", name="box")
def _box() -> Iterator[Sandbox]:
    """One platform with three devices that have a past."""
    with Sandbox() as box:
        now = time.time_ns() // 1_000_000
        for device in ("dev-1", "dev-2", "test-3"):
            for metric in ("temperature", "humidity"):
                box.load([(device, metric, now - 1000 * k, 20 + k % 5 / 10) for k in range(20, 1, -1)])
        yield box


@pytest.fixture(autouse=True)
def _room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, no variables of ours and no proxies; the log goes where the test's errors go."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(clock, "sleep_s", _no_time)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    for name in (*variable_names(), *PLATFORM, "PLEXUS_API_KEY", "PLEXUS_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


async def _no_time(_s: float) -> None:
    """Waits between two attempts take none."""


class Report:
    """What doctor says, as values and as text, and with what it ends."""

    def __init__(self, code: int, values: str, text: str) -> None:
        self.code, self.text = code, text
        whole = json.loads(values)
        assert whole["exit_code"] == code
        self.checks: list[dict[str, str]] = whole["checks"]
        self.settings: dict[str, tuple[str, str]] = {
            one["key"]: (one["value"], one["origin"]) for one in whole["settings"]
        }

    def of(self, name: str) -> dict[str, str]:
        """The worst of the findings of a name."""
        found = [check for check in self.checks if check["name"] == name]
        return max(found, key=lambda check: ("ok", "warn", "FAIL").index(check["level"]))

    def bad(self) -> list[str]:
        """The names of the checks that failed."""
        return [check["name"] for check in self.checks if check["level"] == "FAIL"]


def examined(capsys: pytest.CaptureFixture[str], *arguments: str, secrets: tuple[str, ...] = ()) -> Report:
    """Run doctor; what it found is printed as JSON and as text: neither may hold a secret or a traceback."""
    findings: list[Finding] = []
    make = command.examined

    def once(*given: Any) -> Iterator[Finding]:
        if not findings:
            findings.extend(make(*given))
        yield from findings

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "examined", once)
        outs = [_printed(capsys, arguments, output, secrets) for output in ("json", "text")]
    assert len({code for code, _ in outs}) == 1
    return Report(outs[0][0], outs[0][1], outs[1][1])


def _printed(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], output: str, secrets: tuple[str, ...]
) -> tuple[int, str]:
    with pytest.raises(SystemExit) as left:
        cli.cli(["doctor", *arguments, "--output", output], standalone_mode=False)
    captured = capsys.readouterr()
    for secret in (FULL_KEY, READ_KEY, WRITE_KEY, UNKNOWN_KEY, *secrets):
        assert secret not in captured.out + captured.err
    assert "Traceback" not in captured.out + captured.err
    return int(str(left.value.code)), captured.out


def at(monkeypatch: pytest.MonkeyPatch, url: str, key: str = FULL_KEY, **more: str) -> None:
    """Let the environment name a platform and a key."""
    for name in PLATFORM:
        monkeypatch.setenv(name, url)
    monkeypatch.setenv("PLEXUS_API_KEY", key)
    for name, value in more.items():
        monkeypatch.setenv(f"PLEXUS_DETECT_{name.upper()}", value)


# --- a good platform --------------------------------------------------------------------------------------


def test_all_is_well(
    box: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every check passes but for what nobody has set up yet, one line each, and nothing is left behind."""
    at(monkeypatch, box.url)
    report = examined(capsys)
    assert (report.code, report.bad()) == (0, [])
    for name in ("configuration", "key", "app", "gateway", "read API", "read scope", "write scope"):
        assert report.of(name)["level"] == "ok", name
    for name in (
        "read API answers",
        "alert engine",
        "clock",
        "state folder",
        "state file",
        "disk",
        "versions",
    ):
        assert report.of(name)["level"] == "ok", name
    assert "6 of 6 series are read" in report.of("series")["found"]
    assert "dev-1/humidity" in report.of("rule series-0")["found"]
    assert report.of("heartbeat")["level"] == "warn"
    assert report.of("monitors")["level"] == "warn"
    lines = report.text.splitlines()
    assert lines[-1] == f"{len(report.checks) - 2} ok, 2 warnings, 0 failed"
    assert lines[0].startswith("ok    configuration     no file")
    assert list(tmp_path.iterdir()) == []


def test_each_setting_has_its_origin(
    box: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """File and line, variable or default; the key is masked, and the mode of its file is looked at."""
    (tmp_path / "k").write_text(FULL_KEY)
    (tmp_path / "k").chmod(0o644)
    (tmp_path / "a.yaml").write_text(
        "poll:\n  interval: 7s\n  overlap: 3s\nplexus:\n  api_key_file: k\nseries:\n"
        "  - sources: [dev-*]\n    detect:\n      threshold: 4\n"
    )
    (tmp_path / "b.yaml").write_text("poll:\n  overlap: 4s\n")
    at(monkeypatch, box.url, poll__limit="5000", fleet='{"group_min": 7}')
    monkeypatch.delenv("PLEXUS_API_KEY")
    report = examined(capsys, "-c", "a.yaml", "-c", "b.yaml")
    assert report.settings["poll.interval"] == ("7s", "a.yaml:2")
    assert report.settings["poll.overlap"] == ("4s", "b.yaml:2")
    assert report.settings["poll.limit"] == ("5000", "PLEXUS_DETECT_POLL__LIMIT")
    assert report.settings["plexus.endpoint"] == (box.url, "PLEXUS_ENDPOINT")
    assert report.settings["plexus.api_key"] == ("plx_***", "a.yaml:5")
    assert report.settings["series[0].detect.threshold"] == ("4.0", "a.yaml:9")
    assert report.settings["fleet.group_min"] == ("7", "PLEXUS_DETECT_FLEET")
    assert "poll.settle" not in report.settings
    assert report.of("key") == {
        "level": "warn",
        "name": "key",
        "found": "k holds it and everybody may read that",
        "to_do": "chmod 600 k",
    }
    assert "2 files, later over earlier: a.yaml, b.yaml" in report.of("configuration")["found"]
    assert "poll.overlap = 4s  (b.yaml:2)" in report.text
    every = examined(capsys, "--settings")
    assert every.settings["poll.settle"] == ("0s", "default")


def test_series_by_rule(
    box: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many each rule takes, which are excluded, which none takes; rules and groups that match nothing."""
    rules = [
        {"name": "rooms", "sources": ["*"], "metrics": ["temperature"], "exclude_sources": ["test-*"]},
        {"name": "again", "sources": ["dev-1"], "metrics": ["temperature"]},
        {"name": "typo", "sources": ["dve-*"]},
    ]
    groups = [
        {"name": "climate", "metrics": ["temperature", "humidity"], "sources": ["dev-1"]},
        {"name": "none", "metrics": ["a", "b"]},
    ]
    at(monkeypatch, box.url, series=json.dumps(rules), detectors=json.dumps(groups))
    report = examined(capsys)
    assert "3 of 6 series are read" in report.of("series")["found"]
    told = {(check["name"], check["level"]): check["found"] for check in report.checks}
    assert "excludes 1 series, such as test-3/temperature" in told["rule rooms", "ok"]
    assert "earlier rules take all 1" in told["rule again", "warn"]
    assert "matches nothing (sources dve-*; metrics *)" in told["rule typo", "warn"]
    assert told["not read", "ok"] == "no rule takes 2 series of the metrics humidity (2)"
    assert "1 sources, such as dev-1" in told["group climate", "ok"]
    assert "no source has two of its metrics" in told["group none", "warn"]
    assert "climate by ecod, models: none kept yet" in "".join(c["found"] for c in report.checks)


def test_monitors_that_can_never_fire(
    box: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A document must watch a score that this configuration posts; one that is no JSON is a mistake."""
    (tmp_path / "m.json").write_text(
        json.dumps(
            [
                {"source_id": "*", "metric": f"{metric}", "threshold": {"max": 3}}
                for metric in (
                    "temperature.zscore",
                    "humidity.zscore",
                    "temperature.drift",
                    "motor.anomaly",
                    "rpm",
                )
            ]
        )
    )
    at(monkeypatch, box.url, monitors__path="m.json", series='[{"metrics": ["temperature"]}]')
    report = examined(capsys)
    told = [check["found"] for check in report.checks if check["name"] == "monitors"]
    assert len(told) == 4
    assert "watches humidity.zscore, but no rule of series takes humidity" in told[0]
    assert "watches temperature.drift, but post.series has no drift" in told[1]
    assert "watches motor.anomaly, but detectors has no motor" in told[2]
    assert told[3] == "5 documents in m.json"
    (tmp_path / "m.json").write_text("{")
    broken = examined(capsys)
    assert (broken.code, broken.bad()) == (2, ["monitors"])


def test_the_heartbeat_is_watched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an offline monitor doctor says what to add, and is content once it is there."""
    with Sandbox() as box:
        at(monkeypatch, box.url)
        finding = examined(capsys).of("heartbeat")
        assert finding["level"] == "warn"
        assert '{"source_id": "plexus-detect", "offline": {"timeout_seconds": 300}}' in finding["to_do"]
        box.load([("plexus-detect", "up", time.time_ns() // 1_000_000, 1.0)])
        Path("monitors").mkdir()
        body = '{"source_id": "plexus-detect", "offline": {"timeout_seconds": 300}}'
        Path("monitors/heartbeat.json").write_text(body)
        env = environment(box.url, box.key)
        assert finished(["monitors", "apply"], env, Path.cwd()).returncode == 0
        watched = examined(capsys).of("heartbeat")
        assert watched["level"] == "ok"
        assert "tells after 300 s" in watched["found"]
        monkeypatch.setenv("PLEXUS_DETECT_HEARTBEAT__INTERVAL", "5m")
        assert "less than two intervals" in examined(capsys).of("heartbeat")["found"]
        monkeypatch.setenv("PLEXUS_DETECT_HEARTBEAT__ENABLED", "false")
        assert examined(capsys).of("heartbeat")["found"].startswith("is off")


# --- keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        (READ_KEY, 3, ["write scope"], "posting points needs write"),
        (WRITE_KEY, 3, ["read scope"], "reading telemetry needs read"),
        (UNKNOWN_KEY, 3, ["read scope", "write scope"], "unknown, expired"),
        ("", 3, ["key"], "there is none"),
        ("plx_S3cretS3 cret", 3, ["key", "client"], "gives is no key"),
        ("S3cretS3cretS3cret", 3, ["key", "client"], "gives is no key"),
    ],
    ids=["read only", "write only", "unknown", "none", "malformed", "another thing"],
)
def test_keys(
    box: Sandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, int, list[str], str],
) -> None:
    """Exit 3 with what the key lacks; the hosts are looked at all the same, and the key is never shown."""
    key, code, bad, words = case
    at(monkeypatch, box.url, key)
    report = examined(capsys, secrets=(key,) if key else ())
    assert (report.code, report.bad()) == (code, bad)
    assert words in report.of(bad[0])["found"]
    assert report.of("app")["level"] == "ok"
    if "key" in bad:
        assert report.of("read scope")["found"].startswith("not checked")


@contextmanager
def website(
    status: int, kind: str, body: bytes, headers: tuple[tuple[str, str], ...] = (), *, tls: bool = False
) -> Iterator[str]:
    """Some other server, which gives the same answer to everything."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  the names are the base class's

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that do not trust it leave
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http{'s' * tls}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# --- platforms that are none ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (
            (200, "text/html", b"<html>Welcome plx_S3cretS3cretS3cret</html>"),
            1,
            "not JSON: check the address",
        ),
        ((404, "text/html", b"<html>404</html>"), 1, "the address is not that of the platform"),
        ((200, "application/json", b'{"hello":"world"}'), 1, "telemetry answer"),
        ((200, "application/json", b"[" * 100_000), 1, "telemetry answer"),
        ((200, "application/json", b"\xff\x00{{{"), 1, "telemetry answer"),
        ((500, "application/json", b'{"error":"plx_S3cretS3cretS3cret"}'), 75, "-> 500"),
        ((503, "text/plain", b"upstream\x1b[2J down"), 75, "-> 503"),
        ((307, "text/html", b"", (("location", "/sign-in?next=x"),)), 3, "asks to sign in"),
        ((301, "text/html", b"", (("location", "https://user:pw@elsewhere.test/"),)), 1, "redirects are not"),
        ((402, "application/json", b'{"detail":"pay"}'), 3, "billing is paused"),
    ],
    ids=["html", "404", "json", "deep", "garbage", "500", "503", "sign-in", "moved", "402"],
)
def test_odd_answers(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: tuple[int, str, bytes],
    code: int,
    words: str,
) -> None:
    """No traceback for anything that a server may say, the exit code of its kind, and every check is made."""
    with website(*answer) as url:
        at(monkeypatch, url)
        report = examined(capsys, secrets=("S3cret", "user:pw", "\x1b"))
    assert report.code == code
    assert words in report.of("read scope")["found"]
    assert "read API answers" in {check["name"] for check in report.checks}
    assert report.of("versions")["level"] == "ok"


def test_a_host_that_does_not_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 75; the step that failed is named, for an address as for a name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    at(monkeypatch, url)
    monkeypatch.setenv("PLEXUS_GATEWAY_URL", "http://no-such-host.invalid")
    report = examined(capsys)
    assert report.code == 75
    assert "cannot be reached: TCP" in report.of("app")["found"]
    assert "cannot be reached: DNS" in report.of("gateway")["found"]
    assert report.of("read API")["level"] == "warn"
    assert report.of("series")["level"] == "warn"


def test_a_certificate_nobody_vouches_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A self-signed certificate fails until plexus.ca_file names it; a file that holds none is said so."""
    with website(200, "application/json", b'{"hello":"world"}', tls=True) as url:
        at(monkeypatch, url)
        refused = examined(capsys)
        assert refused.code == 75
        assert "cannot be reached: TLS" in refused.of("app")["found"]
        assert "plexus.ca_file" in refused.of("app")["to_do"]
        monkeypatch.setenv("PLEXUS_DETECT_PLEXUS__CA_FILE", str(CERTIFICATE))
        trusted = examined(capsys)
        assert trusted.of("app")["level"] == "ok"
        assert "TLS" in trusted.of("app")["found"]
        (tmp_path / "empty.pem").write_text("")
        monkeypatch.setenv("PLEXUS_DETECT_PLEXUS__CA_FILE", "empty.pem")
        assert "plexus.ca_file: empty.pem" in examined(capsys).of("client")["found"]


def test_a_proxy_is_named_without_its_password(
    box: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it cannot be reached, and among the settings."""
    at(monkeypatch, "http://plexus.test")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("HTTP_PROXY", f"http://me:hunter2@127.0.0.1:{port}")
    report = examined(capsys, secrets=("hunter2", "me:"))
    assert f"through the proxy http://127.0.0.1:{port}: proxy:" in report.of("app")["found"]
    assert report.settings["HTTP_PROXY"] == (f"http://127.0.0.1:{port}", "the environment")
    monkeypatch.setenv("HTTP_PROXY", "nonsense://me:hunter2@x y")
    assert examined(capsys, secrets=("hunter2",)).code in (2, 75)


# --- this machine -----------------------------------------------------------------------------------------


def test_a_configuration_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2 with file, line and what is wrong; nothing else is known then."""
    Path("c.yaml").write_text(f"plexus:\n  api_key: {FULL_KEY}\n  api_kez: {READ_KEY}\n")
    report = examined(capsys, "-c", "c.yaml")
    assert (report.code, report.bad()) == (2, ["configuration"])
    assert "c.yaml:3" in report.of("configuration")["found"]


def test_state_files(
    box: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A damaged file, and a folder that is not there, are exit 4; one in use names its worker."""
    at(monkeypatch, box.url, state__path="s.db")
    Path("s.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    damaged = examined(capsys)
    assert (damaged.code, damaged.bad()) == (4, ["state file"])
    monkeypatch.setenv("PLEXUS_DETECT_STATE__PATH", str(tmp_path / "nowhere" / "s.db"))
    nowhere = examined(capsys)
    assert (nowhere.code, nowhere.bad()) == (4, ["state folder"])


def test_learned_groups_without_their_model(
    box: Sandbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 2 and how to make one."""
    group = {"name": "g", "kind": "autoencoder", "metrics": ["temperature", "humidity"]}
    at(monkeypatch, box.url, detectors=json.dumps([group]))
    report = examined(capsys)
    assert (report.code, report.bad()) == (2, ["learned"])
    assert "train g" in report.of("learned")["found"]
