"""Watch one metric of one source and post its debounced z-score: the whole idea on one page.

    PLEXUS_API_KEY=plx_... python examples/single_sensor.py SOURCE METRIC

The usual first attempt measures the newest point against a window that contains it. Then |z| can never exceed
sqrt(n - 1), 3.74 for 15 samples: a far point drags mean and deviation along with it. After a step of any size
|z| > 3 holds for two samples at most, so an alert that wants three in a row never comes. Here a point is
measured against earlier, normal points only. The worker adds what one page cannot: late points, restarts,
long outages and many series in one request.
"""

import os
import sys
import time
from collections import deque
from datetime import UTC, datetime
from statistics import fmean, pstdev
from typing import Any

import requests

APP = os.environ.get("PLEXUS_ENDPOINT", "https://app.plexus.company")
GATEWAY = os.environ.get("PLEXUS_GATEWAY_URL", "https://gateway.plexus.company")
LINE, IN_A_ROW = 3.0, 3  # the monitor on METRIC.zscore has max 3 as well
WINDOW, MIN_POINTS, RELEARN_AFTER = 300, 30, 720  # samples
SCALE_FLOOR = 0.01  # the sensor's resolution, in the metric's unit: one step off a constant is no alarm
MAX_AGE_S = 120  # the platform alerts on arrival, so an older score would page somebody about the past


class Watch:
    """One series: its normal samples, the newest one read, and scores that the gateway has yet to accept."""

    def __init__(self, source: str, metric: str) -> None:
        self.source, self.metric, self.newest = source, metric, ""
        self.normal: deque[float] = deque(maxlen=WINDOW)
        self.streak = 0
        self.unsent: list[dict[str, Any]] = []

    def score(self, value: float) -> float | None:
        """|z| once it was beyond the line three times running, else 0; None while still learning."""
        if len(self.normal) < MIN_POINTS:
            self.normal.append(value)
            return None
        z = (value - fmean(self.normal)) / max(pstdev(self.normal), SCALE_FLOOR)
        self.streak = self.streak + 1 if abs(z) > LINE else 0
        if self.streak == 0:
            self.normal.append(value)  # after scoring, and only when normal: an anomaly cannot hide itself
        if self.streak == RELEARN_AFTER:  # it has lasted so long that it is the new normal
            self.normal.clear()
            self.streak = 0
        return abs(z) if self.streak >= IN_A_ROW else 0.0


def poll_once(http: requests.Session, watch: Watch) -> int:
    """Read the newest samples, score the new ones, post their scores; the number the gateway accepted."""
    query = {"source": watch.source, "metric": watch.metric, "limit": "200"}
    # Without a valid key the app redirects to its sign-in page; followed, that would look like a success.
    answer = http.get(f"{APP}/api/v1/telemetry", params=query, timeout=30, allow_redirects=False)
    if answer.status_code != 200:
        raise RuntimeError(f"reading answered {answer.status_code}: {answer.text[:200]}")
    seen = watch.newest
    for row in answer.json()["data"]:  # oldest first; no rows can also mean trouble, so they change nothing
        if row["timestamp"] <= seen or row["value"] is None:
            continue
        watch.newest, score = row["timestamp"], watch.score(row["value"])
        # The first answer is history to learn from. From then on every sample gets a score, 0 included,
        # stamped with the sample's own time: an alert closes only if values inside the bound keep coming.
        if seen and score is not None:
            sampled_s = datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp()
            point = {"metric": f"{watch.metric}.zscore", "value": score, "timestamp": round(sampled_s * 1000)}
            watch.unsent.append(point)
    watch.unsent = [p for p in watch.unsent if p["timestamp"] > (time.time() - MAX_AGE_S) * 1000]
    if not watch.unsent:
        return 0
    body = {"source_id": watch.source, "points": watch.unsent}
    answer = http.post(f"{GATEWAY}/ingest", json=body, timeout=30)
    if answer.status_code != 200:  # a 401 can be the gateway's own trouble too: the next poll tries again
        raise RuntimeError(f"posting answered {answer.status_code}: {answer.text[:200]}")
    watch.unsent = []
    return int(answer.json()["count"])  # fewer than sent: the source's rate ceiling dropped the rest


def main(source: str, metric: str) -> None:
    """Poll every five seconds; trouble is printed and the next poll goes on."""
    watch, http = Watch(source, metric), requests.Session()
    http.headers["x-api-key"] = os.environ["PLEXUS_API_KEY"]
    while True:
        try:
            poll_once(http, watch)
        except (requests.RequestException, RuntimeError) as error:
            print(error, file=sys.stderr)
        time.sleep(5)


if __name__ == "__main__":
    main(*sys.argv[1:])
