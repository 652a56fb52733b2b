"""What a request can come to, other than an answer."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

# What to do about a model that is not there.
PULLED: Final = "pull it there (ollama pull), or take a model that the server has"


class Code(StrEnum):
    """INVALID: the request. NOT_FOUND: no such model. EXHAUSTED: the queue is full, here or at the
    Ollama server. DEADLINE: not done in time. UNAVAILABLE: that server does not answer, or lets
    nobody in. CORRUPT: it answers what cannot be right, also when asked again. REFUSED: it does not
    do what was asked, while it does the same for a known text."""

    INVALID = "invalid"
    NOT_FOUND = "not_found"
    EXHAUSTED = "exhausted"
    DEADLINE = "deadline"
    UNAVAILABLE = "unavailable"
    CORRUPT = "corrupt"
    REFUSED = "refused"


STATUS = {
    Code.INVALID: 400,
    Code.NOT_FOUND: 404,
    Code.REFUSED: 422,
    Code.EXHAUSTED: 429,
    Code.CORRUPT: 502,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE: 504,
}


class SidecarError(Exception):
    """``fields``: values a caller can act on, as JSON."""

    def __init__(self, code: Code, message: str, **fields: object) -> None:
        super().__init__(message)
        self.code = code
        self.fields = fields

    def as_json(self) -> dict[str, object]:
        return {"error": str(self), "code": self.code.value, **self.fields}


def of_all(problem: SidecarError) -> SidecarError:
    """``problem`` where a known text has it too: no text is refused by a server that takes none."""
    if problem.code is not Code.REFUSED:
        return problem
    return SidecarError(Code.UNAVAILABLE, str(problem), **problem.fields)
