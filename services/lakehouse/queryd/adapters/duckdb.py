"""DuckDB behind the SqlEngine port: in memory, no file but the granted ones, locked settings."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import duckdb
import pyarrow as pa

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.queryd.adapters.engine_errors import engine_error
from lakehouse.queryd.adapters.merging import is_widened, quoted, rows_name, tombs_name
from lakehouse.queryd.deltas import (
    AFTER,
    Deltas,
    WidenedFiles,
    key_names,
    read_file,
    schema_of,
)
from lakehouse.queryd.plan import Merge, ScanColumn, ScanGroup, TableScan
from lakehouse.table.types import to_arrow

BATCH_ROWS: Final = 16_384
SESSIONS_MAX: Final = 8
SESSIONS_BYTES_MAX: Final = 128 << 20  # of the row changes that they hold
STATEMENTS_MAX: Final = 64
# Small relations are copied into memory when a session opens: looking into the footers of their
# files takes longer than most queries on them.
COPY_ROWS_MAX: Final = 10_000
COPY_BYTES_MAX: Final = 1 << 20
_SIMPLE_TYPES: Final = {
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "int64": "BIGINT",
    "uint64": "UBIGINT",
    "float64": "DOUBLE",
    "date": "DATE",
    "time": "TIME",
    "timestamp": "TIMESTAMP",
    "timestamptz": "TIMESTAMPTZ",
    "binary": "BLOB",
}


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def sql_type(kind: pa.DataType) -> str:
    """DuckDB's name of an Arrow type of ``table.types``."""
    if pa.types.is_decimal(kind):
        return f"DECIMAL({min(kind.precision, 38)},{kind.scale})"
    if pa.types.is_map(kind):
        return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    if pa.types.is_fixed_size_list(kind):
        return f"FLOAT[{kind.list_size}]"
    if pa.types.is_list(kind):
        return sql_type(kind.value_type) + "[]"
    if pa.types.is_struct(kind):
        inner = ", ".join(f"{quoted(field.name)} {sql_type(field.type)}" for field in kind.fields)
        return f"STRUCT({inner})"
    from lakehouse.table.types import from_arrow

    return _SIMPLE_TYPES[from_arrow(kind)]


def view_sql(scan: TableScan) -> str:
    """The statement that makes the view of a scan, from its files and the tables of its merge."""
    arms = [_arm(scan, index) for index in range(len(scan.groups))]
    if scan.merge is not None and scan.merge.rows:
        names = ", ".join(quoted(column.name) for column in scan.columns)
        arms.append(f"SELECT {names} FROM {quoted(rows_name(scan))}")
    arms = arms or [_nothing(scan.columns)]
    return f"CREATE VIEW {quoted(scan.name)} AS " + " UNION ALL ".join(arms)


def _arm(scan: TableScan, index: int) -> str:
    group = scan.groups[index]
    if is_widened(group):
        group = replace(group, columns=tuple(replace(c, source=c.name) for c in scan.columns))
        source = quoted(_stream(scan, index))
    else:
        files = ", ".join(_text(path) for path in group.paths)
        source = f"read_parquet([{files}], binary_as_string=false)"
    columns = ", ".join(_column(column) for column in group.columns)
    arm = f"SELECT {columns} FROM {source} AS f"
    if group.hidden is None or scan.merge is None:
        return arm
    return f"{arm} ANTI JOIN {_tombs(scan, group.hidden)} ON {_same_key(scan.merge, group)}"


def _stream(scan: TableScan, index: int) -> str:
    """The name of a group whose files are widened on the way."""
    return f"{scan.name}_{index}"


def _tombs(scan: TableScan, after: int) -> str:
    name = quoted(tombs_name(scan))
    return f"(SELECT * FROM {name} WHERE {AFTER} > {after}) AS t" if after else f"{name} AS t"


def _same_key(merge: Merge, group: ScanGroup) -> str:
    by_name = {column.name: column for column in group.columns}
    pairs = zip(merge.key, key_names(merge), strict=True)
    return " AND ".join(f"{_value(by_name[name])} = t.{known}" for name, known in pairs)


def _value(column: ScanColumn) -> str:
    source = "f." + quoted(column.source) if column.source is not None else "NULL"
    return f"CAST({source} AS {sql_type(to_arrow(column.type))})"


def _column(column: ScanColumn) -> str:
    return f"{_value(column)} AS {quoted(column.name)}"


def _nothing(columns: Sequence[ScanColumn]) -> str:
    empty = ", ".join(_column(ScanColumn(None, column.name, column.type)) for column in columns)
    return f"SELECT {empty} WHERE false"


def _is_small(scan: TableScan) -> bool:
    if scan.rows is None or scan.rows > COPY_ROWS_MAX:
        return False
    paths = [path for group in scan.groups for path in group.paths]
    return sum(os.path.getsize(path) for path in paths) <= COPY_BYTES_MAX


def _make_tables(session: duckdb.DuckDBPyConnection, scan: TableScan, deltas: Deltas) -> int:
    """The tables of a merge, in memory, and files that this engine would widen otherwise; how many
    bytes they take."""
    for index, group in enumerate(scan.groups):
        if is_widened(group):
            session.register(_stream(scan, index), WidenedFiles(group.paths, group.columns))
    if scan.merge is None:
        return 0
    made = deltas.resolved(scan.merge, scan.columns)
    for name, table in ((rows_name(scan), made.rows), (tombs_name(scan), made.tombs)):
        if table.num_columns:
            session.register("given", table)
            session.execute(f"CREATE TABLE {quoted(name)} AS SELECT * FROM given")
            session.unregister("given")
    return made.nbytes


