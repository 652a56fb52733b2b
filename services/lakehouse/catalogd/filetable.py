"""Data files as an Arrow table: the form of large segments in memory and of checkpoints."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

from lakehouse.model.dataset import ColumnStats, DataFile

__all__ = ["FILE_SCHEMA", "conform", "decode_files", "encode_files"]

# In the order of ``DataFile``, without ``sha256`` after the third.
_BEFORE: Final = (
    "key",
    "size_bytes",
    "rows",
    "bucket",
    "schema_id",
    "rows_hash",
    "external",
    "ordinal",
)

_STATS: Final = pa.list_(
    # The name that Parquet gives the values of a list, so that reading back changes nothing.
    pa.field(
        "element",
        pa.struct(
            [
                ("column_id", pa.int32()),
                ("null_count", pa.int64()),
                ("minimum", pa.string()),
                ("maximum", pa.string()),
            ]
        ),
    )
)

FILE_SCHEMA: Final = pa.schema(
    [
        ("ordinal", pa.int64()),
        ("added", pa.int64()),
        ("key", pa.string()),
        ("bucket", pa.string()),
        ("size_bytes", pa.int64()),
        ("rows", pa.int64()),
        ("sha256", pa.binary()),
        ("schema_id", pa.int32()),
        ("rows_hash", pa.string()),
        ("external", pa.bool_()),
        ("stats", _STATS),
        ("content", pa.string()),
        ("encryption", pa.string()),
        ("stats_sha256", pa.binary()),
        ("seq", pa.int64()),
    ]
)
"""One row a file, by ordinal. ``added`` is the version that added it, ``seq`` the one that it
stands for: another only for what a rewrite made."""

# Of columns that came later, what their absence means.
_ABSENT: Final = {"content": "rows", "encryption": "", "stats_sha256": b""}


def _encode_stats(files: Sequence[DataFile]) -> pa.Array:
    every = [one for file in files for one in file.stats]
    ends = itertools.accumulate((len(file.stats) for file in files), initial=0)
    kinds = _STATS.value_type
    values = pa.StructArray.from_arrays(
        [
            pa.array([one.column_id for one in every], kinds.field(0).type),
            pa.array([one.null_count for one in every], kinds.field(1).type),
            pa.array([one.minimum for one in every], kinds.field(2).type),
            pa.array([one.maximum for one in every], kinds.field(3).type),
        ],
        fields=list(kinds),
    )
    return pa.ListArray.from_arrays(pa.array(list(ends), pa.int32()), values, type=_STATS)


def encode_files(files: Sequence[DataFile], added: Iterable[int]) -> pa.Table:
    """``files`` with the versions that added them, as ``FILE_SCHEMA``."""
    columns = [
        [file.ordinal for file in files],
        list(added),
        [file.key for file in files],
        [file.bucket for file in files],
        [file.size_bytes for file in files],
        [file.rows for file in files],
        [bytes.fromhex(file.sha256) for file in files],
        [file.schema_id for file in files],
        [file.rows_hash for file in files],
        [file.external for file in files],
    ]
    arrays = [pa.array(values, FILE_SCHEMA.field(at).type) for at, values in enumerate(columns)]
    later = [
        pa.array([file.content for file in files], pa.string()),
        pa.array([file.encryption for file in files], pa.string()),
        pa.array([bytes.fromhex(file.stats_sha256) for file in files], pa.binary()),
        pa.array([file.seq for file in files], pa.int64()),
    ]
    return pa.Table.from_arrays([*arrays, _encode_stats(files), *later], schema=FILE_SCHEMA)


def conform(table: pa.Table) -> pa.Table:
    """``table`` of any version as ``FILE_SCHEMA``: columns by name, absent ones at their defaults,
    unknown ones left out (nobody who would write it back may be without them)."""
    if table.schema.equals(FILE_SCHEMA):
        return table

    def column(field: pa.Field) -> pa.ChunkedArray | pa.Array:
        if field.name in table.column_names:
            return table.column(field.name).cast(field.type)
        if field.name == "seq":
            # Before there were rewrites every file stood for the commit that added it.
            return table.column("added").cast(field.type)
        return pa.repeat(pa.scalar(_ABSENT[field.name], field.type), table.num_rows)

    return pa.Table.from_arrays([column(field) for field in FILE_SCHEMA], schema=FILE_SCHEMA)


def _decode_stats(column: pa.ChunkedArray) -> list[tuple[ColumnStats, ...]]:
    found: list[tuple[ColumnStats, ...]] = []
    for chunk in column.chunks:
        values = chunk.flatten()
        parts = [part.to_pylist() for part in values.flatten()]
        every = iter([ColumnStats(*each) for each in zip(*parts, strict=True)])
        lengths = chunk.value_lengths().to_pylist()
        found.extend(tuple(itertools.islice(every, length or 0)) for length in lengths)
    return found


def decode_files(table: pa.Table) -> tuple[tuple[DataFile, ...], tuple[int, ...]]:
    """The inverse of ``encode_files``."""
    columns = [table.column(name).to_pylist() for name in _BEFORE]
    stats = _decode_stats(table.column("stats"))
    later = [table.column(name).to_pylist() for name in ("content", "seq", "encryption")]
    digests = [sha256.hex() for sha256 in table.column("sha256").to_pylist()]
    beside = [sha256.hex() for sha256 in table.column("stats_sha256").to_pylist()]
    rows = zip(*columns[:3], digests, *columns[3:], stats, *later, beside, strict=True)
    added = table.column("added").to_pylist()
    return tuple([DataFile(*row) for row in rows]), tuple(added)
