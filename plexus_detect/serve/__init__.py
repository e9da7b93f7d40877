"""The streaming HTTP API of learned detectors (extra: serve)."""
