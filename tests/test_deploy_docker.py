"""The image under examples/docker: not root, nothing secret in it, and it holds what the wheel needs."""

from __future__ import annotations

import http.server
import json
import re
import shlex
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from deployment import EXAMPLES, ROOT, documents, options

from plexus_detect import __version__
from plexus_detect.config import load_config

DOCKER = EXAMPLES / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text("utf-8")
COMPOSE = documents(DOCKER / "compose.yaml")[0]
HEALTH_PORT = 9090
HADOLINT = Path(sys.executable).parent / "hadolint"


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments, continued lines joined."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def last(name: str) -> str:
    """The argument of the last instruction of this name: that of the image which is made."""
    return [argument for instruction, argument in instructions() if instruction == name][-1]


def image_settings() -> dict[str, str]:
    """The variables that the image sets."""
    return dict(pair.split("=", 1) for pair in shlex.split(last("ENV")))


def health_command() -> list[str]:
    """What the image asks its health with."""
    return json.loads(last("HEALTHCHECK").partition("CMD ")[2])


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A port that answers /livez with ``status`` and everything else with 404."""

    class Live(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Live) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def asked(port: int) -> int:
    """The exit code of the image's health command, asked at another port."""
    python, *words = health_command()
    assert python == "python"
    words = [word.replace(str(HEALTH_PORT), str(port)) for word in words]
    return subprocess.run([sys.executable, *words], capture_output=True, timeout=20, check=False).returncode


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint has no wheel for this machine")
def test_hadolint_has_nothing_to_say() -> None:
    """The Dockerfile passes hadolint with all its rules."""
    done = subprocess.run(
        [str(HADOLINT), str(DOCKER / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_image_is_pinned_and_not_root() -> None:
    """The base has a full version, the user is a number other than 0, commands are lists, and nothing that
    looks like a key is set while building."""
    base = next(argument for name, argument in instructions() if name == "ARG")
    assert re.fullmatch(r"BASE=python:\d+\.\d+\.\d+-slim-\w+", base)
    assert all(argument.startswith("${BASE}") for name, argument in instructions() if name == "FROM")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last("USER"))
    assert isinstance(json.loads(last("ENTRYPOINT")), list)
    assert last("STOPSIGNAL") == "SIGTERM"
    assert not any(name == "ADD" for name, _ in instructions())
    for name, argument in instructions():
        if name in ("ENV", "ARG"):
            assert not re.search(r"KEY|TOKEN|SECRET|PASSWORD", argument, re.IGNORECASE), argument


def test_the_image_starts_the_worker() -> None:
    """Entry point and command are those of the program; state is in the volume; health can be asked from
    outside of the container."""
    (program,) = json.loads(last("ENTRYPOINT"))
    assert program == "plexus-detect"
    assert options(json.loads(last("CMD"))) == {"config_paths": (), "once": False}
    config = load_config([], image_settings())
    assert str(config.state.path.parent) == last("VOLUME")
    assert config.health.listen == f"0.0.0.0:{HEALTH_PORT}"
    assert last("EXPOSE") == str(HEALTH_PORT)


def test_the_build_sees_what_the_wheel_needs() -> None:
    """Every path that the wheel is made of is copied, exists, and is not kept out by the ignore file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {*wheel["packages"], *wheel["force-include"]}
    copied = {
        path
        for name, line in instructions()
        if name == "COPY" and "--from" not in line
        for path in line.split()
    }
    assert needed <= copied
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    shown = {line[1:] for line in ignore if line.startswith("!")}
    assert needed == shown
    assert all((ROOT / path).exists() for path in shown)
    assert next(line for line in ignore if line and not line.startswith("#")) == "*"


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_health_is_that_of_livez(status: int, code: int) -> None:
    """The container is healthy while /livez answers 200, and ill at any other answer."""
    with answering(status) as port:
        assert asked(port) == code


def test_a_worker_that_does_not_answer_is_ill() -> None:
    """Nobody listens: ill."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert asked(free.getsockname()[1]) == 1


def test_compose_follows_its_schema() -> None:
    """The file is what the Compose specification allows."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(DOCKER / "compose.yaml")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_compose_services_are_hardened(name: str) -> None:
    """No root, nothing writable but the state, no capability, bounded memory, the key from a file."""
    service: dict[str, Any] = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == last("USER")
    assert service["mem_limit"]
    assert service["image"] == f"plexus-detect:{__version__}"
    assert service["secrets"] == list(COMPOSE["secrets"])
    assert service["environment"] == {"PLEXUS_API_KEY_FILE": f"/run/secrets/{service['secrets'][0]}"}
    options(service["command"])


def test_compose_fits_the_image_and_the_repository() -> None:
    """The worker is asked as the image asks it and is waited for; what is mounted from here is here."""
    worker = COMPOSE["services"]["worker"]
    assert worker["healthcheck"]["test"] == ["CMD", *health_command()]
    assert int(worker["stop_grace_period"].rstrip("s")) * 1000 > load_config([], {}).health.stop_within_ms
    for service in COMPOSE["services"].values():  # monitors: their manifest, which the worker sees
        assert f"state:{last('VOLUME')}" in service["volumes"]
    assert worker["ports"] == [f"127.0.0.1:{HEALTH_PORT}:{HEALTH_PORT}"]
    build = worker["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
    mounted = [v for service in COMPOSE["services"].values() for v in service["volumes"] if v[0] in ".$"]
    for volume in mounted:
        host = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
        assert (DOCKER / host).exists(), volume
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert any(fnmatch("secrets/", pattern) for pattern in ignored)
