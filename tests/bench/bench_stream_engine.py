"""The stream engine against the tutorial's loop, in messages a second of processor time, in the same run.

Ten machines of six sensors at a reading a second. The loop takes one message at a time: json.loads, one
inference of an autoencoder of the machine's last eight rows, and json.dumps of what is beyond its line. The
engine decodes a batch and judges the same windows; or scores every sensor against its own past; or does that
and judges windows of three sizes besides. Run with ``python tests/bench/bench_stream_engine.py [messages]``;
the exit code is 1 when the engine is not faster than the loop, or decodes fewer than 150,000 a second.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from sensors import NAMES, recording

from plexus_detect.evaluate import Policy, Rule
from plexus_detect.groups import GroupRule
from plexus_detect.learn.windowed import Windowed, WindowedParams
from plexus_detect.stream.engine import EngineParams, PartitionEngine
from plexus_detect.stream.messages import Batch, Decoder
from plexus_detect.stream.shape import Shape
from plexus_detect.training.trainer import InlineTrainer
from plexus_detect.training.windowed import fit_windowed

MACHINES, T0 = 10, 1_700_000_000_000
DECODED_MIN = 150_000.0


def messages(n: int) -> Batch:
    """``n`` readings of the machines, in turn."""
    rows = n // MACHINES + 1
    x = np.stack([recording(rows / 86_400, seed, step_s=1).x[:rows] for seed in range(MACHINES)], axis=1)
    values: list[bytes | None] = []
    for i in range(n):
        sensors = dict(zip(NAMES, x[i // MACHINES, i % MACHINES].round(4).tolist(), strict=True))
        body = {"timestamp": T0 / 1000 + i // MACHINES, "sample_index": i // MACHINES, "sensors": sensors}
        values.append(json.dumps(body).encode())
    keys: list[bytes | None] = [f"machine-{i % MACHINES}".encode() for i in range(n)]
    times = [T0 + 1000 * (i // MACHINES) + 30 for i in range(n)]
    return Batch(values, keys, times, list(range(n)))


def rate(work: Callable[[], object], n: int) -> float:
    """Messages a second of processor time."""
    began = time.process_time()
    work()
    return n / (time.process_time() - began)


def tutorial(batch: Batch, fitted: Windowed) -> int:
    """One message, one inference on the last eight of its machine, one alert: how many of these."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(fitted.views[0].net.data, options)
    name, size, told = session.get_inputs()[0].name, fitted.views[0].size, 0
    held: dict[bytes | None, deque[list[float]]] = {}
    for key, value in zip(batch.keys, batch.values, strict=True):
        said = json.loads(value or b"")
        window = held.setdefault(key, deque(maxlen=size))
        window.append([said["sensors"][sensor] for sensor in NAMES])
        if len(window) < size:
            continue
        z = (np.array(window) - fitted.scale.centre) / fitted.scale.unit
        x = z.reshape(1, -1).astype(np.float32)
        error = float(((session.run(None, {name: x})[0] - x) ** 2).mean())
        alert = {"timestamp": said["timestamp"], "score": error, "sensor_values": said["sensors"]}
        told += bool(json.dumps(alert)) if error > 1.0 else 0
    return told


def engine(fitted: Windowed | None, *, statistics: bool = True) -> PartitionEngine:
    """The default detectors over every sensor, and with a model the windows of each machine."""
    groups = () if fitted is None else (GroupRule("machine", NAMES, windowed=fitted, model_hash="bench"),)
    policy = Policy((Rule(),), groups=groups)
    return PartitionEngine(
        policy, lambda _s, _m: 0 if statistics else None, EngineParams("bench/0"), InlineTrainer()
    )


def in_batches(of: PartitionEngine, batch: Batch, size: int) -> None:
    """Everything, ``size`` messages at once."""
    for start in range(0, len(batch), size):
        of.take(batch.take(slice(start, start + size)))


def main(n: int = 60_000) -> int:
    """Print the rates, and their ratios to that of the loop."""
    healthy = recording(7, 99).x
    batch, fitted = messages(n), fit_windowed(healthy, NAMES, WindowedParams(), steps=200)
    small = fit_windowed(healthy, NAMES, WindowedParams((8,)), steps=200)
    few = batch.take(slice(0, min(n, 10_000)))
    tutorial(few.take(slice(0, 500)), fitted)
    loop = rate(lambda: tutorial(few, fitted), len(few))
    decoder = Decoder(Shape())
    decoded = rate(lambda: [decoder.read(batch.take(slice(i, i + 5000))) for i in range(0, n, 5000)], n)
    print(f"{'the loop: one message, one inference':<52} {loop:>10,.0f} msg/s")
    print(f"{'decode alone, 5000 at once':<52} {decoded:>10,.0f} msg/s  {decoded / loop:6.1f} x")
    slowest = np.inf
    forms = {
        "the loop's windows only": lambda: engine(small, statistics=False),
        "statistics": lambda: engine(None),
        "statistics and autoencoders": lambda: engine(fitted),
    }
    for name, made in forms.items():
        for size in (5000, 500, 50):
            of = made()
            in_batches(of, batch.take(slice(0, 2000)), 500)
            found = rate(lambda of=of, size=size: in_batches(of, batch.take(slice(2000, n)), size), n - 2000)
            print(f"{f'engine with {name}, {size} at once':<52} {found:>10,.0f} msg/s  {found / loop:6.1f} x")
            slowest = min(slowest, found) if size == 5000 else slowest
    return int(decoded < DECODED_MIN or slowest < loop)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
