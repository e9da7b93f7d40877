"""Events in words, for the log and for whoever reads it. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from plexus_detect.evaluate import Event
from plexus_detect.fleet import WORDS
from plexus_detect.series import SUFFIX, Kind, SeriesKey


def stamp(t_ms: int) -> str:
    """A time in ms as ISO text in UTC."""
    return datetime.fromtimestamp(t_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _told_of_fleet(happened: Event, metric: str) -> dict[str, Any]:
    """An event of a whole fleet in words for the log."""
    words = "moves as a whole" if happened.what == "opened" else "is back to normal"
    text = f"{metric} of the fleet {words}: {happened.value:.0f} devices, since {stamp(happened.since_ms)}"
    return {
        "metric": metric,
        "series": f"{metric}{SUFFIX[happened.kind]}",
        "verdict": WORDS[happened.verdict],
        "devices": int(happened.value),
        "since": stamp(happened.since_ms),
        "msg": text,
    }


def _told_of_group(happened: Event, key: SeriesKey) -> dict[str, Any]:
    """An event of metrics that are judged together in words for the log: who has the largest part in it."""
    words = "is anomalous" if happened.what == "opened" else "is back to normal"
    blame = ", ".join(f"{metric} {share:.0%}".replace("%", " %") for metric, share in happened.blame)
    text = f"{key.metric} on {key.source} {words}: score {happened.score:.1f} (learned {happened.backend})"
    return {
        "source": key.source,
        "metric": key.metric,
        "series": f"{key.metric}{SUFFIX[happened.kind]}",
        "check": happened.reason.name.lower(),
        "backend": happened.backend,
        "blame": blame,
        "score": round(happened.score, 2),
        "since": stamp(happened.since_ms),
        "msg": f"{text}{': ' * bool(blame)}{blame}, since {stamp(happened.since_ms)}",
    }


def told(happened: Event, key: SeriesKey) -> dict[str, Any]:
    """An event in words for the log: what, by which check, value, expected, score, since when."""
    series = f"{key.metric}{SUFFIX[happened.kind]}"
    if happened.kind is Kind.FLEET_EVENT:
        return _told_of_fleet(happened, key.metric)
    if happened.kind is Kind.ANOMALY:
        return _told_of_group(happened, key)
    since = stamp(happened.since_ms)
    words = {
        "opened": "is anomalous",
        "closed": "is back to normal",
        "relearned": "has a new normal level",
    }[happened.what]
    check, verdict = happened.reason.name.lower(), WORDS[happened.verdict]
    text = (
        f"{key.metric} on {key.source} {words}: {happened.value:.6g}, "
        f"expected {happened.expected:.6g}, score {happened.score:.1f} ({check}), since {since}"
    )
    return {
        "source": key.source,
        "metric": key.metric,
        "series": series,
        "check": check,
        "verdict": verdict,
        "value": happened.value,
        "expected": round(happened.expected, 6),
        "score": round(happened.score, 2),
        "since": since,
        "msg": text,
    }
