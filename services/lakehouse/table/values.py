"""Values as JSON texts and back, exactly: how the journal keeps what a field was (ADR-012).

Integers and decimals are numbers with all their digits. Doubles are the shortest number that reads
back the same, with a point or an exponent; what JSON has no number for is a string: ``"NaN"``,
``"Infinity"``, ``"-Infinity"``, and a NaN with other bits ``"NaN:7ff8000000000001"``. Times are
strings, RFC 3339, without a fraction of zeros; those outside the years 1 to 9999, which it cannot
write, are numbers: days or microseconds since 1970. Binary is base64, a list an array, a struct an
object, a map an array of pairs.

The form for clients differs where a reader that takes numbers for doubles would alter a value:
integers beyond 2^53 and decimals of more than 15 digits are strings there, and NaN is null.
"""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.schema import Schema
from lakehouse.table.cells import flat
from lakehouse.table.infer import EXACT_INTEGER_MAX
from lakehouse.table.types import to_arrow

__all__ = ["from_json_texts", "json_texts", "row_json", "rows_json"]

_SAFE_DIGITS: Final = 15
_ESCAPES: Final = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))
_UNSAFE: Final = r'["\\\x00-\x1f]'
_CONTROL: Final = r"[\x00-\x1f]"
_NOT_DIGITS: Final = r"^-?0*\.?0*|\."
_NUMBER: Final = r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$"
_PLAIN: Final = r"^(true|false|-?\d+(\.\d+)?([eE][+-]?\d+)?)$"
_SIMPLE: Final = r'^"[^"\\\x00-\x1f]*"$'
_DAY_US: Final = 86_400_000_000
_YEAR_ONE_DAYS: Final = -719_162
_YEAR_TEN_THOUSAND_DAYS: Final = 2_932_897
_NAN_BITS: Final = 0x7FF8000000000000
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
        if pat.is_nested(arrow):
            return _build([_parse(text) for text in texts.to_pylist()], arrow)
        return _read(_contents(texts), arrow)
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
    if pat.is_list(arrow):
        return _joined(values, pc.fill_null(_texts(_items(values.values, values), client), "null"))
    if pat.is_struct(arrow):
        return _struct_texts(values, client)
    return _time_texts(values)


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
    bits = values.view(pa.uint64())
    odd = pc.and_(pc.is_nan(values), pc.not_equal(bits, pa.scalar(_NAN_BITS, pa.uint64())))
    odd = pc.fill_null(odd, False)
    if not _any(odd):
        return texts
    spelled_bits = [f'"NaN:{value:016x}"' for value in bits.filter(odd).to_pylist()]
    return pc.replace_with_mask(texts, odd, pa.array(spelled_bits, pa.string()))


def _decimal_texts(values: pa.Array, client: bool) -> pa.Array:
    texts = values.cast(pa.string())
    scientific = pc.fill_null(pc.match_substring(texts, "E"), False)
    if _any(scientific):
        plain = [format(value, "f") for value in values.filter(scientific).to_pylist()]
        texts = pc.replace_with_mask(texts, scientific, pa.array(plain, pa.string()))
    if not client:
        return texts
    digits = pc.replace_substring_regex(texts, _NOT_DIGITS, "")
    return pc.if_else(pc.greater(pc.binary_length(digits), _SAFE_DIGITS), _quoted(texts), texts)


def _time_texts(values: pa.Array) -> pa.Array:
    texts = values.cast(pa.string())
    if pat.is_timestamp(values.type):
        texts = pc.replace_substring(texts, " ", "T", max_replacements=1)
    if not pat.is_date(values.type):
        texts = pc.replace_substring_regex(texts, r"\.000000(Z?)$", r"\1")
    texts = _quoted(texts)
    if pat.is_time(values.type):
        return texts
    counts = _counts(values)
    written = _writable(counts, values.type)
    return pc.if_else(written, texts, counts.cast(pa.string()))


def _counts(values: pa.Array) -> pa.Array:
    """Dates and timestamps as days or microseconds since 1970."""
    narrow = pa.int32() if pat.is_date(values.type) else pa.int64()
    return values.view(narrow).cast(pa.int64())


def _writable(counts: pa.Array, arrow: pa.DataType) -> pa.Array:
    """Whether RFC 3339 has a text for the time."""
    unit = 1 if pat.is_date(arrow) else _DAY_US
    first, after = _YEAR_ONE_DAYS * unit, _YEAR_TEN_THOUSAND_DAYS * unit
    return pc.and_(pc.greater_equal(counts, first), pc.less(counts, after))


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


# Texts to values. "Contents" are texts without the quotes and escapes of a JSON string.


class _Number(str):
    """A JSON number, as it was written."""

    __slots__ = ()


def _parse(text: str | None) -> Any:
    if text is None:
        return None
    return json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=_refuse)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _contents(texts: pa.Array) -> pa.Array:
    """What stands in each JSON text, as text: a string's characters, anything else as it is."""
    texts = pc.utf8_trim_whitespace(texts)
    texts = pc.if_else(pc.equal(texts, "null"), pa.scalar(None, pa.string()), texts)
    if not _any(pc.invert(pc.match_substring_regex(texts, _PLAIN))):
        return texts
    simple = pc.match_substring_regex(texts, _SIMPLE)
    result = pc.if_else(simple, pc.utf8_slice_codeunits(texts, 1, -1), texts)
    odd = pc.invert(pc.or_(simple, pc.match_substring_regex(texts, _PLAIN)))
    odd = pc.fill_null(odd, False)
    if not _any(odd):
        return result
    parsed = [_content(text) for text in texts.filter(odd).to_pylist()]
    return pc.replace_with_mask(result, odd, pa.array(parsed, pa.string()))


