"""Every error of the package, as a tree sorted by what the caller does next.

``exit_code`` is what the command line ends with when the error reaches it.
Messages carry the call, the status and the first 200 characters of the body; never the API key.
"""

from __future__ import annotations


class PlexusDetectError(Exception):
    """Base of every error this package raises on purpose; anything else is a bug."""

    exit_code = 1


class ConfigError(PlexusDetectError):
    """A file, option or environment variable that a person must correct."""

    exit_code = 2


class ApiError(PlexusDetectError):
    """The platform answered with an error, or did not answer."""


class TransientError(ApiError):
    """Worth trying again: no answer, 429, 5xx, or a 401 that the gateway also uses for its own trouble.

    ``retry_after_s`` is the least wait that the server asked for, in seconds (RFC 9110, section 10.2.3).
    ``maybe_applied`` is true when the request may have taken effect although no answer said so.
    """

    exit_code = 75

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, maybe_applied: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.maybe_applied = maybe_applied


class UntrustedError(TransientError):
    """A server whose certificate does not verify: a person must act, here or there.

    Whoever is at work already keeps trying, but not at once: the other side may renew what has expired.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_s=60.0)


class AuthError(ApiError):
    """The key, its scopes or its billing: a person must act."""

    exit_code = 3


class RejectedError(ApiError):
    """The platform refused the request as invalid.

    ``index`` is the position of the offending point in a batch, or None when the answer names none.
    """

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class ContractError(PlexusDetectError):
    """An answer of a shape that we do not know; nothing may be concluded from it."""


class StoreError(PlexusDetectError):
    """A state file that cannot be used: damaged, newer than this program, locked, or on a full disk."""

    exit_code = 4


class FitError(PlexusDetectError):
    """A model that could not be fitted from the rows it was given; what was there before stays."""


class ModelError(PlexusDetectError):
    """A model file that cannot be used: damaged, changed, or made for other columns."""

    exit_code = 4


class UnsafePlanError(PlexusDetectError):
    """A monitor plan that would do more harm than its author can have meant."""

    exit_code = 5


class NotDeployedError(PlexusDetectError):
    """A model that is not comparable with the one in use, which stays."""

    exit_code = 5


class BusyError(PlexusDetectError):
    """Another run of ours is at work on the same; worth trying again later."""

    exit_code = 75
