"""Which files a scan reads, and how, when rows change by key."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.dataset import (
    EVENTS,
    KEYS,
    ROWS,
    Card,
    ColumnStats,
    DataFile,
    Dataset,
    DatasetStatus,
)
from lakehouse.model.schema import Column, Schema
from lakehouse.queryd.plan import Plan, TableScan, decode, encode
from lakehouse.queryd.scan import Relation, make_scan, place, relation
from lakehouse.table.stats import Term
from unit.queryd.fake_catalog import WHEN

SCHEMA = Schema(1, (Column(1, "id", "int64"), Column(2, "name", "string")))
LARGE = 1_000_000


def file(
    name: str, seq: int, ids: tuple[int, int] | None, rows: int = 3, content: str = ROWS
) -> DataFile:
    stats = () if ids is None else (ColumnStats(1, 0, str(ids[0]), str(ids[1])),)
    return DataFile(name, 1000, rows, name, schema_id=1, seq=seq, content=content, stats=stats)


def keys(name: str, seq: int, ids: tuple[int, int] | None) -> DataFile:
    return file(name, seq, ids, content=KEYS)


def made(*files: DataFile, schema: Schema = SCHEMA, older: tuple[Schema, ...] = ()) -> Relation:
    dataset = Dataset(
        "d", "d", "", schema, DatasetStatus.LIVE, Card(), WHEN, WHEN, 9, len(files), 0, 0, ("id",)
    )
    return relation(DatasetSnapshot(dataset, files, (schema, *older)))


def scanned(source: Relation, *terms: Term) -> TableScan:
    kept = source.prune(terms)
    return make_scan(source, kept, {place(one): f"/x/{one.key}" for one in kept})


def arms(scan: TableScan) -> dict[str, int | None]:
    return {path[3:]: group.hidden for group in scan.groups for path in group.paths}


def layers(scan: TableScan) -> tuple[list[str], list[str]]:
    if scan.merge is None:
        return [], []
    return tuple(  # type: ignore[return-value]
        [path[3:] for group in groups for path in group.paths]
        for groups in (scan.merge.rows, scan.merge.keys)
    )


def equal(value: int) -> Term:
    return Term(1, "=", (str(value),), "int64")


def names(files: Iterable[DataFile]) -> list[str]:
    return [one.key for one in files]


def test_rows_alone_are_read_as_they_are() -> None:
    scan = scanned(made(file("a", 1, (1, 9), LARGE), file("b", 2, (10, 20), LARGE)))
    assert arms(scan) == {"a": None, "b": None}
    assert scan.merge is None


def test_a_large_base_is_read_without_what_is_hidden_and_small_changes_in_the_worker() -> None:
    scan = scanned(
        made(
            file("base", 1, (1, 900), LARGE),
            file("r2", 2, (5, 5)),
            keys("k2", 2, (5, 5)),
            file("r3", 3, (5, 7)),
            keys("k3", 3, (5, 7)),
        )
    )
    assert arms(scan) == {"base": 0}
    assert layers(scan) == (["r2", "r3"], ["k2", "k3"])
    assert scan.merge is not None
    assert scan.merge.key == ("id",)
    assert scan.merge.rows[0].seqs == (2, 3)
    assert [column.name for column in scan.merge.keys[0].columns] == ["id"]


def test_base_files_beyond_the_keys_are_read_as_they_are() -> None:
    scan = scanned(
        made(
            file("low", 1, (1, 99), LARGE),
            file("middle", 1, (100, 199), LARGE),
            file("unknown", 1, None, LARGE),
            file("high", 1, (200, 299), LARGE),
            keys("k2", 2, (120, 130)),
            keys("k3", 3, (90, 95)),
        )
    )
    assert arms(scan) == {"low": 0, "middle": 0, "unknown": 0, "high": None}


def test_keys_without_bounds_may_hide_anything() -> None:
    scan = scanned(made(file("base", 1, (1, 9), LARGE), keys("k2", 2, None)))
    assert arms(scan) == {"base": 0}


def test_a_large_change_is_hidden_by_later_keys_only() -> None:
    source = made(
        file("base", 1, (1, 900), LARGE),
        file("bulk", 2, (1, 900), LARGE),
        keys("k2", 2, (1, 900)),
        keys("k5", 5, (4, 4)),
        file("last", 5, (1, 900), LARGE),
    )
    assert arms(scanned(source)) == {"base": 0, "bulk": 2, "last": None}


def test_nothing_is_hidden_in_what_is_newer_than_all_keys() -> None:
    scan = scanned(made(keys("k2", 2, (1, 9)), file("new", 2, (1, 9), LARGE)))
    assert arms(scan) == {"new": None}
    assert scan.merge is None


def test_terms_leave_out_rows_by_any_column_and_keys_by_the_key() -> None:
    source = made(
        file("base", 1, (1, 500), LARGE),
        file("far", 1, (501, 900), LARGE),
        keys("k2", 2, (5, 5)),
        keys("k3", 3, (600, 600)),
        file("r3", 3, (600, 600)),
    )
    assert names(source.prune([equal(5)])) == ["base", "k2"]
    assert names(source.prune([equal(600)])) == ["far", "r3", "k3"]
    assert arms(scanned(source, equal(5))) == {"base": 0}
    assert arms(scanned(source, equal(7))) == {"base": None}
    # Of a column that is no part of the key nothing is known of what a key hides.
    assert "k2" in names(source.prune([Term(2, "=", ("x",), "string")]))


def test_what_is_read_into_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [file(f"r{seq}", seq, (1, 9), 60_000) for seq in range(2, 8)]
    scan = scanned(
        made(file("base", 1, (1, 9), LARGE), keys("k2", 2, (1, 9)), *many, keys("k9", 9, (1, 9)))
    )
    rows, _ = layers(scan)
    assert len(rows) == 3
    assert len(arms(scan)) == 1 + 3
    monkeypatch.setattr("lakehouse.queryd.scan.LAYERED_FILES_MAX", 5)
    source = made(*(file(f"r{seq}", seq, (1, 9)) for seq in range(9)))
    assert (len(layers(scanned(source))[0]), len(arms(scanned(source)))) == (5, 4)


def test_many_small_files_are_read_as_one() -> None:
    few = made(*(file(f"r{seq}", seq, (1, 9)) for seq in range(7)))
    assert scanned(few).merge is None
    many = made(*(file(f"r{seq}", seq, (1, 9)) for seq in range(8)))
    assert len(layers(scanned(many))[0]) == 8
    assert scanned(many).groups == ()


def test_bounds_of_another_type_leave_nothing_out() -> None:
    wider = Schema(2, (Column(1, "id", "string"), Column(2, "name", "string")))
    old, new = file("old", 1, (10, 20)), file("new", 2, None)
    source = made(old, new, schema=wider, older=(SCHEMA,))
    assert names(source.prune([Term(1, "=", ("9",), "string")])) == ["old", "new"]
    assert names(made(old, new).prune([equal(9)])) == ["new"]


def test_columns_are_found_by_id_and_say_what_they_were() -> None:
    now = Schema(
        2,
        (Column(3, "more", "bool"), Column(1, "ID", "decimal(20,0)"), Column(2, "name", "string")),
    )
    source = made(file("old", 1, None), schema=now, older=(SCHEMA,))
    (group,) = scanned(source).groups
    assert [(c.source, c.name, c.type, c.written) for c in group.columns] == [
        (None, "more", "bool", ""),
        ("id", "id", "decimal(20,0)", "int64"),
        ("name", "name", "string", ""),
    ]


def test_the_journal_is_no_rows_and_what_is_unknown_is_refused() -> None:
    source = made(file("a", 1, None), file("e", 1, None, content=EVENTS))
    assert names(source.prune([])) == ["a"]
    with pytest.raises(LakehouseError) as caught:
        made(file("a", 1, None), file("b", 2, None, content="positions"))
    assert caught.value.kind is ErrorKind.CONFLICT
    assert caught.value.fields["content"] == "positions"


def test_a_scan_is_named_by_its_content_and_travels_whole() -> None:
    base, one, other = file("b", 1, (1, 9), LARGE), keys("k", 2, (1, 9)), keys("l", 2, (1, 9))
    first, again, second = (scanned(made(base, each)) for each in (one, one, other))
    assert first.name == again.name != second.name
    plan = Plan(
        "duckdb", "select 1", (first.name,), (first,), (), False, "json", 1, 1, 1, 1, {}, 0.0
    )
    assert decode(encode(plan)) == plan
