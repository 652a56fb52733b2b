"""Finished files into the dataset's bucket; they are not live until a commit names them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from lakehouse.errors import LakehouseError
from lakehouse.ingestd.parquet_out import LocalParquet
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.uploading import PASSING, PREFIX, not_uploaded, put_stats
from lakehouse.kit.blocking import run_blocking
from lakehouse.model.dataset import DataFile, Dataset
from lakehouse.model.refs import PRIMARY
from lakehouse.objectstore.port import StreamingWrites
from lakehouse.objectstore.scoped import ScopedStore

__all__ = ["upload"]

_PART_BYTES: Final = 8 << 20
_UPLOADS_MAX: Final = 2


async def upload(
    parts: RowParts, dataset: Dataset, session_id: str, local: LocalParquet
) -> DataFile:
    """Put one file with rows into the dataset's home. Raises ``unavailable`` where the bucket does
    not take it."""
    store = ScopedStore(parts.buckets.get(dataset.bucket), (PREFIX,))
    whole = local.size_bytes <= parts.settings.upload_whole_bytes_max
    # Whole objects are repeated by the store itself; a stream is put again under a new key.
    for left in reversed(range(1 if whole else _UPLOADS_MAX)):
        key = f"{PREFIX}{session_id}/{dataset.id}/{parts.ids.ulid()}.parquet"
        try:
            if whole or not isinstance(store, StreamingWrites):
                await store.put(key, await run_blocking(local.path.read_bytes))
            else:
                await store.put_stream(key, _parts(local.path))
            break
        except LakehouseError as error:
            if error.kind not in PASSING:
                raise
            if not left:
                raise not_uploaded(error) from error
    file = DataFile(
        key,
        local.size_bytes,
        local.rows,
        local.sha256,
        dataset.bucket,
        dataset.schema.id,
        local.rows_hash,
    )
    if dataset.bucket == PRIMARY:
        return replace(file, stats=local.stats)
    beside = await put_stats(store, dataset.bucket, key, local.stats)
    return replace(file, stats_sha256=beside)


async def _parts(path: Path) -> AsyncIterator[bytes]:
    file = await run_blocking(path.open, "rb")
    try:
        while part := await run_blocking(file.read, _PART_BYTES):
            yield part
    finally:
        file.close()
