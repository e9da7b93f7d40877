"""Where the story goes when there is no live screen: JSON lines, or plain lines for pipes and logs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Protocol, TextIO

from plexus_detect.demo.story import Happening
from plexus_detect.demo.words import sentences
from plexus_detect.redaction import redact


class Outlet(Protocol):
    """Takes happenings as they come."""

    def show(self, happening: Happening) -> None:
        """Show one happening."""

    def refresh(self) -> None:
        """Something that is shown without being a happening may have changed."""

    def close(self) -> None:
        """Nothing more comes."""


class JsonLines:
    """One JSON object a line, and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, happening: Happening) -> None:
        """Write one object; a reader at the other end of a pipe gets it at once."""
        self._stream.write(json.dumps(happening.shown()) + "\n")
        self._stream.flush()

    def refresh(self) -> None:
        """Lines do not change."""

    def close(self) -> None:
        """Every line is out."""


class PlainLines:
    """Sentences, one a line, with the seconds since the start in front."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, happening: Happening) -> None:
        """Write the happening in words, if it has any."""
        for line in sentences(happening):
            self._stream.write(f"{happening.elapsed_s:6.1f} s  {line}\n")
        self._stream.flush()

    def refresh(self) -> None:
        """Lines do not change."""

    def close(self) -> None:
        """Every line is out."""


class Heard(logging.Handler):
    """Passes warnings of the worker, the sandbox and their libraries on as happenings.

    They must not write into the live screen. What the worker logs of anomalies is told from its report.
    """

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the component and the message of one record."""
        message = record.getMessage()
        if message.startswith("anomaly_"):
            return
        fields = getattr(record, "fields", None) or {}
        words = " ".join([message, *(f"{name}={value}" for name, value in fields.items())])
        if record.exc_info and record.exc_info[1] is not None:
            words += f": {record.exc_info[1]!r}"
        self._tell(record.name.removeprefix("plexus_detect."), redact(words))
