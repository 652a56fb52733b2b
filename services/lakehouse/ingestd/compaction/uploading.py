"""Finished files into the dataset's bucket; they are not live until a commit names them."""

from __future__ import annotations

from dataclasses import replace

from lakehouse.ingestd.parquet_out import LocalParquet
from lakehouse.ingestd.rows.parts import RowParts
from lakehouse.ingestd.uploading import PREFIX, put_file, put_stats
from lakehouse.model.dataset import DataFile, Dataset
from lakehouse.model.refs import PRIMARY
from lakehouse.objectstore.scoped import ScopedStore

__all__ = ["upload"]


async def upload(
    parts: RowParts, dataset: Dataset, session_id: str, local: LocalParquet
) -> DataFile:
    """Put one file with rows into the dataset's home. Raises ``unavailable`` where the bucket does
    not take it."""
    store = ScopedStore(parts.buckets.get(dataset.bucket), (PREFIX,))
    folder = f"{PREFIX}{session_id}/{dataset.id}/"
    key = await put_file(
        store,
        lambda: f"{folder}{parts.ids.ulid()}.parquet",
        local,
        parts.settings.upload_whole_bytes_max,
    )
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
