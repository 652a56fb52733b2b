"""DataFusion behind the SqlEngine port: its native Parquet reader over exactly the given files."""

from __future__ import annotations

import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import datafusion
import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.errors import LakehouseError
from lakehouse.queryd.adapters.engine_errors import engine_error
from lakehouse.queryd.adapters.merging import (
    conversion,
    conversions,
    quoted,
    rows_name,
    tombs_name,
)
from lakehouse.queryd.deltas import AFTER, Deltas, key_names, schema_of
from lakehouse.queryd.plan import ScanColumn, ScanGroup, TableScan
from lakehouse.table.types import to_arrow
from lakehouse.table.widening import widened

TABLES_MAX: Final = 64
TABLES_BYTES_MAX: Final = 128 << 20
BATCH_ROWS: Final = 8192
NESTING_MAX: Final = 400  # twice what the parser in front lets through
_SAFE_PATH: Final = re.compile(r"[A-Za-z0-9/_.-]+\.parquet")


def _read_type(kind: pa.DataType) -> pa.DataType:
    """Strings are read as views: the engine's fast path; results are widened again."""
    if pa.types.is_string(kind):
        return pa.string_view()
    if pa.types.is_binary(kind):
        return pa.binary_view()
    return kind


def _checked(function: Callable[..., pa.Array], arity: int) -> Callable[..., pa.Array]:
    def call(*arguments: pa.Array) -> pa.Array:
        return function(*arguments[:arity])

    return call


_INT: Final = pa.int64()
_FLOAT: Final = pa.float64()
_MICROS: Final = pa.timestamp("us")
_UNITS: Final = ("year", "quarter", "month", "week", "day", "hour", "minute", "second")


def _round_even(column: pa.Array) -> pa.Array:
    return pc.round(column, round_mode="half_to_even")


def _not_zero(left: pa.Array, right: pa.Array) -> pa.Array:
    """``right``, if it divides ``left``."""
    if pc.any(pc.and_(pc.equal(right, 0.0), pc.is_valid(left))).as_py():
        raise ZeroDivisionError("division by zero")
    return right


def _divide(left: pa.Array, right: pa.Array) -> pa.Array:
    return pc.divide(left, _not_zero(left, right))


def _floor(unit: str) -> Callable[..., pa.Array]:
    def call(column: pa.Array) -> pa.Array:
        return pc.floor_temporal(column, unit=unit, week_starts_monday=True)

    return call


# Arithmetic as PostgreSQL has it: an overflow or a wrong domain is an error, never a wrong number.
_FUNCTIONS: Final[tuple[tuple[str, Callable[..., pa.Array], tuple[pa.DataType, ...]], ...]] = (
    ("lh_add", pc.add_checked, (_INT, _INT)),
    ("lh_sub", pc.subtract_checked, (_INT, _INT)),
    ("lh_mul", pc.multiply_checked, (_INT, _INT)),
    ("lh_neg", pc.negate_checked, (_INT,)),
    ("lh_abs", pc.abs_checked, (_INT,)),
    ("lh_sqrt", pc.sqrt_checked, (_FLOAT,)),
    ("lh_ln", pc.ln_checked, (_FLOAT,)),
    ("lh_log10", pc.log10_checked, (_FLOAT,)),
    ("lh_log2", pc.log2_checked, (_FLOAT,)),
    ("lh_rint", _round_even, (_FLOAT,)),
    ("lh_not_zero", _not_zero, (_FLOAT, _FLOAT)),
    ("lh_div", _divide, (_FLOAT, _FLOAT)),
    *((f"lh_trunc_{unit}", _floor(unit), (_MICROS,)) for unit in _UNITS),
)


