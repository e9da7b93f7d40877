"""Brings the platform's monitors to what the documents say: reads both, carries out a plan and checks it.

Exit codes of ``monitors apply``: 0 all monitors are as wanted, 1 some are not (each was named), 2 a document
is wrong, 3 the key is refused, 5 the plan is unsafe or stale, 75 the platform does not answer.
"""
