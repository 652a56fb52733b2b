"""How a CSV is written, found from its beginning: delimiter, escapes, line ends, header. Pure.

The stated rules. Delimiter: of ``, ; tab |`` the one with which most records of the sample have as
many fields as the first; ties go to more fields. Escape: a backslash only if the sample has
``\\"`` and reads better so. Header: the first record, unless every text of it that stands over a
column of another type than string is itself of that type (years such as 2024 do not count: they
are column names often enough).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.types as pat

from lakehouse.contracts.ingest import IngestOptions, IngestWarning
from lakehouse.ingestd.limits import unreadable
from lakehouse.ingestd.records import Grammar, spans
from lakehouse.model.refs import name_key
from lakehouse.table.infer import guess_text

SAMPLE_BYTES: Final = 1 << 18
LINES_SKIPPED: Final = "before the table, and no part of it"
_SAID_MAX: Final = 500
_SAMPLE_RECORDS: Final = 200
_DELIMITERS: Final = (",", ";", "\t", "|")
_SEP_LINE: Final = re.compile(rb'"?sep=(.)"?(?:\r\n|\n|\r)', re.IGNORECASE)
_PREAMBLE_MAX: Final = 20
_REGULAR_MIN: Final = 0.8
_YEAR: Final = re.compile(r"(?:19|20)\d\d")
_NAME_BYTES_MAX: Final = 1_024

csv.field_size_limit(1 << 30)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to read one CSV.

    Attributes:
        names: of its columns, unique by ``name_key``, none empty.
        skip_bytes, skip_lines: what comes before the first row: blank lines, a ``sep=`` line,
            titles and comments, the header.
    """

    grammar: Grammar
    names: tuple[str, ...]
    header: bool
    skip_bytes: int
    skip_lines: int
    warnings: tuple[IngestWarning, ...] = ()


def fields_of(record: str, grammar: Grammar) -> list[str]:
    """The fields of one record, as the bulk parser would read them."""
    reader = csv.reader(
        io.StringIO(record, newline=""),
        delimiter=grammar.delimiter,
        quotechar=grammar.quote or None,
        quoting=csv.QUOTE_MINIMAL if grammar.quote else csv.QUOTE_NONE,
        escapechar=grammar.escape or None,
        doublequote=True,
    )
    return next(reader, [])


def dialect_of(sample: bytes, whole: bool, options: IngestOptions, is_tsv: bool) -> Dialect:
    """Find the dialect of a UTF-8 text from its first bytes.

    Args:
        sample: with the whole first record in it; ``whole`` if nothing follows.
        options: what is stated is not looked for.
        is_tsv: the tab is stated by the format.

    Raises ``invalid`` for an empty text and for characters the parser cannot take.
    """
    start = _blank_before(sample, 0)
    delimiter = "\t" if is_tsv and not options.delimiter else options.delimiter
    delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
    if separator := _SEP_LINE.match(sample, start):
        delimiter = delimiter or separator.group(1).decode(errors="replace")
        start = _blank_before(sample, separator.end())
    if start >= len(sample):
        raise unreadable("the file is empty", "send a file with a header line or rows")
    _check_character(delimiter, "delimiter")
    quote = {"": '"', "none": ""}.get(options.quote, options.quote)
    _check_character(quote, "quote")
    newline = b"\r" if b"\n" not in sample and b"\r" in sample else b"\n"
    grammar, rows = _best(sample[start:], whole, delimiter, quote, newline)
    return _with_names(sample, start, grammar, rows, options)


def _check_character(text: str, what: str) -> None:
    if text and (len(text) != 1 or not text.isascii() or text in "\r\n\0"):
        raise unreadable(
            f"the {what} must be one ASCII character", "use , ; | or \\t", value=ascii(text)[:40]
        )


def _blank_before(data: bytes, at: int) -> int:
    while at < len(data) and data[at] in b"\r\n":
        at += 1
    return at


def _best(
    sample: bytes, whole: bool, delimiter: str, quote: str, newline: bytes
) -> tuple[Grammar, list[list[str]]]:
    """The grammar with the most regular records, and those records."""
    escapes = ("", "\\") if quote and b"\\" + quote.encode() in sample else ("",)
    best: tuple[tuple[float, bool, int, bool], Grammar, list[list[str]]] | None = None
    for escape in escapes:
        for candidate in (delimiter,) if delimiter else _DELIMITERS:
            grammar = Grammar(candidate, quote, escape, newline)
            rows = _rows(sample, whole, grammar)
            fits = bool(escape) and _escapes_quotes(sample, grammar)
            before = _preamble(rows)
            regular, width = _score(rows[before:])
            score = regular, not before, width, fits
            if best is None or score > best[0]:
                best = score, grammar, rows
    if best is None:
        raise AssertionError("there is always a candidate")
    return best[1], best[2]


