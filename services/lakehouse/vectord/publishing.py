"""Vectors as rows of their dataset: its schema, and how batches of them are written.

Rows are written through the contract ``rows`` like anybody's, each batch on the version of the rows
that it was made on: of two that build at once, one is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from lakehouse.contracts.ingest import IngestOptions, SourceFormat
from lakehouse.contracts.rows import ChangeRowsReport, ChangeRowsRequest, RowChange
from lakehouse.kit.blocking import run_in
from lakehouse.model.changes import CreateDataset
from lakehouse.model.dataset import Card, Dataset, Lineage, PiiFinding
from lakehouse.model.identity import Context
from lakehouse.model.schema import Column, Schema
from lakehouse.model.vectors import Distance, IndexVersion
from lakehouse.table.fingerprint import fingerprint
from lakehouse.table.types import arrow_schema
from lakehouse.vectord.chunking import Chunk, digest_of
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import Vectors

__all__ = [
    "KEY",
    "Applied",
    "Publisher",
    "RowsWritten",
    "dataset_of",
    "ipc",
    "unit",
    "vectors_name",
    "vectors_schema",
    "vectors_table",
]

KEY: Final = ("entity", "chunk")
_BYTES_MAX: Final = 16 << 20
_ARROW: Final = IngestOptions(format=SourceFormat.ARROW)


def vectors_schema(dimensions: int) -> Schema:
    """Of a dataset of vectors."""
    kinds = {
        "entity": "string",
        "chunk": "int64",
        "start": "int64",
        "end": "int64",
        "text": "string",
        "digest": "string",
        "document": "string",
        "version": "int64",
        "vector": f"vector({dimensions})",
    }
    return Schema(
        1, tuple(Column(at, name, kind) for at, (name, kind) in enumerate(kinds.items(), 1))
    )


def vectors_name(index: str, number: int) -> str:
    """What the dataset of an index version is called."""
    return f"vectors.{index}.v{number}"


@dataclass(frozen=True, slots=True)
class Home:
    """Where a dataset of vectors is made. ``source``: whose rows they are of, None for given
    ones."""

    bucket: str
    residency: str
    source: Dataset | None
    owner: str


def dataset_of(
    dataset_id: str, index: str, number: int, dimensions: int, columns: Sequence[str], home: Home
) -> CreateDataset:
    """The change that makes an empty dataset for version ``number`` of ``index``; its card says
    what the source's does: the texts are the same."""
    source = home.source
    schema = vectors_schema(dimensions)
    card = Card(
        owner=home.owner,
        description=f"vectors of the index {index}, version {number}",
        tags=("vectors",),
        lineage=Lineage(ingest="vectord"),
    )
    if source is not None:
        found = {f.kind: f for f in source.card.pii if f.column in columns}
        card = Card(
            owner=source.card.owner or home.owner,
            description=f"vectors of {', '.join(columns)} of {source.name}: index {index}, "
            f"version {number}"[:10_000],
            sensitivity=source.card.sensitivity,
            tags=("vectors",),
            lineage=Lineage(source.card.lineage.source_system, "vectord", (source.name,)),
            pii=tuple(PiiFinding("text", kind, f.confidence) for kind, f in found.items()),
        )
    return CreateDataset(
        dataset_id,
        vectors_name(index, number),
        fingerprint(schema.columns),
        schema,
        card,
        KEY,
        home.bucket,
        home.residency,
    )


def unit(vectors: Vectors, distance: Distance) -> Vectors:
    """As they are stored: for cosine of length 1, else as they came."""
    if distance is not Distance.COSINE or not len(vectors):
        return np.ascontiguousarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    lengths[lengths == 0] = 1.0
    scaled: Vectors = (vectors / lengths).astype(np.float32)
    return scaled


@dataclass(frozen=True, slots=True)
class Batch:
    """Chunks that were embedded: lists of one length, by position. ``digests``: of the chunks,
    ``documents``: of the whole texts."""

    entities: Sequence[str]
    numbers: Sequence[int]
    chunks: Sequence[Chunk]
    documents: Sequence[str]
    vectors: Vectors
    digests: Sequence[str] = ()


