"""Any ONNX model with one numeric input of rows: its score, or how badly it rebuilds the row."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.errors import ModelError
from plexus_detect.learn.model import Arrays, array_json, json_array
from plexus_detect.series import F64

Orientation = Literal["auto", "higher", "lower"]

# A larger file than this is refused before anything reads it.
BYTES_MAX = 64 * 1024 * 1024

# Every call of the runtime has exactly so many rows, the last ones padded: a kernel chosen by the number of
# rows would give a row other last bits in a call of its own.
ROWS = 32

_TYPES: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(double)": np.float64}

# The entry of a tensor whose numbers are in another file: its key, as protobuf writes it, and the next tag.
_EXTERNAL = b"\x08location\x12"


class _Shape(NamedTuple):
    """What a model takes and gives: input name and type, number of columns, output name, kind and sign."""

    given: str
    dtype: type[np.floating[Any]]
    columns: int
    output: str
    sign: float
    rebuilds: bool = False


class OnnxModel:
    """A model in ONNX form, run by onnxruntime on one thread of the CPU.

    It takes rows (N, f) of 32- or 64-bit floats. An output of shape (N, 1) or (N,) is a score; one of the
    shape of the input, f > 1, is the row rebuilt, whose score is the mean squared difference. Of several
    outputs ``output`` names the one to read; else it is ``scores``, as skl2onnx calls it. ``orientation``
    says whether a higher or a lower score is more anomalous; ``auto`` is lower for a model that gives labels
    beside its scores, as scikit-learn's outlier detectors do (their decision_function is below zero for
    outliers), and higher for any other.

    Raises ModelError for a file that is too large, keeps numbers in other files, cannot be run here, or has
    another form than these.
    """

    backend: ClassVar[str] = "onnx"

    def __init__(self, data: bytes, output: str = "", orientation: Orientation = "auto") -> None:
        if len(data) > BYTES_MAX:
            raise ModelError(f"the ONNX model has {len(data)} bytes; at most {BYTES_MAX} are read")
        if _EXTERNAL in data:
            raise ModelError("the ONNX model keeps numbers in other files; save it as one file")
        self.data = data
        self.fingerprint = hashlib.sha256(data).hexdigest()
        self._session = _session(data)
        self._shape = _shape_of(self._session, output, orientation)

    @property
    def columns(self) -> int:
        """How many columns a row has."""
        return self._shape.columns

    @property
    def output(self) -> str:
        """The output that is read."""
        return self._shape.output

    @property
    def rebuilds(self) -> bool:
        """Whether the output is the row rebuilt, and not a score."""
        return self._shape.rebuilds

    @property
    def orientation(self) -> Orientation:
        """Which scores are more anomalous."""
        return "lower" if self._shape.sign < 0.0 else "higher"

    def run(self, x: F64) -> F64:
        """The output as it is for rows x, (m, f): (m, f) rebuilt, or (m, 1) scores.

        Raises ModelError for another number of columns.
        """
        if x.ndim != 2 or x.shape[1] != self.columns:
            raise ModelError(f"the ONNX model takes rows of {self.columns} columns, not {x.shape[1:]}")
        rows = _as(x, self._shape.dtype)
        return _run(self._session, self._shape, rows)

    def raw(self, x: F64) -> F64:
        """The score of each row of x, (m, f), larger is more anomalous: (m,)."""
        if self.rebuilds:
            # Added up column by column, so that a row has the same bits in every call.
            return np.add.accumulate(self._squares(x), axis=1)[:, -1]
        score: F64 = self._shape.sign * self.run(x)[:, 0]
        return score

    def contributions(self, x: F64) -> F64 | None:
        """What each column adds to the mean squared difference, (m, f); None for a score."""
        return self._squares(x) if self.rebuilds else None

    def _squares(self, x: F64) -> F64:
        out: F64 = (_as(x, self._shape.dtype).astype(np.float64) - self.run(x)) ** 2 / self.columns
        return out

    # -- saving and loading

    def card(self, names: Sequence[str]) -> dict[str, object]:
        """What ``load`` checks the model against: fingerprint, names of the columns, output, orientation."""
        if len(names) != self.columns:
            raise ModelError(f"the ONNX model takes {self.columns} columns, not the {len(names)} named")
        about = {"fingerprint": self.fingerprint, "output": self.output, "orientation": self.orientation}
        return {**about, "columns": list(names)}

    @classmethod
    def load(cls, data: bytes, card: Mapping[str, object], names: Sequence[str]) -> OnnxModel:
        """The model of a file and its card, for columns of these names in this order.

        Raises ModelError when the file is not the one that the card was written for, or the columns differ.
        """
        _check_fingerprint(data, card.get("fingerprint"))
        if card.get("columns") != list(names):
            raise ModelError(
                f"the ONNX model was made for the columns {card.get('columns')}, not {list(names)}"
            )
        model = cls(data, str(card.get("output", "")), _orientation(card.get("orientation")))
        model.card(names)
        return model

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The file's bytes and what ``of`` checks."""
        about = {"fingerprint": self.fingerprint, "output": self.output, "orientation": self.orientation}
        return {
            "onnx": np.frombuffer(self.data, np.uint8),
            "about": json_array(about),
        }

    @classmethod
    def of(cls, arrays: Arrays) -> OnnxModel:
        """The model that gave these arrays; raises ModelError when they are damaged or were changed."""
        try:
            data = np.asarray(arrays["onnx"], np.uint8).tobytes()
            about = array_json(arrays["about"])
            fingerprint, output, orientation = (about[k] for k in ("fingerprint", "output", "orientation"))
        except (KeyError, ValueError, TypeError) as error:
            raise ModelError(f"this is no ONNX model of ours, or a damaged one ({error})") from None
        _check_fingerprint(data, fingerprint)
        return cls(data, str(output), _orientation(orientation))

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process opens the file anew: a session cannot be sent."""
        return OnnxModel, (self.data, self.output, self.orientation)


def _check_fingerprint(data: bytes, wanted: object) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise ModelError(
            f"the ONNX model was changed after its card was written: fingerprint {found[:12]}, not "
            f"{str(wanted)[:12]}; export it again"
        )


def _orientation(text: object) -> Orientation:
    if text == "auto" or text == "higher" or text == "lower":
        return text
    raise ModelError(f"the orientation of a score is auto, higher or lower, not {text!r}")


def _session(data: bytes) -> Any:  # noqa: ANN401 (onnxruntime has no types)
    try:
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise ModelError("an ONNX model needs onnxruntime; install plexus-detect[learn]") from None
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors have no common base but this
        raise ModelError(f"the ONNX model cannot be run here: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]


def _shape_of(session: Any, output: str, orientation: Orientation) -> _Shape:  # noqa: ANN401
    """What the model takes and gives, found by running it on rows of zeros."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type not in _TYPES or len(inputs[0].shape) != 2:
        raise ModelError("the ONNX model must have one input, rows (N, f) of 32- or 64-bit floats")
    given, columns = inputs[0], inputs[0].shape[1]
    if not isinstance(columns, int) or columns < 1:
        raise ModelError("the ONNX model does not say how many columns its input has")
    scores = [o for o in outputs if o.type in _TYPES]
    names = [o.name for o in scores]
    wanted = output or ("scores" if "scores" in names else names[0] if len(names) == 1 else "")
    if wanted not in names:
        raise ModelError(
            f"name one of the ONNX model's outputs of floats: {', '.join(names) or 'it has none'}"
        )
    labels = any(o.type == "tensor(int64)" for o in outputs)
    sign = -1.0 if orientation == "lower" or (orientation == "auto" and labels) else 1.0
    shape = _Shape(given.name, _TYPES[given.type], columns, wanted, sign)
    found = _call(session, shape, np.zeros((ROWS, columns), shape.dtype)).shape
    if found == (ROWS, columns) and columns > 1:
        return shape._replace(rebuilds=True, sign=1.0)
    if found not in ((ROWS,), (ROWS, 1)):
        raise ModelError(
            f"the ONNX model's output '{wanted}' has the shape {found} for {ROWS} rows of {columns}: "
            "neither a score a row nor the rows rebuilt"
        )
    return shape


def _as(x: F64, dtype: type[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """Rows as the model takes them; what is too large for its floats is the largest of them."""
    most = float(np.finfo(dtype).max)
    return np.minimum(np.maximum(x, -most), most).astype(dtype)


def _run(session: Any, shape: _Shape, rows: npt.NDArray[np.floating[Any]]) -> F64:  # noqa: ANN401
    """The output for any number of rows, as many calls of ``ROWS`` rows as that takes."""
    m = len(rows)
    out = np.empty((m, shape.columns if shape.rebuilds else 1))
    for a in range(0, m, ROWS):
        part = rows[a : a + ROWS]
        n = len(part)
        if n < ROWS:
            part = np.concatenate([part, np.zeros((ROWS - n, shape.columns), shape.dtype)])
        out[a : a + n] = _call(session, shape, part).reshape(ROWS, -1)[:n]
    return out


def _call(session: Any, shape: _Shape, rows: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.generic]:  # noqa: ANN401
    try:
        return np.asarray(session.run([shape.output], {shape.given: rows})[0])
    except Exception as error:  # as in _session
        raise ModelError(f"the ONNX model failed: {_first_line(error)}") from None
