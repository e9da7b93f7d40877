"""Fitted models as ONNX files, and whether a file says what the model said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from plexus_detect.errors import FitError
from plexus_detect.learn.model import Model
from plexus_detect.learn.models.autoencoder import Autoencoder
from plexus_detect.learn.models.forest import IsolationForest
from plexus_detect.learn.models.onnx import OnnxModel
from plexus_detect.learn.scale import Scale
from plexus_detect.series import F64

# The largest difference of a score between a model and its file on held-back rows.
PARITY_MAX = 1e-4

# Versions of the format: old enough for every runtime of the last years.
OPSET, OPSET_ML, IR_VERSION = 17, 3, 8

Layer = tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.floating[Any]]]


class Exported(NamedTuple):
    """An ONNX file and the model that it was made from: its scores of rows, (m, f) -> (m,)."""

    data: bytes
    original: Callable[[F64], F64]


def parity(original: Callable[[F64], F64], exported: OnnxModel, held_back: F64) -> float:
    """The largest difference between the scores of rows, (m, f), by a model and by its ONNX form."""
    away = np.abs(original(held_back) - exported.raw(held_back))
    return float(away.max(initial=0.0))


def checked(exported: Exported, held_back: F64) -> tuple[OnnxModel, float]:
    """The model that runs, and its parity on rows that it was not fitted to.

    Raises FitError when it differs from the original by more than PARITY_MAX.
    """
    model = OnnxModel(exported.data)
    difference = parity(exported.original, model, held_back)
    if not difference <= PARITY_MAX:
        raise FitError(
            f"the exported model differs from the original by {difference:.2g} on {len(held_back)} held-back "
            f"rows; at most {PARITY_MAX:g} is allowed"
        )
    return model, difference


def export(model: Model) -> Exported | None:
    """A fitted model as an ONNX score of raw rows in 64 bits; None for a backend that has no such form."""
    if isinstance(model, Autoencoder):
        return Exported(autoencoder_graph(model), model.raw)
    if isinstance(model, IsolationForest):
        return Exported(forest_graph(model), model.raw)
    return None


# -- graphs


def dense_graph(layers: Sequence[Layer], activation: str) -> bytes:
    """Weights (in, out) and biases (out,) of dense layers, 32 bits, with an ONNX activation ("Relu", "Tanh")
    after every one but the last: rows (N, in) -> (N, out)."""
    graph = _Graph([], {})
    _dense(graph, layers, activation, "x", np.float32)
    return _model(graph, "rebuilt", layers[0][0].shape[0], len(layers[-1][1]))


def autoencoder_graph(model: Autoencoder) -> bytes:
    """Raw rows (N, f), 64 bits -> ``scores`` (N, 1): the distance from what the network makes of them."""
    graph = _scaled(model.scale)
    _dense(graph, model.layers, "Tanh", "scaled", np.float64)
    graph.constants["axis"] = np.array([1], np.int64)
    graph.add("Sub", ["scaled", "rebuilt"], "away")
    graph.add("Mul", ["away", "away"], "squares")
    graph.add("ReduceSum", ["squares", "axis"], "total")
    graph.add("Sqrt", ["total"], "scores")
    return _model(graph, "scores", len(model.scale.centre), 1)


def forest_graph(model: IsolationForest) -> bytes:
    """Raw rows (N, f), 64 bits -> ``scores`` (N, 1): all trees in one operator, which compares 32 bits."""
    trees, inner = model.feature.shape
    leaves = inner + 1
    node = np.arange(inner + leaves)
    below = np.where(node < inner, 2 * node, -1)
    leaf = np.zeros((trees, leaves))
    graph = _scaled(model.scale)
    for name, value in (("two", 2.0), ("unit_down", -model.unit), ("offset", model.offset)):
        graph.constants[name] = np.array([value])
    graph.add("Cast", ["scaled"], "narrow", to=_FLOAT)
    graph.add(
        "TreeEnsembleRegressor",
        ["narrow"],
        "cuts",
        domain=_ML,
        n_targets=1,
        nodes_treeids=np.repeat(np.arange(trees), len(node)).tolist(),
        nodes_nodeids=np.tile(node, trees).tolist(),
        nodes_featureids=np.concatenate([model.feature, leaf], axis=1).astype(np.int64).ravel().tolist(),
        nodes_values=np.concatenate([model.threshold, leaf], axis=1).ravel().tolist(),
        nodes_modes=(["BRANCH_LEQ"] * inner + ["LEAF"] * leaves) * trees,
        nodes_truenodeids=np.tile(below + 1, trees).tolist(),
        nodes_falsenodeids=np.tile(np.where(node < inner, below + 2, 0), trees).tolist(),
        target_treeids=np.repeat(np.arange(trees), leaves).tolist(),
        target_nodeids=np.tile(node[inner:], trees).tolist(),
        target_ids=[0] * (trees * leaves),
        target_weights=model.length.ravel().tolist(),
    )
    graph.add("Cast", ["cuts"], "wide", to=_DOUBLE)
    graph.add("Div", ["wide", "unit_down"], "depth")
    graph.add("Pow", ["two", "depth"], "share")
    graph.add("Add", ["share", "offset"], "scores")
    return _model(graph, "scores", len(model.scale.centre), 1)


# Numbers of TensorProto.DataType, and the name of the operators of trees.
_FLOAT, _DOUBLE, _ML = 1, 11, "ai.onnx.ml"


class _Graph(NamedTuple):
    """Nodes in their order, and constants by name."""

    nodes: list[Any]
    constants: dict[str, npt.NDArray[Any]]

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:  # noqa: ANN401
        """One more node."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))


def _scaled(scale: Scale) -> _Graph:
    """x -> scaled."""
    graph = _Graph([], {"centre": scale.centre, "unit": scale.unit})
    graph.add("Sub", ["x", "centre"], "centred")
    graph.add("Div", ["centred", "unit"], "scaled")
    return graph


def _dense(
    graph: _Graph, layers: Sequence[Layer], activation: str, given: str, dtype: type[np.floating[Any]]
) -> None:
    """given -> rebuilt."""
    for i, (weights, bias) in enumerate(layers):
        last = i == len(layers) - 1
        graph.constants[f"weights_{i}"] = weights.astype(dtype)
        graph.constants[f"bias_{i}"] = bias.astype(dtype)
        out = "rebuilt" if last else f"sum_{i}"
        graph.add("Gemm", [given, f"weights_{i}", f"bias_{i}"], out)
        if not last:
            given = f"cells_{i}"
            graph.add(activation, [out], given)


def _model(graph: _Graph, out: str, columns: int, width: int) -> bytes:
    """A graph from x, (N, columns), to ``out``, (N, width), as a file; of 64 bits where constants are."""
    from onnx import helper, numpy_helper

    number = _DOUBLE if any(c.dtype == np.float64 for c in graph.constants.values()) else _FLOAT
    whole = helper.make_graph(
        graph.nodes,
        "plexus_detect",
        [helper.make_tensor_value_info("x", number, ["N", columns])],
        [helper.make_tensor_value_info(out, number, ["N", width])],
        [numpy_helper.from_array(np.ascontiguousarray(c), name) for name, c in graph.constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_ML, OPSET_ML)]
    made = helper.make_model(whole, opset_imports=opsets, ir_version=IR_VERSION)
    return bytes(made.SerializeToString())
