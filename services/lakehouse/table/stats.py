"""Bounds of columns in files, and which files a predicate can skip. Pure, vectorised over files.

Bounds are text by logical type (``model.dataset.ColumnStats``). Everything here errs to one side:
a bound that is not certain is no bound, a file that may hold a row is kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pat

from lakehouse.errors import LakehouseError
from lakehouse.model.dataset import ColumnStats, DataFile
from lakehouse.model.schema import Column, Schema
from lakehouse.table.types import from_arrow, to_arrow

__all__ = ["OPERATORS", "Term", "bounds_of", "file_stats", "may_hold_any", "prune", "stats_table"]

OPERATORS: Final = ("=", "<", "<=", ">", ">=", "in", "is_null", "not_null")
_STRING_BYTES_MAX: Final = 64
_CODE_POINT_MAX: Final = 0x10FFFF
_SURROGATES: Final = (0xD800, 0xDFFF)
# The years that RFC 3339 can write; times outside have no bound.
_YEAR_ONE_US: Final = -62_135_596_800_000_000
_YEAR_LAST_US: Final = 253_402_300_799_999_999
_DAY_US: Final = 86_400_000_000
_WITHOUT_ORDER: Final = ("binary", "list<", "struct<", "map<", "vector(")


@dataclass(frozen=True, slots=True)
class Term:
    """One conjunct of a predicate: ``column op value``.

    Attributes:
        op: one of ``OPERATORS``; another is kept, never wrong.
        values: texts as in ``ColumnStats``; one for a comparison, any number for ``in``.
        type: the column's type text; the values are read as that type.
    """

    column_id: int
    op: str
    values: tuple[str, ...]
    type: str


def file_stats(
    source: pq.FileMetaData | pa.Table,
    schema: Schema,
    nan_free: Collection[int] = (),
) -> tuple[ColumnStats, ...]:
    """Bounds of every column of ``schema`` that the file has, in the schema's order.

    Args:
        source: a Parquet footer, or the rows themselves.
        schema: columns are matched by name; one of another type gets no bound.
        nan_free: ids of float columns known to hold no NaN. Parquet's own statistics pass NaN
            over, so a footer alone bounds no other float column.
    """
    if isinstance(source, pa.Table):
        return tuple(
            _table_stats(column, source.column(column.name))
            for column in schema.columns
            if source.schema.get_field_index(column.name) >= 0
        )
    leaves = _leaf_of_column(source.schema.to_arrow_schema())
    return tuple(
        _footer_stats(source, column, leaves[column.name], column.id in nan_free)
        for column in schema.columns
        if column.name in leaves
    )


def _table_stats(column: Column, values: pa.ChunkedArray) -> ColumnStats:
    empty = ColumnStats(column.id, values.null_count)
    if from_arrow(values.type) != column.type or column.type.startswith(_WITHOUT_ORDER):
        return empty
    if column.type == "float64" and pc.any(pc.is_nan(values)).as_py():
        return empty
    return _bounds(column, values.null_count, values, values)


def _bounds(column: Column, nulls: int | None, lows: pa.Array, highs: pa.Array) -> ColumnStats:
    """The least of ``lows`` and the greatest of ``highs``; none where Arrow knows no order."""
    try:
        least = pc.min_max(lows)
        low, high = least["min"], (least if highs is lows else pc.min_max(highs))["max"]
    except pa.ArrowNotImplementedError:
        return ColumnStats(column.id, nulls)
    return ColumnStats(
        column.id,
        nulls,
        _lower(column.type, _text(low, column.type)),
        _upper(column.type, _text(high, column.type)),
    )


def _leaves(arrow: pa.DataType) -> int:
    if pat.is_map(arrow):
        return _leaves(arrow.key_type) + _leaves(arrow.item_type)
    if pat.is_struct(arrow):
        return sum(_leaves(field.type) for field in arrow.fields)
    if hasattr(arrow, "value_type") and pat.is_nested(arrow):
        return _leaves(arrow.value_type)
    return 1


def _leaf_of_column(arrow: pa.Schema) -> dict[str, tuple[int, pa.DataType]]:
    """The first leaf (Parquet column) of each top-level column; a repeated name is left out."""
    found: dict[str, tuple[int, pa.DataType]] = {}
    repeated: set[str] = set()
    at = 0
    for field in arrow:
        if field.name in found:
            repeated.add(field.name)
        found[field.name] = (at, field.type)
        at += _leaves(field.type)
    return {name: leaf for name, leaf in found.items() if name not in repeated}


def _footer_stats(
    footer: pq.FileMetaData, column: Column, leaf: tuple[int, pa.DataType], nan_free: bool
) -> ColumnStats:
    index, arrow = leaf
    if pat.is_nested(arrow):
        return ColumnStats(column.id)
    if column.type == "string":
        # However it was encoded (views, dictionaries, large ones): only the plain one has an order.
        arrow = pa.string() if from_arrow(arrow) == column.type else arrow
    groups = [footer.row_group(at).column(index) for at in range(footer.num_row_groups)]
    nulls: int | None = 0
    lows: list[pa.Scalar] = []
    highs: list[pa.Scalar] = []
    bounded = (
        from_arrow(arrow) == column.type
        and not column.type.startswith(_WITHOUT_ORDER)
        and (column.type != "float64" or nan_free)
    )
    for group in groups:
        stats = group.statistics if group.is_stats_set else None
        group_nulls = stats.null_count if stats is not None and stats.has_null_count else None
        nulls = None if nulls is None or group_nulls is None else nulls + group_nulls
        if group_nulls == group.num_values:
            continue
        if not bounded or stats is None or not stats.has_min_max:
            bounded = False
            continue
        try:
            lows.append(_scalar(stats.min, stats.min_raw, arrow))
            highs.append(_scalar(stats.max, stats.max_raw, arrow))
        except (ValueError, OverflowError, pa.ArrowException):
            bounded = False
    if not bounded or not lows:
        return ColumnStats(column.id, nulls)
    return _bounds(column, nulls, pa.array(lows, type=arrow), pa.array(highs, type=arrow))


def _scalar(value: object, raw: object, arrow: pa.DataType) -> pa.Scalar:
    # Times beyond Python's years exist only as raw integers.
    if pat.is_timestamp(arrow) and isinstance(raw, int) and arrow.unit == "us":
        return pa.scalar(raw, pa.int64()).cast(arrow)
    return pa.scalar(value, arrow)


def _text(value: pa.Scalar, type_text: str) -> str | None:
    """A bound as text; None for no value, infinity's neighbours or a time RFC 3339 cannot write."""
    if not value.is_valid:
        return None
    if type_text == "string":
        return str(value.as_py())
    if type_text == "float64":
        return repr(float(value.as_py()))
    if type_text in ("date", "timestamp", "timestamptz"):
        wide = value.cast(to_arrow(type_text)) if not pat.is_date32(value.type) else value
        raw = wide.cast(pa.int32() if type_text == "date" else pa.int64()).as_py()
        micros = raw * _DAY_US if type_text == "date" else raw
        if not _YEAR_ONE_US <= micros <= _YEAR_LAST_US:
            return None
        return str(wide.cast(pa.string()).as_py()).replace(" ", "T")
    try:
        return str(value.cast(to_arrow(type_text)).cast(pa.string()).as_py())
    except pa.ArrowException:
        return None


