"""What putting objects of rows has in common, whoever makes them: prefix, statistics, refusals."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import ColumnStats, stats_key
from lakehouse.model.refs import PRIMARY
from lakehouse.objectstore.port import ObjectStore
from lakehouse.table.statsfile import encode_stats

__all__ = ["PASSING", "PREFIX", "not_uploaded", "put_stats"]

PREFIX: Final = "datasets/"
PASSING: Final = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT, ErrorKind.UNKNOWN})
"""Kinds of an upload that may go well when it is tried again."""


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
