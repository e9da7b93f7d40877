"""The real command line in this process: arguments and standard input in, all that it left out.

``through`` calls ``cli.main`` itself, so that its handling of errors is what is tested. A mistake of the
program, which ``main`` tells in a last sentence of its own, fails the test.
"""

from __future__ import annotations

import io
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from plexus_detect.cli import main

KEY = "plx_S3cretS3cretS3cretS3cretS3cret00"
NOWHERE = "http://127.0.0.1:9"  # the port that discards; nothing answers there
SENTENCE_CHARS_MAX = 900

_PLATFORM = ("PLEXUS_ENDPOINT", "PLEXUS_GATEWAY_URL", "PLEXUS_API_URL")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_LOG_LINE = re.compile(r"ts=\S+ level=\w+ component=\S+ event=")


class Said(NamedTuple):
    """What a command left: its exit code, and everything on its two outputs."""

    code: int
    out: str
    err: str

    @property
    def sentences(self) -> list[str]:
        """The lines of standard error that are for people: not the log, not click's lines of usage."""
        lines = [line for line in self.err.splitlines() if not _LOG_LINE.match(line)]
        return [line for line in lines if line and not line.startswith(("Usage: ", "Try "))]


def through(
    folder: Path,
    arguments: list[str],
    given: str | bytes = b"",
    env: Mapping[str, str] | None = None,
    url: str | None = NOWHERE,
) -> Said:
    """Run ``plexus-detect`` in a folder with these arguments, this standard input and these variables."""
    stdin = io.TextIOWrapper(io.BytesIO(given.encode() if isinstance(given, str) else given), "utf-8")
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    variables = {"PLEXUS_API_KEY": KEY, **dict.fromkeys(_PLATFORM, url or ""), **(env or {})}
    with pytest.MonkeyPatch.context() as patch, _logging_as_before():
        patch.chdir(folder)
        for name in [name for name in os.environ if name.upper().startswith(("PLEXUS", "SSL_", *_PROXIES))]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["plexus-detect", *arguments])
        for name, stream in (("stdin", stdin), ("stdout", out), ("stderr", err)):
            patch.setattr(sys, name, stream)
        code = _exit_code()
    said = Said(code, _written(out), _written(err))
    assert "stopped by a mistake" not in said.err, said.err
    assert "Traceback" not in said.err + said.out
    assert "S3cret" not in said.err + said.out
    return said


def _exit_code() -> int:
    try:
        main()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    content = stream.buffer
    assert isinstance(content, io.BytesIO)
    return content.getvalue().decode("utf-8", "replace")


@contextmanager
def _logging_as_before() -> Iterator[None]:
    """Leave the logging of the process as it was found."""
    root, package = logging.getLogger(), logging.getLogger("plexus_detect")
    before = root.handlers[:], root.level, package.level
    yield
    root.handlers[:], root.level, package.level = before


def refused(said: Said, code: int, *words: str) -> str:
    """The one sentence of a command that ended with ``code``: short, on one line, without a key, and with
    these words in it, which say what is wrong and where."""
    assert said.code == code, said
    assert len(said.sentences) == 1, said.err
    assert said.out == ""
    (sentence,) = said.sentences
    assert sentence.startswith(("plexus-detect: ", "Error: ")), sentence
    assert len(sentence) <= SENTENCE_CHARS_MAX, sentence
    for word in words:
        assert word in sentence, (word, sentence)
    return sentence


def file_at(folder: Path, name: str, content: str | bytes) -> Path:
    """A file with this content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content: what must not change."""
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
