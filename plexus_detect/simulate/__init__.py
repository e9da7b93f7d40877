"""``plexus-detect simulate``: machines with six correlated sensors, their faults, and where both are sent."""
