"""The files of saved plans."""

from __future__ import annotations

from pathlib import Path

from plexus_detect import __version__
from plexus_detect.errors import ConfigError
from plexus_detect.monitors import Plan
from plexus_detect.monitors.savedplan import SavedPlan, is_saved_plan, saved, saved_from
from plexus_detect.provision.manifestfile import BYTES_MAX, utc_now, write_whole

_START_CHARS = 200


def write_plan(path: Path, plan: Plan, endpoint: str) -> None:
    """Keep a plan for a later run; nobody else may read it.

    Raises ConfigError, also where something else than a saved plan is: it may be a document.
    """
    if path.exists() and not is_plan_file(path):
        raise ConfigError(f"{path}: something else than a saved plan is there; name another file")
    text = saved(plan, endpoint, made=utc_now(), program=__version__).to_json()
    try:
        write_whole(path, text)
    except OSError as error:
        raise ConfigError(
            f"{path}: the plan cannot be written ({error.strerror}); name a file in a folder that exists and "
            "can be written"
        ) from error


def is_plan_file(path: Path) -> bool:
    """Whether a file starts as a saved plan, sound or not; False also for one that cannot be read."""
    try:
        if not path.is_file():
            return False
        with path.open(encoding="utf-8", errors="replace") as file:
            return is_saved_plan(file.read(_START_CHARS))
    except OSError:
        return False


def read_plan(path: Path, owner: str, endpoint: str) -> SavedPlan | None:
    """The saved plan in a file, None where something else is. Raises ConfigError for one that will not do."""
    if not is_plan_file(path):
        return None
    try:
        if path.stat().st_size > BYTES_MAX:
            raise ConfigError(f"{path}: larger than {BYTES_MAX} bytes, so no plan of monitors")
        text = path.read_text("utf-8-sig", errors="replace")
    except OSError as error:
        raise ConfigError(f"{path}: the plan cannot be read ({error.strerror}); check its rights") from error
    return saved_from(text, str(path), owner=owner, endpoint=endpoint)
