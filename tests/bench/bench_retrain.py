"""Which successors of a model are deployed: six simulated sensors, a model of 14 days in use, one trained
with the next 14, of which some are not as they were.

``python tests/bench/bench_retrain.py [autoencoder|BACKEND] [SEEDS] [FIRST]`` (autoencoder: about 7 s a line.)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from sensors import NAMES, START_MS, recording, spread

from plexus_detect.config import DetectorConfig
from plexus_detect.learn.stream import LearnParams
from plexus_detect.learn.windowed import WindowedParams
from plexus_detect.train.gating import InUse, candidate_of, trained
from plexus_detect.train.history import Past
from plexus_detect.train.making import Made, learned, windowed

DAY, WINDOWS = 1440, (8, 32, 128)


def histories(seed: int) -> dict[str, np.ndarray]:
    """28 days by what is wrong with the second half."""
    x, s = recording(28, seed=seed).x, spread()
    out = {"healthy": x}
    for name, day in (("level moved since day 23", 23), ("level moved since day 26", 26)):
        out[name] = x.copy()
        out[name][day * DAY :, 0] += 3.0 * s[0]
    out["stuck since day 18"] = x.copy()
    out["stuck since day 18"][18 * DAY :, 3] = x[18 * DAY, 3]
    out["broken since day 16"] = x.copy()
    out["broken since day 16"][16 * DAY :, 4] = recording(28, seed=seed + 100).x[16 * DAY :, 4]
    out["8 anomalies in the last 3 days"] = recording(28, seed, per_kind=2, healthy_days=25.2).x
    out["12 anomalies in 14 days"] = recording(28, seed, per_kind=3, healthy_days=14).x
    rng, faulty = np.random.default_rng(seed), x.copy()
    for day in range(14, 25):
        start, sensor = day * DAY + int(rng.integers(0, 900)), int(rng.integers(0, 6))
        faulty[start : start + 400, sensor] += rng.choice([-1, 1]) * 6.0 * s[sensor]
    out["7 hours of fault a day"] = faulty
    return out


def main(what: str, seeds: int, first_seed: int) -> None:
    """Print a line for each seed and history."""
    auto = what == "autoencoder"
    facts = {"kind": what, "windows": WINDOWS, "level": "conservative"} if auto else {"backend": what}
    group = DetectorConfig(name="machine", metrics=NAMES, **facts)  # type: ignore[arg-type]
    paced = LearnParams(what, 200, 500, 2000, 0.05, learn_every_ms=3 * 86_400_000 // 2000)

    def make(pasts: Sequence[Past]) -> Made:
        if auto:
            return windowed(pasts, NAMES, WindowedParams(WINDOWS, "conservative"))
        return learned(pasts, NAMES, paced)

    def past(x: np.ndarray, first: int, end: int) -> list[Past]:
        rows = slice(first * DAY, end * DAY)
        return [Past("machine", START_MS + 60_000 * np.arange(rows.start, rows.stop), x[rows].copy())]

    for seed in range(first_seed, first_seed + seeds):
        cases = histories(seed)
        old = make(past(cases["healthy"], 0, 14))
        use = InUse(1, int(str(old.card["to_ms"])), candidate_of(old.arrays, group))
        for name, x in cases.items():
            found = trained(past(x, 14, 28), make, group, use, gate=True).comparison
            assert found is not None
            print(f"{what} {seed} {name:32}{found.verdict:12}{found.finds}  {found.why}", flush=True)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:4]]
    main(sys.argv[1] if len(sys.argv) > 1 else "ecod", *numbers, *(5, 0)[len(numbers) :])
