"""Models on disk: every version of a model is two files, its arrays and its card, and one version is in use.

``<folder>/<name>/0007.npz`` holds the arrays and no pickle, ``0007.onnx`` the model in that form if it has
one, ``0007.json`` the card with the fingerprints of both, ``current`` the number of the version in use,
``rejected`` the numbers of those that a person went back from, or that were not deployed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import struct
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from plexus_detect.errors import ModelError
from plexus_detect.learn.fitted import Fitted
from plexus_detect.learn.model import Arrays

# Versions kept of each model, but for the one in use; and as many of those that were rejected.
KEPT = 5

# A folder's name may be this long on every file system.
NAME_MAX = 120

# No model of ours is larger: a larger file is not read.
BYTES_MAX = 1 << 30


# What bytes that are no archive of arrays, or not all of one, make of the code that reads them.
_DAMAGE = (
    AttributeError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def packed(arrays: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """Named arrays as one archive, without pickle."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(arrays))
    return buffer.getvalue()


def unpacked(archive: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of an archive; raises ModelError when it is damaged."""
    try:
        with np.load(io.BytesIO(archive), allow_pickle=False) as held:
            return {name: held[name] for name in held.files}
    except _DAMAGE as error:
        raise ModelError(f"this archive of arrays is damaged ({error})") from None


def written(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two threads may write the same file: the last one's stays, and neither's is mixed with the other's.
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    part.write_bytes(content)
    part.replace(path)


def folder_name(name: str) -> str:
    """A name that every file system takes, different for different names."""
    quoted = quote(name, safe=" ", errors="surrogatepass").replace(".", "%2E")
    if len(quoted) <= NAME_MAX:
        # A lone percent sign, here and below, is in no quoted name.
        return quoted or "%"
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{quoted[: NAME_MAX - 18]}%-{mark}"


class ModelFolder:
    """The models of a folder, each under a name of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _of(self, name: str) -> Path:
        return self.path / folder_name(name)

    def path_of(self, name: str, version: int) -> Path:
        """Where the card of a version is; its archive and its ONNX file lie beside it."""
        return self._of(name) / f"{version:04}.json"

    def save(self, name: str, fitted: Fitted) -> int:
        """Keep a learned model as the newest version of ``name`` and use it; returns its number."""
        return self.keep(name, fitted.arrays(), {"metrics": fitted.names, **asdict(fitted.card)})

    def keep(
        self,
        name: str,
        arrays: Arrays,
        facts: Mapping[str, object],
        onnx: bytes | None = None,
        *,
        use: bool = True,
    ) -> int:
        """Keep a model as the newest version of ``name`` and use it; returns its number.

        ``facts`` of JSON values go into its card; ``onnx`` is kept beside it. Without ``use`` it is kept for
        people to look at: the version in use stays, and nobody goes back to the new one but by its number.
        The oldest versions beyond KEPT are removed.
        """
        numbers, archive, home = self.versions(name), packed(arrays), self._of(name)
        now, number, rejected = self.current(name), self._number(name), self.rejected(name)
        if not use and now is not None:
            # First, so that nobody takes the newest version for the one in use.
            written(home / "current", str(now).encode())
            written(home / "rejected", json.dumps(sorted({*rejected.intersection(numbers), number})).encode())
        about = {**facts, "name": name, "version": number, "sha256": hashlib.sha256(archive).hexdigest()}
        written(home / f"{number:04}.npz", archive)
        if onnx is not None:
            about["fingerprint"] = hashlib.sha256(onnx).hexdigest()
            written(home / f"{number:04}.onnx", onnx)
        written(home / f"{number:04}.json", json.dumps(about, indent=2).encode())
        if use or now is None:
            written(home / "current", str(number).encode())
        chosen = [old for old in numbers if old not in rejected]
        for old in {*chosen[:-KEPT], *sorted(rejected.intersection(numbers))[:-KEPT]} - {self.current(name)}:
            for suffix in ("json", "npz", "onnx"):
                (home / f"{old:04}.{suffix}").unlink(missing_ok=True)
        return number

    def _number(self, name: str) -> int:
        """A number for a new version that no other process has: its archive is there from now on."""
        home, numbers = self._of(name), self.versions(name)
        home.mkdir(parents=True, exist_ok=True)
        number = numbers[-1] + 1 if numbers else 1
        while True:
            try:
                (home / f"{number:04}.npz").touch(exist_ok=False)
            except FileExistsError:
                number += 1
            else:
                return number

    def names(self) -> list[str]:
        """The names of all models, in order. A card that is damaged names none."""
        found = set()
        for path in self.path.glob("*/[0-9]*.json"):
            with contextlib.suppress(ModelError):
                found.add(str(self._card(path)["name"]))
        return sorted(found)

    def versions(self, name: str) -> list[int]:
        """The versions of a model, ascending; none for an unknown name."""
        stems = (path.stem for path in self._of(name).glob("[0-9]*.json"))
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def current(self, name: str) -> int | None:
        """The version in use; None for an unknown name."""
        try:
            return int((self._of(name) / "current").read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            numbers = self.versions(name)
            return numbers[-1] if numbers else None

    def card(self, name: str, version: int) -> dict[str, object]:
        """What is known of a version; raises ModelError if there is none."""
        return self._card(self.path_of(name, version))

    def _card(self, path: Path) -> dict[str, object]:
        try:
            about = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise ModelError(f"there is no model {path}; list what there is with: models list") from None
        except OSError as error:
            raise ModelError(
                f"{path} cannot be read ({error.strerror}); remove it, or fit the model again"
            ) from None
        except (ValueError, RecursionError):
            raise ModelError(
                f"{path} is no JSON; remove it with its archive, or fit the model again"
            ) from None
        if not isinstance(about, dict) or not isinstance(about.get("name"), str):
            raise ModelError(f"{path} is no model card; remove it with its archive, or fit the model again")
        return about

    def load(self, name: str, version: int | None = None) -> Fitted:
        """A version of a learned model, by default the one in use. Raises ModelError as ``arrays`` does."""
        return Fitted.of(self.arrays(name, version))

    def arrays(self, name: str, version: int | None = None) -> dict[str, npt.NDArray[np.generic]]:
        """The arrays of a version of a model, by default the one in use.

        Raises ModelError when there is none, or it is not the one that its card describes.
        """
        number = self.current(name) if version is None else version
        if number is None:
            raise ModelError(f"there is no model {name!r} in {self.path}")
        path, about = self._of(name) / f"{number:04}.npz", self.card(name, number)
        if "fingerprint" in about:
            _checked(path.with_suffix(".onnx"), about["fingerprint"])
        return unpacked(_checked(path, about.get("sha256")))

    def use(self, name: str, version: int) -> None:
        """Use this version from now on; raises ModelError if it cannot be."""
        self._use(name, version, self.rejected(name) - {version})

    def _use(self, name: str, version: int, rejected: set[int]) -> None:
        self.arrays(name, version)
        kept = sorted(rejected.intersection(self.versions(name)))
        written(self._of(name) / "rejected", json.dumps(kept).encode())
        written(self._of(name) / "current", str(version).encode())

    def roll_back(self, name: str) -> int:
        """Use the version before the one in use, and never go back to that one unless it is asked for by its
        number; returns the number of the one used now. Raises ModelError if there is none."""
        now, rejected = self.current(name), self.rejected(name)
        before = [v for v in self.versions(name) if now is not None and v < now and v not in rejected]
        if now is None or not before:
            raise ModelError(f"there is no version of {name!r} before {now} that was not rolled back from")
        self._use(name, before[-1], rejected | {now})
        return before[-1]

    def rejected(self, name: str) -> set[int]:
        """The versions that were rolled back from."""
        try:
            found = json.loads((self._of(name) / "rejected").read_bytes())
        except (FileNotFoundError, ValueError, RecursionError):
            return set()
        return {number for number in found if isinstance(number, int)} if isinstance(found, list) else set()

    def remove(self, name: str) -> None:
        """Remove all versions of a model."""
        home = self._of(name)
        for path in home.glob("*"):
            path.unlink()
        if home.exists():
            home.rmdir()


def _checked(path: Path, wanted: object) -> bytes:
    """The content of a file whose SHA-256 is ``wanted``; raises ModelError."""
    try:
        if path.stat().st_size > BYTES_MAX:
            raise ModelError(f"{path} is larger than any model of ours; it is not read")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path} is missing although its card is there; fit the model again") from None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}); remove it, or fit the model again"
        ) from None
    if hashlib.sha256(content).hexdigest() != wanted:
        raise ModelError(
            f"{path} is not the file that its card describes; restore it, or fit the model again"
        )
    return content
