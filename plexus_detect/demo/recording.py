"""The recorded series that the demo replays: where it lies, and which stretches of it are calm."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np

from plexus_detect.errors import ConfigError
from plexus_detect.series import F64, I64

NAME = "ambient_temperature.csv"
WINDOWS = "windows.json"
LABEL = "realKnownCause/ambient_temperature_system_failure.csv"
STEP = timedelta(hours=1)


@dataclass(frozen=True)
class Recording:
    """``value`` (n,) in the record's unit, ``at`` their n local times, ``labelled`` both ends included."""

    at: tuple[datetime, ...]
    value: F64
    labelled: tuple[tuple[datetime, datetime], ...]


def data_folder(package: Path | None = None) -> Path:
    """The folder of the recorded series: inside the installed package, or in a source checkout beside it.

    ``package`` is the package's own folder. Raises ConfigError when the data are in neither place.
    """
    if package is None:
        package = Path(str(resources.files("plexus_detect")))
    places = (package / "data", package.parent / "examples" / "data")
    for place in places:
        if (place / NAME).is_file() and (place / WINDOWS).is_file():
            return place
    raise ConfigError(f"demo: {NAME} is neither in {places[0]} nor in {places[1]}; install the package again")


def read_recording(folder: Path) -> Recording:
    """The office's temperature with its labelled windows."""
    with (folder / NAME).open(encoding="utf-8", newline="") as file:
        rows = [
            (datetime.fromisoformat(row["timestamp"]), float(row["value"])) for row in csv.DictReader(file)
        ]
    windows = json.loads((folder / WINDOWS).read_text("utf-8"))[LABEL]
    labelled = tuple((datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in windows)
    return Recording(tuple(at for at, _ in rows), np.array([value for _, value in rows]), labelled)


def whole_starts(recording: Recording, length: int) -> I64:
    """Where stretches of ``length`` readings begin that have no hole and touch no labelled window."""
    at = recording.at
    broken = np.array([True] + [b - a != STEP for a, b in pairwise(at)])
    odd = np.array([any(start <= t <= end for start, end in recording.labelled) for t in at])
    starts = np.arange(max(0, len(at) - length + 1))
    broken_before = np.concatenate(([0], np.cumsum(broken)))
    odd_before = np.concatenate(([0], np.cumsum(odd)))
    # A stretch may begin behind a hole, so what was before its first reading does not count.
    whole = broken_before[starts + length] == broken_before[starts + 1]
    fits: I64 = starts[whole & (odd_before[starts + length] == odd_before[starts])]
    return fits


def calm_starts(recording: Recording, history: int, live: int) -> I64:
    """The half of the whole stretches of ``history + live`` readings whose live part moves least.

    How much it moves is its largest less its smallest value: the rule knows nothing of any detector.
    """
    starts = whole_starts(recording, history + live)
    moved = np.ptp(np.lib.stride_tricks.sliding_window_view(recording.value, live), axis=1)[starts + history]
    calm: I64 = starts[moved <= np.median(moved)] if len(starts) else starts
    return calm


def spaced(starts: I64, count: int) -> I64:
    """``count`` different ones of ``starts``, equally spaced; raises ValueError when there are fewer."""
    if len(starts) < count:
        raise ValueError(f"only {len(starts)} stretches, {count} are needed")
    chosen: I64 = starts[np.round(np.linspace(0, len(starts) - 1, count)).astype(np.int64)]
    return chosen
