"""How large an Arrow stream is once its compressed buffers are unpacked, told without doing so."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import pyarrow as pa

__all__ = ["unpacked_bytes"]

# Of Message.fbs: which table a message holds, and the places of fields in tables.
_HEADER_TYPE: Final = 1
_HEADER: Final = 2
_DICTIONARY_BATCH: Final = 2
_RECORD_BATCH: Final = 3
_DICTIONARY_DATA: Final = 1
_BUFFERS: Final = 2
_COMPRESSION: Final = 3
_BUFFER: Final = struct.Struct("<qq")
_AS_IT_IS: Final = -1


def unpacked_bytes(body: bytes, most: int) -> int:
    """The sum over all messages of ``body``; what is over ``most`` is not counted to its end.

    A compressed buffer says in front of it how much memory it takes, and a reader takes as much
    before it unpacks. Raises ``pa.ArrowException`` or ``ValueError`` for what is no Arrow stream.
    """
    size = 0
    try:
        for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(body)):
            for more in _sizes(message):
                size += more
                if size > most:
                    return size
    except struct.error as error:
        raise ValueError("a message points beyond its end") from error
    return size


def _sizes(message: pa.ipc.Message) -> Iterator[int]:
    data = memoryview(message.metadata)
    root = struct.unpack_from("<I", data, 0)[0]
    at = _field(data, root, _HEADER_TYPE)
    kind = data[at] if at else 0
    batch = _table(data, root, _HEADER) if kind in (_DICTIONARY_BATCH, _RECORD_BATCH) else 0
    if kind == _DICTIONARY_BATCH and batch:
        batch = _table(data, batch, _DICTIONARY_DATA)
    if not batch or message.body is None:
        return
    buffers = _table(data, batch, _BUFFERS) if _field(data, batch, _COMPRESSION) else 0
    if not buffers:
        yield message.body.size
        return
    body = memoryview(message.body)
    for each in range(struct.unpack_from("<I", data, buffers)[0]):
        offset, length = _BUFFER.unpack_from(data, buffers + 4 + each * _BUFFER.size)
        if length > 0:
            size = struct.unpack_from("<q", body, offset)[0]
            # Other negative ones are refused by who reads it.
            yield length if size == _AS_IT_IS else max(size, 0)


def _field(data: memoryview, table: int, number: int) -> int:
    """Where field ``number`` of ``table`` is; 0: it has none."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", data, fields)[0]:
        return 0
    offset = struct.unpack_from("<H", data, fields + place)[0]
    return table + offset if offset else 0


def _table(data: memoryview, table: int, number: int) -> int:
    """What the field points to; 0: it has none."""
    at = _field(data, table, number)
    return at + struct.unpack_from("<I", data, at)[0] if at else 0
