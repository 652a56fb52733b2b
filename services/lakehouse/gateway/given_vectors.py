"""Vectors that are given: JSON, or Arrow as it is, as the Arrow stream that the contract takes."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from itertools import accumulate
from typing import Annotated, Any, Final

from pydantic import Field, RootModel
from starlette.requests import Request

from lakehouse.contracts.ingest import SourceFormat
from lakehouse.contracts.vectors import VECTORS_BYTES_MAX
from lakehouse.errors import LakehouseError
from lakehouse.gateway.accepts import source_format
from lakehouse.gateway.bodies import (
    Body,
    media_type,
    parse_body,
    read_limited,
    too_large,
    unsupported,
)
from lakehouse.gateway.vector_bodies import Vector

_FLOAT_BYTES: Final = 4
_TAKEN: Final = (SourceFormat.AUTO, SourceFormat.JSON, SourceFormat.ARROW)
# How an Arrow stream begins: its types say so seldom (curl states a form).
_ARROW_START: Final = b"\xff\xff\xff\xff"


class GivenVector(Body):
    """A vector by its ``id``, with the ``text`` it stands for, if wanted."""

    id: Annotated[str, Field(min_length=1, max_length=4000)]
    vector: Vector
    text: str = ""


class GivenVectorsBody(RootModel[Annotated[tuple[GivenVector, ...], Field(min_length=1)]]):
    """Insert, or replace, each by its id."""


async def read_vectors(request: Request) -> bytes:
    """The body as an Arrow IPC stream of ``id``, ``vector`` and ``text``.

    Raises ``invalid``: no such JSON; with 413 beyond ``VECTORS_BYTES_MAX``, as sent or as float32;
    with 415 for another media type.
    """
    stated = media_type(request)
    form = source_format(stated)
    if form not in _TAKEN:
        raise unsupported("this takes JSON or an Arrow stream", content_type=stated[:100])
    try:
        body = await read_limited(request, VECTORS_BYTES_MAX)
        if form is SourceFormat.ARROW or body.startswith(_ARROW_START):
            return body
        # Thousands of vectors: the loop answers others meanwhile.
        return await asyncio.to_thread(_arrow, body)
    except LakehouseError as error:
        if error.http_status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise
        hint = "send them in several calls: each is one commit"
        raise LakehouseError(error.kind, error.message, **{**error.fields, "hint": hint}) from None


def _arrow(body: bytes) -> bytes:
    given = parse_body(GivenVectorsBody, body).root
    vectors = [one.vector for one in given]
    if sum(map(len, vectors)) > VECTORS_BYTES_MAX:
        raise too_large(VECTORS_BYTES_MAX)
    columns: dict[str, Any] = {"id": [one.id for one in given], "text": [one.text for one in given]}
    return _stream(columns, vectors)


def _stream(columns: dict[str, Any], vectors: list[bytes]) -> bytes:
    import pyarrow as pa

    lengths = [len(one) // _FLOAT_BYTES for one in vectors]
    offsets = pa.array(accumulate(lengths, initial=0), pa.int32())
    numbers = pa.py_buffer(b"".join(vectors))
    values = pa.Array.from_buffers(pa.float32(), sum(lengths), [None, numbers])
    table = pa.table(
        {
            "id": pa.array(columns["id"], pa.string()),
            "vector": pa.ListArray.from_arrays(offsets, values),
            "text": pa.array(columns["text"], pa.string()),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    raw: bytes = sink.getvalue().to_pybytes()
    return raw
