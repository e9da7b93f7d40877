"""ONNX models as detectors: which are taken, what they say, and which are refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, load_from_string, save_model
from sensors import NAMES, recording

from plexus_detect.errors import FitError, ModelError
from plexus_detect.learn.models import onnx as onnx_models
from plexus_detect.learn.models.onnx import OnnxModel
from plexus_detect.training.backends import FIT
from plexus_detect.training.onnx import PARITY_MAX, Exported, checked, dense_graph, export, parity

EXPORTED = ("autoencoder", "isolation_forest")
RNG = np.random.default_rng(3)
X = recording(0.5, seed=9).x
SEEN, HELD = X[:500], X[500:]


def made_by(backend: str, x: np.ndarray, seed: int) -> Exported:
    """A model of a backend in ONNX form."""
    made = export(FIT[backend](x, 0.1, seed))
    assert made is not None
    return made


def rebuilding(f: int = 6) -> bytes:
    """An autoencoder with random weights."""
    layers = [(RNG.normal(size=(a, b)), RNG.normal(size=b)) for a, b in ((f, 3), (3, f))]
    return dense_graph(layers, "Tanh")


def graph(
    shape: list[object], outputs: dict[str, tuple[str, list[object]]], number: int = TensorProto.FLOAT
) -> bytes:
    """A model of one operator for each output, applied to the input."""
    nodes = [helper.make_node(op, ["x"], [name]) for name, (op, _) in outputs.items()]
    told = [helper.make_tensor_value_info(name, number, s) for name, (_, s) in outputs.items()]
    whole = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", number, shape)], told)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=8).SerializeToString()


@pytest.fixture(scope="module")
def forest() -> Exported:
    """Our isolation forest."""
    return made_by("isolation_forest", SEEN, 1)


def converted() -> Exported:
    """scikit-learn's isolation forest through skl2onnx: ten trees, of which each takes it 50 ms."""
    # Here and not above: every worker of a run imports every test file, and these take seconds.
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import IsolationForest

    trees = IsolationForest(n_estimators=10, random_state=1).fit(SEEN.astype(np.float32))
    given = [("rows", FloatTensorType([None, 6]))]
    # Without a name it takes a random one.
    model = convert_sklearn(trees, "forest", given, target_opset={"": 17, "ai.onnx.ml": 3})
    return Exported(model.SerializeToString(), lambda x: -trees.decision_function(x.astype(np.float32)))


@pytest.fixture(scope="module")
def autoencoder() -> Exported:
    """Our autoencoder."""
    return made_by("autoencoder", SEEN, 1)


@pytest.fixture(params=EXPORTED)
def exported(request: pytest.FixtureRequest) -> Exported:
    """Each of the models that can be exported."""
    return request.getfixturevalue({"isolation_forest": "forest"}.get(request.param, request.param))


def test_an_exported_model_says_what_the_original_says(exported: Exported) -> None:
    """On held-back rows, also far outside of what was seen, the scores differ by less than 1e-4."""
    model, difference = checked(exported, HELD)
    assert difference == parity(exported.original, model, HELD) < PARITY_MAX
    assert np.ptp(exported.original(HELD)) > 0.01
    assert parity(exported.original, model, HELD + 1000.0) < PARITY_MAX


def test_columns_of_large_numbers_keep_their_digits() -> None:
    """Columns around a hundred million that vary by one keep parity: they are scaled before 32 bits."""
    x = RNG.normal(1e8, 1.0, (400, 3))
    for backend in EXPORTED:
        _, difference = checked(made_by(backend, x[:300], 1), x[300:])
        assert difference < PARITY_MAX


