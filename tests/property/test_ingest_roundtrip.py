"""Ingest keeps every cell: the text itself, or a value that says the same."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakehouse.contracts.ingest import IngestOptions, SourceFormat
from lakehouse.ingestd.charset import charset_of
from lakehouse.ingestd.convert import Outcome, Work, convert
from lakehouse.ingestd.csv_source import CsvSource
from lakehouse.ingestd.json_source import JsonSource
from lakehouse.ingestd.settings import IngestSettings
from lakehouse.ingestd.sources import Source
from lakehouse.ingestd.typing_blocks import Target

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
KINDS: dict[str, st.SearchStrategy[str]] = {
    "int": st.integers(-(2**64), 2**64).map(str),
    "small": st.integers(-99, 99).map(str),
    "padded": st.integers(0, 9_999).map("{:05d}".format),
    "float": st.floats(allow_nan=False, allow_infinity=False).map(repr),
    "price": st.decimals(-(10**6), 10**6, places=2).map(str),
    "digits": st.from_regex(r"-?[0-9]{1,22}(\.[0-9]{1,22})?(e-?[0-9]{1,3})?", fullmatch=True),
    "date": st.dates().map(str),
    "time": st.datetimes().map(str),
    "iso": st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
    "bool": st.sampled_from(["true", "false", "True", "FALSE"]),
    "odd": st.sampled_from(["N/A", "NULL", "nan", "-", "+49 30", " 7", "1e5", "0x1F", "Infinity"]),
    "quotes": st.sampled_from(['"', 'a"b', '""', "x,y", "a\nb", "a\r\nb", "\\", "'", ";\t|", "\r"]),
    "text": TEXTS,
}


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    width = draw(st.integers(1, 4))
    columns = []
    for _ in range(width):
        main = KINDS[draw(st.sampled_from(sorted(KINDS)))]
        rare = KINDS[draw(st.sampled_from(sorted(KINDS)))]
        columns.append(draw(st.sampled_from([main, main | st.just(""), main | rare | st.just("")])))
    return draw(st.lists(st.tuples(*columns).map(list), max_size=30))


def read(source: Source, folder: Path, pool: ThreadPoolExecutor, block: int) -> Outcome:
    limits = IngestSettings(block_bytes=block)
    return convert(source, Target(), Work(folder, limits, pool, lambda: None, "x", 0))


def rows_of(outcome: Outcome) -> list[dict[str, Any]]:
    return [row for file in outcome.files for row in pq.read_table(str(file.path)).to_pylist()]


def check_cell(text: str, value: Any, type_text: str) -> None:
    if type_text == "string":
        assert value == text
    elif text == "":
        assert value is None
    elif type_text == "int64":
        assert value == int(text)
    elif type_text == "float64":
        assert value == float(text)
    elif type_text == "bool":
        assert value is (text.lower() == "true")
    elif type_text == "date":
        assert value == date.fromisoformat(text)
    else:
        assert value == datetime.fromisoformat(text.strip())


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_csv_cells_come_back(data: st.DataObject, pool: ThreadPoolExecutor) -> None:
    rows = data.draw(tables())
    width = len(rows[0]) if rows else 2
    delimiter = data.draw(st.sampled_from([",", ";", "\t", "|"]))
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    if any("\r" in text for row in rows for text in row):
        # The writer leaves a CR bare where lines end in LF: nobody could read that back.
        quoting = csv.QUOTE_ALL
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    block = data.draw(st.sampled_from([7, 64, 1 << 20]))
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow([f"c{n}" for n in range(width)])
    writer.writerows(rows)
    body = written.getvalue().encode(encoding)
    options = IngestOptions(header=True, delimiter=delimiter)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "body").write_bytes(body)
        limits = IngestSettings(block_bytes=block)
        charset = charset_of(body[:65_536], "" if encoding != "utf-8" else "utf-8")
        source = CsvSource(folder / "body", "none", charset, options, limits)
        outcome = read(source, folder, pool, block)
        found = rows_of(outcome)
    assert outcome.dead_letters == 0
    assert len(found) == len(rows)
    types = {column.name: column.type for column in outcome.schema.columns}
    for texts, values in zip(rows, found, strict=True):
        for n, text in enumerate(texts):
            check_cell(text, values[f"c{n}"], types[f"c{n}"])


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "number": st.integers(-5, 5) | st.floats(-1e6, 1e6),
    "bool": st.booleans(),
    "text": TEXTS,
    "date": st.dates().map(str),
    "list": st.lists(st.integers(-5, 5), max_size=3),
    "object": st.fixed_dictionaries({"x": st.integers(-5, 5)}, optional={"y": TEXTS}),
    "any": SCALARS,
}


def same(value: Any, expected: Any, type_text: str) -> bool:
    if expected is None or value is None:
        return value is None and expected is None
    if type_text == "date":
        return value == date.fromisoformat(expected)
    if type_text != "string":
        if isinstance(expected, dict):
            return {k: v for k, v in value.items() if v is not None} == expected
        return bool(value == expected) and isinstance(value, bool) == isinstance(expected, bool)
    if isinstance(expected, str):
        return bool(value == expected)
    text = json.loads(value)
    if isinstance(expected, dict):
        return {k: v for k, v in text.items() if v is not None} == expected
    return bool(text == expected)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_json_values_come_back(data: st.DataObject, pool: ThreadPoolExecutor) -> None:
    names = data.draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True))
    fields = {name: VALUES[data.draw(st.sampled_from(sorted(VALUES)))] for name in names}
    row = st.fixed_dictionaries({}, optional={n: v | st.none() for n, v in fields.items()})
    rows = data.draw(st.lists(row.filter(bool), min_size=1, max_size=20))
    shape = data.draw(st.sampled_from(["lines", "array", "pretty"]))
    block = data.draw(st.sampled_from([16, 128, 1 << 20]))
    if shape == "lines":
        text = "\n".join(json.dumps(one, ensure_ascii=False) for one in rows)
    else:
        text = json.dumps(rows, indent=2 if shape == "pretty" else None)
    source_format = SourceFormat.NDJSON if shape == "lines" else SourceFormat.JSON
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "body").write_bytes(text.encode())
        limits = IngestSettings(block_bytes=block)
        charset = charset_of(b"", "utf-8")
        options = IngestOptions()
        source = JsonSource(folder / "body", "none", charset, options, limits, source_format)
        outcome = read(source, folder, pool, block)
        found = rows_of(outcome)
    assert outcome.dead_letters == 0
    assert len(found) == len(rows)
    types = {column.name: column.type for column in outcome.schema.columns}
    for wanted, got in zip(rows, found, strict=True):
        for field, value in got.items():
            assert same(value, wanted.get(field), types[field]), (field, types[field], value)
