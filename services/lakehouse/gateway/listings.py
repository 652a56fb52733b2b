"""Lists of records as JSON with what there is to say of them, as NDJSON, or as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi.responses import Response

from lakehouse.contracts.query import ResultFormat
from lakehouse.contracts.storage import ErrorsResult
from lakehouse.gateway.accepts import RESULT_TYPES
from lakehouse.gateway.replies import reply
from lakehouse.gateway.shapes import errors_shape
from lakehouse.model.failures import FailedAttempt


def errors_reply(result: ErrorsResult, wanted: ResultFormat) -> Response:
    """The page in the wanted format; NDJSON and CSV have what is beside it in headers."""
    if wanted is ResultFormat.JSON:
        return reply(errors_shape(result))
    headers = {"Lakehouse-Complete": "true" if result.complete else "false"}
    if result.next:
        headers["Lakehouse-Next"] = result.next
    rows = result.errors
    body = ndjson(rows) if wanted is ResultFormat.NDJSON else csv_text(rows, FailedAttempt)
    return Response(body, headers=headers, media_type=RESULT_TYPES[wanted])


def ndjson(rows: Sequence[Any]) -> bytes:
    """One dataclass a line."""
    option = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE
    return b"".join(orjson.dumps(row, option=option) for row in rows)


def csv_text(rows: Sequence[Any], kind: type[Any]) -> bytes:
    """A header line and one line a dataclass of scalars, as RFC 4180 has it; times and flags as
    in JSON."""
    names = [field.name for field in dataclasses.fields(kind)]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    for row in rows:
        plain = orjson.loads(orjson.dumps(row, option=orjson.OPT_UTC_Z))
        writer.writerow([_cell(plain[name]) for name in names])
    return text.getvalue().encode()


def _cell(value: object) -> object:
    return ("true" if value else "false") if isinstance(value, bool) else value
