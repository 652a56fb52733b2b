"""Results as documents: JSON, NDJSON, CSV, Parquet, Arrow IPC, batch by batch, as bytes.

Engines' own types are widened to the logical ones first (``table.types``), so that a result looks
the same whichever engine made it.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from typing import Any, Final, Protocol

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.queryd.plan import OutputColumn
from lakehouse.queryd.texts import csv_field, csv_texts, json_rows, json_texts
from lakehouse.table.types import from_arrow, to_arrow

ROW_GROUP_ROWS: Final = 128 * 1024
FEW_ROWS: Final = 32


class Encoder(Protocol):
    """Bytes of one document: begin, any number of batches, end."""

    def begin(self) -> bytes: ...

    def batch(self, batch: pa.RecordBatch) -> bytes: ...

    def end(self, rows: int, elapsed_ms: float) -> bytes: ...


def unique_names(names: Sequence[str]) -> list[str]:
    """Names made different: the second ``id`` is ``id_2``, and so on."""
    taken: set[str] = set()
    result: list[str] = []
    for name in names:
        candidate, count = name, 1
        while candidate in taken:
            count += 1
            candidate = f"{name}_{count}"
        taken.add(candidate)
        result.append(candidate)
    return result


@functools.lru_cache(maxsize=256)
def output_schema(engine: pa.Schema, output: tuple[OutputColumn, ...]) -> pa.Schema:
    """The schema clients see: given names, logical types, all nullable.

    A computed decimal has precision 38 on both engines; a plain column keeps its own.
    """
    known = len(output) == len(engine)
    names = [column.name for column in output] if known else engine.names
    kinds = []
    for index, field in enumerate(engine):
        declared = output[index].type if known else ""
        kinds.append(_logical(field.type, declared))
    return pa.schema(list(zip(unique_names(names), kinds, strict=True)))


def _logical(kind: pa.DataType, declared: str) -> pa.DataType:
    if pat.is_duration(kind):
        return pa.string()
    logical = to_arrow(from_arrow(kind))
    if pat.is_uint64(logical) and declared != "uint64":
        return pa.int64()  # counts and ranks; an engine's choice, not the data's
    if pat.is_decimal128(logical):
        wanted = to_arrow(declared) if declared.startswith("decimal(") else None
        if wanted is not None and wanted.scale == logical.scale:
            return wanted
        return pa.decimal128(38, logical.scale)
    return logical


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """``batch`` with the names and types of ``schema``."""
    if batch.num_columns == 0 or batch.schema.equals(schema):
        return batch
    arrays = [
        _cast(column, field.type) for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if pat.is_interval(column.type):
        return pa.array([_interval_text(v) for v in column.to_pylist()], pa.string())
    if pat.is_duration(column.type):
        micros = pc.cast(pc.cast(column, pa.duration("us"), safe=False), pa.int64())
        return pa.array([_duration_text(v) for v in micros.to_pylist()], pa.string())
    if pat.is_timestamp(column.type):
        return pc.cast(column, kind, safe=False)
    return pc.cast(column, kind)


def _duration_text(micros: int | None) -> str | None:
    """Days and the rest, both towards zero, as PostgreSQL subtracts timestamps."""
    if micros is None:
        return None
    days, rest = divmod(abs(micros), 86_400_000_000)
    sign = -1 if micros < 0 else 1
    return _interval_text((0, sign * days, sign * rest * 1000))


def _interval_text(value: Any) -> str | None:
    """ISO 8601, as ``P1M2DT3.5S``; the zero interval is ``PT0S``."""
    if value is None:
        return None
    months, days, nanos = value
    text = f"{months}M" if months else ""
    text += f"{days}D" if days else ""
    if nanos:
        whole, rest = divmod(abs(nanos), 1_000_000_000)
        fraction = f".{rest:09d}".rstrip("0") if rest else ""
        text += f"T{'-' if nanos < 0 else ''}{whole}{fraction}S"
    return "P" + (text or "T0S")


def _joined(*parts: pa.Array | str) -> bytes:
    """Rows made of ``parts``, one after the other, without a loop: the values of a string array
    lie side by side in its buffer."""
    rows = pc.binary_join_element_wise(*parts, "")
    if len(rows) == 0:
        return b""
    offsets = rows.buffers()[1]
    size = int.from_bytes(offsets[4 * len(rows) : 4 * len(rows) + 4], "little")
    return bytes(rows.buffers()[2][:size])


@functools.lru_cache(maxsize=256)
def _json_shape(schema: pa.Schema) -> tuple[bytes, bool]:
    """The members ``columns`` and ``types``, and whether rows may be made one by one."""
    types = [from_arrow(kind) for kind in schema.types]
    # Python has no times before the year 1, and its decimals are written as floats.
    # Those of a vector would be written with the digits of a double.
    by_row = not any(
        pat.is_temporal(t) or pat.is_decimal(t) or pat.is_fixed_size_list(t) for t in schema.types
    )
    return orjson.dumps({"columns": schema.names, "types": types})[1:-1], by_row


class JsonEncoder:
    """``{...head, columns, types, rows: [[..]..], row_count, elapsed_ms}``."""

    def __init__(self, schema: pa.Schema, head: dict[str, Any]) -> None:
        self._head = head
        self._first = True
        self._columns, self._by_row = _json_shape(schema)

    def begin(self) -> bytes:
        lead = orjson.dumps(self._head)[:-1]
        return lead + (b"," if self._head else b"") + self._columns + b',"rows":['

    def batch(self, batch: pa.RecordBatch) -> bytes:
        if batch.num_rows == 0:
            return b""
        lead = b"" if self._first else b","
        self._first = False
        if batch.num_columns == 0:
            return lead + b",".join([b"[]"] * batch.num_rows)
        if self._by_row and batch.num_rows <= FEW_ROWS:
            return lead + json_rows(batch)
        parts: list[pa.Array | str] = []
        for index, column in enumerate(batch.columns):
            parts += ["," if index else "[", json_texts(column)]
        rows: bytes = _joined(*parts, "],")
        return lead + rows[:-1]

    def end(self, rows: int, elapsed_ms: float) -> bytes:
        tail = {"row_count": rows, "elapsed_ms": round(elapsed_ms, 3)}
        return b"]," + orjson.dumps(tail)[1:]


class NdjsonEncoder:
    """One object a line."""

    def __init__(self, schema: pa.Schema) -> None:
        names = [orjson.dumps(name).decode() for name in schema.names]
        self._leads = [("," if index else "{") + f"{name}:" for index, name in enumerate(names)]

    def begin(self) -> bytes:
        return b""

    def batch(self, batch: pa.RecordBatch) -> bytes:
        if batch.num_columns == 0:
            return b"{}\n" * int(batch.num_rows)
        parts: list[pa.Array | str] = []
        for lead, column in zip(self._leads, batch.columns, strict=True):
            parts += [lead, json_texts(column)]
        return _joined(*parts, "}\n")

    def end(self, rows: int, elapsed_ms: float) -> bytes:
        return b""


class CsvEncoder:
    """RFC 4180 with a header line; lines end in LF, as Unix tools expect."""

    def __init__(self, schema: pa.Schema) -> None:
        self._header = ",".join(csv_field(name) for name in schema.names) + "\n"

    def begin(self) -> bytes:
        return self._header.encode()

    def batch(self, batch: pa.RecordBatch) -> bytes:
        if batch.num_columns == 0:
            return b"\n" * int(batch.num_rows)
        parts: list[pa.Array | str] = []
        for index, column in enumerate(batch.columns):
            parts += [","] if index else []
            parts.append(csv_texts(column))
        return _joined(*parts, "\n")

    def end(self, rows: int, elapsed_ms: float) -> bytes:
        return b""


class _Drain(io.RawIOBase):
    """A sink whose bytes are taken out as they come."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


