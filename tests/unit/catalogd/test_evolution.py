"""What a newer version may write, and what this one makes of it: nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pyarrow as pa
import pytest

from lakehouse.catalogd.checkpoint import dump_state, load_state
from lakehouse.catalogd.codec import encode_changes
from lakehouse.catalogd.files import FileLog
from lakehouse.catalogd.machine import CatalogMachine
from lakehouse.catalogd.service import Catalog
from lakehouse.catalogd.state import CatalogState
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger import record as r
from lakehouse.ledger.layout import Layout
from lakehouse.ledger.machine import Entry
from lakehouse.model.changes import AddFiles, OpenSession
from support_catalog import CTX, House, commit, create, file_of

MACHINE = CatalogMachine()


def state_of(files: int) -> CatalogState:
    state = MACHINE.initial()
    made = [file_of("s1", "d1", f"a{at}") for at in range(files)]
    for seq, changes in enumerate(([OpenSession("s1", "w", "r")], create("d1", "one", *made)), 1):
        state = MACHINE.apply(state, Entry(seq, seq, encode_changes(list(changes))))
    return state


def parts_of(state: CatalogState) -> dict[str, pa.Table]:
    return {part.name: part.table for part in dump_state(state)}


@pytest.mark.parametrize(
    "prefix", ["state-", "datasets-", "revisions-", "files-", "objects", "times-"]
)
@pytest.mark.parametrize("front", [False, True], ids=["last", "first"])
@pytest.mark.parametrize("files", [1, 600])
def test_a_column_that_came_later_is_passed_over(prefix: str, front: bool, files: int) -> None:
    parts = parts_of(state_of(files))
    for name, table in parts.items():
        if name.startswith(prefix):
            column = pa.array(["x"] * len(table))
            at = 0 if front else table.num_columns
            parts[name] = table.add_column(at, "later", column)
    loaded = load_state(parts)
    more = encode_changes([AddFiles("d1", (file_of("s1", "d1", "b"),))])
    after = MACHINE.apply(loaded, Entry(3, 3, more))
    assert len(list(after.datasets["d1"].log.visible())) == files + 1
    again = load_state(parts_of(after))
    assert list(again.datasets["d1"].log.visible()) == list(after.datasets["d1"].log.visible())


@pytest.mark.parametrize("files", [1, 600])
def test_files_of_before_a_column_was_there_have_its_default(files: int) -> None:
    parts = parts_of(state_of(files))
    name = next(each for each in parts if each.startswith("files-"))
    parts[name] = parts[name].drop_columns(["content", "encryption"])
    loaded = load_state(parts)
    assert all(
        (file.content, file.encryption, file.seq) == ("rows", "", 2)
        for file in loaded.datasets["d1"].log.visible()
    )
    assert parts_of(loaded)[name].column("content").to_pylist() == ["rows"] * files


@pytest.mark.parametrize("part", ["state", "new"])
def test_what_is_not_known_is_read_but_never_written_back_without_it(part: str) -> None:
    parts = parts_of(state_of(1))
    if part == "new":
        parts["newthing-0"] = parts["objects"]
    else:
        name = next(each for each in parts if each.startswith("state-"))
        row = {"kind": ["pin"], "key": ["p"], "value": pa.array([b"1"], pa.large_binary())}
        parts[name] = pa.concat_tables([parts[name], pa.table(row)])
    loaded = load_state(parts)
    assert "d1" in loaded.datasets
    with pytest.raises(LakehouseError, match="newer version") as caught:
        dump_state(loaded)
    assert caught.value.kind is ErrorKind.CONFLICT


def test_a_kind_of_row_among_the_objects_that_is_not_known_is_refused() -> None:
    parts = parts_of(state_of(1))
    row = pa.table({"kind": ["pin"], "name": ["p"], "seq": [1]})
    parts["objects"] = pa.concat_tables([parts["objects"], row])
    with pytest.raises(LakehouseError, match="newer version"):
        load_state(parts)


RECORD = r.Record(
    0,
    r.GENESIS,
    1,
    r.WriterInfo("w"),
    "p",
    1,
    1,
    "open",
    checkpoint=r.CheckpointRef(0, 0, "k", "s"),
)


def frame(change: Callable[[dict[str, Any]], object]) -> bytes:
    fields = r._record_json(RECORD, [])
    change(fields)
    inner = orjson.dumps(fields)
    return b"".join((r._HEAD, r.sha256_hex(inner).encode(), r._MIDDLE, inner, b"}"))


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(x=1),
        lambda fields: fields["checkpoint"].update(x=1),
        lambda fields: fields["writer"].update(x=1),
        lambda fields: fields.update(body=None, y={"a": 1}),
    ],
    ids=["top", "checkpoint", "writer", "nested"],
)
def test_fields_of_a_record_that_came_later_are_passed_over(
    change: Callable[[dict[str, Any]], object],
) -> None:
    assert r.decode(frame(change), Layout(), 0) == RECORD


def test_a_record_of_before_min_writer_may_be_continued() -> None:
    read = r.decode(frame(lambda fields: fields.pop("min_writer")), Layout(), 0)
    assert read.min_writer == 1


@pytest.mark.parametrize("more", [{}, {"min_reader": 2}])
def test_a_kind_of_record_that_came_later_is_newer_not_damage(more: dict[str, int]) -> None:
    with pytest.raises(LakehouseError, match="written by a newer version") as caught:
        r.decode(frame(lambda fields: fields.update(kind="erase", **more)), Layout(), 0)
    assert caught.value.kind is ErrorKind.CONFLICT


async def test_a_store_of_a_newer_writer_is_read_and_not_continued(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakehouse.ledger.ledger import read_ledger

    catalog = await house.open()
    await commit(catalog, *create("d1", "one"))
    with monkeypatch.context() as patch:
        real = r._record_json

        def newer(record: r.Record, commits: Any) -> Any:
            return {**real(record, commits), "min_writer": 2}

        patch.setattr(r, "_record_json", newer)
        await commit(catalog, *create("d2", "two"))
    state, _ = await read_ledger(house.store, CatalogMachine())
    assert set(state.datasets) == {"d1", "d2"}
    before = len(await house.store.list("_catalog/"))
    with pytest.raises(LakehouseError, match="newer version") as caught:
        await house.open(take_over=True)
    assert caught.value.kind is ErrorKind.CONFLICT
    assert len(await house.store.list("_catalog/")) == before


@pytest.mark.parametrize("field", ["content", "encryption"])
async def test_a_file_that_only_a_newer_version_can_read_is_refused(
    catalog: Catalog, session: str, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    odd = replace(file_of(session, "d1", "a"), **{field: "deltas"})
    with pytest.raises(LakehouseError) as caught:
        await commit(catalog, *create("d1", "one", odd))
    assert caught.value.kind is ErrorKind.INVALID
    await commit(catalog, *create("d1", "one", file_of(session, "d1", "b")))
    seen = FileLog.visible

    def as_stored(log: FileLog, *rest: Any) -> Any:
        return (replace(file, **{field: "deltas"}) for file in seen(log, *rest))

    monkeypatch.setattr(FileLog, "visible", as_stored)
    with pytest.raises(LakehouseError, match="newer version"):
        await catalog.snapshot(CTX, c.SnapshotRequest(("one",)))
