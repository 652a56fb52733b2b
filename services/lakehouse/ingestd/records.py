"""Where CSV records end: exactly, quotes and escapes considered; fast where quotes are regular.

The grammar is that of the parser behind it (Arrow's): a quote opens only at the start of a field,
a doubled quote stands for one, after a closing quote the field goes on to its delimiter; a record
ends at LF, CR or CRLF outside quotes.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.ingestd.decoded import Reader

_BACK_STEPS_MAX: Final = 10_000
_OFFSET_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Grammar:
    """How records are written. Each but ``newline`` is one ASCII character, "" for none."""

    delimiter: str = ","
    quote: str = '"'
    escape: str = ""
    newline: bytes = b"\n"
    pattern: re.Pattern[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "pattern", _record_pattern(self.delimiter, self.quote, self.escape)
        )


@lru_cache(maxsize=64)
def _record_pattern(delimiter: str, quote: str, escape: str) -> re.Pattern[bytes]:
    """Matches one record without its line end. Group ``open``: a quote that is never closed."""
    d = re.escape(delimiter.encode())
    e = re.escape(escape.encode())
    escaped = rb"|" + e + rb"[\s\S]" if escape else b""
    plain = rb"(?:[^" + d + e + rb"\r\n]" + escaped + rb")*+"
    if not quote:
        return re.compile(rb"(?:" + plain + rb")(?:" + d + plain + rb")*+(?P<open>(?!))?")
    q = re.escape(quote.encode())
    inside = q + rb"(?:[^" + q + e + rb"]|" + q + q + escaped + rb")*+"
    quoted = inside + rb"(?:" + q + plain + rb"|(?P<open>\Z)|\Z)"
    first = quoted.replace(b"?P<open>", b"?P<open1>")
    rest = quoted.replace(b"?P<open>", b"?P<open2>")
    one = rb"(?:" + first + rb"|(?!" + q + rb")" + plain + rb")"
    more = rb"(?:" + d + rb"(?:" + rest + rb"|(?!" + q + rb")" + plain + rb"))*+"
    return re.compile(one + more)


@dataclass(frozen=True, slots=True)
class Span:
    """One record ``[start, end)`` without its line end; ``open``: it ends inside quotes."""

    start: int
    end: int
    next: int
    open: bool = False


def spans(data: bytes, grammar: Grammar, start: int = 0) -> Iterator[Span]:
    """All records from ``start``, blank lines too. A loop over records: for the careful path."""
    at = start
    size = len(data)
    match = grammar.pattern.match
    while at < size:
        found = match(data, at)
        end = found.end() if found else at
        groups = found.groupdict() if found else {}
        is_open = any(value is not None for value in groups.values())
        after = end + (2 if data[end : end + 2] == b"\r\n" else 1)
        yield Span(at, end, min(after, size), is_open)
        at = after


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole records as they stand in the file; with ``fault``, one line that is no record."""

    data: bytes
    fault: str = ""
    fatal: bool = False


UNCLOSED: Final = "a quote is opened and not closed"


def pieces(source: Reader, grammar: Grammar, block_bytes: int, record_max: int) -> Iterator[Piece]:
    """Cut a text into blocks of whole records, in order and without loss.

    A record longer than ``record_max`` whose first line is shorter is a quote that was never
    closed: that line is a faulty piece of its own, and reading resumes behind it. A single line
    beyond ``record_max`` is a fatal piece.
    """
    pending = b""
    while chunk := source.read(block_bytes):
        pending = pending + chunk if pending else chunk
        while True:
            cut = _cut(pending, grammar)
            if cut:
                yield Piece(pending[:cut])
                pending = pending[cut:]
            if len(pending) <= record_max:
                break
            line = _first_line(pending, grammar, record_max)
            if line == 0:
                yield Piece(pending[:256], "a line is longer than the limit", fatal=True)
                return
            yield Piece(pending[:line], UNCLOSED)
            pending = pending[line:]
    yield from _last(pending, grammar)


def _last(pending: bytes, grammar: Grammar) -> Iterator[Piece]:
    """What is left at the end of the text: it may lack its line end, or end inside quotes."""
    while pending:
        if not grammar.quote or pending.count(grammar.quote.encode()) == 0:
            yield Piece(pending)
            return
        last = deque(spans(pending, grammar), maxlen=1).pop()
        if not last.open:
            yield Piece(pending)
            return
        if last.start:
            yield Piece(pending[: last.start])
        pending = pending[last.start :]
        line = _first_line(pending, grammar, len(pending)) or len(pending)
        yield Piece(pending[:line], UNCLOSED)
        pending = pending[line:]


def _first_line(data: bytes, grammar: Grammar, limit: int) -> int:
    return data.find(grammar.newline, 0, limit) + 1


def _cut(data: bytes, grammar: Grammar) -> int:
    """Where the last whole record of ``data`` ends, behind its line end; 0 if none does."""
    last = data.rfind(grammar.newline)
    if last < 0:
        return 0
    if not grammar.escape:
        quote = grammar.quote.encode()
        if not quote or quote not in data:
            return last + 1
        quotes = _regular(data, grammar)
        if quotes >= 0:
            return _last_even(data, quotes, grammar)
    cut = 0
    for span in spans(data, grammar):
        end = data[span.end : span.next]
        # A CR that is the last byte may be half of a CRLF.
        if span.open or not end or (end == b"\r" and span.next == len(data)):
            break
        cut = span.next
    return cut


def _last_even(data: bytes, quotes: int, grammar: Grammar) -> int:
    """The end of the last line with an even number of quotes before it; 0 if there is none."""
    quote = grammar.quote.encode()
    last = len(data)
    for _ in range(_BACK_STEPS_MAX):
        before = data.rfind(grammar.newline, 0, last)
        if before < 0:
            return 0
        quotes -= data.count(quote, before, last)
        last = before
        if quotes % 2 == 0:
            return last + 1
    return 0


def _regular(data: bytes, grammar: Grammar) -> int:
    """How many quotes there are, if every one opens at a field's start or closes at its end, so
    that quotes before a place tell by their parity whether it is inside quotes; else -1.

    Vectorised: of the texts between quotes, every second one is outside of them, and must begin
    and end as a field does (or be nothing: a doubled quote).
    """
    if len(data) > _OFFSET_MAX:
        return -1
    offsets = pa.py_buffer(b"\0\0\0\0" + len(data).to_bytes(4, sys.byteorder))
    whole = pa.Array.from_buffers(pa.binary(), 1, [None, offsets, pa.py_buffer(data)])
    parts = pc.split_pattern(whole, grammar.quote).values
    quotes = len(parts) - 1
    outside = _every_second(quotes // 2 + 1)
    edges = pa.array([b"", grammar.delimiter.encode(), b"\n", b"\r"], pa.binary())
    first = pc.binary_slice(parts, 0, 1).take(outside).slice(1)
    last = pc.binary_slice(parts, -1, None).take(outside).slice(0, (quotes + 1) // 2)
    fine = (pc.all(pc.is_in(ends, value_set=edges), min_count=0) for ends in (first, last))
    return quotes if all(one.as_py() for one in fine) else -1


def _every_second(count: int) -> pa.Array:
    """0, 2, 4, ..., ``count`` of them."""
    return pc.subtract(pc.cumulative_sum(pa.repeat(pa.scalar(2, pa.int64()), count)), 2)