class ArrowEncoder:
    """An Arrow IPC stream."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = _Drain()
        self._schema = schema
        self._writer: Any = None

    def begin(self) -> bytes:
        self._writer = pa.ipc.new_stream(self._sink, self._schema)
        return self._sink.take()

    def batch(self, batch: pa.RecordBatch) -> bytes:
        self._writer.write_batch(batch)
        return self._sink.take()

    def end(self, rows: int, elapsed_ms: float) -> bytes:
        self._writer.close()
        return self._sink.take()


class ParquetEncoder:
    """A Parquet file, zstd, row groups of at most 128k rows."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = _Drain()
        self._schema = schema
        self._writer: Any = None
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0

    def begin(self) -> bytes:
        import pyarrow.parquet as pq  # late: 10 ms that other formats need not pay

        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")
        return self._sink.take()

    def batch(self, batch: pa.RecordBatch) -> bytes:
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows < ROW_GROUP_ROWS:
            return b""
        return self._flush()

    def _flush(self) -> bytes:
        table = pa.Table.from_batches(self._waiting, self._schema)
        self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        self._waiting, self._rows = [], 0
        return self._sink.take()

    def end(self, rows: int, elapsed_ms: float) -> bytes:
        data = self._flush() if self._rows else b""
        self._writer.close()
        return data + self._sink.take()


def make_encoder(kind: str, schema: pa.Schema, head: dict[str, Any]) -> Encoder:
    """The encoder of a ``contracts.query.ResultFormat``."""
    match kind:
        case "json":
            return JsonEncoder(schema, head)
        case "ndjson":
            return NdjsonEncoder(schema)
        case "csv":
            return CsvEncoder(schema)
        case "parquet":
            return ParquetEncoder(schema)
        case _:
            return ArrowEncoder(schema)
