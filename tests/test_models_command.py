"""models: which versions there are, what they are, and going back to an older one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from learn_data import RememberingTrainer, learner, motor

from plexus_detect.errors import ModelError
from plexus_detect.train.models import models
from plexus_detect.training.versions import ModelFolder

NAMES = ("a", "b", "c")
TRAINER = RememberingTrainer()
DAY_MS = 86_400_000


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelFolder:
    """Three versions of pump@a and one of motor, in the folder of a configuration by environment."""
    monkeypatch.setenv("PLEXUS_DETECT_STATE__MODELS", str(tmp_path / "models"))
    folder = ModelFolder(tmp_path / "models")
    for day, name in enumerate(("pump@a", "pump@a", "motor", "pump@a")):
        one = learner(TRAINER)
        one.step(motor(day, 60)[0], NAMES, t_ms=1_800_000_000_000 + DAY_MS * day + 1000 * np.arange(60))
        assert one.fitted is not None
        folder.save(name, one.fitted)
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines that the command prints."""
    models.main(list(arguments), standalone_mode=False)
    return capsys.readouterr().out.splitlines()


def test_all_versions_are_listed(folder: ModelFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """By name and number with backend, rows and span, and a mark at the one in use."""
    lines = said(capsys, "list")
    assert [line.split()[:3] for line in lines] == [
        ["*", "motor", "1"],
        ["pump@a", "1", "ecod,"],
        ["pump@a", "2", "ecod,"],
        ["*", "pump@a", "3"],
    ]
    assert lines[1].endswith("rows, 2027-01-15T08:00:00.000Z to 2027-01-15T08:00:49.000Z")


def test_no_models_are_an_empty_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is not there yet holds none."""
    monkeypatch.setenv("PLEXUS_DETECT_STATE__MODELS", str(tmp_path / "nowhere"))
    assert said(capsys, "list") == []


def test_a_card_is_shown(folder: ModelFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the version in use, or of another; with what the archive must be."""
    lines = said(capsys, "show", "pump@a")
    assert lines[0] == "pump@a version 3"
    assert f"  {'sha256':22}{folder.card('pump@a', 3)['sha256']}" in lines
    assert f"  {'metrics':22}a, b, c" in lines
    assert said(capsys, "show", "pump@a", "1")[0] == "pump@a version 1"


def test_going_back(folder: ModelFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """One version at a time, or to a given one, also forward; the list says so."""
    assert said(capsys, "roll-back", "pump@a") == ["pump@a: version 2 is in use"]
    assert said(capsys, "roll-back", "pump@a") == ["pump@a: version 1 is in use"]
    assert [line[:10] for line in said(capsys, "list")] == [
        "* motor 1 ",
        "* pump@a 1",
        "  pump@a 2",
        "  pump@a 3",
    ]
    assert said(capsys, "roll-back", "pump@a", "--to", "3") == ["pump@a: version 3 is in use"]
    assert folder.current("pump@a") == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "pum"), "there is no model 'pum' in"),
        (("show", "pump@a", "9"), "0009.json; list what there is with: models list"),
        (("roll-back", "motor"), "there is no version of 'motor' before 1"),
        (("roll-back", "pum"), "there is no version of 'pum' before"),
        (("roll-back", "pump@a", "--to", "9"), "0009.json; list what there is with: models list"),
    ],
)
def test_what_is_not_there(folder: ModelFolder, arguments: tuple[str, ...], words: str) -> None:
    """One sentence; what is in use stays."""
    with pytest.raises(ModelError) as raised:
        models.main(list(arguments), standalone_mode=False)
    assert words in str(raised.value)
    assert (folder.current("pump@a"), folder.current("motor")) == (3, 1)


def test_a_damaged_version_is_not_gone_back_to(folder: ModelFolder) -> None:
    """An archive that was changed is refused, and the one in use stays."""
    folder.path_of("pump@a", 2).with_suffix(".npz").write_bytes(b"no archive")
    with pytest.raises(ModelError, match="is not the file that its card describes"):
        models.main(["roll-back", "pump@a"], standalone_mode=False)
    assert folder.current("pump@a") == 3
