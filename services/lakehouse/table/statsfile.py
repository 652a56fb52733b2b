"""The statistics of one file's columns as an object of their own, readable by any Parquet reader.

Rows outside the primary bucket have theirs beside them: values of a tenant's rows do not leave the
tenant's bucket, and the catalog knows their hash alone. No I/O here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import ColumnStats

__all__ = ["decode_stats", "encode_stats"]

_SCHEMA: Final = pa.schema(
    [
        ("column_id", pa.int32()),
        ("null_count", pa.int64()),
        ("minimum", pa.string()),
        ("maximum", pa.string()),
    ]
)


def encode_stats(stats: Sequence[ColumnStats]) -> bytes:
    """A Parquet file with one row a column; the same statistics give the same bytes."""
    columns = [
        [one.column_id for one in stats],
        [one.null_count for one in stats],
        [one.minimum for one in stats],
        [one.maximum for one in stats],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _SCHEMA, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(arrays, schema=_SCHEMA),
        sink,
        compression="zstd",
        write_page_checksum=True,
        store_schema=False,
    )
    return bytes(sink.getvalue())


def decode_stats(data: bytes) -> tuple[ColumnStats, ...]:
    """The inverse of ``encode_stats``. Raises ``corrupt`` for bytes that are no statistics."""
    try:
        table = pq.read_table(pa.BufferReader(data), columns=_SCHEMA.names).cast(_SCHEMA)
        rows = zip(*(table.column(name).to_pylist() for name in _SCHEMA.names), strict=True)
        return tuple(ColumnStats(*row) for row in rows)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise LakehouseError(
            ErrorKind.CORRUPT, "statistics cannot be read", reason=str(error)[:200]
        ) from error
