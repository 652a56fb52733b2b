"""Typed columns of any Arrow shape as columns of a logical type: exactly, or not at all. Pure.

``fit`` widens (int32 -> int64, dictionary -> its values, struct by field name) and converts where
nothing is lost (an integer that is exact as a double, anything to its text); a column that would
lose a digit does not fit. Decoding checks sizes first, for a small dictionary may stand for
gigabytes.
"""

from __future__ import annotations

import base64
import json
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from lakehouse.errors import LakehouseError
from lakehouse.table.infer import EXACT_INTEGER_MAX, NULL_TEXTS, Guess, guess_text, read_text
from lakehouse.table.types import DECIMAL_DIGITS_MAX, from_arrow, is_vector, stored, to_arrow
from lakehouse.table.vectors import to_vectors, whole

__all__ = ["TEMPORAL", "fit", "guess_values", "misfit_values", "plain"]

TEMPORAL: Final = ("date", "timestamp", "timestamptz")
"""What a JSON string may be inferred as: its numbers and booleans are not strings."""


_NANOSECONDS: Final = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}


def plain(values: pa.Array) -> pa.Array:
    """The same values without dictionaries, run-ends, extensions, views and large offsets."""
    arrow = values.type
    if isinstance(values, pa.ExtensionArray):
        return plain(values.storage)
    if pat.is_dictionary(arrow):
        return plain(values.dictionary_decode())
    if pat.is_run_end_encoded(arrow):
        return plain(pc.run_end_decode(values))
    if pat.is_string_view(arrow) or pat.is_large_string(arrow):
        return values.cast(pa.string())
    if pat.is_binary_view(arrow) or pat.is_large_binary(arrow):
        return values.cast(pa.binary())
    return values


def guess_values(values: pa.Array, texts_are_dates: bool) -> Guess:
    """What a typed column is. ``texts_are_dates``: strings of stated date forms become dates (JSON
    has no dates of its own); a typed source's strings stay strings."""
    values = plain(values)
    arrow = values.type
    if pat.is_null(arrow) or values.null_count == len(values):
        return Guess(pa.null() if texts_are_dates else stored(arrow))
    if pat.is_string(arrow):
        # "" says nothing of dates, but it is no null in JSON: then the column is of strings.
        return guess_text(values, (), TEMPORAL) if texts_are_dates else Guess(pa.string())
    if pat.is_nested(arrow) and texts_are_dates:
        return Guess(_keep_nulls(arrow))
    target = stored(arrow)
    if is_vector(target) and not whole(values):
        return Guess(pa.list_(pa.float64()))
    if fit(values, from_arrow(target)) is None:
        return Guess(pa.string())
    exact = not pat.is_integer(arrow) or _exact(values)
    return Guess(target, exact)


def _keep_nulls(arrow: pa.DataType) -> pa.DataType:
    """Widened, but a type that is not known yet stays null, so that blocks can be joined."""
    if pat.is_null(arrow):
        return arrow
    if pat.is_list(arrow):
        return pa.list_(_keep_nulls(arrow.value_type))
    if pat.is_struct(arrow):
        return pa.struct([(field.name, _keep_nulls(field.type)) for field in arrow.fields])
    if pat.is_timestamp(arrow):
        return pa.string()
    return stored(arrow)


def _exact(integers: pa.Array) -> bool:
    ends = pc.min_max(integers)
    low, high = ends["min"].as_py(), ends["max"].as_py()
    return low is None or (low >= -EXACT_INTEGER_MAX and high <= EXACT_INTEGER_MAX)


