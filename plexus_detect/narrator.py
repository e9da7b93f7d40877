"""Tells in the log what ticks did: each event once, what lasts only when it has doubled."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from plexus_detect.cursor import Query
from plexus_detect.logs import PACKAGE, event
from plexus_detect.report import TickReport
from plexus_detect.running import Running
from plexus_detect.series import Points
from plexus_detect.store.records import Dropped
from plexus_detect.telling import stamp, told

# Ticks are the worker's, whoever words them.
log = logging.getLogger(f"{PACKAGE}.worker")


class Narrator:
    """What one worker has to say."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._hidden: set[str] = set()
        self._failing_ticks = 0
        self._refused = 0

    def tick(self, report: TickReport) -> None:
        """The anomalies of a tick, its failures, and its line."""
        for happened in report.events:
            key = self._running.table.keys[happened.series]
            event(log, logging.WARNING, f"anomaly_{happened.what}", **told(happened, key))
        self._failures(report.errors)
        event(log, logging.INFO, "tick", **report.counts())

    def _failures(self, errors: Sequence[str]) -> None:
        """One line for all failures of a tick, and while they last only when their number has doubled."""
        if not errors:
            if self._failing_ticks:
                event(log, logging.INFO, "query_recovered", ticks=self._failing_ticks)
            self._failing_ticks = 0
            return
        self._failing_ticks += 1
        if self._failing_ticks.bit_count() == 1:
            what = {"queries": len(errors), "ticks": self._failing_ticks}
            event(log, logging.WARNING, "query_failed", exc_info=None, err=errors[0], **what)

    def hidden(self, metrics: set[str]) -> None:
        """A metric that devices send under the name of a group is not read: say so once."""
        for metric in sorted(metrics - self._hidden):
            event(log, logging.WARNING, "metric_hidden", metric=metric, by=f"detectors: {metric}")
        self._hidden |= metrics

    def gaps(self, answers: Sequence[tuple[Query, Points, int]]) -> None:
        """After an outage longer than poll.catchup_max some of the past is never read: say so."""
        for query, points, _to_ms in answers:
            covered = self._running.cursors.covered_ms[query.series]
            gone = (covered >= 0) & (covered < query.from_ms)
            if len(points) and gone.any():
                since = stamp(int(covered[gone].min()))
                till = stamp(query.from_ms)
                event(log, logging.WARNING, "gap_skipped", series=int(gone.sum()), since=since, till=till)

    def dropped(self, gone: Dropped) -> None:
        """The outbox was full: what is lost."""
        event(
            log,
            logging.ERROR,
            "outbox_full",
            dropped=gone.points,
            series=gone.series,
            since=stamp(gone.since_ms),
            till=stamp(gone.till_ms),
        )

    def series(self, expired: int) -> None:
        """Series that vanished are forgotten; those that state.series_max leaves out are told when more."""
        if expired:
            left = self._running.series_count()
            event(log, logging.INFO, "series_expired", series=expired, left=left)
        refused = len(self._running.refused)
        if refused > self._refused:
            most = self._running.series_max
            event(log, logging.ERROR, "series_refused", series=refused, series_max=most)
        self._refused = refused
