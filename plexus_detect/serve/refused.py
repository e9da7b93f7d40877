"""A request that is answered with an error on purpose."""

from __future__ import annotations

from fastapi import HTTPException


class Refused(HTTPException):
    """The answer is ``status`` and ``{"detail": sentence}``."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, sentence, headers)
        self.sentence = sentence
