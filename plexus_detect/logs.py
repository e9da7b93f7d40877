"""One line an event on standard error, as logfmt, JSON or text, and never an API key in it.

Every line has the keys ``ts`` (UTC, milliseconds), ``level``, ``component`` (the module) and ``event``;
what else an event says follows in the order in which it was given. logfmt is the form of
https://brandur.org/logfmt: a value with spaces, quotes or control characters stands in JSON quotes.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

from plexus_detect.redaction import redact, visible

LogFormat = Literal["logfmt", "json", "text"]

PACKAGE = "plexus_detect"
_STABLE_KEYS = ("ts", "level", "component", "event")
_NEEDS_QUOTES = re.compile(r'[\s"=\\]')


def event(
    logger: logging.Logger,
    level: int,
    name: str,
    /,
    *,
    exc_info: BaseException | None = None,
    **fields: object,
) -> None:
    """Log that ``name`` happened, with whatever there is to say about it.

    With ``exc_info`` the line also has the error as ``err`` and where it came from as ``trace``.
    """
    logger.log(level, name, extra={"fields": fields}, exc_info=exc_info, stacklevel=2)


def setup_logging(level: str = "info", format: LogFormat = "logfmt", stream: TextIO | None = None) -> None:  # noqa: A002
    """Send the package's log to ``stream`` (standard error when None); a second call replaces the first.

    Other libraries are heard from "warning" on. ``level`` is debug, info, warning or error; raises
    ValueError for another one and KeyError for another format.
    """
    handler = _OneLineHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_OneLine(_LAYOUTS[format]))
    logging.getLogger(PACKAGE).setLevel(level.upper())
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _OneLineHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)


def is_set_up() -> bool:
    """Whether the package's log goes somewhere."""
    return any(isinstance(handler, _OneLineHandler) for handler in logging.getLogger().handlers)


class _OneLineHandler(logging.StreamHandler[TextIO]):
    """Ours, so that a second call of ``setup_logging`` knows what to replace."""


class _OneLine(logging.Formatter):
    """A record as one line; the last step takes API keys out, wherever they came from."""

    def __init__(self, layout: Callable[[Mapping[str, object]], str]) -> None:
        super().__init__()
        self._layout = layout

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        return redact(self._layout(self._said(record)))

    def _said(self, record: logging.LogRecord) -> dict[str, object]:
        fields: Mapping[str, object] | None = getattr(record, "fields", None)
        said: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "component": record.name.removeprefix(f"{PACKAGE}."),
            "event": "log" if fields is None else record.getMessage(),
        }
        if fields is None:  # a line of another library, or one written without event()
            said["msg"] = record.getMessage()
        for key, value in (fields or {}).items():
            said[f"{key}_" if key in _STABLE_KEYS else key] = value
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            said.setdefault("err", f"{type(error).__name__}: {error}")
            said["trace"] = self.formatException(record.exc_info)
        return said


def _plain(value: object) -> object:
    """The value as JSON can hold it: NumPy scalars as Python's, infinities and NaN as words."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:
        value = item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _quoted(text: str) -> str:
    """JSON quotes, with everything escaped that could end the line or is not seen."""
    return visible(json.dumps(text, ensure_ascii=False))


def _bare_or_quoted(value: object) -> str:
    plain = _plain(value)
    text = plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    bare = text and text.isprintable() and not _NEEDS_QUOTES.search(text)
    return text if bare else _quoted(text)


def _logfmt(said: Mapping[str, object]) -> str:
    return " ".join(f"{_key(key)}={_bare_or_quoted(value)}" for key, value in said.items())


def _key(key: str) -> str:
    return re.sub(r"[^\w.-]+", "_", key)


def _json(said: Mapping[str, object]) -> str:
    return json.dumps({key: _plain(value) for key, value in said.items()}, separators=(",", ":"))


def _text(said: Mapping[str, object]) -> str:
    rest = {key: value for key, value in said.items() if key not in _STABLE_KEYS}
    head = f"{said['ts']} {str(said['level']).upper():7} {said['component']}: {_line(str(said['event']))}"
    return f"{head} {_logfmt(rest)}".rstrip()


def _line(text: str) -> str:
    return text if text.isprintable() else _quoted(text)


_LAYOUTS: dict[str, Callable[[Mapping[str, object]], str]] = {"logfmt": _logfmt, "json": _json, "text": _text}
