"""``python -m plexus_detect`` is the same as the console script ``plexus-detect``."""

from plexus_detect.cli import main

if __name__ == "__main__":
    main()
