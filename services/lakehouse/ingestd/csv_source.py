"""CSV and TSV: whole blocks through Arrow's parser, single odd rows through a careful one.

Blank lines are skipped. A row with too few fields is filled with nulls and noted; one with too
many is a dead letter, unless what is too much is empty. A NUL is a character like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Final

import pyarrow as pa
import pyarrow.csv as pa_csv

from lakehouse.contracts.ingest import IngestOptions, IngestWarning
from lakehouse.ingestd.charset import Charset
from lakehouse.ingestd.decoded import Body, Decoded, Utf8Text, read_full
from lakehouse.ingestd.dialect import SAMPLE_BYTES, Dialect, dialect_of, fields_of
from lakehouse.ingestd.limits import beyond
from lakehouse.ingestd.records import Piece, pieces, spans
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.sources import NotUtf8, Parsed, Reject
from lakehouse.table.infer import NULL_TEXTS

# A line of these alone is a blank one; DOS ended its texts with a Ctrl-Z.
_BLANK: Final = " \t\x1a"
_TWO_ENDS: Final = (b"\n\n", b"\r\r", b"\n\r\n")


class CsvSource:
    """One CSV body. Raises ``invalid`` on construction if it is empty or too wide."""

    format = "csv"
    texts = True
    texts_are_dates = False

    def __init__(
        self,
        body: Body,
        compression: str,
        charset: Charset,
        options: IngestOptions,
        settings: IngestSettings,
        is_tsv: bool = False,
    ) -> None:
        self._body = body
        self._compression = compression
        self._charset = charset
        self._settings = settings
        if is_tsv:
            self.format = "tsv"
        self.null_texts = NULL_TEXTS + tuple(options.null_values or ())
        self.dialect = self._find_dialect(options, is_tsv)
        self.warnings = self.dialect.warnings
        self.first_line = self.dialect.skip_lines + 1
        if len(self.dialect.names) > settings.columns_max:
            raise beyond(
                "ingest.columns_max",
                settings.columns_max,
                "the file has too many columns",
                "send it as several datasets, or as rows of name and value",
                columns=len(self.dialect.names),
            )
        self.columns = pa.schema([(name, pa.string()) for name in self.dialect.names])

    def _find_dialect(self, options: IngestOptions, is_tsv: bool) -> Dialect:
        decoded, text = self._open()
        try:
            sample = read_full(text, SAMPLE_BYTES)
            size = SAMPLE_BYTES
            # The first record must be in the sample whole; it may be very wide.
            while len(sample) >= size and size < self._settings.record_bytes_max:
                if sample.count(b"\n") + sample.count(b"\r") > 1:
                    break
                sample += read_full(text, size)
                size *= 2
            return dialect_of(sample, len(sample) < size, options, is_tsv)
        finally:
            decoded.close()

    def _open(self) -> tuple[Decoded, Utf8Text]:
        decoded = Decoded(self._body, self._compression, self._settings)
        return decoded, Utf8Text(decoded, self._charset.encoding, self._charset.mark_bytes)

    def blocks(self) -> Iterator[Piece]:
        decoded, text = self._open()
        try:
            read_full(text, self.dialect.skip_bytes)
            settings = self._settings
            yield from pieces(
                text, self.dialect.grammar, settings.block_bytes, settings.record_bytes_max
            )
        finally:
            decoded.close()

    def parse(self, block: Piece, as_text: frozenset[str] = frozenset()) -> Parsed:
        if block.fault:
            return self._faulty(block)
        data = block.data
        lines = _line_ends(data)
        lost: list[Reject] = []
        if not data.isascii() and not _is_utf8(data):
            if not self._charset.settled:
                raise NotUtf8
            data, lost = self._without_bad_text(data)
        blank = self._blank(block.data) if self._width == 1 else ()
        batch, odd = self._bulk(data)
        if not odd:
            return Parsed(
                batch, lines, tuple(lost), blank, lambda row: self._record_lines(data)[row]
            )
        lines_of_rows = self._record_lines(data)
        keep: list[tuple[int, list[str | None]]] = []
        for number, text in odd:
            fields: list[str | None] = list(fields_of(text, self.dialect.grammar))
            extra = fields[self._width :]
            line = lines_of_rows[number - 1]
            if len(fields) == 1 and not text.strip(_BLANK):
                continue
            if any(extra):
                reason = f"has {len(fields)} fields, {self._width} expected"
                lost.append(Reject(line, reason, text))
            else:
                fields = fields[: self._width] + [None] * (self._width - len(fields))
                keep.append((number, fields))
        notes = blank + self._notes(keep, lines_of_rows)
        numbers = {number for number, _ in odd}
        whole = [n for n in range(1, len(lines_of_rows) + 1) if n not in numbers]
        batch, order = _put_back(batch, keep, whole)
        return Parsed(
            batch,
            lines,
            tuple(sorted(lost, key=lambda reject: reject.line)),
            notes,
            lambda row: lines_of_rows[order[row] - 1],
        )

    def _faulty(self, block: Piece) -> Parsed:
        nothing = pa.RecordBatch.from_pylist([], schema=self.columns)
        if block.fatal:
            failure = beyond(
                "ingest.record_bytes_max",
                self._settings.record_bytes_max,
                block.fault,
                "check the line ends and quotes of the file, or raise the limit",
                starts_with=block.data[:60].decode(errors="replace"),
            )
            return Parsed(nothing, failure=failure)
        raw = block.data.decode(errors="backslashreplace").rstrip("\r\n")
        return Parsed(
            nothing,
            max(_line_ends(block.data), 1),
            (Reject(1, block.fault, raw),),
        )

    @cached_property
    def _width(self) -> int:
        return len(self.dialect.names)

    def _bulk(self, data: bytes) -> tuple[pa.RecordBatch, list[tuple[int, str]]]:
        """The regular rows, and (number from 1 among non-blank records, text) of the others."""
        odd: list[tuple[int, str]] = []
        if not data.strip(b"\r\n"):
            return pa.RecordBatch.from_pylist([], schema=self.columns), odd

        def keep(row: pa_csv.InvalidRow) -> str:
            odd.append((row.number, row.text))
            return "skip"

        grammar = self.dialect.grammar
        table = pa_csv.read_csv(
            pa.BufferReader(data),
            read_options=pa_csv.ReadOptions(
                use_threads=False,
                # The parser takes repeated names apart by position; ours are unique anyway.
                column_names=self.dialect.names,
                block_size=len(data) + 1,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=grammar.delimiter,
                quote_char=grammar.quote or False,
                escape_char=grammar.escape or False,
                newlines_in_values=True,
                invalid_row_handler=keep,
            ),
            convert_options=pa_csv.ConvertOptions(
                check_utf8=False,
                column_types=self.columns,
                strings_can_be_null=False,
            ),
        )
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=self.columns), odd

    def _record_lines(self, data: bytes) -> list[int]:
        """For each record that is not blank, the line it starts at, from 1."""
        found: list[int] = []
        line = 1
        for span in spans(data, self.dialect.grammar):
            if span.end > span.start:
                found.append(line)
            line += _line_ends(data[span.start : span.next])
        return found

    def _blank(self, data: bytes) -> tuple[IngestWarning, ...]:
        """In one column a blank line may have been meant as a row; not so at the file's end."""
        data = data.rstrip(b"\r\n")
        if not any(ends in data for ends in _TWO_ENDS) and data[:1] not in (b"\r", b"\n"):
            return ()
        lines, line = [], 1
        for span in spans(data, self.dialect.grammar):
            if span.end == span.start:
                lines.append(line)
            line += _line_ends(data[span.start : span.next])
        if not lines:
            return ()
        text = 'blank lines were skipped; write "" where an empty value is meant'
        return (IngestWarning("blank_lines", text, line=lines[0], count=len(lines)),)

    def _without_bad_text(self, data: bytes) -> tuple[bytes, list[Reject]]:
        """Records that are not UTF-8 become dead letters; blank lines stand in for them."""
        good: list[bytes] = []
        lost: list[Reject] = []
        line = 1
        for span in spans(data, self.dialect.grammar):
            record = data[span.start : span.next]
            ends = _line_ends(record)
            if _is_utf8(record):
                good.append(record)
            else:
                raw = data[span.start : span.end].decode(errors="backslashreplace")
                lost.append(Reject(line, "is not valid utf-8", raw))
                good.append(b"\n" * ends)
            line += ends
        return b"".join(good), lost

    def _notes(
        self, keep: list[tuple[int, list[str | None]]], lines: list[int]
    ) -> tuple[IngestWarning, ...]:
        short = [number for number, fields in keep if fields[-1] is None]
        if not short:
            return ()
        return (
            IngestWarning(
                "short_rows",
                "rows with too few fields were filled with nulls",
                line=lines[short[0] - 1],
                count=len(short),
            ),
        )


def _line_ends(data: bytes) -> int:
    newlines = data.count(b"\n")
    # Looking for one is ten times faster than counting none.
    return newlines + data.count(b"\r") - data.count(b"\r\n") if b"\r" in data else newlines


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _put_back(
    batch: pa.RecordBatch, keep: list[tuple[int, list[str | None]]], whole: list[int]
) -> tuple[pa.RecordBatch, list[int]]:
    """The careful rows among the others, in the file's order; and the numbers in that order."""
    if not keep:
        return batch, whole
    extra = pa.RecordBatch.from_arrays(
        [pa.array(column, pa.string()) for column in zip(*(row for _, row in keep), strict=True)],
        schema=batch.schema,
    )
    numbers = whole + [number for number, _ in keep]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    joined = pa.Table.from_batches([batch, extra]).combine_chunks().take(pa.array(order))
    return joined.combine_chunks().to_batches()[0], [numbers[index] for index in order]
