"""Event objects of a dataset into one: by entity, each event with the version it was made by."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import DataFile, VersionEntry
from lakehouse.table.cells import flat
from lakehouse.table.events import EVENT_SCHEMA, batch_events

__all__ = ["fold_events"]

_ORDER = [(name, "ascending", "at_start") for name in ("entity", "version", "ordinal")]


def fold_events(
    dataset_id: str,
    files: Sequence[tuple[DataFile, str]],
    entries: Sequence[VersionEntry],
) -> pa.Table:
    """The events of ``files`` (each with its local path), and ``entries`` as BATCH events.

    Raises ``corrupt`` if an object holds other events than the catalog says: none may be lost.
    """
    tables = [_events(file, path) for file, path in files]
    seqs = [pa.repeat(pa.scalar(file.seq, pa.int64()), file.rows) for file, _ in files]
    if entries:
        tables.append(batch_events(entries, dataset_id))
        seqs.append(pa.nulls(tables[-1].num_rows, pa.int64()))
    events = pa.concat_tables([EVENT_SCHEMA.empty_table(), *tables]).combine_chunks()
    at = EVENT_SCHEMA.get_field_index("version")
    # Not known when it was written with its change; the commit's is the file's.
    told = pa.concat_arrays(seqs) if seqs else pa.array([], pa.int64())
    versions = pc.coalesce(flat(events.column(at)), told)
    events = events.set_column(at, EVENT_SCHEMA.field(at), versions)
    # Those of many rows have no entity: they come first, whoever looks for one entity skips them.
    return events.take(pc.sort_indices(events, sort_keys=_ORDER))


def _events(file: DataFile, path: str) -> pa.Table:
    # One file after the other: threads for the columns of a small one cost more than they spare.
    with pq.ParquetFile(path, pre_buffer=False) as parquet:
        found = parquet.read(use_threads=False)
    if found.num_rows != file.rows:
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "an object holds other events than the catalog says; nothing was compacted",
            bucket=file.bucket,
            key=file.key,
            rows_expected=file.rows,
            rows_found=found.num_rows,
        )
    if found.schema.equals(EVENT_SCHEMA):
        return found
    columns = {name: found.column(name) for name in found.column_names}
    arrays = [
        columns[field.name].cast(field.type)
        if field.name in columns
        else pa.nulls(found.num_rows, field.type)
        for field in EVENT_SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)
