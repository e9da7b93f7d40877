"""One worker's state in one SQLite file: cursors, snapshots, journal, outbox, open alerts and notes."""

from plexus_detect.store.database import damaged
from plexus_detect.store.records import Commit, Parcel, Snapshot
from plexus_detect.store.schema import SCHEMA_VERSION
from plexus_detect.store.store import Store

__all__ = ["SCHEMA_VERSION", "Commit", "Parcel", "Snapshot", "Store", "damaged"]
