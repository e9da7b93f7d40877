"""Whether the rows of a state file can be what we wrote. SQLite checks its pages, but not what is in them: a
bit that has flipped in a row is found here, and not by a traceback in the middle of a night."""

from __future__ import annotations

from plexus_detect.series import Kind
from plexus_detect.store.database import Database, damaged, decoded
from plexus_detect.store.records import TIME_MAX_MS, decode_derived
from plexus_detect.store.schema import ALERTS_AND_NOTES

_TIME = f"BETWEEN -{TIME_MAX_MS} AND {TIME_MAX_MS}"

# What no row of ours is like, by the schema since which there is the table.
_STRANGE: dict[int, dict[str, str]] = {
    1: {
        "series": (
            "typeof(source) <> 'text' OR typeof(metric) <> 'text' "
            f"OR typeof(emit_from_ms) NOT IN ('integer', 'null') OR emit_from_ms NOT {_TIME}"
        ),
        "coverage": "typeof(body) <> 'blob'",
        "journal": f"typeof(now_ms) <> 'integer' OR now_ms NOT {_TIME} OR typeof(body) <> 'blob'",
        "snapshot": (
            f"typeof(created_ms) <> 'integer' OR created_ms NOT {_TIME} OR typeof(journal_id) <> 'integer' "
            "OR typeof(fingerprint) <> 'text' OR typeof(sha256) <> 'text' OR typeof(body) <> 'blob'"
        ),
        "outbox": (
            "typeof(n) <> 'integer' OR n < 1 OR typeof(sent_ms) NOT IN ('integer', 'null') "
            f"OR sent_ms NOT {_TIME} OR typeof(body) <> 'blob' OR length(body) = 0"
        ),
        "tally": "typeof(name) <> 'text' OR typeof(n) <> 'integer'",
    },
    2: {
        "alerts": (
            "typeof(series) <> 'integer' OR series < 0 "
            f"OR typeof(kind) <> 'integer' OR kind NOT BETWEEN 0 AND {max(Kind).value} "
            f"OR typeof(since_ms) <> 'integer' OR since_ms NOT {_TIME} "
            f"OR typeof(calm_ms) NOT IN ('integer', 'null') OR calm_ms NOT {_TIME}"
        ),
        "notes": "typeof(name) <> 'text' OR typeof(value) <> 'text'",
    },
}


def require_sound(db: Database, version: int) -> None:
    """Raise StoreError when a row cannot be ours, with the name of its table."""
    known, first, last = db.execute("SELECT COUNT(*), MIN(id), MAX(id) FROM series").fetchone()
    if known and (first, last) != (0, known - 1):
        raise damaged(db.path, "rows of the table series are missing")
    if db.value("SELECT COUNT(*) FROM (SELECT DISTINCT source, metric FROM series)") != known:
        raise damaged(db.path, "a series is in it twice")
    for since, tables in _STRANGE.items():
        for table, strange in tables.items() if since <= version else ():
            if db.value(f"SELECT COUNT(*) FROM {table} WHERE {strange}"):  # noqa: S608  the words stand above
                raise damaged(db.path, f"a row of the table {table} is none of ours")
    if version >= ALERTS_AND_NOTES and db.value("SELECT COALESCE(MAX(series), -1) FROM alerts") >= known:
        raise damaged(db.path, "there are alerts of a series that is not known")
    for (body,) in db.execute("SELECT body FROM outbox"):
        derived = decoded(db.path, decode_derived, body)
        if not 0 <= derived.series.min() <= derived.series.max() < known:
            raise damaged(db.path, "the outbox has scores of a series that is not known")
