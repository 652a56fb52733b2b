"""Registered files with lists of one size: vectors in new datasets, lists where they were lists."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import Card
from lakehouse.model.schema import Column
from lakehouse.table.fingerprint import fingerprint
from support_catalog import CARD, CTX, House, put_parquet

LISTS = (Column(1, "id", "int64"), Column(2, "v", "list<float64>"))
VECTORS = (Column(1, "id", "int64"), Column(2, "v", "vector(2)"))


def data(*vectors: list[float | None] | None) -> bytes:
    kind = pa.list_(pa.float32(), 2)
    table = pa.table({"id": list(range(len(vectors))), "v": pa.array(vectors, kind)})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


async def test_a_new_dataset_has_vectors(house: House, catalog: Catalog) -> None:
    ref = await put_parquet(house, "raw/a.parquet", data([1, 2], None))
    done = await catalog.register(CTX, c.RegisterRequest("new", (ref,), CARD))
    assert done.dataset.schema.columns == VECTORS
    again = await catalog.register(CTX, c.RegisterRequest("new", (ref,), Card()))
    assert (again.created, again.dataset.id) == (False, done.dataset.id)


@pytest.mark.parametrize(
    "said",
    [{"columns": LISTS}, {"fingerprint": fingerprint(LISTS)}],
    ids=["columns", "fingerprint"],
)
async def test_a_dataset_of_lists_keeps_its_fingerprint(
    house: House, catalog: Catalog, said: dict[str, object]
) -> None:
    one = await put_parquet(house, "raw/a.parquet", data([1, 2]))
    request = c.RegisterRequest("old", (one,), CARD, **said)  # type: ignore[arg-type]
    made = await catalog.register(CTX, request)
    assert made.dataset.fingerprint == fingerprint(LISTS)
    other = await put_parquet(house, "raw/b.parquet", data([1, None], [3, 4]))
    again = await catalog.register(CTX, c.RegisterRequest("old", (one, other), Card()))
    assert again.dataset.fingerprint == fingerprint(LISTS)
    assert (again.dataset.row_count, again.dataset.schema.columns) == (3, LISTS)


async def test_what_is_neither_is_refused(house: House, catalog: Catalog) -> None:
    ref = await put_parquet(house, "raw/a.parquet", data([1, 2]))
    wrong = (LISTS[0], Column(2, "v", "vector(3)"))
    with pytest.raises(LakehouseError) as caught:
        await catalog.register(CTX, c.RegisterRequest("t", (ref,), CARD, columns=wrong))
    assert caught.value.kind is ErrorKind.INVALID
    await catalog.register(CTX, c.RegisterRequest("t", (ref,), CARD))
    with pytest.raises(LakehouseError) as caught:
        await catalog.register(CTX, c.RegisterRequest("t", (ref,), Card(), columns=LISTS))
    assert caught.value.kind is ErrorKind.CONFLICT
