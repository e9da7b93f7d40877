"""The JSON Schema of a config file, for editors: completion, descriptions, and errors while typing."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from plexus_detect.config.models import Config
from plexus_detect.config.values import AUTO_PATTERN, DURATION_PATTERN, format_duration

_VARIABLE: JsonSchemaValue = {"type": "string", "pattern": r"\$\{"}


class _FileSchema(GenerateJsonSchema):
    """Describes what may stand in a file, which is a little more than what the models hold."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """A default in the form in which a person would write it."""
        described = super().default_schema(schema)
        patterns = {option.get("pattern") for option in described.get("anyOf", ())}
        if "default" in described and patterns & {DURATION_PATTERN, AUTO_PATTERN}:
            described["default"] = format_duration(described["default"])
        return described

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        """A whole number, or a variable that becomes one."""
        return {"anyOf": [super().int_schema(schema), _VARIABLE]}

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """A number, or a variable that becomes one."""
        return {"anyOf": [super().float_schema(schema), _VARIABLE]}

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        """True or false, or a variable that becomes one of them."""
        return {"anyOf": [super().bool_schema(schema), _VARIABLE]}


def config_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a config file; ``examples/config.schema.json`` is a copy of it."""
    schema = Config.model_json_schema(by_alias=True, schema_generator=_FileSchema)
    # The name of a rule has a default, although the model insists on one.
    del schema["$defs"]["SeriesRule"]["required"]
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema, "title": "plexus-detect configuration"}
