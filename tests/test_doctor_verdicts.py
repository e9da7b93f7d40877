"""doctor: what each answer of the platform means, without a platform; files, disk and the censor."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from fake_platform import KEY, settings

from plexus_detect.config import Config, load_config_with_origins
from plexus_detect.doctor import local
from plexus_detect.doctor.findings import Censor, Finding, exit_code, fail, ok, tally, warn
from plexus_detect.doctor.network import Ahead, Answers
from plexus_detect.doctor.verdicts import findings_of, heartbeat
from plexus_detect.errors import AuthError, ContractError, RejectedError, TransientError
from plexus_detect.probe import Probe, probes
from plexus_detect.store import Store

REACHED = Probe(took_ms={"name": 1.0, "connection": 2.0, "certificate": 9.0, "answer": 20.0}, status=200)
PING = b'{"ok":true,"loop_age_seconds":{"poll":3.2,"drain":1,"offline":null}}'
GOOD = Answers(
    dict.fromkeys(("app", "gateway", "read API"), REACHED),
    read=Ahead(0),
    write=b"",
    api=b'["t"]',
    ping=PING,
    sources=b'{"sources":[]}',
    monitors=b'{"monitors":[]}',
    found=set(),
)


def of(name: str, answers: Answers, config: Config | None = None) -> Finding:
    """The finding of a name."""
    return next(one for one in findings_of(config or settings(), answers) if one.name == name)


def test_good_answers_are_ok() -> None:
    """Every step's time is named."""
    found = list(findings_of(settings(), GOOD))
    assert {one.level for one in found} == {"ok"}
    assert (
        found[0].found == "https://app.plexus.company: DNS 1 ms, TCP 2 ms, TLS 9 ms, answer 20 ms, status 200"
    )
    assert of("alert engine", GOOD).found == "its loops ran lately: poll 3 s, drain 1 s"


@pytest.mark.parametrize(
    ("url", "level"),
    [
        ("http://plexus.lan", "warn"),
        ("http://192.0.2.7:3000", "warn"),
        ("http://localhost:3000", "ok"),
        ("http://127.0.0.1", "ok"),
        ("http://[::1]:80", "ok"),
        ("https://plexus.lan", "ok"),
    ],
)
def test_a_key_in_clear(url: str, level: str) -> None:
    """Without TLS the key can be read on its way, but for the way inside this machine."""
    finding = of("app", GOOD, settings(plexus__endpoint=url))
    assert finding.level == level
    assert ("the key travels there in clear" in finding.found) == (level == "warn")


@pytest.mark.parametrize(
    ("ahead_ms", "level"), [(0, "ok"), (-4_900, "ok"), (5_100, "warn"), (-3_600_000, "warn")]
)
def test_clocks(ahead_ms: int, level: str) -> None:
    """Five seconds apart is too much, in either direction, by the platform's own time or by a Date."""
    by_time, by_date = replace(GOOD, read=Ahead(ahead_ms)), Probe(ahead_ms=float(ahead_ms), status=200)
    assert of("clock", by_time).level == level
    of_date = replace(GOOD, read=Ahead(None), probes=GOOD.probes | {"gateway": by_date})
    assert of("clock", of_date).level == level
    assert of("clock", replace(GOOD, read=Ahead(None))).level == "warn"


@pytest.mark.parametrize(
    ("outcome", "level", "words"),
    [
        (b"[]", "ok", "takes the key"),
        (RejectedError("GET x -> 404: none"), "ok", "takes the key"),
        (AuthError("GET x -> 401: invalid api key"), "warn", "-> 401"),
        (AuthError("GET x -> 402; the organisation's billing is paused"), "warn", "billing"),
        (TransientError("GET x -> 500: oops"), "warn", "-> 500"),
        (ContractError("GET x -> an odd one"), "warn", "odd"),
        (b"{}", "warn", "metric names answer"),
        (None, "warn", "not checked"),
    ],
    ids=str,
)
def test_the_read_api(outcome: object, level: str, words: str) -> None:
    """Its troubles are told apart, and stop nothing."""
    finding = of("read API answers", replace(GOOD, api=outcome))  # type: ignore[arg-type]
    assert (finding.level, exit_code([finding])) == (level, 0)
    assert words in finding.found


@pytest.mark.parametrize(
    ("outcome", "level", "words"),
    [
        (TransientError('GET x -> 503: {"ok":false}'), "FAIL", "event and offline monitors are dead"),
        (b'{"ok":false,"loop_age_seconds":{"poll":900}}', "FAIL", "poll 900 s"),
        (RejectedError("GET x -> 404"), "warn", "does not say"),
        (b"<html>", "warn", "not known"),
        (b'{"ok":true,"loop_age_seconds":{"poll":"soon"}}', "warn", "not known"),
        (None, "warn", "not checked"),
    ],
    ids=["503", "stale", "404", "html", "odd", "not asked"],
)
def test_the_alert_engine(outcome: object, level: str, words: str) -> None:
    """A loop that stands still is exit 75: nobody would be told of a dead device, nor of a dead worker."""
    finding = of("alert engine", replace(GOOD, ping=outcome))  # type: ignore[arg-type]
    assert (finding.level, finding.exit_code) == (level, 75 if level == "FAIL" else 0)
    assert words in finding.found


