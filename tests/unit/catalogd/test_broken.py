"""A manifest that cannot be read, as after a return to an older version: nothing of it is lost."""

from __future__ import annotations

from typing import Any

import pytest

from lakehouse.catalogd import checkpoint, checkpoint_rows
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.model.changes import AddFiles, DropDataset
from support_catalog import CTX, House, build_house, commit, create, file_of

LEDGER = LedgerSettings(reader_retention_seconds=0.0)


def break_manifest(patch: pytest.MonkeyPatch, broken_id: str) -> None:
    real = checkpoint_rows.decode_dataset

    def refusing(dataset_id: str, *rest: Any) -> Any:
        if dataset_id == broken_id:
            raise LakehouseError(ErrorKind.CORRUPT, "a stored value cannot be read")
        return real(dataset_id, *rest)

    patch.setattr(checkpoint, "decode_dataset", refusing)


async def fold(catalog: Any) -> None:
    """A checkpoint, and a record that names it."""
    ledger = catalog._core.ledger
    await ledger._folder.fold()
    await ledger._committer.append_bare("commit")


async def two_files(house: House) -> None:
    """One file of d1 in the checkpoint and one acknowledged after it, then no close."""
    catalog = await house.open()
    opened = await catalog.session(CTX, c.SessionRequest("w", "ingestd"))
    session = opened.session_id
    files = [file_of(session, "d1", name) for name in "ab"]
    for file in files:
        await house.store.put(file.key, b"x" * file.size_bytes)
    await commit(catalog, *create("d1", "people", files[0]))
    await fold(catalog)
    await commit(catalog, AddFiles("d1", (files[1],)))
    await catalog.session(CTX, c.SessionRequest("w", "ingestd", session, close=True))


async def test_nothing_of_an_unreadable_manifest_is_collected_and_its_tail_is_kept() -> None:
    house = await build_house()
    await two_files(house)
    with pytest.MonkeyPatch.context() as patch:
        break_manifest(patch, "d1")
        catalog = await house.open(ledger=LEDGER)
        report = await catalog.fsck(CTX, c.FsckRequest(dry_run=True))
        assert [each.kind for each in report.findings] == ["manifest"]
        with pytest.raises(LakehouseError) as caught:
            await catalog.collect(CTX, c.PlanRequest())
        assert caught.value.kind is ErrorKind.CONFLICT
        assert caught.value.fields["datasets"] == ["people"]
        for name in ("x", "y"):  # two folds: what was kept is kept again
            await commit(catalog, *create(name, name))
            await fold(catalog)
            catalog = await house.open(ledger=LEDGER)
    assert len(await house.store.list("datasets/")) == 2
    repaired = await house.open(ledger=LEDGER)
    dataset = (await repaired.get(CTX, c.GetRequest("people"))).dataset
    assert (dataset.files, dataset.row_count) == (2, 10)
    await repaired.collect(CTX, c.PlanRequest())
    assert len(await house.store.list("datasets/")) == 2
    await house.close()


async def test_a_name_that_an_unreadable_manifest_gave_up_can_be_taken() -> None:
    """The tail drops it and makes another of its name: it opens, then and once repaired."""
    house = await build_house()
    await two_files(house)
    catalog = await house.open()
    await commit(catalog, DropDataset("d1"))
    await commit(catalog, *create("d2", "People"))
    with pytest.MonkeyPatch.context() as patch:
        break_manifest(patch, "d1")
        catalog = await house.open()
        assert (await catalog.get(CTX, c.GetRequest("people"))).dataset.id == "d2"
        await fold(catalog)
    repaired = await house.open()
    assert (await repaired.get(CTX, c.GetRequest("people"))).dataset.id == "d2"
    listed = await repaired.list(CTX, c.ListRequest(include_dropped=True))
    assert {(each.id, each.status.value) for each in listed.datasets} == {
        ("d1", "dropped"),
        ("d2", "live"),
    }
    await house.close()
