"""Values as JSON texts and back, exactly: how the journal keeps what a field was (ADR-012).

Integers are numbers with all their digits, decimals strings, for most readers of JSON would round
them. Doubles are the shortest number that reads back the same, with a point or an exponent; what
JSON has no number for is a string: ``"NaN"``, ``"Infinity"``, ``"-Infinity"``, and a NaN with other
bits ``"NaN:7ff8000000000001"``. Times are strings, RFC 3339, without a fraction of zeros; those
outside the years 1 to 9999, which it cannot write, are numbers: days or microseconds since 1970.
Binary is base64, a list or vector an array, a struct an object, a map an array of pairs; the
numbers of a vector are the shortest that read back as the same float32.

The form for clients differs: a decimal of at most 15 digits is a number, an integer beyond 2^53 and
a far time a string, NaN and infinities are null.
"""

from __future__ import annotations

import base64
import json
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.schema import Schema
from lakehouse.table.cells import flat
from lakehouse.table.contents import read_texts, writable
from lakehouse.table.infer import EXACT_INTEGER_MAX
from lakehouse.table.types import to_arrow
from lakehouse.table.vectors import as_lists

__all__ = ["from_json_texts", "json_texts", "row_json", "rows_json"]

_SAFE_DIGITS: Final = 15
_ESCAPES: Final = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))
_UNSAFE: Final = r'["\\\x00-\x1f]'
_CONTROL: Final = r"[\x00-\x1f]"
_NOT_DIGITS: Final = r"^-?0*\.?0*|\."
_NAN_BITS: Final = 0x7FF8000000000000
_NAN_BITS_32: Final = 0x7FC00000
_ODD_FLOATS: Final = (("nan", '"NaN"'), ("inf", '"Infinity"'), ("-inf", '"-Infinity"'))


def json_texts(values: pa.Array | pa.ChunkedArray, type_text: str) -> pa.Array:
    """Each value as JSON text (string); null for null. ``values`` are of ``type_text``."""
    return _texts(_typed(flat(values), type_text), False)


def from_json_texts(texts: pa.Array | pa.ChunkedArray, type_text: str) -> pa.Array:
    """The inverse of ``json_texts``; null and ``null`` give null.

    What is written another way but means a value of the type is read too: a number as a string, a
    date as the timestamp of its midnight, and anything as a string. Raises ``invalid`` for others.
    """
    arrow = to_arrow(type_text)
    texts = flat(texts)
    try:
        return read_texts(texts, arrow)
    except (pa.ArrowException, ValueError, OverflowError, TypeError, RecursionError) as error:
        raise LakehouseError(
            ErrorKind.INVALID,
            "a value is not of its type",
            type_text=type_text,
            cause=str(error)[:200],
            hint="write numbers as JSON numbers, times as RFC 3339, binary as base64",
        ) from error


def rows_json(table: pa.Table, schema: Schema) -> pa.Array:
    """Each row as a JSON object for clients, fields in the order of ``schema``; a column that
    ``table`` lacks is null."""
    parts: list[pa.Array | str] = []
    for column in schema.columns:
        parts.append(("," if parts else "{") + json.dumps(column.name, ensure_ascii=False) + ":")
        at = table.schema.get_field_index(column.name)
        if at < 0:
            parts.append("null")
        else:
            parts.append(pc.fill_null(_texts(flat(table.column(at)), True), "null"))
    if not any(isinstance(part, pa.Array) for part in parts):
        parts.insert(0, pa.repeat("", table.num_rows))
    return pc.binary_join_element_wise(*parts, "}" if schema.columns else "{}", "")


def row_json(table: pa.Table, index: int, schema: Schema) -> str:
    """The row at ``index`` as a JSON object for clients."""
    return str(rows_json(table.slice(index, 1), schema)[0].as_py())


def _typed(values: pa.Array, type_text: str) -> pa.Array:
    arrow = to_arrow(type_text)
    return values if values.type == arrow else values.cast(arrow)


# Values to texts. A null gives null, within a nested value ``null``.


def _texts(values: pa.Array, client: bool) -> pa.Array:
    arrow = values.type
    if pat.is_string(arrow):
        return _string_texts(values)
    if pat.is_boolean(arrow):
        return values.cast(pa.string())
    if pat.is_integer(arrow):
        return _integer_texts(values, client)
    if pat.is_floating(arrow):
        return _float_texts(values, client)
    if pat.is_decimal(arrow):
        return _decimal_texts(values, client)
    if pat.is_binary(arrow):
        encoded = [None if v is None else base64.b64encode(v).decode() for v in values.to_pylist()]
        return _quoted(pa.array(encoded, pa.string()))
    if pat.is_map(arrow):
        return _map_texts(values, client)
    if pat.is_fixed_size_list(arrow):
        return _texts(as_lists(values), client)
    if pat.is_list(arrow):
        return _joined(values, pc.fill_null(_texts(_items(values.values, values), client), "null"))
    if pat.is_struct(arrow):
        return _struct_texts(values, client)
    return _time_texts(values, client)


def _quoted(texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('"', texts, '"', "")


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())


