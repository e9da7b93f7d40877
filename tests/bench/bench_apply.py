"""A thousand monitors through the command line: plan, apply, and the plan and apply that find nothing to do.

Real processes against the sandbox on loopback; the start of the program is included.

    python tests/bench/bench_apply.py [monitors]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from subprocess_worker import environment, finished

from plexus_detect.sandbox import Sandbox

METRICS = 10


def main(monitors: int) -> None:
    """Print the seconds of each command, and its requests for the platform's list."""
    devices = monitors // METRICS
    with Sandbox() as box, tempfile.TemporaryDirectory() as name:
        folder, now_ms = Path(name), time.time_ns() // 1_000_000
        box.load((f"dev-{i}", f"m{j}", now_ms, 1.0) for i in range(devices) for j in range(METRICS))
        wanted = [
            {"source_id": "*", "metric": f"m{j}.zscore", "threshold": {"max": 3}} for j in range(METRICS)
        ]
        (folder / "monitors").mkdir()
        (folder / "monitors/all.json").write_text(json.dumps(wanted))
        env = environment(box.url, box.key)
        for words in (["plan", "--days", "0"], ["apply"], ["plan"], ["apply"]):
            lists = box.requests.counts["GET /api/monitors"]
            began_s = time.monotonic()
            done = finished(["monitors", *words], env, folder)
            took_s, lists = time.monotonic() - began_s, box.requests.counts["GET /api/monitors"] - lists
            last = done.stdout.splitlines()[-1:] or ["nothing to do"]
            print(f"{' '.join(words):14} exit {done.returncode}, {took_s:4.1f} s, {lists} lists: {last[0]}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