def fit(
    values: pa.Array, type_text: str, null_texts: tuple[str, ...] | None = None
) -> pa.Array | None:
    """``values`` as ``type_text``, or None if one of them does not fit.

    ``null_texts`` given: ``values`` are texts of a file without types, read by ``table.infer``.
    """
    values = plain(values)
    target = to_arrow(type_text)
    if pat.is_null(values.type):
        return pa.nulls(len(values), target)
    if values.type == target and not is_vector(target):
        return values
    if null_texts is not None:
        return read_text(values, type_text, null_texts)
    try:
        return _convert(values, target, type_text)
    except (pa.ArrowException, LakehouseError, ValueError, OverflowError):
        return None


def _convert(values: pa.Array, target: pa.DataType, type_text: str) -> pa.Array | None:
    arrow = values.type
    if pat.is_string(target):
        return _as_text(values)
    if pat.is_string(arrow):
        return read_text(values, type_text, NULL_TEXTS if type_text != "string" else ())
    if is_vector(target):
        return to_vectors(values, target)
    if pat.is_floating(target) and (pat.is_integer(arrow) and not _exact(values)):
        return None
    if pat.is_integer(target) and pat.is_duration(arrow):
        return values.cast(pa.duration("us")).cast(pa.int64())
    if pat.is_integer(target) and not pat.is_integer(arrow):
        return None
    if pat.is_timestamp(target) and pat.is_timestamp(arrow):
        # A time without zone is no instant, and the reverse: neither is guessed.
        return values.cast(target) if (arrow.tz is None) == (target.tz is None) else None
    if pat.is_timestamp(target) or pat.is_date(target) or pat.is_time(target):
        same = pat.is_date(arrow) if pat.is_date(target) else pat.is_time(arrow)
        return values.cast(target) if same and not pat.is_timestamp(target) else None
    if pat.is_boolean(target) or (pat.is_boolean(arrow) and not pat.is_boolean(target)):
        return None
    if pat.is_decimal(target) and pat.is_integer(arrow):
        # Arrow wants room for any integer of the type before it looks at those there are.
        return values.cast(pa.decimal256(DECIMAL_DIGITS_MAX, target.scale)).cast(target)
    if pat.is_struct(target) and pat.is_struct(arrow):
        return _convert_struct(values, target)
    if pat.is_list(target) and pat.is_nested(arrow) and hasattr(arrow, "value_type"):
        return _convert_list(values, target)
    if pat.is_map(target) and pat.is_map(arrow):
        return _convert_map(values, target)
    return None if pat.is_nested(arrow) or pat.is_nested(target) else values.cast(target)


def _convert_struct(values: pa.StructArray, target: pa.StructType) -> pa.Array | None:
    have = {field.name: index for index, field in enumerate(values.type.fields)}
    if len(have) != len(values.type.fields) or not have.keys() <= {f.name for f in target.fields}:
        return None
    children = []
    for field in target.fields:
        child: pa.Array | None = pa.nulls(len(values), field.type)
        if field.name in have:
            child = fit(pc.struct_field(values, [have[field.name]]), from_arrow(field.type))
        if child is None:
            return None
        children.append(child)
    if not children:
        return values.cast(target)
    return pa.StructArray.from_arrays(children, fields=list(target.fields), mask=pc.is_null(values))


def _convert_list(values: pa.Array, target: pa.ListType) -> pa.Array | None:
    # By hand: Arrow's own cast of a list view has one offset too few, and readers run past it.
    items = fit(values.flatten(), from_arrow(target.value_type))
    if items is None:
        return None
    # ``flatten`` leaves out what stands below nulls, so offsets are counted anew.
    return pa.ListArray.from_arrays(_offsets(values), items, mask=pc.is_null(values))


def _convert_map(values: pa.MapArray, target: pa.MapType) -> pa.Array | None:
    arrow = values.type
    entries = values.cast(pa.list_(pa.struct([arrow.key_field, arrow.item_field])))
    entries.validate()
    keys, items = entries.flatten().flatten()
    typed_keys = fit(keys, from_arrow(target.key_type))
    typed_items = fit(items, from_arrow(target.item_type))
    if typed_keys is None or typed_items is None:
        return None
    gone = pc.is_null(values)
    return pa.MapArray.from_arrays(_offsets(entries), typed_keys, typed_items, mask=gone)


