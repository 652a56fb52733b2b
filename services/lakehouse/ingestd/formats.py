"""Which format a body is in: as stated, by content type, by name, by its first bytes. Pure."""

from __future__ import annotations

import json
import re
from typing import Final

from lakehouse.contracts.ingest import IngestOptions, SourceFormat
from lakehouse.ingestd.limits import unreadable

_BY_TYPE: Final = {
    "text/csv": SourceFormat.CSV,
    "application/csv": SourceFormat.CSV,
    "text/comma-separated-values": SourceFormat.CSV,
    "text/tab-separated-values": SourceFormat.TSV,
    "application/json": SourceFormat.JSON,
    "text/json": SourceFormat.JSON,
    "application/x-ndjson": SourceFormat.NDJSON,
    "application/ndjson": SourceFormat.NDJSON,
    "application/jsonl": SourceFormat.NDJSON,
    "application/x-jsonlines": SourceFormat.NDJSON,
    "application/jsonlines": SourceFormat.NDJSON,
    "application/vnd.apache.parquet": SourceFormat.PARQUET,
    "application/x-parquet": SourceFormat.PARQUET,
    "application/parquet": SourceFormat.PARQUET,
    "application/vnd.apache.arrow.stream": SourceFormat.ARROW,
    "application/vnd.apache.arrow.file": SourceFormat.ARROW,
    "application/x-apache-arrow-stream": SourceFormat.ARROW,
}
_BY_SUFFIX: Final = {
    "csv": SourceFormat.CSV,
    "tsv": SourceFormat.TSV,
    "tab": SourceFormat.TSV,
    "json": SourceFormat.JSON,
    "ndjson": SourceFormat.NDJSON,
    "jsonl": SourceFormat.NDJSON,
    "parquet": SourceFormat.PARQUET,
    "pq": SourceFormat.PARQUET,
    "arrow": SourceFormat.ARROW,
    "arrows": SourceFormat.ARROW,
    "ipc": SourceFormat.ARROW,
    "feather": SourceFormat.ARROW,
}
_PACKED: Final = re.compile(r"\.(?:gz|gzip|zst|zstd)$", re.IGNORECASE)
_JSON_START: Final = re.compile(rb'\[\s*(?:\{|\[|\]|")|\{\s*(?:"|\})')
_JSON_CERTAIN: Final = re.compile(rb'\[\s*\{\s*"|\{\s*"[^"]*"\s*:')
_MARKUP: Final = re.compile(rb"<!doctype html|<html|<\?xml", re.IGNORECASE)
_ARROW_STREAM: Final = b"\xff\xff\xff\xff"
_PARQUET: Final = b"PAR1"
_ARROW_FILE: Final = b"ARROW1\x00\x00"
_MARKS: Final = b"\xef\xbb\xbf"


def format_of(options: IngestOptions, head: bytes) -> SourceFormat:
    """The format of a body that begins with ``head`` (decompressed); never ``AUTO``.

    A stated or named format that the first bytes rule out is ``invalid`` and says what they are.
    """
    stated = _stated(options)
    binary = _binary(head)
    if options.format is SourceFormat.AUTO:
        _refuse_other_text(head, stated)
    if stated is None:
        return binary or _sniff_text(head)
    is_binary_format = stated in (SourceFormat.PARQUET, SourceFormat.ARROW)
    if is_binary_format and binary is not stated:
        raise unreadable(
            f"the body is not {stated.value}", "state the format it is in", stated=stated.value
        )
    if binary is SourceFormat.PARQUET and b"\x00" not in head[:64]:
        binary = None  # Letters only: a text that happens to begin so.
    if not is_binary_format and binary is not None:
        if options.format is SourceFormat.AUTO:
            return binary
        raise unreadable(
            f"the body is {binary.value}, not {stated.value}",
            f"send it with format={binary.value}",
            stated=stated.value,
        )
    return stated


def _refuse_other_text(head: bytes, stated: SourceFormat | None) -> None:
    """Texts that would pass for a CSV of one column, and are a mistake on the way here."""
    text = head.removeprefix(_MARKS).lstrip()
    if _MARKUP.match(text):
        raise unreadable(
            "the body is a web page or XML, not a table",
            "check the address it was fetched from; say format=csv if it is meant so",
        )
    is_csv = stated in (SourceFormat.CSV, SourceFormat.TSV)
    if is_csv and _JSON_CERTAIN.match(text):
        raise unreadable(
            "the body is json, not csv",
            "send it with format=json or ndjson; say format=csv if it is meant so",
        )


def _stated(options: IngestOptions) -> SourceFormat | None:
    if options.format is not SourceFormat.AUTO:
        return options.format
    media_type = options.content_type.partition(";")[0].strip().lower()
    if media_type in _BY_TYPE:
        return _BY_TYPE[media_type]
    name = _PACKED.sub("", options.file_name)
    return _BY_SUFFIX.get(name.rpartition(".")[2].lower()) if "." in name else None


def _binary(head: bytes) -> SourceFormat | None:
    if head.startswith(_PARQUET):
        return SourceFormat.PARQUET
    if head.startswith((_ARROW_FILE, _ARROW_STREAM)):
        return SourceFormat.ARROW
    return None


def _is_array(text: bytes) -> bool:
    """An array of plain values: no table, but no CSV either, and to be refused as JSON."""
    if not text.startswith(b"["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _sniff_text(head: bytes) -> SourceFormat:
    text = head.removeprefix(_MARKS).lstrip()
    if not _JSON_START.match(text) and not _is_array(text):
        return SourceFormat.CSV
    if text.startswith(b"["):
        return SourceFormat.JSON
    first, newline, rest = text.partition(b"\n")
    try:
        json.loads(first)
    except ValueError:
        return SourceFormat.JSON
    return SourceFormat.NDJSON if newline and rest.strip() else SourceFormat.JSON
