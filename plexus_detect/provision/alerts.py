"""The alerts of thresholds that the platform keeps, with the verdicts that people gave them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from plexus_detect.errors import ContractError
from plexus_detect.monitors.verdicts import Alert
from plexus_detect.retry import retried
from plexus_detect.wire import AlertRow, AlertStats, decode_alerts

PAGE = 1000
# The platform prints the opening of an alert to the second in one place and as an epoch in the other.
SAME_OPENING_S = 2.0


class AlertApi(Protocol):
    """The one call that is needed; ``client.Client`` has it."""

    async def alerts(self, params: dict[str, str]) -> bytes:
        """GET {app}/api/alerts."""


async def read_alerts(api: AlertApi, since_ms: int) -> tuple[Alert, ...]:
    """Every alert of a threshold that opened at ``since_ms`` or later, the newest first.

    Pages are read until one adds nothing, since a short page need not be the last and new alerts push old
    ones back. No source is asked for by name: the platform answers a name that it does not know with the
    alerts of all. Raises ContractError for an answer of another shape, and the errors of ``client.Client``.
    """
    rows: dict[str, AlertRow] = {}
    offset = 0
    while True:
        params = {"triggerType": "alert_rule", "limit": str(PAGE), "offset": str(offset)}
        page = decode_alerts(await retried(partial(api.alerts, params)))
        fresh = [row for row in page if row.id not in rows]
        rows.update((row.id, row) for row in fresh)
        offset += len(page)
        if not fresh or _opened_s(fresh[-1]) * 1000 < since_ms:
            break
    found = (row for row in rows.values() if _opened_s(row) * 1000 >= since_ms)
    return tuple(alert for row in found if (alert := _alert(row)) is not None)


def _alert(row: AlertRow) -> Alert | None:
    """The alert of a threshold; None for one of an offline monitor (no line) or a lost source."""
    if row.trigger_type != "alert_rule" or not row.source_slug or row.value is None or row.threshold is None:
        return None
    stats = row.alert_stats if isinstance(row.alert_stats, AlertStats) else AlertStats()
    return Alert(
        row.source_slug,
        row.metric,
        row.current_verdict,
        row.value,
        row.threshold,
        stats.peak_value,
        1 + stats.retrigger_count if _whole(row, stats) and stats.retrigger_count is not None else None,
    )


def _whole(row: AlertRow, stats: AlertStats) -> bool:
    """True where the figures are of the whole alert: an engine that restarts begins to count anew."""
    return (
        stats.peak_value is not None
        and stats.opened_at is not None
        and stats.trigger_value == row.value
        and abs(stats.opened_at - _opened_s(row)) <= SAME_OPENING_S
    )


def _opened_s(row: AlertRow) -> float:
    try:
        opened = datetime.fromisoformat(row.triggered_at)
    except ValueError:
        raise ContractError(f"alerts answer: triggered_at is {row.triggered_at[:40]!r}, not a time") from None
    return (opened if opened.tzinfo else opened.replace(tzinfo=UTC)).timestamp()
