"""Row changes in a worker: read once, resolved, and joined by engines that still read little."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd import deltas
from lakehouse.queryd.adapters.datafusion import DataFusionEngine
from lakehouse.queryd.adapters.duckdb import DuckDbEngine
from lakehouse.queryd.deltas import Deltas
from lakehouse.queryd.plan import LayerGroup, Merge, ScanColumn, ScanGroup, TableScan
from lakehouse.queryd.ports import SqlEngine
from lakehouse.table.types import to_arrow
from lakehouse.table.widening import widened

MEMORY = 256 << 20
COLUMNS = (
    ScanColumn("id", "id", "int64"),
    ScanColumn("part", "part", "string"),
    ScanColumn("name", "name", "string"),
)
KEY = COLUMNS[:2]


@pytest.fixture(params=[DuckDbEngine, DataFusionEngine])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> SqlEngine:
    return request.param(2, str(tmp_path / "spill"), 1 << 20)


def put(path: Path, table: pa.Table) -> str:
    pq.write_table(table, path, row_group_size=1000)
    return str(path)


def changed(folder: Path, rows: int = 20_000) -> TableScan:
    """A base of many rows, of which three are changed or gone."""
    ids = list(range(rows))
    names = [f"person {n}" for n in ids]
    base = pa.table({"id": ids, "part": ["a"] * rows, "name": names})
    keys = pa.table({"id": [5, 7], "part": ["a", "a"]})
    more = pa.table({"id": [7, 9], "part": ["a", "z"]})
    new = pa.table({"id": [5, 9], "part": ["a", "z"], "name": ["new 5", "passing"]})
    files = {name: put(folder / name, table) for name, table in
             (("b", base), ("k2", keys), ("k3", more), ("r2", new))}  # fmt: skip
    merge = Merge(
        ("id", "part"),
        (LayerGroup((files["k2"], files["k3"]), (2, 3), KEY),),
        (LayerGroup((files["r2"],), (2,), COLUMNS),),
    )
    return TableScan("t", COLUMNS, (ScanGroup((files["b"],), COLUMNS, 0),), rows, merge)


def ask(engine: SqlEngine, sql: str, scan: TableScan) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = engine.execute(sql, (scan,), MEMORY).read_all().to_pylist()
    return found


def test_a_base_and_its_changes_are_one_relation(engine: SqlEngine, tmp_path: Path) -> None:
    scan = changed(tmp_path)
    found = ask(engine, 'select "id", "name" from "t" where "id" < 10 order by 1', scan)
    assert [(row["id"], row["name"]) for row in found] == [
        *((n, f"person {n}") for n in range(5)),
        (5, "new 5"),
        (6, "person 6"),
        (8, "person 8"),
        (9, "person 9"),
    ]
    assert ask(engine, 'select count(*) as n from "t"', scan) == [{"n": 19_999}]
    assert ask(engine, 'select "name" from "t" where "part" = \'z\'', scan) == []


def test_columns_and_conditions_reach_the_base_and_the_tombstones_are_what_is_held(
    engine: SqlEngine, tmp_path: Path
) -> None:
    sql = 'select "name" from "t" where "id" < 15000'
    assert len(ask(engine, sql, changed(tmp_path))) == 14_999
    told = ask(engine, f"explain {sql}", changed(tmp_path))
    plan = "\n".join(str(value) for row in told for value in row.values())
    if isinstance(engine, DuckDbEngine):
        read = plan[plan.index("Read Parquet") :]
        assert "id < 15000" in read
        assert "Join Type: ANTI" in plan  # its right side is held, the left one streams
        assert plan.index("Read Parquet") < plan.index("t_tombs")
    else:
        scanned = next(line for line in plan.splitlines() if "file_type=parquet" in line)
        assert "predicate=id" in scanned
        assert "projection=[id, part, name]" in scanned
        assert "Anti" in plan
    whole = ask(engine, 'explain select count(*) from "t"', changed(tmp_path))
    plan = "\n".join(str(value) for row in whole for value in row.values())
    if isinstance(engine, DataFusionEngine):
        assert "mode=CollectLeft, join_type=RightAnti" in plan
        scanned = next(line for line in plan.splitlines() if "file_type=parquet" in line)
        assert "projection=[id, part]," in scanned


def test_a_file_is_read_once_and_few_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = changed(tmp_path)
    assert scan.merge is not None
    read: list[str] = []
    real = deltas.read_file
    monkeypatch.setattr(
        deltas, "read_file", lambda path, cols: read.append(path) or real(path, cols)
    )
    kept = Deltas()
    first = kept.resolved(scan.merge, scan.columns)
    assert (first.rows.num_rows, first.tombs.num_rows) == (1, 3)
    assert first.tombs.column_names == ["k0", "k1", "s"]
    assert sorted(zip(*first.tombs.to_pydict().values(), strict=True)) == [
        (5, "a", 2), (7, "a", 3), (9, "z", 3),
    ]  # fmt: skip
    kept.resolved(scan.merge, scan.columns)
    assert len(read) == 3
    small = Deltas(bytes_max=1)
    small.resolved(scan.merge, scan.columns)
    small.resolved(scan.merge, scan.columns)
    assert len(read) == 9


WIDENED: tuple[tuple[str, str, list[Any], list[Any]], ...] = (
    ("int64", "string", [-7, None, 2**63 - 1], ["-7", None, "9223372036854775807"]),
    ("uint64", "string", [2**64 - 1, None], ["18446744073709551615", None]),
    ("int64", "decimal(21,2)", [-7, None], [Decimal("-7.00"), None]),
    ("decimal(4,1)", "decimal(8,3)", [Decimal("1.5"), None], [Decimal("1.500"), None]),
    ("date", "timestamp", [date(2026, 3, 1), None], [datetime(2026, 3, 1), None]),
    ("date", "string", [date(2026, 3, 1), None], ["2026-03-01", None]),
    ("bool", "string", [True, False, None], ["true", "false", None]),
    ("float64", "string", [1.0, 1e300, -0.5, None], None),
    ("decimal(9,8)", "string", [Decimal("0.00000001"), Decimal("1.50000000"), None], None),
    ("timestamp", "string", [datetime(2026, 3, 1, 1, 2, 3, 4), None], None),
    ("time", "string", [datetime(2026, 3, 1, 1, 2, 3).time(), None], None),
    ("list<int64>", "string", [[1, None], None, []], None),
)  # type: ignore[assignment]


@pytest.mark.parametrize(("old", "new", "values", "wanted"), WIDENED)
def test_widened_columns_are_the_same_everywhere(
    engine: SqlEngine, tmp_path: Path, old: str, new: str, values: list[Any], wanted: list[Any]
) -> None:
    written = pa.array(values, to_arrow(old))
    same = widened(written, new)
    if wanted is not None:
        assert same.to_pylist() == wanted
    path = put(tmp_path / "old", pa.table({"v": written, "n": list(range(len(values)))}))
    columns = (ScanColumn("v", "w", new, old), ScanColumn("n", "n", "int64"))
    large = TableScan("large", columns, (ScanGroup((path,), columns),), 1_000_000)
    merge = Merge((), (), (LayerGroup((path,), (1,), columns),))
    small = TableScan("small", columns, (), 3, merge)
    for scan in (large, small):
        found = ask(engine, f'select "w" from "{scan.name}" order by "n"', scan)
        assert [row["w"] for row in found] == same.to_pylist()


def test_a_file_that_is_not_what_the_plan_says_is_told_as_such(
    engine: SqlEngine, tmp_path: Path
) -> None:
    (tmp_path / "bad").write_bytes(b"PAR1 and then nothing")
    other = put(tmp_path / "other", pa.table({"x": [1]}))
    for path in (str(tmp_path / "bad"), str(tmp_path / "gone"), other):
        merge = Merge((), (), (LayerGroup((path,), (1,), COLUMNS),))
        scan = TableScan(f"t{len(path)}", COLUMNS, (), 1, merge)
        with pytest.raises(LakehouseError) as caught:
            ask(engine, f'select * from "{scan.name}"', scan)
        assert caught.value.kind is ErrorKind.UNAVAILABLE
        assert str(tmp_path) not in str(caught.value.fields)


def test_sessions_and_tables_with_many_row_changes_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.queryd.adapters.duckdb.SESSIONS_BYTES_MAX", 1)
    monkeypatch.setattr("lakehouse.queryd.adapters.datafusion.TABLES_BYTES_MAX", 1)
    duck, fusion = (
        kind(1, str(tmp_path / "spill"), 1 << 20) for kind in (DuckDbEngine, DataFusionEngine)
    )
    scan = changed(tmp_path, 100)
    for index in range(3):
        for engine in (duck, fusion):
            one = replace(scan, name=f"t{index}")
            assert ask(engine, f'select count(*) n from "{one.name}"', one) == [{"n": 99}]
    assert (len(duck._sessions), len(fusion._tables)) == (1, 1)
