"""Rows by key and whole tables, from objects made by hand, against a dict."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ingestd.rows import beside, finding, recent
from lakehouse.ingestd.rows import reading as reading_module
from lakehouse.model.dataset import KEYS, ROWS, stats_key
from lakehouse.model.schema import Column, Schema
from support_tables import Table, Tables, schema_of

PEOPLE = schema_of(("id", "int64"), ("name", "string"), ("age", "int64"))
PLACES = schema_of(("zip", "string"), ("at", "date"), ("note", "string"))


@pytest.fixture
async def tables(tmp_path: Path) -> AsyncIterator[Tables]:
    made = Tables(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "is_small", lambda file: False)


def person(number: int, age: int = 0) -> dict[str, Any]:
    return {"id": number, "name": f"n{number}", "age": age}


async def test_the_newest_row_of_a_key_is_found(tables: Tables) -> None:
    table = tables.table(PEOPLE, "id")
    await table.add([person(n) for n in range(3000)], group=500)
    await table.change([person(7, 1), person(9000)], [person(7)])
    await table.change([person(7, 2)], [person(7, 1)])
    await table.change([], [person(8)])
    assert await table.find({"id": 7}, {"id": 8}, {"id": 9000}, {"id": -1}) == [
        person(7, 2),
        person(9000),
    ]
    assert len(await table.all()) == 3000


async def test_a_deleted_key_may_come_back(tables: Tables) -> None:
    table = tables.table(PEOPLE, "id")
    await table.add([person(1), person(2)])
    await table.change([], [person(1)])
    assert await table.find({"id": 1}) == []
    await table.change([person(1, 5)], [])
    assert await table.find({"id": 1}) == [person(1, 5)]


async def _against_a_dict(table: Table, make: Callable[[int, int], dict[str, Any]]) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    model = {n: make(n, 0) for n in range(0, 2000, 2)}
    await table.add(list(model.values()), group=100)
    for step in range(1, 13):
        chosen = chance.sample(range(2000), chance.randint(1, 40))
        gone = [n for n in chosen if n in model and chance.random() < 0.3]
        new = {n: make(n, step) for n in chosen if n not in gone}
        hidden = [model[n] for n in chosen if n in model]
        for n in gone:
            del model[n]
        model |= new
        await table.change(list(new.values()), hidden)
        asked = chance.sample(range(2000), 50)
        names = table.key
        found = await table.find(*({name: make(n, 0)[name] for name in names} for n in asked))
        expected = [model[n] for n in asked if n in model]
        assert found == sorted(expected, key=lambda row: tuple(row[name] for name in names))
    assert len(await table.all()) == len(model)


async def test_random_changes_with_small_files(tables: Tables) -> None:
    await _against_a_dict(tables.table(PEOPLE, "id"), person)


@pytest.mark.usefixtures("all_large")
async def test_random_changes_with_large_files(tables: Tables) -> None:
    await _against_a_dict(tables.table(PEOPLE, "id"), person)


@pytest.mark.usefixtures("all_large")
async def test_keys_of_several_columns(tables: Tables) -> None:
    import datetime

    first = datetime.date(2026, 1, 1)

    def row(n: int, step: int) -> dict[str, Any]:
        day = first + datetime.timedelta(days=n % 50)
        return {"zip": f"z{n // 50}", "at": day, "note": str(step)}

    await _against_a_dict(tables.table(PLACES, "zip", "at"), row)


async def test_equal_hashes_are_no_equal_keys(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    def same(rows: pa.Table, schema: Schema, key: tuple[str, ...]) -> pa.Array:
        return pa.repeat(pa.scalar(5, pa.uint64()), rows.num_rows)

    for module in (finding, recent):
        monkeypatch.setattr(module, "key_hashes", same)
    table = tables.table(PEOPLE, "id")
    await table.add([person(n) for n in range(20)])
    await table.change([person(3, 1)], [person(3)])
    assert await table.find({"id": 3}, {"id": 4}, {"id": 99}) == [person(3, 1), person(4)]


async def test_only_the_group_that_may_have_the_key_is_decoded(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "is_small", lambda file: False)
    decoded: list[int] = []
    groups = finding.Groups

    def watch(name: str) -> None:
        method = getattr(groups, name)

        def watched(self: Any, source: Any, group: Any, *more: Any) -> Any:
            result = method(self, source, group, *more)
            if result is None:
                return None
            decoded.extend([group] if isinstance(group, int) else list(group))
            return result

        monkeypatch.setattr(groups, name, watched)

    watch("rows")
    watch("index")
    table = tables.table(PEOPLE, "id")
    await table.add([person(n) for n in range(5000)], group=500)
    assert await table.find({"id": 1234}) == [person(1234)]
    assert set(decoded) == {2}


@pytest.mark.parametrize("large", [False, True])
async def test_columns_that_came_later_are_null_and_wider_types_are_cast(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(finding, "is_small", lambda file: False)
    table = tables.table(PEOPLE, "id")
    await table.add([person(1, 7), person(2, 8)])
    wider = Schema(
        2,
        (
            Column(1, "id", "int64"),
            Column(2, "name", "string"),
            Column(3, "age", "string"),
            Column(4, "phone", "string"),
        ),
    )
    assert await table.find({"id": 1}) == [person(1, 7)]
    table.widen(wider)
    await table.change(
        [{"id": 2, "name": "x", "age": "old", "phone": "1"}],
        [{"id": 2, "name": "n2", "age": "8", "phone": None}],
    )
    expected = [
        {"id": 1, "name": "n1", "age": "7", "phone": None},
        {"id": 2, "name": "x", "age": "old", "phone": "1"},
    ]
    assert await table.find({"id": 1}, {"id": 2}) == expected
    assert await table.all() == expected
    only = await tables.reader.read(table.snapshot(), ["phone"])
    assert sorted(only.column("phone").to_pylist(), key=str) == ["1", None]


@pytest.mark.parametrize("large", [False, True])
async def test_a_column_that_became_wider_before_it_became_a_key(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(finding, "is_small", lambda file: False)
    table = tables.table(PEOPLE, "id")
    await table.add([person(n) for n in range(2, 30)], group=5)
    assert await table.find({"id": 9}) == [person(9)]
    text = Column(1, "id", "string")
    table.widen(Schema(2, (text, *PEOPLE.columns[1:])))
    await table.change([person(9, 1) | {"id": "9"}], [person(9) | {"id": "9"}])
    assert await table.find({"id": "10"}, {"id": "9"}, {"id": "x"}) == [
        person(10) | {"id": "10"},
        person(9, 1) | {"id": "9"},
    ]


async def test_what_was_just_written_is_not_read_again(tables: Tables) -> None:
    table = tables.table(PEOPLE, "id")
    await table.add([person(n) for n in range(10)])
    assert await table.find({"id": 1}) == [person(1)]
    await table.change([person(1, 9)], [person(1)])
    snapshot = table.snapshot()
    rows, keys = snapshot.files[-2:]
    assert (rows.content, keys.content) == (ROWS, KEYS)
    schema = table.keys([{"id": 1}])
    new = pa.Table.from_pylist([person(1, 9)], schema=(await tables.reader.read(snapshot)).schema)
    await tables.reader.remember(snapshot.dataset, [rows, keys], [new, schema])
    await tables.buckets.get("primary").delete([rows.key, keys.key])
    assert await table.find({"id": 1}) == [person(1, 9)]


async def test_the_decoded_folder_stays_within_its_bound(tmp_path: Path) -> None:
    tables = Tables(tmp_path, decoded_cache_bytes_max=100_000)
    table = tables.table(PEOPLE, "id")
    await table.add([person(n) for n in range(20_000)], group=1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "is_small", lambda file: False)
        for n in range(0, 20_000, 1000):
            assert await table.find({"id": n}) == [person(n)]
    held = sum(path.stat().st_size for path in (tmp_path / "decoded").iterdir())
    assert 0 < held <= 100_000
    await tables.close()


@pytest.mark.usefixtures("all_large")
@pytest.mark.parametrize("damaged", [False, True])
async def test_outside_the_primary_bucket_only_the_file_that_may_have_the_key_is_fetched(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    monkeypatch.setattr(beside, "is_small", lambda file: False)
    table = tables.table(PEOPLE, "id")
    table.bucket = "other"
    for start in range(0, 500, 100):
        await table.add([person(n) for n in range(start, start + 100)])
    if damaged:
        await tables.buckets.get("other").put(stats_key(table.files[0].key), b"x")
    assert await table.find({"id": 250}) == [person(250)]
    fetched = {path.stem for path in (tmp_path / "objects").iterdir()}
    files = [file for file in table.files if file.sha256 in fetched]
    assert files == (table.files if damaged else [table.files[2]])


async def test_an_object_that_is_not_what_it_should_be_is_corrupt(tables: Tables) -> None:
    table = tables.table(PEOPLE, "id")
    await table.add([person(1)])
    await tables.buckets.get("primary").put(table.files[0].key, b"x" * table.files[0].size_bytes)
    with pytest.raises(LakehouseError) as caught:
        await table.find({"id": 1})
    assert caught.value.kind is ErrorKind.CORRUPT
    assert caught.value.fields["key"] == table.files[0].key


async def test_a_table_beyond_memory_is_refused(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_module, "_READ_BYTES_MAX", 1000)
    table = tables.table(PEOPLE, "id")
    await table.add([person(n) for n in range(1000)])
    with pytest.raises(LakehouseError) as caught:
        await tables.reader.read(table.snapshot())
    assert caught.value.kind is ErrorKind.EXHAUSTED
