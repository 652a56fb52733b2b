"""Rows, keys and events of one dataset: what counts, what is refused, what the journal tells."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lakehouse.catalogd import persistent
from lakehouse.catalogd.service import Catalog
from lakehouse.contracts import catalog as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.model import changes as m
from lakehouse.model.dataset import EVENTS, KEYS, ROWS, DataFile, Dataset
from lakehouse.model.refs import PRIMARY, ObjectRef
from lakehouse.testing.clocks import ManualClock
from support_catalog import CTX, House, build_house, commit, create, file_of

NOW = LedgerSettings(reader_retention_seconds=0.0)


def keyed(dataset_id: str, name: str, *files: DataFile) -> tuple[m.Change, ...]:
    made, *rest = create(dataset_id, name, *files)
    assert isinstance(made, m.CreateDataset)
    return (replace(made, primary_key=("id",)), *rest)


def part(session: str, name: str, content: str, rows: int = 1, seq: int = 0) -> DataFile:
    return replace(file_of(session, "d1", name, rows), content=content, seq=seq, rows_hash="")


def changed(session: str, tag: str, rows: int = 1, keys: int = 1) -> m.AddFiles:
    """A row change: ``rows`` came and ``keys`` were replaced or deleted."""
    files = [part(session, f"e{tag}", EVENTS, max(rows, keys))]
    files += [part(session, f"r{tag}", ROWS, rows)] if rows else []
    files += [part(session, f"k{tag}", KEYS, keys)] if keys else []
    return m.AddFiles("d1", tuple(files), operation="upsert", workspace="w", reason="why")


async def get(catalog: Catalog, name: str = "one") -> Dataset:
    return (await catalog.get(CTX, c.GetRequest(name))).dataset


async def refused(kind: ErrorKind, catalog: Catalog, *changes: m.Change, needs: object = ()) -> str:
    with pytest.raises(LakehouseError) as caught:
        await commit(catalog, *changes, needs=needs)  # type: ignore[arg-type]
    assert caught.value.kind is kind
    return caught.value.message


async def test_rows_that_can_be_seen_are_counted_and_events_left_out(
    catalog: Catalog, session: str
) -> None:
    made = await commit(catalog, *keyed("d1", "one", part(session, "base", ROWS, 10)))
    first = await get(catalog)
    assert (first.rows_version, first.history_since, first.row_count) == (made, made, 10)
    then = await commit(catalog, changed(session, "1", rows=3, keys=2))
    dataset = await get(catalog)
    assert (dataset.row_count, dataset.files) == (11, 4)
    assert (dataset.key_files, dataset.event_files) == (1, 1)
    assert (dataset.rows_version, dataset.history_since) == (then, made)
    entry = (await catalog.versions(CTX, c.PageRequest("one"))).versions[0]
    assert (entry.rows_added, entry.rows_removed, entry.row_count) == (3, 2, 11)
    assert (entry.workspace, entry.reason, entry.operation) == ("w", "why", "upsert")
    (snap,) = (await catalog.snapshot(CTX, c.SnapshotRequest(("one",)))).datasets
    assert [file.content for file in snap.files] == [ROWS, ROWS, KEYS]
    assert [file.seq for file in snap.files] == [made, then, then]
    every = (await catalog.files(CTX, c.PageRequest("one"))).files
    assert {file.content for file in every} == {ROWS, KEYS, EVENTS}
    old = await catalog.get(CTX, c.GetRequest("one", c.AsOf(version=made)))
    assert (old.dataset.row_count, old.dataset.rows_version) == (10, made)


async def test_only_rows_move_the_rows_version(catalog: Catalog, session: str) -> None:
    made = await commit(catalog, *keyed("d1", "one", part(session, "a", ROWS, 4)))
    await catalog.rename(CTX, c.RenameRequest("one", "uno"))
    inputs = (part(session, "a", ROWS).key,)
    packed = part(session, "b", ROWS, 4, seq=made)
    before = await get(catalog, "uno")
    await commit(catalog, m.RewriteFiles("d1", inputs, (packed,)))
    after = await get(catalog, "uno")
    assert after.rows_version == made
    assert after.updated_at == before.updated_at
    assert after.version > before.version
    await commit(catalog, changed(session, "1"), needs=(m.RowsAt("d1", made),))
    said = await refused(
        ErrorKind.CONFLICT, catalog, changed(session, "2"), needs=(m.RowsAt("d1", made),)
    )
    assert said == "the rows changed meanwhile"


async def test_what_brings_no_events_starts_history_anew(catalog: Catalog, session: str) -> None:
    await commit(catalog, *create("d1", "one", part(session, "a", ROWS, 4)))
    assert (await get(catalog)).history_since == 0
    key = m.SetPrimaryKey("d1", ("id",))
    at = await commit(catalog, key)
    assert (await get(catalog)).history_since == at
    await commit(catalog, key)
    await commit(catalog, changed(session, "1"))
    assert (await get(catalog)).history_since == at
    outside = m.AddFiles("d1", (part(session, "b", ROWS),), operation="register")
    silent = await commit(catalog, outside)
    assert (await get(catalog)).history_since == silent
    told = m.AddFiles("d1", changed(session, "2").files[:2], replace=True)
    await commit(catalog, told)
    assert (await get(catalog)).history_since == silent
    await commit(catalog, m.SetPrimaryKey("d1", ()))
    assert (await get(catalog)).history_since == 0


async def test_rows_for_a_dataset_without_a_key_come_too_late_for_one_with(
    catalog: Catalog, session: str
) -> None:
    await commit(catalog, *create("d1", "one", part(session, "a", ROWS, 4)))
    late = (part(session, "b", ROWS),)
    await commit(catalog, m.SetPrimaryKey("d1", ("id",)))
    for operation in ("append", "replace", "restore"):
        add = m.AddFiles("d1", late, replace=operation != "append", operation=operation)
        assert "has got a primary key" in await refused(ErrorKind.CONFLICT, catalog, add)
    assert (await get(catalog)).row_count == 4


async def test_a_key_that_hides_rows_stands(catalog: Catalog, session: str) -> None:
    base = part(session, "a", ROWS, 4)
    await commit(catalog, *keyed("d1", "one", base))
    await commit(catalog, changed(session, "1"))
    for columns in ((), ("name",)):
        change = m.SetPrimaryKey("d1", columns)
        assert "hidden by" in await refused(ErrorKind.CONFLICT, catalog, change)
    apart = m.RemoveFiles("d1", (base.key,))
    assert "apart" in await refused(ErrorKind.INVALID, catalog, apart)
    journal = m.RemoveFiles("d1", (part(session, "e1", EVENTS).key,))
    assert "journal" in await refused(ErrorKind.INVALID, catalog, journal)
    rest = tuple(part(session, name, ROWS).key for name in ("a", "r1", "k1"))
    await commit(catalog, m.RemoveFiles("d1", rest))
    dataset = await get(catalog)
    assert (dataset.row_count, dataset.files, dataset.event_files) == (0, 1, 1)
    await commit(catalog, m.SetPrimaryKey("d1", ("name",)))


async def test_row_changes_are_refused_where_they_cannot_be(catalog: Catalog, session: str) -> None:
    await commit(catalog, *create("d1", "one", part(session, "a", ROWS, 2)))
    change = changed(session, "1")
    assert "primary key" in await refused(ErrorKind.INVALID, catalog, change)
    await commit(catalog, m.SetPrimaryKey("d1", ("id",)), change)
    more = changed(session, "2", keys=9)
    assert "more rows" in await refused(ErrorKind.INVALID, catalog, more)
    anew = replace(changed(session, "3"), replace=True)
    assert "more rows" in await refused(ErrorKind.INVALID, catalog, anew)


async def test_a_content_some_rows_of_which_were_replaced_can_come_again(
    catalog: Catalog, session: str
) -> None:
    first, _ = keyed("d1", "one", part(session, "a", ROWS, 4))
    await commit(
        catalog, first, m.AddFiles("d1", (part(session, "a", ROWS, 4),), content_digest="A")
    )
    await commit(catalog, replace(changed(session, "1", keys=0), content_digest="B"))
    absent = [m.DigestAbsent("d1", digest) for digest in "ABC"]
    for need in absent[:2]:
        await refused(ErrorKind.CONFLICT, catalog, changed(session, "x"), needs=(need,))
    await commit(catalog, replace(changed(session, "2"), content_digest="C"))
    await commit(catalog, changed(session, "3", keys=0), needs=tuple(absent[:2]))
    await refused(ErrorKind.CONFLICT, catalog, changed(session, "y"), needs=(absent[2],))


async def test_a_replace_leaves_the_journal(catalog: Catalog, session: str) -> None:
    made = await commit(catalog, *keyed("d1", "one", part(session, "a", ROWS, 4)))
    first = await commit(catalog, changed(session, "1"))
    fresh = (part(session, "b", ROWS, 2), part(session, "eb", EVENTS, 5))
    second = await commit(catalog, m.AddFiles("d1", fresh, replace=True, operation="replace"))
    dataset = await get(catalog)
    assert (dataset.row_count, dataset.files, dataset.key_files) == (2, 3, 0)
    told = await catalog.journal(CTX, c.JournalRequest("one"))
    assert [(file.key, file.seq) for file in told.files] == [
        (part(session, "e1", EVENTS).key, first),
        (fresh[1].key, second),
    ]
    assert [entry.version for entry in told.entries] == [made]
    later = await catalog.journal(CTX, c.JournalRequest("one", after=first))
    assert [file.seq for file in later.files] == [second]
    changes = await catalog.object_changes(CTX, c.ObjectChangesRequest(PRIMARY))
    came = [(file.content, file.seq) for file in changes.added]
    assert sorted(came) == sorted([(ROWS, second), (EVENTS, second), (EVENTS, second)])
    states = await catalog.object_states(
        CTX, c.ObjectStatesRequest((ObjectRef(PRIMARY, part(session, "e1", EVENTS).key),))
    )
    assert states.states[0].live


async def test_an_older_replace_is_read_with_its_events(catalog: Catalog, session: str) -> None:
    await commit(catalog, *keyed("d1", "one", part(session, "a", ROWS, 4)))
    at = await commit(catalog, changed(session, "1"))
    other = (part(session, "b", ROWS),)
    await commit(catalog, m.AddFiles("d1", other, replace=True, operation="register"))
    page = await catalog.files(CTX, c.PageRequest("one", as_of=c.AsOf(version=at)))
    assert sorted(file.content for file in page.files) == sorted([ROWS, ROWS, KEYS, EVENTS])


async def test_an_unkeyed_dataset_tells_its_batches_by_entries(
    catalog: Catalog, session: str
) -> None:
    versions = [await commit(catalog, *create("d1", "one", part(session, "f0", ROWS)))]
    for at in range(1, 5):
        await catalog.update_card(CTX, c.UpdateCardRequest("one", owner=f"o{at}"))
        added = m.AddFiles("d1", (part(session, f"f{at}", ROWS),))
        versions.append(await commit(catalog, added))
    told = await catalog.journal(CTX, c.JournalRequest("one"))
    assert [entry.version for entry in told.entries] == versions
    assert told.files == ()
    pages, request = [], c.JournalRequest("one", limit=2)
    while True:
        page = await catalog.journal(CTX, request)
        pages.append([entry.version for entry in page.entries])
        if not page.cursor:
            break
        request = replace(request, cursor=page.cursor)
        if len(pages) == 1:
            # Folded while it is read: the reader goes on in what it began with.
            events = part(session, "j", EVENTS, 4, seq=versions[3])
            await commit(catalog, m.RewriteFiles("d1", (), (events,), journaled=versions[3]))
    assert [each for page in pages for each in page] == versions
    after = await catalog.journal(CTX, c.JournalRequest("one", after=versions[1]))
    assert [file.seq for file in after.files] == [versions[3]]
    assert [entry.version for entry in after.entries] == versions[4:]
    assert after.dataset.journaled == versions[3]
    await catalog.drop(CTX, c.DropRequest("one"))
    gone = await catalog.journal(CTX, c.JournalRequest("one"))
    assert [entry.version for entry in gone.entries] == versions[4:]


async def test_folded_events_stand_for_the_newest_and_lose_none(
    catalog: Catalog, session: str
) -> None:
    made = await commit(catalog, *keyed("d1", "one", part(session, "a", ROWS, 9)))
    seqs = [await commit(catalog, changed(session, str(at))) for at in range(3)]
    keys = tuple(part(session, f"e{at}", EVENTS).key for at in range(3))

    def folded(rows: int, seq: int, journaled: int = 0) -> m.RewriteFiles:
        out = (part(session, "all", EVENTS, rows, seq=seq),) if rows else ()
        return m.RewriteFiles("d1", keys, out, journaled=journaled)

    for wrong in (folded(2, seqs[2]), folded(0, 0), folded(3, seqs[2], journaled=made)):
        assert "fewer events" in await refused(ErrorKind.INVALID, catalog, wrong)
    for wrong in (folded(3, seqs[1]), folded(3, seqs[2] + 1), folded(3, 0)):
        assert "newest commit" in await refused(ErrorKind.INVALID, catalog, wrong)
    ahead = folded(9, seqs[2], journaled=seqs[2] + 100)
    assert "no such version" in await refused(ErrorKind.INVALID, catalog, ahead)
    nowhere = m.RewriteFiles("d1", (), (part(session, "all", EVENTS, 3, seq=made),))
    assert "from nowhere" in await refused(ErrorKind.INVALID, catalog, nowhere)
    await commit(catalog, folded(4, seqs[2], journaled=made))
    told = await catalog.journal(CTX, c.JournalRequest("one"))
    assert [(file.rows, file.seq) for file in told.files] == [(4, seqs[2])]
    assert told.entries == ()
    lost = folded(4, seqs[2])
    assert "no longer live" in await refused(ErrorKind.CONFLICT, catalog, lost)


async def test_a_rewrite_that_lost_an_input_names_it(catalog: Catalog, session: str) -> None:
    files = [part(session, name, ROWS, 2) for name in "abc"]
    at = await commit(catalog, *create("d1", "one", *files))
    await commit(catalog, m.RemoveFiles("d1", (files[1].key,)))
    change = m.RewriteFiles("d1", tuple(f.key for f in files), (part(session, "x", ROWS, 6, at),))
    with pytest.raises(LakehouseError) as caught:
        await commit(catalog, change)
    assert caught.value.kind is ErrorKind.CONFLICT
    assert caught.value.fields["key"] == files[1].key
    twice = replace(change, keys=(files[0].key, files[0].key))
    assert "twice" in await refused(ErrorKind.INVALID, catalog, twice)


async def test_what_was_ingested_is_still_known_after_a_rewrite(
    catalog: Catalog, session: str
) -> None:
    files = [part(session, name, ROWS, 2) for name in "ab"]
    at = await commit(catalog, *create("d1", "one", *files, digest="A"))
    packed = part(session, "x", ROWS, 4, at)
    await commit(catalog, m.RewriteFiles("d1", tuple(f.key for f in files), (packed,)))
    more = m.AddFiles("d1", (part(session, "c", ROWS),))
    await refused(ErrorKind.CONFLICT, catalog, more, needs=(m.DigestAbsent("d1", "A"),))


async def test_an_entry_is_kept_until_events_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the horizon: of a batch there is no other word."""
    monkeypatch.setattr(persistent, "_CHUNK", 4)
    clock = ManualClock()
    house = await build_house(clock)
    catalog = await house.open(history_seconds=60.0, ledger=NOW, collect_seconds=0.0)
    session = (await catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id
    versions = [await commit(catalog, *create("d1", "one", part(session, "f0", ROWS)))]
    for at in range(1, 40):
        versions.append(await commit(catalog, m.AddFiles("d1", (part(session, f"f{at}", ROWS),))))
    clock._move_to(clock._monotonic_us + 3600 * 1_000_000)
    await catalog.collect(CTX, c.PlanRequest())
    versions.append(await commit(catalog, m.AddFiles("d1", (part(session, "g", ROWS),))))
    horizon = (await catalog.status(CTX, c.StatusRequest())).horizon
    assert horizon > versions[30]

    async def entries(of: Catalog) -> list[int]:
        first = await of.journal(CTX, c.JournalRequest("one"))
        return [entry.version for entry in first.entries]

    assert await entries(catalog) == versions
    await catalog.close()
    catalog = await house.open(take_over=True, ledger=NOW, collect_seconds=0.0)
    assert await entries(catalog) == versions
    session = (await catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id
    told = part(session, "j", EVENTS, 36, seq=versions[35])
    await commit(catalog, m.RewriteFiles("d1", (), (told,), journaled=versions[35]))
    assert await entries(catalog) == versions[36:]
    listed = await catalog.versions(CTX, c.PageRequest("one", limit=1000))
    assert 5 < len(listed.versions) < 15
    await house.close()


async def test_row_changes_come_to_who_keeps_copies_when_they_came(
    catalog: Catalog, session: str
) -> None:
    """A rewrite stands for an old commit, and is a new object."""
    await commit(catalog, *keyed("d1", "one", part(session, "a", ROWS, 4)))
    first = await commit(catalog, changed(session, "1"))
    page = await catalog.object_changes(CTX, c.ObjectChangesRequest(PRIMARY))
    assert {file.content for file in page.added} == {ROWS, KEYS, EVENTS}
    keys = tuple(part(session, name, ROWS).key for name in ("a", "r1", "k1"))
    at = await commit(catalog, m.RewriteFiles("d1", keys, (part(session, "x", ROWS, 4, first),)))
    page = await catalog.object_changes(CTX, c.ObjectChangesRequest(PRIMARY, page.cursor))
    assert [(file.seq, file.rows) for file in page.added] == [(at, 4)]
    (snap,) = (await catalog.snapshot(CTX, c.SnapshotRequest(("one",)))).datasets
    assert [file.seq for file in snap.files] == [first]


async def test_fsck_looks_at_keys_and_events(house: House, catalog: Catalog, session: str) -> None:
    base, change = part(session, "a", ROWS, 4), changed(session, "1")
    await commit(catalog, *keyed("d1", "one", base))
    await commit(catalog, change)
    for file in (base, *change.files):
        await house.store.put(file.key, b"x" * file.size_bytes)
    assert (await catalog.fsck(CTX, c.FsckRequest(dry_run=True))).findings == ()
    gone = [file.key for file in change.files if file.content != ROWS]
    await house.store.delete(gone)
    found = (await catalog.fsck(CTX, c.FsckRequest(dry_run=True))).findings
    assert [(each.kind, each.key) for each in found] == [("dangling", key) for key in sorted(gone)]


async def test_what_compaction_replaced_is_collected(house: House) -> None:
    catalog = await house.open(history_seconds=0.0, ledger=NOW, collect_seconds=0.0, take_over=True)
    session = (await catalog.session(CTX, c.SessionRequest("w", "ingestd"))).session_id
    base, change = part(session, "a", ROWS, 4), changed(session, "1")
    await commit(catalog, *keyed("d1", "one", base))
    first = await commit(catalog, change)
    packed = part(session, "x", ROWS, 4, first)
    for file in (base, *change.files, packed):
        await house.store.put(file.key, b"x" * file.size_bytes)
    keys = tuple(part(session, name, ROWS).key for name in ("a", "r1", "k1"))
    await commit(catalog, m.RewriteFiles("d1", keys, (packed,)))
    await catalog.session(CTX, c.SessionRequest("w", "ingestd", session, close=True))
    await commit(catalog, *create("d2", "other"))
    for _ in range(3):
        await catalog.collect(CTX, c.PlanRequest())
    left = {meta.key for meta in await house.store.list("datasets/")}
    assert left == {packed.key, part(session, "e1", EVENTS).key}
