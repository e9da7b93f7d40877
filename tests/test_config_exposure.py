"""config: where others could read the key, a warning says so, once at each start."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from plexus_detect.config import load_config, readable_by_others
from plexus_detect.options import configured

KEY = "plx_0123456789abcdefABCDEF0123456789"
ADDRESSES = ("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL")


def warnings(url: str, key: str = KEY) -> tuple[str, ...]:
    """The warnings when all three services are at one address."""
    return load_config([], {**dict.fromkeys(ADDRESSES, url), "PLEXUS_API_KEY": key}).warnings()


@pytest.mark.parametrize(
    "host", ["platform.test", "10.0.0.5:8080", "[2001:db8::1]", "localhost.test", "0.0.0.0"]
)
def test_a_key_in_the_clear_is_told(host: str) -> None:
    """http:// to another machine: each of the three settings is named."""
    told = warnings(f"http://{host}")
    assert len(told) == 3
    assert told[0] == (
        f"plexus.endpoint is http://{host}: whoever is on the way there can read the API key; use https://"
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://platform.test",
        "http://127.0.0.1:8787",
        "http://127.9.9.9",
        "http://localhost:1",
        "http://[::1]:5",
    ],
)
def test_what_stays_here_or_is_encrypted_is_not(url: str) -> None:
    """https, and http within the machine."""
    assert warnings(url) == ()


def test_without_a_key_there_is_nothing_to_read() -> None:
    """A dry look at a configuration needs none."""
    assert warnings("http://platform.test", key="") == ()


@pytest.mark.skipif(os.name != "posix", reason="other systems have other rights")
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o600, 0o400])
def test_a_file_with_a_key_that_others_may_read_is_told(tmp_path: Path, mode: int) -> None:
    """Also in a comment; a file without a key may be read by anybody."""
    (tmp_path / "a.yaml").write_text(f"poll: {{}}\n# plexus: {{api_key: {KEY}}}\n")
    (tmp_path / "b.yaml").write_text("poll: {}\n")
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).chmod(mode)
    told = readable_by_others([tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "nowhere.yaml"])
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        assert len(told) == 1
        assert told[0].startswith(f"{tmp_path}/a.yaml holds an API key and others may read it; run chmod 600")
        assert KEY not in told[0]
    else:
        assert told == ()


def test_the_start_logs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As config_warning, and the key is in no line."""
    for name in [name for name in os.environ if name.startswith("PLEXUS")]:
        monkeypatch.delenv(name)
    path = tmp_path / "a.yaml"
    path.write_text(f"plexus: {{api_key: {KEY}}}\n")
    path.chmod(0o644)
    configured((path,))
    told = [r.fields["msg"] for r in caplog.records if r.getMessage() == "config_warning"]  # type: ignore[attr-defined]
    assert any("chmod 600" in line for line in told)
    assert KEY not in caplog.text
