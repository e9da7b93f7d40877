"""The autoencoder of windows against the detectors of single series, on six sensors that move together.

For each seed 30 days at a row a minute: 14 healthy days to learn from, then six anomalies of each kind. The
detectors `auto` and `zscore` run over each sensor alone, from the first day on. All have the same cool-down.
An anomaly is found when there is an alert between its begin and one largest window after its end, for the
single detectors on the sensor that is wrong; every other alert is false. Precision of a kind counts a quarter
of the false alerts. ``chance`` is the part that alerts at the same times of the same days without any anomaly
would have found: where recall is near it, nothing was found. Run with
``python tests/bench/bench_autoencoder.py [seeds]``; the exit code is 1 when the autoencoder does not find
correlation breaks, or the others do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from sensors import KINDS, NAMES, Anomaly, Recording, recording

from plexus_detect import score_series
from plexus_detect.learn.windowed import PERCENTILES, Windowed, WindowedParams
from plexus_detect.training.windowed import fit_windowed

DAYS, HEALTHY_DAYS, PER_KIND = 30, 14, 6
SEEN = HEALTHY_DAYS * 1440
TOLERANCE = max(WindowedParams().sizes)
COOL_DOWN_MS = WindowedParams().cool_down_ms
RECALL_MIN, ABOVE_CHANCE_MAX = 0.9, 0.2


class Judged(NamedTuple):
    """Alerts after the learning days as (row, sensor), sensor -1 for all of them, and rows above the line."""

    alerts: list[tuple[int, int]]
    above: float


class Figures(NamedTuple):
    """What one detector did with one seed.

    ``found`` by anomaly: its kind, the delay in rows (None: not found), whether chance would have found it.
    ``alarms_a_day`` and ``above``, the part of rows above the line, are of the days where all is well.
    """

    found: list[tuple[str, int | None, bool]]
    false: int
    alarms_a_day: float
    above: float


def of_windows(fitted: Windowed, recorded: Recording, severity: int) -> Judged:
    """The alerts of the autoencoder of at least this severity."""
    alarms = fitted.stream().step(recorded.x, recorded.t_ms)
    rows = np.flatnonzero(alarms.alert & (alarms.severity >= severity))
    above = float(np.mean(alarms.severity[SEEN:] >= severity))
    return Judged([(row, -1) for row in rows.tolist() if row >= SEEN], above)


def of_each_sensor(name: str, recorded: Recording) -> Judged:
    """The alerts of a detector of single series on each sensor, after the same cool-down."""
    alerts, above = [], np.zeros(len(recorded.x), np.bool_)
    for sensor in range(len(NAMES)):
        over = score_series(recorded.t_ms, recorded.x[:, sensor], name) > 1.0
        above |= over
        last = -COOL_DOWN_MS
        for row in np.flatnonzero(over).tolist():
            if row >= SEEN and recorded.t_ms[row] - last >= COOL_DOWN_MS:
                alerts.append((row, sensor))
                last = int(recorded.t_ms[row])
    return Judged(sorted(alerts), float(above[SEEN:].mean()))


def delay(alerts: list[tuple[int, int]], anomaly: Anomaly) -> int | None:
    """Rows from the beginning of an anomaly to its first alert; None when there is none in time."""
    rows = [row for row, sensor in alerts if covers(anomaly, row, sensor)]
    return min(rows) - anomaly.start if rows else None


def covers(anomaly: Anomaly, row: int, sensor: int) -> bool:
    """Whether an alert is one of this anomaly."""
    return sensor in (-1, anomaly.sensor) and anomaly.start <= row < anomaly.end + TOLERANCE


def figures(wrong: Judged, well: Judged, anomalies: list[Anomaly]) -> Figures:
    """Compare alerts with what was wrong."""
    found = [(a.kind, delay(wrong.alerts, a), delay(well.alerts, a) is not None) for a in anomalies]
    false = sum(not any(covers(a, *alert) for a in anomalies) for alert in wrong.alerts)
    return Figures(found, false, len(well.alerts) / (DAYS - HEALTHY_DAYS), well.above)


def run(seed: int) -> Iterator[tuple[str, Figures]]:
    """All detectors on the data of one seed."""
    well = recording(DAYS, seed)
    wrong = recording(DAYS, seed, PER_KIND, HEALTHY_DAYS)
    begun = time.perf_counter()
    fitted = fit_windowed(well.x[:SEEN], NAMES, WindowedParams(seed=seed))
    took, begun = time.perf_counter() - begun, time.perf_counter()
    fitted.stream().step(well.x, well.t_ms)
    rate = len(well.x) / (time.perf_counter() - begun)
    size = sum(array.nbytes for array in fitted.arrays().values()) / 1000
    parity = float(str(fitted.card["parity"]))
    print(f"seed {seed}: fit {took:.1f} s, {rate:,.0f} rows/s, model {size:.0f} kB, ONNX parity {parity:.1e}")
    for threshold, percentile in PERCENTILES.items():
        named = replace(fitted, params=WindowedParams(threshold=threshold, seed=seed))
        for severity, word in ((1, ""), (2, " critical")):
            judged = of_windows(named, wrong, severity), of_windows(named, well, severity)
            yield f"{threshold} {percentile:g}{word}", figures(*judged, wrong.anomalies)
    for name in ("auto", "zscore"):
        judged = of_each_sensor(name, wrong), of_each_sensor(name, well)
        yield f"{name} (each sensor)", figures(*judged, wrong.anomalies)


def report(name: str, all_seeds: list[Figures]) -> dict[str, tuple[float, float]]:
    """Print the lines of one detector; recall and chance by kind."""
    rates = {}
    false = sum(f.false for f in all_seeds)
    days, n = float(np.mean([f.alarms_a_day for f in all_seeds])), len(all_seeds)
    above = 100.0 * float(np.mean([f.above for f in all_seeds]))
    print(f"\n{name}: {days:.1f} alerts a day and {above:.2f} % of rows above the line where all is well")
    for kind in (*KINDS, "all"):
        of_kind = [e for f in all_seeds for e in f.found if kind in (e[0], "all")]
        delays = [d for _, d, _ in of_kind if d is not None]
        share = false if kind == "all" else false / len(KINDS)
        recall, chance = len(delays) / len(of_kind), float(np.mean([c for _, _, c in of_kind]))
        precision = len(delays) / (len(delays) + share) if delays else 0.0
        f1 = 2.0 * precision * recall / (precision + recall) if delays else 0.0
        middle = f"{np.median(delays):5.0f}" if delays else "    -"
        print(
            f"  {kind:6} precision {precision:.2f}  recall {recall:.2f}  F1 {f1:.2f}  chance {chance:.2f}  "
            f"delay {middle} rows  ({len(of_kind)} anomalies, {n} seeds)"
        )
        rates[kind] = recall, chance
    return rates


def main(seeds: int = 2) -> int:
    """Print the table; 1 when correlation breaks are not told as they must be."""
    collected: dict[str, list[Figures]] = {}
    for seed in range(1, seeds + 1):
        for name, result in run(seed):
            collected.setdefault(name, []).append(result)
    rates = {name: report(name, results)["break"] for name, results in collected.items()}
    singles = [recall - chance for name, (recall, chance) in rates.items() if "each sensor" in name]
    missed = any(recall < RECALL_MIN for name, (recall, _) in rates.items() if "each" not in name)
    return int(missed or max(singles) > ABOVE_CHANCE_MAX)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
