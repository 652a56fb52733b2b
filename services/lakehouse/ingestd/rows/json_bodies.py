"""Batches that only JSON can say: patches, keys in any of their forms, and the fields to set.

Values are held as JSON texts, numbers as they were written, until the type of their column reads
them: nothing is rounded on the way.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse.contracts.ingest import IngestOptions, SourceFormat
from lakehouse.errors import LakehouseError
from lakehouse.ingestd.charset import charset_of
from lakehouse.ingestd.decoded import Decoded, Utf8Text, compression_of, read_all
from lakehouse.ingestd.json_source import problem_of
from lakehouse.ingestd.json_values import decode_next, json_text, too_deep
from lakehouse.ingestd.limits import beyond, unreadable
from lakehouse.ingestd.misfits import Misfit, NotFitting, drift
from lakehouse.ingestd.rows.batches import (
    column_named,
    key_schema,
    typed_texts,
    wrong_texts,
)
from lakehouse.ingestd.rows.refusals import BadRow, key_problems, refuse
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.model.dataset import Dataset
from lakehouse.model.refs import name_key
from lakehouse.model.schema import Column
from lakehouse.table.types import arrow_schema, to_arrow

__all__ = ["Cells", "Patches", "is_json", "json_keys", "json_patches", "set_fields"]

_HEAD_BYTES: Final = 1 << 16
_NUMBER: Final = re.compile(rb"\s*-?[0-9]+\s*")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_PARTS: Final = ("key", "set", "expect")
_FORM: Final = '{"key": 7, "set": {"phone": "555"}, "expect": {"phone": "444"}}'


@dataclass(frozen=True, slots=True)
class Cells:
    """Values of one column for some of a batch's rows; null where ``given`` is false."""

    values: pa.Array
    given: pa.BooleanArray


@dataclass(frozen=True, slots=True)
class Patches:
    """Fields to set in the rows of ``keys`` (one each), and what they are expected to hold now.
    By the column's name."""

    keys: pa.Table
    sets: Mapping[str, Cells]
    expects: Mapping[str, Cells]


def is_json(body: bytes, options: IngestOptions) -> bool:
    """Whether a batch of keys is JSON, whatever its first bytes would be taken for in a file."""
    if options.format is not SourceFormat.AUTO:
        return options.format in (SourceFormat.JSON, SourceFormat.NDJSON)
    media_type = options.content_type.partition(";")[0].strip().lower()
    if "json" in media_type:
        return True
    if media_type.endswith(("csv", "tab-separated-values")):
        return False
    return body.lstrip()[:1] in (b"[", b"{", b'"') or _NUMBER.fullmatch(body[:100]) is not None


def json_keys(
    body: bytes, options: IngestOptions, dataset: Dataset, settings: IngestSettings
) -> pa.Table:
    """The keys of a batch: bare values, arrays in the order of the key, or objects of its columns.
    Raises ``invalid`` naming each bad row."""
    values = _values(body, options, settings)
    key = dataset.primary_key
    if values and len(key) > 1 and not any(isinstance(one, list | dict) for one in values):
        # One key of several columns that was not put into an array of its own.
        values = [values]
    reading = _Reading(dataset)
    for row, value in enumerate(values, start=1):
        reading.take_key(row, value)
    return reading.keys()


def json_patches(
    body: bytes, options: IngestOptions, dataset: Dataset, settings: IngestSettings
) -> Patches:
    """Raises ``invalid`` naming each bad row, ``conflict`` with the diff for unknown columns."""
    reading = _Reading(dataset)
    for row, value in enumerate(_values(body, options, settings), start=1):
        problem = problem_of(value) or _not_a_patch(value)
        if problem:
            reading.bad.append(BadRow(row, "", json_text(value), problem))
            continue
        reading.take_key(row, value["key"])
        reading.take_fields(row, value["set"], reading.sets)
        reading.take_fields(row, value.get("expect") or {}, reading.expects)
    return reading.patches()


def set_fields(set_json: str, dataset: Dataset, settings: IngestSettings) -> dict[str, pa.Scalar]:
    """The one value a column of ``set_json``, an object, by the column's name. Raises ``invalid``,
    ``conflict`` as ``json_patches``."""
    value = _decoded(set_json.encode(errors="surrogatepass"), settings)
    if len(value) != 1 or problem_of(value[0]) or not value[0]:
        raise unreadable("what to set is no json object with fields", 'send it as {"phone": "555"}')
    reading = _Reading(dataset)
    reading.take_fields(1, value[0], reading.sets)
    cells = reading.cells(reading.sets, 1)
    reading.check()
    return {name: cell.values[0] for name, cell in cells.items()}


def _not_a_patch(value: dict[str, Any]) -> str:
    if not {"key", "set"} <= value.keys() <= set(_PARTS):
        return "is not an object with key, set and, if wanted, expect"
    fields = (value["set"], value.get("expect") or {})
    return "" if all(isinstance(one, dict) for one in fields) else "set and expect are objects"


def _values(body: bytes, options: IngestOptions, settings: IngestSettings) -> list[Any]:
    """The values of a JSON array, or of JSON values one after the other (NDJSON)."""
    decoded = Decoded(body, compression_of(body[:512], options.compression), settings)
    try:
        plain = read_all(decoded)
    finally:
        decoded.close()
    charset = charset_of(plain[:_HEAD_BYTES], options.encoding)
    data = read_all(Utf8Text(io.BytesIO(plain), charset.encoding, charset.mark_bytes))
    values = _decoded(data, settings)
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values


