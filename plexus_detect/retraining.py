"""Training on a schedule: ``train --deploy-if-comparable`` in a process of its own, when it is due.

The process is the command that a person or cron would start, under the same settings: what it deploys lies in
the folder of models, from where the worker takes it between two rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from plexus_detect import clock
from plexus_detect.config import Config, DetectorConfig
from plexus_detect.errors import ConfigError, ModelError, NotDeployedError
from plexus_detect.logs import event
from plexus_detect.redaction import redact
from plexus_detect.training.shelf import MADE_MS
from plexus_detect.training.trainer import NICE
from plexus_detect.training.versions import ModelFolder
from plexus_detect.vitals import Vitals

log = logging.getLogger(__name__)

# Whether something is due is looked at this often; after a training that failed it is not due for so long.
LOOK_S, RETRY_MS = 60.0, 3_600_000

# A training that takes longer is given up.
TRAINING_S_MAX = 3_600.0

# How a scheduled training can end.
RESULTS = ("deployed", "refused", "failed")

# Figures of the comparison that the log tells.
_TOLD = ("rows", "ks_distance", "median", "q90", "q99", "beyond", "different", "lost", "probes", "finds")


class Ended(NamedTuple):
    """How a process ended, and what it wrote."""

    code: int
    out: str
    err: str


Start = Callable[[Sequence[str]], Awaitable[Ended]]


def require(config: Config) -> None:
    """Raise ConfigError when models are to be trained on a schedule, and what trains them is not there."""
    import importlib.util

    named = [group.name for group in config.detectors if group.retrain_ms]
    if named and importlib.util.find_spec("torch") is None:
        raise ConfigError(
            f"detectors: retrain of {', '.join(named)} needs torch: pip install 'plexus-detect[deep]'; or "
            "leave retrain out, and run train --deploy-if-comparable from a timer elsewhere"
        )


class Retraining:
    """Trains what is due, one model at a time; ``start`` runs ``plexus-detect`` with some arguments."""

    def __init__(self, vitals: Vitals, config_paths: Sequence[Path], start: Start | None = None) -> None:
        self._vitals = vitals
        self._config_paths = config_paths
        self._start = start or command
        self._failed_ms: dict[str, int] = {}

    async def run(self, config: Config, stop: asyncio.Event) -> None:
        """Train what is due, again and again until ``stop`` is set; ends at once if nothing has a schedule.

        The first look is after a while: a start has the past to read, and one that follows another quickly
        must not train each time.
        """
        groups = [group for group in config.detectors if group.retrain_ms]
        if not groups:
            return
        self._vitals.trainings = self._vitals.trainings or dict.fromkeys(RESULTS, 0)
        while not stop.is_set():
            await clock.wait_s(stop, LOOK_S)
            for group in groups:
                if not stop.is_set():
                    await self.step(config, group)

    async def step(self, config: Config, group: DetectorConfig) -> bool:
        """Train the model of a group if that is due; whether it was."""
        now_ms = clock.now_ms()
        if now_ms < self._due_ms(ModelFolder(config.models), group):
            return False
        given = [part for path in self._config_paths for part in ("--config", str(path))]
        past = f"{group.retrain_from_ms // 1000}s"
        # The name may begin with a dash.
        asked = ["train", "--from", past, "--deploy-if-comparable", "--output", "json", *given]
        ended = await self._start([*asked, "--", group.name])
        self._told(group.name, ended)
        return True

    def _due_ms(self, folder: ModelFolder, group: DetectorConfig) -> int:
        """When the next training is due: so long after the newest version was made, deployed or not."""
        versions = folder.versions(group.name)
        try:
            made = folder.card(group.name, versions[-1]).get(MADE_MS) if versions else None
        except ModelError:
            made = None
        failed = self._failed_ms.get(group.name)
        due = made + group.retrain_ms if isinstance(made, int) else 0
        return due if failed is None else max(due, failed + min(RETRY_MS, group.retrain_ms))

    def _told(self, name: str, ended: Ended) -> None:
        """Count a training, and tell of it in one line."""
        facts: dict[str, Any] = {}
        card = _card(ended.out)
        if card is None or ended.code not in (0, NotDeployedError.exit_code):
            self._failed_ms[name] = clock.now_ms()
            result = "failed"
            last = (ended.err.strip().splitlines() or ["it said nothing"])[-1]
            facts["err"] = redact(last.removeprefix("plexus-detect: "))
        else:
            self._failed_ms.pop(name, None)
            result = "deployed" if card.get("deployed") else "refused"
            facts = {key: card[key] for key in ("version", "compared_with") if key in card}
            about = card.get("comparison")
            if isinstance(about, dict):
                facts |= {"verdict": about.get("verdict"), **{key: about.get(key) for key in _TOLD}}
                facts["msg"] = f"the model of {name} that was trained is {result}: {about.get('why')}"
        trainings = self._vitals.trainings = self._vitals.trainings or dict.fromkeys(RESULTS, 0)
        trainings[result] += 1
        level = logging.INFO if result == "deployed" else logging.WARNING
        event(log, level, "model_trained", group=name, result=result, **facts)


def _card(out: str) -> dict[str, object] | None:
    """The card that the command printed; None where there is none."""
    try:
        cards = json.loads(out)
    except ValueError:
        return None
    return cards[0] if isinstance(cards, list) and cards and isinstance(cards[0], dict) else None


async def command(arguments: Sequence[str]) -> Ended:
    """Run ``plexus-detect`` in a process that gives way to all others; one that is cancelled is ended."""
    # -P: a module of the working directory must not take the place of an installed one.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "plexus_detect", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
        async with asyncio.timeout(TRAINING_S_MAX):
            out, err = await process.communicate()
        return Ended(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))
    except TimeoutError:
        return Ended(1, "", f"the training took longer than {TRAINING_S_MAX:.0f} s and was given up")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
