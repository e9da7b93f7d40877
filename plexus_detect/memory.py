"""What the detectors know while they run, as one value that is grown, saved and loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from plexus_detect.closing import Alert
from plexus_detect.columns import under
from plexus_detect.groups import Group
from plexus_detect.lane import Lane, Policy
from plexus_detect.learn.job import Trainer
from plexus_detect.series import F64, I64, Bool, Kind, Points, SeriesTable
from plexus_detect.stats import grown

Columns = Mapping[str, npt.NDArray[np.generic]]

# A series counts as one that shares the budget this long after it was admitted: longer than any poll takes,
# so that a replay, which knows all series from its start, counts the same ones.
NEWCOMER_MS = 3_600_000

_LAST = ("last_z", "last_fleet_z")


@dataclass
class State:
    """All running state of the detectors. ``rule_of`` is -1 for series that are not scored, ``row_of`` the
    row of a series in its rule's lane, ``compared`` says which take part in a fleet, ``admitted`` which are
    known. ``last_z`` and ``last_fleet_z`` are the newest scores, for whoever looks. ``waiting`` are points
    that the fleets have not seen yet, ``owed`` the alerts that the platform may have open: where there is no
    score, a zero closes them. Groups have their models fitted by ``trainer``; a policy with groups without
    one is a ValueError."""

    table: SeriesTable
    policy: Policy
    lanes: list[Lane] = field(default_factory=list)
    rule_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    row_of: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    emit_from_ms: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    compared: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))
    admitted: Bool = field(default_factory=lambda: np.zeros(0, np.bool_))
    last_z: F64 = field(default_factory=lambda: np.zeros(0))
    last_fleet_z: F64 = field(default_factory=lambda: np.zeros(0))
    waiting: Points = field(default_factory=Points.empty)
    owed: Collection[Alert] = ()
    trainer: Trainer | None = None
    groups: list[Group] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.lanes:
            self.lanes = [Lane(rule, self.policy) for rule in self.policy.rules]
        if self.policy.groups and self.trainer is None:
            raise ValueError("groups need a trainer")
        if self.trainer is not None:
            self.groups = [Group(rule, self.trainer) for rule in self.policy.groups]

    def admit(self, series: int, rule: int | None, emit_from_ms: int = 0) -> None:
        """Score ``series`` under ``rule`` from now on (None: only groups take it, or post under its name);
        samples before ``emit_from_ms`` only warm it up."""
        if series >= len(self.rule_of):
            room = max(64, 2 * len(self.rule_of), series + 1)
            self.rule_of = grown(self.rule_of, room, -1)  # type: ignore[assignment]
            self.row_of = grown(self.row_of, room)  # type: ignore[assignment]
            self.emit_from_ms = grown(self.emit_from_ms, room)  # type: ignore[assignment]
            self.compared = grown(self.compared, room)  # type: ignore[assignment]
            self.admitted = grown(self.admitted, room)  # type: ignore[assignment]
            self.last_z = grown(self.last_z, room, np.nan)  # type: ignore[assignment]
            self.last_fleet_z = grown(self.last_fleet_z, room, np.nan)  # type: ignore[assignment]
        self.admitted[series], self.emit_from_ms[series] = True, emit_from_ms
        for group in self.groups:
            group.admit(series, self.table.keys[series])
        if rule is not None:
            lane = self.lanes[rule]
            row = lane.admit(series, self.table.keys[series])
            self.rule_of[series], self.row_of[series], self.compared[series] = rule, row, lane.compared[row]

    def retire(self, series: int) -> None:
        """Score ``series`` no more; its row stays, as the others' numbers depend on it."""
        self.rule_of[series], self.compared[series] = -1, False

    def release(self, series: list[int]) -> None:
        """Forget what is known of ``series``: their rows are free for others."""
        for index, lane in enumerate(self.lanes):
            mine = [s for s in series if self.rule_of[s] == index]
            if mine:
                lane.release(self.row_of[mine].tolist())
        for group in self.groups:
            group.release(set(series))
        for one in series:
            self.retire(one)
            self.last_z[one] = self.last_fleet_z[one] = np.nan

    @property
    def held(self) -> int:
        """How many points and rows wait for stragglers: time alone lets them go."""
        return len(self.waiting) + sum(len(group.waiting.feed) for group in self.groups)

    def orphans(self) -> list[Alert]:
        """Of the alerts that may be open those that no score closes: their series has none any more, or none
        is posted under that name."""
        posted = {series for group in self.groups for series, _members in group.posted()}

        def scored(series: int, kind: int) -> bool:
            if kind not in self.policy.kinds:
                return False
            if kind == Kind.ANOMALY:
                return series in posted
            held = self.compared if kind == Kind.FLEET_ZSCORE else self.rule_of >= 0
            return series < len(held) and bool(held[series])

        return [alert for alert in self.owed if not scored(*alert)]

    def knows(self, series: int) -> bool:
        """Whether ``series`` has been admitted."""
        return series < len(self.admitted) and bool(self.admitted[series])

    def shares(self, series: I64, now_ms: int) -> F64:
        """How many false alarms a day each of these series may have: all have the same part of the budget.

        A series against its own past and the same one against the fleet are two.
        """
        budget = self.policy.alerts_per_day
        if budget is None:
            return np.zeros(len(series))
        emit = self.emit_from_ms
        sharing = np.concatenate([emit[self.rule_of >= 0], emit[self.compared]])
        if not (sharing > now_ms - NEWCOMER_MS).any():
            return np.full(len(series), budget / max(1, len(sharing)))
        # A newcomer, whose history is from before it came, shares with those that came before or with it.
        until = np.maximum(now_ms - NEWCOMER_MS, emit[series])
        shares: F64 = budget / np.maximum(1, np.searchsorted(np.sort(sharing), until, side="right"))
        return shares


