"""Values as JSON (documents of the catalog, records) and back, by the annotations of their types.

A field that is not known is passed over and one that is missing takes its default, so that an older
and a newer release read each other's documents. Anything else that does not fit is ``corrupt``.
"""

from __future__ import annotations

import base64
import dataclasses
import types
import typing
from collections.abc import Callable, Hashable
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Final, TypeVar, cast

import orjson

from lakehouse.errors import ErrorKind, LakehouseError

__all__ = ["from_json", "from_value", "text_of", "to_json"]

T = TypeVar("T")
_SCALARS: Final = (str, int, float, bool)


def to_json(value: object) -> str:
    """Of a dataclass; times are RFC 3339, bytes base64."""
    return orjson.dumps(value, default=text_of).decode()


def text_of(value: Any) -> str:
    """Bytes as base64: for ``orjson.dumps``, as its default."""
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} has no form in JSON")
    return base64.b64encode(value).decode()


def from_json(kind: type[T], text: str) -> T:
    """Raises ``corrupt``."""
    try:
        value = orjson.loads(text)
    except ValueError as error:
        raise _unreadable(kind, error) from error
    return from_value(kind, value)


def from_value(kind: type[T], value: object) -> T:
    """Of JSON that was read. Raises ``corrupt``."""
    try:
        made: T = _reader(cast("Hashable", kind))(value)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(kind, error) from error
    return made


def _unreadable(kind: type, error: Exception) -> LakehouseError:
    return LakehouseError(
        ErrorKind.CORRUPT,
        "a document of the catalog, or a record, cannot be read",
        document=kind.__name__,
        reason=str(error)[:200],
    )


def _scalar(kind: type) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise TypeError(f"{kind.__name__} expected, not {type(value).__name__}")
        return value

    return read


def _tuple(inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: tuple([inner(each) for each in value])


def _optional(inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else inner(value)


def _dataclass(kind: Any) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in dataclasses.fields(kind)}

    def read(value: Any) -> Any:
        return kind(
            **{name: readers[name](each) for name, each in value.items() if name in readers}
        )

    return read


@cache
def _reader(annotation: Any) -> Callable[[Any], Any]:
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if annotation in _SCALARS:
        return _scalar(annotation)
    if annotation is bytes:
        return lambda value: base64.b64decode(value, validate=True)
    if annotation is datetime:
        return datetime.fromisoformat
    if origin is tuple:
        return _tuple(_reader(arguments[0]))
    if origin in (types.UnionType, typing.Union):
        return _optional(_reader(arguments[0]))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return annotation
    return _dataclass(annotation)
