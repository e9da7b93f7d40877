"""training.versions: models on disk, their versions, and what happens to a folder."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from learn_data import job, motor
from profiles import examples

from plexus_detect.errors import ModelError
from plexus_detect.learn.fitted import Fitted
from plexus_detect.training.fit import fit
from plexus_detect.training.versions import KEPT, ModelFolder, folder_name, packed, unpacked

ODD = (
    "", " ", ".", "..", "../..", "../pump", "/etc/passwd", "a/b", "a\\b", "a%2Fb", "a b", "a.b", "a_b", "a:b",
    "%", "%00", "\0", "\n", "pümp", "ポンプ", "\ud800", "a" * 300, "a" * 301, "current", "0001", "CON", "~",
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Fitted:
    """A small model."""
    return fit(job("ecod", motor(1, 60)[0])).fitted


@pytest.fixture
def folder(tmp_path: Path) -> ModelFolder:
    """A folder that is not there yet."""
    return ModelFolder(tmp_path / "models")


def test_a_model_is_kept(folder: ModelFolder, model: Fitted) -> None:
    """What is saved is loaded with the same bits, and its card says what it is."""
    assert folder.save("pump", model) == 1
    again, x = folder.load("pump"), motor(2, 40, 0.1)[0]
    np.testing.assert_array_equal(again.score(x).ratio, model.score(x).ratio)
    about = folder.card("pump", 1)
    assert (about["name"], about["version"], about["backend"]) == ("pump", 1, "ecod")
    assert about["metrics"] == ["a", "b", "c"]
    assert about["data_hash"] == model.card.data_hash
    assert folder.names() == ["pump"]


def test_nothing_there(folder: ModelFolder) -> None:
    """An unknown name has no versions, and to load it or go back is a ModelError with a sentence."""
    assert (folder.names(), folder.versions("pump"), folder.current("pump")) == ([], [], None)
    for wrong in (folder.load, folder.roll_back):
        with pytest.raises(ModelError, match="pump"):
            wrong("pump")
    with pytest.raises(ModelError, match="there is no model"):
        folder.use("pump", 3)
    folder.remove("pump")


def test_old_versions_go(folder: ModelFolder, model: Fitted) -> None:
    """The newest is in use; beside it KEPT older ones stay, and numbers are never used again."""
    for _ in range(KEPT + 4):
        folder.save("pump", model)
    last = KEPT + 4
    assert folder.versions("pump") == list(range(last - KEPT, last + 1))
    assert folder.current("pump") == last
    assert len(list(folder.path.glob("*/*.npz"))) == KEPT + 1


def test_the_version_in_use_stays(folder: ModelFolder, model: Fitted) -> None:
    """However many versions come after a roll back, the one in use is there to be loaded."""
    for _ in range(3):
        folder.save("pump", model)
    folder.use("pump", 1)
    for _ in range(KEPT + 3):
        folder.save("pump", model)
        current = folder.current("pump")
        assert current in folder.versions("pump")
        folder.load("pump")


def test_roll_back(folder: ModelFolder, model: Fitted) -> None:
    """Each roll back goes one version back, until there is none before; a save goes on from the newest."""
    for _ in range(3):
        folder.save("pump", model)
    assert [folder.roll_back("pump"), folder.roll_back("pump")] == [2, 1]
    assert folder.current("pump") == 1
    with pytest.raises(ModelError, match="no version of 'pump' before 1"):
        folder.roll_back("pump")
    assert folder.versions("pump") == [1, 2, 3]
    assert folder.save("pump", model) == 4
    assert folder.current("pump") == 4


def test_a_rejected_version_is_not_gone_back_to(folder: ModelFolder, model: Fitted) -> None:
    """A version that was rolled back from is passed over by later roll backs, until it is asked for by its
    number; it stays listed, and a damaged list of them is none."""
    for _ in range(3):
        folder.save("pump", model)
    assert folder.roll_back("pump") == 2
    assert folder.save("pump", model) == 4
    assert folder.rejected("pump") == {3}
    assert folder.roll_back("pump") == 2
    assert folder.versions("pump") == [1, 2, 3, 4]
    folder.use("pump", 3)
    assert folder.rejected("pump") == {4}
    assert folder.save("pump", model) == 5
    assert folder.roll_back("pump") == 3
    for text in ("", "{}", "[[]]"):
        next(folder.path.glob("*/rejected")).write_text(text)
        assert folder.rejected("pump") == set()


def test_remove(folder: ModelFolder, model: Fitted) -> None:
    """A model that is removed is gone with all versions, and others stay."""
    for name in ("pump", "pump", "motor"):
        folder.save(name, model)
    folder.remove("pump")
    assert folder.names() == ["motor"]
    assert folder.save("pump", model) == 1


def test_a_changed_archive_is_refused(folder: ModelFolder, model: Fitted) -> None:
    """An archive that is not the one its card describes is refused with one sentence, wherever it differs."""
    folder.save("pump", model)
    (path,) = folder.path.glob("*/*.npz")
    good = path.read_bytes()
    for at in range(0, len(good), len(good) // 13):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(ModelError, match="not the file that its card describes") as told:
            folder.load("pump")
        assert "\n" not in str(told.value)
    path.unlink()
    with pytest.raises(ModelError, match="is missing although its card is there"):
        folder.load("pump")


def test_a_changed_onnx_file_is_refused(folder: ModelFolder, model: Fitted) -> None:
    """The ONNX file beside an archive is described by the card too: a changed or missing one is refused."""
    folder.keep("pump", model.arrays(), {}, b"onnx")
    (path,) = folder.path.glob("*/*.onnx")
    folder.load("pump")
    path.write_bytes(b"onny")
    with pytest.raises(ModelError, match="onnx is not the file that its card describes"):
        folder.load("pump")
    path.unlink()
    with pytest.raises(ModelError, match="onnx is missing although its card is there"):
        folder.load("pump")


def test_two_who_save_take_different_numbers(folder: ModelFolder, model: Fitted) -> None:
    """Saves of one name at the same time, or after one that broke off, have a number each, all are whole."""
    folder.save("pump", model)
    next(folder.path.glob("*")).joinpath("0002.npz").touch()
    with ThreadPoolExecutor(4) as threads:
        numbers = list(threads.map(lambda _: folder.save("pump", model), range(4)))
    assert sorted(numbers) == [3, 4, 5, 6]
    for number in numbers:
        folder.load("pump", number)


def test_a_bad_version_cannot_be_used(folder: ModelFolder, model: Fitted) -> None:
    """A version that cannot be loaded is not rolled back to: the one in use stays."""
    folder.save("pump", model)
    folder.save("pump", model)
    next(folder.path.glob("*/0001.npz")).write_bytes(b"")
    with pytest.raises(ModelError):
        folder.roll_back("pump")
    assert folder.current("pump") == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": 3}', "\ufeff{}", "[" * 100_000])
def test_a_damaged_card_is_refused(folder: ModelFolder, model: Fitted, text: str) -> None:
    """A card that is none is a ModelError with one sentence, and keeps no other model from being listed."""
    folder.save("pump", model)
    next(folder.path.glob("*/*.json")).write_text(text)
    with pytest.raises(ModelError, match="remove it with its archive"):
        folder.load("pump")
    folder.save("motor", model)
    assert folder.names() == ["motor"]


def test_stray_files_are_no_versions(folder: ModelFolder, model: Fitted) -> None:
    """A copy beside the files and a version in use that is no number do no harm."""
    folder.save("pump", model)
    home = next(folder.path.glob("*"))
    (home / "0001 (copy).json").write_bytes((home / "0001.json").read_bytes())
    (home / "current").write_text("the newest")
    assert (folder.versions("pump"), folder.current("pump")) == ([1], 1)
    folder.load("pump")
    folder.remove("pump")
    assert not home.exists()


def test_odd_names(folder: ModelFolder, model: Fitted) -> None:
    """Names of any kind keep apart, stay in the folder, and come back as they were."""
    for name in ODD:
        folder.save(name, model)
    for name in ODD:
        assert folder.versions(name) == [1], repr(name)
        assert folder.card(name, 1)["name"] == name
    assert folder.names() == sorted(ODD)
    assert {path.name for path in folder.path.parent.iterdir()} == {"models"}
    assert all(path.is_dir() for path in folder.path.iterdir())
    for name in ODD:
        folder.remove(name)
    assert not list(folder.path.iterdir())


@examples(600)
@given(a=st.text(max_size=200), b=st.text(max_size=200))
def test_different_names_have_different_folders(a: str, b: str) -> None:
    """No two names share a folder, a long one and the folder of another included; none leaves the folder."""
    for one, two in ((a, b), (a, folder_name(a)), (a * 7, folder_name(a * 7))):
        assert (folder_name(one) == folder_name(two)) == (one == two)
    assert 0 < len(folder_name(a).encode()) <= 120
    assert "/" not in folder_name(a)
    assert folder_name(a).strip(".")


def test_folders_of_long_names_are_no_names() -> None:
    """The folder of a long name is not the folder of the name that reads like it."""
    assert folder_name(folder_name("a" * 300)) != folder_name("a" * 300)


@examples(1500)
@given(data=st.data())
def test_damaged_archives(data: st.DataObject) -> None:
    """Bytes that are no archive of arrays, or a changed one, are a ModelError or arrays, nothing else."""
    good = packed({"a": np.arange(5.0), "b": np.array([1, 2]), "c": np.zeros((2, 3))})
    start = data.draw(st.integers(0, len(good) - 1))
    kind = data.draw(st.sampled_from(["cut", "put", "noise"]))
    noise = data.draw(st.binary(max_size=12))
    bad = {"cut": good[:start], "put": good[:start] + noise + good[start + len(noise) :], "noise": noise}[
        kind
    ]
    try:
        held = unpacked(bad)
    except ModelError:
        return
    assert all(isinstance(array, np.ndarray) for array in held.values())


def test_a_bare_array_is_no_archive(tmp_path: Path) -> None:
    """One array, a pickle and a text are refused, and nothing in them is run."""
    np.save(tmp_path / "a.npy", np.arange(3.0))
    np.savez(tmp_path / "o.npz", a=np.array([{}], dtype=object))
    for content in (
        (tmp_path / "a.npy").read_bytes(),
        (tmp_path / "o.npz").read_bytes(),
        b"\x80\x04N.",
        b"{}",
    ):
        with pytest.raises(ModelError, match="damaged"):
            unpacked(content)


def test_the_card_is_json(folder: ModelFolder, model: Fitted) -> None:
    """What is written beside an archive can be read by anything."""
    folder.save("pump", model)
    about = json.loads(next(folder.path.glob("*/*.json")).read_text())
    assert set(about) >= {"name", "version", "metrics", "sha256", "rows", "contamination", "from_ms", "to_ms"}
