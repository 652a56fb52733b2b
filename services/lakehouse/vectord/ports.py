"""What vectord needs from outside: a model, and structures that find near vectors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class Lane(StrEnum):
    """Queries go before indexing."""

    QUERY = "query"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """``digest`` of the weights, "" if the server does not say; ``canary_sha256``: of the rounded
    vector of a known text."""

    name: str
    digest: str
    dimensions: int
    canary_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Embedded:
    """``vectors``: float32, one row a text, as the model gave them (not normalised). ``refused``:
    why, by place, of texts that it does not take; the rows of these say nothing."""

    vectors: Vectors
    model: ModelInfo
    refused: Mapping[int, str] = field(default_factory=dict)


class Embedder(Protocol):
    """Texts to vectors. Raises ``invalid`` (an empty text, one that is too long), ``not_found`` (no
    such model, with those that are there), ``unavailable`` (does not answer), ``exhausted`` (queue
    full), ``corrupt`` (NaN or a wrong dimension came back, also when asked again)."""

    async def embed(self, model: str, texts: Sequence[str], lane: Lane) -> Embedded:
        """Any number of texts, in batches as the server likes them; in their order. Of indexing it
        may tell single texts that are ``invalid`` in the answer, instead of raising that."""
        ...

    async def model(self, name: str) -> ModelInfo: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Generated:
    """Some words of an answer; ``done``: these are the last, and what follows is known."""

    text: str
    done: bool = False
    done_reason: str = ""
    prompt_tokens: int = 0
    answer_tokens: int = 0


class Generator(Protocol):
    """A model that writes. Raises ``not_found`` (no such model, with those that are there),
    ``unavailable`` (does not answer, or cannot write), ``exhausted``, ``timeout``."""

    def generate(
        self, model: str, prompt: str, options: Mapping[str, float | int]
    ) -> AsyncIterator[Generated]:
        """Words as they come. Closing the iterator stops the model."""
        ...


class SearchIndex(Protocol):
    """A structure over vectors that are labelled from 0 up, in the order in which they were given.

    Distances are smaller for nearer: 1 - cosine, minus the product, the squared distance.
    """

    @property
    def rows(self) -> int: ...

    def search(
        self, queries: Vectors, k: int, ef: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> tuple[Labels, Vectors]:
        """Labels and distances, (queries, k) each, nearest first; a label of -1 (and infinity)
        where there are fewer. ``allowed``: one flag a label; with it, min(k, allowed) are found."""
        ...

    def vectors(self, labels: Labels) -> Vectors:
        """(labels, dimensions), as they were given (for cosine: normalised)."""
        ...

    def close(self) -> None: ...
