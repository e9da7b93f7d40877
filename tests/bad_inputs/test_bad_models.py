"""Bad model files and cards: exit 4 and the file that is wrong, or a list without it; nothing is run."""

from __future__ import annotations

import io
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from door import Said, refused, through
from learn_data import RememberingTrainer, learner, motor
from mutations import mutated

from plexus_detect.errors import ModelError
from plexus_detect.training.versions import ModelFolder

FLIPS, SOAK_FLIPS = 40, 5_000
NAMES = ("a", "b", "c")
_KEPT: dict[str, bytes] = {}


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """The folder of a model ``pump`` with two versions; fitted once."""
    home = tmp_path / "models" / "pump"
    if not _KEPT:
        models = ModelFolder(tmp_path / "models")
        for day in range(2):
            one = learner(RememberingTrainer())
            one.step(
                motor(day, 60)[0], NAMES, t_ms=1_800_000_000_000 + 86_400_000 * day + 1000 * np.arange(60)
            )
            assert one.fitted is not None
            models.save("pump", one.fitted)
        _KEPT.update({path.name: path.read_bytes() for path in home.iterdir()})
    home.mkdir(parents=True, exist_ok=True)
    for name, content in _KEPT.items():
        (home / name).write_bytes(content)
    return home


def asked(folder: Path, *words: str) -> Said:
    """``models`` with these words over the folder."""
    env = {"PLEXUS_DETECT_STATE__MODELS": str(folder.parent)}
    return through(folder.parent.parent, ["models", *words], env=env)


def card(**more: Any) -> bytes:
    """The card of version 2 with these facts in place of its own."""
    return json.dumps({**json.loads(_KEPT["0002.json"]), **more}).encode()


class Trap:
    """What makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("pwned", "w"))


def pickled() -> bytes:
    """An archive whose array is a pickle."""
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([Trap()], object))
    return buffer.getvalue()


CARDS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no JSON": lambda: b"hello",
    "cut off": lambda: _KEPT["0002.json"][:100],
    "a list": lambda: b"[]",
    "null": lambda: b"null",
    "a number": lambda: b"5",
    "all bytes": lambda: bytes(range(256)),
    "brackets without end": lambda: b"[" * 100_000,
    "5000 digits": lambda: b'{"name":' + b"9" * 5000 + b"}",
    "no name": lambda: b"{}",
    "a name of a number": lambda: card(name=5),
    "a name of null": lambda: card(name=None),
}


@pytest.mark.parametrize("make", CARDS.values(), ids=CARDS)
def test_a_card_that_is_none(folder: Path, make: Callable[[], bytes]) -> None:
    """``show`` and ``roll-back`` end with exit 4 and the card's name."""
    (folder / "0002.json").write_bytes(make())
    refused(asked(folder, "show", "pump", "2"), 4, "0002.json")
    refused(asked(folder, "roll-back", "pump", "--to", "2"), 4, "0002.json")


def test_a_card_that_is_a_folder(folder: Path) -> None:
    """The same."""
    (folder / "0002.json").unlink()
    (folder / "0002.json").mkdir()
    refused(asked(folder, "show", "pump", "2"), 4, "0002.json")
    listed = asked(folder, "list")
    assert (listed.code, len(listed.sentences)) == (4, 1)


FACTS: dict[str, dict[str, Any]] = {
    "a time of text": {"from_ms": "soon"},
    "a time of null": {"to_ms": None},
    "a time of a list": {"from_ms": [1]},
    "a time beyond the calendar": {"to_ms": 10**30},
    "a time before the calendar": {"from_ms": -(10**30)},
    "infinite": {"from_ms": float("inf")},
    "deep facts": {"backend": [[[[[[[[[[1]]]]]]]]]]},
    "a backend for the terminal": {"backend": "\x1b[2J\u202e"},
    "half a character": {"backend": "\ud800"},
    "a version of text": {"version": "x"},
}


@pytest.mark.parametrize("facts", FACTS.values(), ids=FACTS)
def test_facts_that_are_none(folder: Path, facts: dict[str, Any]) -> None:
    """Cards are shown, or refused in a sentence; no terminal obeys them."""
    (folder / "0002.json").write_bytes(card(**facts))
    for words in (["list"], ["show", "pump"]):
        said = asked(folder, *words)
        assert said.code in (0, 4), said
        assert len(said.sentences) == (said.code == 4)
        assert said.out.replace("\n", "").isprintable()


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"hello",
    "cut off": lambda: _KEPT["0002.npz"][:-40],
    "another version's": lambda: _KEPT["0001.npz"],
    "pickled": pickled,
    "a pickle": lambda: pickle.dumps(Trap()),
    "a bomb of zeros": lambda: _KEPT["0002.npz"] + b"\0" * 1_000_000,
}


@pytest.mark.parametrize("make", ARCHIVES.values(), ids=ARCHIVES)
def test_an_archive_that_is_another(
    folder: Path, make: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not the file that the card describes: exit 4, and the version in use stays."""
    monkeypatch.chdir(folder)
    (folder / "0002.npz").write_bytes(make())
    (folder / "current").write_text("1")
    refused(asked(folder, "roll-back", "pump", "--to", "2"), 4, "0002.npz")
    assert (folder / "current").read_text() == "1"
    assert not list(folder.parent.parent.rglob("pwned"))


@pytest.mark.parametrize("content", [b"", b"x", b"99", b"-1", b"\xff\xfe", b"1e3", b"9" * 5000], ids=repr)
def test_a_choice_that_is_none(folder: Path, content: bytes) -> None:
    """The file that says which version is in use may say anything."""
    (folder / "current").write_bytes(content[:6000])
    said = asked(folder, "list")
    assert (said.code, said.sentences) == (0, [])
    assert asked(folder, "show", "pump").code in (0, 4)


def test_names_that_climb(folder: Path) -> None:
    """A model's name is no path."""
    for name in ("../../etc", "/etc/passwd", "a\nb", "", ".", "x" * 5000, "\x1b[2J"):
        refused(asked(folder, "show", name, "1"), 4, "there is no model")


def _flipped(folder: Path, seeds: range) -> None:
    names = [name for name in sorted(_KEPT) if name.endswith((".json", ".npz"))]
    for seed in seeds:
        rng = random.Random(seed)
        name = rng.choice(names)
        (folder / name).write_bytes(mutated(_KEPT[name], rng))
        for version in (1, 2):
            try:
                ModelFolder(folder.parent).load("pump", version)
            except ModelError as error:
                assert str(error)  # noqa: PT017  either outcome is fine
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error!r}") from error
        (folder / name).write_bytes(_KEPT[name])


def test_files_with_flipped_bytes(folder: Path) -> None:
    """Damage is found by the card, and the card's own by what it must hold."""
    _flipped(folder, range(FLIPS))


@pytest.mark.soak
def test_many_files_with_flipped_bytes(folder: Path) -> None:
    """The same for many seeds."""
    _flipped(folder, range(SOAK_FLIPS))
