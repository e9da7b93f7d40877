"""``plexus-detect train``: history in, a fitted, exported and checked model out."""
