"""What type a column of texts has, and reading texts as a type. Pure, vectorised over Arrow.

The rule (ADR-010): a column has a type other than string only if *every* non-empty text of it is
written in a stated form of that type and the typed value says all that the text said.

- ``bool``: true, false in lower, upper or title case.
- ``int64``: ``0`` or an optional ``-`` and digits that do not begin with 0, within 64 bits. So ids
  with leading zeros and phone numbers with ``+`` stay strings.
- ``float64``: an optional ``-``, digits (no leading zero before another digit), a decimal point,
  an exponent. At most 15 significant digits, or a text that is the shortest of its double; no
  overflow, no underflow, no nan or inf. Trailing zeros are not kept: 1.10 is 1.1.
- ``date``: YYYY-MM-DD. ``timestamp``: YYYY-MM-DD, a space or T, HH:MM[:SS[.ffffff]];
  ``timestamptz``: the same with Z or an offset, stored as the same instant in UTC.

Spaces around a number, date or time do not matter; in a string column every text stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.table.types import to_arrow
from lakehouse.table.vectors import read_vectors

__all__ = [
    "NULL_TEXTS",
    "TEXT_TYPES",
    "Guess",
    "guess_text",
    "has_null",
    "join",
    "read_text",
]

NULL_TEXTS: Final = ("",)
EXACT_INTEGER_MAX: Final = 2**53
_DIGITS_ALWAYS_EXACT: Final = 15
_NORMAL_MIN: Final = 2.2250738585072014e-308
_FLOAT_FORM: Final = r"^-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?$"
_TRUE: Final = ("true", "True", "TRUE")
_FALSE: Final = ("false", "False", "FALSE")
_DATE_CHARS: Final = 10
_MINUTE_CHARS: Final = 16


@dataclass(frozen=True, slots=True)
class Guess:
    """What a column may be, from what was seen of it.

    Attributes:
        type: ``pa.null()`` while nothing but empty texts or nulls was seen.
        exact: of integers, that all are exact as doubles, so that a float may still join them.
    """

    type: pa.DataType = pa.null()
    exact: bool = True


def join(left: Guess, right: Guess) -> Guess:
    """The narrowest guess that holds both; string where only texts do. Associative."""
    if pat.is_null(left.type) or left == right:
        return right
    if pat.is_null(right.type):
        return left
    if left.type == right.type:
        return Guess(left.type, left.exact and right.exact)
    numeric = {left.type, right.type} == {pa.int64(), pa.float64()}
    if numeric and left.exact and right.exact:
        return Guess(pa.float64())
    merged = _merge_nested(_as_list(left.type), _as_list(right.type))
    return Guess(merged if merged is not None else pa.string())


def _as_list(arrow: pa.DataType) -> pa.DataType:
    """Of a column with vectors in one block, and lists with nulls within in another."""
    return pa.list_(pa.float64()) if pat.is_fixed_size_list(arrow) else arrow


def _merge_nested(left: pa.DataType, right: pa.DataType) -> pa.DataType | None:
    """Structs are joined by field name, lists by item; None where they do not join."""
    if left == right or pat.is_null(right):
        return left
    if pat.is_null(left):
        return right
    if pat.is_list(left) and pat.is_list(right):
        item = _merge_nested(left.value_type, right.value_type)
        return None if item is None else pa.list_(item)
    if not (pat.is_struct(left) and pat.is_struct(right)):
        return None
    fields = {field.name: field.type for field in left.fields}
    for field in right.fields:
        merged = _merge_nested(fields.get(field.name, pa.null()), field.type)
        if merged is None:
            return None
        fields[field.name] = merged
    return pa.struct(list(fields.items()))


def has_null(arrow: pa.DataType) -> bool:
    """True while some part of a type is not known yet."""
    if pat.is_struct(arrow):
        # Of a struct without fields, {}, the fields are not known yet.
        return arrow.num_fields == 0 or any(has_null(field.type) for field in arrow.fields)
    return bool(pat.is_null(arrow) or (pat.is_list(arrow) and has_null(arrow.value_type)))


def guess_text(
    values: pa.Array, null_texts: tuple[str, ...] = NULL_TEXTS, candidates: tuple[str, ...] = ()
) -> Guess:
    """The narrowest type that all texts of ``values`` (string) fit; ``candidates`` limits it."""
    some = _without_nulls(values, null_texts).drop_null()
    if len(some) == 0:
        return Guess()
    first = some.slice(0, 1)
    for type_text in candidates or TEXT_TYPES:
        # One value decides most columns at the cost of nothing.
        if read_text(first, type_text, ()) is None:
            continue
        typed = read_text(some, type_text, ())
        if typed is None:
            continue
        return Guess(typed.type, type_text != "int64" or _exact_as_double(typed))
    return Guess(pa.string())


def _exact_as_double(integers: pa.Array) -> bool:
    ends = pc.min_max(integers)
    return bool(
        ends["min"].as_py() >= -EXACT_INTEGER_MAX and ends["max"].as_py() <= EXACT_INTEGER_MAX
    )


def read_text(
    values: pa.Array, type_text: str, null_texts: tuple[str, ...] = NULL_TEXTS
) -> pa.Array | None:
    """Texts as values of ``type_text``, texts in ``null_texts`` as null; None if one does not fit.

    A string column keeps every text, also those in ``null_texts``. Types that have no text form
    here (list, struct, map) fit nothing.
    """
    if type_text == "string":
        return values
    reader = _READERS.get(type_text.split("(")[0])
    if reader is None:
        return None
    values = _without_nulls(values, null_texts)
    typed = reader(values, type_text)
    if typed is None and pc.any(pc.match_substring_regex(values, r"^\s|\s$")).as_py():
        typed = reader(pc.utf8_trim_whitespace(values), type_text)
    return typed


def _without_nulls(values: pa.Array, null_texts: tuple[str, ...]) -> pa.Array:
    if not null_texts:
        return values
    if null_texts == NULL_TEXTS:
        shortest = pc.min(pc.binary_length(values)).as_py()
        if shortest is None or shortest > 0:
            return values
    empty = pc.is_in(values, value_set=pa.array(null_texts, pa.string()))
    return pc.if_else(empty, pa.scalar(None, pa.string()), values)


def _cast(values: pa.Array, arrow: pa.DataType) -> pa.Array | None:
    try:
        return values.cast(arrow)
    except pa.ArrowException:
        return None


def _all(mask: pa.BooleanArray) -> bool:
    """True also for nothing and for nulls."""
    return bool(pc.all(mask, min_count=0).as_py())


def _read_bool(values: pa.Array, _: str) -> pa.Array | None:
    known = pa.array(_TRUE + _FALSE, pa.string())
    if not _all(pc.or_(pc.is_null(values), pc.is_in(values, value_set=known))):
        return None
    truth = pc.is_in(values, value_set=pa.array(_TRUE, pa.string()))
    return pc.if_else(pc.is_null(values), pa.scalar(None, pa.bool_()), truth)


def _read_integer(values: pa.Array, type_text: str) -> pa.Array | None:
    typed = _cast(values, to_arrow(type_text))
    if typed is None:
        return None
    zeros = pc.and_(pc.starts_with(values, "0"), pc.greater(pc.binary_length(values), 1))
    if pc.any(pc.or_(zeros, pc.starts_with(values, "-0"))).as_py():
        return None
    return typed


def _read_float(values: pa.Array, _: str) -> pa.Array | None:
    typed = _cast(values, pa.float64())
    if typed is None or not _written_as_float(values):
        return None
    size = pc.abs(typed)
    odd = pc.or_(pc.invert(pc.is_finite(typed)), pc.less(size, _NORMAL_MIN))
    if pc.any(odd).as_py():
        # Infinite by overflow, or so near to zero that digits fell away; zero itself is well.
        texts = pc.filter(values, odd)
        if not _all(pc.match_substring_regex(texts, r"^-?[0.]+(?:[eE].*)?$")):
            return None
    longest = pc.max(pc.binary_length(values)).as_py()
    if longest is not None and longest > _DIGITS_ALWAYS_EXACT:
        long = pc.greater(pc.binary_length(values), _DIGITS_ALWAYS_EXACT)
        if not _shortest_of_its_double(pc.filter(values, long), pc.filter(typed, long)):
            return None
    return typed


def _written_as_float(values: pa.Array) -> bool:
    """Whether texts that can be cast are of ``_FLOAT_FORM``. Few need the expression: those that
    begin with a zero before a digit, with another sign, or with a letter."""
    odd = pc.or_(pc.starts_with(values, "0"), pc.starts_with(values, "-0"))
    plain = pc.or_(pc.starts_with(values, "0."), pc.starts_with(values, "-0."))
    odd = pc.and_not(odd, plain)
    odd = pc.or_(odd, pc.or_(pc.less(values, "-"), pc.greater(values, "A")))
    return _all(pc.match_substring_regex(pc.filter(values, odd), _FLOAT_FORM))


def _significant(texts: pa.Array) -> pa.Array:
    """The digits that count: no sign, point, exponent, leading or trailing zeros."""
    digits = pc.replace_substring_regex(texts, r"[eE].*$|[-.]", "")
    return pc.replace_substring_regex(digits, r"^0+|0+$", "")


def _shortest_of_its_double(texts: pa.Array, typed: pa.Array) -> bool:
    digits = _significant(texts)
    few = pc.less_equal(pc.binary_length(digits), _DIGITS_ALWAYS_EXACT)
    same = pc.equal(digits, _significant(typed.cast(pa.string())))
    return _all(pc.or_(few, same))


def _read_decimal(values: pa.Array, type_text: str) -> pa.Array | None:
    if not _all(pc.match_substring_regex(values, _FLOAT_FORM)):
        return None
    return _cast(values, to_arrow(type_text))


def _read_date(values: pa.Array, _: str) -> pa.Array | None:
    lengths = pc.min_max(pc.binary_length(values))
    if lengths["max"].as_py() not in (None, _DATE_CHARS):
        return None
    return _cast(values, pa.date32())


def _read_timestamp(values: pa.Array, type_text: str) -> pa.Array | None:
    shortest = pc.min(pc.binary_length(values)).as_py()
    if shortest is not None and shortest < _MINUTE_CHARS:
        return None
    return _cast(values, to_arrow(type_text))


def _read_time(values: pa.Array, _: str) -> pa.Array | None:
    return _cast(values, pa.time64("us"))


def _read_binary(values: pa.Array, _: str) -> pa.Array | None:
    return _cast(values, pa.binary())


def _read_vector(values: pa.Array, type_text: str) -> pa.Array | None:
    return read_vectors(values, to_arrow(type_text))


_READERS: Final[dict[str, Callable[[pa.Array, str], pa.Array | None]]] = {
    "bool": _read_bool,
    "int64": _read_integer,
    "uint64": _read_integer,
    "float64": _read_float,
    "decimal": _read_decimal,
    "date": _read_date,
    "time": _read_time,
    "timestamp": _read_timestamp,
    "timestamptz": _read_timestamp,
    "binary": _read_binary,
    "vector": _read_vector,
}
TEXT_TYPES: Final = ("int64", "float64", "bool", "date", "timestamp", "timestamptz")
"""The types that text is inferred as, narrowest first."""