def _lower(type_text: str, text: str | None) -> str | None:
    """Cut a string's lower bound: a prefix sorts before what it was cut from."""
    if text is None or type_text != "string":
        return text
    return text.encode()[:_STRING_BYTES_MAX].decode(errors="ignore")


def _upper(type_text: str, text: str | None) -> str | None:
    """Cut a string's upper bound and round it up to sort after all that share the prefix."""
    if text is None or type_text != "string" or len(text.encode()) <= _STRING_BYTES_MAX:
        return text
    head = text.encode()[:_STRING_BYTES_MAX].decode(errors="ignore")
    while head:
        point = ord(head[-1]) + 1
        if _SURROGATES[0] <= point <= _SURROGATES[1]:
            point = _SURROGATES[1] + 1
        raised = head[:-1] + chr(point) if point <= _CODE_POINT_MAX else ""
        if raised and len(raised.encode()) <= _STRING_BYTES_MAX:
            return raised
        head = head[:-1]
    return None


def stats_table(files: Sequence[DataFile], column_ids: Collection[int] | None = None) -> pa.Table:
    """One row a file, in order: ``rows``, and for a column c ``nulls:c`` ``min:c`` ``max:c``.

    ``column_ids`` limits it to the columns a predicate names; None takes all there are.
    """
    wanted = (
        {stats.column_id for file in files for stats in file.stats}
        if column_ids is None
        else set(column_ids)
    )
    columns: dict[str, pa.Array] = {"rows": pa.array([file.rows for file in files], pa.int64())}
    by_id = [{stats.column_id: stats for stats in file.stats} for file in files]
    unknown = ColumnStats(0)
    for column_id in sorted(wanted):
        found = [stats.get(column_id, unknown) for stats in by_id]
        columns[f"nulls:{column_id}"] = pa.array([one.null_count for one in found], pa.int64())
        columns[f"min:{column_id}"] = pa.array([one.minimum for one in found], pa.string())
        columns[f"max:{column_id}"] = pa.array([one.maximum for one in found], pa.string())
    return pa.table(columns)


