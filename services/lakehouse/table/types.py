"""The closed grammar of type texts (``model.schema``) and what each is in Arrow.

A struct's field names that are not plain identifiers are written as JSON strings, so that any
name survives the round trip: ``struct<a:int64,"odd, name":list<string>>``.

``vector(N)`` is the type of a column alone, never of a part of a value: N float32 side by side, of
which none is null, though NaN and infinities are numbers like others. A fixed-size list of wider
numbers, or within another value, is a ``list<float64>``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import pyarrow as pa
import pyarrow.types as pat

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.refs import name_key
from lakehouse.model.schema import Column, Schema
from lakehouse.model.vectors import DIMENSIONS_MAX

__all__ = [
    "DECIMAL_DIGITS_MAX",
    "FIELD_ID",
    "TYPE_DEPTH_MAX",
    "arrow_schema",
    "from_arrow",
    "is_vector",
    "schema_from_arrow",
    "stored",
    "to_arrow",
]

FIELD_ID: Final = b"PARQUET:field_id"
DECIMAL_DIGITS_MAX: Final = 76
TYPE_DEPTH_MAX: Final = 64
_DECIMAL128_DIGITS: Final = 38

_SIMPLE: Final[dict[str, pa.DataType]] = {
    "string": pa.string(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "float64": pa.float64(),
    "date": pa.date32(),
    "time": pa.time64("us"),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "binary": pa.binary(),
}
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORD: Final = re.compile(r"[a-z0-9]+")
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_DIGITS: Final = re.compile(r"\s*(\d{1,3})\s*,\s*(-?\d{1,3})\s*\)")
_DIMENSIONS: Final = re.compile(r"\s*(\d{1,6})\s*\)")


def _bad(text: str, why: str) -> LakehouseError:
    return LakehouseError(
        ErrorKind.INVALID,
        f"the type text {why}",
        type_text=text[:200],
        hint="types are " + " ".join(_SIMPLE) + " decimal(p,s) list<T> struct<name:T,...> map<K,V>"
        " vector(N)",
    )


class _Parser:
    """Recursive descent over one type text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, why: str) -> LakehouseError:
        return _bad(self.text, f"{why} at position {self.at}")

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def accept(self, token: str) -> bool:
        self.skip()
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise self.fail(f"lacks '{token}'")

    def name(self) -> str:
        self.skip()
        if quoted := _QUOTED.match(self.text, self.at):
            self.at = quoted.end()
            try:
                return str(json.loads(quoted.group()))
            except json.JSONDecodeError:
                raise self.fail("has a badly quoted field name") from None
        plain = _PLAIN.match(self.text, self.at)
        if plain is None:
            raise self.fail("lacks a field name")
        self.at = plain.end()
        return plain.group()

    def type(self, depth: int = 0) -> pa.DataType:
        if depth > TYPE_DEPTH_MAX:
            raise self.fail("is nested too deep")
        self.skip()
        word = _WORD.match(self.text, self.at)
        if word is None:
            raise self.fail("lacks a type")
        self.at = word.end()
        kind = word.group()
        if kind in _SIMPLE:
            return _SIMPLE[kind]
        if kind == "decimal":
            return self.decimal()
        if kind == "list":
            self.expect("<")
            item = self.type(depth + 1)
            self.expect(">")
            return pa.list_(item)
        if kind == "map":
            self.expect("<")
            key = self.type(depth + 1)
            self.expect(",")
            value = self.type(depth + 1)
            self.expect(">")
            return pa.map_(key, value)
        if kind == "struct":
            return self.struct(depth)
        if kind == "vector":
            return self.vector(depth)
        raise _bad(self.text, f"is not known: {kind}")

    def decimal(self) -> pa.DataType:
        self.expect("(")
        digits = _DIGITS.match(self.text, self.at)
        if digits is None:
            raise self.fail("lacks a precision and a scale")
        self.at = digits.end()
        precision, scale = int(digits.group(1)), int(digits.group(2))
        if not (1 <= precision <= DECIMAL_DIGITS_MAX and 0 <= scale <= precision):
            raise self.fail(f"needs 1 <= p <= {DECIMAL_DIGITS_MAX} and 0 <= s <= p")
        if precision <= _DECIMAL128_DIGITS:
            return pa.decimal128(precision, scale)
        return pa.decimal256(precision, scale)

    def vector(self, depth: int) -> pa.DataType:
        if depth:
            raise self.fail("has a vector within another type")
        self.expect("(")
        digits = _DIMENSIONS.match(self.text, self.at)
        if digits is None:
            raise self.fail("lacks the number of dimensions")
        self.at = digits.end()
        if not 1 <= int(digits.group(1)) <= DIMENSIONS_MAX:
            raise self.fail(f"needs 1 to {DIMENSIONS_MAX} dimensions")
        return pa.list_(pa.float32(), int(digits.group(1)))

    def struct(self, depth: int) -> pa.DataType:
        self.expect("<")
        fields: list[pa.Field] = []
        if not self.accept(">"):
            while True:
                name = self.name()
                self.expect(":")
                fields.append(pa.field(name, self.type(depth + 1)))
                if self.accept(">"):
                    break
                self.expect(",")
        return pa.struct(fields)


@lru_cache(maxsize=4096)
def to_arrow(type_text: str) -> pa.DataType:
    """The Arrow type of a type text. Raises ``invalid`` for a text outside the grammar."""
    parser = _Parser(type_text)
    arrow = parser.type()
    parser.skip()
    if parser.at != len(type_text):
        raise parser.fail("goes on")
    return arrow


