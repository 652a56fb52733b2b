"""Messy CSV: each case has a stated result."""

from __future__ import annotations

import gzip

import pytest
import zstandard

from lakehouse.contracts.ingest import ColumnOverride
from lakehouse.errors import ErrorKind
from support_ingest import Lake


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
async def test_the_delimiter_is_found(lake: Lake, delimiter: str) -> None:
    rows = [["id", "price", "text"], ["1", "2.5", "a"], ["2", "3.5", "b b"]]
    await lake.put("\n".join(delimiter.join(row) for row in rows).encode())
    assert await lake.types() == {"id": "int64", "price": "float64", "text": "string"}


async def test_semicolons_with_decimal_commas_stay_text(lake: Lake) -> None:
    await lake.put(b"a;b\n1,5;2,5\n2,5;3,5\n")
    assert await lake.rows() == [{"a": "1,5", "b": "2,5"}, {"a": "2,5", "b": "3,5"}]


async def test_any_one_character_may_be_stated(lake: Lake) -> None:
    await lake.put(b"a^b\n1^2\n", delimiter="^")
    assert await lake.rows() == [{"a": 1, "b": 2}]
    error = await lake.refused(b"a||b\n", "u", delimiter="||")
    assert error.kind is ErrorKind.INVALID


async def test_quotes_escapes_and_newlines_in_fields(lake: Lake) -> None:
    await lake.put(b'a,b\n"x, ""y""\nz",1\n" s ",2\n')
    assert [row["a"] for row in await lake.rows()] == ['x, "y"\nz', " s "]
    await lake.put(b'a,b\n"x \\"y\\", z",1\n"plain",2\n', "esc")
    assert [row["a"] for row in await lake.rows("esc")] == ['x "y", z', "plain"]


async def test_a_stray_quote_in_a_field_is_a_character(lake: Lake) -> None:
    await lake.put(b'a,b\n5" pipe,1\n6" pipe,2\nx,"q\nr"\n')
    assert [row["a"] for row in await lake.rows()] == ['5" pipe', '6" pipe', "x"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
async def test_all_line_ends(lake: Lake, end: str) -> None:
    await lake.put(end.join(["a,b", "1,x", "2,y", "", "3,z"]).encode())
    assert [row["a"] for row in await lake.rows()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "name\nZoë\n東京\n"),
        ("utf-8-sig", "name\nZoë\n東京\n"),
        ("utf-16", "name\nZoë\n東京\n"),
        ("utf-16-le", "name\nZoe\nBob\n"),
        ("utf-32", "name\nZoë\n東京\n"),
        ("cp1252", "name\nZoë\n„Müller“ €\n"),
    ],
)
async def test_encodings_are_found(lake: Lake, encoding: str, text: str) -> None:
    report = await lake.put(text.encode(encoding))
    assert [row["name"] for row in await lake.rows()] == text.split()[1:] or encoding == "cp1252"
    if encoding == "cp1252":
        assert [row["name"] for row in await lake.rows()] == ["Zoë", "„Müller“ €"]
        assert [warning.code for warning in report.warnings] == ["encoding_guessed"]


async def test_a_late_byte_that_is_not_utf8_decides_for_the_whole_file(lake: Lake) -> None:
    body = b"n,name\n" + b"1,plain\n" * 50_000 + "2,Müller\n".encode("latin-1")
    await lake.put(body)
    assert (await lake.rows())[-1] == {"n": 2, "name": "Müller"}


async def test_one_bad_line_in_a_utf8_file_is_a_dead_letter(lake: Lake) -> None:
    body = "n,name\n1,Zoë\n2,Jürgen\n".encode() + b"3,bad\xff\n" + "4,Łódź\n".encode()
    report = await lake.put(body)
    assert report.dead_letters == 1
    dead = await lake.rows("t__dead_letters")
    assert (dead[0]["line"], dead[0]["reason"]) == (4, "is not valid utf-8")
    assert [row["n"] for row in await lake.rows()] == [1, 2, 4]


async def test_a_stated_encoding_is_used(lake: Lake) -> None:
    await lake.put("a\nñ\n".encode("cp850"), encoding="cp850")
    assert await lake.rows() == [{"a": "ñ"}]
    error = await lake.refused(b"a\n1\n", "u", encoding="klingon")
    assert error.kind is ErrorKind.INVALID


