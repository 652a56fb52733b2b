"""Foreign objects read once: size, checksum, footer, and a few rows to look at."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pat

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.model.refs import ObjectRef
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.port import ObjectStore, StreamingReads, StreamingWrites

__all__ = ["Inspected", "Inspector", "copy_object"]

_SAMPLE_GROUP_BYTES: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Inspected:
    """``sample``: the first rows, text columns as dictionaries (a few bytes may be much text)."""

    ref: ObjectRef
    size_bytes: int
    sha256: str
    footer: pq.FileMetaData
    schema: pa.Schema
    sample: pa.Table


class Inspector:
    """HEAD and one GET an object, never more; large ones pass through a temporary file.

    Args:
        object_bytes_max: objects above this do not stand in memory.
        parallel: objects read at once.
    """

    def __init__(
        self, buckets: Buckets, object_bytes_max: int, parallel: int, sample_rows: int
    ) -> None:
        self._buckets = buckets
        self._bytes_max = object_bytes_max
        self._slots = asyncio.Semaphore(parallel)
        self._sample_rows = sample_rows

    async def inspect(self, refs: Sequence[ObjectRef]) -> list[Inspected]:
        """All of ``refs``, in order. Raises ``not_found`` naming the object that is not there,
        ``invalid`` for one that is not Parquet."""
        tasks = [asyncio.create_task(self._one(ref)) for ref in refs]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _one(self, ref: ObjectRef) -> Inspected:
        async with self._slots:
            store = self._buckets.get(ref.bucket)
            try:
                meta = await store.head(ref.key)
                if meta.size_bytes > self._bytes_max and isinstance(store, StreamingReads):
                    return await self._streamed(ref, store)
                data = await store.get(ref.key)
            except LakehouseError as error:
                if error.kind is ErrorKind.NOT_FOUND:
                    raise _missing(ref) from error
                raise
            return await run_blocking(
                _read_footer, ref, io.BytesIO(data), _sha256(data), self._sample_rows
            )

    async def _streamed(self, ref: ObjectRef, store: ObjectStore) -> Inspected:
        assert isinstance(store, StreamingReads)
        digest = hashlib.sha256()
        with tempfile.TemporaryFile() as spool:
            async for chunk in store.stream(ref.key):
                digest.update(chunk)
                await run_blocking(spool.write, chunk)
            return await run_blocking(
                _read_footer, ref, spool, digest.hexdigest(), self._sample_rows
            )


async def copy_object(store: ObjectStore, source: Inspected, target: ObjectStore, key: str) -> None:
    """Copy ``source`` of ``store`` to ``key`` of ``target``. Raises ``conflict`` if its bytes are
    no longer those that were inspected: the copy then does not appear, or is never named."""

    async def checked() -> AsyncIterator[bytes]:
        assert isinstance(store, StreamingReads)
        digest = hashlib.sha256()
        async for chunk in store.stream(source.ref.key):
            digest.update(chunk)
            yield chunk
        _same(source, digest.hexdigest())

    if isinstance(store, StreamingReads) and isinstance(target, StreamingWrites):
        await target.put_stream(key, checked())
        return
    data = await store.get(source.ref.key)
    _same(source, _sha256(data))
    await target.put(key, data)


def _same(source: Inspected, sha256: str) -> None:
    if sha256 != source.sha256:
        raise LakehouseError(
            ErrorKind.CONFLICT,
            "the object changed while it was registered",
            bucket=source.ref.bucket,
            key=source.ref.key,
            hint="repeat the request once its writer is done",
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _missing(ref: ObjectRef) -> LakehouseError:
    return LakehouseError(
        ErrorKind.NOT_FOUND,
        "an object that is to be registered is not there",
        bucket=ref.bucket,
        key=ref.key,
        hint="upload it first; nothing was registered",
    )


def _read_footer(ref: ObjectRef, source: IO[bytes], sha256: str, rows: int) -> Inspected:
    try:
        size = source.seek(0, io.SEEK_END)
        source.seek(0)
        parquet = pq.ParquetFile(source)
        schema = parquet.schema_arrow
        return Inspected(
            ref=ref,
            size_bytes=size,
            sha256=sha256,
            footer=parquet.metadata,
            schema=schema,
            sample=_sample(source, parquet, rows),
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise LakehouseError(
            ErrorKind.INVALID,
            "the object is not a parquet file that can be read",
            bucket=ref.bucket,
            key=ref.key,
            reason=str(error)[:200],
            hint="other formats are ingested, not registered",
        ) from error


def _sample(source: Any, parquet: pq.ParquetFile, rows: int) -> pa.Table:
    """The first rows of flat columns; none where the first row group is huge."""
    schema, footer = parquet.schema_arrow, parquet.metadata
    flat = [field.name for field in schema if not pat.is_nested(field.type)]
    empty = schema.empty_table()
    if not rows or not footer.num_row_groups or len(set(flat)) != len(flat) or not flat:
        return empty
    if footer.row_group(0).total_byte_size > _SAMPLE_GROUP_BYTES:
        return empty
    texts = [name for name in flat if pat.is_string(schema.field(name).type)]
    source.seek(0)
    lazily = pq.ParquetFile(source, read_dictionary=texts)
    batch = next(lazily.iter_batches(batch_size=rows, row_groups=[0], columns=flat), None)
    return empty if batch is None else pa.Table.from_batches([batch])