def test_a_forest_of_skl2onnx_runs_and_its_outlier_convention_is_turned() -> None:
    """It is known by its labels: a row far outside scores higher than usual ones, although scikit-learn's
    decision_function is lower; the scores are those of scikit-learn."""
    exported = converted()
    model, difference = checked(exported, HELD)
    assert difference < PARITY_MAX
    assert (model.orientation, model.output, model.rebuilds) == ("lower", "scores", False)
    odd = HELD[:1] + 30.0
    assert model.raw(odd)[0] > np.quantile(model.raw(SEEN), 0.95)
    assert model.contributions(odd) is None


def test_a_model_that_rebuilds_rows_scores_the_mean_squared_difference() -> None:
    """Its score is the mean over the columns, and what each column adds is said."""
    model = OnnxModel(rebuilding())
    x = RNG.normal(size=(50, 6))
    squares = (x.astype(np.float32) - model.run(x)) ** 2
    assert model.rebuilds
    assert np.allclose(model.raw(x), squares.mean(axis=1), rtol=1e-12)
    parts = model.contributions(x)
    assert parts is not None
    assert np.allclose(parts.sum(axis=1), model.raw(x), rtol=1e-12)


@pytest.mark.parametrize(
    "made", [rebuilding, lambda: made_by("isolation_forest", SEEN, 2).data, lambda: converted().data]
)
def test_a_row_has_the_same_bits_in_every_call(made: Callable[[], bytes]) -> None:
    """Alone, in parts of any size and at any place a row has the same score to the last bit."""
    model = OnnxModel(made())
    whole = model.raw(HELD)
    for m in (1, 7, 32, 33, 100):
        parts = [model.raw(HELD[a : a + m]) for a in range(0, len(HELD), m)][: 40 if m == 1 else None]
        found = np.concatenate(parts)
        assert np.array_equal(found, whole[: len(found)])
    assert model.raw(HELD[:0]).shape == (0,)


def test_the_same_rows_and_seed_give_the_same_file(
    exported: Exported, request: pytest.FixtureRequest
) -> None:
    """Exporting again gives the same bytes."""
    backend = request.node.callspec.params["exported"]
    assert made_by(backend, SEEN, 1).data == exported.data


def test_what_has_no_onnx_form_says_so() -> None:
    """A backend whose model is no network and no trees is kept as arrays only."""
    assert export(FIT["ecod"](SEEN, 0.1, 1)) is None


def test_orientation_and_output_can_be_named() -> None:
    """Of several outputs the named one is read; a lower score that is more anomalous changes its sign."""
    data = graph(["N", 1], {"a": ("Abs", ["N", 1]), "b": ("Neg", ["N", 1])})
    x = np.array([[2.0], [-3.0]])
    assert OnnxModel(data, "a").raw(x).tolist() == [2.0, 3.0]
    assert OnnxModel(data, "b", "lower").raw(x).tolist() == [2.0, -3.0]
    with pytest.raises(ModelError, match="name one of the ONNX model's outputs of floats: a, b"):
        OnnxModel(data)
    with pytest.raises(ModelError, match="name one"):
        OnnxModel(data, "c")


def test_doubles_stay_doubles() -> None:
    """A model of 64 bits is given 64 bits; one of 32 bits is given the nearest number that it can hold."""
    x = np.array([[1.0 + 1e-12], [1e300]])
    wide = graph(["N", 1], {"s": ("Identity", ["N", 1])}, TensorProto.DOUBLE)
    assert OnnxModel(wide).raw(x).tolist() == x[:, 0].tolist()
    narrow = OnnxModel(graph(["N", 1], {"s": ("Identity", ["N", 1])}))
    assert narrow.raw(x).tolist() == [1.0, float(np.finfo(np.float32).max)]


def test_saved_and_read_again_it_says_the_same(exported: Exported) -> None:
    """Through its arrays, through its card, and through another process's pickle."""
    model = OnnxModel(exported.data)
    card = model.card(NAMES)
    for again in (
        OnnxModel.of(model.arrays()),
        OnnxModel.load(exported.data, card, NAMES),
        pickle.loads(pickle.dumps(model)),
    ):
        assert np.array_equal(again.raw(HELD), model.raw(HELD))
        assert again.card(NAMES) == card


