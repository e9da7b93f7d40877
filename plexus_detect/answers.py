"""What an answer of the platform means: a body, or one of our own errors (contract section 12)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from plexus_detect import clock, wire
from plexus_detect.errors import (
    ApiError,
    AuthError,
    ContractError,
    PlexusDetectError,
    RejectedError,
    TransientError,
)

_POINT_INDEX = re.compile(r"points\[(\d{1,9})\]")
_HINTS = {
    401: "the key is unknown, expired or of the wrong length",
    402: "the organisation's billing is paused",
    403: "the key lacks the scope for this call: reading telemetry needs read, posting points needs write",
    404: "no such thing, or the address is not that of the platform",
    413: "the request is too large",
}
_INGEST_401 = (
    "the gateway says this also while it cannot check keys, so it is worth trying again; "
    "if it lasts for minutes the key is bad or expired"
)
_SIGN_IN = "the platform asks to sign in: the API key is missing or malformed (it starts with plx_)"


@dataclass(frozen=True)
class Answer:
    """One answer and what the verdict on it depends on.

    ``ingest``: it came from the gateway, whose 401 proves nothing. ``unrepeatable``: doing the
    request twice would change more than doing it once.
    """

    call: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    ingest: bool
    unrepeatable: bool


def judge(answer: Answer) -> bytes:
    """The body of a JSON success; else raises what the answer means (contract section 12)."""
    message = f"{answer.call} -> {answer.status}: {wire.excerpt(answer.body)}"
    if answer.status < 300:
        if not _is_json(answer):
            raise ContractError(f"{message}; this is not JSON: check the address")
        return answer.body
    if answer.status < 400:
        raise _redirected(answer)
    if answer.status in _HINTS and not (answer.ingest and answer.status == 401):
        message = f"{message}; {_HINTS[answer.status]}"
    if answer.status in (408, 425, 429) or answer.status >= 500:
        raise _transient(answer, message)
    raise _refused(answer, message)


def _refused(answer: Answer, message: str) -> ApiError:
    if answer.ingest and answer.status == 401:  # contract trap 5
        return TransientError(f"{message}; {_INGEST_401}", retry_after_s=_retry_after_s(answer.headers))
    if answer.status in (401, 402, 403):
        return AuthError(message)
    index = _POINT_INDEX.search(answer.body.decode("utf-8", "replace"))
    return RejectedError(message, index=int(index[1]) if index else None)


def _transient(answer: Answer, message: str) -> TransientError:
    # 4xx and 503 come before any work: the gateway's 503 is its open circuit. Its 502 comes when some
    # groups of the request are already queued, and of the others nothing is known (contract section 3).
    maybe_applied = answer.unrepeatable and answer.status >= 500 and answer.status != 503
    return TransientError(message, retry_after_s=_retry_after_s(answer.headers), maybe_applied=maybe_applied)


def _redirected(answer: Answer) -> PlexusDetectError:
    location = answer.headers.get("location", "").partition("?")[0]
    message = f"{answer.call} -> {answer.status} to {wire.excerpt(location.encode()) or 'nowhere'}"
    if location.rstrip("/").endswith("/sign-in"):
        return AuthError(f"{message}; {_SIGN_IN}")
    return ContractError(f"{message}; redirects are not followed: set the address to the final one")


def _is_json(answer: Answer) -> bool:
    kind = answer.headers.get("content-type", "")
    return "json" in kind if kind else answer.body.lstrip()[:1] in (b"{", b"[")


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """``Retry-After`` as seconds from now, from either of its forms; None when absent or unreadable."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if at.tzinfo is None:  # "-0000" in place of GMT
        at = at.replace(tzinfo=UTC)
    return max(0.0, at.timestamp() - clock.now_ms() / 1000)
