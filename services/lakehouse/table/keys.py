"""Primary keys: which columns may be one, how a key is written, and which rows share one.

Rows are matched by value, column by column: each column's values are numbered by what is there on
the right, and the numbers are joined to one. No hash decides.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import ErrorKind, FieldValue, LakehouseError
from lakehouse.model.schema import Column, Schema
from lakehouse.table.cells import flat
from lakehouse.table.rowhash import hash_each
from lakehouse.table.types import arrow_schema
from lakehouse.table.values import from_json_texts, json_texts

__all__ = [
    "KEY_META",
    "check_key_columns",
    "check_keys",
    "distinct",
    "duplicates",
    "entity_texts",
    "key_hashes",
    "keys_hash",
    "keys_schema",
    "match",
    "parse_entities",
    "parse_entity",
]

OP: Final = "__op"
ORDINAL: Final = "__ordinal"
ROW_HASH: Final = "__row_hash"
KEY_META: Final = (OP, ORDINAL, ROW_HASH)
# Columns that stand beside the key while rows are matched and sorted.
_TAKEN: Final = frozenset({"__seq", "__mark", "__row"})
_NAMED_MAX: Final = 10
_KEY_TYPES: Final = frozenset(
    {"string", "int64", "uint64", "bool", "date", "time", "timestamp", "timestamptz", "binary"}
)
_META_FIELDS: Final = (
    pa.field(OP, pa.string()),
    pa.field(ORDINAL, pa.int64()),
    pa.field(ROW_HASH, pa.uint64()),
)


def check_key_columns(schema: Schema, key: Sequence[str]) -> None:
    """Raise ``invalid`` unless ``key`` can be the primary key of a dataset of ``schema``."""
    types = {column.name: column.type for column in schema.columns}
    if not key:
        raise _bad_key(key, "a primary key needs a column")
    if len(set(key)) != len(key):
        raise _bad_key(key, "a column stands twice in the key")
    for name in key:
        if name not in types:
            raise _bad_key(key, "a key column is not there", column=name, columns=list(types))
        if name in KEY_META or name in _TAKEN:
            raise _bad_key(key, "a key column has a reserved name", column=name)
        if types[name] not in _KEY_TYPES and not types[name].startswith("decimal("):
            raise _bad_key(
                key,
                "a column of this type cannot be in a key",
                column=name,
                column_type=types[name],
            )


def _bad_key(key: Sequence[str], message: str, **fields: FieldValue) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        message,
        key=list(key),
        **fields,
        hint="a key is made of columns with whole, exact values that are never null: no floats, "
        "no lists, structs or maps",
    )


def key_columns(schema: Schema, key: Sequence[str]) -> tuple[Column, ...]:
    """The columns of ``key``, in its order."""
    by_name = {column.name: column for column in schema.columns}
    return tuple(by_name[name] for name in key)


def keys_schema(schema: Schema, key: Sequence[str]) -> pa.Schema:
    """Of objects with content ``keys``: the key columns, then ``KEY_META``."""
    columns = arrow_schema(Schema(schema.id, key_columns(schema, key)))
    return pa.schema([*columns, *_META_FIELDS])


def keys_hash(keys: pa.Table) -> int:
    """The hash of the rows that ``keys`` hide, in [0, 2^64): as ``rows_hash`` of those rows."""
    total = pc.sum(keys.column(ROW_HASH)).as_py()
    return total or 0


def entity_texts(table: pa.Table, schema: Schema, key: Sequence[str]) -> pa.Array:
    """The key of each row as a JSON array: ``[7]``, ``["a","2026-01-01"]``."""
    parts: list[pa.Array | str] = []
    for column in key_columns(schema, key):
        parts.append("," if parts else "[")
        parts.append(json_texts(table.column(column.name), column.type))
    return pc.binary_join_element_wise(*parts, "]", "")


def parse_entity(key_json: str, schema: Schema, key: Sequence[str]) -> pa.Table:
    """The key columns of one row from ``[7]``, ``["a",1]``; for a key of one column also from the
    bare value: ``7``, ``"a"``, ``a``. Raises ``invalid``."""
    columns = key_columns(schema, key)
    texts = _key_values(key_json, len(columns))
    if len(texts) != len(columns) or None in texts:
        raise _bad_entity(key_json, columns, "a key needs a value for each of its columns")
    arrays = []
    for column, text in zip(columns, texts, strict=True):
        try:
            arrays.append(from_json_texts(pa.array([text], pa.string()), column.type))
        except LakehouseError as error:
            raise _bad_entity(key_json, columns, "a key is not of its type") from error
    return pa.Table.from_arrays(arrays, schema=arrow_schema(Schema(schema.id, columns)))


def parse_entities(texts: Sequence[str], schema: Schema, key: Sequence[str]) -> pa.Table:
    """The key columns of rows from their ``entity_texts``. Raises ``invalid``."""
    columns = key_columns(schema, key)
    rows = [_key_values(text, len(columns)) for text in texts]
    for text, row in zip(texts, rows, strict=True):
        if len(row) != len(columns) or None in row:
            raise _bad_entity(text, columns, "a key needs a value for each of its columns")
    arrays = [
        from_json_texts(pa.array([row[at] for row in rows], pa.string()), column.type)
        for at, column in enumerate(columns)
    ]
    return pa.Table.from_arrays(arrays, schema=arrow_schema(Schema(schema.id, columns)))


class _Raw(str):
    """A JSON number, as it was written."""

    __slots__ = ()


def _key_values(key_json: str, count: int) -> list[str | None]:
    """The values as JSON texts; None for null and for what no key can have."""
    try:
        parsed = json.loads(key_json, parse_int=_Raw, parse_float=_Raw)
    except (ValueError, RecursionError):
        return [json.dumps(key_json)] if count == 1 else []
    values = parsed if isinstance(parsed, list) else [parsed]
    return [_key_text(value) for value in values]


def _key_text(value: object) -> str | None:
    if isinstance(value, _Raw):
        return str(value)
    return json.dumps(value) if isinstance(value, str | bool) else None


def _bad_entity(key_json: str, columns: Sequence[Column], message: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        message,
        given=key_json[:200],
        key=[column.name for column in columns],
        types=[column.type for column in columns],
        hint="write a key as a JSON array in the order of the primary key, as [7] or "
        '["a","2026-01-01"]',
    )


def key_hashes(rows: pa.Table | pa.RecordBatch, schema: Schema, key: Sequence[str]) -> pa.Array:
    """One hash a row (uint64) of its key; other columns do not count."""
    arrays = [flat(rows.column(name)) for name in key]
    batch = pa.RecordBatch.from_arrays(arrays, names=list(key))
    return hash_each(batch, Schema(schema.id, key_columns(schema, key)))


def match(left: pa.Table, right: pa.Table, key: Sequence[str]) -> pa.Array:
    """For each row of ``left`` the position (int64) of the row of ``right`` with its key, or null.

    ``right`` has each key once; of several, the first counts.
    """
    lefts, rights = _numbered(left, right, key)
    return pc.index_in(lefts, value_set=rights).cast(pa.int64())


def distinct(table: pa.Table, key: Sequence[str]) -> pa.Array:
    """A mask of the rows that are the first with their key."""
    _, values = _numbered(table, table, key)
    first = pc.index_in(values, value_set=values)
    return pc.equal(first, _positions(table.num_rows))


def duplicates(table: pa.Table, key: Sequence[str]) -> list[list[int]]:
    """Row numbers (from 0, rising) that share a key, a list for each key that is there twice."""
    _, values = _numbered(table, table, key)
    if pc.count_distinct(values, mode="all").as_py() == len(values):
        return []
    first = pc.index_in(values, value_set=values)
    again = pc.not_equal(first, _positions(len(values)))
    rows = pc.indices_nonzero(pc.is_in(first, value_set=pc.unique(first.filter(again))))
    groups: dict[int, list[int]] = {}
    for head, row in zip(first.take(rows).to_pylist(), rows.to_pylist(), strict=True):
        groups.setdefault(head, []).append(row)
    return list(groups.values())


def check_keys(table: pa.Table, schema: Schema, key: Sequence[str]) -> None:
    """Raise ``invalid``, naming rows (from 1), where a key is null or stands twice."""
    nulls = [name for name in key if table.column(name).null_count]
    if nulls:
        mask = pc.is_null(flat(table.column(nulls[0])))
        rows = pc.indices_nonzero(mask).slice(0, _NAMED_MAX).to_pylist()
        raise LakehouseError(
            ErrorKind.INVALID,
            "the key is null in some rows",
            key=list(key),
            columns=[*nulls],
            count=table.column(nulls[0]).null_count,
            rows=[row + 1 for row in rows],
            hint="give every row a key",
        )
    groups = duplicates(table, key)
    if groups:
        heads = entity_texts(table.take([group[0] for group in groups[:_NAMED_MAX]]), schema, key)
        named: list[FieldValue] = [
            {"key": text, "rows": [row + 1 for row in group[:_NAMED_MAX]]}
            for text, group in zip(heads.to_pylist(), groups, strict=False)
        ]
        raise LakehouseError(
            ErrorKind.INVALID,
            "a key stands twice in the batch",
            key=list(key),
            count=len(groups),
            duplicates=named,
            hint="a batch changes each row at most once: send later changes in the next batch",
        )


def _positions(count: int) -> pa.Array:
    return pc.subtract(pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int32()), count)), 1)


def _numbered(left: pa.Table, right: pa.Table, key: Sequence[str]) -> tuple[pa.Array, pa.Array]:
    """One column a side that is equal where the keys are; null on the left where no row of the
    right can be equal."""
    lefts, rights = flat(left.column(key[0])), flat(right.column(key[0]))
    for name in key[1:]:
        lefts, rights, _ = _codes(lefts, rights)
        more_left, more_right, size = _codes(flat(left.column(name)), flat(right.column(name)))
        lefts = pc.add(pc.multiply(lefts, size), more_left)
        rights = pc.add(pc.multiply(rights, size), more_right)
    return lefts, rights


def _codes(left: pa.Array, right: pa.Array) -> tuple[pa.Array, pa.Array, int]:
    """Values as numbers in [0, size) by the distinct values of ``right``."""
    values = pc.unique(right)
    codes = pc.index_in(right, value_set=values).cast(pa.int64())
    same = left is right
    numbered = codes if same else pc.index_in(left, value_set=values).cast(pa.int64())
    return numbered, codes, max(len(values), 1)
