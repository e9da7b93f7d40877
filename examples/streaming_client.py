"""Watch a machine through the streaming API: post one reading after another, tell of what is odd.

    plexus-detect serve &
    python examples/streaming_client.py [URL]

Nothing but the standard library. Readings come from a simulated pump here: put your own in the place of
``pump``. The first request creates the detector; it learns from MIN_SAMPLES readings, and from then on each
is answered with a score of which 0.5 is the line.
"""

import json
import os
import random
import sys
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.request import Request, urlopen

URL = "http://127.0.0.1:14345"
KEY = os.environ.get("PLEXUS_DETECT_SERVE_KEY", "")
MIN_SAMPLES = 100


def pump(n: int = 200) -> Iterator[dict[str, float]]:
    """Readings of a pump whose vibration follows its flow: at 150 it runs hot, from 180 on it cavitates."""
    noise = random.Random(1)
    for i in range(n):
        flow = noise.uniform(20.0, 40.0)
        vibration = 0.05 * (60.0 - flow if i >= 180 else flow) + noise.gauss(0.0, 0.02)
        hot = 25.0 if i == 150 else 0.0
        yield {"flow": flow, "vibration": vibration, "temperature": noise.gauss(72.0, 2.0) + hot}


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer of the stream endpoint; raises urllib's HTTPError, whose body says what is wrong."""
    headers = {"Content-Type": "application/json", **({"X-API-Key": KEY} if KEY else {})}
    with urlopen(Request(f"{url}/v1/ml/anomaly/stream", json.dumps(body).encode(), headers), timeout=30) as r:
        answer: dict[str, Any] = json.load(r)
    return answer


def watch(url: str, model: str, readings: Iterable[dict[str, float]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Post each reading; the results of those that are odd, with their number."""
    for i, reading in enumerate(readings):
        answer = post(url, {"model": model, "data": reading, "min_samples": MIN_SAMPLES})
        result = answer["results"][0]
        if result["is_anomaly"]:
            yield i, result


def main() -> None:
    """Print a line for each odd reading."""
    url = sys.argv[1] if len(sys.argv) > 1 else URL
    for i, result in watch(url, "pump-1", pump()):
        blame = ", ".join(c["metric"] for c in result["contributors"] if c["share"] >= 0.1)
        print(f"reading {i}: {result['severity']}, score {result['score']:.2f} ({blame})", flush=True)


if __name__ == "__main__":
    main()
