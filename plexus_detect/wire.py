"""The platform's JSON, in and out.

Answers become columns or frozen values and nothing else is kept of them; an answer of a shape that we do
not know is a ContractError, never an empty result, because an empty result moves no cursor but a wrong
one would. Names are kept exactly as they arrive.

Telemetry pages are the bulk of all work. The three things that make their decoding fast: a msgspec Struct
with the needed fields only and outside the garbage collector, series looked up in nested dicts (no
tuple built per row), and all timestamps parsed in one NumPy operation over their bytes.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np
import numpy.typing as npt

from plexus_detect.errors import ContractError
from plexus_detect.redaction import redact, visible
from plexus_detect.series import F64, I64, Points, SeriesTable

T = TypeVar("T")

ANSWER_BYTES_MAX = 64 * 1024 * 1024  # four and a half times the largest page of ordinary rows (100,000)
EXCERPT_CHARS_MAX = 200
_SECONDS_BELOW = 10**12  # the gateway takes a smaller positive timestamp for seconds (contract section 3)
_TIME_MAX_MS = 1 << 42
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Row(msgspec.Struct, gc=False):
    source_id: str
    metric: str
    value: float | None
    timestamp: str


class _Telemetry(msgspec.Struct, gc=False):
    data: list[_Row]
    query: msgspec.Raw = msgspec.Raw(b"{}")


class _Query(msgspec.Struct):
    to: str


class _IngestReply(msgspec.Struct):
    success: bool
    count: Annotated[int, msgspec.Meta(ge=0)]
    dropped: Annotated[int, msgspec.Meta(ge=0)] = 0


class _FleetRow(msgspec.Struct):
    source_id: str
    metrics: dict[str, msgspec.Raw]


class _Fleet(msgspec.Struct):
    fleet: list[_FleetRow]


@dataclass(frozen=True)
class SourceRow:
    """A source as the app lists it: its slug, its UUID and its type, ``device`` or ``connection``."""

    slug: str
    id: str
    source_type: str


class _RawColumns(msgspec.Struct):
    timestamp_ms: list[int]


class _RawSeries(msgspec.Struct):
    series: dict[str, _RawColumns]


class _Sources(msgspec.Struct):
    sources: list[SourceRow]


class _Monitors(msgspec.Struct):
    monitors: list[dict[str, Any]]


class AlertStats(msgspec.Struct):
    """What the platform adds to an alert of a threshold when its condition has ended; times in seconds."""

    opened_at: float | None = None
    trigger_value: float | None = None
    peak_value: float | None = None
    retrigger_count: int | None = None


class AlertRow(msgspec.Struct):
    """One alert; ``alert_stats`` is an empty list until its condition ended, the time Postgres text."""

    id: str
    source_slug: str | None
    trigger_type: str
    metric: str
    value: float | None
    threshold: float | None
    triggered_at: str
    current_verdict: Literal["helpful", "noise"] | None
    alert_stats: AlertStats | list[Any] | None = None


class _Alerts(msgspec.Struct):
    alerts: list[AlertRow]


class _Point(msgspec.Struct, gc=False):
    source_id: str
    metric: str
    value: float
    timestamp: int | float


_TELEMETRY = msgspec.json.Decoder(_Telemetry)
_QUERY = msgspec.json.Decoder(_Query)
_INGEST_REPLY = msgspec.json.Decoder(_IngestReply)
_FLEET = msgspec.json.Decoder(_Fleet)
_SOURCES = msgspec.json.Decoder(_Sources)
_RAW_SERIES = msgspec.json.Decoder(_RawSeries)
_METRIC_NAMES = msgspec.json.Decoder(list[str])
_MONITORS = msgspec.json.Decoder(_Monitors)
_ALERTS = msgspec.json.Decoder(_Alerts)
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True)
class Page:
    """One decoded answer of ``GET /api/v1/telemetry``.

    ``points`` holds all rows in the order of the answer (a null value is NaN), ``count`` is their number
    as counted here, ``to_ms`` is the end of the window as the server understood it (None when the answer
    does not say so in a way we can read).
    """

    points: Points
    count: int
    to_ms: int | None


def decode_telemetry(body: bytes, table: SeriesTable, *, bytes_max: int = ANSWER_BYTES_MAX) -> Page:
    """The rows of a telemetry answer as columns; pairs seen for the first time are added to ``table``.

    Errors: ContractError for a body above ``bytes_max`` bytes, for anything but the JSON object of the
    contract (section 2), and for a timestamp that is not ``YYYY-MM-DD HH:MM:SS.mmm``. The table is then
    left as it was.
    """
    answer = _decoded(_TELEMETRY, body, "telemetry answer", bytes_max)
    rows = answer.data
    t_ms = _parse_timestamps([row.timestamp for row in rows])
    value = np.fromiter([row.value for row in rows], np.float64, len(rows))
    return Page(Points(_series_of(rows, table), t_ms, value), len(rows), _end_of_window(answer.query))


def _series_of(rows: list[_Row], table: SeriesTable) -> I64:
    known = table.by_source
    try:
        index = [known[row.source_id][row.metric] for row in rows]
    except KeyError:  # a first sight is rare, so the loop above pays nothing for it
        index = [table.add(row.source_id, row.metric) for row in rows]
    return np.fromiter(index, np.int64, len(index))


# --- timestamps: fixed width, always UTC, as ClickHouse prints DateTime64(3) -------------------------------

_SHAPE = np.frombuffer(b"0000-00-00 00:00:00.000\n", np.uint8)[:, None]
_COLUMN_MAX = np.where(ord("0") == _SHAPE, np.uint8(9), np.uint8(0))  # a digit, or exactly the separator
_MONTH_FIRST_DAY: I64 = (  # by months since year 0; days since the epoch
    np.arange("0000-01", "10000-02", dtype="datetime64[M]").astype("datetime64[D]").astype(np.int64)
)
_DAY_MS = 86_400_000


def _parse_timestamps(texts: list[str]) -> I64:
    """Milliseconds since the epoch, or a ContractError that names the first malformed row."""
    n, width = len(texts), len(_SHAPE)
    if n == 0:
        return np.zeros(0, np.int64)
    # The line break after each text is checked like every other separator. There are exactly n of them when
    # the check passes, so no text can lend a character to its neighbour or hide a break of its own.
    joined = ("\n".join(texts) + "\n").encode("ascii", "replace")
    if len(joined) != n * width:
        row = next(i for i, text in enumerate(texts) if len(text) != width - 1)
        raise _malformed(row, texts[row])
    t_ms, valid = _civil_ms(np.frombuffer(joined, np.uint8).reshape(n, width))
    if not valid.all():
        row = int(np.argmin(valid))
        raise _malformed(row, texts[row])
    return t_ms


def _civil_ms(lines: npt.NDArray[np.uint8]) -> tuple[I64, npt.NDArray[np.bool_]]:
    """Times of ``lines`` (n rows of 24 bytes) and which of them are valid; the others are meaningless."""
    digit = np.ascontiguousarray(lines.T) - _SHAPE  # unsigned: what is below '0' wraps to a large number

    def two(column: int) -> npt.NDArray[np.uint8]:
        return np.asarray(digit[column] * np.uint8(10) + digit[column + 1], np.uint8)

    month, day, hour, minute, second = (two(column) for column in (5, 8, 11, 14, 17))
    valid = (digit <= _COLUMN_MAX).all(axis=0)
    valid &= (month - np.uint8(1) < 12) & (hour < 24) & (minute < 60) & (second < 60)
    months = (two(0).astype(np.int64) * 100 + two(2)) * 12 + month - 1
    months[~valid] = 0  # keeps the look-ups below in range
    first_day = _MONTH_FIRST_DAY[months]
    valid &= day - np.uint8(1) < _MONTH_FIRST_DAY[months + 1] - first_day
    seconds = (hour.astype(np.int64) * 60 + minute) * 60 + second
    millis = (digit[20].astype(np.int64) * 10 + digit[21]) * 10 + digit[22]
    return (first_day + day - 1) * _DAY_MS + seconds * 1000 + millis, valid


def _malformed(row: int, text: str) -> ContractError:
    return ContractError(
        f"telemetry answer: row {row} has the timestamp {text[:40]!r}, not 'YYYY-MM-DD HH:MM:SS.mmm' in UTC"
    )


def _end_of_window(query: msgspec.Raw) -> int | None:
    try:
        to = datetime.fromisoformat(_QUERY.decode(query).to)
    except (msgspec.MsgspecError, ValueError):
        return None
    # A time without a zone would be in the server's own, which we do not know (contract trap 3).
    if to.tzinfo is None:
        return None
    to_ms = (to - _EPOCH) // timedelta(milliseconds=1)
    # It sets our clock: before 2001 and after 2109 it is a mistake, whoever's.
    return to_ms if _SECONDS_BELOW <= to_ms < _TIME_MAX_MS else None


# --- requests ---------------------------------------------------------------------------------------------


def telemetry_params(
    source: str | None,
    metrics: Sequence[str],
    from_ms: int,
    to_ms: int | None,
    limit: int,
    *,
    filter_bytes_max: int = 4000,
) -> dict[str, str]:
    """Query parameters of ``GET /api/v1/telemetry``: both ends inclusive, None and empty mean "all".

    Times go out as ISO with ``Z`` and three digits, since epochs are refused and naive texts are read in
    the server's zone. The platform splits and trims the metric list, so a name with a comma or with blanks
    around it cannot be asked for, and an address has a bounded length (``filter_bytes_max`` bytes for the
    escaped list): in those cases the filter is left out and the answer holds every metric of the window.
    """
    params = {"from": _iso(from_ms), "limit": str(limit)}
    if to_ms is not None:
        params["to"] = _iso(to_ms)
    if source is not None:
        params["source"] = source
    joined = ",".join(metrics)
    if metrics and all(map(_can_be_listed, metrics)) and len(quote(joined)) <= filter_bytes_max:
        params["metric"] = joined
    return params


def _can_be_listed(metric: str) -> bool:
    return metric != "" and "," not in metric and metric == metric.strip().strip("\ufeff")


def _iso(t_ms: int) -> str:
    return (_EPOCH + timedelta(milliseconds=t_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode_points(sources: list[str], metrics: list[str], t_ms: I64, value: F64) -> bytes:
    """Body of ``POST /ingest``: n points, each with its own source; times in ms, values always as floats.

    The gateway reads a timestamp below 1e12 as seconds, so a sample from before September 2001 (a device
    that never set its clock) is written in seconds and arrives as the same millisecond.

    Errors: ValueError when the columns differ in length, when a value is not finite (the gateway would
    refuse the whole batch) or when a time is not positive (the gateway would put its own in place of it).
    """
    if not len(sources) == len(metrics) == len(t_ms) == len(value):
        raise ValueError("columns of different length")
    if not np.isfinite(value).all():
        raise ValueError("a point that is not finite cannot be posted")
    stamps: list[int | float] = t_ms.tolist()
    if len(t_ms) and t_ms.min() < _SECONDS_BELOW:
        if t_ms.min() <= 0:
            raise ValueError("a point at or before the epoch cannot be posted")
        stamps = [t if t >= _SECONDS_BELOW else t / 1000 for t in stamps]
    return _ENCODER.encode({"points": list(map(_Point, sources, metrics, value.tolist(), stamps))})


def compressed(body: bytes) -> bytes:
    """The body as ``content-encoding: gzip`` has it, at the level that costs least."""
    try:
        from isal import igzip  # several times as fast at the same size
    except ImportError:
        return gzip.compress(body, compresslevel=1)
    return igzip.compress(body, compresslevel=1)


# --- the other answers ------------------------------------------------------------------------------------


def decode_ingest_reply(body: bytes, sent: int) -> int:
    """How many of ``sent`` points the gateway accepted: ``sent - max(dropped, sent - count)``.

    A success with a smaller count is a silent loss (contract trap 6).

    Errors: ContractError for another shape, or for an answer that does not claim success.
    """
    reply = _decoded(_INGEST_REPLY, body, "ingest answer")
    if not reply.success:
        raise ContractError(f"ingest answer: status 200 without success; the body is {excerpt(body)}")
    return max(0, min(sent, sent - max(reply.dropped, sent - reply.count)))


def decode_fleet_health(body: bytes) -> dict[str, tuple[str, ...]]:
    """Metric names by source, of the last hour (``GET /api/fleet/health``). Errors: ContractError."""
    return {row.source_id: tuple(row.metrics) for row in _decoded(_FLEET, body, "fleet health answer").fleet}


def decode_sources(body: bytes) -> tuple[SourceRow, ...]:
    """All sources (``GET /api/sources``). Errors: ContractError."""
    return tuple(_decoded(_SOURCES, body, "sources answer").sources)


def decode_metric_names(body: bytes) -> tuple[str, ...]:
    """All names ever stored of a source (``GET /v1/sources/{id}/metrics``). Errors: ContractError."""
    names: list[str] = _decoded(_METRIC_NAMES, body, "metric names answer")
    return tuple(names)


def decode_raw_times(body: bytes) -> list[int]:
    """The times in ms of all rows of ``GET /v1/sources/{id}/metrics/query`` with raw rows.

    Errors: ContractError.
    """
    found = _decoded(_RAW_SERIES, body, "raw rows answer").series
    return [t_ms for columns in found.values() for t_ms in columns.timestamp_ms]


def raw_params(metric: str, from_ms: int, to_ms: int) -> dict[str, str]:
    """Query parameters of ``GET /v1/sources/{id}/metrics/query`` for raw rows; the end is exclusive."""
    return {"metrics": metric, "start": _iso(from_ms), "end": _iso(to_ms), "interval": "raw"}


def decode_monitors(body: bytes) -> tuple[dict[str, Any], ...]:
    """All monitors as the platform shows them (``GET /api/monitors``). Errors: ContractError."""
    return tuple(_decoded(_MONITORS, body, "monitors answer").monitors)


def decode_alerts(body: bytes) -> tuple[AlertRow, ...]:
    """One page of alerts, the newest first (``GET /api/alerts``). Errors: ContractError."""
    return tuple(_decoded(_ALERTS, body, "alerts answer").alerts)


def excerpt(body: bytes, chars_max: int = EXCERPT_CHARS_MAX) -> str:
    """The start of a body for a message: one line of at most ``chars_max`` characters, keys masked."""
    # Masked before it is cut, so that no cut can leave a key's head unrecognised.
    text = body[: 20 * chars_max].decode("utf-8", "replace")
    return visible(" ".join(redact(text).split()))[:chars_max].rstrip()


def _decoded(
    decoder: msgspec.json.Decoder[T], body: bytes, what: str, bytes_max: int = ANSWER_BYTES_MAX
) -> T:
    if len(body) > bytes_max:
        raise ContractError(f"{what}: {len(body)} bytes, more than the {bytes_max} allowed")
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        reason = "nested too deep" if isinstance(exc, RecursionError) else exc
        raise ContractError(f"{what}: {reason}; the body starts {excerpt(body, 80)!r}") from exc
