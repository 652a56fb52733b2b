"""Columns as text, whole columns at a time: JSON and CSV spelling of every logical type.

JSON: integers beyond 2^53 and decimals of more than 15 digits are strings (a reader that takes
numbers for doubles would change them), times RFC 3339, binary base64, NaN and infinities null.
CSV (RFC 4180): null is empty, the empty string ``""``, a field is quoted where it must be; nested
values are their JSON text; NaN and infinities ``NaN`` ``Infinity`` ``-Infinity``.
"""

from __future__ import annotations

import base64
import math
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.table.vectors import as_lists

SAFE_INTEGER: Final = 1 << 53
SAFE_DIGITS: Final = 15  # every decimal of so many digits survives as a double
_JSON_ESCAPES: Final = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))
_JSON_UNSAFE: Final = r'["\\\x00-\x1f]'
_CONTROL: Final = r"[\x00-\x1f]"
_NO_DIGITS: Final = r"^-?0*\.?0*|\."  # sign, leading zeros, point
_CSV_UNSAFE: Final = r'[",\r\n]'


def json_texts(column: pa.Array) -> pa.Array:
    """Each value of ``column`` as JSON; ``null`` for null. No value is null in the result."""
    return pc.fill_null(_json_or_null(column), "null")


def json_rows(batch: pa.RecordBatch) -> bytes:
    """The rows of ``batch`` as JSON arrays with commas between them; for a few rows faster than
    ``json_texts``, whose cost is by column."""
    columns = [_plain_values(column) for column in batch.columns]
    return orjson.dumps(list(zip(*columns, strict=True)))[1:-1]


def _plain_values(column: pa.Array) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if pat.is_string(column.type) or pat.is_boolean(column.type):
        return values
    return [_plain_value(value) for value in values]


def csv_texts(column: pa.Array) -> pa.Array:
    """Each value of ``column`` as one CSV field; empty for null."""
    kind = column.type
    if pat.is_string(kind):
        texts = _csv_quoted(column)
    elif pat.is_floating(kind):
        texts = _float_texts(column)
        for spelled, wanted in (("nan", "NaN"), ("inf", "Infinity"), ("-inf", "-Infinity")):
            texts = pc.if_else(pc.equal(texts, spelled), wanted, texts)
    elif pat.is_decimal(kind):
        texts = _decimal_texts(column)
    elif pat.is_nested(kind):
        texts = _csv_quoted(_json_or_null(column))
    elif pat.is_binary(kind):
        texts = _base64_texts(column)
    else:
        texts = _plain_texts(column)
    return pc.fill_null(texts, "")


