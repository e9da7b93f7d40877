"""Learned detectors over a full window: rates, waiting during a retrain, memory, precision and recall.

For every backend: rows per CPU-second one at a time and in batches of 100, raw (three columns) and with
rolling features (windows 10, 60, 300 and lags 1, 5, 10: 48 features), with a window of 3600 rows. Beside
ecod runs the plain way in the same process: PyOD's ``decision_function`` on one row at a time. Then the 99th
percentile of one bare step while the fitting process works without a pause, over that without (the target is
on requests: ``bench_serve.py``); memory of one detector; and precision and recall on a temperature of 72 +- 2
of which 2 % are 50 or 95, at the default threshold. Run with ``python tests/bench/bench_learn.py [backend
...]``; the exit code is 1 when a target is missed.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from plexus_detect.learn.stream import Learner, LearnParams
from plexus_detect.training.backends import FIT
from plexus_detect.training.trainer import InlineTrainer, ProcessTrainer

COLUMNS = ("temperature", "humidity", "pressure")
ROLLING, LAGS = (10, 60, 300), (1, 5, 10)
WINDOW, SINGLES, BATCHES, BATCH = 3600, 300, 10, 100
SCORED, ANOMALOUS = 4000, 0.02
PRECISION_MIN, RECALL_MIN = 0.95, 0.95
STEPS = 4000


def values(n: int, seed: int, share: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) values, and which of them are anomalous, (n,)."""
    rng = np.random.default_rng(seed)
    x = rng.normal((72.0, 45.0, 1013.0), (2.0, 3.0, 2.0), (n, 3))
    bad = rng.random(n) < share
    x[bad, 0] = rng.choice([50.0, 95.0], int(bad.sum()))
    return x, bad


def warm(backend: str, rolling: bool, trainer: InlineTrainer | ProcessTrainer) -> Learner:
    """A detector with a full window and a fitted model."""
    features = {"rolling": ROLLING, "lags": LAGS} if rolling else {}
    learner = Learner(LearnParams(backend, WINDOW, 500, WINDOW, **features), trainer)
    learner.step(values(WINDOW, 1)[0], COLUMNS)
    assert learner.version == 1, learner.error
    return learner


def rate(work: Callable[[], object], rows: int) -> float:
    """Rows per CPU-second of this process."""
    start = time.process_time()
    work()
    return rows / (time.process_time() - start)


def rates(backend: str, rolling: bool) -> tuple[float, float]:
    """Rows per CPU-second: one at a time, and in batches. No retrain falls into these rows."""
    learner = warm(backend, rolling, InlineTrainer())
    learner.since_retrain = -(10**9)
    x, _ = values(SINGLES + BATCHES * BATCH, 2)

    def singles() -> None:
        for row in x[:SINGLES]:
            learner.step(row[None, :], COLUMNS)

    def batches() -> None:
        for i in range(BATCHES):
            learner.step(x[SINGLES + i * BATCH : SINGLES + (i + 1) * BATCH], COLUMNS)

    return rate(singles, SINGLES), rate(batches, BATCHES * BATCH)


def plain_rate() -> float:
    """PyOD's ecod asked for one row at a time, rows per CPU-second."""
    from pyod.models.ecod import ECOD

    model, (x, _) = ECOD().fit(values(WINDOW, 1)[0]), values(SINGLES, 2)
    model.decision_function(x[:1])
    return rate(lambda: [model.decision_function(row[None, :]) for row in x], SINGLES)


def memory_kib(backend: str) -> float:
    """Memory of one detector with a window of 1000 rows, KiB."""
    trainer, (x, _) = InlineTrainer(), values(1000, 1)
    Learner(LearnParams(backend, 1000), trainer).step(x, COLUMNS)
    tracemalloc.start()
    learner = Learner(LearnParams(backend, 1000), trainer)
    learner.step(x, COLUMNS)
    held, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert learner.version == 1
    return held / 1024


def found(backend: str, seed: int) -> tuple[float, float]:
    """Precision and recall at the default settings of the API, over the points after the cold start."""
    learner = Learner(LearnParams(backend, 100, 500, WINDOW, 0.05), InlineTrainer())
    x, bad = values(SCORED, seed, ANOMALOUS)
    ratio = np.concatenate([learner.step(part, COLUMNS).ratio for part in np.split(x, SCORED // BATCH)])
    flagged, known = ratio > 1.0, ~np.isnan(ratio)
    hits = int((flagged & bad).sum())
    return hits / max(1, int(flagged.sum())), hits / int((bad & known).sum())


def waiting(backend: str) -> tuple[float, float, float]:
    """99th percentile of one step in ms without and during fits in the other process; the longest step."""
    trainer = ProcessTrainer()
    try:
        learner = warm(backend, rolling=False, trainer=trainer)
        x, _ = values(STEPS, 3)
        took: dict[str, list[float]] = {"ready": [], "retraining": []}
        for i in range(100_000):
            learner.since_retrain = -1 if len(took["ready"]) < STEPS else learner.since_retrain
            if len(took["ready"]) >= STEPS and learner.status == "ready":
                learner.since_retrain = 500
            status = learner.status
            start = time.perf_counter()
            learner.step(x[i % STEPS][None, :], COLUMNS)
            took[status].append(1e3 * (time.perf_counter() - start))
            if len(took["retraining"]) >= STEPS:
                break
        every = took["ready"] + took["retraining"]
        quiet, busy = (float(np.percentile(took[name], 99)) for name in ("ready", "retraining"))
        return quiet, busy, max(every)
    finally:
        trainer.close()


def main(backends: list[str]) -> int:
    """Print the table; 1 when a target is missed."""
    missed = []
    print(
        f"{'backend':22}{'single':>9}{'batch':>10}{'48 f single':>12}{'48 f batch':>11}{'KiB':>8}"
        f"{'P':>7}{'R':>7}"
    )
    for backend in backends:
        figures = [*rates(backend, rolling=False), *rates(backend, rolling=True), memory_kib(backend)]
        scores = [found(backend, seed) for seed in (1, 2, 3)]
        precision, recall = np.median(np.array(scores), axis=0)
        one, many, one_rolling, many_rolling, kib = figures
        print(
            f"{backend:22}{one:9,.0f}{many:10,.0f}{one_rolling:12,.0f}{many_rolling:11,.0f}{kib:8,.0f}"
            f"{precision:7.3f}{recall:7.3f}",
            flush=True,
        )
        if precision < PRECISION_MIN or recall < RECALL_MIN:
            missed.append(f"{backend}: precision {precision:.3f}, recall {recall:.3f}")
    plain = plain_rate()
    ours = rates("ecod", rolling=False)[0]
    print(f"PyOD ecod one row at a time {plain:,.0f} rows/cpu-s; ours {ours / plain:.0f}x")
    for backend in ("ecod", "isolation_forest"):
        quiet, busy, most = waiting(backend)
        print(
            f"{backend}: p99 of a step {quiet:.3f} ms, during fits {busy:.3f} ms ({busy / quiet:.2f}x), "
            f"max {most:.1f}"
        )
    print("\n".join(missed) or "all targets reached")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or sorted(FIT)))
