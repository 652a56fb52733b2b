"""JSON (an array of objects, one object, or several) and NDJSON (an object a line).

NDJSON: a line that is no object is a dead letter. JSON: a syntax error ends everything after it,
so the file is ``invalid``; an element that is no object is a dead letter; "line" in messages is the
element's position in the array.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.types as pat

from lakehouse.contracts.ingest import IngestOptions, IngestWarning, NestedAs, SourceFormat
from lakehouse.errors import LakehouseError
from lakehouse.ingestd.charset import Charset
from lakehouse.ingestd.decoded import Body, Decoded, Utf8Text, read_full
from lakehouse.ingestd.json_values import (
    Inexact,
    bulk,
    columns_of,
    decode,
    decode_next,
    has_repeated,
    json_text,
    too_deep,
    unescaped,
)
from lakehouse.ingestd.limits import beyond, unreadable
from lakehouse.ingestd.records import Grammar, Piece, pieces
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.sources import NotUtf8, Parsed, Reject
from lakehouse.model.refs import name_key

_LINES: Final = Grammar(delimiter="\x00", quote="")
_TOKEN_BACKWARD: Final = re.compile(rb'"[^"]*"|[\[\]{},]')
_STRING: Final = re.compile(rb'"[^"]*"')
_SPACE: Final = b" \t\r\n"
_RAW_MAX: Final = 10_000
_UNNAMED: Final = "unnamed"


@dataclass(frozen=True, slots=True)
class _Elements:
    """Elements of an array, with the commas between them; whole ones."""

    data: bytes


class JsonSource:
    """One JSON or NDJSON body."""

    texts = False
    texts_are_dates = True
    null_texts: tuple[str, ...] = ()
    first_line = 1
    columns: pa.Schema | None = None
    warnings: tuple[IngestWarning, ...] = ()

    def __init__(
        self,
        body: Body,
        compression: str,
        charset: Charset,
        options: IngestOptions,
        settings: IngestSettings,
        source_format: SourceFormat,
    ) -> None:
        self._body = body
        self._compression = compression
        self._charset = charset
        self._settings = settings
        self._nested_as_text = options.nested is NestedAs.JSON
        self._strings: frozenset[str] = frozenset()
        self._order: dict[str, int] = {}
        self._shape = self._find_shape(source_format)
        self.format = "ndjson" if self._shape == "lines" else "json"

    def _open(self) -> tuple[Decoded, Utf8Text]:
        decoded = Decoded(self._body, self._compression, self._settings)
        return decoded, Utf8Text(decoded, self._charset.encoding, self._charset.mark_bytes)

    def _find_shape(self, source_format: SourceFormat) -> str:
        """``lines``, ``array`` or ``objects`` (one, or several one after the other)."""
        decoded, text = self._open()
        try:
            head = read_full(text, 1 << 16).lstrip(_SPACE)
        finally:
            decoded.close()
        if not head:
            raise unreadable("the file is empty", "send an array of objects, or an object a line")
        if source_format is SourceFormat.NDJSON:
            return "lines"
        if head[:1] == b"[":
            return "array"
        first, newline, rest = head.partition(b"\n")
        try:
            decode(first.decode(errors="replace"))
        except (ValueError, RecursionError):
            return "objects"
        return "lines" if newline and rest.strip(_SPACE) else "objects"

    def blocks(self) -> Iterator[Any]:
        decoded, text = self._open()
        try:
            settings = self._settings
            if self._shape == "lines":
                yield from pieces(text, _LINES, settings.block_bytes, settings.record_bytes_max)
            elif self._shape == "array":
                yield from self._array(text)
            else:
                yield from self._objects(text)
        finally:
            decoded.close()

    def _array(self, text: Utf8Text) -> Iterator[_Elements]:
        pending = read_full(text, self._settings.block_bytes).lstrip(_SPACE)[1:]
        while True:
            chunk = text.read(self._settings.block_bytes)
            if not chunk:
                break
            cut = _last_comma(pending)
            if cut > 0:
                yield _Elements(pending[:cut])
                pending = pending[cut + 1 :]
            elif len(pending) > self._settings.record_bytes_max:
                raise self._too_long()
            pending += chunk
        pending = pending.rstrip(_SPACE)
        if not pending.endswith(b"]"):
            raise unreadable("the json array is not closed", "send the file again, whole")
        pending = pending[:-1].strip(_SPACE)
        if pending:
            yield _Elements(pending)

    def _objects(self, text: Utf8Text) -> Iterator[_Elements]:
        """Objects without commas between them: found one by one; meant for few large ones."""
        pending = ""
        ended = False
        while not ended:
            chunk = text.read(self._settings.block_bytes)
            ended = not chunk
            pending += self._decode(chunk)
            if too_deep(pending.encode(), self._settings.json_depth_max):
                raise self._deep()
            at = 0
            found: list[str] = []
            while rest := pending[at:].lstrip():
                start = len(pending) - len(rest)
                try:
                    _, end = decode_next(pending, start)
                except ValueError as error:
                    if ended:
                        raise _syntax(error, pending) from error
                    break
                found.append(pending[start:end])
                at = end
            pending = pending[at:]
            if found:
                yield _Elements(",".join(found).encode())
            if len(pending) > self._settings.record_bytes_max:
                raise self._too_long()

    def _too_long(self) -> LakehouseError:
        return beyond(
            "ingest.record_bytes_max",
            self._settings.record_bytes_max,
            "one json value is longer than the limit",
            "send an array of objects or an object a line, or raise the limit",
        )

    def _deep(self) -> LakehouseError:
        return beyond(
            "ingest.json_depth_max",
            self._settings.json_depth_max,
            "the json is nested too deep",
            "send it flatter, or raise the limit",
        )

    def _decode(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            if not self._charset.settled:
                raise NotUtf8 from error
            raise unreadable(
                "the json is not valid utf-8", "state the encoding it was written in"
            ) from error

    def parse(self, block: Piece | _Elements, as_text: frozenset[str] = frozenset()) -> Parsed:
        if isinstance(block, _Elements):
            return self._parse_elements(block.data, as_text)
        if block.fatal:
            failure = beyond(
                "ingest.record_bytes_max",
                self._settings.record_bytes_max,
                block.fault,
                "send one object a line, or raise the limit",
                starts_with=block.data[:60].decode(errors="replace"),
            )
            return Parsed(self._named(columns_of([], self._nested_as_text)), failure=failure)
        return self._parse_lines(block.data, as_text)

    def _parse_elements(self, data: bytes, as_text: frozenset[str]) -> Parsed:
        if too_deep(data, self._settings.json_depth_max):
            raise self._deep()
        text = self._decode(data) if not data.isascii() else ""
        try:
            batch = self._bulk(data, True, as_text)
            return Parsed(batch, batch.num_rows)
        except Inexact:
            pass
        text = f"[{text or data.decode()}]"
        try:
            values: list[Any] = decode(text)
        except ValueError as error:
            raise _syntax(error, text) from error
        objects, places, rejects = [], [], []
        known: dict[str, str] = {}
        for place, value in enumerate(values, start=1):
            problem = problem_of(value)
            if problem:
                raw = json_text(value)[:_RAW_MAX].encode(errors="backslashreplace")
                rejects.append(Reject(place, problem, raw.decode()))
            else:
                objects.append(_clear(value, known))
                places.append(place)
        batch = self._named(columns_of(objects, self._nested_as_text, as_text))
        return Parsed(batch, len(values), tuple(rejects), (), lambda row: places[row])

    def _parse_lines(self, data: bytes, as_text: frozenset[str]) -> Parsed:
        ends = data.count(b"\n")
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError as error:
                if not self._charset.settled:
                    raise NotUtf8 from error
                return self._careful_lines(data, ends, as_text)
        if too_deep(data, self._settings.json_depth_max):
            return self._careful_lines(data, ends, as_text)
        try:
            batch = self._bulk(data, False, as_text)
        except Inexact:
            return self._careful_lines(data, ends, as_text)
        whole = ends if data.endswith(b"\n") else ends + 1
        if batch.num_rows != whole:
            filled = [at for at, line in enumerate(data.split(b"\n"), 1) if line.strip(_SPACE)]
            if len(filled) != batch.num_rows:
                return self._careful_lines(data, ends, as_text)
            return Parsed(batch, ends, line_of=lambda row: filled[row])
        return Parsed(batch, ends)

    def _careful_lines(self, data: bytes, ends: int, as_text: frozenset[str]) -> Parsed:
        objects, lines, rejects = [], [], []
        known: dict[str, str] = {}
        for number, line in enumerate(data.split(b"\n"), start=1):
            if not line.strip(_SPACE):
                continue
            try:
                if too_deep(line, self._settings.json_depth_max):
                    raise ValueError("is nested too deep")
                value = decode(line.decode())
                problem = problem_of(value)
            except UnicodeDecodeError:
                problem = "is not valid utf-8"
            except (ValueError, RecursionError) as error:
                problem = f"is not json: {error}"
            if problem:
                raw = line.decode(errors="backslashreplace").rstrip("\r")
                rejects.append(Reject(number, problem, raw))
            else:
                objects.append(_clear(value, known))
                lines.append(number)
        batch = self._named(columns_of(objects, self._nested_as_text, as_text))
        return Parsed(batch, ends, tuple(rejects), (), lambda row: lines[row])

    def _bulk(self, data: bytes, wrapped: bool, as_text: frozenset[str]) -> pa.RecordBatch:
        batch = bulk(data, wrapped, self._strings)
        inexact = [field.name for field in batch.schema if _not_its_text(field.type)]
        if as_text and any(name_key(name) in as_text for name in inexact):
            raise Inexact
        if _ambiguous(batch.schema.names):
            raise Inexact
        if self._nested_as_text and any(pat.is_nested(field.type) for field in batch.schema):
            raise Inexact
        # Learned for the next block; a race only costs it a second reading.
        self._strings |= {field.name for field in batch.schema if pat.is_string(field.type)}
        return self._named(batch)

    def _named(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Columns in the order the first block had them; names that SQL can tell apart."""
        names = batch.schema.names
        if len(names) > self._settings.columns_max:
            raise beyond(
                "ingest.columns_max",
                self._settings.columns_max,
                "the objects have too many fields",
                "send them as rows of name and value",
                columns=len(names),
            )
        if not self._order:
            self._order = {name: at for at, name in enumerate(names)}
        order = sorted(names, key=lambda name: self._order.get(name, len(self._order)))
        return batch if order == names else batch.select(order)


