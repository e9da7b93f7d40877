"""The app's words for a body of the wrong shape, as its schema library writes them."""

from __future__ import annotations

from plexus_detect.sandbox.javascript import Json
from plexus_detect.sandbox.stamps import is_uuid

MISSING = object()
SEVERITIES = ("info", "warning", "critical")


def kind_of(value: Json) -> str:
    """Return the JavaScript name of a value's type."""
    if value is MISSING:
        return "undefined"
    if value is None:
        return "null"
    for kind, name in (
        (bool, "boolean"),
        (int, "number"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
    ):
        if isinstance(value, kind):
            return name
    return "object"


def expected(kind: str, value: Json) -> str | None:
    """Return the complaint about a value that is not of a kind, or None."""
    found = kind_of(value)
    return None if found == kind else f"Invalid input: expected {kind}, received {found}"


def optional(kind: str, value: Json) -> str | None:
    """Like ``expected``; missing and null are fine."""
    return None if value is MISSING or value is None else expected(kind, value)


def one_of(options: tuple[str, ...], value: Json) -> str | None:
    """Return the complaint about a value that is none of the options, or None."""
    if value in options:
        return None
    listed = "|".join(f'"{option}"' for option in options)
    return f"Invalid option: expected one of {listed}"


def severity(value: Json) -> str | None:
    """Return the complaint about an optional severity, or None."""
    return None if value is MISSING else one_of(SEVERITIES, value)


def positive_whole(value: Json) -> str | None:
    """Return the complaint about an optional count of seconds, or None."""
    if value is MISSING:
        return None
    if kind_of(value) != "number":
        return expected("number", value)
    if value != value // 1:
        return "Invalid input: expected int, received number"
    return None if value > 0 else "Too small: expected number to be >0"


def uuids(value: Json) -> str | None:
    """Return the complaint about a list of at least one UUID, or None; null is fine."""
    if value is None:
        return None
    if not isinstance(value, list):
        return expected("array", value)
    if not value:
        return "Too small: expected array to have >=1 items"
    for item in value:
        complaint = expected("string", item)
        if complaint or not is_uuid(item):
            return complaint or "Invalid UUID"
    return None