class DataFusionEngine:
    """SqlEngine over DataFusion. Tables are registered under names that identify their content,
    so a context can be used again: a statement cannot name a table it was not bound to."""

    def __init__(
        self, threads: int, spill_dir: str, spill_bytes_max: int, deltas: Deltas | None = None
    ) -> None:
        self._deltas = deltas or Deltas()
        self._threads = threads
        self._spill = Path(spill_dir) / "datafusion"
        self._links = Path(spill_dir) / "links"
        self._spill_bytes_max = spill_bytes_max
        self._spill.mkdir(parents=True, exist_ok=True)
        self._context: Any = None
        self._memory_bytes = 0
        self._tables: OrderedDict[str, tuple[tuple[str, ...], int]] = OrderedDict()
        self._options = (
            datafusion.SQLOptions()
            .with_allow_ddl(False)
            .with_allow_dml(False)
            .with_allow_statements(False)
        )

    @property
    def prepared(self) -> bool:
        return True

    def prepare(self) -> None:
        """Nothing to do between two queries: a context opens in 0.1 ms."""

    def execute(
        self, sql: str, tables: Sequence[TableScan], memory_bytes: int
    ) -> pa.RecordBatchReader:
        try:
            self._ensure(memory_bytes)
            for table in tables:
                self._register(table)
            frame = self._context.sql_with_options(sql, self._options)
            return pa.RecordBatchReader.from_stream(frame)
        except LakehouseError:
            raise
        except Exception as error:
            raise engine_error("datafusion", error) from error

    def translate(self, error: Exception) -> Exception:
        return error if isinstance(error, LakehouseError) else engine_error("datafusion", error)

    def _ensure(self, memory_bytes: int) -> None:
        if self._context is not None and memory_bytes == self._memory_bytes:
            return
        runtime = (
            datafusion.RuntimeEnvBuilder()
            .with_disk_manager_specified(str(self._spill))
            .with_fair_spill_pool(memory_bytes)
        )
        config = datafusion.SessionConfig(
            {
                "datafusion.sql_parser.parse_float_as_decimal": "true",
                "datafusion.sql_parser.recursion_limit": str(NESTING_MAX),
                "datafusion.sql_parser.enable_ident_normalization": "false",
                "datafusion.execution.time_zone": "+00:00",
                "datafusion.execution.target_partitions": str(self._threads),
                "datafusion.execution.parquet.pushdown_filters": "false",
                # Up to here the smaller side of a join is held whole, and the larger one streams
                # by: moving its rows between partitions costs more, at tombstones most of all.
                "datafusion.optimizer.hash_join_single_partition_threshold": str(8 << 20),
                "datafusion.optimizer.hash_join_single_partition_threshold_rows": "500000",
                "datafusion.catalog.information_schema": "false",
            }
        )
        context = datafusion.SessionContext(config, runtime)
        limit = f"{max(1, self._spill_bytes_max >> 20)}M"
        context.sql(f"SET datafusion.runtime.max_temp_directory_size = '{limit}'").collect()
        for name, function, inputs in _FUNCTIONS:
            call = _checked(function, len(inputs))
            context.register_udf(datafusion.udf(call, list(inputs), inputs[0], "immutable", name))
        self._context, self._memory_bytes = context, memory_bytes
        self._tables.clear()

    def _register(self, scan: TableScan) -> None:
        if scan.name in self._tables:
            self._tables.move_to_end(scan.name)
            return
        while len(self._tables) >= TABLES_MAX:
            self._forget()
        made, size = self._register_merge(scan)
        arms = []
        for index, group in enumerate(scan.groups):
            raw = f"{scan.name}_{index}"
            self._register_group(raw, group)
            made.append(raw)
            arms.append(_arm(scan, group, raw))
        if scan.merge is not None and scan.merge.rows:
            names = ", ".join(quoted(column.name) for column in scan.columns)
            arms.append(f"SELECT {names} FROM {quoted(rows_name(scan))}")
        if not arms:
            self._register_rows(scan.name, schema_of(scan.columns).empty_table())
        elif len(arms) == 1 and scan.merge is None and _plain(scan.groups[0].columns):
            self._context.register_table(scan.name, self._context.table(made[0]))
        else:
            view = self._context.sql(" UNION ALL ".join(arms))
            self._context.register_view(scan.name, view)
        self._tables[scan.name] = ((scan.name, *made), size)
        while sum(size for _, size in self._tables.values()) > TABLES_BYTES_MAX and (
            len(self._tables) > 1
        ):
            self._forget()

    def _register_merge(self, scan: TableScan) -> tuple[list[str], int]:
        """The tables of a merge, in memory, and the functions that widen columns; the names of the
        tables and the bytes they take."""
        for name, column in conversions(scan):
            kinds = [_read_type(to_arrow(kind)) for kind in (column.written, column.type)]
            convert = partial(_widened, type_text=column.type)
            self._context.register_udf(
                datafusion.udf(convert, kinds[:1], kinds[1], "immutable", name)
            )
        if scan.merge is None:
            return [], 0
        made = self._deltas.resolved(scan.merge, scan.columns)
        self._register_rows(rows_name(scan), made.rows)
        if made.tombs.num_columns == 0:
            return [rows_name(scan)], made.nbytes
        self._register_rows(tombs_name(scan), made.tombs)
        return [rows_name(scan), tombs_name(scan)], made.nbytes

    def _register_rows(self, name: str, rows: pa.Table) -> None:
        schema = pa.schema([(field.name, _read_type(field.type)) for field in rows.schema])
        batches = rows.cast(schema).to_batches(max_chunksize=BATCH_ROWS)
        batches = batches or [pa.RecordBatch.from_pylist([], schema)]
        self._context.register_record_batches(name, [batches])

    def _forget(self) -> None:
        _, (names, _) = self._tables.popitem(last=False)
        for name in names:
            self._context.deregister_table(name)
            shutil.rmtree(self._links / name, ignore_errors=True)

    def _register_group(self, name: str, group: ScanGroup) -> None:
        fields = {
            column.source: _read_type(to_arrow(column.written or column.type))
            for column in group.columns
            if column.source is not None
        }
        if len(group.paths) == 1 and _SAFE_PATH.fullmatch(group.paths[0]):
            place = group.paths[0]
        else:
            # The reader takes a folder, not a list: a folder of links to exactly these files.
            folder = self._links / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for index, path in enumerate(group.paths):
                (folder / f"{index:06d}.parquet").symlink_to(path)
            place = f"{folder}/"
        self._context.register_parquet(name, place, schema=pa.schema(list(fields.items())))