def prune(stats: pa.Table, terms: Sequence[Term]) -> pa.BooleanArray:
    """True for each file of ``stats_table`` that may hold a row for which all ``terms`` hold."""
    keep = pa.repeat(True, len(stats))
    for term in terms:
        try:
            verdict = _may_hold(stats, term)
        except (KeyError, LakehouseError, pa.ArrowException):
            continue
        keep = pc.and_(keep, pc.fill_null(verdict, True))
    return keep


def bounds_of(
    files: Sequence[DataFile], column_id: int, type_text: str
) -> tuple[pa.Array, pa.Array] | None:
    """The least and the greatest value of a column in each of ``files``, null where they are not
    known; None for a type that has no order here."""
    unknown = ColumnStats(column_id)
    stats = [next((s for s in f.stats if s.column_id == column_id), unknown) for f in files]
    try:
        low = _typed(pa.array([one.minimum for one in stats], pa.string()), type_text)
        high = _typed(pa.array([one.maximum for one in stats], pa.string()), type_text)
    except (LakehouseError, pa.ArrowException):
        return None
    return low, high


def may_hold_any(bounds: tuple[pa.Array, pa.Array], values: pa.Array) -> pa.BooleanArray:
    """For each pair of bounds whether one of ``values`` (no nulls) lies within; True where it is
    not known."""
    low, high = bounds
    if pat.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pat.is_decimal(values.type) or values.type != low.type:
        return pa.repeat(pa.scalar(True), len(low))
    ordered = values.take(pc.sort_indices(values))
    first = pc.search_sorted(ordered, low, side="left")
    behind = pc.search_sorted(ordered, high, side="right")
    return pc.fill_null(pc.less(first, behind), True)


def _may_hold(stats: pa.Table, term: Term) -> pa.BooleanArray:
    """Null where it is not known."""
    stats = stats.combine_chunks()
    nulls = _column(stats, f"nulls:{term.column_id}")
    rows = _column(stats, "rows")
    some_value = pc.less(nulls, rows)
    if term.op == "is_null":
        return pc.greater(nulls, 0)
    if term.op == "not_null":
        return some_value
    low = _typed(_column(stats, f"min:{term.column_id}"), term.type)
    high = _typed(_column(stats, f"max:{term.column_id}"), term.type)
    values = [_typed(pa.array([text], pa.string()), term.type)[0] for text in term.values]
    if term.op == "in":
        inside = pa.repeat(False, len(stats))
        for value in values:
            inside = pc.or_kleene(inside, _compare("=", low, high, value))
        return pc.and_kleene(some_value, inside)
    return pc.and_kleene(some_value, _compare(term.op, low, high, values[0]))


def _column(stats: pa.Table, name: str) -> pa.Array:
    chunked = stats.column(name)
    return chunked.chunk(0) if chunked.num_chunks else pa.array([], chunked.type)


def _typed(texts: pa.Array, type_text: str) -> pa.Array:
    """Texts as values that Arrow can order; raises where one is not of the type."""
    if type_text == "string":
        return texts
    if type_text == "bool":
        return texts.cast(pa.bool_()).cast(pa.int8())
    if type_text == "timestamp":
        return pc.replace_substring(texts, "T", " ").cast(pa.timestamp("us"))
    return texts.cast(to_arrow(type_text))


def _compare(op: str, low: pa.Array, high: pa.Array, value: pa.Scalar) -> pa.BooleanArray:
    """Whether a value between ``low`` and ``high`` may stand in ``op`` to ``value``."""
    if op == "=":
        return pc.and_kleene(pc.less_equal(low, value), pc.greater_equal(high, value))
    if op == "<":
        return pc.less(low, value)
    if op == "<=":
        return pc.less_equal(low, value)
    if op == ">":
        return pc.greater(high, value)
    if op == ">=":
        return pc.greater_equal(high, value)
    raise KeyError(op)
