"""What a state file holds, in words and as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from plexus_detect.series import SUFFIX, Kind
from plexus_detect.store import SCHEMA_VERSION
from plexus_detect.store.look import Look, SnapshotLook

# Alerts that the text lists; the JSON has all of them.
ALERTS_SHOWN = 20

_FITS = {
    True: "fit the newest snapshot: the next start goes on from it",
    False: "do not fit the newest snapshot: the next start warms up anew from the platform's history",
    None: "cannot be compared with a snapshot",
}

Row = tuple[str, str]


def size(n: int) -> str:
    """A number of bytes as people write it."""
    value, unit = float(n), "bytes"
    for larger in ("kB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return (
        f"{n} bytes" if unit == "bytes" else f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"
    )


def age(ms: int) -> str:
    """How long ago, in its two largest units that are not zero; the clock may have been put back."""
    if ms < 0:
        return "in the future"
    s = ms // 1000
    days, hours, minutes = s // 86400, s // 3600 % 24, s // 60 % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (s % 60, "s")]
    first = next((i for i, (n, _unit) in enumerate(parts) if n), 3)
    return " ".join(f"{n}{unit}" for n, unit in parts[first : first + 2] if n or first == 3) + " ago"


def _stamp(t_ms: int) -> str:
    try:
        return datetime.fromtimestamp(t_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{t_ms} ms"


def _many(n: int, word: str, more: str = "s") -> str:
    return f"{n} {word}{'' if n == 1 else more}"


def lines_of(found: Look, fits: bool | None, now_ms: int) -> list[str]:
    """The text of ``state show``: names on the left, what is so on the right."""
    rows = [*_file_rows(found, fits), *_content_rows(found, now_ms)]
    width = max(len(name) for name, _text in rows)
    return [f"{name:{width}}  {text}".rstrip() for name, text in rows]


def _file_rows(found: Look, fits: bool | None) -> Iterator[Row]:
    wal = f", and {size(found.wal_bytes)} in its WAL" if found.wal_bytes else ""
    yield "state file", found.path
    yield "size", f"{size(found.bytes)}{wal}"
    older = "" if found.schema == SCHEMA_VERSION else f"; the next start brings it to {SCHEMA_VERSION}"
    yield "schema", f"{found.schema}{older}"
    if found.holder is not None:
        yield "in use", f"by {found.holder}, version {found.holder.version}"
    else:
        yield "in use", "by a worker that is not known by name" if found.held else "by nobody"
    yield "settings", _FITS[fits]


def _content_rows(found: Look, now_ms: int) -> Iterator[Row]:
    sources = len({key.source for key in found.series.values()})
    yield "series", f"{len(found.series)} of {_many(sources, 'source')}"
    yield from _named("snapshots", [_snapshot(snapshot, now_ms) for snapshot in found.snapshots])
    journal, outbox = found.journal, found.outbox
    yield (
        "journal",
        f"{_many(journal.ticks, 'tick')} with {_many(journal.points, 'point')} to step through again",
    )
    waiting = "nothing waits"
    if outbox.oldest_ms is not None:
        batches = _many(outbox.batches, "batch", "es")
        oldest = f"the oldest of {_stamp(outbox.oldest_ms)}, {age(now_ms - outbox.oldest_ms)}"
        waiting = f"{_many(outbox.points, 'score')} in {batches}, {oldest}"
    yield "outbox", waiting
    yield from _named("alerts", _alerts(found, now_ms))
    yield from _named("totals", _aligned([(name, str(n)) for name, n in found.tally.items()], right=True))
    yield from _named("notes", _aligned(list(found.notes.items())))


def _named(name: str, lines: Sequence[str]) -> Iterator[Row]:
    """One row a line, the first with the name."""
    for i, line in enumerate(lines or ["none"]):
        yield name if i == 0 else "", line


def _aligned(pairs: Sequence[Row], *, right: bool = False) -> list[str]:
    left = max((len(name) for name, _text in pairs), default=0)
    width = max((len(text) for _name, text in pairs), default=0) if right else 0
    return [f"{name:{left}}  {text:>{width}}" for name, text in pairs]


def _snapshot(snapshot: SnapshotLook, now_ms: int) -> str:
    state = "checksum ok" if snapshot.intact else "DAMAGED, not used"
    made = f"{_stamp(snapshot.created_ms)}, {age(now_ms - snapshot.created_ms)}"
    return f"{made}, {size(snapshot.bytes)}, {state}"


def alert_name(found: Look, series: int, kind: int) -> str:
    """The source and metric of an alert as the platform knows them."""
    key = found.series[series]
    return f"{key.source} {key.metric}{SUFFIX[Kind(kind)]}"


def _alerts(found: Look, now_ms: int) -> list[str]:
    pairs = []
    for (series, kind), (since_ms, calm_ms) in list(found.alerts.items())[:ALERTS_SHOWN]:
        calm = "" if calm_ms is None else f", normal again since {_stamp(calm_ms)}"
        since = f"since {_stamp(since_ms)}, {age(now_ms - since_ms)}{calm}"
        pairs.append((alert_name(found, series, kind), since))
    more = len(found.alerts) - len(pairs)
    return [*_aligned(pairs), *([f"and {more} more"] if more else [])]


def json_of(found: Look, fits: bool | None, now_ms: int) -> dict[str, object]:
    """All of it for programs; times are milliseconds since 1970."""
    return {
        "now_ms": now_ms,
        "path": found.path,
        "bytes": found.bytes,
        "wal_bytes": found.wal_bytes,
        "schema": found.schema,
        "held": found.held,
        "holder": None if found.holder is None else asdict(found.holder),
        "settings_fit": fits,
        "series": len(found.series),
        "snapshots": [
            {"created_ms": s.created_ms, "bytes": s.bytes, "intact": s.intact} for s in found.snapshots
        ],
        "journal": asdict(found.journal),
        "outbox": asdict(found.outbox),
        "alerts": [
            {"series": alert_name(found, *which), "since_ms": since_ms, "calm_ms": calm_ms}
            for which, (since_ms, calm_ms) in found.alerts.items()
        ],
        "tally": dict(found.tally),
        "notes": dict(found.notes),
    }


def lost_lines(found: Look) -> list[str]:
    """What a start without this file will not know."""
    lines = [f"{found.path} holds the state of {len(found.series)} series"]
    if found.outbox.points:
        lines.append(f"{_many(found.outbox.points, 'score')} in its outbox will not be posted")
    if found.alerts:
        n = len(found.alerts)
        lines.append(
            f"{_many(n, 'alert')} may be open on the platform; "
            f"{'it resolves' if n == 1 else 'each resolves'} once its series is scored as normal again"
        )
    return lines


def after_reset(path: str, name: str, models: str) -> list[str]:
    """What was done, and what happens next."""
    return [
        f"moved to {name}; nothing was deleted",
        "the next start warms up from the platform's history, as far as poll.history reaches",
        "it does not know what was posted: scores of the last moments before may be posted a second time",
        f"learned models in {models} stay as they are",
        f"to go back: stop the worker, 'state reset' again, and rename {name} to {path}",
    ]
