"""Columns of vectors: what fits, bits and texts that come back, hashes, bounds of the type."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.errors import LakehouseError
from lakehouse.model.schema import Column, Schema
from lakehouse.table.cells import same
from lakehouse.table.codec import fit, guess_values
from lakehouse.table.infer import Guess, join
from lakehouse.table.rowhash import hash_each
from lakehouse.table.stats import file_stats
from lakehouse.table.types import arrow_schema, from_arrow, schema_from_arrow, stored, to_arrow
from lakehouse.table.values import from_json_texts, json_texts
from lakehouse.table.widening import may_widen, widened

NAN = float("nan")
THREE = to_arrow("vector(3)")
V = Schema(1, (Column(1, "v", "vector(3)"),))
ODD = pa.array(
    [[0.1, 2, -0.0], None, [NAN, float("inf"), -float("inf")], [1e-45, 3.4e38, 7]], THREE
)


@pytest.mark.parametrize("text", ["vector(1)", "vector(3)", "vector(8192)"])
def test_the_text_comes_back(text: str) -> None:
    assert from_arrow(to_arrow(text)) == text
    assert stored(to_arrow(text)) == to_arrow(text)


@pytest.mark.parametrize(
    "text", ["vector", "vector(0)", "vector(8193)", "vector(x)", "vector()", "list<vector(3)>"]
)
def test_others_are_no_vectors(text: str) -> None:
    with pytest.raises(LakehouseError):
        to_arrow(text)


@pytest.mark.parametrize(
    ("arrow", "text"),
    [
        (pa.list_(pa.float32(), 3), "vector(3)"),
        (pa.list_(pa.float16(), 3), "vector(3)"),
        (pa.list_(pa.field("x", pa.float32(), nullable=False), 2), "vector(2)"),
        (pa.list_(pa.float64(), 3), "list<float64>"),  # a float32 would lose digits
        (pa.list_(pa.int8(), 3), "list<int64>"),
        (pa.list_(pa.float32()), "list<float64>"),
        (pa.list_(pa.float32(), 0), "list<float64>"),
        (pa.list_(pa.float32(), 8193), "list<float64>"),
        (pa.struct([("a", pa.list_(pa.float32(), 3))]), "struct<a:list<float64>>"),
        (pa.list_(pa.list_(pa.float32(), 3)), "list<list<float64>>"),
        (pa.fixed_shape_tensor(pa.float32(), [4]), "vector(4)"),
    ],
)
def test_what_is_a_vector(arrow: pa.DataType, text: str) -> None:
    assert from_arrow(arrow) == text
    assert from_arrow(arrow, vectors=False) == text.replace(text, "list<float64>", text[0] == "v")


FITS: list[tuple[pa.Array, Any]] = [
    (pa.array([[1, 2, 3], None], pa.list_(pa.float64())), [[1, 2, 3], None]),
    (pa.array([None, [1, 2, 3]], pa.list_(pa.int64(), 3)), [None, [1, 2, 3]]),
    (pa.array([[1, 2, 3.5]], pa.large_list(pa.float32())), [[1, 2, 3.5]]),
    (pa.array([[1, 2, 3], None], pa.list_view(pa.float32())), [[1, 2, 3], None]),
    (pa.array([[1, 2, 3], None], pa.list_(pa.float16(), 3)), [[1, 2, 3], None]),
    (pa.array([[9, 9, 9], [1, 2, 3], None], THREE).slice(1), [[1, 2, 3], None]),
    (pa.nulls(2), [None, None]),
    (pa.array([], pa.list_(pa.float32())), []),
    (pa.array(["[1, 2,3e0]", None]), [[1, 2, 3], None]),
    (pa.array([[1, 2]], pa.list_(pa.float32())), None),
    (pa.array([[1, 2]], pa.list_(pa.float32(), 2)), None),
    (pa.array([[1, None, 3]], THREE), None),
    (pa.array([[1, None, 3]], pa.list_(pa.float64())), None),
    (pa.array([[1, 2, 1e300]], pa.list_(pa.float64())), None),
    (pa.array([["1", "2", "3"]]), None),
    (pa.array([1.5]), None),
    (pa.array(["[1,2]"]), None),
    (pa.array(["[1,2,null]"]), None),
    (pa.array(["[1,2,1e300]"]), None),
    (pa.array(["nothing"]), None),
]


@pytest.mark.parametrize(("values", "wanted"), FITS)
def test_what_fits(values: pa.Array, wanted: Any) -> None:
    found = fit(values, "vector(3)")
    if wanted is None:
        assert found is None
        return
    assert found is not None
    found.validate(full=True)
    assert (found.type, found.to_pylist()) == (THREE, wanted)


def test_doubles_are_rounded_and_infinities_kept() -> None:
    values = pa.array([[0.1, NAN, float("inf")]], pa.list_(pa.float64()))
    found = fit(values, "vector(3)")
    assert found is not None
    assert json_texts(found, "vector(3)").to_pylist() == ['[0.1,"NaN","Infinity"]']


def test_a_column_with_a_null_within_is_of_lists() -> None:
    lists = guess_values(pa.array([[1, None, 3]], THREE), texts_are_dates=False)
    vectors = guess_values(ODD, texts_are_dates=False)
    assert from_arrow(lists.type) == "list<float64>"
    assert from_arrow(vectors.type) == "vector(3)"
    for one, other in ((lists, vectors), (vectors, lists)):
        assert from_arrow(join(one, other).type) == "list<float64>"
    assert join(vectors, Guess()) == vectors


def test_texts_come_back_bit_for_bit() -> None:
    bits = pa.array([0x7FC00001, 0xFFC00000, 0x80000000], pa.uint32()).view(pa.float32())
    odd = pa.concat_arrays([ODD, pa.FixedSizeListArray.from_arrays(bits, type=THREE)])
    back = from_json_texts(json_texts(odd, "vector(3)"), "vector(3)")
    assert same(back, odd).to_pylist() == [True] * len(odd)
    seed = random.randrange(2**32)
    print("seed", seed)
    raw = random.Random(seed).randbytes(4 * 300)
    drawn = pa.Array.from_buffers(pa.float32(), 300, [None, pa.py_buffer(raw)])
    drawn = pa.FixedSizeListArray.from_arrays(drawn, type=THREE)
    back = from_json_texts(json_texts(drawn, "vector(3)"), "vector(3)")
    assert same(back, drawn).to_pylist() == [True] * 100


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_hashes_and_sameness_go_by_bits(size: int) -> None:
    kind = to_arrow(f"vector({size})")
    schema = Schema(1, (Column(1, "v", f"vector({size})"),))
    rows = [[float(at)] * size for at in range(5)]
    values = pa.array([rows[0], None, rows[1], rows[0], rows[2], rows[1]], kind)
    hashes = hash_each(pa.RecordBatch.from_arrays([values], names=["v"]), schema)
    assert hashes[0] == hashes[3]
    assert hashes[2] == hashes[5]
    assert len(set(hashes.to_pylist())) == 4
    part = pa.RecordBatch.from_arrays([values.slice(2)], names=["v"])
    assert hash_each(part, schema).to_pylist() == hashes.slice(2).to_pylist()
    turned = values.take(pa.array([3, 1, 2, 1, 0, 5]))
    assert same(values, turned).to_pylist() == [True, True, True, False, False, True]
    minus = pa.array([[-0.0] * size], kind)
    assert same(minus, values.slice(0, 1)).to_pylist() == [False]


def test_hashes_are_those_of_this_release() -> None:
    """Files in the field have them written beside them."""
    batch = pa.RecordBatch.from_arrays([pa.array([[1, 2, 3], [4, 5, 6]], THREE)], names=["v"])
    assert hash_each(batch, V).to_pylist() == GOLDEN_ODD
    four = pa.RecordBatch.from_arrays(
        [pa.array([[1, 2, 3, 4], [4, 5, 6, 7]], to_arrow("vector(4)"))], names=["v"]
    )
    schema = Schema(1, (Column(1, "v", "vector(4)"),))
    assert hash_each(four, schema).to_pylist() == GOLDEN_EVEN


GOLDEN_ODD = [7772243011539745700, 897962894514309524]
GOLDEN_EVEN = [17598884903742289829, 9485816028573148298]


def test_files_have_no_bounds_of_them() -> None:
    table = pa.Table.from_arrays([ODD], schema=arrow_schema(V))
    (found,) = file_stats(table, V)
    assert (found.null_count, found.minimum, found.maximum) == (1, None, None)


def test_lists_of_before_stay_lists() -> None:
    """A registered file of lists of one size, in a dataset that knows the column as a list."""
    schema = pa.schema([("v", THREE)])
    assert schema_from_arrow(schema).columns[0].type == "vector(3)"
    assert schema_from_arrow(schema, vectors=False).columns[0].type == "list<float64>"
    values = pa.array([[1, None, 3], None], THREE)
    assert widened(values, "list<float64>").to_pylist() == [[1, None, 3], None]
    assert may_widen("vector(3)", "string")
    assert widened(ODD.slice(0, 2), "string").to_pylist() == ["[0.1,2.0,-0.0]", None]
    assert not may_widen("list<float64>", "vector(3)")