async def test_ragged_lines(lake: Lake) -> None:
    report = await lake.put(
        b'id,name,v\n1,a,1\n\n2,b\n3,"x\ny",3\n4,c,4,too,much\n5,d,5,,\n6,e,6\n', file_name="x.csv"
    )
    assert report.rows == 5
    assert await lake.rows() == [
        {"id": 1, "name": "a", "v": 1},
        {"id": 2, "name": "b", "v": None},
        {"id": 3, "name": "x\ny", "v": 3},
        {"id": 5, "name": "d", "v": 5},
        {"id": 6, "name": "e", "v": 6},
    ]
    short = next(warning for warning in report.warnings if warning.code == "short_rows")
    assert (short.line, short.count) == (4, 1)
    assert report.dead_letter_dataset == "t__dead_letters"
    dead = await lake.rows("t__dead_letters")
    assert [(row["line"], row["raw"], row["source"]) for row in dead] == [
        (7, "4,c,4,too,much", "x.csv")
    ]
    assert dead[0]["reason"] == "has 5 fields, 3 expected"


async def test_dead_letters_gather_in_one_dataset(lake: Lake) -> None:
    await lake.put(b"a,b\n1,2\n1,2,3\n")
    await lake.put(b"a,b\n3,4\n5,6,7\n", mode="append")
    assert len(await lake.rows("t__dead_letters")) == 2


async def test_nothing_but_dead_letters_is_invalid(lake: Lake) -> None:
    error = await lake.refused(b"a,b\n1,2,3\n4,5,6,7\n")
    assert (error.kind, error.fields["rows"]) == (ErrorKind.INVALID, 2)
    assert error.fields["first"][0]["line"] == 2  # type: ignore[index,call-overload]


async def test_an_unclosed_quote_costs_its_line_only(lake: Lake) -> None:
    report = await lake.put(b'a,b\n1,x\n2,"open\n3,z\n4,w\n')
    assert [row["a"] for row in await lake.rows()] == [1, 3, 4]
    assert report.dead_letters == 1
    dead = await lake.rows("t__dead_letters")
    assert (dead[0]["line"], dead[0]["raw"]) == (3, '2,"open')


async def test_headers(lake: Lake) -> None:
    report = await lake.put(b'a,A,,a_2,"; drop"\n1,2,3,4,5\n', header=True)
    names = [column.name for column in report.schema]
    assert names == ["a", "A_3", "column_3", "a_2", "; drop"]
    assert {warning.code for warning in report.warnings} == {"column_renamed", "column_unnamed"}
    report = await lake.put(b"1,ann,2020-01-01\n2,bob,2020-01-02\n", "none")
    assert [column.name for column in report.schema] == ["column_1", "column_2", "column_3"]
    assert report.rows == 2
    report = await lake.put(b"id,2019,2020\nx,1,2\ny,3,4\n", "years")
    assert [column.name for column in report.schema] == ["id", "2019", "2020"]
    report = await lake.put(b"a,b\nc,d\n", "stated", header=False)
    assert report.rows == 2
    report = await lake.put(b"sep=;\na;b\n1;2\n", "excel")
    assert await lake.rows("excel") == [{"a": 1, "b": 2}]


async def test_a_header_only_is_a_dataset_without_rows(lake: Lake) -> None:
    report = await lake.put(b"a,b\n")
    assert (report.rows, report.files, report.created) == (0, 0, True)
    assert await lake.types() == {"a": "string", "b": "string"}
    assert (await lake.put(b"a,b\n")).no_op


