"""The keys of the rows for which a SQL predicate holds, at one version of the store."""

from __future__ import annotations

import pyarrow as pa

from lakehouse.contracts.catalog import AsOf
from lakehouse.contracts.query import QueryRequest, QueryService, ResultFormat
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows.batches import key_schema
from lakehouse.model.dataset import Dataset
from lakehouse.model.identity import Context
from lakehouse.table.codec import fit
from lakehouse.table.types import arrow_schema

__all__ = ["keys_where"]


async def keys_where(
    ctx: Context,
    query: QueryService | None,
    dataset: Dataset,
    where: str,
    at: tuple[int, int],
) -> pa.Table:
    """The keys, each once, in no order.

    What the predicate says is taken for nothing but a choice of keys: the rows themselves are read
    again by key, so that no trick of its grammar brings rows of elsewhere into the dataset.

    Args:
        at: the version of the store to ask, and how many bytes the keys may have in memory.

    Raises:
        invalid: the predicate cannot be read, names what is not there, or is more than one.
        exhausted: it holds for more rows than one change may touch.
        unavailable: there is no query service to ask.
    """
    if query is None:
        raise LakehouseError(
            ErrorKind.UNAVAILABLE,
            "predicates need the query service, which this node does not have",
            hint="run queryd on this node or configure its address, or send keys",
        )
    version, bytes_max = at
    names = ", ".join(_quoted(name) for name in dataset.primary_key)
    # The line end ends a comment that the predicate may end with.
    sql = f"SELECT {names} FROM {_quoted(dataset.name)} WHERE (\n{where}\n)"
    request = QueryRequest(sql, as_of=AsOf(version=version), format=ResultFormat.ARROW)
    stream = await query.run(ctx, request)
    parts: list[bytes] = []
    size = 0
    async for chunk in stream.chunks:
        size += len(chunk)
        if size > bytes_max:
            raise LakehouseError(
                ErrorKind.EXHAUSTED,
                "the predicate holds for more rows than one change may touch",
                limit="ingest.keyed_bytes_max",
                maximum=bytes_max,
                hint="narrow the predicate and change the rows in several steps",
            )
        parts.append(chunk)
    return _keys(b"".join(parts), dataset)


def _keys(data: bytes, dataset: Dataset) -> pa.Table:
    schema = key_schema(dataset.schema, dataset.primary_key)
    with pa.ipc.open_stream(pa.BufferReader(data)) as reader:
        table = reader.read_all().combine_chunks()
    arrays: list[pa.Array] = []
    for at, column in enumerate(schema.columns):
        values = table.column(at)
        chunk = values.chunk(0) if values.num_chunks else pa.array([], values.type)
        typed = fit(chunk, column.type)
        if typed is None:
            raise LakehouseError(
                ErrorKind.INVALID,
                "the predicate gives keys of another type",
                column=column.name,
                type_text=column.type,
                hint="write a condition over the dataset's columns, and nothing beside it",
            )
        arrays.append(typed)
    return pa.Table.from_arrays(arrays, schema=arrow_schema(schema))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
