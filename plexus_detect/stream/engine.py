"""One partition of a topic: its messages in, alerts and scores out, with a state that can be moved.

The result depends on the messages and their order alone, not on the batches they came in: time is what the
broker's timestamps say, and everything is decided as if each message had been taken alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from plexus_detect.cursor import PollParams
from plexus_detect.errors import ModelError
from plexus_detect.evaluate import Evaluation, Event, Policy, evaluate
from plexus_detect.groups import Group
from plexus_detect.learn.job import Trainer
from plexus_detect.learn.model import array_json, json_array
from plexus_detect.running import RuleFor, Running
from plexus_detect.series import F64, I64, SUFFIX, Bool, Derived, Kind, Points, SeriesKey
from plexus_detect.stream.alerts import Alert, CoolDown, alert_of, threshold_of
from plexus_detect.stream.arrivals import Arrivals, before
from plexus_detect.stream.members import AGE_STEP_MS_MAX, REFUSED, UNWANTED, Members
from plexus_detect.stream.messages import TIME_MAX_MS, Batch, Decoder, Readings
from plexus_detect.stream.recent import NO_SAMPLE, Recent, Sample
from plexus_detect.stream.rejects import MESSAGE_BYTES_MAX, SENTENCES, Reject
from plexus_detect.stream.segments import Seen, cuts, shares
from plexus_detect.stream.shape import Shape
from plexus_detect.stream.snapshot import Unfit, packed, unpacked

# Of series that are silent nothing is forgotten more often than this, in ages of the partition.
EXPIRE_EVERY_MS_LEAST, EXPIRE_PARTS = 3_600_000, 30


@dataclass(frozen=True)
class EngineParams:
    """``name`` is that of the topic and partition, for the ids of alerts; ``shape`` that of its messages. A
    sample more than ``max_ahead_ms`` ahead of the broker's time is rejected; alerts of one series are
    ``cooldown_ms`` apart at least; at most ``series_max`` series are watched, and each is forgotten after
    ``expire_after_ms`` without a sample."""

    name: str = ""
    shape: Shape = field(default_factory=Shape)
    max_ahead_ms: int = 300_000
    cooldown_ms: int = 60_000
    series_max: int = 100_000
    expire_after_ms: int = 30 * 86_400_000
    message_bytes_max: int = MESSAGE_BYTES_MAX


@dataclass(frozen=True)
class DerivedRows:
    """Scores to write, as columns: see ``series.Derived``. The names are made when they are asked for."""

    derived: Derived
    keys: Sequence[SeriesKey]

    def __len__(self) -> int:
        return len(self.derived)

    @cached_property
    def source(self) -> list[str]:
        """The device of each row."""
        return [self.keys[series].source for series in self.derived.series.tolist()]

    @cached_property
    def metric(self) -> list[str]:
        """The name under which each row is posted."""
        pairs = zip(self.derived.series.tolist(), self.derived.kind.tolist(), strict=True)
        return [self.keys[series].metric + SUFFIX[Kind(kind)] for series, kind in pairs]

    @property
    def t_ms(self) -> I64:
        """The time of each row's sample."""
        return self.derived.t_ms

    @property
    def value(self) -> F64:
        """The value of each row."""
        return self.derived.value


@dataclass(frozen=True)
class Output:
    """What messages gave: ``alerts`` in order of event time, ``derived`` rows, the messages that are
    ``rejected`` in order of offset, all ``events``, and counts: messages (of them again: from before the
    position), points, late, repeats, unwanted (of sensors that nobody wants), missing (no numbers), refused
    (no room for the series), suppressed (alerts within a cool-down)."""

    alerts: list[Alert]
    derived: DerivedRows
    rejected: list[Reject]
    events: list[tuple[Event, SeriesKey]]
    counts: Mapping[str, int]


