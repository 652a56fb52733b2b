"""JSON and NDJSON: exact numbers, nested values, late changes of kind, bad lines."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest

from lakehouse.contracts.ingest import NestedAs, SourceFormat
from lakehouse.errors import ErrorKind
from support_ingest import Lake, MakeLake

ROWS = [
    {"id": 1, "name": "ann", "at": "2020-01-02T03:04:05Z", "on": "2020-01-02", "v": 1.5},
    {"id": 2, "name": "bob", "at": "2020-01-02T03:04:05+01:00", "on": "2020-01-03", "ok": True},
]
READ = [
    {
        "id": 1,
        "name": "ann",
        "at": datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC),
        "on": date(2020, 1, 2),
        "v": 1.5,
        "ok": None,
    },
    {
        "id": 2,
        "name": "bob",
        "at": datetime(2020, 1, 2, 2, 4, 5, tzinfo=UTC),
        "on": date(2020, 1, 3),
        "v": None,
        "ok": True,
    },
]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("\n".join(map(json.dumps, ROWS)), "ndjson"),
        ("\r\n".join(map(json.dumps, ROWS)) + "\r\n\r\n", "ndjson"),
        (json.dumps(ROWS), "json"),
        (json.dumps(ROWS, indent=2), "json"),
        ("".join(json.dumps(row, indent=1) for row in ROWS), "json"),
    ],
)
async def test_all_shapes_read_alike(lake: Lake, body: str, name: str) -> None:
    report = await lake.put(body.encode())
    assert report.format == name
    assert await lake.rows() == READ


async def test_one_object_is_one_row(lake: Lake) -> None:
    assert (await lake.put(b'{"a": 1, "b": {"c": [1, 2]}}')).rows == 1
    assert await lake.types() == {"a": "int64", "b": "struct<c:list<int64>>"}
    assert await lake.rows() == [{"a": 1, "b": {"c": [1, 2]}}]


async def test_numbers_stay_exact(lake: Lake) -> None:
    big = 2**63
    await lake.put(
        b'{"a": 9007199254740993, "b": 1.5, "c": %d, "d": 0.12345678901234567890123}\n' % big
        + b'{"a": 1, "b": 9007199254740993, "c": 1, "d": 1}\n'
        + b'{"a": 2, "b": 2, "c": 2, "d": 2.5}\n'
    )
    assert await lake.types() == {"a": "int64", "b": "string", "c": "string", "d": "string"}
    rows = await lake.rows()
    assert [row["a"] for row in rows] == [9007199254740993, 1, 2]
    assert [row["b"] for row in rows] == ["1.5", "9007199254740993", "2"]
    assert rows[0]["c"] == str(big)
    assert rows[0]["d"] == "0.12345678901234567890123"


async def test_strings_of_digits_stay_strings(lake: Lake) -> None:
    await lake.put(b'[{"a": "007"}, {"a": "8"}, {"a": ""}, {"a": null}]')
    assert [row["a"] for row in await lake.rows()] == ["007", "8", "", None]


async def test_a_field_of_several_kinds_becomes_text(make_lake: MakeLake) -> None:
    lake = await make_lake(block_bytes=1_024)
    rows: list[dict[str, object]] = [{"a": n, "b": {"x": n}} for n in range(500)]
    rows += [{"a": "x", "b": {"y": "z"}}, {"a": True, "late": [1]}, {"a": {"k": [None]}, "b": 7}]
    await lake.put("\n".join(map(json.dumps, rows)).encode())
    table = await lake.table()
    assert await lake.types() == {"a": "string", "b": "string", "late": "list<int64>"}
    assert table["a"].to_pylist() == [*map(str, range(500)), "x", "true", '{"k":[null]}']
    assert json.loads(table["b"][3].as_py())["x"] == 3
    assert table["late"].to_pylist()[-2:] == [[1], None]


async def test_structs_grow_over_blocks(make_lake: MakeLake) -> None:
    lake = await make_lake(block_bytes=256)
    rows = [{"s": {"a": n}} for n in range(50)] + [{"s": {"b": "x", "l": []}}, {"s": None}, {}]
    rows += [{"s": {"l": [{"q": 1}]}}]
    await lake.put(json.dumps(rows).encode())
    assert await lake.types() == {"s": "struct<a:int64,b:string,l:list<struct<q:int64>>>"}
    values = [row["s"] for row in await lake.rows()]
    assert values[7] == {"a": 7, "b": None, "l": None}
    assert values[-4:] == [
        {"a": None, "b": "x", "l": []},
        None,
        None,
        {"a": None, "b": None, "l": [{"q": 1}]},
    ]


async def test_nested_may_be_kept_as_json_text(lake: Lake) -> None:
    await lake.put(b'{"a": 1, "b": {"c": [1, 2.50]}}\n{"a": 2, "b": [3]}\n', nested=NestedAs.JSON)
    assert [row["b"] for row in await lake.rows()] == ['{"c":[1,2.50]}', "[3]"]


async def test_bad_lines_are_dead_letters(lake: Lake) -> None:
    body = b'{"a": 1}\n{"a": 2\n\n[3]\n{"a": "\\ud800"}\n{"a": 4} {"a": 5}\n{"a": 6}\n'
    report = await lake.put(body, format=SourceFormat.NDJSON)
    assert (report.rows, report.dead_letters) == (2, 4)
    dead = await lake.rows("t__dead_letters")
    assert [row["line"] for row in dead] == [2, 4, 5, 6]
    assert dead[1]["reason"] == "is not a json object"
    assert dead[0]["raw"] == '{"a": 2'


async def test_broken_json_is_invalid(lake: Lake) -> None:
    for body in (b'[{"a": 1}, {"a": 2}', b'[{"a": 1} {"a": 2}]', b'{"a": 1', b'[{"a": tru}]'):
        error = await lake.refused(body, content_type="application/json")
        assert error.kind is ErrorKind.INVALID, body
    error = await lake.refused(b"[1, 2, 3]", content_type="application/json")
    assert "no row" in error.message
    error = await lake.refused(b"{}")
    assert error.kind is ErrorKind.INVALID
    error = await lake.refused(b'[{"a": 1, "A": 2}]')
    assert "only in case" in str(error.fields["first"])


async def test_an_array_is_cut_at_its_elements(make_lake: MakeLake) -> None:
    lake = await make_lake(block_bytes=300)
    rows = [
        {"n": n, "s": '},{ "\\ ]' * (n % 3), "l": [{"k": [str(n), "},{"]}, {"k": []}]}
        for n in range(200)
    ]
    await lake.put(json.dumps(rows).encode())
    assert await lake.rows() == rows
    await lake.put(json.dumps(rows, indent=3).encode(), "pretty")
    assert await lake.rows("pretty") == rows


async def test_append_reads_json_against_the_schema(lake: Lake) -> None:
    await lake.put(b"id,name\n1,ann\n")
    await lake.put(b'[{"NAME": 7}, {"id": 3, "name": {"a": 1}}]', mode="append")
    assert await lake.rows() == [
        {"id": 1, "name": "ann"},
        {"id": None, "name": "7"},
        {"id": 3, "name": '{"a":1}'},
    ]
    error = await lake.refused(b'{"id": 1}\n{"id": 2.5}\n', mode="append")
    assert error.kind is ErrorKind.CONFLICT
    error = await lake.refused(b'{"id": 1, "more": 2}', mode="append")
    assert error.fields["diff"] == [{"name": "more", "old_type": None, "new_type": "int64"}]


async def test_names_in_several_cases_are_one_column(make_lake: MakeLake) -> None:
    lake = await make_lake(block_bytes=64)
    rows = [{"Id": 1, "": "x"}, {"id": 2}, *({"ID": n} for n in range(20))]
    await lake.put("\n".join(map(json.dumps, rows)).encode())
    assert await lake.types() == {"Id": "int64", "unnamed": "string"}
    assert [row["Id"] for row in await lake.rows()] == [1, 2, *range(20)]


async def test_utf16_and_bad_utf8(lake: Lake) -> None:
    await lake.put('{"a": "ü"}\n{"a": "東"}\n'.encode("utf-16"), content_type="application/ndjson")
    assert [row["a"] for row in await lake.rows()] == ["ü", "東"]
    body = '{"a": "ü€"}\n'.encode() + b'{"a": "\xff"}\n'
    report = await lake.put(body, "u")
    assert (report.rows, report.dead_letters) == (1, 1)


async def test_a_field_that_comes_twice_is_a_dead_letter(lake: Lake) -> None:
    report = await lake.put(b'[{"a":1},{"a":2,"a":3},{"a":4,"b":{"c":5,"c":6}}]')
    assert (report.rows, report.dead_letters) == (1, 2)
    dead = await lake.rows("t__dead_letters")
    assert [row["raw"] for row in dead] == [
        '{"a":2,"a":3}',
        '{"a":4,"b":{"c":5,"c":6}}',
    ]
    await lake.put(b'{"a":1}\n{"a":2,"a":3}\n', "lines", content_type="application/x-ndjson")
    assert (await lake.rows("lines__dead_letters"))[0]["raw"] == '{"a":2,"a":3}'


@pytest.mark.parametrize(
    ("number", "type_text"),
    [
        ("0.1234567890123456789", "string"),
        ("1234567890.12345678", "string"),
        ("0.30000000000000004", "float64"),
        ("1.7976931348623157e308", "float64"),
        ("2.2250738585072014E-308", "float64"),
        ("123456789012.5", "float64"),
    ],
)
async def test_a_fraction_keeps_its_digits(lake: Lake, number: str, type_text: str) -> None:
    rows = ",".join('{"n":0.5,"ip":"10.0.0.1"}' for _ in range(50))
    await lake.put(f'[{rows},{{"n":{number}}}]'.encode())
    assert (await lake.types())["n"] == type_text
    value = (await lake.rows())[-1]["n"]
    assert value == (number if type_text == "string" else float(number))


async def test_an_array_of_plain_values_is_no_table(lake: Lake) -> None:
    error = await lake.refused(b"[1, 2.5, null]")
    assert error.fields["format"] == "json"
    assert error.fields["first"][0]["reason"] == "is not a json object"


@pytest.mark.parametrize("block_bytes", [64, 1 << 20])
async def test_objects_in_a_text_column_are_what_was_written(
    make_lake: MakeLake, block_bytes: int
) -> None:
    lake = await make_lake(block_bytes=block_bytes)
    lines = ['{"x":1.50}', '{"y":[]}', "{}", '{"x":4}', "2.50", "1e2", "7", "true"] * 3 + [
        '"t"'
    ] * 8
    await lake.put("".join(f'{{"a": {line}}}\n' for line in lines).encode())
    assert [row["a"] for row in await lake.rows()] == [line.strip('"') for line in lines]


@pytest.mark.parametrize(
    "number", ["1e400", "-1E+400", "1e-400", "12345678901234567e5", "4.9e-324"]
)
@pytest.mark.parametrize("form", ['[{{"a":{0}}}]', '{{"a":{0}}}\n{{"a":{0}}}\n', '[{{"a":[{0}]}}]'])
async def test_a_number_that_no_double_is_stays_text(lake: Lake, number: str, form: str) -> None:
    await lake.put(form.format(number).encode())
    want = f"[{number}]" if "[{{" in form and form.count("[") > 1 else number
    assert (await lake.rows())[0]["a"] == want
    assert await lake.types() == {"a": "string"}


@pytest.mark.parametrize(
    ("body", "kind", "rows"),
    [
        (b'[{"a":{}}]', "string", ["{}"]),
        (b'{"a":{}}\n{"a":null}\n', "string", ["{}", None]),
        (b'{"a":[{}]}\n', "list<string>", [["{}"]]),
        (b'{"a":{"b":{}}}\n', "struct<b:string>", [{"b": "{}"}]),
    ],
)
async def test_an_object_that_is_always_empty_is_text(
    lake: Lake, body: bytes, kind: str, rows: list[object]
) -> None:
    await lake.put(body)
    assert await lake.types() == {"a": kind}
    assert [row["a"] for row in await lake.rows()] == rows


async def test_fields_that_come_late_make_a_struct_of_an_empty_object(make_lake: MakeLake) -> None:
    lake = await make_lake(block_bytes=64)
    await lake.put(b'{"a":{}}\n' * 20 + b'{"a":{"x":1}}\n')
    assert await lake.types() == {"a": "struct<x:int64>"}
