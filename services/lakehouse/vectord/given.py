"""Vectors that callers made themselves: checked, and written as rows by id."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.contracts import vectors as c
from lakehouse.contracts.catalog import StatusRequest
from lakehouse.contracts.rows import CHANGE_BYTES_MAX, ChangeRowsReport, RowChange
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.identity import Context, Scope
from lakehouse.model.refs import name_key
from lakehouse.model.vectors import Distance, IndexVersion, VectorIndexInfo
from lakehouse.table.cells import flat
from lakehouse.vectord.chunking import Chunk
from lakehouse.vectord.documents import Documents, put_index, version_of
from lakehouse.vectord.nearest import LENGTH_MAX, too_long
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.ports import Vectors
from lakehouse.vectord.publishing import Batch, Publisher, RowsWritten, unit, vectors_table
from lakehouse.vectord.repeating import answered, asked, recall
from lakehouse.vectord.unpacking import unpacked_bytes
from lakehouse.vectord.weighing import Weigher

__all__ = ["Given"]

_IDS_MAX: Final = 100_000
_ID_MAX: Final = 1_024
_NAMED_MAX: Final = 5
_ATTEMPTS: Final = 4
_COLUMNS: Final = ("id", "vector", "text")


@dataclass(frozen=True, slots=True)
class _Sent:
    """What a caller sent, of one length."""

    ids: list[str]
    vectors: Vectors
    texts: list[str]


class Given:
    """The use cases of indexes of given vectors. Belongs to one event loop."""

    def __init__(
        self, parts: VectorParts, documents: Documents, publisher: Publisher, weigher: Weigher
    ) -> None:
        self._parts = parts
        self._documents = documents
        self._publisher = publisher
        self._weigher = weigher
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def put(self, ctx: Context, request: c.PutVectorsRequest) -> c.PutVectorsReport:
        """See the contract."""
        ctx.require(Scope.WRITE)
        if len(request.body) > c.VECTORS_BYTES_MAX:
            raise _bad(
                "the vectors of one call are too many",
                size_bytes=len(request.body),
                maximum=c.VECTORS_BYTES_MAX,
                hint="send them in several calls",
            )
        info = await self._index(ctx, request.index)
        version = version_of(info, 0)
        sent = await run_in(self._parts.jobs, _sent, request.body, version)
        if not sent.ids:
            return c.PutVectorsReport(info.name, info.version, no_op=True)
        at = await self._at(ctx, info, request)
        table = await run_in(self._parts.jobs, _table, sent, version, at)
        if table.nbytes > CHANGE_BYTES_MAX - (64 << 10):
            raise _bad(
                "the vectors of one call are too many with their texts",
                size_bytes=table.nbytes,
                maximum=CHANGE_BYTES_MAX,
                hint="send them in several calls",
            )
        report = await self._write(ctx, info, version, RowChange.UPSERT, table)
        return c.PutVectorsReport(
            info.name,
            report.version,
            inserted=report.inserted,
            updated=report.updated,
            no_op=report.no_op,
        )

    async def delete(self, ctx: Context, request: c.DeleteVectorsRequest) -> c.PutVectorsReport:
        """See the contract."""
        ctx.require(Scope.WRITE)
        info = await self._index(ctx, request.index)
        ids = list(dict.fromkeys(request.ids))
        if not 1 <= len(ids) <= _IDS_MAX:
            raise _bad("ids are too few or too many", ids=len(ids), minimum=1, maximum=_IDS_MAX)
        zeros = pa.array(np.zeros(len(ids), np.int64))
        table = pa.table({"entity": pa.array(ids, pa.string()), "chunk": zeros})
        report = await self._write(ctx, info, version_of(info, 0), RowChange.DELETE, table)
        return c.PutVectorsReport(
            info.name,
            report.version,
            deleted=report.deleted,
            missing=report.missing,
            no_op=report.no_op,
        )

    async def _index(self, ctx: Context, name: str) -> VectorIndexInfo:
        info = await self._documents.get(ctx, name)
        if info.dataset_id:
            raise LakehouseError(
                ErrorKind.CONFLICT,
                "the index is over a dataset, whose rows are embedded by themselves",
                index=info.name,
                dataset=info.dataset,
                hint="change the rows of the dataset, or make an index without one",
            )
        return info

    async def _at(self, ctx: Context, info: VectorIndexInfo, request: c.PutVectorsRequest) -> int:
        """The version of the store that the rows carry: it rises from call to call. A call that is
        repeated must write what it wrote, so it is told what was then."""
        commit = asked(ctx, "vectors.put", request.index.encode() + b"\n" + request.body)
        status = await self._parts.catalog.status(ctx, StatusRequest())
        if not commit.request_sha256:
            return status.version
        for attempt in range(_ATTEMPTS):
            done = await recall(self._parts.catalog, ctx, commit)
            if done is not None:
                return int(done[1]["at"])
            noted = put_index(info, info.version, answered(commit, {"at": status.version}))
            try:
                await self._parts.catalog.commit(ctx, noted)
            except LakehouseError as error:
                if error.kind is not ErrorKind.CONFLICT or attempt == _ATTEMPTS - 1:
                    raise
                info = await self._documents.get(ctx, info.name)
            else:
                return status.version
        raise LakehouseError(ErrorKind.INTERNAL, "vectors were never put")

    async def _write(
        self,
        ctx: Context,
        info: VectorIndexInfo,
        version: IndexVersion,
        change: RowChange,
        table: pa.Table,
    ) -> ChangeRowsReport:
        """One commit; who holds the rows in memory learns on which ones it was made."""
        turn = self._turns.setdefault(name_key(info.name), asyncio.Lock())
        async with turn:
            report, before = await self._changed(ctx, version, change, table)
            if not report.no_op:
                put = change is RowChange.UPSERT
                written = RowsWritten(
                    table if put else None, None if put else table, before, report.version
                )
                await self._publisher.tell(version, written)
            return report

    async def _changed(
        self, ctx: Context, version: IndexVersion, change: RowChange, table: pa.Table
    ) -> tuple[ChangeRowsReport, int]:
        """The report, and the rows_version that it was made on; 0 where that is not known."""
        target = await self._weigher.target(ctx, version)
        # What a repeated call asks for must be the same, so it cannot name a version.
        for _ in range(0 if ctx.idempotency_key else _ATTEMPTS):
            expected = target.rows_version
            try:
                report = await self._publisher.change(ctx, version, change, table, expected)
            except LakehouseError as error:
                if error.kind is not ErrorKind.CONFLICT:
                    raise
                target = await self._weigher.target(ctx, version)
                continue
            return report, expected
        return await self._publisher.change(ctx, version, change, table, None), 0


def _bad(message: str, **fields: FieldValue) -> LakehouseError:
    return LakehouseError(ErrorKind.INVALID, message, **fields)


def _sent(body: bytes, version: IndexVersion) -> _Sent:
    try:
        size = unpacked_bytes(body, c.VECTORS_BYTES_MAX)
        if size > c.VECTORS_BYTES_MAX:
            raise _bad(
                "the vectors of one call are too many once they are unpacked",
                size_bytes=size,
                maximum=c.VECTORS_BYTES_MAX,
                hint="send them in several calls",
            )
        with pa.ipc.open_stream(pa.BufferReader(body)) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _bad(
            "the body is no Arrow stream",
            cause=str(error)[:200],
            hint="send an Arrow IPC stream with the columns id, vector and, if wanted, text",
        ) from error
    names = table.column_names
    wrong = [name for name in names if name not in _COLUMNS]
    if wrong or len(set(names)) != len(names) or not {"id", "vector"} <= set(names):
        raise _bad(
            "vectors have the columns id, vector and, if wanted, text",
            columns=[*names[:20]],
        )
    ids = _ids(flat(table.column("id")))
    vectors = _vectors(flat(table.column("vector")), ids, version)
    texts = _texts(flat(table.column("text")), ids) if "text" in names else [""] * len(ids)
    return _Sent(ids, vectors, texts)


def _ids(column: pa.Array) -> list[str]:
    if not (pat.is_string(column.type) or pat.is_large_string(column.type)):
        if not pat.is_integer(column.type):
            raise _bad("ids are texts", column_type=str(column.type))
        column = column.cast(pa.string())
    ids: list[Any] = column.to_pylist()
    odd = [row + 1 for row, each in enumerate(ids) if not each or len(each) > _ID_MAX]
    if odd:
        raise _bad(
            "an id is missing, empty or too long",
            rows=[*odd[:_NAMED_MAX]],
            count=len(odd),
            maximum=_ID_MAX,
        )
    if len(set(ids)) != len(ids):
        twice = [each for each, count in Counter(ids).items() if count > 1]
        raise _bad(
            "an id stands twice",
            ids=[*twice[:_NAMED_MAX]],
            count=len(twice),
            hint="a call changes each vector at most once",
        )
    return ids


def _vectors(column: pa.Array, ids: Sequence[str], version: IndexVersion) -> Vectors:
    kind = column.type
    listed = pat.is_list(kind) or pat.is_large_list(kind) or pat.is_fixed_size_list(kind)
    number = listed and (pat.is_floating(kind.value_type) or pat.is_integer(kind.value_type))
    if not number:
        raise _bad("vectors are lists of numbers", column_type=str(kind))
    nulls = pc.indices_nonzero(pc.is_null(column)).to_pylist()
    if nulls:
        raise _named("a vector is missing", ids, nulls)
    dimensions = version.dimensions
    lengths = pc.list_value_length(column)
    wrong = pc.indices_nonzero(pc.not_equal(lengths, dimensions)).to_pylist()
    if wrong:
        raise _named(
            "a vector has another dimension than the index",
            ids,
            wrong,
            dimensions=dimensions,
            given=lengths[wrong[0]].as_py(),
        )
    values = column.flatten()
    if values.null_count:
        at = pc.indices_nonzero(pc.is_null(values)).to_numpy() // dimensions
        raise _named("a vector has a null in it", ids, sorted(set(at.tolist())))
    with np.errstate(over="ignore"):
        flat_values = values.to_numpy(zero_copy_only=False).astype(np.float32)
    vectors: Vectors = flat_values.reshape(len(ids), dimensions)
    return _checked(vectors, ids, version.profile.distance)


def _checked(vectors: Vectors, ids: Sequence[str], distance: Distance) -> Vectors:
    odd = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
    if odd:
        raise _named("a vector has NaN or infinity in it", ids, odd)
    long = np.flatnonzero(too_long(vectors, distance)).tolist()
    if long:
        hint = "scale the vectors of the index down, or give it a profile that says cosine"
        raise _named("a vector is too long", ids, long, maximum=LENGTH_MAX, hint=hint)
    if distance is Distance.COSINE:
        zero = np.flatnonzero(~vectors.any(axis=1)).tolist()
        if zero:
            hint = "by cosine a vector needs a direction; a profile may say dot or l2"
            raise _named("a vector is zero", ids, zero, hint=hint)
    return vectors


def _texts(column: pa.Array, ids: Sequence[str]) -> list[str]:
    if pat.is_null(column.type):
        return [""] * len(ids)
    if not (pat.is_string(column.type) or pat.is_large_string(column.type)):
        raise _bad("texts are texts", column_type=str(column.type))
    long = pc.indices_nonzero(pc.greater(pc.binary_length(column), c.TEXT_BYTES_MAX)).to_pylist()
    if long:
        raise _named("a text is too long", ids, long, maximum=c.TEXT_BYTES_MAX)
    texts: list[str] = pc.fill_null(column, "").to_pylist()
    return texts


def _named(
    message: str, ids: Sequence[str], rows: Sequence[int], **fields: FieldValue
) -> LakehouseError:
    named: list[FieldValue] = [ids[row][:80] for row in rows[:_NAMED_MAX]]
    places: list[FieldValue] = [row + 1 for row in rows[:_NAMED_MAX]]
    return _bad(message, ids=named, rows=places, count=len(rows), **fields)


def _table(sent: _Sent, version: IndexVersion, at: int) -> pa.Table:
    vectors = unit(sent.vectors, version.profile.distance)
    # Of the vector too: a row whose vector was replaced is another for whoever holds it.
    digests = [
        hashlib.sha256(row.tobytes() + text.encode()).hexdigest()[:32]
        for row, text in zip(vectors, sent.texts, strict=True)
    ]
    chunks = [Chunk(0, len(text), text) for text in sent.texts]
    batch = Batch(sent.ids, [0] * len(sent.ids), chunks, digests, vectors, digests)
    return vectors_table(batch, at)