def _rows(sample: bytes, whole: bool, grammar: Grammar) -> list[list[str]]:
    rows: list[list[str]] = []
    for span in spans(sample, grammar):
        cut_off = span.next >= len(sample) and not whole
        if (cut_off and rows) or len(rows) >= _SAMPLE_RECORDS:
            break
        if span.end > span.start:
            text = sample[span.start : span.end].decode(errors="replace")
            rows.append(fields_of(text, grammar))
    return rows


def _escapes_quotes(sample: bytes, grammar: Grammar) -> bool:
    """True if a quoted field goes on behind ``\\"``, and no backslash stands for itself."""
    quote, delimiter = re.escape(grammar.quote), re.escape(grammar.delimiter)
    inside = rf"(?:^|{delimiter}){quote}[^{quote}]*\\{quote}(?!{quote}|{delimiter}|\s*$)"
    lone = sample.replace(b"\\\\", b"").replace(b"\\" + grammar.quote.encode(), b"")
    return b"\\" not in lone and bool(re.search(inside.encode(), sample, re.MULTILINE))


def _preamble(rows: Sequence[Sequence[str]]) -> int:
    """How many records stand before the table: titles and comments, of one field each.

    Only where nearly all that follows has one larger width, so that they can be no rows of it.
    """
    wide = (at for at, row in enumerate(rows[: _PREAMBLE_MAX + 1]) if len(row) > 1)
    at = next(wide, 0)
    rest = rows[at:]
    regular = sum(len(row) == len(rest[0]) for row in rest)
    return at if len(rest) >= max(at, 2) and regular >= _REGULAR_MIN * len(rest) else 0


def _score(rows: Sequence[Sequence[str]]) -> tuple[float, int]:
    width = len(rows[0]) if rows else 1
    if width < 2:
        return 0.0, 1
    regular = sum(len(row) == width for row in rows) / len(rows)
    return round(regular, 2), width


def _with_names(
    sample: bytes, start: int, grammar: Grammar, rows: list[list[str]], options: IngestOptions
) -> Dialect:
    warnings: list[IngestWarning] = []
    if before := _preamble(rows):
        found = (span for span in spans(sample, grammar, start) if span.end > span.start)
        for _ in range(before):
            start = _blank_before(sample, next(found).next)
        said = " / ".join(row[0] for row in rows[:before])
        rows = rows[before:]
        warnings.append(
            IngestWarning(
                "lines_skipped",
                f"{LINES_SKIPPED}: {said[:_SAID_MAX]}",
                line=1,
                count=before,
            )
        )
    header = options.header
    if header is None:
        header = _first_is_header(rows)
        if not header:
            warnings.append(
                IngestWarning("no_header", "the first line looks like data, not like a header")
            )
    if header:
        first = next(span for span in spans(sample, grammar, start))
        skip = first.next
        raw = [name.strip() for name in rows[0]]
    else:
        skip = start
        raw = [""] * len(rows[0])
    names, renamed = unique_names(raw)
    warnings += renamed if header else []
    lines = _line_ends(sample[:skip])
    return Dialect(grammar, names, header, skip, lines, tuple(warnings))


def _line_ends(data: bytes) -> int:
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _first_is_header(rows: list[list[str]]) -> bool:
    first, data = rows[0], rows[1:]
    if not data:
        return all(pat.is_string(guess_text(pa.array([text])).type) or not text for text in first)
    fitting = 0
    for index, text in enumerate(first):
        values = [row[index] for row in data if index < len(row)]
        column = guess_text(pa.array(values, pa.string())).type
        if pat.is_string(column) or pat.is_null(column) or not text.strip():
            continue
        own = guess_text(pa.array([text])).type
        same_family = own == column or {own, column} == {pa.int64(), pa.float64()}
        if not same_family:
            return True
        fitting += _YEAR.fullmatch(text) is None
    return fitting == 0


def unique_names(raw: Sequence[str]) -> tuple[tuple[str, ...], list[IngestWarning]]:
    """Names that are not empty and differ in more than case, with a warning for each new one.

    An empty one becomes ``column_<position>``, a repeated one ``name_2``, ``name_3``, ....
    """
    warnings: list[IngestWarning] = []
    taken = {name_key(name) for name in raw if name}
    seen: set[str] = set()
    names: list[str] = []
    for position, original in enumerate(raw, start=1):
        if len(original.encode(errors="replace")) > _NAME_BYTES_MAX:
            raise unreadable(
                "a column name is too long",
                f"use at most {_NAME_BYTES_MAX} bytes",
                position=position,
                starts_with=original[:60],
            )
        name = original or f"column_{position}"
        count = 1
        while name_key(name) in seen or (name != original and name_key(name) in taken):
            count += 1
            name = f"{original or f'column_{position}'}_{count}"
        seen.add(name_key(name))
        names.append(name)
        if original and name != original:
            warnings.append(
                IngestWarning(
                    "column_renamed", f"column {position} repeats a name and was renamed", name
                )
            )
        elif not original:
            warnings.append(IngestWarning("column_unnamed", f"column {position} has no name", name))
    return tuple(names), warnings
