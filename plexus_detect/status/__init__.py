"""The command status: what the worker of a state file knows of every series, as a table."""
