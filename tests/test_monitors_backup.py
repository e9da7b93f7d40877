"""Backups of monitors: what is written comes back, the newest is the last, and old ones go."""

from __future__ import annotations

from pathlib import Path

import pytest

from plexus_detect import clock
from plexus_detect.errors import ConfigError
from plexus_detect.monitors import Change, Existing, Wanted
from plexus_detect.monitors.documents import LEAVE, filled
from plexus_detect.monitors.marks import Mark
from plexus_detect.provision.backups import Backups

HOT = ("dev-1", "t.zscore", "threshold")
AWAY = ("dev-1", "", "offline")
LOOK = ("dev-1", "t.zscore", "event")
HOT_3 = Existing(HOT, filled("threshold", {"max": 3}), ("a",), "i", Mark("plexus-detect", "0" * 8))
AWAY_300 = Existing(AWAY, filled("offline", {}), None, "o")
WORK = (
    Change("change", HOT, Wanted("m", HOT, filled("threshold", {"max": 4}), ("a",)), HOT_3, (), "POST", {}),
    Change("create", LOOK, Wanted("m", LOOK, filled("event", {"filters": [1]}), LEAVE), None, (), "POST", {}),
    Change("delete", AWAY, None, AWAY_300, (), "DELETE", {"offline_id": "o"}),
)


@pytest.fixture(name="backups")
def _backups(tmp_path: Path) -> Backups:
    return Backups(tmp_path / "s.monitors.json", "plexus-detect", "https://app", keep=3)


def test_a_backup_comes_back_as_it_was_written(backups: Backups) -> None:
    """Each touched monitor as it was, with targets, mark and id, and what was to come of it; the file is
    nobody else's to read."""
    path = backups.write(WORK, "prune")
    assert path.parent.name == "s.monitors.backups"
    assert path.name.endswith("Z-prune.json")
    assert path.stat().st_mode & 0o777 == 0o600
    found, backup = backups.newest()
    assert (found, backup.command, backup.owner, backup.endpoint) == (
        path,
        "prune",
        "plexus-detect",
        "https://app",
    )
    assert [(e.action, e.key, e.before, e.wanted) for e in backup.monitors] == [
        (c.action, c.key, c.found, c.wanted) for c in WORK
    ]


def test_the_newest_is_the_last_also_when_the_clock_goes_back(
    backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names rise in any case, and of many backups the newest are kept."""
    times = iter(
        [1_800_000_000_000, 1_800_000_000_001, 1_700_000_000_000, 1_700_000_000_001, 1_700_000_000_001]
    )
    moment = 0

    def now_ms() -> int:
        return moment

    monkeypatch.setattr(clock, "now_ms", now_ms)
    written = []
    for moment in times:  # noqa: B007  what now_ms tells
        written.append(backups.write(WORK, "apply"))
    assert written == sorted(set(written))
    assert backups.files() == written[-3:]
    assert backups.newest()[0] == written[-1]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: "", "no backup of monitors"),
        (lambda text: "[]", "no backup of monitors"),
        (lambda text: "[" * 9999, "no backup of monitors"),
        (lambda text: text.replace('"plexus_detect_backup": 1', '"plexus_detect_backup": 2'), "of version 2"),
        (lambda text: text.replace('"max": 3.0', '"max": 4.0'), "was damaged or edited"),
        (lambda text: text.replace("https://app", "https://other"), "was damaged or edited"),
    ],
)
def test_a_damaged_backup_is_one_sentence(backups: Backups, spoil, words: str) -> None:
    """Whatever became of it."""
    path = backups.write(WORK, "apply")
    path.write_text(spoil(path.read_text()))
    with pytest.raises(ConfigError, match=words):
        backups.newest()
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="no backup of monitors"):
        backups.newest()


def test_a_backup_of_another_is_refused(backups: Backups, tmp_path: Path) -> None:
    """Another owner's, or another platform's; and none at all says so."""
    manifest = tmp_path / "s.monitors.json"
    with pytest.raises(ConfigError, match="no backup there"):
        backups.newest()
    backups.write(WORK, "apply")
    with pytest.raises(ConfigError, match=r"of owner 'plexus-detect', not of 'b'"):
        Backups(manifest, "b", "https://app").newest()
    with pytest.raises(ConfigError, match=r"of platform 'https://app', not of 'https://b'"):
        Backups(manifest, "plexus-detect", "https://b").newest()


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """Before anything is changed."""
    (tmp_path / "s.monitors.backups").write_text("in the way")
    with pytest.raises(ConfigError, match=r"no backup can be written there \(.*\), so nothing was changed"):
        Backups(tmp_path / "s.monitors.json", "a", "b").write(WORK, "apply")