def test_the_heartbeat_is_not_guessed_at() -> None:
    """A list that cannot be had or read proves nothing."""
    assert "-> 500" in heartbeat(settings(), replace(GOOD, monitors=TransientError("GET x -> 500"))).found
    assert "not known" in heartbeat(settings(), replace(GOOD, monitors=b"[]")).found
    assert "not checked" in heartbeat(settings(), replace(GOOD, sources=None)).found
    assert "first sign of life" in heartbeat(settings(), GOOD).found


# --- this machine -----------------------------------------------------------------------------------------


def test_a_key_of_the_wrong_length() -> None:
    """It is said, since every service refuses it."""
    env = {"PLEXUS_API_KEY": "plx_short"}
    config, origins = load_config_with_origins([], env)
    (finding,) = local.key(config, origins)
    assert (finding.level, finding.found) == (
        "warn",
        "from PLEXUS_API_KEY, with 9 characters; the platform's have 36",
    )


def test_who_may_read_the_file_with_the_key(tmp_path: Path) -> None:
    """A configuration that holds the key is no secret when everybody may read it."""
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"plexus": {"api_key": KEY}}))
    for mode, levels in ((0o644, ["ok", "warn"]), (0o640, ["ok"])):
        file.chmod(mode)
        config, origins = load_config_with_origins([file], {})
        found = list(local.key(config, origins))
        assert [one.level for one in found] == levels
        assert KEY not in "".join(one.found for one in found)


def test_a_state_file_in_use(tmp_path: Path) -> None:
    """A worker that runs is named, and is no trouble."""
    with closing(Store(tmp_path / "s.db")):
        found = {one.name: one for one in local.state(settings(state__path=str(tmp_path / "s.db")))}
    assert {one.level for one in found.values()} == {"ok"}
    assert found["worker"].found.startswith("running")
    assert "0 series" in found["state file"].found


def test_a_disk_that_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Little room is a warning, none is exit 4."""
    for free, level in ((1 << 20, "FAIL"), (500 << 20, "warn"), (5 << 30, "ok")):
        monkeypatch.setattr(local, "free_bytes", lambda _path, free=free: free)
        found = {one.name: one for one in local.state(settings(state__path=str(tmp_path / "s.db")))}
        assert found["disk"].level == level


# --- the report -------------------------------------------------------------------------------------------


def test_secrets_never_pass() -> None:
    """The key itself whatever its form, anything like a key, users of addresses, and what moves a cursor."""
    censor = Censor("odd key!")
    text = "odd key! plx_abcdefgh http://me:pw@host/x a\x1b[2J\nb"
    assert censor.clean(text) == "plx_*** plx_*** http://host/x a?[2J b"
    found = [ok("a", text), warn("bbb", "x", "do odd key!")]
    assert censor.lines(found) == [
        "ok    a    plx_*** plx_*** http://host/x a?[2J b",
        "warn  bbb  x; do plx_***",
    ]
    assert "odd key!" not in json.dumps(censor.values(found))


def test_the_first_failure_gives_the_exit_code() -> None:
    """Warnings give none."""
    found = [ok("a", ""), warn("b", ""), fail("c", "", exit_code=4), fail("d", "", exit_code=2)]
    assert exit_code(found) == 4
    assert exit_code(found[:2]) == 0
    assert tally(found) == "1 ok, 1 warning, 2 failed"


def test_an_address_that_makes_no_sense_is_a_failed_step() -> None:
    """Nothing is raised, whatever the address."""
    found = asyncio.run(probes({"x": "http://[::1", "y": "ftp://a.invalid", "z": "http://a..b.invalid/"}))
    assert all(one.failed is not None for one in found.values())


# --- origins ----------------------------------------------------------------------------------------------


def test_origins_are_of_what_was_given(tmp_path: Path) -> None:
    """Each value that was written has its place; a value that a later file or a variable replaced has that
    one's, and a section of a variable stands for all in it."""
    (tmp_path / "a.yaml").write_text("poll:\n  interval: 1s\n  limit: 10\nseries:\n- metrics: [a, b]\n")
    (tmp_path / "b.json").write_text('{"poll":\n{"limit": 20}}')
    env = {
        "PLEXUS_DETECT_DETECT": '{"window": 50}',
        "PLEXUS_ENDPOINT": "https://x.test",
        "PLEXUS_API_KEY": KEY,
    }
    config, origins = load_config_with_origins([tmp_path / "a.yaml", tmp_path / "b.json"], env)
    named = {".".join(map(str, path)): Path(origin.where).name for path, origin in origins.items()}
    assert named == {
        "poll.interval": "a.yaml:2",
        "poll.limit": "b.json:2",
        "series.0.metrics": "a.yaml:5",
        "detect.window": "PLEXUS_DETECT_DETECT",
        "plexus.endpoint": "PLEXUS_ENDPOINT",
        "plexus.api_key": "PLEXUS_API_KEY",
    }
    assert config.poll.limit == 20
