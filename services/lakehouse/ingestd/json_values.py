"""JSON values as columns: in bulk by Arrow's parser where it is exact, else value by value.

Exactness: integers beyond 64 bits and integers that would be rounded among floats are found before
the bulk parser may round them; then the careful path keeps their text. Fractions are doubles, as
JSON's numbers are everywhere, unless more digits were written than a double holds: those become
text too. A field that has several kinds of values becomes a string column of their JSON texts (a
string as it is).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json
import pyarrow.types as pat

from lakehouse.model.refs import name_key
from lakehouse.table.infer import EXACT_INTEGER_MAX, read_text

_DIGITS: Final = bytes.maketrans(b"123456789.", b"0000000000")
_LONG: Final = b"0" * 16
_LONG_INTEGER: Final = re.compile(rb"[\s:,\[]-?[0-9]{16,}\s*[,}\]\s]")
_FRACTION: Final = re.compile(rb"[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)")
_FAR: Final = (b"0e000", b"0e+000", b"0e-000", b"0E000", b"0E+000", b"0E-000")
_FAR_NUMBER: Final = r"[\s:,\[]-?[0-9]+(\.[0-9]+)?[eE][+-]?[0-9]{3,}\s*[,}\]\s]"
_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STRING: Final = re.compile(rb'"[^"]*"')
_FLOAT_DIGITS_ALWAYS: Final = 15
_NORMAL_MIN: Final = 2.2250738585072014e-308
_INT64: Final = range(-(2**63), 2**63)
WRAP: Final = "v"


class Inexact(Exception):
    """The bulk parser would alter a value, or cannot read the block; read it value by value."""


def unescaped(data: bytes) -> bytes:
    """The same length, without escaped quotes and backslashes: quotes now tell by parity."""
    if b"\\" not in data:
        return data
    return data.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def too_deep(data: bytes, depth_max: int) -> bool:
    """True if brackets outside strings nest deeper than ``depth_max``."""
    brackets = data.translate(None, _NOT_BRACKETS)
    if not _reduces(brackets, depth_max):
        # Brackets in strings may not pair: look again without strings.
        bare = _STRING.sub(b"", unescaped(data)).translate(None, _NOT_BRACKETS)
        return not _reduces(bare, depth_max) and _depth(bare) > depth_max
    return False


def _reduces(brackets: bytes, depth_max: int) -> bool:
    for _ in range(depth_max):
        if not brackets:
            return True
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
    return not brackets


def _depth(brackets: bytes) -> int:
    depth = deepest = 0
    for byte in brackets:
        depth += 1 if byte in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def bulk(data: bytes, wrapped: bool, strings: frozenset[str]) -> pa.RecordBatch:
    """A block of objects by Arrow's parser; raises ``Inexact`` where it cannot be trusted.

    Args:
        data: objects one after the other; ``wrapped``: separated by commas, as in an array.
        strings: fields known to hold strings, so that no date is made of them here.
    """
    digits = data.translate(_DIGITS)
    if any(far in digits for far in _FAR) and _has_far(data):
        # An exponent that a double may not have: infinite, or zero.
        raise Inexact
    if _LONG in digits:
        if _LONG_INTEGER.search(b" " + data + b" "):
            raise Inexact
        fractions = pa.array(_FRACTION.findall(data), pa.binary()).cast(pa.string())
        if read_text(fractions, "float64", ()) is None:
            raise Inexact
    if wrapped:
        data = b'{"' + WRAP.encode() + b'":[' + data + b"]}"
    batch = _read(data, wrapped, strings)
    dated = frozenset(field.name for field in batch.schema if _has_timestamp(field.type))
    if dated:
        if any(pat.is_nested(batch.schema.field(name).type) for name in dated):
            raise Inexact
        order = batch.schema.names
        batch = _read(data, wrapped, strings | dated)
        batch = batch.select([name for name in order if name in batch.schema.names])
    return batch


def _has_far(data: bytes) -> bool:
    # Arrow's expressions are many times faster than Python's, and hex digits look like this often.
    text = pa.array([b" " + data + b" "], pa.large_binary())
    return bool(pc.match_substring_regex(text, _FAR_NUMBER)[0].as_py())


def _has_timestamp(arrow: pa.DataType) -> bool:
    if pat.is_struct(arrow):
        return any(_has_timestamp(field.type) for field in arrow.fields)
    if pat.is_list(arrow):
        return _has_timestamp(arrow.value_type)
    return bool(pat.is_timestamp(arrow))


def _read(data: bytes, wrapped: bool, strings: frozenset[str]) -> pa.RecordBatch:
    fields = [(name, pa.string()) for name in sorted(strings)]
    schema = pa.schema(fields)
    if wrapped:
        schema = pa.schema([(WRAP, pa.list_(pa.struct(fields)))])
    try:
        table = pa_json.read_json(
            pa.BufferReader(data),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pa_json.ParseOptions(
                newlines_in_values=True,
                explicit_schema=schema if fields else None,
                unexpected_field_behavior="infer",
            ),
        )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise Inexact from error
    batches = table.combine_chunks().to_batches()
    if len(batches) != 1:
        raise Inexact
    if not wrapped:
        return batches[0]
    rows = batches[0].column(0).flatten()
    if not pat.is_struct(rows.type) or rows.null_count or rows.type.num_fields == 0:
        raise Inexact
    return pa.RecordBatch.from_arrays(rows.flatten(), names=[f.name for f in rows.type.fields])


class Written(float):
    """A double that says all that its text said; and the text."""

    __slots__ = ("text",)
    text: str


@dataclass(frozen=True, slots=True)
class Unsaid:
    """A number that no double is; its text."""

    text: str


def _number(text: str) -> Written | Unsaid:
    value = Written(text)
    value.text = text
    digits = text.lower().partition("e")[0].replace(".", "").strip("-0")
    if not digits:
        return value
    if not value or abs(value) == float("inf"):
        return Unsaid(text)
    if len(digits) <= _FLOAT_DIGITS_ALWAYS and abs(value) >= _NORMAL_MIN:
        return value
    # Neither infinite nor zero, so the exponent is one that a decimal has too.
    same = Decimal(float.__repr__(value)) == Decimal(text)
    return value if same else Unsaid(text)


class Repeated(dict[str, Any]):
    """An object that has a field twice; ``items`` are all of its fields."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def items(self) -> Any:
        return self._pairs


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Repeated(pairs)


