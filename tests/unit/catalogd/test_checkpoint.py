"""Dump and load: the same state again, the same bytes again, damage that hides nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import orjson
import pyarrow as pa
import pytest

from lakehouse.catalogd import checkpoint
from lakehouse.catalogd.checkpoint import dump_state
from lakehouse.catalogd.codec import encode_change
from lakehouse.catalogd.internal import Forget, GiveUp, ImportDataset, StoredChange
from lakehouse.catalogd.machine import CatalogMachine
from lakehouse.catalogd.state import CatalogState
from lakehouse.catalogd.tagging import TAG_DOCUMENTS, TagBody, tag_body
from lakehouse.catalogd.views import broken_view
from lakehouse.ledger.machine import Entry, Part
from lakehouse.ledger.parquet import from_parquet, to_parquet
from lakehouse.model import changes as m
from lakehouse.model.dataset import ColumnStats, DataFile, DatasetStatus
from lakehouse.model.schema import Column, Schema
from lakehouse.table.fingerprint import fingerprint
from support_catalog import COLUMNS, create

MACHINE = CatalogMachine()
WIDER = (*COLUMNS, Column(3, "when", "timestamptz"))


def applied(state: CatalogState, *changes: StoredChange) -> CatalogState:
    seq = state.version + 1
    encoded = tuple(orjson.loads(orjson.dumps(encode_change(change))) for change in changes)
    entry = Entry(seq, 1_700_000_000_000_000 + seq, encoded, actor="ann", request_id=f"r{seq}")
    return MACHINE.apply(state, entry)


def file(dataset_id: str, at: int, session: str = "S1") -> DataFile:
    stats = (ColumnStats(1, 0, str(at), str(at + 9)), ColumnStats(2, None, "a", None))
    key = f"datasets/{session}/{dataset_id}/{at:06d}.parquet"
    return DataFile(key, 10 + at, at, f"{at:064x}", rows_hash="ab", stats=stats)


def rich_state(datasets: int = 40) -> CatalogState:
    """A state with something of everything."""
    state = applied(CatalogState(), m.OpenSession("S1", "w", "ingestd"))
    state = applied(state, m.OpenSession("S2", "w", "ingestd"), m.CloseSession("S2"))
    for at in range(datasets):
        name = f"D{at:04d}"
        state = applied(state, *create(name, f"Name {at}", file(name, at), digest=f"sha{at}"))
    state = applied(state, m.AddFiles("D0001", tuple(file("D0001", at) for at in range(700, 1400))))
    state = applied(state, m.RemoveFiles("D0001", (file("D0001", 701).key,)))
    state = applied(state, m.AddFiles("D0002", (file("D0002", 9),), replace=True))
    state = applied(state, m.SetSchema("D0003", Schema(2, WIDER), fingerprint(WIDER)))
    state = applied(state, m.RenameDataset("D0004", "Élan"), m.SetPrimaryKey("D0004", ("id",)))
    state = applied(state, m.DropDataset("D0005"), m.QuarantineDataset("D0006", "bad"))
    state = applied(state, m.DropDataset("D0007"), m.PurgeDataset("D0007"))
    state = applied(state, m.AddFiles("D0008", (file("D0009", 9),)))
    made = create("X1", "name 1")[0]
    assert isinstance(made, m.CreateDataset)
    state = applied(state, ImportDataset(made, 1_600_000_000_000_000, rows_known=False))
    state = applied(state, m.PutDocument("k", "i", '{"a":1}'), m.PutDocument("k", "j", "2"))
    state = changed_rows(state)
    given = GiveUp(3, ("datasets/S2/x/y", "datasets/S2/x/z"), ("primary", "other"))
    state = applied(state, given)
    return applied(state, Forget(("datasets/S2/x/y",), ()))


def changed_rows(state: CatalogState) -> CatalogState:
    """With row changes, a rewrite of some, and tags."""

    def part(name: str, rows: int, content: str, seq: int = 0) -> DataFile:
        key = f"datasets/S1/D0010/{name}.parquet"
        return DataFile(
            key, 9, rows, "0" * 64, rows_hash="rh1:07", content=content, seq=seq, schema_id=1
        )

    state = applied(state, m.SetPrimaryKey("D0010", ("id",)))
    for at in range(3):
        files = [part(f"{content}{at}", 2, content) for content in ("rows", "keys", "events")]
        change = m.AddFiles("D0010", tuple(files), operation="upsert", workspace="w", reason="why")
        state = applied(state, change)
    inputs = tuple(part(f"{c}{at}", 0, c).key for c in ("rows", "keys", "events") for at in (0, 1))
    top = state.version - 1
    outputs = (part("rows", 2, "rows", top), part("keys", 2, "keys", top))
    outputs += (part("events", 6, "events", top),)
    state = applied(state, m.RewriteFiles("D0010", inputs, outputs, journaled=top - 1))
    state = applied(state, m.AddFiles("D0010", (part("new", 4, "rows"),), replace=True))
    for name, version, dataset_id in (("one", 9, ""), ("two", 30, "D0001"), ("three", 30, "D0001")):
        body = TagBody(name, version, 5, dataset_id, created_by="ann")
        state = applied(state, m.PutDocument(TAG_DOCUMENTS, name, tag_body(body)))
    return applied(state, m.DeleteDocument(TAG_DOCUMENTS, "three"))


def reread(parts: Sequence[Part]) -> dict[str, pa.Table]:
    """As they come back from the bucket."""
    return {part.name: from_parquet(to_parquet(part.table)) for part in parts}


def facts(state: CatalogState) -> object:
    """A state as comparable values."""
    return (
        state.version,
        list(state.times),
        {
            each.id: (
                replace(each, log=None, history=None),  # type: ignore[arg-type]
                list(each.history),
                each.history.start,
                list(each.log.visible()),
                [list(each.log.visible(v)) for v in range(0, state.version, 7)],
                each.log.totals,
                each.log.next_ordinal,
            )
            for each in state.datasets.values()
        },
        state.names.holders,
        list(state.names.order.after(("", ""))),
        list(state.names.dropped.after(("", ""))),
        state.documents,
        state.objects,
        (state.ended, state.adopted, state.orphaned, state.dirty, state.elsewhere, state.pins),
    )


def test_load_is_the_inverse_of_dump() -> None:
    state = rich_state()
    parts = dump_state(state)
    assert len({part.name for part in parts}) == len(parts)
    loaded = MACHINE.load(reread(parts))
    assert facts(loaded) == facts(state)
    assert facts(MACHINE.load(reread(dump_state(CatalogState())))) == facts(CatalogState())


def test_a_loaded_state_goes_on_like_the_one_it_was() -> None:
    state = rich_state()
    loaded = MACHINE.load(reread(dump_state(state)))
    for change in (
        m.AddFiles("D0001", tuple(file("D0001", at) for at in range(2000, 2600))),
        m.RemoveFiles("D0001", (file("D0001", 702).key, file("D0001", 2001).key)),
        m.RestoreDataset("D0005"),
        m.DropDataset("X1"),
    ):
        state, loaded = applied(state, change), applied(loaded, change)
    assert facts(loaded) == facts(state)


def test_the_same_state_gives_the_same_bytes() -> None:
    state = rich_state()
    loaded = MACHINE.load(reread(dump_state(state)))

    def encoded(of: CatalogState) -> dict[str, bytes]:
        return {part.name: to_parquet(part.table) for part in dump_state(of)}

    assert encoded(state) == encoded(loaded)
    after = encoded(applied(state, m.PutDocument("k", "new", "1")))
    same = [name for name, data in encoded(state).items() if after.get(name) == data]
    assert {name.split("-")[0] for name in same} == {
        "datasets",
        "revisions",
        "files",
        "objects",
        "removed",
    }


def test_parts_that_did_not_change_are_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two large datasets: growing one leaves the parts of the other, and its own old ones."""
    monkeypatch.setattr(checkpoint, "_BIG_FILES", 1000)
    monkeypatch.setattr(checkpoint, "_BIG_FILES_A_PART", 2048)
    state = applied(CatalogState(), m.OpenSession("S1", "w", "r"))
    for name in ("D1", "D2"):
        some = tuple(file(name, at) for at in range(2500))
        state = applied(state, *create(name, name, *some))
    before = {part.name: part.table for part in dump_state(state)}
    grown = applied(state, m.AddFiles("D1", (file("D1", 5000),)))
    after = {part.name: part.table for part in dump_state(grown)}
    files = [name for name in after if name.startswith("files-")]
    assert len(files) == 4
    changed = [name for name in files if not after[name].equals(before[name])]
    assert len(changed) == 1
    assert max(table.nbytes for table in after.values()) <= 32 << 20
    assert facts(MACHINE.load(after)) == facts(grown)


def test_a_manifest_that_cannot_be_read_hides_only_itself() -> None:
    state = rich_state(3)
    parts = {part.name: part.table for part in dump_state(state)}
    (name,) = [name for name in parts if name.startswith("datasets-")]
    rows = parts[name].to_pylist()
    rows[1]["body"] = b'{"bucket": 7}'
    parts[name] = pa.Table.from_pylist(rows, schema=parts[name].schema)
    loaded = MACHINE.load(parts)
    assert list(loaded.broken) == ["D0001"]
    assert sorted(loaded.datasets) == ["D0000", "D0002", "X1"]
    shown = broken_view("D0001", loaded.broken["D0001"])
    assert (shown.name, shown.status) == ("Name 1", DatasetStatus.QUARANTINED)
    again = MACHINE.load(reread(dump_state(loaded)))
    assert again.broken["D0001"].body == b'{"bucket": 7}'
    assert len(again.broken["D0001"].files or ()) == len(
        state.datasets["D0001"].log.segments[0].table
    ) + sum(segment.count for segment in state.datasets["D0001"].log.segments[1:])
    purged = applied(again, m.PurgeDataset("D0001"))
    assert not purged.broken
