"""The settings of the monitors that files ask for, and whose they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from plexus_detect.config.values import FilePath, Number, Scalar, Section, Slug, TargetId, VariableName, Word
from plexus_detect.monitors.marks import OWNER


class MonitorsConfig(Section):
    """What the ``monitors`` commands read and keep."""

    path: FilePath = Field(
        default=Path("monitors"), description="A folder of files in JSON, YAML or TOML, or one file."
    )
    vars: dict[VariableName, Scalar] = Field(
        default_factory=dict,
        description="What `${name}` is in monitors of the short form: a text, a number, true, false or null.",
    )
    targets: dict[str, TargetId] = Field(
        default_factory=dict, description="Names for the integrations that are notified, by id (a UUID)."
    )
    owner: Slug = Field(
        default=OWNER,
        description="Whose the monitors are: each deployment on a platform needs a name.",
    )
    manifest: FilePath | None = Field(
        default=None, description="What is ours. Default: as state.path, ending in .monitors.json."
    )
    mark: bool = Field(
        default=True, description="End a threshold's message, which reaches nobody, with [owner:digest]."
    )
    drift: Annotated[Literal["keep", "overwrite"], Word] = Field(
        default="keep",
        description="Name what a person edited on the platform, or set it right like --force.",
    )
    prune_max: Annotated[int, Field(ge=0), Number] = Field(
        default=25, description="The most monitors that one run deletes."
    )
    prune_share: Annotated[float, Field(ge=0, le=1), Number] = Field(
        default=0.5, description="The largest share of ours that one run deletes, where more than 3 go."
    )
    requests_per_s: Annotated[int, Field(ge=1, le=1000), Number] = Field(
        default=200, description="Requests a second of the monitors commands, as plexus.requests_per_s."
    )