def _field_name(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _simple_text(arrow: pa.DataType) -> str | None:
    """The text of a type without parameters or children, after widening; None for others."""
    if pat.is_boolean(arrow):
        return "bool"
    if pat.is_uint64(arrow):
        return "uint64"
    if pat.is_integer(arrow):
        return "int64"
    if pat.is_floating(arrow):
        return "float64"
    if pat.is_date(arrow):
        return "date"
    if pat.is_time(arrow):
        return "time"
    if pat.is_timestamp(arrow):
        return "timestamptz" if arrow.tz is not None else "timestamp"
    if pat.is_duration(arrow):
        return "int64"
    if pat.is_binary(arrow) or pat.is_large_binary(arrow) or pat.is_fixed_size_binary(arrow):
        return "binary"
    if pat.is_binary_view(arrow):
        return "binary"
    if pat.is_string(arrow) or pat.is_large_string(arrow) or pat.is_string_view(arrow):
        return "string"
    if pat.is_null(arrow) or pat.is_interval(arrow):
        return "string"
    return None


_LIST_KINDS: Final = (
    pat.is_list,
    pat.is_large_list,
    pat.is_fixed_size_list,
    pat.is_list_view,
    pat.is_large_list_view,
)


def _is_list(arrow: pa.DataType) -> bool:
    return any(is_kind(arrow) for is_kind in _LIST_KINDS)


def is_vector(arrow: pa.DataType) -> bool:
    """Whether ``arrow`` is what a ``vector(N)`` is, or one of half the width."""
    return bool(
        pat.is_fixed_size_list(arrow)
        and (pat.is_float32(arrow.value_type) or pat.is_float16(arrow.value_type))
        and 1 <= arrow.list_size <= DIMENSIONS_MAX
    )


def from_arrow(arrow: pa.DataType, vectors: bool = True) -> str:
    """The type text that holds every value of ``arrow``.

    Widens: integers to int64 (uint64 stays), floats to float64, every unit of time to
    microseconds, durations to int64 microseconds, dictionaries, run-ends and extensions to what
    they store, null to string. ``vectors`` false: fixed-size lists are lists, as before there were
    vectors. Raises ``invalid`` for unions.
    """
    if vectors and is_vector(arrow):
        return f"vector({arrow.list_size})"
    simple = _simple_text(arrow)
    if simple is not None:
        return simple
    if isinstance(arrow, pa.BaseExtensionType):
        return from_arrow(arrow.storage_type, vectors)
    if pat.is_dictionary(arrow) or pat.is_run_end_encoded(arrow):
        return from_arrow(arrow.value_type, False)
    if pat.is_decimal(arrow):
        # A negative scale means trailing zeros: they are made explicit.
        precision, scale = arrow.precision, arrow.scale
        if scale < 0:
            precision, scale = precision - scale, 0
        precision = max(precision, scale)
        if precision > DECIMAL_DIGITS_MAX:
            return "string"
        return f"decimal({precision},{scale})"
    if pat.is_map(arrow):
        return f"map<{from_arrow(arrow.key_type, False)},{from_arrow(arrow.item_type, False)}>"
    if _is_list(arrow):
        return f"list<{from_arrow(arrow.value_type, False)}>"
    if pat.is_struct(arrow):
        inner = (
            f"{_field_name(field.name)}:{from_arrow(field.type, False)}" for field in arrow.fields
        )
        return f"struct<{','.join(inner)}>"
    raise LakehouseError(
        ErrorKind.INVALID,
        "this arrow type cannot be stored",
        type_text=str(arrow)[:200],
        hint="cast the column to another type before ingesting it",
    )


def stored(arrow: pa.DataType) -> pa.DataType:
    """The logical type that values of ``arrow`` are stored as: as ``from_arrow``, but a struct
    without fields, which Parquet does not have, or with a field twice, which no reader tells
    apart, is a string: its JSON."""
    return _with_fields(to_arrow(from_arrow(arrow)))


def _with_fields(arrow: pa.DataType) -> pa.DataType:
    if pat.is_map(arrow):
        return pa.map_(_with_fields(arrow.key_type), _with_fields(arrow.item_type))
    if pat.is_list(arrow):
        return pa.list_(_with_fields(arrow.value_type))
    if pat.is_struct(arrow):
        fields = [(field.name, _with_fields(field.type)) for field in arrow.fields]
        distinct = len({name_key(name) for name, _ in fields}) == len(fields) > 0
        return pa.struct(fields) if distinct else pa.string()
    return arrow


@lru_cache(maxsize=256)
def arrow_schema(schema: Schema) -> pa.Schema:
    """The Arrow schema that files of ``schema`` are written with: field ids, all nullable."""
    return pa.schema(_fields(schema.columns))


def _fields(columns: Iterable[Column]) -> list[pa.Field]:
    return [
        pa.field(
            column.name,
            to_arrow(column.type),
            nullable=True,
            metadata={FIELD_ID: str(column.id).encode()},
        )
        for column in columns
    ]


def schema_from_arrow(arrow: pa.Schema, first_id: int = 1, vectors: bool = True) -> Schema:
    """The logical schema of ``arrow``: ids count up from ``first_id`` in display order;
    ``vectors`` as in ``from_arrow``."""
    columns = tuple(
        Column(id=first_id + index, name=field.name, type=from_arrow(field.type, vectors))
        for index, field in enumerate(arrow)
    )
    return Schema(id=1, columns=columns)