def dump(state: State) -> dict[str, npt.NDArray[np.generic]]:
    """The state as named columns for a snapshot; the rules' fingerprints say whether it fits."""
    out: dict[str, npt.NDArray[np.generic]] = {}
    for i, lane in enumerate(state.lanes):
        n = len(lane.members)
        out[f"lane.{i}.members"] = np.array(lane.members, np.int64)
        out[f"lane.{i}.free"] = np.array(lane.free, np.int64)
        for part, room in lane.parts().items():
            # Columns of groups are not as long as those of series, so a fleet gives no more than it uses.
            columns = room.dump().items()
            out |= {
                f"lane.{i}.{part}.{name}": c if part in ("fleet", "fleet_events") else c[:n]
                for name, c in columns
            }
    for i, group in enumerate(state.groups):
        out |= {f"group.{i}.{name}": column for name, column in group.dump().items()}
    for name in ("emit_from_ms", *_LAST):
        out[name] = getattr(state, name)[: len(state.table)]
    for name in ("series", "t_ms", "value"):
        out[f"waiting.{name}"] = getattr(state.waiting, name)
    return out


def load(table: SeriesTable, policy: Policy, columns: Columns, trainer: Trainer | None = None) -> State:
    """The state that ``dump`` gave under the same rules and series table."""
    state = State(table, policy, trainer=trainer)
    emit_from = columns["emit_from_ms"]
    # A group's series keep the order in which they came to it, and take part in it by its own columns.
    groups, state.groups = state.groups, []
    for i, lane in enumerate(state.lanes):
        for series in columns[f"lane.{i}.members"].tolist():
            state.admit(series, i, int(emit_from[series]))
        for part, room in lane.parts().items():
            room.load(under(columns, f"lane.{i}.{part}."))
        lane.free = columns.get(f"lane.{i}.free", np.zeros(0, np.int64)).tolist()
        for row in lane.free:
            state.retire(lane.members[row])
    for i, group in enumerate(groups):
        group.load(under(columns, f"group.{i}."), table.keys)
        for series in group.series().tolist():
            if not state.knows(series):
                state.admit(series, None, int(emit_from[series]))
    state.groups = groups
    for name in _LAST:
        held, saved = getattr(state, name), columns.get(name)
        if saved is not None:  # a snapshot of version 0.3 has none
            n = min(len(held), len(saved))
            held[:n] = saved[:n]
    waiting = under(columns, "waiting.")
    state.waiting = Points(
        waiting["series"].astype(np.int64),
        waiting["t_ms"].astype(np.int64),
        waiting["value"].astype(np.float64),
    )
    return state
