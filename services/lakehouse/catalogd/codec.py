"""Frozen dataclasses to JSON objects and back, by their annotations.

Records are users' only copy, so the rules are few and for ever: a field equal to its default is
left out; a missing field takes its default; a field that is not known is passed over (a reader
that may not do so is kept away by the record's ``min_reader``); a member of a union is tagged with
its type's name under ``change``; a type that is not known is refused by name, never guessed at.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Hashable, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Final, TypeVar, cast

from lakehouse.catalogd.internal import StoredChange
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import to_datetime, to_micros
from lakehouse.ledger.machine import JsonObject

__all__ = ["decode", "decode_change", "encode", "encode_change", "encode_changes"]

T = TypeVar("T")
Codec = Callable[[Any], Any]
TAG: Final = "change"
_SAME: Final = (str, int, float, bool)


def _corrupt(message: str, **fields: str) -> LakehouseError:
    return LakehouseError(ErrorKind.CORRUPT, message, **fields)


def _same(value: Any) -> Any:
    return value


def _optional(inner: Codec) -> Codec:
    if inner is _same:
        return _same
    return lambda value: None if value is None else inner(value)


def _list_of(inner: Codec) -> Codec:
    return list if inner is _same else lambda value: [inner(item) for item in value]


def _tuple_of(inner: Codec) -> Codec:
    return tuple if inner is _same else lambda value: tuple([inner(item) for item in value])


def _checked(kind: type) -> Codec:
    """Refuse a value of another JSON type: a damaged manifest must not pass for a whole one."""

    def check(value: Any) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise _corrupt("a stored value has another type than its field", expected=kind.__name__)
        return value

    return check


def _pair(annotation: Any) -> tuple[Codec, Codec]:
    """(encoder, decoder) of an annotation."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if annotation in _SAME:
        return _same, _checked(annotation)
    if annotation is datetime:
        return to_micros, to_datetime
    if origin in (types.UnionType, typing.Union):
        members = [each for each in arguments if each is not types.NoneType]
        if len(members) == 1:
            encoder, decoder = _pair(members[0])
            inner = _optional(decoder)
            return _optional(encoder), inner
        raise TypeError(f"a union within a stored value: {annotation}")
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        encoder, decoder = _pair(arguments[0])
        return _list_of(encoder), _tuple_of(decoder)
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return str, annotation
    if dataclasses.is_dataclass(annotation):
        kind = cast(type, annotation)
        return _encoder(kind), _decoder(kind)
    raise TypeError(f"no form in JSON for {annotation}")


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return dataclasses.MISSING


@cache
def _encoder(kind: Any) -> Codec:
    hints = typing.get_type_hints(kind)
    plan = [
        (field.name, _pair(hints[field.name])[0], _default(field))
        for field in dataclasses.fields(kind)
    ]

    def encode_fields(value: Any) -> JsonObject:
        found: JsonObject = {}
        for name, inner, default in plan:
            item = getattr(value, name)
            if item != default:
                found[name] = inner(item)
        return found

    return encode_fields


@cache
def _decoder(kind: Any) -> Codec:
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    plan = {field.name: _pair(hints[field.name])[1] for field in fields}
    required = frozenset(field.name for field in fields if _default(field) is dataclasses.MISSING)

    def decode_fields(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _corrupt("a stored value is not an object", value_type=kind.__name__)
        if not required <= value.keys():
            missing = sorted(required - value.keys())
            raise _corrupt(
                "a stored value lacks a field", value_type=kind.__name__, field=missing[0]
            )
        return kind(**{name: plan[name](item) for name, item in value.items() if name in plan})

    return decode_fields


def encode(value: object) -> JsonObject:
    """A frozen dataclass as a JSON object; fields equal to their defaults are left out."""
    return cast(JsonObject, _encoder(cast(Hashable, type(value)))(value))


def decode(kind: type[T], value: JsonObject) -> T:
    """The inverse of ``encode``. Raises ``corrupt`` for what no version ever wrote."""
    try:
        return cast(T, _decoder(cast(Hashable, kind))(value))
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise _corrupt("a stored value cannot be read", value_type=kind.__name__) from error


_CHANGES: Final[dict[str, type]] = {kind.__name__: kind for kind in typing.get_args(StoredChange)}


def encode_change(change: StoredChange) -> JsonObject:
    """A change as the chain holds it."""
    return {TAG: type(change).__name__, **encode(change)}


def encode_changes(changes: Sequence[StoredChange]) -> tuple[JsonObject, ...]:
    return tuple(encode_change(change) for change in changes)


def decode_change(value: JsonObject) -> StoredChange:
    """The inverse of ``encode_change``.

    Raises ``corrupt`` naming a type that this version does not know: applying the rest without it
    would be another history.
    """
    kind = _CHANGES.get(str(value.get(TAG)))
    if kind is None:
        raise _corrupt(
            "a record has a change that this version does not know",
            change=str(value.get(TAG))[:100],
            hint="a newer version wrote it; upgrade this node",
        )
    return cast(StoredChange, decode(kind, value))
