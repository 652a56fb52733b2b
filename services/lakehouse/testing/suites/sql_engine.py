"""What every SqlEngine must do, whoever implements it. The guard in front of it is not used here:
an engine must refuse on its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd.plan import ScanColumn, ScanGroup, TableScan
from lakehouse.queryd.ports import SqlEngine

MEMORY: Final = 256 << 20
CANARY: Final = "canary-7f3a1c"

# {canary} is a file that no scan grants; {other} a Parquet file that no scan grants.
MUST_REFUSE: Final = (
    "select * from read_csv('{canary}')",
    "select * from read_csv_auto('{canary}')",
    "select * from read_text('{canary}')",
    "select * from read_blob('{canary}')",
    "select * from read_json('{canary}')",
    "select * from read_parquet('{other}')",
    "select * from parquet_scan('{other}')",
    "select * from '{canary}'",
    "select * from '{other}'",
    "select * from glob('{folder}/*')",
    "copy (select 1) to '{folder}/out.csv'",
    "copy t to '{folder}/out.parquet'",
    "attach '{folder}/x.db' as x",
    "create table x as select 1",
    "create external table x stored as csv location '{canary}'",
    "create view v as select 1",
    "insert into t values (1)",
    "delete from t",
    "update t set a = 1",
    "drop view t",
    "set memory_limit = '10GB'",
    "set datafusion.execution.batch_size = 1",
    "pragma database_list",
    "install httpfs",
    "load httpfs",
    "call pragma_version()",
    "export database '{folder}'",
    "select getenv('HOME')",
    "select 1; select 2",
    "begin transaction",
    "checkpoint",
)


def scan(name: str, *paths: Path, columns: tuple[tuple[str | None, str, str], ...]) -> TableScan:
    """A scan of one group of files."""
    made = tuple(ScanColumn(*column) for column in columns)
    return TableScan(name, made, (ScanGroup(tuple(str(path) for path in paths), made),))


def rows(
    engine: SqlEngine, sql: str, *tables: TableScan, memory_bytes: int = MEMORY
) -> list[dict[str, object]]:
    """All rows of a statement."""
    reader = engine.execute(sql, tables, memory_bytes)
    try:
        return [dict(row) for row in reader.read_all().to_pylist()]
    except Exception as error:
        raise engine.translate(error) from error


class SqlEngineSuite:
    """Derive a test class and give it a fixture ``engine``."""

    def test_it_reads_the_files_it_was_given_and_no_other(
        self, engine: SqlEngine, tmp_path: Path
    ) -> None:
        for index in range(4):
            pq.write_table(pa.table({"a": [index]}), tmp_path / f"{index}.parquet")
        table = scan(
            "t", tmp_path / "0.parquet", tmp_path / "2.parquet", columns=(("a", "a", "int64"),)
        )
        assert rows(engine, 'select "a" from "t" order by "a"', table) == [{"a": 0}, {"a": 2}]

    def test_a_path_may_have_any_character(self, engine: SqlEngine, tmp_path: Path) -> None:
        path = tmp_path / "it's [a] {b} * ? %20 é"
        pq.write_table(pa.table({"a": [1]}), path)
        table = scan("t", path, columns=(("a", "a", "int64"),))
        assert rows(engine, 'select "a" from "t"', table) == [{"a": 1}]

    def test_a_scan_without_files_has_columns_and_no_rows(self, engine: SqlEngine) -> None:
        columns = (ScanColumn("a", "a", "int64"), ScanColumn("s", "s", "list<string>"))
        reader = engine.execute('select * from "t"', (TableScan("t", columns, ()),), MEMORY)
        found = reader.read_all()
        assert found.num_rows == 0
        assert found.column_names == ["a", "s"]

    @pytest.mark.parametrize(
        "kind",
        ["string", "bool", "int64", "uint64", "float64", "date", "time", "timestamp", "timestamptz",
         "binary", "decimal(12,3)", "list<int64>", "vector(3)"],
    )  # fmt: skip
    def test_a_column_that_a_file_lacks_is_null(
        self, engine: SqlEngine, tmp_path: Path, kind: str
    ) -> None:
        pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
        table = scan(
            "t", tmp_path / "x.parquet", columns=(("a", "a", "int64"), (None, "late", kind))
        )
        assert rows(engine, 'select * from "t"', table) == [{"a": 1, "late": None}]

    def test_what_passes_is_read_anew(self, engine: SqlEngine, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": [1, 2, 3]}), tmp_path / "x.parquet")
        table = scan("t", tmp_path / "x.parquet", columns=(("a", "a", "int64"),))
        for value in (1, 3, 2):
            vectors = pa.array([[value, 0.5]], pa.list_(pa.float32(), 2))
            path = tmp_path / f"{value}.parquet"
            pq.write_table(pa.table({"A": [value], "v": vectors}), path)
            columns = (("A", "a", "int64"), ("v", "v", "vector(2)"))
            passing = replace(scan(f"p{value}", path, columns=columns), passing=True)
            sql = f'select t."a", p."v" from "t" as t join "p{value}" as p on t."a" = p."a"'
            assert rows(engine, sql, table, passing) == [{"a": value, "v": [value, 0.5]}]
            assert rows(engine, 'select count(*) as n from "t"', table) == [{"n": 3}]

    def test_columns_are_mapped_by_the_scan_and_not_by_name(
        self, engine: SqlEngine, tmp_path: Path
    ) -> None:
        pq.write_table(pa.table({"old": [1], "a": ["dropped"]}), tmp_path / "x.parquet")
        pq.write_table(pa.table({"a": [2]}), tmp_path / "y.parquet")
        first = (ScanColumn("old", "a", "int64"),)
        second = (ScanColumn("a", "a", "int64"),)
        groups = (
            ScanGroup((str(tmp_path / "x.parquet"),), first),
            ScanGroup((str(tmp_path / "y.parquet"),), second),
        )
        table = TableScan("t", second, groups)
        assert rows(engine, 'select "a" from "t" order by "a"', table) == [{"a": 1}, {"a": 2}]

    def test_narrow_types_are_read_as_the_logical_ones(
        self, engine: SqlEngine, tmp_path: Path
    ) -> None:
        narrow = pa.table({"i": pa.array([1], pa.int16()), "f": pa.array([0.5], pa.float32())})
        pq.write_table(narrow, tmp_path / "x.parquet")
        table = scan(
            "t", tmp_path / "x.parquet", columns=(("i", "i", "int64"), ("f", "f", "float64"))
        )
        found = engine.execute('select "i", "f" from "t"', (table,), MEMORY).read_all()
        assert found.schema.types == [pa.int64(), pa.float64()]

    def test_bytes_are_bytes(self, engine: SqlEngine, tmp_path: Path) -> None:
        pq.write_table(pa.table({"b": [b"\x00\xff"]}), tmp_path / "x.parquet")
        table = scan("t", tmp_path / "x.parquet", columns=(("b", "b", "binary"),))
        assert rows(engine, 'select "b" from "t"', table) == [{"b": b"\x00\xff"}]

    def test_a_failing_statement_is_an_error_of_ours(self, engine: SqlEngine) -> None:
        with pytest.raises(LakehouseError) as caught:
            rows(engine, "select 1 / (select 0)")
        assert caught.value.kind is ErrorKind.INVALID
        assert caught.value.message == "division by zero"

    def test_more_memory_than_granted_is_exhausted(self, engine: SqlEngine) -> None:
        sql = (
            "select array_agg(md5(cast(a.n * b.n as varchar))) from"
            " (select unnest(range(0, 3000)) n) a, (select unnest(range(0, 3000)) n) b"
        )
        with pytest.raises(LakehouseError) as caught:
            rows(engine, sql, memory_bytes=32 << 20)
        assert caught.value.kind is ErrorKind.EXHAUSTED
        assert caught.value.http_status == 422

    @pytest.mark.parametrize("statement", MUST_REFUSE)
    def test_it_refuses_by_itself(self, engine: SqlEngine, tmp_path: Path, statement: str) -> None:
        folder = tmp_path / "private"
        folder.mkdir()
        (folder / "canary.csv").write_text(f"secret\n{CANARY}\n")
        pq.write_table(pa.table({"secret": [CANARY]}), folder / "other.parquet")
        pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
        table = scan("t", tmp_path / "t.parquet", columns=(("a", "a", "int64"),))
        sql = statement.format(
            canary=folder / "canary.csv", other=folder / "other.parquet", folder=folder
        )
        before = sorted(folder.iterdir())
        with pytest.raises(LakehouseError) as caught:
            rows(engine, sql, table)
        assert CANARY not in f"{caught.value} {caught.value.fields}"
        assert sorted(folder.iterdir()) == before
        assert rows(engine, 'select "a" from "t"', table) == [{"a": 1}]

    def test_one_query_leaves_nothing_to_the_next(self, engine: SqlEngine, tmp_path: Path) -> None:
        pq.write_table(pa.table({"a": [1]}), tmp_path / "x.parquet")
        table = scan("t_first", tmp_path / "x.parquet", columns=(("a", "a", "int64"),))
        assert rows(engine, 'select * from "t_first"', table) == [{"a": 1}]
        pq.write_table(pa.table({"a": [2]}), tmp_path / "y.parquet")
        other = scan("t_second", tmp_path / "y.parquet", columns=(("a", "a", "int64"),))
        assert rows(engine, 'select * from "t_second"', other) == [{"a": 2}]
        with pytest.raises(LakehouseError):
            rows(engine, 'select * from "t_third"', other)