def _define(session: duckdb.DuckDBPyConnection, scan: TableScan) -> None:
    statement = view_sql(scan)
    if scan.groups and _is_small(scan):
        try:
            session.execute(statement.replace("CREATE VIEW", "CREATE TABLE", 1))
            return
        except duckdb.Error:
            pass  # few rows, but more than fits: read it from its files
    session.execute(statement)


def _rows_of(scan: TableScan) -> pa.Table:
    """The rows of a passing scan."""
    tables = [read_file(path, group.columns) for group in scan.groups for path in group.paths]
    return pa.concat_tables([schema_of(scan.columns).empty_table(), *tables])


class _Session:
    """A locked connection over one set of scans, with the statements it has bound already;
    ``nbytes`` of row changes are held in it.

    A bound statement runs anew each time it is read; nothing of a run stays behind.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, nbytes: int) -> None:
        self.nbytes = nbytes
        self._connection = connection
        self._bound: OrderedDict[str, duckdb.DuckDBPyRelation] = OrderedDict()
        self._passing: list[str] = []

    def run(self, sql: str, passing: Sequence[TableScan]) -> pa.RecordBatchReader:
        """Run over the scans of the session, and over ``passing`` ones, which go with the next."""
        while self._passing:
            self._connection.unregister(self._passing.pop())
        if passing:
            for scan in passing:
                self._connection.register(scan.name, _rows_of(scan))
                self._passing.append(scan.name)
            return self._bind(sql, keep=False).to_arrow_reader(BATCH_ROWS)
        bound = self._bound.get(sql)
        if bound is None:
            bound = self._bind(sql)
        else:
            self._bound.move_to_end(sql)
        return bound.to_arrow_reader(BATCH_ROWS)

    def _bind(self, sql: str, keep: bool = True) -> duckdb.DuckDBPyRelation:
        statements = self._connection.extract_statements(sql)
        kinds = [statement.type for statement in statements]
        if kinds not in ([duckdb.StatementType.SELECT], [duckdb.StatementType.EXPLAIN]):
            raise LakehouseError(ErrorKind.FORBIDDEN, "only one SELECT may run")
        bound = self._connection.sql(sql)
        # An EXPLAIN is run, and held, when it is bound.
        if keep and kinds == [duckdb.StatementType.SELECT]:
            self._bound[sql] = bound
            while len(self._bound) > STATEMENTS_MAX:
                self._bound.popitem(last=False)
        return bound

    def close(self) -> None:
        self._bound.clear()
        self._connection.close()


class DuckDbEngine:
    """SqlEngine over DuckDB. A connection serves one set of scans; few are kept warm.

    A connection cannot be given more files once it is locked, so another set of files means
    another connection; one is always open in advance, for opening takes 20 ms.
    """

    def __init__(
        self, threads: int, spill_dir: str, spill_bytes_max: int, deltas: Deltas | None = None
    ) -> None:
        self._deltas = deltas or Deltas()
        self._config: dict[str, Any] = {
            "threads": threads,
            "temp_directory": spill_dir,
            "max_temp_directory_size": f"{spill_bytes_max}B",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        }
        self._sessions: OrderedDict[tuple[Any, ...], _Session] = OrderedDict()
        self._spare: duckdb.DuckDBPyConnection | None = None
        self.prepare()

    @property
    def prepared(self) -> bool:
        return self._spare is not None

    def prepare(self) -> None:
        """Open the next connection now, between two queries."""
        if self._spare is None:
            self._spare = duckdb.connect(":memory:", config=self._config)

    def execute(
        self, sql: str, tables: Sequence[TableScan], memory_bytes: int
    ) -> pa.RecordBatchReader:
        try:
            passing = [table for table in tables if table.passing]
            lasting = [table for table in tables if not table.passing]
            return self._session(lasting, memory_bytes).run(sql, passing)
        except (duckdb.Error, OSError) as error:
            raise engine_error("duckdb", error) from error

    def translate(self, error: Exception) -> Exception:
        if isinstance(error, duckdb.Error | pa.ArrowException | OSError):
            return engine_error("duckdb", error)
        return error

    def _session(self, tables: Sequence[TableScan], memory_bytes: int) -> _Session:
        key = (memory_bytes, *sorted(table.name for table in tables))
        session = self._sessions.get(key)
        if session is None:
            session = self._open(tables, memory_bytes)
            self._sessions[key] = session
            while len(self._sessions) > 1 and (
                len(self._sessions) > SESSIONS_MAX
                or sum(one.nbytes for one in self._sessions.values()) > SESSIONS_BYTES_MAX
            ):
                self._sessions.popitem(last=False)[1].close()
        self._sessions.move_to_end(key)
        return session

    def _open(self, tables: Sequence[TableScan], memory_bytes: int) -> _Session:
        self.prepare()
        session, self._spare = self._spare, None
        assert session is not None
        paths = [path for table in tables for group in table.groups for path in group.paths]
        settings = (
            f"memory_limit='{memory_bytes}B'",
            "TimeZone='UTC'",
            "integer_division=true",
            "ieee_floating_point_ops=false",
            "default_null_order='nulls_last'",
            "enable_external_file_cache=false",
            "parquet_metadata_cache=true",
            "preserve_insertion_order=false",
            f"allowed_paths=[{', '.join(_text(path) for path in paths)}]",
            "enable_external_access=false",
        )
        for setting in settings:
            session.execute(f"SET {setting}")
        nbytes = 0
        for table in tables:
            nbytes += _make_tables(session, table, self._deltas)
            _define(session, table)
        if tables and all(_is_small(table) for table in tables):
            session.execute("SET threads=1")  # handing out so little takes longer than doing it
        session.execute("SET lock_configuration=true")
        return _Session(session, nbytes)
