"""Values as JSON texts and back: the same bits for every type, however nested and sliced."""

from __future__ import annotations

import json
import random
import struct
from decimal import Decimal, localcontext
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.model.schema import Column, Schema
from lakehouse.table.cells import same
from lakehouse.table.rowhash import hash_each
from lakehouse.table.types import arrow_schema, to_arrow
from lakehouse.table.values import from_json_texts, json_texts, rows_json

SEEDS = range(60)
ROWS = 24
WHOLE = ["string", "bool", "int64", "uint64", "float64", "date", "time", "timestamp", "binary"]
SIMPLE = [*WHOLE, "timestamptz", *(f"decimal({of})" for of in ("1,0", "12,4", "38,38", "76,30"))]
TEXTS = [
    "",
    "a",
    "null",
    "true",
    "7",
    '"',
    "\\",
    "\\n",
    "\n\t\r",
    "\x00\x1f\x7f",
    "é",
    "\U0001f600",
]
TEXTS += ["\u2028", " a ", "[1]", '{"a":1}', "NaN", "1e5", "x" * 300]
FLOAT_BITS = [
    0,
    1 << 63,
    1,
    0x7FF << 52,
    0xFFF << 52,
    0x7FF8 << 48,
    0xFFF8 << 48,
    (0x7FF8 << 48) | 7,
]


def random_type(rng: random.Random, depth: int) -> str:
    if depth == 0 or rng.random() < 0.5:
        return rng.choice(SIMPLE)
    inner = [random_type(rng, depth - 1) for _ in range(3)]
    if rng.random() < 0.3:
        return f"list<{inner[0]}>"
    if rng.random() < 0.5:
        return f'struct<a:{inner[0]},"odd, \\"n":{inner[1]},"é":{inner[2]}>'
    return f"map<{rng.choice(SIMPLE)},{inner[0]}>"


def random_integer(rng: random.Random, bits: int) -> int:
    """Near zero, near the ends, anywhere: in the range of ``bits`` with a sign."""
    end = 1 << (bits - 1)
    near = rng.choice([0, end - 1, -end, 10**6, 86_400_000_000])
    value = near + rng.randint(-3, 3) if rng.random() < 0.6 else rng.randint(-end, end - 1)
    return max(-end, min(end - 1, value))


def random_value(rng: random.Random, arrow: pa.DataType, nullable: bool = True) -> Any:
    if nullable and rng.random() < 0.15:
        return None
    kind = str(arrow)
    if pa.types.is_map(arrow):
        pairs = range(rng.randint(0, 3))
        return [
            (random_value(rng, arrow.key_type, False), random_value(rng, arrow.item_type))
            for _ in pairs
        ]
    if pa.types.is_list(arrow):
        return [random_value(rng, arrow.value_type) for _ in range(rng.randint(0, 3))]
    if pa.types.is_struct(arrow):
        return {field.name: random_value(rng, field.type) for field in arrow.fields}
    if kind == "string":
        return rng.choice(TEXTS)
    if kind == "binary":
        return rng.randbytes(rng.randint(0, 5))
    if kind == "bool":
        return rng.random() < 0.5
    if kind == "double":
        raw = rng.choice([*FLOAT_BITS, rng.getrandbits(64)])
        return struct.unpack("<d", struct.pack("<Q", raw))[0]
    if kind == "uint64":
        return rng.choice([0, 2**64 - 1, 2**53 + 1, rng.getrandbits(64)])
    if pa.types.is_decimal(arrow):
        digits = rng.randint(1, arrow.precision)
        with localcontext() as exact:
            exact.prec = 100
            value = Decimal(rng.randint(-(10**digits) + 1, 10**digits - 1))
            return value.scaleb(-arrow.scale)
    if kind == "time64[us]":
        return rng.choice([0, 1, 86_399_999_999, rng.randrange(86_400_000_000)])
    return random_integer(rng, 32 if kind == "date32[day]" else 64)


@pytest.mark.parametrize("seed", SEEDS)
def test_values_come_back_bit_for_bit(seed: int) -> None:
    rng = random.Random(seed)
    kind = SIMPLE[seed] if seed < len(SIMPLE) else random_type(rng, 3)
    whole = pa.array([random_value(rng, to_arrow(kind)) for _ in range(ROWS)], to_arrow(kind))
    schema = Schema(1, (Column(3, "v", kind),))
    for values in (whole, whole.slice(5), whole.slice(3, 7), whole.slice(0, 0)):
        texts = json_texts(values, kind)
        again = from_json_texts(texts, kind)
        again.validate(full=True)
        assert again.type == values.type
        assert same(values, again).to_pylist() == [True] * len(values), kind
        assert texts.null_count == values.null_count
        assert json_texts(again, kind).equals(texts)
        for text in texts.drop_null().to_pylist():
            json.loads(text)
        batches = [
            pa.RecordBatch.from_arrays([each], schema=arrow_schema(schema))
            for each in (values, again)
        ]
        assert hash_each(batches[0], schema).equals(hash_each(batches[1], schema))


@pytest.mark.parametrize("seed", SEEDS)
def test_cells_are_the_same_where_their_texts_are(seed: int) -> None:
    rng = random.Random(seed)
    kind = random_type(rng, 3)
    left = [random_value(rng, to_arrow(kind)) for _ in range(ROWS)]
    right = [value if rng.random() < 0.5 else random_value(rng, to_arrow(kind)) for value in left]
    arrays = [pa.array(values, to_arrow(kind)).slice(2) for values in (left, right)]
    texts = [json_texts(values, kind).to_pylist() for values in arrays]
    wanted = [one == other for one, other in zip(*texts, strict=True)]
    assert same(*arrays).to_pylist() == wanted, kind


@pytest.mark.parametrize("seed", SEEDS)
def test_rows_for_clients_are_json(seed: int) -> None:
    rng = random.Random(seed)
    kinds = [random_type(rng, 2) for _ in range(3)]
    schema = Schema(1, tuple(Column(at, f'c"{at}', kind) for at, kind in enumerate(kinds, 1)))
    rows = [
        {column.name: random_value(rng, to_arrow(column.type)) for column in schema.columns}
        for _ in range(ROWS)
    ]
    table = pa.Table.from_pylist(rows, schema=arrow_schema(schema))
    for text in rows_json(table, schema).to_pylist():
        value = json.loads(text, parse_constant=lambda name: pytest.fail(name))
        assert list(value) == list(schema.names())
        assert no_wide_integer(value)


def no_wide_integer(value: Any) -> bool:
    if isinstance(value, dict):
        return all(no_wide_integer(item) for item in value.values())
    if isinstance(value, list):
        return all(no_wide_integer(item) for item in value)
    return not isinstance(value, int) or abs(value) <= 2**53