def _decoded(data: bytes, settings: IngestSettings) -> list[Any]:
    """All values in ``data``, one after the other."""
    if not data.strip():
        raise unreadable("the body is empty", f"send objects such as {_FORM}")
    if too_deep(data, settings.json_depth_max):
        raise beyond(
            "ingest.json_depth_max",
            settings.json_depth_max,
            "the json is nested too deep",
            "send it flatter, or raise the limit",
        )
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise unreadable("the json is not valid utf-8", "send it as utf-8") from error
    values: list[Any] = []
    at = 0
    try:
        while (at := _SPACE.match(text, at).end()) < len(text):  # type: ignore[union-attr]
            value, at = decode_next(text, at)
            values.append(value)
    except ValueError as error:
        at = getattr(error, "pos", 0)
        raise unreadable(
            "the json cannot be read",
            f"send an array of objects, or an object a line, such as {_FORM}",
            reason=str(error)[:200],
            near=text[max(at - 20, 0) : at + 20],
            value=len(values) + 1,
        ) from error
    return values


_Fields = dict[str, tuple[list[int], list[str | None]]]


@dataclass(slots=True)
class _Reading:
    """What was read of a batch so far. ``sets``, ``expects``: by column, rows and JSON texts."""

    dataset: Dataset
    bad: list[BadRow] = field(default_factory=list)
    unknown: dict[str, Misfit] = field(default_factory=dict)
    sets: _Fields = field(default_factory=dict)
    expects: _Fields = field(default_factory=dict)
    rows: list[int] = field(default_factory=list)
    key_texts: list[list[str | None]] = field(default_factory=list)

    def take_key(self, row: int, value: Any) -> None:
        key = self.dataset.primary_key
        problem, values = _key_values(value, key)
        self.rows.append(row)
        if problem:
            shown = json_text(value)
            self.bad.append(BadRow(row, ", ".join(key), shown, problem))
            values = [None] * len(key)
        self.key_texts.append([None if one is None else json_text(one) for one in values])

    def take_fields(self, row: int, fields: dict[str, Any], into: _Fields) -> None:
        for name, value in fields.items():
            column = column_named(self.dataset.schema, name)
            if column is None:
                self.unknown.setdefault(name, Misfit(name, None, _json_type(value)))
            elif column.name in self.dataset.primary_key and into is self.sets:
                shown = json_text(value)
                self.bad.append(BadRow(row, column.name, shown, "a key column cannot be set"))
            else:
                rows, texts = into.setdefault(column.name, ([], []))
                rows.append(len(self.rows) - 1 if self.rows else 0)
                texts.append(None if value is None else json_text(value))

    def check(self) -> None:
        """Raise what is wrong, if anything is."""
        dataset = self.dataset
        if self.unknown:
            raise drift(dataset.name, dataset.schema, NotFitting(tuple(self.unknown.values())))
        if self.bad:
            raise refuse(dataset.name, self.bad)

    def keys(self) -> pa.Table:
        dataset = self.dataset
        schema = key_schema(dataset.schema, dataset.primary_key)
        arrays = [
            self._typed(column, [texts[at] for texts in self.key_texts], range(len(self.rows)))
            for at, column in enumerate(schema.columns)
        ]
        table = pa.Table.from_arrays(arrays, schema=arrow_schema(schema))
        if not self.bad:
            self.bad += key_problems(table, dataset.schema, dataset.primary_key)
        self.check()
        return table

    def patches(self) -> Patches:
        sets = self.cells(self.sets, len(self.rows))
        expects = self.cells(self.expects, len(self.rows))
        return Patches(self.keys(), sets, expects)

    def cells(self, fields: _Fields, count: int) -> dict[str, Cells]:
        by_name = {column.name: column for column in self.dataset.schema.columns}
        found: dict[str, Cells] = {}
        for name, (rows, texts) in fields.items():
            values = self._typed(by_name[name], texts, rows)
            places: list[int | None] = [None] * count
            for place, row in enumerate(rows):
                places[row] = place
            taken = pa.array(places, pa.int64())
            found[name] = Cells(values.take(taken), pc.is_valid(taken))
        return found

    def _typed(
        self, column: Column, texts: Sequence[str | None], rows: Sequence[int] | range
    ) -> pa.Array:
        """``texts``, of the batch's ``rows`` (places from 0), as values of ``column``."""
        array = pa.array(texts, pa.string())
        try:
            return typed_texts(array, column.type)
        except LakehouseError:
            for at in wrong_texts(array, column.type):
                row = self.rows[rows[at]] if self.rows else 1
                text = str(texts[at])
                self.bad.append(BadRow(row, column.name, text, f"is no {column.type}"))
            return pa.nulls(len(texts), to_arrow(column.type))


def _key_values(value: Any, key: Sequence[str]) -> tuple[str, Sequence[Any]]:
    """Why ``value`` is no key ("" if it is one), and the values of its columns."""
    if isinstance(value, dict):
        names = {name_key(name): one for name, one in value.items()}
        if set(names) == {name_key(name) for name in key} and len(names) == len(value):
            return "", [names[name_key(name)] for name in key]
        if list(value) == ["key"]:
            return _key_values(value["key"], key)
        return f"the key has the columns {', '.join(key)}", ()
    values = value if isinstance(value, list) else [value]
    if len(values) != len(key):
        return f"the key has {len(key)} columns: {', '.join(key)}", ()
    return "", values


def _json_type(value: Any) -> str:
    """The type text that a value alone would be taken for; for the words of a drift."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64"
    if isinstance(value, float):
        return "float64"
    return "string"
