"""From a spooled body to an ``Outcome``: detect, open the right source, convert, check the key."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from lakehouse.contracts.ingest import IngestOptions, IngestWarning, SourceFormat
from lakehouse.ingestd.arrow_source import ArrowSource, ParquetSource
from lakehouse.ingestd.charset import Charset, charset_of, decide_unmarked
from lakehouse.ingestd.convert import Outcome, Work, convert
from lakehouse.ingestd.csv_source import CsvSource
from lakehouse.ingestd.decoded import Body, Decoded, compression_of, read_full, refuse_foreign
from lakehouse.ingestd.formats import format_of
from lakehouse.ingestd.json_source import JsonSource
from lakehouse.ingestd.keycheck import check_key
from lakehouse.ingestd.limits import unreadable
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.sources import NotUtf8, Source
from lakehouse.ingestd.spool import SpooledBody
from lakehouse.ingestd.typing_blocks import Target
from lakehouse.model.refs import name_key
from lakehouse.model.schema import Schema
from lakehouse.table.types import stored, to_arrow

_HEAD_BYTES: Final = 1 << 16
_FIRST_BYTES: Final = 512
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was asked of a body.

    Attributes:
        schema: of the dataset the rows go to; None to infer.
        check: raises when the work should stop.
    """

    body: SpooledBody
    options: IngestOptions
    schema: Schema | None
    key: tuple[str, ...]
    check: Callable[[], None]


def read_body(reading: Reading, work: Work) -> tuple[Outcome, str]:
    """The outcome and the format's name. Blocking; raises as ``convert`` and ``check_key``."""
    options = reading.options
    stated = {name_key(one.name): one.type for one in options.columns}
    for type_text in stated.values():
        arrow = to_arrow(type_text)
        if stored(arrow) != arrow:
            raise unreadable(
                "a struct without fields cannot be stored",
                "state string: the column then holds json",
                type_text=type_text[:200],
            )
    sniffed = sniff(reading.body.path, options, work.settings)
    try:
        outcome, source = _convert(reading, work, sniffed, stated)
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, UnicodeError, OverflowError) as error:
        # What a reader could not foresee of the input; a mistake of ours has other types.
        reason = str(error).partition("\n")[0][:300] or type(error).__name__
        name = sniffed.format.value
        # The caller is told the reason; the log is not, for a value of the file may stand in it.
        kind = type(error).__name__
        _log.warning("a file could not be converted", extra={"format": name, "reason": kind})
        raise unreadable(
            f"the values of the {name} file cannot be converted",
            "cast what the reason names to another type, or send it as CSV",
            format=name,
            reason=reason,
        ) from error
    if outcome.key_hashes is not None:
        check_key(outcome.key_hashes, outcome.files, outcome.key)
    unknown = stated.keys() - {name_key(name) for name in outcome.schema.names()}
    if unknown:
        raise unreadable(
            "a type is stated for a column that is not there",
            "name columns of the file",
            columns=[*sorted(unknown)],
        )
    return outcome, source.format


@dataclass(frozen=True, slots=True)
class Sniffed:
    """A body of which the first bytes were looked at. ``head``: those, decompressed."""

    body: Body
    compression: str
    format: SourceFormat
    head: bytes


def sniff(body: Body, options: IngestOptions, settings: IngestSettings) -> Sniffed:
    """What ``body`` is, by what was said of it and by its first bytes. Raises ``invalid``."""
    compression = compression_of(_first(body), options.compression)
    decoded = Decoded(body, compression, settings)
    try:
        head = read_full(decoded, _HEAD_BYTES)
    finally:
        decoded.close()
    if not head:
        raise unreadable("the file is empty", "send a file with a header line or rows")
    if options.format is SourceFormat.AUTO:
        refuse_foreign(head)
    return Sniffed(body, compression, format_of(options, head), head)


def _first(body: Body) -> bytes:
    if isinstance(body, bytes):
        return body[:_FIRST_BYTES]
    with body.open("rb") as file:
        return file.read(_FIRST_BYTES)


def open_source(
    sniffed: Sniffed, options: IngestOptions, work: Work, charset: Charset | None = None
) -> Source:
    """The reader of its format. A text in no stated ``charset`` is taken for UTF-8: its blocks may
    raise ``NotUtf8``; then open it again in what ``charset_in`` finds."""
    body, compression, settings = sniffed.body, sniffed.compression, work.settings
    if sniffed.format is SourceFormat.PARQUET:
        return ParquetSource(body, compression, work)
    if sniffed.format is SourceFormat.ARROW:
        return ArrowSource(body, compression, sniffed.head, work)
    charset = charset or charset_of(sniffed.head, options.encoding)
    if sniffed.format in (SourceFormat.JSON, SourceFormat.NDJSON):
        return JsonSource(body, compression, charset, options, settings, sniffed.format)
    is_tsv = sniffed.format is SourceFormat.TSV
    return CsvSource(body, compression, charset, options, settings, is_tsv)


def charset_in(sniffed: Sniffed, settings: IngestSettings) -> Charset:
    """The encoding of a text that is not UTF-8 throughout, by all of it."""
    decoded = Decoded(sniffed.body, sniffed.compression, settings)
    try:
        return decide_unmarked(decoded)
    finally:
        decoded.close()


def _convert(
    reading: Reading, work: Work, sniffed: Sniffed, stated: dict[str, str]
) -> tuple[Outcome, Source]:
    target = Target(reading.schema, stated, reading.key)
    try:
        source = open_source(sniffed, reading.options, work)
        return convert(source, target, work), source
    except NotUtf8:
        charset = charset_in(sniffed, work.settings)
        source = open_source(sniffed, reading.options, work, charset)
        outcome = convert(source, target, work)
        if charset.encoding == "utf-8":
            return outcome, source
        guessed = IngestWarning(
            "encoding_guessed",
            f"the text is not utf-8 and was read as {charset.encoding}; state the encoding if "
            "letters look wrong",
        )
        return replace(outcome, warnings=(guessed, *outcome.warnings)), source
