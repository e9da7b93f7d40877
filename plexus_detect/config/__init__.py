"""Configuration: files and environment, validated once into one frozen value."""

from plexus_detect.config.load import load_config, variable_names
from plexus_detect.config.models import (
    API_URL,
    APP_URL,
    GATEWAY_URL,
    Config,
    LogConfig,
    MonitorsConfig,
    PlexusConfig,
    PollConfig,
    PostConfig,
    StateConfig,
)
from plexus_detect.config.rules import DetectConfig, DetectOverride, FleetConfig, SeriesRule
from plexus_detect.config.schema import config_schema
from plexus_detect.config.values import duration_ms, format_duration

__all__ = [
    "API_URL",
    "APP_URL",
    "GATEWAY_URL",
    "Config",
    "DetectConfig",
    "DetectOverride",
    "FleetConfig",
    "LogConfig",
    "MonitorsConfig",
    "PlexusConfig",
    "PollConfig",
    "PostConfig",
    "SeriesRule",
    "StateConfig",
    "config_schema",
    "duration_ms",
    "format_duration",
    "load_config",
    "variable_names",
]