def vectors_table(batch: Batch, version: int) -> pa.Table:
    """Rows of a dataset of vectors; ``version``: of the source's rows."""
    count, dimensions = batch.vectors.shape
    digests = batch.digests or [digest_of(chunk.text) for chunk in batch.chunks]
    values = pa.array(np.ascontiguousarray(batch.vectors, np.float32).ravel())
    schema = arrow_schema(vectors_schema(dimensions))
    columns = [
        pa.array(batch.entities, pa.string()),
        pa.array(batch.numbers, pa.int64()),
        pa.array([chunk.start for chunk in batch.chunks], pa.int64()),
        pa.array([chunk.end for chunk in batch.chunks], pa.int64()),
        pa.array([chunk.text for chunk in batch.chunks], pa.string()),
        pa.array(digests, pa.string()),
        pa.array(batch.documents, pa.string()),
        pa.array([version] * count, pa.int64()),
        pa.FixedSizeListArray.from_arrays(values, type=schema.field("vector").type),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def ipc(table: pa.Table) -> bytes:
    """``table`` as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _first_chunks_last(table: pa.Table) -> pa.Table:
    return table.sort_by([("chunk", "descending")])


@dataclass(frozen=True, slots=True)
class RowsWritten:
    """One commit to a dataset of vectors, for who holds them in memory.

    Attributes:
        rows: inserted or replaced, as in the dataset; None for a deletion.
        gone: ``entity`` and ``chunk`` of the deleted; None where rows were put.
        before, after: the dataset's rows_version that it was made on, and made. ``before`` is 0
            where it is not known: others may have written in between.
    """

    rows: pa.Table | None
    gone: pa.Table | None
    before: int
    after: int


Applied = Callable[[IndexVersion, RowsWritten], Awaitable[None]]
"""Is told of each write of this process after it was committed."""


class Publisher:
    """Writes rows of vectors."""

    def __init__(self, parts: VectorParts, applied: Applied | None = None) -> None:
        self._rows = parts.rows
        self._jobs = parts.jobs
        self._applied = applied

    async def put(self, ctx: Context, version: IndexVersion, table: pa.Table, expected: int) -> int:
        """Insert or replace rows; the rows_version after it. Where they are more than one commit
        takes, the first chunk of a document comes last: where it is, all of them are.

        Raises ``conflict`` unless the rows are still those of ``expected``.
        """
        if table.nbytes > _BYTES_MAX:
            table = await run_in(self._jobs, _first_chunks_last, table)
        step = max(1, table.num_rows * _BYTES_MAX // max(table.nbytes, 1))
        for at in range(0, table.num_rows, step):
            some = table.slice(at, step)
            report = await self.change(ctx, version, RowChange.UPSERT, some, expected)
            if not report.no_op:
                await self.tell(version, RowsWritten(some, None, expected, report.version))
                expected = report.version
        return expected

    async def delete(
        self, ctx: Context, version: IndexVersion, keys: pa.Table, expected: int
    ) -> int:
        """Delete the chunks ``keys`` (entity, chunk); as ``put``."""
        step = 100_000
        for at in range(0, keys.num_rows, step):
            some = keys.slice(at, step)
            report = await self.change(ctx, version, RowChange.DELETE, some, expected)
            if not report.no_op:
                await self.tell(version, RowsWritten(None, some, expected, report.version))
                expected = report.version
        return expected

    async def change(
        self,
        ctx: Context,
        version: IndexVersion,
        change: RowChange,
        table: pa.Table,
        expected: int | None,
    ) -> ChangeRowsReport:
        """One commit."""
        request = ChangeRowsRequest(
            version.vectors_dataset,
            change,
            await run_in(self._jobs, ipc, table),
            _ARROW,
            expected_version=expected,
            reason=ctx.source or "",
        )
        return await self._rows.change(ctx, request)

    async def tell(self, version: IndexVersion, written: RowsWritten) -> None:
        """Whoever holds the rows in memory."""
        if self._applied is not None:
            await self._applied(version, written)