def _string_texts(values: pa.Array) -> pa.Array:
    if not _any(pc.match_substring_regex(values, _UNSAFE)):
        return _quoted(values)
    escaped = values
    for raw, spelled in _ESCAPES:
        escaped = pc.replace_substring(escaped, raw, spelled)
    result = _quoted(escaped)
    rare = pc.fill_null(pc.match_substring_regex(escaped, _CONTROL), False)
    if not _any(rare):
        return result
    dumped = [json.dumps(text, ensure_ascii=False) for text in values.filter(rare).to_pylist()]
    return pc.replace_with_mask(result, rare, pa.array(dumped, pa.string()))


def _integer_texts(values: pa.Array, client: bool) -> pa.Array:
    texts = values.cast(pa.string())
    if not client:
        return texts
    wide = pc.greater(values, pa.scalar(EXACT_INTEGER_MAX, values.type))
    if pat.is_signed_integer(values.type):
        wide = pc.or_(wide, pc.less(values, pa.scalar(-EXACT_INTEGER_MAX, values.type)))
    return pc.if_else(wide, _quoted(texts), texts)


def _float_texts(values: pa.Array, client: bool) -> pa.Array:
    texts = values.cast(pa.string())
    whole = pc.match_substring_regex(texts, r"^-?\d+$")
    texts = pc.if_else(whole, pc.binary_join_element_wise(texts, ".0", ""), texts)
    if not _any(pc.invert(pc.is_finite(values))):
        return texts
    if client:
        return pc.if_else(pc.is_finite(values), texts, pa.scalar(None, pa.string()))
    for spelled, wanted in _ODD_FLOATS:
        texts = pc.if_else(pc.equal(texts, spelled), wanted, texts)
    wide = values.type.bit_width == 64
    unsigned, plain = (pa.uint64(), _NAN_BITS) if wide else (pa.uint32(), _NAN_BITS_32)
    bits = values.view(unsigned)
    odd = pc.and_(pc.is_nan(values), pc.not_equal(bits, pa.scalar(plain, unsigned)))
    odd = pc.fill_null(odd, False)
    if not _any(odd):
        return texts
    digits = 16 if wide else 8
    spelled_bits = [f'"NaN:{value:0{digits}x}"' for value in bits.filter(odd).to_pylist()]
    return pc.replace_with_mask(texts, odd, pa.array(spelled_bits, pa.string()))


def _decimal_texts(values: pa.Array, client: bool) -> pa.Array:
    texts = values.cast(pa.string())
    scientific = pc.fill_null(pc.match_substring(texts, "E"), False)
    if _any(scientific):
        plain = [format(value, "f") for value in values.filter(scientific).to_pylist()]
        texts = pc.replace_with_mask(texts, scientific, pa.array(plain, pa.string()))
    if not client:
        return _quoted(texts)
    digits = pc.replace_substring_regex(texts, _NOT_DIGITS, "")
    return pc.if_else(pc.greater(pc.binary_length(digits), _SAFE_DIGITS), _quoted(texts), texts)


def _time_texts(values: pa.Array, client: bool) -> pa.Array:
    texts = values.cast(pa.string())
    if pat.is_timestamp(values.type):
        texts = pc.replace_substring(texts, " ", "T", max_replacements=1)
    if not pat.is_date(values.type):
        texts = pc.replace_substring_regex(texts, r"\.000000(Z?)$", r"\1")
    texts = _quoted(texts)
    if pat.is_time(values.type):
        return texts
    counts = _counts(values)
    written = writable(counts, values.type)
    far = counts.cast(pa.string())
    return pc.if_else(written, texts, _quoted(far) if client else far)


def _counts(values: pa.Array) -> pa.Array:
    """Dates and timestamps as days or microseconds since 1970."""
    narrow = pa.int32() if pat.is_date(values.type) else pa.int64()
    return values.view(narrow).cast(pa.int64())


def _items(items: pa.Array, values: pa.Array) -> pa.Array:
    """``items`` between the first and the last offset of ``values``, those of null lists too."""
    first, last = values.offsets[0].as_py(), values.offsets[-1].as_py()
    return items.slice(first, last - first)


def _joined(values: pa.Array, texts: pa.Array) -> pa.Array:
    """``texts`` of the ``_items`` of ``values``, as one array a list."""
    offsets = pc.subtract(values.offsets, values.offsets[0])
    inner = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), ",")
    result = pc.binary_join_element_wise("[", inner, "]", "")
    return pc.if_else(pc.is_valid(values), result, pa.scalar(None, pa.string()))


def _map_texts(values: pa.Array, client: bool) -> pa.Array:
    keys = _texts(_items(values.keys, values), client)
    items = pc.fill_null(_texts(_items(values.items, values), client), "null")
    return _joined(values, pc.binary_join_element_wise("[", keys, ",", items, "]", ""))


def _struct_texts(values: pa.Array, client: bool) -> pa.Array:
    parts: list[pa.Array | str] = [pa.repeat("{", len(values))]
    for index, field in enumerate(values.type.fields):
        lead = "," if index else ""
        parts.append(lead + json.dumps(field.name, ensure_ascii=False) + ":")
        parts.append(pc.fill_null(_texts(values.field(index), client), "null"))
    result = pc.binary_join_element_wise(*parts, "}", "")
    return pc.if_else(pc.is_valid(values), result, pa.scalar(None, pa.string()))
