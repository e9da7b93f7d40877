"""``plexus-detect serve``: options in, a server until a signal comes."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from plexus_detect.errors import ConfigError
from plexus_detect.options import extra

KEY_VARIABLE = "PLEXUS_DETECT_SERVE_KEY"

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_UNITS_BYTES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--port", default=14345, show_default=True, type=click.IntRange(0, 65535), help="Port.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("plexus-detect-serve"),
    show_default=True,
    help="Folder that keeps detectors, buffers and models.",
)
@click.option("--key-file", type=click.Path(path_type=Path), help="File with API keys, one a line.")
@click.option(
    "--max-detectors",
    default=1000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Streaming detectors kept in memory; the others wait on disk.",
)
@click.option(
    "--ttl", default="30d", show_default=True, help="Drop detectors and buffers unused for so long; 0: never."
)
@click.option("--max-body", default="16MiB", show_default=True, help="Largest request body.")
@click.option("--memory", default="1GiB", show_default=True, help="Memory for detectors, and for buffers.")
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="What is logged on standard error.",
)
def serve(key_file: Path | None, **options: Any) -> None:  # noqa: ANN401 - click gives each its type
    """Serve learned detectors over HTTP: streaming anomaly detection, batch models, Polars buffers.

    The paths begin with /v1/ml; /docs describes them. Without a key (also: the environment variable
    PLEXUS_DETECT_SERVE_KEY) everyone who reaches the port may ask.
    """
    from plexus_detect.logs import setup_logging

    setup_logging(str(options["log_level"]))
    with extra("serve"):
        from plexus_detect.serve.running import serve_until_stopped
        from plexus_detect.serve.settings import Settings
    settings = Settings(
        state=options["state"],
        keys=_keys(key_file),
        live_max=options["max_detectors"],
        ttl_s=seconds_of("--ttl", str(options["ttl"])),
        body_bytes_max=bytes_of("--max-body", str(options["max_body"])),
        memory_bytes_max=bytes_of("--memory", str(options["memory"])),
    )
    serve_until_stopped(settings, options["host"], options["port"])


def seconds_of(option: str, text: str) -> float:
    """A duration such as 12h, 30d or 0, in seconds; raises ConfigError."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", text.strip())
    if found is None or (not found[2] and int(found[1])):
        raise ConfigError(f"{option}: '{text}' is no duration; write 45s, 10m, 12h, 30d, or 0")
    return int(found[1]) * _UNITS_S.get(found[2], 0.0)


def bytes_of(option: str, text: str) -> int:
    """A size such as 16MiB, in bytes, at least 1; raises ConfigError."""
    found = re.fullmatch(r"(\d{1,12})((?:[KMG]iB)?)", text.strip())
    if found is None or not int(found[1]):
        raise ConfigError(f"{option}: '{text}' is no size; write a number of bytes, or 512KiB, 16MiB, 2GiB")
    return int(found[1]) * _UNITS_BYTES[found[2]]


def _keys(key_file: Path | None) -> tuple[str, ...]:
    """All keys; raises ConfigError for a file that cannot be read or holds none."""
    keys = [os.environ.get(KEY_VARIABLE, "")]
    if key_file is not None:
        try:
            lines = key_file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
            raise ConfigError(f"--key-file: {key_file} cannot be read ({reason}); check the path") from None
        found = [line.strip() for line in lines if line.strip()]
        if not found:
            raise ConfigError(f"--key-file: there is no key in {key_file}; write one a line")
        keys += found
    return tuple(dict.fromkeys(key.strip() for key in keys if key.strip()))
