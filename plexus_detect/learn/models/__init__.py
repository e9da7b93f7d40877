"""The models by name of their backend, one family a file."""

from __future__ import annotations

from plexus_detect.learn.model import Model
from plexus_detect.learn.models.autoencoder import Autoencoder
from plexus_detect.learn.models.cblof import Cblof
from plexus_detect.learn.models.copod import Copod
from plexus_detect.learn.models.ecod import Ecod
from plexus_detect.learn.models.forest import IsolationForest
from plexus_detect.learn.models.halfspace import HalfSpaceTrees
from plexus_detect.learn.models.hbos import Hbos
from plexus_detect.learn.models.loda import Loda
from plexus_detect.learn.models.mcd import Mcd
from plexus_detect.learn.models.neighbours import Knn, LocalOutlierFactor
from plexus_detect.learn.models.onnx import OnnxModel
from plexus_detect.learn.models.suod import Suod
from plexus_detect.learn.models.svm import OneClassSVM

MODELS: dict[str, type[Model]] = {
    model.backend: model
    for model in (
        Autoencoder,
        Cblof,
        Copod,
        Ecod,
        HalfSpaceTrees,
        Hbos,
        IsolationForest,
        Knn,
        Loda,
        LocalOutlierFactor,
        Mcd,
        OneClassSVM,
        OnnxModel,
        Suod,
    )
}