@dataclass
class _Gathered:
    """An output while it is put together."""

    alerts: list[Alert] = field(default_factory=list)
    derived: list[Derived] = field(default_factory=list)
    rejected: list[Reject] = field(default_factory=list)
    events: list[tuple[Event, SeriesKey]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class PartitionEngine:
    """The detectors over one partition. ``rule_for(source, metric)`` gives the rule of a series, or None; a
    policy with groups needs a ``trainer``."""

    def __init__(
        self, policy: Policy, rule_for: RuleFor, params: EngineParams, trainer: Trainer | None = None
    ) -> None:
        self.params = params
        self._made_of = policy, rule_for, trainer
        self._decoder = Decoder(params.shape, params.max_ahead_ms, params.message_bytes_max)
        self._expire_every_ms = max(EXPIRE_EVERY_MS_LEAST, params.expire_after_ms // EXPIRE_PARTS)
        self._begin()

    def _begin(self) -> None:
        """Know nothing."""
        policy, rule_for, trainer = self._made_of
        self.running = Running(policy, PollParams(), rule_for, trainer, self.params.series_max)
        self.members = Members(self.running)
        self.arrivals = Arrivals()
        self.recent = Recent()
        self.cool_down = CoolDown(self.params.cooldown_ms)
        # The newest time of each device; the next offset; the newest broker's timestamp of a message that
        # brought something, and of any.
        self._newest_ms = np.zeros(0, np.int64)
        self.position = 0
        self.now_ms = self._heard_ms = 0

    @property
    def policy(self) -> Policy:
        """The rules."""
        return self.running.policy

    @property
    def groups(self) -> list[Group]:
        """The groups with their models, for whoever keeps these on disk."""
        return self.running.state.groups

    @property
    def series_count(self) -> int:
        """How many series are watched."""
        return self.running.series_count()

    def fingerprint(self) -> str:
        """What a snapshot must agree with to be loaded."""
        return self.running.fingerprint()

    # -- messages

    def take(self, batch: Batch, *, silent: bool = False) -> Output:
        """Take the next messages. ``silent``: step through messages whose results are out already; then
        nothing but the rejects and the counts is given, and the state is the same."""
        again = bisect_left(batch.offsets, self.position)
        batch = batch.take(slice(again, None)) if again else batch
        readings, rejected = self._decoder.read(batch)
        out = _Gathered(rejected=rejected)
        out.counts.update(messages=len(batch), again=again)
        if len(readings):
            self._take_all(readings, batch.offsets, out)
            self.recent.keep(self._oldest())
        if len(batch):
            self.position = batch.offsets[-1] + 1
        rejected.sort(key=lambda reject: reject.at)
        out.counts["rejected"] = len(rejected)
        if silent:
            return Output([], self._rows([]), rejected, [], out.counts)
        alerts = sorted(out.alerts, key=lambda alert: (alert.t_ms, alert.device, alert.metric, alert.kind))
        return Output(alerts, self._rows(out.derived), rejected, out.events, out.counts)

    def _rows(self, derived: list[Derived]) -> DerivedRows:
        return DerivedRows(Derived.concat(derived), self.running.table.keys)

    def _take_all(self, readings: Readings, offsets: Sequence[int], out: _Gathered) -> None:
        """Take readings; where it is time for that, forget the series that were silent before going on."""
        heard = np.maximum.accumulate(np.append(self._heard_ms, readings.broker_ms))
        self._heard_ms = int(heard[-1])
        ages = self.members.age_ms + np.cumsum(np.minimum(np.diff(heard), AGE_STEP_MS_MAX))
        turn = np.append(self.members.age_ms, ages) // self._expire_every_ms
        bounds = [0, *(np.flatnonzero(np.diff(turn))).tolist(), len(readings)]
        for start, end in pairwise(bounds):
            if start or turn[1] != turn[0]:
                self.members.age_ms = int(ages[start])
                self._forget(self.members.expire(self.params.expire_after_ms))
            if end > start:
                self._take(readings.part(start, end), (ages[start:end], offsets), out)
        self.members.age_ms = int(ages[-1])

    def _forget(self, gone: set[int]) -> None:
        if gone:
            self.arrivals.forget(np.array(sorted(gone), np.int64))
            self.cool_down.forget(gone)

    def _take(self, readings: Readings, of: tuple[I64, Sequence[int]], out: _Gathered) -> None:
        """Take readings between which nobody is forgotten; ``of`` are their ages and the batch's offsets."""
        start, alone = 0, shares(self.policy)
        while start < len(readings):
            series, end = self.members.series(readings, start, alone=alone)
            part = readings.part(start, end)
            self._take_known(part, series, (of[0][start:end], of[1]), out)
            start = end

    def _take_known(
        self, readings: Readings, series: I64, of: tuple[I64, Sequence[int]], out: _Gathered
    ) -> None:
        """Take readings whose series are known."""
        ages, offsets = of
        message = np.repeat(np.arange(len(readings)), np.diff(readings.starts))
        number = ~np.isnan(readings.values)
        refused = number & (series == REFUSED)
        used = number & (series >= 0)
        out.counts.update(
            missing=int((~number).sum()),
            unwanted=int((number & (series == UNWANTED)).sum()),
            refused=int(refused.sum()),
        )
        if refused.any():
            self._reject_full(readings, offsets, (message, refused, used), out)
        seen, rows = self._sorted((series[used], message[used], readings.values[used]), readings, out)
        fresh = ~seen.points.late
        at = seen.points.series[fresh]
        np.maximum.at(self.running.cursors.last_ms, at, ages[seen.message[fresh]])
        self._evaluate(seen, rows, readings, out)

    def _reject_full(
        self, readings: Readings, offsets: Sequence[int], of: tuple[I64, Bool, Bool], out: _Gathered
    ) -> None:
        """Reject the messages none of whose series has room."""
        message, refused, used = of
        n = len(readings)
        none = (np.bincount(message[refused], minlength=n) > 0) & (
            np.bincount(message[used], minlength=n) == 0
        )
        for at in readings.at[none].tolist():
            out.rejected.append(Reject(at, offsets[at], "too_many_series", SENTENCES["too_many_series"]))

    def _sorted(self, of: tuple[I64, I64, F64], readings: Readings, out: _Gathered) -> tuple[Seen, I64]:
        """What is new, late or repeated of points (series, message, value), and the messages that bring
        something new."""
        series, message, value = of
        n, most = len(readings), len(self.running.table)
        if most > len(self.arrivals):
            self.arrivals.grow(max(64, 2 * most))
        sorted_ = self.arrivals.take(series, readings.t_ms[message], value)
        taken, late = sorted_.taken, sorted_.late[sorted_.taken]
        doubled = np.zeros(n, np.bool_)
        doubled[message[sorted_.doubles]] = True
        out.counts.update(points=int(taken.sum()), late=int(late.sum()), repeats=int((~taken).sum()))
        series, message = series[taken], message[taken]
        points = Points(series, readings.t_ms[message], value[taken], late)
        rows = np.flatnonzero(np.bincount(message[~late], minlength=n))
        device = np.zeros(n, np.int64)
        device[message] = self.members.of_series[series]
        self.recent.add(readings, rows, device[rows])
        disordered = np.zeros(n, np.bool_)
        if self.policy.groups:
            devices = len(self.members.devices)
            if devices > len(self._newest_ms):
                self._newest_ms = np.append(self._newest_ms, np.full(devices, -1, np.int64))
            t_ms = readings.t_ms[rows]
            disordered[rows] = t_ms < before(device[rows], t_ms, self._newest_ms)
            np.maximum.at(self._newest_ms, device[rows], t_ms)
        return Seen(points, message, disordered, doubled), rows

    def _evaluate(self, seen: Seen, rows: I64, readings: Readings, out: _Gathered) -> None:
        """Evaluate the points, in parts where that is needed; the messages ``rows`` move the clock."""
        moves = np.zeros(len(readings), np.int64)
        moves[rows] = readings.broker_ms[rows]
        clock = np.maximum.accumulate(np.append(self.now_ms, moves))[1:]
        starts = np.append(0, cuts(seen, self.policy, self.groups))
        bounds = [*np.searchsorted(seen.message, starts).tolist(), len(seen.message)]
        for start, end in pairwise(bounds):
            if end > start:
                part = seen.points.take(slice(start, end))
                now = clock[seen.message[start:end]]
                self._tell(evaluate(self.running.state, part, int(now[-1]), now), out)
        self.now_ms = int(clock[-1])

    def _tell(self, found: Evaluation, out: _Gathered) -> None:
        """Keep the derived points and events of an evaluation, and make alerts of what opened."""
        out.derived.append(found.derived)
        for event in found.events:
            key = self.running.table.keys[event.series]
            out.events.append((event, key))
            if event.what == "opened":
                rule = int(self.running.state.rule_of[event.series])
                threshold = threshold_of(event, key, rule, self.policy)
                alert = alert_of(event, key, threshold, self._sample(event, key), self.params.name)
                told = self.cool_down.lets(event.series, event.kind, event.t_ms, alert.severity)
                out.counts["alerts" if told else "suppressed"] += 1
                if told:
                    out.alerts.append(alert)

    def _sample(self, event: Event, key: SeriesKey) -> Sample:
        """The message that opened an episode."""
        if event.kind is Kind.FLEET_EVENT:
            return NO_SAMPLE
        device = int(self.members.of_series[event.series])
        return self.recent.sample(device, event.t_ms, None if event.kind is Kind.ANOMALY else key.metric)

    def _oldest(self) -> I64:
        """The oldest time of each device of which fleets and groups may still tell."""
        members, state = self.members, self.running.state
        oldest = np.full(len(members.devices), TIME_MAX_MS, np.int64)
        np.minimum.at(oldest, members.of_series[state.waiting.series], state.waiting.t_ms)
        for group in state.groups:
            if len(group.join.cell) or len(group.waiting.feed):
                device = np.array([members.device(source) for source in group.feed_of], np.int64)
                np.minimum.at(oldest, device[group.join.cell // group.join.k], group.join.t_ms)
                np.minimum.at(oldest, device[group.waiting.feed], group.waiting.t_ms)
        return oldest

    # -- moving

    def dump(self) -> bytes:
        """The whole state, for ``load``: compact, with its version, a checksum and the fingerprint."""
        about = {
            "fingerprint": self.fingerprint(),
            "position": self.position,
            "times": [self.now_ms, self._heard_ms, self.members.age_ms],
            "keys": self.running.table.keys,
            "devices": list(self.members.devices),
            "told": [[*alert, *times] for alert, times in self.cool_down.told.items()],
            "recent": self.recent.dump(),
        }
        n = len(self.running.table)
        columns = self.running.dump() | self.arrivals.save("arrivals.", n)
        return packed(columns | {"about": json_array(about), "newest": self._newest_ms})

    def load(self, blob: bytes) -> str | None:
        """Take over what ``dump`` gave under the same policy. Returns None, or a sentence that says why the
        snapshot does not fit: then the engine knows nothing, and begins anew."""
        self._begin()
        try:
            self._load(unpacked(blob))
        except Unfit as unfit:
            reason = str(unfit)
        except (ValueError, ModelError) as error:
            reason = f"the snapshot does not fit the settings: {error}; begin anew"
        except (LookupError, TypeError, AttributeError) as error:
            reason = f"the snapshot is not of this version of the program ({error!r}); begin anew"
        else:
            return None
        self._begin()
        return reason

    def _load(self, columns: dict[str, npt.NDArray[np.generic]]) -> None:
        about = array_json(columns.pop("about"))
        if about["fingerprint"] != self.fingerprint():
            raise Unfit("the snapshot was made under other settings of the detectors; begin anew")
        rows = [(i, SeriesKey(*key), 0) for i, key in enumerate(about["keys"])]
        self._newest_ms = columns.pop("newest").astype(np.int64)
        self.running.restore(rows, columns, np.zeros(0, np.int64))
        self.arrivals.restore(columns, "arrivals.")
        self.members.devices = {name: i for i, name in enumerate(about["devices"])}
        self.members.number_all()
        self.position = about["position"]
        self.now_ms, self._heard_ms, self.members.age_ms = about["times"]
        self.cool_down.told = {(s, k): (last, critical) for s, k, last, critical in about["told"]}
        self.recent.load(about["recent"])