def _ambiguous(names: Sequence[str]) -> bool:
    """True if SQL, which compares names without case, could not tell the fields apart."""
    return len({name_key(name) for name in names}) < len(names) or "" in names


def _not_its_text(arrow: pa.DataType) -> bool:
    """Where a text made of the typed value is not what was written: ``1.50``, an absent field."""
    return bool(pat.is_nested(arrow) or pat.is_floating(arrow))


def _clear(value: dict[str, Any], known: dict[str, str]) -> dict[str, Any]:
    """Fields under the case they were first met in; a nameless one as ``unnamed``."""
    named = ((name or _UNNAMED, one) for name, one in value.items())
    return {known.setdefault(name_key(name), name): one for name, one in named}


def problem_of(value: Any) -> str:
    """Why ``value`` is no object of a table; "" if it is one."""
    if not isinstance(value, dict):
        return "is not a json object"
    if len({name_key(name or _UNNAMED) for name in value}) < len(value):
        return "has fields whose names differ only in case"
    if has_repeated(value):
        return "has a field twice"
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return "has a character that is not valid Unicode"
    return ""


def _syntax(error: ValueError, text: str) -> LakehouseError:
    at = getattr(error, "pos", 0)
    return unreadable(
        "the json cannot be read",
        "send an array of objects, or an object a line as NDJSON",
        reason=str(error)[:200],
        near=text[max(at - 20, 0) : at + 20],
    )


def _last_comma(data: bytes) -> int:
    """The last comma between elements (depth 0, outside strings); -1 if there is none.

    The depth at the end follows from counts; from there a walk backward passes the last, partial
    element only.
    """
    clean = unescaped(data)
    bare = _STRING.sub(b"", clean)
    inside = bare.count(b'"') % 2 == 1
    if inside:
        bare = bare[: bare.rindex(b'"')]
    depth = bare.count(b"[") + bare.count(b"{") - bare.count(b"]") - bare.count(b"}")
    backward = clean[::-1]
    start = backward.index(b'"') + 1 if inside else 0
    for token in _TOKEN_BACKWARD.finditer(backward, start):
        kind = token.group()
        if kind in (b"]", b"}"):
            depth += 1
        elif kind in (b"[", b"{"):
            depth -= 1
        elif kind == b"," and depth == 0:
            return len(data) - token.start() - 1
    return -1
