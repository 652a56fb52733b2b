"""Documents into rows of vectors: cut, embedded, and checked to be of the version's model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pyarrow as pa

from lakehouse.errors import RETRYABLE, ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.vectors import Chunking, IndexVersion
from lakehouse.vectord.chunking import Chunk, chunks, digest_of
from lakehouse.vectord.image import Image
from lakehouse.vectord.models import Models, check_same_model
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import Embedded as Answer
from lakehouse.vectord.ports import Labels, Lane, Vectors
from lakehouse.vectord.publishing import Batch, unit, vectors_table
from lakehouse.vectord.reusing import reused

__all__ = ["DocumentEmbedder", "Embedded"]

log = logging.getLogger(__name__)
_TEXTS_AT_ONCE: Final = 1_024
_PAUSES: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
_REASONS_MAX: Final = 5


@dataclass(slots=True)
class _Cut:
    """Chunks of documents, by position."""

    entities: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Embedded:
    """Rows of a dataset of vectors for some documents.

    Attributes:
        stale: ``entity`` and ``chunk`` of what is there of earlier, longer texts.
        texts: how many were sent to the model.
        refused: entities of documents that the model does not take.
    """

    rows: pa.Table
    stale: pa.Table
    texts: int
    refused: tuple[str, ...] = ()


class DocumentEmbedder:
    """Turns documents into rows. A server that does not answer is asked again for some seconds."""

    def __init__(self, parts: VectorParts, models: Models) -> None:
        self._parts = parts
        self._models = models

    async def embed(
        self, version: IndexVersion, todo: pa.Table, rows_version: int, donor: Image | None = None
    ) -> Embedded:
        """``todo``: entity, text, document, last (``weighing.Work``). ``donor``: has vectors of the
        same model. Raises ``conflict`` (another model answers), ``corrupt`` (what came back are no
        vectors), and what the embedder does."""
        jobs = self._parts.jobs
        cut = await run_in(jobs, _cut, todo, version.profile.chunking)
        found = np.zeros((len(cut.chunks), version.dimensions), np.float32)
        wanted = np.arange(len(cut.chunks))
        if donor is not None:
            positions, vectors = await run_in(jobs, reused, donor, cut.entities, cut.digests)
            found[positions] = vectors
            wanted = np.delete(wanted, positions)
        refused = await self._vectors(version, cut, wanted, found)
        embedded = await run_in(jobs, _rows, version, todo, cut, found, refused, rows_version)
        return replace(embedded, texts=len(wanted))

    async def _vectors(
        self, version: IndexVersion, cut: _Cut, wanted: Labels, found: Vectors
    ) -> dict[int, str]:
        """Put the vectors of the chunks ``wanted`` into ``found``; those for which there is none,
        with the reason."""
        refused: dict[int, str] = {}
        for at in range(0, len(wanted), _TEXTS_AT_ONCE):
            some = wanted[at : at + _TEXTS_AT_ONCE]
            vectors = np.zeros((len(some), version.dimensions), np.float32)
            texts = [cut.chunks[each].text for each in some]
            odd: dict[int, str] = {}
            await self._some(version, texts, (vectors, 0), odd)
            found[some] = vectors
            refused |= {int(some[each]): reason for each, reason in odd.items()}
        return refused

    async def _some(
        self,
        version: IndexVersion,
        texts: Sequence[str],
        into: tuple[Vectors, int],
        refused: dict[int, str],
    ) -> None:
        """One that is refused must not keep the others out: halves, until it stands alone, where
        the embedder does not say which one it is."""
        found, at = into
        try:
            answer = await self._ask(version, texts)
            found[at : at + len(texts)] = answer.vectors
            refused |= {at + place: reason for place, reason in answer.refused.items()}
        except LakehouseError as error:
            if error.kind is not ErrorKind.INVALID:
                raise
            if len(texts) == 1:
                refused[at] = error.message
                return
            half = len(texts) // 2
            await self._some(version, texts[:half], (found, at), refused)
            await self._some(version, texts[half:], (found, at + half), refused)

    async def _ask(self, version: IndexVersion, texts: Sequence[str]) -> Answer:
        for pause in (*_PAUSES, None):
            try:
                answer = await self._parts.embedder.embed(version.model, texts, Lane.INDEX)
            except LakehouseError as error:
                if error.kind not in RETRYABLE or pause is None:
                    raise
                await self._parts.clock.sleep(pause)
                continue
            self._models.told(answer.model)
            check_same_model(version, answer.model)
            _check_vectors(answer.vectors, len(texts), version)
            return answer
        raise LakehouseError(ErrorKind.INTERNAL, "texts were never embedded")


def _check_vectors(vectors: Vectors, count: int, version: IndexVersion) -> None:
    if vectors.shape != (count, version.dimensions) or not np.isfinite(vectors).all():
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "the embedding server gave no vectors of the model's form",
            model=version.model,
            texts=count,
            dimensions=version.dimensions,
            shape=[*vectors.shape],
        )


def _cut(todo: pa.Table, chunking: Chunking) -> _Cut:
    cut = _Cut()
    columns = [todo.column(name).to_pylist() for name in ("entity", "text", "document")]
    for entity, text, document in zip(*columns, strict=True):
        found = chunks(text, chunking)
        cut.entities += [entity] * len(found)
        cut.numbers += range(len(found))
        cut.documents += [document] * len(found)
        cut.chunks += found
        cut.digests += [digest_of(chunk.text) for chunk in found]
    return cut


def _rows(
    version: IndexVersion,
    todo: pa.Table,
    cut: _Cut,
    vectors: Vectors,
    refused: dict[int, str],
    rows_version: int,
) -> Embedded:
    out = {cut.entities[at]: reason for at, reason in refused.items()}
    keep = [at for at, entity in enumerate(cut.entities) if entity not in out]
    if out:
        told = {"documents": len(out), "reasons": sorted({*out.values()})[:_REASONS_MAX]}
        log.warning("documents were refused by the model", extra=told)
    batch = Batch(
        [cut.entities[at] for at in keep],
        [cut.numbers[at] for at in keep],
        [cut.chunks[at] for at in keep],
        [cut.documents[at] for at in keep],
        unit(vectors[keep], version.profile.distance),
        [cut.digests[at] for at in keep],
    )
    counts = dict.fromkeys(todo.column("entity").to_pylist(), 0)
    for entity in batch.entities:
        counts[entity] += 1
    lasts = todo.column("last").to_pylist()
    stale = stale_chunks(list(counts), list(counts.values()), lasts)
    rows = vectors_table(batch, rows_version)
    return Embedded(rows, stale, 0, tuple(out))


def stale_chunks(entities: Sequence[str], first: Sequence[int], last: Sequence[int]) -> pa.Table:
    """``entity`` and ``chunk`` of the chunks from ``first`` to ``last`` (inclusive) of each."""
    names: list[str] = []
    numbers: list[int] = []
    for entity, start, end in zip(entities, first, last, strict=True):
        names += [entity] * max(0, end + 1 - start)
        numbers += range(start, end + 1)
    return pa.table(
        {"entity": pa.array(names, pa.string()), "chunk": pa.array(numbers, pa.int64())}
    )
