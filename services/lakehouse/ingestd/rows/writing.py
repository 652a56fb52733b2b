"""Small objects of a row change: Parquet in memory, one PUT each (ADR-009)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.ingestd.settings import IngestSettings
from lakehouse.kit.blocking import run_blocking
from lakehouse.kit.ids import Ids
from lakehouse.model.dataset import KEYS, ROWS, ColumnStats, DataFile, Dataset, stats_key
from lakehouse.model.identity import Context
from lakehouse.model.refs import PRIMARY
from lakehouse.model.schema import Schema
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.scoped import ScopedStore
from lakehouse.table.rowhash import format_hash, rows_hash
from lakehouse.table.stats import file_stats
from lakehouse.table.statsfile import encode_stats

__all__ = ["TableWriter"]

_PREFIX: Final = "datasets/"
_MASK: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class _Encoded:
    data: bytes
    sha256: str
    rows_hash: str
    stats: tuple[ColumnStats, ...]


class TableWriter:
    """Puts tables as objects of a dataset; whoever calls it makes them live by a commit."""

    def __init__(self, settings: IngestSettings, buckets: Buckets, ids: Ids) -> None:
        self._settings = settings
        self._buckets = buckets
        self._ids = ids

    async def put(
        self,
        ctx: Context,
        dataset: Dataset,
        session_id: str,
        table: pa.Table,
        content: str,
        schema: Schema,
    ) -> DataFile:
        """One object with the rows of ``table``, which has the Arrow schema of ``content``.

        ``schema``: the dataset's; it bounds the columns that the table has of it. Raises
        ``unavailable`` where the bucket does not take it.
        """
        await self._buckets.find(ctx, (dataset.bucket,))
        store = ScopedStore(self._buckets.get(dataset.bucket), (_PREFIX,))
        encoded = await run_blocking(_encode, table, content, schema)
        key = f"{_PREFIX}{session_id}/{dataset.id}/{self._ids.ulid()}.parquet"
        await store.put(key, encoded.data)
        file = DataFile(
            key,
            len(encoded.data),
            table.num_rows,
            encoded.sha256,
            dataset.bucket,
            schema.id,
            encoded.rows_hash,
            content=content,
        )
        if dataset.bucket == PRIMARY or not encoded.stats:
            return replace(file, stats=encoded.stats)
        beside = encode_stats(encoded.stats)
        await store.put(stats_key(key), beside)
        return replace(file, stats_sha256=hashlib.sha256(beside).hexdigest())


def _encode(table: pa.Table, content: str, schema: Schema) -> _Encoded:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        version="2.6",
        compression="zstd",
        write_page_checksum=True,
        write_page_index=True,
    )
    data = sink.getvalue().to_pybytes()
    digest = hashlib.sha256(data).hexdigest()
    if content == ROWS:
        return _Encoded(
            data, digest, format_hash(rows_hash(table, schema)), file_stats(table, schema)
        )
    if content == KEYS:
        total = pc.sum(table.column("__row_hash")).as_py() or 0
        return _Encoded(data, digest, format_hash(total & _MASK), file_stats(table, schema))
    return _Encoded(data, digest, "", ())
