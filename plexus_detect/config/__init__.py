"""Configuration: files and environment, validated once into one frozen value."""

from plexus_detect.config.connect import SinkConfig, SourceConfig
from plexus_detect.config.detectors import DetectorConfig
from plexus_detect.config.document import Origin
from plexus_detect.config.exposure import readable_by_others
from plexus_detect.config.load import load_config, load_config_with_origins, variable_names
from plexus_detect.config.models import (
    API_URL,
    APP_URL,
    GATEWAY_URL,
    Config,
    HealthConfig,
    HeartbeatConfig,
    LogConfig,
    PlexusConfig,
    PollConfig,
    PostConfig,
    StateConfig,
)
from plexus_detect.config.monitors import MonitorsConfig
from plexus_detect.config.rules import (
    CohortConfig,
    DetectConfig,
    DetectOverride,
    FleetConfig,
    MetricConfig,
    SeriesRule,
)
from plexus_detect.config.schema import config_schema
from plexus_detect.config.values import Span, duration_ms, format_duration, per_day
from plexus_detect.positions import KeyPath, key_text

__all__ = [
    "API_URL",
    "APP_URL",
    "GATEWAY_URL",
    "CohortConfig",
    "Config",
    "DetectConfig",
    "DetectOverride",
    "DetectorConfig",
    "FleetConfig",
    "HealthConfig",
    "HeartbeatConfig",
    "KeyPath",
    "LogConfig",
    "MetricConfig",
    "MonitorsConfig",
    "Origin",
    "PlexusConfig",
    "PollConfig",
    "PostConfig",
    "SeriesRule",
    "SinkConfig",
    "SourceConfig",
    "Span",
    "StateConfig",
    "config_schema",
    "duration_ms",
    "format_duration",
    "key_text",
    "load_config",
    "load_config_with_origins",
    "per_day",
    "readable_by_others",
    "variable_names",
]