def csv_field(text: str) -> str:
    """One name as a CSV field."""
    if text == "" or any(char in text for char in '",\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _json_or_null(column: pa.Array) -> pa.Array:
    kind = column.type
    if pat.is_string(kind):
        return _json_strings(column)
    if pat.is_integer(kind):
        return _json_integers(column)
    if pat.is_floating(kind):
        finite = pc.is_finite(column)
        return _float_texts(pc.if_else(finite, column, pa.scalar(None, kind)))
    if pat.is_boolean(kind):
        return pc.cast(column, pa.string())
    if pat.is_fixed_size_list(kind):
        return _json_vectors(column)
    if pat.is_nested(kind):
        values = [None if v is None else _nested_json(v, kind) for v in column.to_pylist()]
        return pa.array(values, pa.string())
    if pat.is_decimal(kind):
        return _json_decimals(column)
    if pat.is_binary(kind):
        return _wrapped(_base64_texts(column))
    return _wrapped(_plain_texts(column))


def _json_vectors(column: pa.Array) -> pa.Array:
    lists = as_lists(column)
    texts = json_texts(lists.values)
    inner = pc.binary_join(pa.ListArray.from_arrays(lists.offsets, texts), ",")
    inner = pc.if_else(pc.is_valid(column), inner, pa.scalar(None, pa.string()))
    return pc.binary_join_element_wise("[", inner, "]", "")


def _wrapped(texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('"', texts, '"', "")


def _any(mask: pa.Array) -> bool:
    return bool(pc.any(mask).as_py())


def _json_strings(column: pa.Array) -> pa.Array:
    if _any(pc.match_substring_regex(column, _JSON_UNSAFE)):
        escaped = column
        for raw, spelled in _JSON_ESCAPES:
            escaped = pc.replace_substring(escaped, raw, spelled)
        if _any(pc.match_substring_regex(escaped, _CONTROL)):
            values = [None if v is None else orjson.dumps(v).decode() for v in column.to_pylist()]
            return pa.array(values, pa.string())
        column = escaped
    return _wrapped(column)


def _json_integers(column: pa.Array) -> pa.Array:
    texts = pc.cast(column, pa.string())
    ends = pc.min_max(column)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    if low is None or (low >= -SAFE_INTEGER and high <= SAFE_INTEGER):
        return texts
    limit = pa.scalar(SAFE_INTEGER, column.type)
    wide = pc.greater(column, limit)
    if pat.is_signed_integer(column.type):
        wide = pc.or_(wide, pc.less(column, pa.scalar(-SAFE_INTEGER, column.type)))
    return pc.if_else(wide, _wrapped(texts), texts)


def _json_decimals(column: pa.Array) -> pa.Array:
    texts = _decimal_texts(column)
    longest = pc.max(pc.binary_length(texts)).as_py()
    if longest is None or longest <= SAFE_DIGITS:
        return texts
    digits = pc.replace_substring_regex(texts, _NO_DIGITS, "")
    return pc.if_else(pc.greater(pc.binary_length(digits), SAFE_DIGITS), _wrapped(texts), texts)


def _float_texts(column: pa.Array) -> pa.Array:
    """Shortest text that reads back the same; whole numbers keep a ``.0``."""
    texts = pc.cast(column, pa.string())
    whole = pc.match_substring_regex(texts, r"^-?\d+$")
    if _any(whole):
        texts = pc.if_else(whole, pc.binary_join_element_wise(texts, ".0", ""), texts)
    return texts


def _decimal_texts(column: pa.Array) -> pa.Array:
    texts = pc.cast(column, pa.string())
    if _any(pc.match_substring(texts, "E")):
        values = [None if v is None else format(v, "f") for v in column.to_pylist()]
        return pa.array(values, pa.string())
    return texts


def _base64_texts(column: pa.Array) -> pa.Array:
    values = [None if v is None else base64.b64encode(v).decode() for v in column.to_pylist()]
    return pa.array(values, pa.string())


def _plain_texts(column: pa.Array) -> pa.Array:
    texts = pc.cast(column, pa.string())
    if pat.is_timestamp(column.type):
        texts = pc.replace_substring(texts, " ", "T", max_replacements=1)
    if pat.is_timestamp(column.type) or pat.is_time(column.type):
        # A fraction of zeros says nothing; RFC 3339 makes it optional.
        texts = pc.replace_substring_regex(texts, r"\.000000(Z?)$", r"\1")
    return texts


def _csv_quoted(column: pa.Array) -> pa.Array:
    quoted = pc.or_(pc.match_substring_regex(column, _CSV_UNSAFE), pc.equal(column, ""))
    if not _any(quoted):
        return column
    return pc.if_else(quoted, _wrapped(pc.replace_substring(column, '"', '""')), column)


def _nested_json(value: Any, kind: pa.DataType) -> str:
    return orjson.dumps(_plain_value(value)).decode()


def _plain_value(value: Any) -> Any:
    """A nested value in what JSON has, by the rules of this module."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return value if -SAFE_INTEGER <= value <= SAFE_INTEGER else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return float(value) if len(value.as_tuple().digits) <= SAFE_DIGITS else format(value, "f")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): _plain_value(item) for key, item in value.items()}
    if isinstance(value, tuple):  # an entry of a map
        return [_plain_value(item) for item in value]
    return [_plain_value(item) for item in value]
