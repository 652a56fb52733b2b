"""Media types: which result format an Accept header asks for, which file format a body is."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, TypeVar

from lakehouse.contracts.ingest import SourceFormat
from lakehouse.contracts.query import ResultFormat
from lakehouse.errors import ErrorKind, LakehouseError

T = TypeVar("T")

ARROW_STREAM: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"

RESULT_TYPES: Final[dict[ResultFormat, str]] = {
    ResultFormat.JSON: "application/json",
    ResultFormat.NDJSON: "application/x-ndjson",
    ResultFormat.CSV: "text/csv; charset=utf-8; header=present",
    ResultFormat.PARQUET: PARQUET,
    ResultFormat.ARROW: ARROW_STREAM,
}

LISTINGS: Final = frozenset({ResultFormat.JSON, ResultFormat.NDJSON, ResultFormat.CSV})
"""The formats of lists of records."""

# In order of preference where a wildcard takes several.
_OFFERED: Final[dict[str, ResultFormat]] = {
    "application/json": ResultFormat.JSON,
    "application/x-ndjson": ResultFormat.NDJSON,
    "application/ndjson": ResultFormat.NDJSON,
    "application/jsonl": ResultFormat.NDJSON,
    "text/csv": ResultFormat.CSV,
    PARQUET: ResultFormat.PARQUET,
    "application/x-parquet": ResultFormat.PARQUET,
    ARROW_STREAM: ResultFormat.ARROW,
}

# Types that say nothing of the format: curl's and browsers' defaults, and those of compression.
_SILENT: Final = frozenset(
    {
        "",
        "application/octet-stream",
        "binary/octet-stream",
        "application/x-www-form-urlencoded",
        "text/plain",
        "application/gzip",
        "application/x-gzip",
        "application/zstd",
    }
)

_SOURCES: Final[dict[str, SourceFormat]] = {
    "text/csv": SourceFormat.CSV,
    "application/csv": SourceFormat.CSV,
    "application/vnd.ms-excel": SourceFormat.AUTO,
    "text/tab-separated-values": SourceFormat.TSV,
    "application/json": SourceFormat.JSON,
    "text/json": SourceFormat.JSON,
    "application/x-ndjson": SourceFormat.NDJSON,
    "application/ndjson": SourceFormat.NDJSON,
    "application/jsonl": SourceFormat.NDJSON,
    "application/x-jsonlines": SourceFormat.NDJSON,
    "application/jsonlines": SourceFormat.NDJSON,
    PARQUET: SourceFormat.PARQUET,
    "application/x-parquet": SourceFormat.PARQUET,
    "application/parquet": SourceFormat.PARQUET,
    ARROW_STREAM: SourceFormat.ARROW,
    "application/vnd.apache.arrow.file": SourceFormat.ARROW,
    "application/x-apache-arrow-stream": SourceFormat.ARROW,
}

_ENCODINGS: Final = {
    "": "",
    "identity": "",
    "gzip": "gzip",
    "x-gzip": "gzip",
    "zstd": "zstd",
}


def result_format(
    accept: str | None, among: frozenset[ResultFormat] = frozenset(ResultFormat)
) -> ResultFormat:
    """The offered format with the highest quality; JSON where none is asked for.

    Raises ``invalid`` with 406 if nothing that is offered is accepted (RFC 9110, 12.5.1).
    """
    if not accept or accept == "*/*":
        return ResultFormat.JSON
    if _OFFERED.get(accept) in among:
        return _OFFERED[accept]
    return preferred(accept, {m: result for m, result in _OFFERED.items() if result in among})


def preferred(accept: str | None, offered: Mapping[str, T]) -> T:
    """What is offered under the media type with the highest quality, the first of several; the very
    first where none is asked for.

    Raises ``invalid`` with 406 if nothing that is offered is accepted.
    """
    ranges = _ranges(accept or "*/*")
    best, best_quality = None, 0.0
    for media, result in offered.items():
        quality = _quality(media, ranges)
        if quality > best_quality:
            best, best_quality = result, quality
    if best is None:
        raise LakehouseError(
            ErrorKind.INVALID,
            "no result format is accepted",
            http_status=HTTPStatus.NOT_ACCEPTABLE.value,
            accept=ascii((accept or "")[:200])[1:-1],
            offered=list(offered),
        )
    return best


def source_format(media_type: str) -> SourceFormat:
    """The file format a body's media type names; AUTO where it names none.

    Raises ``invalid`` with 415 for a type that is certainly none of ours.
    """
    if media_type in _SILENT:
        return SourceFormat.AUTO
    if media_type not in _SOURCES:
        raise LakehouseError(
            ErrorKind.INVALID,
            "files of this media type cannot be read",
            http_status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE.value,
            content_type=ascii(media_type[:100])[1:-1],
            readable=list(_SOURCES),
            hint="application/octet-stream lets the format be detected; ?format= states it",
        )
    return _SOURCES[media_type]


def compression(content_encoding: str | None) -> str:
    """The compression a Content-Encoding states; "" for none. Raises ``invalid`` with 415."""
    stated = (content_encoding or "").strip().lower()
    if stated not in _ENCODINGS:
        raise LakehouseError(
            ErrorKind.INVALID,
            "this content encoding cannot be read",
            http_status=HTTPStatus.UNSUPPORTED_MEDIA_TYPE.value,
            content_encoding=ascii(stated[:100])[1:-1],
            readable=["gzip", "zstd"],
        )
    return _ENCODINGS[stated]


def _ranges(accept: str) -> list[tuple[str, float]]:
    ranges = []
    for item in accept.lower().split(","):
        media, *parameters = (part.strip() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                quality = _number(parameter[2:])
        ranges.append((media, quality))
    return ranges


def _number(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def _quality(offered: str, ranges: list[tuple[str, float]]) -> float:
    """The quality of the most specific range that takes ``offered``."""
    group = offered.partition("/")[0] + "/*"
    by_precision = {offered: 3, group: 2, "*/*": 1}
    matching = [(by_precision[media], q) for media, q in ranges if media in by_precision]
    return max(matching)[1] if matching else 0.0
