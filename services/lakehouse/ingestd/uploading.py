"""What putting objects of rows has in common, whoever makes them: prefix, statistics, refusals."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.parquet_out import LocalParquet
from lakehouse.kit.blocking import run_blocking
from lakehouse.model.dataset import ColumnStats, stats_key
from lakehouse.model.refs import PRIMARY
from lakehouse.objectstore.port import ObjectStore, StreamingWrites
from lakehouse.table.statsfile import encode_stats

__all__ = ["PASSING", "PREFIX", "not_uploaded", "put_file", "put_stats"]

PREFIX: Final = "datasets/"
_PART_BYTES: Final = 8 << 20
_UPLOADS_MAX: Final = 2
PASSING: Final = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT, ErrorKind.UNKNOWN})
"""Kinds of an upload that may go well when it is tried again."""


async def put_file(
    store: ObjectStore, new_key: Callable[[], str], local: LocalParquet, whole_bytes_max: int
) -> str:
    """The key under which ``local`` was put: whole up to so many bytes, else as a stream. What
    fails in passing is put again, under a new key. Raises ``unavailable`` where it stays so."""
    whole = local.size_bytes <= whole_bytes_max
    streams = None if whole or not isinstance(store, StreamingWrites) else store
    # Whole objects are repeated by the store itself.
    for left in reversed(range(1 if streams is None else _UPLOADS_MAX)):
        key = new_key()
        try:
            if streams is None:
                await store.put(key, await run_blocking(local.path.read_bytes))
            else:
                await streams.put_stream(key, _parts(local.path))
            return key
        except LakehouseError as error:
            if error.kind not in PASSING:
                raise
            if not left:
                raise not_uploaded(error) from error
    raise AssertionError("the last attempt returns or raises")


async def _parts(path: Path) -> AsyncIterator[bytes]:
    file = await run_blocking(path.open, "rb")
    try:
        while part := await run_blocking(file.read, _PART_BYTES):
            yield part
    finally:
        file.close()


async def put_stats(store: ObjectStore, bucket: str, key: str, stats: Sequence[ColumnStats]) -> str:
    """Put the statistics of the rows at ``key`` beside them if they are outside the primary bucket:
    their values stay where the rows are. The hash of that object; "" where there is none."""
    if bucket == PRIMARY or not stats:
        return ""
    data = encode_stats(stats)
    try:
        await store.put(stats_key(key), data)
    except LakehouseError as error:
        if error.kind not in PASSING:
            raise
        raise not_uploaded(error) from error
    return hashlib.sha256(data).hexdigest()


def not_uploaded(error: LakehouseError) -> LakehouseError:
    """Whatever became of the object: it is not live, so of the call it is known."""
    return LakehouseError(
        ErrorKind.UNAVAILABLE,
        "the rows could not be written to the bucket, and nothing was committed",
        hint="send the file again when the bucket answers",
        cause=str(error),
    )
