"""Event objects of a dataset into one: by entity, each event with the version it was made by."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import DataFile, VersionEntry
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
    if entries:
        tables.append(batch_events(entries, dataset_id))
    events = pa.concat_tables([EVENT_SCHEMA.empty_table(), *tables])
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
    columns = {name: found.column(name) for name in found.column_names}
    arrays = [
        columns[field.name].cast(field.type)
        if field.name in columns
        else pa.nulls(found.num_rows, field.type)
        for field in EVENT_SCHEMA
    ]
    events = pa.Table.from_arrays(arrays, schema=EVENT_SCHEMA)
    at = EVENT_SCHEMA.get_field_index("version")
    # Not known when it was written with its change; the commit's is the file's.
    versions = pc.fill_null(events.column(at), file.seq)
    return events.set_column(at, EVENT_SCHEMA.field(at), versions)
