"""Indexes and profiles as JSON documents, and back, by the annotations of their types.

A field that is not known is passed over and one that is missing takes its default, so that an older
and a newer release read each other's documents. Anything else that does not fit is ``corrupt``.
"""

from __future__ import annotations

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

__all__ = ["from_json", "to_json"]

T = TypeVar("T")
_SCALARS: Final = (str, int, float, bool)


def to_json(value: object) -> str:
    """Of a dataclass; times are RFC 3339."""
    return orjson.dumps(value).decode()


def from_json(kind: type[T], text: str) -> T:
    """Raises ``corrupt``."""
    try:
        value: T = _reader(cast("Hashable", kind))(orjson.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LakehouseError(
            ErrorKind.CORRUPT,
            "a document of the catalog cannot be read",
            document=kind.__name__,
            reason=str(error)[:200],
        ) from error
    return value


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
    if annotation is datetime:
        return datetime.fromisoformat
    if origin is tuple:
        return _tuple(_reader(arguments[0]))
    if origin in (types.UnionType, typing.Union):
        return _optional(_reader(arguments[0]))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return annotation
    return _dataclass(annotation)