def _offsets(values: pa.Array) -> pa.Array:
    sizes = pc.if_else(pc.is_null(values), 0, pc.list_value_length(values).cast(pa.int64()))
    ends = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(sizes)])
    return ends.cast(pa.int32())


def _as_text(values: pa.Array) -> pa.Array | None:
    arrow = values.type
    if pat.is_binary(arrow) or pat.is_fixed_size_binary(arrow):
        return None
    if pat.is_nested(arrow):
        # The rare way out for values that have no common type: JSON text, value by value.
        texts = [_json_text(one) if one.is_valid else None for one in values]
        return pa.array(texts, pa.string())
    if pat.is_interval(arrow) or pat.is_duration(arrow):
        texts = [_span_text(one) if one.is_valid else None for one in values]
        return pa.array(texts, pa.string())
    typed = values.cast(pa.string())
    if pat.is_timestamp(arrow) and pc.any(pc.starts_with(typed, "<")).as_py():
        return None  # "<value out of range: ...>" is no text of a time
    return typed


def _json_text(value: pa.Scalar) -> str:
    """Compact JSON: numbers and booleans as such, bytes as base64, all else as its text."""
    arrow = value.type
    if not value.is_valid:
        return "null"
    if pat.is_dictionary(arrow) or isinstance(value, pa.ExtensionScalar):
        return _json_text(value.value)
    if pat.is_run_end_encoded(arrow):
        return _json_text(pa.scalar(value.as_py(), arrow.value_type))
    if pat.is_struct(arrow):
        names = [_quoted(field.name) for field in arrow.fields]
        pairs = (f"{name}:{_json_text(value[at])}" for at, name in enumerate(names))
        return "{" + ",".join(pairs) + "}"
    if pat.is_map(arrow):
        keys, items = value.values.field(0), value.values.field(1)
        both = (f"[{_json_text(k)},{_json_text(v)}]" for k, v in zip(keys, items, strict=True))
        return "[" + ",".join(both) + "]"
    if pat.is_nested(arrow):
        return "[" + ",".join(_json_text(one) for one in value.values) + "]"
    if pat.is_integer(arrow) or pat.is_floating(arrow) or pat.is_boolean(arrow):
        return json.dumps(value.as_py())
    if pat.is_interval(arrow) or pat.is_duration(arrow):
        return _quoted(_span_text(value))
    if isinstance(value, pa.BinaryScalar) and not isinstance(value, pa.StringScalar):
        return _quoted(base64.b64encode(value.as_py()).decode())
    text = value.cast(pa.string()).as_py()
    if pat.is_timestamp(arrow) and text.startswith("<"):
        raise pa.ArrowInvalid(text)
    return _quoted(text)


def _span_text(value: pa.Scalar) -> str:
    """A duration or interval in the manner of ISO 8601: ``PT1.500000000S``, ``P1M2DT...``."""
    if pat.is_duration(value.type):
        head, nanoseconds = "P", value.value * _NANOSECONDS[value.type.unit]
    else:
        months, days, nanoseconds = value.as_py()
        head = f"P{months}M{days}D"
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    return f"{head}T{'-' if nanoseconds < 0 else ''}{seconds}.{rest:09}S"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def misfit_values(
    values: pa.Array, type_text: str, null_texts: tuple[str, ...] | None, limit: int = 5
) -> list[int]:
    """Positions of the first ``limit`` values that do not fit, rising."""
    found: list[int] = []
    spans = [(0, len(values))]
    while spans and len(found) < limit:
        start, end = spans.pop()
        if fit(values.slice(start, end - start), type_text, null_texts) is not None:
            continue
        if end - start == 1:
            found.append(start)
            continue
        middle = (start + end) // 2
        spans += [(middle, end), (start, middle)]
    return found
