"""What a contract's Protocol says, as the wire needs it: one ``Method`` for each of its methods."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from lakehouse.rpc.convert import PACKAGE, message_class

KEY_FIELD: Final = "idempotency_key"


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: ``name`` in Python, ``rpc`` on the wire; ``changes``: it takes an idempotency key.

    ``request`` and ``answer`` are the contract's types.
    """

    name: str
    rpc: str
    path: str
    request: type[Any]
    answer: type[Any]
    changes: bool


@functools.cache
def methods_of(noun: str, protocol: object) -> Mapping[str, Method]:
    """The methods of a contract by name, in its order. ``noun`` is the service's, e.g. Catalog."""
    found = {}
    for name, function in vars(protocol).items():
        if name.startswith("_") or not inspect.iscoroutinefunction(function):
            continue
        hints: dict[str, Any] = typing.get_type_hints(function)
        request, rpc = hints["request"], name.title().replace("_", "")
        path = f"/{PACKAGE}.{noun}/{rpc}"
        found[name] = Method(name, rpc, path, request, hints["return"], takes_key(request))
    return found


def takes_key(request: type[Any]) -> bool:
    """True if requests of this type change something, that is: carry an idempotency key."""
    return KEY_FIELD in message_class(request.__name__).DESCRIPTOR.fields_by_name


def set_key(message: Message, key: str | None) -> None:
    """Put the idempotency key into a request, where there is one and the request has a place."""
    if key is not None and KEY_FIELD in message.DESCRIPTOR.fields_by_name:
        setattr(message, KEY_FIELD, key)


def key_of(message: Message) -> str | None:
    """The idempotency key of a request; an empty one is none."""
    return getattr(message, KEY_FIELD, None) or None
