"""Messages for tests of the stream engine: devices that are late, repeat and leave out, and send junk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from plexus_detect.detectors import DetectorParams
from plexus_detect.episode import EpisodeParams
from plexus_detect.evaluate import Policy, Rule
from plexus_detect.fleet import FleetParams
from plexus_detect.groups import GroupRule
from plexus_detect.learn.stream import LearnParams
from plexus_detect.series import Kind
from plexus_detect.stream.engine import EngineParams, Output, PartitionEngine
from plexus_detect.stream.messages import Batch
from plexus_detect.training.trainer import InlineTrainer

T0 = 1_700_000_000_000
SENSORS = ("temperature", "humidity", "pressure")

# What a broker really gets: each is rejected.
JUNK = (None, b"", b"{", b"[1]", b"{}", b'{"timestamp":"soon","sensors":{"temperature":1}}', b"\xff\xfe")

QUICK = Rule(
    detector="zscore",
    params=DetectorParams(window=12, min_points=4, relearn_ms=20_000),
    episode=EpisodeParams(3.0, 1, 1, 2),
)
FLEET = replace(
    QUICK,
    fleet=FleetParams(group_min=3, min_points=3, bucket_ms=1000),
    fleet_episode=EpisodeParams(3.0, 1, 1, 2),
)
LEARN = LearnParams(backend="ecod", min_samples=10, retrain_interval=20, window_size=30, handover=4)
GROUP = GroupRule("machine", SENSORS, learn=LEARN, episode=EpisodeParams(3.0, 1, 1, 2), align_ms=500)
ALL = frozenset(Kind)

POLICIES = {
    "own past": Policy((QUICK,), ALL),
    "fleets": Policy((FLEET,), ALL),
    "budget": Policy((FLEET,), ALL, alerts_per_day=50.0),
    "group": Policy((QUICK,), ALL, groups=(GROUP,)),
    "cohort": Policy((FLEET,), ALL, groups=(replace(GROUP, shared=True),)),
}


def batch(messages: Sequence[tuple[bytes | None, bytes | None, int]], first: int = 0) -> Batch:
    """Messages (value, key, broker's time) with offsets from ``first`` on."""
    values, keys, times = zip(*messages, strict=True) if messages else ((), (), ())
    return Batch(list(values), list(keys), list(times), list(range(first, first + len(messages))))


def message(
    device: str, t_ms: int, sensors: dict[str, Any], broker_ms: int | None = None, index: int = 0
) -> Any:
    """One message of the usual shape."""
    body = {"timestamp": t_ms / 1000, "sample_index": index, "sensors": sensors}
    return json.dumps(body).encode(), device.encode(), t_ms + 20 if broker_ms is None else broker_ms


def engine(policy: Policy, **changes: Any) -> PartitionEngine:
    """An engine over all metrics of all devices."""
    params = replace(EngineParams("readings/0"), **changes)
    trainer = InlineTrainer() if policy.groups else None
    return PartitionEngine(policy, lambda _source, _metric: 0, params, trainer)


def run(of: PartitionEngine, messages: Batch, places: Sequence[int] = ()) -> list[Output]:
    """The messages in batches, cut at ``places``."""
    bounds = [0, *sorted(min(p, len(messages)) for p in places), len(messages)]
    return [of.take(messages.take(slice(a, b))) for a, b in pairwise(bounds)]


def alerts(outputs: Sequence[Output]) -> list[Any]:
    """All alerts, in one order."""
    found = [alert for output in outputs for alert in output.alerts]
    return sorted((a.t_ms, a.device, a.metric, a.kind, a.encode(), a.id) for a in found)


def rows(outputs: Sequence[Output]) -> list[tuple[str, str, int, float]]:
    """All derived rows, in one order."""
    found: list[tuple[str, str, int, float]] = []
    for output in outputs:
        d = output.derived
        found += zip(d.source, d.metric, d.t_ms.tolist(), d.value.tolist(), strict=True)
    return sorted(found)


def rejected(outputs: Sequence[Output]) -> list[tuple[int, str]]:
    """Offset and reason of all rejects."""
    return [(reject.offset, reject.reason) for output in outputs for reject in output.rejected]


@st.composite
def messages(draw: st.DrawFn, size: int = 120, *, junk: bool = True) -> list[Any]:
    """A partition as it really looks: some seconds of a few devices in about the order of time."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    devices, seconds = draw(st.integers(1, 6)), draw(st.integers(5, size // 4))
    jitter = draw(st.sampled_from([0, 300, 4000]))
    wrong = draw(st.sampled_from([0.0, 0.05, 0.3]))
    lacking = draw(st.sampled_from([0.0, 0.1, 0.5]))
    out: list[Any] = []
    for second in range(seconds):
        for d in rng.permutation(devices).tolist():
            now = T0 + 1000 * second
            t_ms = now - int(rng.integers(0, jitter + 1))
            x = rng.normal(20.0, 1.0, 3) + 40.0 * (rng.random() < 0.05)
            if rng.random() < wrong:
                t_ms += int(rng.choice([-7000, -1000, 2500, 90_000, 600_000]))
            kept = [i for i in range(3) if rng.random() >= lacking] or [0]
            one = message(f"d{d}", t_ms, {SENSORS[i]: round(float(x[i]), 3) for i in kept}, now, second)
            out.append(one)
            if rng.random() < wrong:
                out.append(out[int(rng.integers(len(out)))])
            if junk and rng.random() < wrong:
                out.append((JUNK[int(rng.integers(len(JUNK)))], b"d0", now))
    return out


cuts = partial(st.lists, st.integers(0, 200), max_size=8)
