"""Everything a worker knows at run time, as one value that can be saved, loaded and replayed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from plexus_detect import closing, cursor, evaluate, queries
from plexus_detect.closing import Alert
from plexus_detect.columns import rooms
from plexus_detect.cursor import Advance, Cursors, PollParams, Query
from plexus_detect.evaluate import Evaluation, Policy, State
from plexus_detect.learn.job import Trainer
from plexus_detect.series import I64, Derived, Points, SeriesKey, SeriesTable

Columns = Mapping[str, npt.NDArray[np.generic]]
RuleFor = Callable[[str, str], int | None]


class Running:
    """The series table, the cursors and the state of the detectors, kept in step with each other.

    ``rule_for(source, metric)`` gives the index of the rule that scores a series, or None. A policy with
    groups needs a ``trainer``. At most ``series_max`` series are watched, which bounds memory; those that are
    too many are ``refused``.
    """

    def __init__(
        self,
        policy: Policy,
        poll: PollParams,
        rule_for: RuleFor,
        trainer: Trainer | None = None,
        series_max: int = 1 << 62,
    ) -> None:
        self.policy = policy
        self.poll = poll
        self.rule_for = rule_for
        self.trainer = trainer
        self.series_max = series_max
        self.refused: set[int] = set()
        self.table = SeriesTable()
        self.cursors = Cursors()
        self.state = State(self.table, policy, trainer=trainer)
        self.known = 0
        # The alerts that the platform may have open, and the series that are read only to close one.
        self.owed: Collection[Alert] = ()
        self.closers: set[int] = set()

    def fingerprint(self) -> str:
        """What a snapshot must agree with to be loaded."""
        return self.policy.fingerprint()

    def admit_new(self, emit_from_ms: int) -> list[tuple[int, SeriesKey, int | None]]:
        """Give every series that the table learned since the last call its cursor and its rule.

        Returns the new rows to store: (index, key, first time to post; None if it is not scored).
        """
        rows: list[tuple[int, SeriesKey, int | None]] = []
        while self.known < len(self.table):
            rows.append(self._admit(self.known, emit_from_ms))
            self.known += 1
        return rows

    def _admit(self, series: int, emit_from_ms: int) -> tuple[int, SeriesKey, int | None]:
        if series >= len(self.cursors):
            self.cursors.grow(max(64, 2 * len(self.cursors), series + 1))
        key = self.table.keys[series]
        if not self.wants(key) or self._full(series):
            return series, key, None
        self.cursors.selected[series] = not self.policy.is_score(key)
        self.state.admit(series, self._rule(key), emit_from_ms)
        self._name_groups(key)
        return series, key, emit_from_ms

    def _full(self, series: int) -> bool:
        """Whether there is no room for another series, which then is refused."""
        full = self.series_count() >= self.series_max
        if full:
            self.refused.add(series)
        return full

    def wake(self, met: Sequence[int], emit_from_ms: int) -> int:
        """Watch series of ``met`` again that had expired or were refused, while there is room; how many."""
        n = 0
        for series in met:
            expired = series < len(self.cursors) and bool(self.cursors.expired[series])
            if (expired or series in self.refused) and self.series_count() < self.series_max:
                self.refused.discard(series)
                if expired:
                    self.cursors.expired[series] = False
                    self.cursors.covered_ms[series] = -1
                n += self._admit(series, emit_from_ms)[2] is not None
        return n

    def expire(self, before_ms: int) -> int:
        """Forget the watched series without a sample since ``before_ms``; returns how many.

        Their rows are free for others; a series that is back is woken and warms up anew.
        """
        n = len(self.table)
        newest = self.cursors.last_ms[:n].copy()
        emit_from = self.state.emit_from_ms[:n]
        newest[: len(emit_from)] = np.maximum(newest[: len(emit_from)], emit_from)
        gone = np.flatnonzero(self.cursors.selected[:n] & (newest < before_ms)).tolist()
        gone = [series for series in gone if series not in self.closers]
        if gone:
            self.cursors.selected[gone] = False
            self.cursors.expired[gone] = True
            self.state.release(gone)
        return len(gone)

    def wants(self, key: SeriesKey) -> bool:
        """Whether a series is scored by a rule, joined for a group, or the name of a group's scores."""
        rule = self._rule(key) is not None
        return rule or self.policy.is_score(key) or bool(self.policy.groups_of(key))

    def _rule(self, key: SeriesKey) -> int | None:
        return None if self.policy.is_score(key) else self.rule_for(*key)

    def _name_groups(self, key: SeriesKey) -> None:
        """Give the scores of the groups that a series is joined for a series of their own."""
        for group in self.policy.groups_of(key):
            self.table.add(key.source, group.name)

    def queries(self, now_ms: int, busy: Sequence[I64] = ()) -> list[Query]:
        """The requests that bring every selected series up to ``now_ms``, but for those asked for already."""
        return queries.next_queries(self.cursors, self.table.keys, now_ms, self.poll, busy)

    def take(self, answers: Sequence[tuple[Query, Points, int]], now_ms: int) -> tuple[Advance, Evaluation]:
        """Take whole answers (query, rows, server's time): move the cursors, evaluate all that is new."""
        moved = [
            cursor.advance(self.cursors, query, rows, to_ms, self.poll) for query, rows, to_ms in answers
        ]
        total = Advance(
            Points.concat([m.points for m in moved]),
            *(sum(counts) for counts in zip(*((m[1:]) for m in moved), strict=True)),
        )
        self.state.owed = self.owed
        found = evaluate.evaluate(self.state, total.points, now_ms)
        if self.owed or self.closers:
            zeros = closing.zeros(self.state.orphans(), total.points, self.table.keys)
            found = replace(found, derived=Derived.concat([found.derived, zeros]))
            self._dismiss()
        return total, found

    def _dismiss(self) -> None:
        """Stop reading what was read only to close an alert that is closed by now."""
        paid = self.closers - {series for series, _kind in self.owed}
        for series in paid:
            self.cursors.selected[series] = False
        self.closers -= paid

    def _call_closers(self) -> None:
        """Read series that nobody wants any more for as long as an alert of theirs may be open."""
        self.state.owed = self.owed
        for series, _kind in self.state.orphans():
            if series < len(self.table) and not self.policy.is_score(self.table.keys[series]):
                if not self.cursors.selected[series]:
                    self.closers.add(series)
                self.cursors.selected[series] = True
                if not self.state.knows(series):
                    self.state.admit(series, None)

    def series_count(self) -> int:
        """How many series are scored."""
        return int(self.cursors.selected.sum())

    # -- saving and loading

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """Everything as named columns, for a snapshot."""
        n = len(self.table)
        columns = {f"cursors.{k}": v for k, v in self.cursors.dump(n).items()}
        return columns | {f"state.{k}": v for k, v in evaluate.dump(self.state).items()}

    def restore(
        self, rows: Sequence[tuple[int, SeriesKey, int | None]], columns: Columns | None, covered_ms: I64
    ) -> None:
        """Take over stored series and, when ``columns`` is given and the rules still fit, a snapshot.

        Raises ValueError when the snapshot belongs to other rules: then the series warm up anew.
        """
        for _index, key, _emit_from in rows:
            self.table.add(*key)
        self.cursors.grow(len(self.table))
        if columns is not None:
            self._load(columns)
        self.known = len(self.table)
        for index, key, emit_from in rows:
            rule = self._rule(key)
            was = int(self.state.rule_of[index]) if index < len(self.state.rule_of) else -1
            if was >= 0 and rule is not None and rule != was:
                raise ValueError(f"{key.source}/{key.metric} is under another rule now")
            if was >= 0 and rule is None:
                self.state.retire(index)
            wanted = self.wants(key) and not self.cursors.expired[index] and not self._full(index)
            self.cursors.selected[index] = wanted and not self.policy.is_score(key)
            if wanted and (not self.state.knows(index) or (was < 0 and rule is not None)):
                self.state.admit(index, rule, emit_from or 0)
            if wanted:
                self._name_groups(key)
        self._call_closers()
        n = min(len(covered_ms), len(self.cursors))
        self.cursors.covered_ms[:n] = np.maximum(self.cursors.covered_ms[:n], covered_ms[:n])

    def _load(self, columns: Columns) -> None:
        parts = rooms(columns)
        self.cursors.load(parts["cursors"])
        self.cursors.grow(max(len(self.table), len(self.cursors)))
        self.state = evaluate.load(self.table, self.policy, parts["state"], self.trainer)

    def replay(self, points: Points, now_ms: int) -> None:
        """Step through a journalled tick again, without giving anything out.

        An entry at 0 only recorded series, between two ticks: no time had passed for the detectors.
        """
        if now_ms == 0:
            return
        cursor.retake(self.cursors, points, self.poll)
        evaluate.evaluate(self.state, points, now_ms)

    def chill(self, last_ms: I64) -> None:
        """Make every series cold, to be warmed from the platform, and post nothing that was posted before."""
        self.cursors.covered_ms[:] = -1
        for series in np.flatnonzero(self.cursors.selected).tolist():
            if series < len(last_ms) and last_ms[series] >= 0:
                self.state.emit_from_ms[series] = last_ms[series] + 1
        # A row is as new as its newest value.
        for group in self.state.groups:
            for series, members in group.posted():
                known = members[members < len(last_ms)]
                self.state.emit_from_ms[series] = last_ms[known].max(initial=-1) + 1
