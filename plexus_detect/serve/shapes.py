"""The requests as pydantic models: names, defaults and limits as documented, and what we add."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from plexus_detect.serve.catalogue import BackendName
from plexus_detect.serve.settings import LIST_ITEMS_MAX, SPAN_ROWS_MAX, WINDOW_ROWS_MAX

Row = dict[Any, Any]
Normalization = Literal["standardization", "zscore", "raw"]
EncoderKind = Literal["numeric", "hash", "label", "onehot", "binary", "frequency"]
Schema = Annotated[dict[str, EncoderKind] | None, Field(alias="schema")]
Window = Annotated[int, Field(ge=1, le=SPAN_ROWS_MAX)]
Windows = Annotated[list[Window], Field(max_length=LIST_ITEMS_MAX)]


class Request(BaseModel):
    """Unknown fields are dropped, as documented."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True, protected_namespaces=())


class AnomalyStreamRequest(Request):
    """One point or a batch for a streaming detector, which its first request creates."""

    model: str = Field("default-stream", description="Id of the detector")
    data: dict | list[dict] = Field(description="One point or a batch: numbers by name")  # type: ignore[type-arg]
    backend: BackendName = "ecod"
    min_samples: int = Field(50, ge=10, le=WINDOW_ROWS_MAX, description="Rows before the first fit")
    retrain_interval: int = Field(100, ge=10, le=2**53, description="Rows between fits")
    window_size: int = Field(1000, ge=50, le=WINDOW_ROWS_MAX, description="Rows that are learned from")
    contamination: float = Field(0.1, gt=0, le=0.5, description="Largest share of bad rows in the window")
    threshold: float = Field(0.5, ge=0, le=1, description="A row above this score is an anomaly")
    rolling_windows: list[int] | None = Field(None, max_length=LIST_ITEMS_MAX)
    include_lags: bool = False
    lag_periods: list[int] | None = Field(None, max_length=LIST_ITEMS_MAX)
    schema_: Schema = None


class FitRequest(Request):
    """A batch model to fit."""

    model: str = "default"
    backend: BackendName = "isolation_forest"
    data: list[list[float]] | list[Row]
    schema_: Schema = None
    contamination: float = Field(0.1, gt=0, le=0.5)
    normalization: Normalization = "standardization"
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(32, ge=1)
    overwrite: bool = True
    description: str | None = Field(None, max_length=10_000)


class ScoreRequest(Request):
    """Rows to score with a batch model; by default as it was fitted."""

    model: str = "default"
    backend: BackendName = "isolation_forest"
    data: list[list[float]] | list[Row]
    schema_: Schema = None
    normalization: Normalization | None = None
    threshold: float | None = None


class ModelRequest(Request):
    """A batch model by name."""

    model: str
    backend: BackendName = "isolation_forest"


class BufferRequest(Request):
    """A buffer to create."""

    buffer_id: str
    window_size: int = Field(1000, ge=10, le=WINDOW_ROWS_MAX)


class AppendRequest(Request):
    """Rows for a buffer."""

    buffer_id: str
    data: Row | list[Row]


class FeaturesRequest(Request):
    """Rolling and lag features of a buffer; ``fill`` says what stands where a window is not full yet."""

    buffer_id: str
    rolling_windows: Windows | None = None
    include_rolling_stats: list[Literal["mean", "std", "min", "max"]] | None = None
    include_lags: bool = True
    lag_periods: Windows | None = None
    tail: int | None = None
    fill: Literal["zero", "null"] = "zero"
