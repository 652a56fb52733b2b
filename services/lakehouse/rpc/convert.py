"""Contract values to protobuf messages and back: one mapper for all types, none written by hand.

A dataclass meets the message of its own name in ``lakehouse.v1``; its codec is made once, from the
annotations and the descriptor, and kept. Absent fields get the dataclass's default. What has no
place on the other side (a union member of a newer peer, an enum value, a naive time) is refused as
``invalid``.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, TypeVar, cast

from google.protobuf import message_factory
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.v1 import (
    catalog_pb2,
    common_pb2,
    ingest_pb2,
    journal_pb2,
    memory_pb2,
    model_pb2,
    objects_pb2,
    profiles_pb2,
    query_pb2,
    rag_pb2,
    retrievals_pb2,
    rows_pb2,
    storage_pb2,
    tokens_pb2,
    trials_pb2,
    vectors_pb2,
)

MODULES: Final = (
    catalog_pb2,
    common_pb2,
    ingest_pb2,
    journal_pb2,
    memory_pb2,
    model_pb2,
    objects_pb2,
    profiles_pb2,
    query_pb2,
    rag_pb2,
    retrievals_pb2,
    rows_pb2,
    storage_pb2,
    tokens_pb2,
    trials_pb2,
    vectors_pb2,
)
PACKAGE: Final = "lakehouse.v1"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_SCALARS: Final = (str, int, float, bool, bytes)

T = TypeVar("T")
Encode = Callable[[Any], Any]
Decode = Callable[[Any], Any]
# The stubs and the C implementation disagree about the classes of descriptors.
Descriptor = Any


def message_class(name: str) -> type[Message]:
    """The generated class of ``lakehouse.v1.<name>``; KeyError if there is none."""
    return message_factory.GetMessageClass(Default().FindMessageTypeByName(f"{PACKAGE}.{name}"))


def to_message(value: Any) -> Message:
    """The message of a contract value. Raises ``invalid`` for what protobuf cannot hold."""
    kind = type(value)
    codec = _codec(kind)
    try:
        return codec.message(**codec.encode(value))
    except (ValueError, OverflowError, TypeError, AttributeError) as error:
        raise _refused(f"this {kind.__name__} cannot be sent", error) from error


def from_message(kind: type[T], message: Message) -> T:
    """The contract value of a message. Raises ``invalid`` for what the contract does not know."""
    try:
        return cast(T, _codec(kind).decode(message))
    except (ValueError, OverflowError, TypeError) as error:
        raise _refused(f"this {kind.__name__} cannot be read", error) from error


def parse(kind: type[T], data: bytes) -> tuple[T, Message]:
    """A contract value off the wire, with its message (for fields that are the envelope's)."""
    message = _codec(kind).message()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise _refused(f"these bytes are no {kind.__name__}", error) from error
    return from_message(kind, message), message


def _refused(what: str, error: Exception) -> LakehouseError:
    # Only the kind of failure: the text of a foreign error may hold the caller's data.
    return LakehouseError(
        ErrorKind.INVALID,
        what,
        reason=str(error)[:200] if isinstance(error, _Unfit) else type(error).__name__,
        hint="check the request against protos/lakehouse/v1",
    )


class _Unfit(ValueError):
    """A value outside the contract; its text is ours and safe to show."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Codec:
    """``encode`` gives keyword arguments of ``message``; ``decode`` takes one of them."""

    message: type[Message]
    encode: Encode
    decode: Decode


_CODECS: Final[dict[type, _Codec]] = {}


def _codec(kind: type) -> _Codec:
    """The codec of a dataclass. Raises TypeError for an annotation outside the contract's set."""
    return _CODECS.get(kind) or _CODECS.setdefault(kind, _make_codec(kind))


def _make_codec(kind: type) -> _Codec:
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"{kind!r} is no contract type")
    hints = typing.get_type_hints(kind)
    message = message_class(kind.__name__)
    fields = dataclasses.fields(kind)
    encoders: list[tuple[str, Encode | None]] = []
    readers: list[Decode] = []
    for field in fields:
        encode, read = _field(field.name, hints[field.name], field, message.DESCRIPTOR)
        encoders.append((field.name, encode))
        readers.append(read)
    return _Codec(message, _encoder(encoders), _decoder(kind, readers))


def _encoder(fields: list[tuple[str, Encode | None]]) -> Encode:
    names = [name for name, _ in fields]
    work = [(name, encode) for name, encode in fields if encode is not None]
    if not names:
        return lambda value: {}
    get = attrgetter(*names)
    single = len(names) == 1

    def encode_value(value: Any) -> dict[str, Any]:
        # A field that is None stays out: protobuf takes None in a constructor as absent.
        arguments = dict(zip(names, (get(value),) if single else get(value), strict=True))
        for name, encode in work:
            arguments[name] = encode(arguments[name])
        return arguments

    return encode_value


def _decoder(kind: type, readers: list[Decode]) -> Decode:
    def decode_value(message: Any) -> Any:
        return kind(*[read(message) for read in readers])

    return decode_value


