"""Any Arrow type, in any nesting, as Parquet and Arrow: its values, their text, or ``invalid``."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from support_ingest import build_lake

SEED = 20
SHAPES = 70

LEAVES: dict[str, Callable[[], pa.Array]] = {
    "null": lambda: pa.nulls(3),
    "bool": lambda: pa.array([True, None, False]),
    "uint8": lambda: pa.array([1, None, 255], pa.uint8()),
    "uint64": lambda: pa.array([1, None, 2**64 - 1], pa.uint64()),
    "float16": lambda: pa.array([1.5, None, 2.5], pa.float16()),
    "float32": lambda: pa.array([1.5, None, float("nan")], pa.float32()),
    "string": lambda: pa.array(["a", None, "é"], pa.string()),
    "large_string": lambda: pa.array(["a", None, "b"], pa.large_string()),
    "string_view": lambda: pa.array(["a", None, "b"], pa.string_view()),
    "binary": lambda: pa.array([b"\xff", None, b"b"], pa.binary()),
    "large_binary": lambda: pa.array([b"a", None, b"b"], pa.large_binary()),
    "binary_view": lambda: pa.array([b"a", None, b"b"], pa.binary_view()),
    "fixed_binary": lambda: pa.array([b"ab", None, b"cd"], pa.binary(2)),
    "date32": lambda: pa.array([1, None, 2], pa.date32()),
    "date64": lambda: pa.array([86_400_000, None, 0], pa.date64()),
    "time32": lambda: pa.array([1, None, 2], pa.time32("s")),
    "time_ns": lambda: pa.array([1001, None, 2000], pa.time64("ns")),
    "stamp_s": lambda: pa.array([1, None, 2], pa.timestamp("s")),
    "stamp_s_far": lambda: pa.array([2**60, None, 2], pa.timestamp("s")),
    "stamp_ns": lambda: pa.array([1001, None, 2000], pa.timestamp("ns")),
    "stamp_tz": lambda: pa.array([1001, None, 2], pa.timestamp("ns", "Asia/Tokyo")),
    "duration_s": lambda: pa.array([1, None, 2], pa.duration("s")),
    "duration_ns": lambda: pa.array([1001, None, 2], pa.duration("ns")),
    "interval": lambda: pa.array([(1, -2, -3), None, (0, 0, 1)], pa.month_day_nano_interval()),
    "decimal32": lambda: pa.array([1, None, 2], pa.int32()).cast(pa.decimal128(12, 2)),
    "decimal256": lambda: pa.array([1, None, 2], pa.int64()).cast(pa.decimal256(76, 3)),
    "dictionary": lambda: pa.array(["a", None, "a"]).dictionary_encode(),
    "dictionary_ns": lambda: pa.array([1001, None, 1], pa.timestamp("ns")).dictionary_encode(),
    "run_end": lambda: pa.RunEndEncodedArray.from_arrays([1, 3], pa.array([5, None])),
    "union": lambda: pa.UnionArray.from_sparse(
        pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]
    ),
    "empty_struct": lambda: pa.array([{}, None, {}], pa.struct([])),
}


def _wrapped(values: pa.Array, how: str) -> pa.Array:
    offsets = pa.array([0, 1, 1, 3], pa.int32())
    wide = offsets.cast(pa.int64())
    match how:
        case "struct":
            return pa.StructArray.from_arrays([values], names=["x"])
        case "twice":
            return pa.StructArray.from_arrays([values, values], names=["x", "x"])
        case "list":
            return pa.ListArray.from_arrays(offsets, values)
        case "large_list":
            return pa.LargeListArray.from_arrays(wide, values)
        case "list_view":
            sizes = pa.array([1, 0, 2], pa.int32())
            return pa.ListViewArray.from_arrays(offsets[:3], sizes, values)
        case "fixed_list":
            return pa.FixedSizeListArray.from_arrays(values, 1)
        case _:
            return pa.MapArray.from_arrays(offsets, pa.array(["k", "l", "m"]), values)


WRAPS = ("struct", "twice", "list", "large_list", "list_view", "fixed_list", "map")


def _bodies(values: pa.Array) -> dict[str, bytes]:
    table = pa.table({"id": pa.array([1, 2, 3]), "v": values})
    stream, file, parquet = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    bodies = {"stream": stream.getvalue(), "file": file.getvalue()}
    try:
        pq.write_table(table, parquet)
        bodies["parquet"] = parquet.getvalue()
    except (pa.ArrowException, ValueError):
        pass  # a type that Parquet does not have
    return bodies


def _shapes() -> list[tuple[str, pa.Array]]:
    shapes = [(name, make()) for name, make in LEAVES.items()]
    chosen = random.Random(SEED)
    for _ in range(SHAPES):
        name = chosen.choice(list(LEAVES))
        values = LEAVES[name]()
        for _ in range(chosen.randint(1, 2)):
            how = chosen.choice(WRAPS)
            values, name = _wrapped(values, how), f"{how}<{name}>"
        shapes.append((name, values))
    return shapes


async def test_every_type_is_kept_or_refused(tmp_path: Path) -> None:
    lake = await build_lake(tmp_path)
    print("seed", SEED)
    kept = 0
    refused: list[tuple[str, str, ErrorKind]] = []
    try:
        for at, (name, values) in enumerate(_shapes()):
            for form, body in _bodies(values).items():
                dataset = f"t{at}_{form}"
                try:
                    report = await lake.put(body, dataset)
                except LakehouseError as error:
                    refused.append((name, form, error.kind))
                    continue
                rows = await lake.rows(dataset)
                assert report.rows == len(rows) == 3, (name, form)
                for row, value in zip(rows, values, strict=True):
                    gone = row["v"] is None
                    # A union has no nulls of its own.
                    assert gone == (not value.is_valid), (name, form, row)
                kept += 1
    finally:
        await lake.close()
    assert {kind for _, _, kind in refused} == {ErrorKind.INVALID}
    assert all("union" in name or "far" in name for name, _, _ in refused), refused
    assert kept > SHAPES


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (
            pa.array(
                [{"t": 1001, "n": 1}, None],
                pa.struct([("t", pa.timestamp("ns")), ("n", pa.int8())]),
            ),
            ['{"t":"1970-01-01 00:00:00.000001001","n":1}', None],
        ),
        (pa.array([[1001, None]], pa.list_(pa.time64("ns"))), ['["00:00:00.000001001",null]']),
        (pa.array([(1, 2, -3)], pa.month_day_nano_interval()), ["P1M2DT-0.000000003S"]),
        (
            pa.array([[b"\xff"]], pa.list_(pa.binary())).cast(pa.list_(pa.binary())),
            [[b"\xff"]],
        ),
        (
            pa.array([[(1001, b"\xff")]], pa.map_(pa.timestamp("ns"), pa.binary())),
            ['[["1970-01-01 00:00:00.000001001","/w=="]]'],
        ),
        (pa.array([{}, None], pa.struct([])), ["{}", None]),
        (pa.array([1_500_000_001], pa.duration("ns")), ["PT1.500000001S"]),
        (pa.array([[("k", 2)]], pa.map_(pa.string(), pa.duration("s"))), [[("k", 2_000_000)]]),
        (
            pa.StructArray.from_arrays([pa.array([1]), pa.array(["b"])], names=["x", "x"]),
            ['{"x":1,"x":"b"}'],
        ),
        (
            pa.array([[1_000_000_000]], pa.list_(pa.timestamp("ns"))),
            [[datetime(1970, 1, 1, 0, 0, 1)]],
        ),
    ],
)
async def test_what_no_type_holds_is_json_text(
    tmp_path: Path, values: pa.Array, texts: list[object]
) -> None:
    lake = await build_lake(tmp_path)
    try:
        table = pa.table({"v": values})
        stream = io.BytesIO()
        with pa.ipc.new_stream(stream, table.schema) as writer:
            writer.write_table(table)
        await lake.put(stream.getvalue())
        assert [row["v"] for row in await lake.rows()] == texts
    finally:
        await lake.close()
