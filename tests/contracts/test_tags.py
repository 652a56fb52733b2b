"""Tags and what is read of a journal, of the catalog's contract, direct and over gRPC."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.people import change, created, patched, refused
from contracts.world import READER, WRITER, World, caller, make_dataset
from lakehouse.contracts.catalog import AsOf, GetRequest, SnapshotRequest
from lakehouse.contracts.inventory import JournalRequest
from lakehouse.contracts.rows import CompactRequest, RowChange
from lakehouse.contracts.tags import SetTagRequest, TagResult, TagsRequest
from lakehouse.errors import ErrorKind
from lakehouse.model.identity import Scope


async def tagged(catalog: Any, name: str, ctx: Any = WRITER, **fields: Any) -> TagResult:
    result: TagResult = await catalog.set_tag(ctx, SetTagRequest(name, **fields))
    return result


async def test_a_tag_names_a_version(catalog: Any) -> None:
    first = await make_dataset(catalog, "people")
    made = await tagged(catalog, "march", dataset="people", note="books closed")
    assert (made.created, made.tag.name, made.tag.note) == (True, "march", "books closed")
    assert (made.tag.version, made.tag.dataset, made.tag.created_by) == (
        first.version,
        "people",
        "write",
    )
    await make_dataset(catalog, "places")
    got = await catalog.get(READER, GetRequest("people", AsOf(tag="march")))
    assert got.version == first.version
    missing = catalog.get(READER, GetRequest("places", AsOf(tag="march")))
    await refused(missing, ErrorKind.NOT_FOUND)
    pinned = await catalog.snapshot(READER, SnapshotRequest(("people",), AsOf(tag="march")))
    assert pinned.version == first.version
    await refused(catalog.get(READER, GetRequest("people", AsOf(tag="no"))), ErrorKind.NOT_FOUND)


async def test_the_same_tag_again_and_at_another_version(catalog: Any) -> None:
    first = await make_dataset(catalog, "people")
    at = AsOf(first.version)
    await tagged(catalog, "march", as_of=at)
    again = await tagged(catalog, "march", as_of=at)
    assert (again.created, again.tag.version) == (False, first.version)
    later = await make_dataset(catalog, "places")
    moved = tagged(catalog, "march", as_of=AsOf(later.version))
    await refused(moved, ErrorKind.CONFLICT)
    await refused(tagged(catalog, "x", as_of=AsOf(later.version + 9)), ErrorKind.NOT_FOUND)
    await refused(tagged(catalog, "x", dataset="nobody"), ErrorKind.NOT_FOUND)


async def test_tags_are_listed_by_name_and_removed(catalog: Any) -> None:
    await make_dataset(catalog, "people")
    await make_dataset(catalog, "places")
    for name, dataset in (("b", "people"), ("a", ""), ("c", "places")):
        await tagged(catalog, name, dataset=dataset)
    listed = await catalog.tags(READER, TagsRequest())
    assert [tag.name for tag in listed.tags] == ["a", "b", "c"]
    of_one = await catalog.tags(READER, TagsRequest("people"))
    assert "b" in [tag.name for tag in of_one.tags]
    assert "c" not in [tag.name for tag in of_one.tags]
    begun = await catalog.tags(READER, TagsRequest(prefix="B"))
    assert [tag.name for tag in begun.tags] == ["b"]
    page = await catalog.tags(READER, TagsRequest(limit=2))
    rest = await catalog.tags(READER, TagsRequest(limit=2, cursor=page.cursor))
    assert [tag.name for tag in (*page.tags, *rest.tags)] == ["a", "b", "c"]
    assert rest.cursor == ""
    gone = await tagged(catalog, "b", remove=True)
    assert (gone.tag.name, gone.created) == ("b", False)
    await refused(tagged(catalog, "b", remove=True), ErrorKind.NOT_FOUND)
    assert len((await catalog.tags(READER, TagsRequest())).tags) == 2


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 2000])
async def test_a_name_that_is_none(catalog: Any, name: str) -> None:
    await make_dataset(catalog, "people")
    await refused(tagged(catalog, name), ErrorKind.INVALID)


async def test_a_tag_needs_its_scope_and_has_one_effect(catalog: Any) -> None:
    await make_dataset(catalog, "people")
    await refused(tagged(catalog, "march", READER), ErrorKind.FORBIDDEN)
    ctx = caller(Scope.WRITE, idempotency_key="once")
    first = await tagged(catalog, "march", ctx)
    await tagged(catalog, "march", remove=True)
    assert await tagged(catalog, "march", ctx) == first
    assert (await catalog.tags(READER, TagsRequest())).tags == ()


async def test_what_is_read_of_a_journal(rows: Any, here: World, transport: str) -> None:
    catalog = await here.connect(transport, "catalog")
    first = await created(here)
    report = await patched(rows, 1, phone="5")
    await change(rows, [2], RowChange.DELETE)
    journal = await catalog.journal(READER, JournalRequest("people"))
    assert [file.content for file in journal.files] == ["events", "events"]
    assert journal.dataset.history_since == first
    assert journal.version == report.version + 1
    later = await catalog.journal(READER, JournalRequest("people", after=report.version))
    assert [file.seq for file in later.files] == [report.version + 1]
    await rows.compact(WRITER, CompactRequest("people", full=True))
    folded = await catalog.journal(READER, JournalRequest("people"))
    assert len(folded.files) == 1
    page = await catalog.journal(READER, JournalRequest("people", limit=1))
    assert page.files == folded.files
    await refused(catalog.journal(READER, JournalRequest("nobody")), ErrorKind.NOT_FOUND)
    await refused(catalog.journal(READER, JournalRequest("people", limit=0)), ErrorKind.INVALID)