def _content(text: str) -> str:
    value = _parse(text)
    return value if isinstance(value, str) else text


def _all(mask: pa.Array) -> bool:
    return bool(pc.all(mask, min_count=0).as_py())


def _require(mask: pa.Array, what: str) -> None:
    if not _all(mask):
        raise ValueError(what)


def _read(contents: pa.Array, arrow: pa.DataType) -> pa.Array:
    """Contents as values of a type without children."""
    if pat.is_string(arrow):
        return contents
    if pat.is_binary(arrow):
        decoded = [
            None if text is None else base64.b64decode(text, validate=True)
            for text in contents.to_pylist()
        ]
        return pa.array(decoded, arrow)
    if pat.is_boolean(arrow):
        known = pa.array(["true", "false"])
        _require(pc.is_in(contents.drop_null(), value_set=known), "a boolean is true or false")
        return pc.equal(contents, "true")
    if pat.is_floating(arrow):
        return _read_floats(contents)
    if pat.is_integer(arrow):
        _require(pc.match_substring_regex(contents, r"^-?\d+$"), "an integer has digits only")
        return contents.cast(arrow)
    if pat.is_decimal(arrow):
        _require(pc.match_substring_regex(contents, _NUMBER), "a decimal is a number")
        return contents.cast(arrow)
    return _read_times(contents, arrow)


def _read_floats(contents: pa.Array) -> pa.Array:
    number = pc.match_substring_regex(contents, _NUMBER)
    if _all(number):
        return contents.cast(pa.float64())
    names = pa.array(["NaN", "Infinity", "-Infinity"])
    named = pc.fill_null(pc.is_in(contents, value_set=names), False)
    bits = pc.fill_null(pc.match_substring_regex(contents, r"^NaN:[0-9a-f]{16}$"), False)
    _require(pc.or_(number, pc.or_(named, bits)), "a double is a number")
    values = pc.if_else(bits, "NaN", contents).cast(pa.float64())
    if not _any(bits):
        return values
    spelled = [int(text[4:], 16) for text in contents.filter(bits).to_pylist()]
    raw = pc.replace_with_mask(values.view(pa.uint64()), bits, pa.array(spelled, pa.uint64()))
    return raw.view(pa.float64())


def _read_times(contents: pa.Array, arrow: pa.DataType) -> pa.Array:
    if pat.is_time(arrow):
        # There is no cast from text to a time of day: it is the time of the first day.
        stamps = pc.binary_join_element_wise("1970-01-01T", contents, "").cast(pa.timestamp("us"))
        return stamps.view(pa.int64()).cast(arrow)
    counted = pc.fill_null(pc.match_substring_regex(contents, r"^-?\d{5,}$"), False)
    if not _any(counted):
        return contents.cast(arrow)
    counts = pc.if_else(counted, contents, pa.scalar(None, pa.string())).cast(pa.int64())
    _require(pc.invert(_writable(counts, arrow)), "a date or time is a string, RFC 3339")
    texts = pc.if_else(counted, pa.scalar(None, pa.string()), contents)
    narrow = pa.int32() if pat.is_date(arrow) else pa.int64()
    return pc.coalesce(texts.cast(arrow), counts.cast(narrow).view(arrow))


def _build(values: list[Any], arrow: pa.DataType) -> pa.Array:
    """Parsed JSON values as values of a type, level by level."""
    absent = pa.array([value is None for value in values], pa.bool_())
    if pat.is_map(arrow):
        pairs = [_pairs(value) for value in values]
        keys = _build([pair[0] for each in pairs for pair in each], arrow.key_type)
        items = _build([pair[1] for each in pairs for pair in each], arrow.item_type)
        return pa.MapArray.from_arrays(_offsets(pairs), keys, items, type=arrow, mask=absent)
    if pat.is_list(arrow):
        lists = [_expect(value, list, []) for value in values]
        inner = _build([item for each in lists for item in each], arrow.value_type)
        return pa.ListArray.from_arrays(_offsets(lists), inner, type=arrow, mask=absent)
    if pat.is_struct(arrow):
        return _build_structs([_expect(value, dict, {}) for value in values], arrow, absent)
    return _read(pa.array([_leaf(value) for value in values], pa.string()), arrow)


def _build_structs(values: list[dict[str, Any]], arrow: pa.DataType, absent: pa.Array) -> pa.Array:
    names = {field.name for field in arrow.fields}
    for value in values:
        if not names.issuperset(value):
            raise ValueError(f"a struct has no field {min(set(value) - names)!r}")
    if not names:
        empty: list[dict[str, Any] | None] = [None if null else {} for null in absent.to_pylist()]
        return pa.array(empty, arrow)
    children = [_build([v.get(field.name) for v in values], field.type) for field in arrow.fields]
    return pa.StructArray.from_arrays(children, fields=list(arrow.fields), mask=absent)


def _offsets(lists: list[Any]) -> pa.Array:
    return pa.array([0, *itertools.accumulate(len(each) for each in lists)], pa.int32())


def _expect(value: Any, kind: type, default: Any) -> Any:
    if value is None:
        return default
    if not isinstance(value, kind):
        raise TypeError(f"a JSON {kind.__name__} is wanted")
    return value


def _pairs(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.items())
    pairs: list[Any] = _expect(value, list, [])
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError("a map is an array of pairs")
    return pairs


def _leaf(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    raise TypeError("an array or object where a single value is wanted")