def _field(
    name: str, hint: Any, field: dataclasses.Field[Any], owner: Descriptor
) -> tuple[Encode | None, Decode]:
    """How one field goes out (None: as it is) and how it is read from its message."""
    wire = owner.fields_by_name[name]
    inner = _without_none(hint)
    origin = typing.get_origin(inner)
    if origin is tuple and inner is hint:
        return _repeated(name, typing.get_args(inner)[0], wire)
    if origin is tuple:
        return _list_or_none(name)
    if origin is dict:
        return None, lambda message: dict(getattr(message, name))
    encode, decode = _element(inner, wire)
    if encode is not None and inner is not hint:
        encode = _unless_none(encode)
    if not wire.has_presence:
        return encode, _plain(name, decode)
    absent = _absent(field, owner) if inner is hint else _none
    return encode, _present(name, decode, absent)


def _element(hint: Any, wire: Any) -> tuple[Encode | None, Decode | None]:
    """Both ways for a single value; None where it travels as it is."""
    if hint in _SCALARS:
        return None, None
    if hint is datetime:
        return _time_out, _time_in
    if inspect.isclass(hint) and issubclass(hint, StrEnum):
        return None, _enum(hint)
    if dataclasses.is_dataclass(hint):
        codec = _codec(cast(type, hint))
        return codec.encode, codec.decode
    if isinstance(hint, types.UnionType):
        return _union(typing.get_args(hint), wire.message_type)
    raise TypeError(f"{hint!r} cannot travel in a contract")


def _without_none(hint: Any) -> Any:
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else ()
    if type(None) not in members:
        return hint
    return functools.reduce(lambda a, b: a | b, [m for m in members if m is not type(None)])


def _repeated(name: str, hint: Any, wire: Any) -> tuple[Encode | None, Decode]:
    get = attrgetter(name)
    encode, decode = _element(hint, wire)
    out = None if encode is None else lambda values: [encode(value) for value in values]
    if decode is None:
        return out, lambda message: tuple(get(message))
    return out, lambda message: tuple([decode(value) for value in get(message)])


def _list_or_none(name: str) -> tuple[Encode, Decode]:
    """``tuple[str, ...] | None``: an empty list is not the same as none, hence a message."""

    def read(message: Any) -> Any:
        return tuple(getattr(message, name).values) if message.HasField(name) else None

    return _unless_none(lambda values: {"values": values}), read


def _unless_none(encode: Encode) -> Encode:
    return lambda value: None if value is None else encode(value)


def _plain(name: str, decode: Decode | None) -> Decode:
    get = attrgetter(name)
    return get if decode is None else lambda message: decode(get(message))


def _present(name: str, decode: Decode | None, absent: Callable[[], Any]) -> Decode:
    get = attrgetter(name)
    if decode is None:
        return lambda message: get(message) if message.HasField(name) else absent()
    return lambda message: decode(get(message)) if message.HasField(name) else absent()


def _none() -> None:
    """What stands for an absent ``X | None``."""


def _absent(field: dataclasses.Field[Any], owner: Descriptor) -> Callable[[], Any]:
    """What stands for a field that did not come: its default, or a refusal."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory
    if field.default is not dataclasses.MISSING:
        return lambda: field.default

    def refuse() -> Any:
        raise _Unfit(f"{owner.name}.{field.name} is required")

    return refuse


def _enum(kind: type[StrEnum]) -> Decode:
    members: Mapping[str, StrEnum] = {member.value: member for member in kind}

    def read(text: str) -> StrEnum:
        member = members.get(text)
        if member is None:
            raise _Unfit(f"{text[:40]!r} is none of {', '.join(members)}")
        return member

    return read


def _union(members: tuple[Any, ...], wire: Descriptor) -> tuple[Encode, Decode]:
    """A message with one oneof; each member stands in the field of its own message type."""
    (oneof,) = wire.oneofs
    names = {field.message_type.name: field.name for field in oneof.fields}
    if not all(member.__name__ in names for member in members):
        raise TypeError(f"{wire.full_name} lacks a member of {members}")
    field_of = {member: names[member.__name__] for member in members}
    encoders = {member: _codec(member).encode for member in members}
    decoders = {names[member.__name__]: _codec(member).decode for member in members}

    def encode(value: Any) -> dict[str, Any]:
        kind = type(value)
        if kind not in field_of:
            raise _Unfit(f"a {kind.__name__} is no {wire.name}")
        return {field_of[kind]: encoders[kind](value)}

    def decode(message: Any) -> Any:
        which = message.WhichOneof(oneof.name)
        if which is None:
            raise _Unfit(f"{wire.name} has none of the values known here")
        return decoders[which](getattr(message, which))

    return encode, decode


def _time_out(when: datetime) -> dict[str, int]:
    if when.tzinfo is None:
        raise _Unfit("a time without a zone")
    seconds, micros = divmod((when - _EPOCH) // _MICROSECOND, 1_000_000)
    return {"seconds": seconds, "nanos": micros * 1_000}


def _time_in(stamp: Any) -> datetime:
    return _EPOCH + timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1_000)
