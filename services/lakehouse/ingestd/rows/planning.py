"""What a batch asks for: keys to look up, and what is done with the rows they find. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.ingest import IngestOptions
from lakehouse.contracts.rows import CHANGE_BYTES_MAX, ChangeRowsRequest, RowChange
from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.ingestd.convert import Work
from lakehouse.ingestd.limits import beyond, unreadable
from lakehouse.ingestd.rows.batches import read_keys, read_rows
from lakehouse.ingestd.rows.json_bodies import (
    Cells,
    Patches,
    is_json,
    json_keys,
    json_patches,
    set_fields,
)
from lakehouse.ingestd.rows.refusals import NAMED_MAX
from lakehouse.model.dataset import Dataset
from lakehouse.model.schema import Schema
from lakehouse.table.cells import flat
from lakehouse.table.changes import RowChanges, SetField, delete, patch, upsert
from lakehouse.table.keys import entity_texts, match
from lakehouse.table.values import json_texts

__all__ = ["Batch", "batch_of_body", "batch_of_predicate", "check_request"]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it was read under ``schema`` and ``key``.

    ``plan``: from the rows that are there now with ``keys``, what to write. It raises ``conflict``
    for an expectation that does not hold, ``not_found`` for a row to patch that is not there.
    """

    schema: Schema
    key: tuple[str, ...]
    keys: pa.Table
    plan: Callable[[pa.Table], RowChanges]

    def fits(self, dataset: Dataset) -> bool:
        """Whether it would be read the same under the schema and the key of now."""
        return (self.schema, self.key) == (dataset.schema, dataset.primary_key)


def check_request(request: ChangeRowsRequest) -> None:
    """Raise ``invalid`` for a request that says too much, too little, or two things at once."""
    size = len(request.body)
    if size > CHANGE_BYTES_MAX:
        raise beyond(
            "CHANGE_BYTES_MAX",
            CHANGE_BYTES_MAX,
            "the batch is too large to be held in memory",
            "send smaller batches, or ingest it as a file with mode=upsert",
            size_bytes=size,
        )
    where, upserts = bool(request.where.strip()), request.change is RowChange.UPSERT
    if where and (upserts or request.body):
        raise unreadable(
            "a predicate is for patch and delete, and in the place of a body",
            "send rows by key as the body, or a predicate and no body",
        )
    if bool(request.set_json) != (where and request.change is RowChange.PATCH):
        raise unreadable(
            "fields to set go with a predicate and patch",
            'send where=... with set={"column": value}, or objects with key and set as the body',
        )


def batch_of_body(request: ChangeRowsRequest, dataset: Dataset, work: Work) -> Batch:
    """The batch in the body. Raises as ``read_rows``, ``json_patches``."""
    schema, key = dataset.schema, dataset.primary_key
    body, options = request.body, request.options
    if request.change is RowChange.UPSERT:
        rows = read_rows(body, options, dataset, work)
        return Batch(
            schema, key, rows.select(list(key)), lambda found: upsert(rows, found, schema, key)
        )
    if request.change is RowChange.DELETE:
        keys = _keys(body, options, dataset, work)
        return Batch(schema, key, keys, lambda found: delete(keys, found, schema, key))
    if not is_json(body, options):
        raise unreadable(
            "a patch is json",
            'send objects such as {"key": 7, "set": {"phone": "555"}}, as an array or one a line',
        )
    patches = json_patches(body, options, dataset, work.settings)

    def plan(found: pa.Table) -> RowChanges:
        _check_found(patches.keys, found, dataset)
        _check_expectations(patches, found, dataset)
        return patch(patches.keys, _by_column(patches.sets), found, schema, key)

    return Batch(schema, key, patches.keys, plan)


def batch_of_predicate(
    request: ChangeRowsRequest, dataset: Dataset, keys: pa.Table, work: Work
) -> Batch:
    """``keys``: of the rows for which the predicate of ``request`` holds."""
    schema, key = dataset.schema, dataset.primary_key
    if request.change is RowChange.DELETE:
        return Batch(schema, key, keys, lambda found: delete(keys, found, schema, key))
    wanted = set_fields(request.set_json, dataset, work.settings)
    fields = {name: pa.repeat(value, keys.num_rows) for name, value in wanted.items()}
    return Batch(schema, key, keys, lambda found: patch(keys, fields, found, schema, key))


def _keys(body: bytes, options: IngestOptions, dataset: Dataset, work: Work) -> pa.Table:
    if is_json(body, options):
        return json_keys(body, options, dataset, work.settings)
    return read_keys(body, options, dataset, work)


def _check_found(keys: pa.Table, found: pa.Table, dataset: Dataset) -> None:
    at = match(keys, found, dataset.primary_key)
    if not at.null_count:
        return
    missing = pc.indices_nonzero(pc.is_null(at))
    named = missing.slice(0, NAMED_MAX)
    texts = entity_texts(keys.take(named), dataset.schema, dataset.primary_key).to_pylist()
    rows: list[FieldValue] = [
        {"row": row + 1, "key": text} for row, text in zip(named.to_pylist(), texts, strict=True)
    ]
    raise LakehouseError(
        ErrorKind.NOT_FOUND,
        "some rows to patch are not there, so nothing was changed",
        dataset=dataset.name,
        row=named[0].as_py() + 1,
        key=texts[0],
        rows=rows,
        count=len(missing),
        hint="insert them with an upsert, or leave them out",
    )


def _check_expectations(patches: Patches, found: pa.Table, dataset: Dataset) -> None:
    """Raise ``conflict`` naming the rows and fields that do not hold what they were expected to."""
    if not patches.expects:
        return
    by_name = {column.name: column for column in dataset.schema.columns}
    at = match(patches.keys, found, dataset.primary_key)
    failed: list[tuple[int, str, str | None, str | None]] = []
    for name, cells in patches.expects.items():
        actual = json_texts(flat(found.column(name)).take(at), by_name[name].type)
        failed += _unmet(name, cells, json_texts(cells.values, by_name[name].type), actual)
    if not failed:
        return
    failed.sort(key=lambda one: one[0])
    places = [one[0] for one in failed[:NAMED_MAX]]
    keys = entity_texts(patches.keys.take(places), dataset.schema, dataset.primary_key)
    told: list[dict[str, FieldValue]] = [
        {"row": row + 1, "key": key, "field": name, "expected": expected, "actual": actual}
        for key, (row, name, expected, actual) in zip(keys.to_pylist(), failed, strict=False)
    ]
    raise LakehouseError(
        ErrorKind.CONFLICT,
        "a row does not hold what it was expected to, so nothing was changed",
        **told[0],
        dataset=dataset.name,
        failed=[*told],
        count=len(failed),
        hint="read the row again and decide anew; values are shown as json",
    )


def _unmet(
    name: str, cells: Cells, expected: pa.Array, actual: pa.Array
) -> list[tuple[int, str, str | None, str | None]]:
    # No JSON text is empty.
    same = pc.equal(pc.fill_null(expected, ""), pc.fill_null(actual, ""))
    wrong = pc.indices_nonzero(pc.and_not(cells.given, same)).slice(0, NAMED_MAX)
    pairs = zip(
        wrong.to_pylist(),
        expected.take(wrong).to_pylist(),
        actual.take(wrong).to_pylist(),
        strict=True,
    )
    return [(row, name, old, new) for row, old, new in pairs]


def _by_column(fields: Mapping[str, Cells]) -> dict[str, SetField]:
    """As ``table.changes.patch`` takes them."""
    return {name: SetField(cells.values, cells.given) for name, cells in fields.items()}
