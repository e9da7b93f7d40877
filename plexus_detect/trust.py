"""Which servers are believed to be who they say: the certificates to trust, and why one was not."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from plexus_detect.errors import ConfigError


def trusted(ca_file: Path | None) -> ssl.SSLContext | bool:
    """The certificates of the file, of SSL_CERT_FILE, or else (True) the usual ones. Raises ConfigError."""
    given, named = (
        ("plexus.ca_file", ca_file) if ca_file else ("SSL_CERT_FILE", os.environ.get("SSL_CERT_FILE"))
    )
    if not named:
        return True
    try:
        return ssl.create_default_context(cafile=named)
    except (OSError, ssl.SSLError) as exc:
        no_pem = isinstance(exc, ssl.SSLError)
        reason = "it holds no certificate in PEM form" if no_pem else exc.strerror
        raise ConfigError(
            f"{given}: {named} cannot be used ({reason}); it must hold the certificates to trust"
        ) from exc


def untrusted(error: BaseException) -> str | None:
    """Why a certificate was not trusted; None when an error has another cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message or str(cause)
        cause = cause.__cause__ or cause.__context__
    return None
