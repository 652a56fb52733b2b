"""How the caller wants a file, or a batch of rows, to be read: what is stated beside its bytes."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from fastapi import Depends, Query

from lakehouse.contracts.ingest import ColumnOverride, IngestOptions, NestedAs, SourceFormat
from lakehouse.gateway.accepts import compression, source_format
from lakehouse.gateway.params import split_list, split_schema
from lakehouse.gateway.uploads import Upload


async def _dialect(
    format: Annotated[  # noqa: A002 - the parameter's name on the wire
        SourceFormat, Query(description="States the file's format over its media type.")
    ] = SourceFormat.AUTO,
    delimiter: Annotated[
        str, Query(max_length=8, description="Of a CSV; detected if absent.", examples=[";"])
    ] = "",
    quote: Annotated[str, Query(max_length=1, description="The quote character of a CSV.")] = "",
    encoding: Annotated[
        str, Query(max_length=100, description="For example latin-1; detected if absent.")
    ] = "",
    header: Annotated[
        bool | None, Query(description="Whether a CSV has a header line; detected if absent.")
    ] = None,
    null_values: Annotated[
        list[str] | None,
        Query(description="Texts that are null, with commas or repeated.", examples=[["N/A,-"]]),
    ] = None,
) -> IngestOptions:
    return IngestOptions(
        format=format,
        delimiter=delimiter,
        quote=quote,
        encoding=encoding,
        header=header,
        null_values=None if null_values is None else split_list(null_values),
    )


Dialect = Annotated[IngestOptions, Depends(_dialect)]
"""Of a batch whose types are those of the dataset."""


async def _reading(
    dialect: Dialect,
    schema: Annotated[
        str,
        Query(
            description="Types of columns over what is inferred.",
            examples=["id:string,age:int64"],
            max_length=16_000,
        ),
    ] = "",
    nested: Annotated[
        NestedAs, Query(description="What a nested JSON value becomes.")
    ] = NestedAs.STRUCT,
) -> IngestOptions:
    columns = tuple(ColumnOverride(*pair) for pair in split_schema(schema))
    return dataclasses.replace(dialect, columns=columns, nested=nested)


Reading = Annotated[IngestOptions, Depends(_reading)]
"""Of a file that may make a dataset."""


def as_sent(reading: IngestOptions, upload: Upload) -> IngestOptions:
    """What the request states of itself, where the caller's options do not say otherwise."""
    stated = source_format(upload.media_type) if reading.format is SourceFormat.AUTO else None
    return dataclasses.replace(
        reading,
        # A hint and not a stated format: a file is the same whichever way it came in.
        content_type=upload.media_type if stated not in (None, SourceFormat.AUTO) else "",
        compression=compression(upload.encoding),
        file_name=upload.file_name,
        encoding=reading.encoding or upload.charset,
    )