def _plain(columns: Sequence[ScanColumn]) -> bool:
    return all(column.source == column.name and not column.written for column in columns)


def _arm(scan: TableScan, group: ScanGroup, raw: str) -> str:
    """The rows of a group that can be seen. The tombstones stand on the left: they are the side
    that is held in memory."""
    values = {column.name: _value(column) for column in group.columns}
    chosen = ", ".join(f"{value} AS {quoted(name)}" for name, value in values.items())
    source = f"{quoted(raw)} AS f"
    if group.hidden is None or scan.merge is None:
        return f"SELECT {chosen} FROM {source}"
    tombs = quoted(tombs_name(scan))
    if group.hidden:
        tombs = f"(SELECT * FROM {tombs} WHERE {AFTER} > {group.hidden})"
    pairs = zip(scan.merge.key, key_names(scan.merge), strict=True)
    same = " AND ".join(f"{values[name]} = t.{known}" for name, known in pairs)
    return f"SELECT {chosen} FROM {tombs} AS t RIGHT ANTI JOIN {source} ON {same}"


def _value(column: ScanColumn) -> str:
    kind = to_arrow(column.type)
    name = _arrow_name(kind) or str(_read_type(kind)).replace("'", "''")
    if column.source is None:
        return f"arrow_cast(NULL, '{name}')"
    source = f"f.{quoted(column.source)}"
    if not column.written:
        return source
    function = conversion(column)
    return f"{quoted(function)}({source})" if function else f"arrow_cast({source}, '{name}')"


def _widened(values: pa.Array, type_text: str) -> pa.Array:
    wider = widened(values, type_text)
    return wider.cast(_read_type(wider.type))


def _arrow_name(kind: pa.DataType) -> str:
    """DataFusion's own spelling of an Arrow type, as ``arrow_cast`` takes it."""
    names = {
        pa.string(): "Utf8View",
        pa.bool_(): "Boolean",
        pa.int64(): "Int64",
        pa.uint64(): "UInt64",
        pa.float64(): "Float64",
        pa.date32(): "Date32",
        pa.time64("us"): "Time64(Microsecond)",
        pa.timestamp("us"): "Timestamp(Microsecond, None)",
        pa.timestamp("us", tz="UTC"): 'Timestamp(Microsecond, Some("UTC"))',
        pa.binary(): "BinaryView",
    }
    if kind in names:
        return names[kind]
    if pa.types.is_decimal128(kind):
        return f"Decimal128({kind.precision}, {kind.scale})"
    if pa.types.is_decimal256(kind):
        return f"Decimal256({kind.precision}, {kind.scale})"
    if pa.types.is_fixed_size_list(kind):
        return f"FixedSizeList({kind.list_size}, Float32)"
    if pa.types.is_list(kind):
        return f"List({_arrow_name(kind.value_type)})"
    return ""
