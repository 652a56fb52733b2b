"""What the sidecar may use."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations in seconds, sizes in bytes.

    Attributes:
        ollama_url: of the server that has the models.
        generate_url: of the server that writes, where it is another one.
        permits: requests at it at once. More than one is for servers that are known to bear it:
            parallel calls have returned vectors of other texts.
        queue_max: requests of a lane that are at work or wait; the next is refused.
        deadline_seconds: of a request that names none.
        batch_seconds: how long one piece of indexing should take: so long a query waits at most.
        batch_texts_max: texts of one piece.
        attempts: at each piece, where the server fails or answers what cannot be right.
        retry_seconds: before the second attempt; it doubles.
        call_seconds: of one call.
        word_seconds: until the first word of an answer, and from word to word; a caller that waits
            no longer leaves earlier.
        texts_max, text_bytes_max, body_bytes_max: of one request.
        digest_seconds: after which a model is looked up again.
        canary_seconds: between looks whether a known text still has its vector.
    """

    ollama_url: str
    permits: int = 1
    queue_max: int = 64
    deadline_seconds: float = 120.0
    batch_seconds: float = 0.1
    batch_texts_max: int = 256
    attempts: int = 3
    retry_seconds: float = 0.1
    call_seconds: float = 60.0
    word_seconds: float = 600.0
    texts_max: int = 10_000
    text_bytes_max: int = 1 * _MIB
    body_bytes_max: int = 32 * _MIB
    digest_seconds: float = 2.0
    canary_seconds: float = 10.0
    generate_url: str = ""
