"""Small tables as objects of a dataset: encoded in memory, one PUT each, several at once.

What was put and is not committed belongs to its session, and is collected when that has ended.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.errors import LakehouseError
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.uploading import PASSING, PREFIX, not_uploaded, put_stats
from lakehouse.kit.blocking import run_in
from lakehouse.kit.ids import Ids
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, ColumnStats, DataFile, Dataset
from lakehouse.model.identity import Context
from lakehouse.model.refs import PRIMARY
from lakehouse.model.schema import Schema
from lakehouse.objectstore.buckets import Buckets
from lakehouse.objectstore.scoped import ScopedStore
from lakehouse.table.rowhash import format_hash, rows_hash
from lakehouse.table.stats import file_stats
from lakehouse.table.types import arrow_schema

__all__ = ["Encoded", "Piece", "TableWriter", "encode"]

_ZSTD_LEVEL: Final = 1
_ROW_HASH: Final = "__row_hash"
_SMALL_ROWS: Final = 10_000
_INDEXED_ROWS: Final = 20_000
_PLAIN_ROWS: Final = 1_000
_EVENT_GROUP_ROWS: Final = 8_192
_ASKED: Final = frozenset(
    {"base_version", "version", "kind", "entity", "column_id", "field", "actor", "at"}
    | {"workspace", "request_id"}
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A table that is to become an object with ``content`` (``model.dataset.CONTENTS``).

    ``schema``: of the rows; of ``keys`` that of the rows they hide; of ``events`` their own.
    ``key``: of the object, where it had to be known before.
    """

    content: str
    table: pa.Table
    schema: Schema
    key: str = ""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An object's bytes, and what the catalog wants to know of them."""

    data: bytes
    rows: int
    sha256: str
    rows_hash: str
    stats: tuple[ColumnStats, ...]


class TableWriter:
    """Puts tables that fit into memory; whoever calls it makes them live by a commit.

    ``jobs``: the threads that encode."""

    def __init__(
        self, settings: IngestSettings, buckets: Buckets, ids: Ids, jobs: Executor
    ) -> None:
        self._settings = settings
        self._buckets = buckets
        self._ids = ids
        self._jobs = jobs

    def new_key(self, dataset: Dataset, session_id: str) -> str:
        """A key that no object has, for one that others must name before it is put."""
        return f"{PREFIX}{session_id}/{dataset.id}/{self._ids.ulid()}.parquet"

    async def put(
        self,
        ctx: Context,
        dataset: Dataset,
        session_id: str,
        table: pa.Table,
        content: str,
        schema: Schema,
    ) -> DataFile:
        """Put ``table``; the file as a commit adds it. Raises ``unavailable`` (nothing is lost: it
        is not live)."""
        files = await self.put_all(ctx, dataset, session_id, (Piece(content, table, schema),))
        return files[0]

    async def put_all(
        self, ctx: Context, dataset: Dataset, session_id: str, pieces: Sequence[Piece]
    ) -> tuple[DataFile, ...]:
        """Put all of ``pieces`` at once; the files in their order. Raises as ``put``."""
        return (await self.put_made(ctx, dataset, session_id, lambda: pieces))[1]

    async def put_made(
        self,
        ctx: Context,
        dataset: Dataset,
        session_id: str,
        make: Callable[[], Sequence[Piece]],
    ) -> tuple[Sequence[Piece], tuple[DataFile, ...]]:
        """What ``make`` returns in a thread, put as ``put_all`` does, and the files. Raises as
        ``put``."""
        await self._buckets.find(ctx, (dataset.bucket,))
        pieces, made = await run_in(self._jobs, self._made, make)
        puts = [
            self._encode_and_put(dataset, session_id, piece)
            if one is None
            else self._put(dataset, session_id, piece, one)
            for piece, one in zip(pieces, made, strict=True)
        ]
        # What is still on its way when one fails is waited for: nothing of it is left running.
        results = await asyncio.gather(*puts, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return pieces, tuple(result for result in results if isinstance(result, DataFile))

    def _made(
        self, make: Callable[[], Sequence[Piece]]
    ) -> tuple[Sequence[Piece], Sequence[Encoded | None]]:
        """The pieces, and what they are encoded as where they are small: faster one after the other
        than in threads that wait for each other."""
        pieces = make()
        if sum(piece.table.num_rows for piece in pieces) > _SMALL_ROWS:
            return pieces, [None for _ in pieces]
        return pieces, [encode(piece, self._settings.row_group_rows) for piece in pieces]

    async def _encode_and_put(self, dataset: Dataset, session_id: str, piece: Piece) -> DataFile:
        made = await run_in(self._jobs, encode, piece, self._settings.row_group_rows)
        return await self._put(dataset, session_id, piece, made)

    async def _put(
        self, dataset: Dataset, session_id: str, piece: Piece, made: Encoded
    ) -> DataFile:
        key = piece.key or self.new_key(dataset, session_id)
        bucket = dataset.bucket
        store = ScopedStore(self._buckets.get(bucket), (PREFIX,))
        try:
            await store.put(key, made.data)
        except LakehouseError as error:
            if error.kind not in PASSING:
                raise
            raise not_uploaded(error) from error
        beside = await put_stats(store, bucket, key, made.stats)
        return DataFile(
            key=key,
            size_bytes=len(made.data),
            rows=made.rows,
            sha256=made.sha256,
            bucket=bucket,
            # Events have a schema of their own: any of the dataset's will do.
            schema_id=piece.schema.id if piece.content in (ROWS, KEYS) else dataset.schema.id,
            rows_hash=made.rows_hash,
            stats=made.stats if bucket == PRIMARY else (),
            content=piece.content,
            stats_sha256=beside,
        )


def encode(piece: Piece, row_group_rows: int) -> Encoded:
    """The Parquet file of a piece: field ids, all nullable, microseconds, zstd, page checksums."""
    table = piece.table
    hashed = ""
    if piece.content == ROWS:
        wanted = arrow_schema(piece.schema)
        table = pa.table(table.select(wanted.names).columns, schema=wanted)
        hashed = format_hash(rows_hash(table, piece.schema))
    elif piece.content == KEYS:
        total = pc.sum(table.column(_ROW_HASH), min_count=0).as_py() or 0
        hashed = format_hash(total)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        version="2.6",
        compression="zstd",
        compression_level=_ZSTD_LEVEL,
        # Of few rows the dictionaries are larger than what they spare, and take longer.
        use_dictionary=table.num_rows > _PLAIN_ROWS,
        write_statistics=True,
        write_page_checksum=True,
        write_page_index=table.num_rows > _INDEXED_ROWS,
    ) as writer:
        if piece.content == EVENTS:
            # They lie by entity: who asks for one row's past reads one small group.
            row_group_rows = min(row_group_rows, _EVENT_GROUP_ROWS)
        writer.write_table(table, row_group_size=row_group_rows)
    data = sink.getvalue().to_pybytes()
    return Encoded(
        data=data,
        rows=table.num_rows,
        sha256=hashlib.sha256(data).hexdigest(),
        rows_hash=hashed,
        stats=file_stats(table, _bounded(piece)),
    )


def _bounded(piece: Piece) -> Schema:
    """The columns whose bounds the catalog keeps. Of events, those that one can ask for: a value of
    the past is in its object alone, from where it can be taken away."""
    if piece.content != EVENTS:
        return piece.schema
    asked = tuple(column for column in piece.schema.columns if column.name in _ASKED)
    return Schema(piece.schema.id, asked)
