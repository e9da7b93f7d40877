"""The default detector: several checks of one series, each against its own past, as one score.

Nothing has to be tuned: cadence, resolution, noise and season of a series are measured. Each check gives a
value, each value is measured by its own line (``calibration``), and the largest counts: 1.0 is at the line,
whatever the check and the series. A young series, whose past says little, has a line further out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.columns import Column, Columns, Snapshot
from plexus_detect.detectors.base import DetectorParams, Receipt, Term
from plexus_detect.detectors.calibration import Lines
from plexus_detect.detectors.checks import PANE, Block, Check, Reading
from plexus_detect.detectors.levels import Levels
from plexus_detect.detectors.noise import Noise
from plexus_detect.detectors.novelty import Novelty
from plexus_detect.detectors.panes import Panes
from plexus_detect.detectors.season import Season
from plexus_detect.detectors.stuck import Stuck
from plexus_detect.series import F64, I64, Points, Reason, Rows, Scores, ascending, together
from plexus_detect.stats import Z_MAX, usable

# The line of a series of MATURE_POINTS is at 1 / SENSITIVITY of its record; a younger one's is further out by
# a power of its age. The age counts in doublings, so that it does not make one score larger than the last.
SENSITIVITY, MATURE_POINTS, AGE_POWER = 0.88, 16_384.0, 0.05

# Scores begin after so many panes; a level is not taken as normal before it lasted that many.
FIRST_PANES, RELEARN_PANES = 2, 8

# A score of so much is at the line, whatever ``threshold`` is: three, as of a z-score.
UNIT = 3.0

# A value above this says no more than that it is beyond every line.
VALUE_MAX = 1e7

# Checks whose own score is given beside the largest.
NAMED = (Reason.DRIFT, Reason.STUCK, Reason.NOISE, Reason.QUIET)

# Checks of where a series is: only these can be about a level that has become normal.
OF_LEVEL = frozenset({Reason.ROBUST, Reason.LEVEL, Reason.DRIFT, Reason.SEASON, Reason.NOVEL})


class _Ages(Columns):
    """Of each series: the largest values in the unfinished pane, the factor of its age,
    scores, and since when its level has been beyond the line (-1: it is not) for how many panes."""

    most: F64
    factor: F64
    off_since_ms: I64
    off_panes: F64

    def __init__(self, k: int) -> None:
        self.COLUMNS = {  # type: ignore[misc]
            "most": Column(shape=(k,), wide=True),
            "factor": Column(fill=np.nan),
            "off_since_ms": Column(fill=-1, dtype=np.int64),
            "off_panes": Column(),
        }
        super().__init__()


class _Judged(NamedTuple):
    """Of a block, all (m, w) or broadcast to it: signed score, score with what was alarmed discounted, code
    of the check that gave it, expected value, its deviation; ``parts`` (parts, m, w): values in lines."""

    score: F64
    fresh: F64
    reason: npt.NDArray[np.int8]
    centre: F64
    scale: F64
    parts: F64


class Auto:
    """The detector "auto": see the module's text. ``reasons`` limits it to some of its checks."""

    def __init__(self, params: DetectorParams, reasons: Collection[Reason] = ()) -> None:
        self.params = params
        self.season = Season(params.timezone)
        self.checks: tuple[Check, ...] = (Noise(), Levels(), self.season, Stuck(), Novelty())
        every = [part for check in self.checks for part in check.parts]
        used = [i for i, part in enumerate(every) if not reasons or part.reason in reasons]
        # Those that fade come first, as the lines want them.
        self.order = sorted(used, key=lambda i: not every[i].fades)
        self.parts = [every[i] for i in self.order]
        self.weight = np.array([part.weight for part in self.parts])[:, None]
        self.codes = np.array([part.reason for part in self.parts], np.int8)
        self.of_level = np.array([part.reason in OF_LEVEL for part in self.parts])
        self.panes, self.lines, self.ages = Panes(), Lines(self.parts), _Ages(len(self.parts))
        self._relearned: list[I64] = []

    def __len__(self) -> int:
        return len(self.ages.factor)

    def _rooms(self) -> dict[str, Columns | Check]:
        own: dict[str, Columns | Check] = {"panes": self.panes, "lines": self.lines, "ages": self.ages}
        return own | {type(check).__name__.lower(): check for check in self.checks}

    def grow(self, n_series: int) -> None:
        """Room for ``n_series`` series."""
        for room in self._rooms().values():
            room.grow(n_series)

    def step(self, points: Points) -> Scores:
        """Scores of ``points``, which are then learned; see ``Detector``."""
        n = len(points)
        self._relearned = []
        z, fresh, centre, scale = np.full((4, n), np.nan)
        reason = np.full(n, Reason.NOT_A_NUMBER, np.int8)
        named = dict(zip(NAMED, np.full((len(NAMED), n), np.nan), strict=True))
        good = np.flatnonzero(usable(points.value))
        some = points if len(good) == n else points.take(good)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            for rows, at, learned in self.panes.cut(some):
                where = good[at] if len(good) < n else at
                judged = self._take(some, rows, at, where[:, -1] if learned else None)
                # One point of each of many series, mostly in order: a slice is filled, not single places.
                here: Rows = where
                if at.shape[1] == 1:
                    here, judged = together(where[:, 0]), _flat(judged)
                z[here], fresh[here], reason[here] = judged.score, judged.fresh, judged.reason
                centre[here], scale[here] = judged.centre, judged.scale
                for code, column in named.items():
                    for j in np.flatnonzero(self.codes == code).tolist():
                        column[here] = np.fmax(column[here], judged.parts[j])
        return Scores(z, centre, scale, reason, named, fresh)

    def _take(self, points: Points, rows: I64, at: I64, ends: I64 | None) -> _Judged:
        """Score a block, then learn it; ``ends`` are the positions of its last points (None: not learned)."""
        some = together(at[:, 0]) if at.shape[1] == 1 else at
        t_ms, value = points.t_ms[some].reshape(at.shape), points.value[some].reshape(at.shape)
        block = self._block(rows, t_ms, value, learned=ends is not None)
        judged, values = self._judge(block, ends is not None)
        if ends is not None:
            self.ages.most[:, block.at] = np.maximum(self.ages.most[:, block.at], values.max(axis=2))
            full = self.panes.take(block)
            if len(full):
                self._learn(rows[full], ends[full])
        return judged

    def _block(self, rows: I64, t_ms: I64, value: F64, *, learned: bool) -> Block:
        """The points (m, w) with what describes them."""
        self.panes.begin(rows, value[:, 0])
        if learned:
            self._resume(rows, t_ms[:, 0], value[:, 0])
        return self.panes.describe(rows, t_ms, value)

    def _resume(self, rows: I64, t_ms: I64, value: F64) -> None:
        """Begin anew what a long silence has made stale."""
        silent = self.panes.silent(rows, t_ms)
        if silent.any():
            at = silent > 0.0
            back = rows[at]
            self.panes.resume(back, value[at] - self.panes.origin[back])
            for check in self.checks:
                check.resume(back, silent[at])

    def _learn(self, rows: I64, ends: I64) -> None:
        """Learn the full panes of these rows; a level that was beyond the line for long becomes normal."""
        pane = self.panes.close(rows)
        ages, most = self.ages, self.ages.most[:, rows]
        line = self.lines.line[:, rows] * (self.params.threshold / UNIT)
        off = (self.of_level[:, None] & (self.weight * most * ages.factor[rows] > line)).any(axis=0)
        for check in self.checks:
            check.learn(pane)
        self.lines.learn(rows, most)
        since = ages.off_since_ms[rows]
        # A clock may be set back meanwhile, which must not put off the end for ever.
        since = np.where(off, np.where(since < 0, pane.t_ms[:, 0], np.minimum(since, pane.t_ms[:, -1])), -1)
        lasted = np.where(off, ages.off_panes[rows] + 1.0, 0.0)
        normal = off & (lasted >= RELEARN_PANES) & (pane.t_ms[:, -1] - since >= self.params.relearn_ms)
        if normal.any():
            some = pane.take(normal)
            for check in self.checks:
                check.accept(some)
            self._relearned.append(ends[normal])
        ages.off_since_ms[rows], ages.off_panes[rows] = (
            np.where(normal, -1, since),
            np.where(normal, 0.0, lasted),
        )
        ages.most[:, rows] = 0.0
        ages.factor[rows] = np.where(pane.panes >= FIRST_PANES, _factor_of_age(pane.panes), np.nan)

    def _read(self, block: Block) -> list[Reading]:
        """What the checks that are used read off a block, in the order of ``parts``."""
        every = [reading for check in self.checks for reading in check.read(block)]
        return [every[i] for i in self.order]

    def _judge(self, block: Block, learned: bool) -> tuple[_Judged, F64]:
        """What the checks say of a block, and their values (parts, m, w)."""
        at, readings = block.at, self._read(block)
        values = np.empty((len(readings), *block.x.shape))
        for value, reading in zip(values, readings, strict=True):
            np.subtract(reading.observed, reading.centre, out=value)
            np.divide(value, reading.scale, out=value)
        np.minimum(np.abs(values, out=values), VALUE_MAX, out=values)
        weight = self._weight(at)
        line = (weight / self.lines.line[:, at])[:, :, None]
        parts = values * line
        score, reason = self._largest(parts)
        height = self.lines.fade(at, values) if learned else self.lines.height[:, at][:, :, None]
        # Few series were alarmed lately; for the others every score is news.
        alarmed = np.flatnonzero((height > self.lines.line[:, at][:, :, None]).any(axis=(0, 2)))
        fresh = score.copy()
        if len(alarmed):
            high = height[:, alarmed] if height.shape[1] > 1 else height
            fresh[alarmed] = (values[:, alarmed] * (weight[:, alarmed, None] / high)).max(axis=0)
        centre, scale = self._band(block, readings)
        sign = self._sign(block, centre)
        judged = _Judged(
            sign * np.minimum(score, Z_MAX), np.minimum(fresh, Z_MAX), reason, centre, scale, parts
        )
        return judged, values

    def _weight(self, at: Rows) -> F64:
        """What values that are at their lines count, (parts, m): ``UNIT``, if not for weight and age."""
        return self.weight * (UNIT * self.ages.factor[at])

    def _sign(self, block: Block, centre: F64) -> F64:
        """On which side of the expected value the points are, 1 or -1."""
        return np.where(block.x + self.panes.origin[block.at][:, None] < centre, -1.0, 1.0)

    def _largest(self, parts: F64) -> tuple[F64, npt.NDArray[np.int8]]:
        """The largest of the parts and the code of its check; that of a cold series says so."""
        score = parts[0].copy()
        reason = np.full(score.shape, self.codes[0])
        for part, code in zip(parts[1:], self.codes[1:], strict=True):
            more = part > score
            np.copyto(score, part, where=more)
            np.copyto(reason, code, where=more)
        reason[np.isnan(score)] = Reason.WARMING
        return score, reason

    def _band(self, block: Block, readings: list[Reading]) -> tuple[F64, F64]:
        """The expected value, and the deviation of which ``threshold`` are at the season check's line."""
        at = block.at
        place = np.flatnonzero(self.codes == Reason.SEASON)
        factor = self.ages.factor[at][:, None]
        if len(place):
            j = int(place[0])
            reading, line = readings[j], self.lines.line[j, at][:, None]
        else:
            reading, line = (
                self.season.read(block)[0],
                np.full((len(block.rows), 1), self.season.parts[0].floor),
            )
        scale = reading.scale * (line / (factor * UNIT))
        centre = reading.centre + self.panes.origin[at][:, None] + 0.0 * factor
        return centre, np.where(scale < np.inf, scale, np.nan)

    def receipt(self, points: Points) -> Receipt:
        """What the score of one point is made from; see ``Detector``."""
        row, panes = points.series, self.panes
        terms: tuple[Term, ...] = ()
        if usable(points.value)[0]:
            # A first value, or one after a silence, changes what it is compared with.
            held = {name: column.copy() for name, column in self.dump().items()}
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                terms = self._terms(points)
            self.load(held)
        cadence_ms, resolution = float(panes.cadence_ms[row[0]]), float(panes.resolution[row[0]])
        return Receipt(
            terms,
            learned=int(self.ready_count(row)[0]),
            needed=FIRST_PANES * PANE,
            cadence_ms=cadence_ms if cadence_ms > 0.0 else None,
            resolution=resolution if resolution < np.inf else None,
            origin=float(panes.origin[row[0]]),
        )

    def _terms(self, points: Points) -> tuple[Term, ...]:
        """The terms of one point; none while the series is too young."""
        t_ms, value = points.t_ms[:, None], points.value[:, None]
        block = self._block(points.series, t_ms, value, learned=not points.late[0])
        factor = self._weight(block.at) / self.lines.line[:, block.at]
        if np.isnan(factor).any():
            return ()
        readings = self._read(block)
        sign = float(self._sign(block, self._band(block, readings)[0])[0, 0])
        return tuple(
            Term(part.reason, part.says, *_numbers(reading), float(by), VALUE_MAX, sign)
            for part, reading, by in zip(self.parts, readings, factor[:, 0], strict=True)
        )

    def ready_count(self, rows: I64) -> I64:
        """How many points each row has learned."""
        count: I64 = self.panes.panes[rows].astype(np.int64) * PANE + self.panes.fill[rows]
        return count

    def relearned(self) -> I64:
        """Positions in the points of the last step at which a level became normal, ascending."""
        return ascending(self._relearned)

    def dump(self) -> dict[str, npt.NDArray[np.generic]]:
        """The state as columns."""
        return {k: c for name, room in self._rooms().items() for k, c in room.save(f"{name}.").items()}

    def load(self, columns: Snapshot) -> None:
        """Take over what ``dump`` gave."""
        for name, room in self._rooms().items():
            room.restore(columns, f"{name}.")


def _numbers(reading: Reading) -> tuple[float, float, float]:
    """What a check says of one point."""
    observed, centre, scale = (float(column[0, 0]) for column in reading)
    return observed, centre, scale


def _flat(judged: _Judged) -> _Judged:
    """The same of one point a series, without the axis of length one."""
    score, fresh, reason, centre, scale, parts = judged
    return _Judged(score[:, 0], fresh[:, 0], reason[:, 0], centre[:, 0], scale[:, 0], parts[..., 0])


def _factor_of_age(panes: F64) -> F64:
    """What the scores of a series that learned so many panes are multiplied with."""
    _mantissa, doublings = np.frexp(np.clip(PANE * panes, PANE, MATURE_POINTS))
    steps = np.arange(int(np.log2(MATURE_POINTS)) + 2)
    table = SENSITIVITY * (2.0 ** (steps - 1.0) / MATURE_POINTS) ** AGE_POWER
    return np.asarray(table[doublings], np.float64)