@pytest.mark.parametrize("body", [b"", b"\n\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
async def test_an_empty_file_is_invalid_and_says_so(lake: Lake, body: bytes) -> None:
    error = await lake.refused(body)
    assert error.kind is ErrorKind.INVALID
    assert "empty" in error.message


async def test_a_nul_is_a_character(lake: Lake) -> None:
    await lake.put(b"a,b\nx\x00y,1\n")
    assert await lake.rows() == [{"a": "x\x00y", "b": 1}]


async def test_too_many_columns_are_refused(lake: Lake) -> None:
    body = ",".join(f"c{n}" for n in range(5_000)).encode() + b"\n" + b",".join([b"1"] * 5_000)
    error = await lake.refused(body)
    assert (error.kind, error.fields["limit"]) == (ErrorKind.INVALID, "ingest.columns_max")
    wide = ",".join(f"c{n}" for n in range(4_096)).encode() + b"\n" + b",".join([b"1"] * 4_096)
    assert (await lake.put(wide)).rows == 1


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
async def test_compressed_and_truncated(lake: Lake, pack: object) -> None:
    body = b"a,b\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(5_000))
    packed = pack(body)  # type: ignore[operator]
    assert (await lake.put(packed)).rows == 5_000
    error = await lake.refused(packed[: len(packed) // 2], "u")
    assert error.kind is ErrorKind.INVALID
    assert "truncated" in error.message


async def test_archives_and_binaries_are_named(lake: Lake) -> None:
    for body, word in [
        (b"PK\x03\x04\x14\x00\x00\x00", "zip"),
        (b"BZh91AY&SY\x00\x01", "bzip2"),
        (b"%PDF-1.7\n", "PDF"),
        (bytes(range(256)) * 8, "binary"),
        (b"<!DOCTYPE html><html></html>", "web page"),
    ]:
        error = await lake.refused(body)
        assert error.kind is ErrorKind.INVALID
        assert word in error.message


async def test_types_may_be_stated(lake: Lake) -> None:
    await lake.put(
        b"id,amount,n\n1,1.10,7\n2,2.25,8\n",
        columns=(ColumnOverride("ID", "string"), ColumnOverride("amount", "decimal(10,2)")),
    )
    assert await lake.types() == {"id": "string", "amount": "decimal(10,2)", "n": "int64"}
    error = await lake.refused(b"a\nx\n", "u", columns=(ColumnOverride("a", "int64"),))
    assert error.fields["samples"] == [{"column": "a", "value": "x", "line": 2}]
    error = await lake.refused(b"a\nx\n", "u", columns=(ColumnOverride("b", "int64"),))
    assert error.fields["columns"] == ["b"]


async def test_null_values_may_be_stated(lake: Lake) -> None:
    await lake.put(b"a,b\n1,x\nN/A,N/A\n,\n", null_values=("N/A",))
    assert await lake.rows() == [
        {"a": 1, "b": "x"},
        {"a": None, "b": "N/A"},
        {"a": None, "b": ""},
    ]
    await lake.put(b"a,b\n1,x\nN/A,N/A\n,\n", "plain")
    assert [row["a"] for row in await lake.rows("plain")] == ["1", "N/A", ""]


async def test_tsv_by_name_and_type(lake: Lake) -> None:
    report = await lake.put(b"a\tb,c\n1\t2,3\n", file_name="x.tsv.gz")
    assert report.format == "tsv"
    assert await lake.rows() == [{"a": 1, "b,c": "2,3"}]


async def test_json_sent_as_csv_is_told_so(lake: Lake) -> None:
    error = await lake.refused(b'[{"a": 1}]', content_type="text/csv")
    assert "json" in error.message
    report = await lake.put(b'[{"a": 1}]', content_type="application/octet-stream")
    assert report.format == "json"


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("# exported 2024\n# by x\n", "# exported 2024 / # by x"),
        ("Monthly report\n\n", "Monthly report"),
        ('"Report, monthly"\n', "Report, monthly"),
    ],
)
async def test_titles_and_comments_before_the_table(lake: Lake, before: str, said: str) -> None:
    body = f"{before}a,b\n1,2\n3,x\n5,6,7\n1,2\n3,4\n5,6\n"
    report = await lake.put(body.encode())
    assert (await lake.table()).num_rows == 5
    assert await lake.types() == {"a": "int64", "b": "string"}
    [warning] = [one for one in report.warnings if one.code == "lines_skipped"]
    assert (said in warning.message, warning.line) == (True, 1)
    [dead] = await lake.rows("t__dead_letters")
    assert dead["line"] == body[: body.index("5,6,7")].count("\n") + 1


@pytest.mark.parametrize(
    "body",
    [
        b"name\nann\nbob\nsmith, john\n",
        b"#,b\n1,2\n3,4\n",
        b"a;b\n1,5;2,5\n2,5;3,5\n",
        b"a,b\n1,2,3\n4,5\n6,7\n8,9\n",
    ],
)
async def test_a_header_is_no_title(lake: Lake, body: bytes) -> None:
    report = await lake.put(body)
    assert not [one for one in report.warnings if one.code == "lines_skipped"]
    first = body.split(b"\n")[0].decode()
    assert list(await lake.types()) == first.replace(";", ",").split(",")


async def test_a_line_of_spaces_is_blank(lake: Lake) -> None:
    report = await lake.put(b"a,b\n1,2\n   \n3,4\n \t\n\x1a")
    assert await lake.rows() == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert report.warnings == ()
    await lake.put(b"a\nx\n  \n", "one")
    assert await lake.rows("one") == [{"a": "x"}, {"a": "  "}]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (rb'"x\"y"', 'x"y'),
        (rb'"x\\ and \"y"', 'x\\ and "y'),
        (rb'"C:\dir\"', "C:\\dir\\"),
        (rb"5\" pipe", r"5\" pipe"),
    ],
)
async def test_a_backslash_escapes_only_where_it_must(lake: Lake, field: bytes, value: str) -> None:
    await lake.put(b"a,b\n" + field + b',1\n"z",2\n')
    assert [row["a"] for row in await lake.rows()] == [value, "z"]


async def test_blank_lines_of_a_single_column_are_counted(lake: Lake) -> None:
    report = await lake.put(b'v\n1\n\n3\n\n\n""\n4\n\n\n')
    assert [row["v"] for row in await lake.rows()] == [1, 3, None, 4]
    (warning,) = report.warnings
    assert (warning.code, warning.line, warning.count) == ("blank_lines", 3, 3)
    assert not (await lake.put(b"v\n1\n2\n\n\n", "quiet")).warnings
