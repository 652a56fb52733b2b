"""Contract values to bytes and back; large ones beside the event loop, which others need too.

A snapshot of 1,000 files with statistics takes some 20 ms each way: in a thread, the loop gets its
turn every few milliseconds; a small message is done before a thread would have started.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.blocking import run_blocking
from lakehouse.rpc.convert import parse, to_message
from lakehouse.rpc.methods import set_key

T = TypeVar("T")

_BYTES_INLINE: Final = 64 * 1024
_MEMBERS_INLINE: Final = 200


async def encode(value: Any, key: str | None = None) -> bytes:
    """The bytes of a value's message, with its idempotency key where it has a place for one."""
    if _members(value) > _MEMBERS_INLINE:
        return await run_blocking(_encoded, value, key)
    return _encoded(value, key)


async def decode(kind: type[T], data: bytes) -> tuple[T, Message]:
    """The value of some bytes, and its message. Raises ``invalid``."""
    if len(data) > _BYTES_INLINE:
        return await run_blocking(parse, kind, data)
    return parse(kind, data)


async def encode_answer(value: Any) -> bytes:
    """As ``encode``; but a request is not ``invalid`` because its answer cannot be sent."""
    try:
        return await encode(value)
    except LakehouseError as error:
        raise unreadable(type(value), "the answer cannot be sent", error) from error


async def decode_answer(kind: type[T], data: bytes) -> T:
    """The value of a peer's answer. Raises ``internal`` for one that is not of our contracts."""
    try:
        return (await decode(kind, data))[0]
    except LakehouseError as error:
        raise unreadable(kind, "the peer's answer cannot be read", error) from error


def unreadable(kind: type[Any], message: str, error: Exception) -> LakehouseError:
    """``internal``: one side is of another version, or broken."""
    fields = error.fields if isinstance(error, LakehouseError) else {}
    return LakehouseError(
        ErrorKind.INTERNAL,
        message,
        answer=kind.__name__,
        reason=fields.get("reason", type(error).__name__),
        hint="check that both nodes are of one version",
    )


def _encoded(value: Any, key: str | None) -> bytes:
    message = to_message(value)
    set_key(message, key)
    return message.SerializeToString()


def _members(value: Any, depth: int = 3) -> int:
    """How many values its tuples hold, down to the lists of a snapshot's datasets."""
    count = 0
    for field in fields(value):
        part = getattr(value, field.name)
        if isinstance(part, tuple):
            count += len(part)
            if depth and count <= _MEMBERS_INLINE:
                count += sum(_members(each, depth - 1) for each in part if is_dataclass(each))
    return count
