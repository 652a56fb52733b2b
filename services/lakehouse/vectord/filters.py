"""SQL predicates over the columns of a dataset, as the rows of an image that they hold for."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.query import QueryLimits, QueryRequest, ResultFormat
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_in
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context
from lakehouse.table.cells import flat
from lakehouse.table.codec import fit
from lakehouse.table.keys import entity_texts, key_columns
from lakehouse.vectord.parts import VectorParts
from lakehouse.vectord.source import Source, quoted

__all__ = ["FILTER_BYTES_MAX", "matching_entities"]

FILTER_BYTES_MAX: Final = 64 * 1024
_CONDITION: Final = "write a condition over the columns of the dataset, as in year > 2020"


async def matching_entities(
    ctx: Context, parts: VectorParts, source: Source, predicate: str
) -> pa.Array:
    """The keys of the rows for which ``predicate`` holds, as texts, asked with the caller's rights.

    What the predicate says chooses among rows that are searched anyway, so no trick of its grammar
    brings anything else into an answer. Raises ``invalid`` for one that cannot be read or names
    what is not there, and what ``query`` raises.
    """
    dataset = source.dataset
    if len(predicate.encode()) > FILTER_BYTES_MAX:
        raise LakehouseError(
            ErrorKind.INVALID, "the filter is too long", maximum_bytes=FILTER_BYTES_MAX
        )
    names = ", ".join(quoted(name) for name in dataset.primary_key)
    # The line end ends a comment that the predicate may end with.
    sql = f"SELECT {names} FROM {quoted(dataset.name)} WHERE (\n{predicate}\n)"
    count = dataset.row_count
    # A predicate that closes the bracket and brings more may not bring more than there is.
    limits = QueryLimits(rows_max=None if count is None else max(1, count))
    request = QueryRequest(
        sql, as_of=AsOf(version=source.version), limits=limits, format=ResultFormat.ARROW
    )
    try:
        stream = await parts.query.run(ctx, request)
        chunks = [chunk async for chunk in stream.chunks]
    except LakehouseError as error:
        if limits.rows_max is None or error.fields.get("value") != limits.rows_max:
            raise
        raise LakehouseError(
            ErrorKind.INVALID,
            "the filter gives more rows than the dataset has",
            dataset=dataset.name,
            rows=limits.rows_max,
            hint=_CONDITION,
        ) from error
    return await run_in(parts.jobs, _entities, b"".join(chunks), dataset)


def _entities(data: bytes, dataset: Dataset) -> pa.Array:
    with pa.ipc.open_stream(pa.BufferReader(data)) as reader:
        table = reader.read_all()
    arrays = []
    for at, column in enumerate(key_columns(dataset.schema, dataset.primary_key)):
        typed = fit(flat(table.column(at)), column.type)
        if typed is None:
            raise LakehouseError(
                ErrorKind.INVALID,
                "the filter gives keys of another type",
                column=column.name,
                column_type=column.type,
                hint=_CONDITION,
            )
        arrays.append(typed)
    keys = pa.Table.from_arrays(arrays, names=list(dataset.primary_key))
    return flat(entity_texts(keys, dataset.schema, dataset.primary_key))
