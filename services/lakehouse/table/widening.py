"""Wider types: which a column may be given later, and its old values under the new one. Pure.

Anything may become a string: the text that its value has in JSON, without quotes, so that the
journal, the files of before and those of after say the same. Integers may become a decimal that
holds all of them, a date the timestamp of its midnight, a decimal one with as many or more digits
on both sides of the point.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.types as pat

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.table.codec import fit
from lakehouse.table.types import from_arrow, to_arrow
from lakehouse.table.values import from_json_texts, json_texts

__all__ = ["may_widen", "widened"]

_DIGITS: Final = {"int64": 19, "uint64": 20}


def may_widen(old: str, new: str) -> bool:
    """Whether every value of the type text ``old`` is one of ``new``, another type."""
    if old == new:
        return False
    if new == "string":
        return True
    if new == "timestamp":
        return old == "date"
    if not new.startswith("decimal("):
        return False
    wide = to_arrow(new)
    whole = wide.precision - wide.scale
    if old in _DIGITS:
        return bool(whole >= _DIGITS[old])
    if not old.startswith("decimal("):
        return False
    narrow = to_arrow(old)
    return bool(whole >= narrow.precision - narrow.scale and wide.scale >= narrow.scale)


def widened(values: pa.Array, type_text: str) -> pa.Array:
    """``values``, as a file has them, as ``type_text``: their own type in whatever form, or a wider
    one. Raises ``corrupt`` for a value that is none."""
    if values.type == to_arrow(type_text):
        return values
    # A file of before there were vectors may have a column of lists as lists of one size.
    found = from_arrow(values.type, vectors=type_text != "list<float64>")
    plain = fit(values, found)
    if plain is not None and found != type_text:
        plain = _wider(plain, found, type_text)
    if plain is None:
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "a file has values that are not of the column's type",
            type_text=type_text,
            found=str(values.type)[:200],
        )
    return plain


def _wider(values: pa.Array, old: str, new: str) -> pa.Array | None:
    if new == "string":
        return from_json_texts(json_texts(values, old), new)
    if pat.is_date(values.type) and new == "timestamp":
        return values.cast(pa.timestamp("us"))
    return fit(values, new)
