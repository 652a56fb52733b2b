"""A declared primary key: not null and unique within the file; offending rows are named.

Hashes of all keys (8 bytes a row) are sorted; only rows whose hash is there twice are compared by
value, so that a chance collision is no finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.ingestd.parquet_out import LocalParquet

_NAMED_MAX: Final = 10
_COMPARED_MAX: Final = 100_000


def check_key(hashes: pa.ChunkedArray, files: Sequence[LocalParquet], key: tuple[str, ...]) -> None:
    """Raise ``invalid`` naming up to ten keys with their rows (from 1, in the file's order).

    Args:
        hashes: one a row in order (uint64), null where a key column is null.
        files: the rows, in the same order.
    """
    if hashes.null_count:
        rows = pc.indices_nonzero(pc.is_null(hashes)).slice(0, _NAMED_MAX)
        raise LakehouseError(
            ErrorKind.INVALID,
            "the key is null in some rows",
            key=list(key),
            count=hashes.null_count,
            rows=[row + 1 for row in rows.to_pylist()],
            hint="choose other key columns, or ingest without a key",
        )
    twice = _repeated(hashes)
    if len(twice) == 0:
        return
    suspects = pc.indices_nonzero(pc.is_in(hashes, value_set=twice)).slice(0, _COMPARED_MAX)
    seen: dict[tuple[object, ...], list[int]] = {}
    for row, values in zip(suspects.to_pylist(), _values(files, key, suspects), strict=True):
        seen.setdefault(values, []).append(row + 1)
    repeated = {values: rows for values, rows in seen.items() if len(rows) > 1}
    if not repeated:
        return
    named: list[FieldValue] = [
        {"key": [str(value) for value in values], "rows": [*rows[:_NAMED_MAX]]}
        for values, rows in list(repeated.items())[:_NAMED_MAX]
    ]
    raise LakehouseError(
        ErrorKind.INVALID,
        "the key is not unique",
        key=list(key),
        count=len(repeated),
        duplicates=named,
        hint="choose other key columns, remove the duplicates, or ingest without a key",
    )


def _repeated(hashes: pa.ChunkedArray) -> pa.Array:
    flat = hashes.combine_chunks()
    ordered = flat.take(pc.sort_indices(flat))
    if isinstance(ordered, pa.ChunkedArray):
        ordered = ordered.combine_chunks()
    if len(ordered) < 2:
        return ordered.slice(0, 0)
    same = pc.equal(ordered.slice(1), ordered.slice(0, len(ordered) - 1))
    return pc.unique(pc.filter(ordered.slice(1), same))


def _values(
    files: Iterable[LocalParquet], key: tuple[str, ...], rows: pa.Array
) -> Iterator[tuple[object, ...]]:
    """The key's values at ``rows`` (rising), reading only the key's columns, group by group."""
    first = 0
    for file in files:
        with pq.ParquetFile(str(file.path)) as parquet:
            for group in range(parquet.num_row_groups):
                count = parquet.metadata.row_group(group).num_rows
                inside = pc.and_(pc.greater_equal(rows, first), pc.less(rows, first + count))
                here = pc.subtract(pc.filter(rows, inside).cast(pa.int64()), first)
                if len(here):
                    table = parquet.read_row_group(group, columns=list(key)).take(here)
                    yield from zip(*(table.column(name).to_pylist() for name in key), strict=True)
                first += count
