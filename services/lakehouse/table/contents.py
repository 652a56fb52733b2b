"""JSON texts as columns: the way back of ``table.values``, by columns at every level.

"Contents" are JSON texts without the quotes and escapes of a string; what they mean is the type's.
Everything here raises ``ValueError``, ``TypeError`` or Arrow's exceptions for what does not fit.
"""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

__all__ = ["read_texts", "writable"]

_NUMBER: Final = r"^-?\d+(\.\d+)?([eE][+-]?\d+)?$"
_PLAIN: Final = r"^(true|false|-?\d+(\.\d+)?([eE][+-]?\d+)?)$"
_SIMPLE: Final = r'^"[^"\\\x00-\x1f]*"$'
_DAY_US: Final = 86_400_000_000
_YEAR_ONE_DAYS: Final = -719_162
_YEAR_TEN_THOUSAND_DAYS: Final = 2_932_897


def read_texts(texts: pa.Array, arrow: pa.DataType) -> pa.Array:
    """JSON texts (string) as values of ``arrow``; null and ``null`` give null."""
    if pat.is_nested(arrow):
        return _build([_parse(text) for text in texts.to_pylist()], arrow)
    return _read(_contents(texts), arrow)


def writable(counts: pa.Array, arrow: pa.DataType) -> pa.Array:
    """Whether RFC 3339 has a text for the time."""
    unit = 1 if pat.is_date(arrow) else _DAY_US
    first, after = _YEAR_ONE_DAYS * unit, _YEAR_TEN_THOUSAND_DAYS * unit
    return pc.and_(pc.greater_equal(counts, first), pc.less(counts, after))


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


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())


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
        return _read_floats(contents, arrow)
    if pat.is_integer(arrow):
        _require(pc.match_substring_regex(contents, r"^-?\d+$"), "an integer has digits only")
        return contents.cast(arrow)
    if pat.is_decimal(arrow):
        _require(pc.match_substring_regex(contents, _NUMBER), "a decimal is a number")
        return contents.cast(arrow)
    return _read_times(contents, arrow)


def _read_floats(contents: pa.Array, arrow: pa.DataType) -> pa.Array:
    number = pc.match_substring_regex(contents, _NUMBER)
    if _all(number):
        return _within(contents.cast(arrow), arrow)
    names = pa.array(["NaN", "Infinity", "-Infinity"])
    named = pc.fill_null(pc.is_in(contents, value_set=names), False)
    digits, unsigned = arrow.bit_width // 4, pa.uint64() if arrow.bit_width == 64 else pa.uint32()
    bits = pc.match_substring_regex(contents, f"^NaN:[0-9a-f]{{{digits}}}$")
    bits = pc.fill_null(bits, False)
    _require(pc.or_(number, pc.or_(named, bits)), "a double is a number")
    values = pc.if_else(bits, "NaN", contents).cast(arrow)
    _within(values.filter(number), arrow)
    if not _any(bits):
        return values
    spelled = [int(text[4:], 16) for text in contents.filter(bits).to_pylist()]
    raw = pc.replace_with_mask(values.view(unsigned), bits, pa.array(spelled, unsigned))
    return raw.view(arrow)


def _within(values: pa.Array, arrow: pa.DataType) -> pa.Array:
    """``values``; of float32 none may have become infinite by being read as one."""
    if pat.is_float32(arrow):
        _require(pc.is_finite(values), "a number is beyond float32")
    return values


def _read_times(contents: pa.Array, arrow: pa.DataType) -> pa.Array:
    if pat.is_time(arrow):
        # There is no cast from text to a time of day: it is the time of the first day.
        stamps = pc.binary_join_element_wise("1970-01-01T", contents, "").cast(pa.timestamp("us"))
        return stamps.view(pa.int64()).cast(arrow)
    counted = pc.fill_null(pc.match_substring_regex(contents, r"^-?\d{5,}$"), False)
    if not _any(counted):
        return contents.cast(arrow)
    counts = pc.if_else(counted, contents, pa.scalar(None, pa.string())).cast(pa.int64())
    _require(pc.invert(writable(counts, arrow)), "a date or time is a string, RFC 3339")
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
    if pat.is_fixed_size_list(arrow):
        return _build_vectors([_expect(value, list, None) for value in values], arrow, absent)
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


def _build_vectors(values: list[Any], arrow: pa.FixedSizeListType, absent: pa.Array) -> pa.Array:
    size = arrow.list_size
    if any(value is not None and len(value) != size for value in values):
        raise ValueError(f"a vector has {size} numbers")
    zeros = [_Number("0")] * size
    numbers = [item for value in values for item in (zeros if value is None else value)]
    if None in numbers:
        raise ValueError("a vector has no nulls within")
    inner = _build(numbers, arrow.value_type)
    return pa.FixedSizeListArray.from_arrays(inner, type=arrow, mask=absent)


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