def has_repeated(value: Any) -> bool:
    """True if an object in ``value`` has a field twice."""
    if isinstance(value, Repeated):
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(has_repeated(one) for one in inner)


_DECODER: Final = json.JSONDecoder(parse_float=_number, object_pairs_hook=_object, strict=False)


def decode(text: str) -> Any:
    """One JSON value; fractions are ``Written`` or ``Unsaid``. Raises ValueError."""
    return _DECODER.decode(text)


def decode_next(text: str, at: int) -> tuple[Any, int]:
    """The value that starts at ``at``, and where it ends. Raises ValueError."""
    return _DECODER.raw_decode(text, at)


def columns_of(
    objects: Sequence[dict[str, Any]], nested_as_text: bool, as_text: frozenset[str] = frozenset()
) -> pa.RecordBatch:
    """Objects as columns, fields in the order they are first met. The careful path: it loops.

    ``as_text``: fields (by ``name_key``) whose values are wanted as their JSON texts.
    """
    names = list(dict.fromkeys(name for one in objects for name in one))
    arrays = [
        texts_of([one.get(name) for one in objects])
        if name_key(name) in as_text
        else column_of([one.get(name) for one in objects], nested_as_text)
        for name in names
    ]
    if not names:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * len(objects), pa.struct([])))
    return pa.RecordBatch.from_arrays(arrays, names=names)


def column_of(values: Sequence[Any], nested_as_text: bool) -> pa.Array:
    """The narrowest column that holds all of ``values``; their JSON texts if none does."""
    kinds = {type(value) for value in values if value is not None}
    if Written in kinds:
        kinds = kinds - {Written} | {float}
    try:
        if kinds <= {int, float} and kinds and not _rounds(values, kinds):
            return pa.array(values, pa.float64() if float in kinds else pa.int64())
        if len(kinds) <= 1 and kinds <= {str, bool}:
            return pa.array(values)
        if not nested_as_text and len(kinds) == 1 and kinds <= {dict, list}:
            return _without_dates(pa.array(values), values)
    except (pa.ArrowException, OverflowError):
        pass
    return texts_of(values)


def texts_of(values: Sequence[Any]) -> pa.Array:
    """Strings as they are; of anything else the JSON text, compact, numbers as written."""
    texts = [one if one is None or isinstance(one, str) else json_text(one) for one in values]
    return pa.array(texts, pa.string())


def _rounds(values: Iterable[Any], kinds: set[type]) -> bool:
    integers = [value for value in values if isinstance(value, int)]
    if float in kinds:
        return any(abs(value) > EXACT_INTEGER_MAX for value in integers)
    return any(value not in _INT64 for value in integers)


def _without_dates(array: pa.Array, values: Sequence[Any]) -> pa.Array:
    # ``pa.array`` mixes int and float in a list without a word.
    if _has_float(array.type) and _big_integer(values):
        raise OverflowError
    return array


def _has_float(arrow: pa.DataType) -> bool:
    if pat.is_struct(arrow):
        return any(_has_float(field.type) for field in arrow.fields)
    if pat.is_list(arrow):
        return _has_float(arrow.value_type)
    return bool(pat.is_floating(arrow))


def _big_integer(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_big_integer(one) for one in value.values())
    if isinstance(value, list | tuple):
        return any(_big_integer(one) for one in value)
    return isinstance(value, int) and abs(value) > EXACT_INTEGER_MAX


def json_text(value: Any) -> str:
    """What was decoded, as compact JSON. Its depth was checked before it was decoded."""
    if isinstance(value, Written | Unsaid):
        return value.text
    if isinstance(value, dict):
        pairs = (f"{_quoted(name)}:{json_text(one)}" for name, one in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(json_text(one) for one in value) + "]"
    return _quoted(value)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