def test_a_tampered_or_mismatched_model_is_refused_with_one_sentence(forest: Exported) -> None:
    """A changed byte, other names, another order and another number of columns."""
    model = OnnxModel(forest.data)
    card, arrays = model.card(NAMES), model.arrays()
    bent = bytearray(forest.data)
    bent[len(bent) // 2] ^= 1
    with pytest.raises(ModelError, match="was changed after its card was written: fingerprint") as refused:
        OnnxModel.load(bytes(bent), card, NAMES)
    assert "\n" not in str(refused.value)
    with pytest.raises(ModelError, match="was changed"):
        OnnxModel.of({**arrays, "onnx": np.frombuffer(bytes(bent), np.uint8)})
    with pytest.raises(ModelError, match="damaged"):
        OnnxModel.of({**arrays, "about": arrays["about"][:9]})
    for names in (NAMES[::-1], NAMES[:5], ("load", *NAMES[1:])):
        with pytest.raises(ModelError, match="was made for"):
            OnnxModel.load(forest.data, card, names)
    with pytest.raises(ModelError, match="takes 6 columns, not the 2 named"):
        model.card(("a", "b"))
    with pytest.raises(ModelError, match="rows of 6 columns"):
        model.raw(HELD[:, :5])
    with pytest.raises(ModelError, match="orientation"):
        OnnxModel.load(forest.data, {**card, "orientation": "up"}, NAMES)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"no model at all", "cannot be run here"),
        (rebuilding()[:200], "cannot be run here"),
        (graph(["N", "f"], {"s": ("Identity", ["N", "f"])}), "does not say how many columns"),
        (graph(["N", 2, 2], {"s": ("Identity", ["N", 2, 2])}), "must have one input"),
        (graph(["N", 2], {"s": ("Identity", ["N", 2])}, TensorProto.INT64), "must have one input"),
        (graph(["N", 3], {"s": ("Shape", [2])}), "cannot be run here"),
        (graph(["N", 3], {"s": ("Flatten", ["N", 3]), "t": ("Identity", ["N", 3])}), "name one of"),
    ],
    ids=["text", "cut", "width", "images", "integers", "broken", "two"],
)
def test_what_is_no_such_model_is_refused_with_one_sentence(data: bytes, sentence: str) -> None:
    """Another file, half a file, other inputs, and outputs of which none or many could be the score."""
    with pytest.raises(ModelError, match=sentence) as refused:
        OnnxModel(data)
    assert "\n" not in str(refused.value)


def test_an_output_that_is_neither_score_nor_row_is_refused() -> None:
    """Two numbers for rows of three columns are neither."""
    layers = [(RNG.normal(size=(3, 2)), np.zeros(2))]
    with pytest.raises(ModelError, match="neither a score a row nor the rows rebuilt"):
        OnnxModel(dense_graph(layers, "Tanh"))


def test_numbers_in_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose weights are in a file beside it is refused, also where that file lies at hand."""
    model = load_from_string(rebuilding())
    save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="keeps numbers in other files"):
        OnnxModel((tmp_path / "m.onnx").read_bytes())


def test_a_large_file_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """More bytes than the limit are refused before the runtime sees them."""
    monkeypatch.setattr(onnx_models, "BYTES_MAX", 100)
    with pytest.raises(ModelError, match="has 101 bytes; at most 100"):
        OnnxModel(b"x" * 101)


def test_an_export_that_differs_is_refused(forest: Exported) -> None:
    """A model whose file says something else than it does is not given out; the sentence says by how much."""
    with pytest.raises(FitError, match=r"differs from the original by 0\.002 on 220 held-back rows"):
        checked(Exported(forest.data, lambda x: forest.original(x) + 2e-3), HELD)
    with pytest.raises(FitError, match="differs"):
        checked(Exported(forest.data, lambda x: np.full(len(x), np.nan)), HELD)
