"""training.shelf: detectors and their folder in step; what a person chose goes before what was learned."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from learn_data import RememberingTrainer, motor
from learn_data import learner as learner_of

from plexus_detect.learn.stream import Learner
from plexus_detect.training.shelf import MADE_BY, TRAIN, Shelf
from plexus_detect.training.versions import ModelFolder

NAMES = ("a", "b", "c")
TRAINER = RememberingTrainer()


def ready(seed: int = 1, rows: int = 60, **params: object) -> Learner:
    """A detector that has learned its first model of so many rows."""
    one = learner_of(TRAINER, **params)
    one.step(motor(seed, rows)[0], NAMES)
    return one


def hash_of(learner: Learner) -> str:
    """Which rows the model of a detector is from."""
    assert learner.fitted is not None
    return learner.fitted.card.data_hash


def trained(folder: ModelFolder, name: str, seed: int = 9) -> str:
    """Keep a model as the command train does; returns which rows it is from."""
    fitted = ready(seed).fitted
    assert fitted is not None
    folder.keep(name, fitted.arrays(), {**asdict(fitted.card), MADE_BY: TRAIN})
    return fitted.card.data_hash


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> ModelFolder:
    """An empty folder of models."""
    return ModelFolder(tmp_path)


def test_every_new_model_is_kept(folder: ModelFolder) -> None:
    """The first and the next of a running detector, each once; without one nothing is kept."""
    shelf, one, cold = Shelf(folder), ready(), learner_of(TRAINER)
    for _ in range(3):
        assert shelf.step([("one", one), ("cold", cold)]) == ([], [])
    assert (folder.versions("one"), folder.names()) == ([1], ["one"])
    one.step(motor(2, 60)[0], NAMES)
    assert one.version == 2
    assert shelf.step([("one", one)]) == ([], [])
    assert folder.versions("one") == [1, 2]
    assert folder.card("one", 2)["data_hash"] == hash_of(one)


def test_a_trained_model_is_taken(folder: ModelFolder) -> None:
    """By a detector that has none and by one that has its own, before and after these are in step; once."""
    for name, one in (("cold", learner_of(TRAINER)), ("fresh", ready())):
        chosen = trained(folder, name)
        assert Shelf(folder).step([(name, one)]) == ([name], [])
        assert hash_of(one) == chosen
        assert folder.versions(name) == [1]
    shelf, one = Shelf(folder), ready()
    shelf.step([("known", one)])
    chosen = trained(folder, "known")
    assert shelf.step([("known", one)]) == (["known"], [])
    assert shelf.step([("known", one)]) == ([], [])
    assert (hash_of(one), one.version) == (chosen, 2)


def test_after_a_chosen_model_the_detector_learns_on(folder: ModelFolder) -> None:
    """Its next own model is kept as the newest version and stays: what was chosen is not taken again."""
    shelf, one = Shelf(folder), ready()
    chosen = trained(folder, "one")
    shelf.step([("one", one)])
    one.step(motor(3, 60)[0], NAMES)
    own = hash_of(one)
    assert own != chosen
    for _ in range(2):
        assert shelf.step([("one", one)]) == ([], [])
    assert (folder.current("one"), folder.card("one", 2)["data_hash"], hash_of(one)) == (2, own, own)


def test_an_older_version_that_was_chosen_is_taken(folder: ModelFolder) -> None:
    """Going back, and forward again, while the detector runs and while it does not; nothing is kept anew."""
    shelf, one = Shelf(folder), ready()
    shelf.step([("one", one)])
    first = hash_of(one)
    one.step(motor(2, 60)[0], NAMES)
    second = hash_of(one)
    shelf.step([("one", one)])
    folder.roll_back("one")
    assert shelf.step([("one", one)]) == (["one"], [])
    assert hash_of(one) == first
    for restarted, version, expected in (
        (shelf, 2, second),
        (Shelf(folder), 1, first),
        (Shelf(folder), 2, second),
    ):
        folder.use("one", version)
        assert restarted.step([("one", one)]) == (["one"], [])
        assert (hash_of(one), folder.versions("one")) == (expected, [1, 2])
    folder.use("one", 1)
    elsewhere = ready(3)
    assert Shelf(folder).step([("one", elsewhere)]) == (["one"], [])
    assert (hash_of(elsewhere), folder.versions("one"), folder.current("one")) == (first, [1, 2], 1)


def test_a_restart_keeps_what_it_has(folder: ModelFolder) -> None:
    """A detector that comes back with a newer model of its own saves that; with the one on disk nothing
    happens; one that comes back without any takes the newest."""
    shelf, one = Shelf(folder), ready()
    shelf.step([("one", one)])
    one.step(motor(2, 60)[0], NAMES)
    assert Shelf(folder).step([("one", one)]) == ([], [])
    assert folder.card("one", 2)["data_hash"] == hash_of(one)
    assert Shelf(folder).step([("one", one)]) == ([], [])
    assert folder.versions("one") == [1, 2]
    empty = learner_of(TRAINER)
    assert Shelf(folder).step([("one", empty)]) == (["one"], [])
    assert hash_of(empty) == hash_of(one)


def test_a_model_that_cannot_be_used(folder: ModelFolder) -> None:
    """A damaged archive is one sentence; the detector goes on with its own model, and others are kept and
    take theirs all the same. Once the archive is as it was it is taken."""
    shelf, one, other, cold = Shelf(folder), ready(), ready(2), learner_of(TRAINER)
    chosen = trained(folder, "one")
    trained(folder, "cold")
    archive = folder.path_of("one", 1).with_suffix(".npz")
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-100])
    before = hash_of(one)
    running = [("one", one), ("other", other), ("cold", cold)]
    taken, (error,) = shelf.step(running)
    assert taken == ["cold"]
    assert error.startswith("one: ")
    assert error.endswith(
        "0001.npz is not the file that its card describes; restore it, or fit the model again"
    )
    assert folder.versions("other") == [1]
    assert hash_of(one) == before
    assert shelf.step(running) == ([], [error])
    archive.write_bytes(whole)
    assert shelf.step(running) == (["one"], [])
    assert hash_of(one) == chosen


def test_a_model_of_other_features_is_not_taken(folder: ModelFolder) -> None:
    """One that was trained with other rolling windows than the detector has."""
    trained(folder, "one")
    taken, (error,) = Shelf(folder).step([("one", learner_of(TRAINER, rolling=(3,)))])
    assert taken == []
    assert "the model was made with rolling [] and lags []" in error


def test_a_folder_that_lost_its_versions(folder: ModelFolder) -> None:
    """A mark of the version in use without that version is one sentence for a detector, with a model or
    without."""
    trained(folder, "one")
    folder.path_of("one", 1).unlink()
    for one in (learner_of(TRAINER), ready()):
        taken, (error,) = Shelf(folder).step([("one", one)])
        assert taken == []
        assert "there is no model" in error
