"""An embedder without a model, for tests of what stands upon one: vectors made of hashes of words.

Texts that share words are near each other, so a search finds what a person would expect of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.vectord.ports import Embedded, Lane, ModelInfo, Vectors

__all__ = ["HashingEmbedder"]


class HashingEmbedder:
    """Implements ``vectord.ports.Embedder``; the same text has the same vector everywhere.

    Args:
        dimensions: of its vectors.
        models: the names that it knows.

    Attributes:
        calls, texts: how often ``embed`` was called, and with how many texts, by lane.
        seen: every text that was embedded, in order.
        failure: raised by the next calls while it is set.
        failures_left: with ``failure``: how many calls fail; None is all.
        gate: calls wait while it is not set.
        digests: of models whose weights changed under their name; their vectors are others too.
        canary_only: tell no digest, only a canary, as some servers do.
    """

    def __init__(
        self, dimensions: int = 32, models: Sequence[str] = ("all-minilm", "hashing")
    ) -> None:
        self.dimensions = dimensions
        self.models = tuple(models)
        self.calls: Counter[Lane] = Counter()
        self.texts: Counter[Lane] = Counter()
        self.model_calls = 0
        self.seen: list[str] = []
        self.failure: LakehouseError | None = None
        self.failures_left: int | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.digests: dict[str, str] = {}
        self.canary_only = False
        self.closed = False

    async def embed(self, model: str, texts: Sequence[str], lane: Lane) -> Embedded:
        info = self._info(model)
        self.calls[lane] += 1
        await self.gate.wait()
        self._fail()
        if any(not text.strip() for text in texts):
            raise LakehouseError(ErrorKind.INVALID, "a text is empty", hint="leave it out")
        self.texts[lane] += len(texts)
        self.seen += texts
        salt = self.digests.get(model, "")
        rows = [self._vector(f"{model}{salt}", text) for text in texts]
        vectors = np.array(rows, np.float32).reshape(len(rows), self.dimensions)
        return Embedded(vectors, info)

    async def model(self, name: str) -> ModelInfo:
        self.model_calls += 1
        await self.gate.wait()
        self._fail()
        return self._info(name)

    async def close(self) -> None:
        self.closed = True

    def fail(self, kind: ErrorKind = ErrorKind.UNAVAILABLE, times: int | None = None) -> None:
        """Let the next ``times`` calls fail, or all until ``recover``."""
        self.failure = LakehouseError(kind, "the embedding server does not answer")
        self.failures_left = times

    def recover(self) -> None:
        self.failure = self.failures_left = None

    def change_model(self, name: str, digest: str = "") -> None:
        """Other weights under the same name; without ``digest`` again as at the start."""
        self.digests.pop(name, None)
        if digest:
            self.digests[name] = digest

    def _fail(self) -> None:
        if self.failure is None:
            return
        if self.failures_left is not None:
            self.failures_left -= 1
            if self.failures_left < 0:
                self.recover()
                return
        raise self.failure

    def _info(self, name: str) -> ModelInfo:
        if name not in self.models:
            raise LakehouseError(
                ErrorKind.NOT_FOUND,
                "the embedding server has no such model",
                model=name,
                models=list(self.models),
            )
        digest = self.digests.get(name) or _hex(f"weights of {name}")
        told = "" if self.canary_only else digest
        return ModelInfo(name, told, self.dimensions, _hex(f"canary of {digest}"))

    def _vector(self, salt: str, text: str) -> Vectors:
        """The sum of a direction for each word, of unit length."""
        total = np.zeros(self.dimensions, np.float32)
        for word in re.findall(r"\w+", text.casefold()) or [text]:
            seed = int.from_bytes(hashlib.sha256(f"{salt} {word}".encode()).digest()[:8], "big")
            total += np.random.default_rng(seed).standard_normal(self.dimensions, np.float32)
        length = float(np.linalg.norm(total))
        return total / length if length else total


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
