"""Search structures: what a document names stays, what none names any more goes, whatever happens
between."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from lakehouse.catalogd import collect as collecting
from lakehouse.catalogd.checkpoint import dump_state, load_state
from lakehouse.catalogd.service import Catalog
from lakehouse.catalogd.structures import named_by, of_documents
from lakehouse.contracts import catalog as c
from lakehouse.contracts.inventory import ObjectChangesRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.ledger.settings import LedgerSettings
from lakehouse.model.changes import DeleteDocument, DropDataset, PutDocument, SetCard
from lakehouse.model.vectors import INDEX_DOCUMENTS, VECTORS_FOLDER, Structure
from lakehouse.objectstore.buckets import BucketSettings
from lakehouse.objectstore.memory import MemoryStore
from lakehouse.vectord.codec import to_json
from support_catalog import CARD, CTX, House, build_house, commit, create, file_of

_DIED = "the process died here"
NOW = LedgerSettings(reader_retention_seconds=0.0, fold_records=4)


@dataclass(frozen=True)
class _Version:
    vectors_dataset_id: str
    structures: tuple[Structure, ...]


@dataclass(frozen=True)
class _Document:
    versions: tuple[_Version, ...]


def document(name: str, *structures: Structure, dataset_id: str = "V") -> PutDocument:
    body = to_json(_Document((_Version("", ()), _Version(dataset_id, structures))))
    return PutDocument(INDEX_DOCUMENTS, name, body)


def graph(session: str, name: str, bucket: str = "primary") -> Structure:
    key = f"{VECTORS_FOLDER}{session}/V/{name}"
    return Structure("hnsw", f"{key}.hnsw", 1, labels_key=f"{key}.parquet", bucket=bucket)


def table(session: str, name: str) -> Structure:
    return Structure("lance", f"{VECTORS_FOLDER}{session}/V/{name}.lance/", 1)


def objects_of(structure: Structure) -> list[str]:
    if structure.key.endswith("/"):
        return [structure.key + file for file in ("a.manifest", "data/1.lance", "data/x/2.lance")]
    return [structure.key, structure.labels_key]


async def put(house: House, *structures: Structure) -> None:
    for structure in structures:
        for key in objects_of(structure):
            await house.buckets.get(structure.bucket).put(key, b"x")


async def session_of(catalog: Catalog) -> str:
    return (await catalog.session(CTX, c.SessionRequest("w", "vectord"))).session_id


async def end(catalog: Catalog, session: str) -> None:
    await catalog.session(CTX, c.SessionRequest("w", "vectord", session, close=True))


async def collect(catalog: Catalog, times: int = 2) -> None:
    for _ in range(times):
        await catalog.collect(CTX, c.PlanRequest())


async def left(house: House, bucket: str = "primary") -> set[str]:
    return {meta.key for meta in await house.buckets.get(bucket).list(VECTORS_FOLDER)}


def named(*structures: Structure) -> set[str]:
    return {key for each in structures for key in objects_of(each)}


async def opened(house: House) -> Catalog:
    return await house.open(
        history_seconds=0.0, undrop_seconds=0.0, collect_seconds=0.0, ledger=NOW, take_over=True
    )


@pytest.fixture
async def catalog(house: House) -> Catalog:
    catalog = await opened(house)
    await commit(catalog, *create("V", "vectors.docs.v1"))
    return catalog


async def refused(catalog: Catalog, *changes: Any) -> LakehouseError:
    with pytest.raises(LakehouseError) as caught:
        await commit(catalog, *changes)
    return caught.value


# -- what may be named


async def test_only_what_a_live_session_wrote_is_named_anew(catalog: Catalog) -> None:
    session, other = await session_of(catalog), await session_of(catalog)
    one, two, late = graph(session, "one"), table(session, "two"), graph(session, "late")
    await commit(catalog, document("docs", one, two))
    await end(catalog, session)
    error = await refused(catalog, document("docs", one, two, late))
    assert (error.kind, error.fields["count"]) == (ErrorKind.CONFLICT, 2)
    error = await refused(catalog, document("docs", table("NOBODY", "a")))
    assert error.kind is ErrorKind.CONFLICT
    # What it names may stay, be joined by what is new, and be given to another document.
    await commit(catalog, document("docs", one, two, graph(other, "new")))
    await commit(catalog, document("other", two))
    await commit(catalog, document("docs", one))
    # Another document names it: it is not garbage, and may come back.
    await commit(catalog, document("docs", one, two))
    await commit(catalog, DeleteDocument(INDEX_DOCUMENTS, "other"), document("docs", one))
    error = await refused(catalog, document("docs", one, two))
    assert error.kind is ErrorKind.CONFLICT


async def test_a_structure_lies_where_its_vectors_do(house: House) -> None:
    url = house.buckets.settings("primary").url
    for name, residency in {"eu": "eu", "us": "us"}.items():
        house.buckets.add(BucketSettings(name, f"{url}-{name}", residency=residency))
    catalog = await opened(house)
    session = await session_of(catalog)
    made = create("V", "vectors.docs.v1")[0]
    await commit(catalog, replace(made, bucket="eu"))
    for bucket in ("us", "primary", "nowhere"):
        error = await refused(catalog, document("docs", graph(session, "a", bucket)))
        assert error.kind is ErrorKind.FORBIDDEN
    await commit(catalog, document("docs", graph(session, "a", "eu")))
    error = await refused(catalog, document("docs", graph(session, "b", "eu"), dataset_id="W"))
    assert error.kind is ErrorKind.NOT_FOUND
    await commit(catalog, DropDataset("V"))
    # What was named before stays where it is; what is new needs its dataset.
    await commit(catalog, document("docs", graph(session, "a", "eu")))
    error = await refused(catalog, document("docs", graph(session, "b", "eu")))
    assert error.kind is ErrorKind.CONFLICT


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "{}",
        '"text"',
        '{"versions": 7}',
        '{"versions": "abc"}',
        '{"versions": [7]}',
        '{"versions": [{"structures": 7}]}',
        '{"versions": [{"structures": [7]}]}',
        '{"versions": [{"structures": [{}]}]}',
        '{"versions": [{"structures": [{"key": 7}]}]}',
        '{"versions": [{"structures": [{"key": ""}]}]}',
        '{"versions": [{"structures": [{"key": "_vectors/S/V"}]}]}',
        '{"versions": [{"structures": [{"key": "_vectors/S/V/x/y"}]}]}',
        '{"versions": [{"structures": [{"key": "_vectors/S/../x"}]}]}',
        '{"versions": [{"structures": [{"key": "_vectors/S/V/x\\n"}]}]}',
        '{"versions": [{"structures": [{"key": "datasets/S/V/x.parquet"}]}]}',
        '{"versions": [{"structures": [{"key": "_vectors/S/V/x", "labels_key": "_catalog/x"}]}]}',
        '{"versions": [{"structures": [{"key": "_vectors/S/V/x", "bucket": 7}]}]}',
    ],
)
async def test_what_is_no_document_of_an_index_is_refused(catalog: Catalog, body: str) -> None:
    error = await refused(catalog, PutDocument(INDEX_DOCUMENTS, "docs", body))
    assert error.kind is ErrorKind.INVALID
    # Other kinds are nobody's business here.
    await commit(catalog, PutDocument("tool", "docs", json.dumps(json.loads(body))))


async def test_an_index_without_structures_is_a_document_like_any_other(catalog: Catalog) -> None:
    await commit(catalog, document("docs"))
    await commit(catalog, PutDocument(INDEX_DOCUMENTS, "more", '{"versions": [{"number": 1}]}'))
    assert named_by('{"versions": []}') == ()


# -- what is swept


async def test_what_is_named_stays_and_what_is_not_goes(house: House, catalog: Catalog) -> None:
    session = await session_of(catalog)
    kept = (graph(session, "kept"), table(session, "folder"))
    lost = (graph(session, "never"), table(session, "folder2"))
    await put(house, *kept, *lost)
    await commit(catalog, document("docs", *kept))
    await collect(catalog)
    assert await left(house) == named(*kept, *lost)  # its session lives
    await end(catalog, session)
    report = await catalog.fsck(CTX, c.FsckRequest())
    assert {each.key for each in report.findings} == named(*lost)
    assert {each.kind for each in report.findings} == {"orphan"}
    plan = await catalog.collect(CTX, c.PlanRequest(dry_run=True))
    assert set(plan.objects) == named(*lost)
    assert plan.size_bytes == len(named(*lost))
    await collect(catalog)
    assert await left(house) == named(*kept)
    assert (await catalog.fsck(CTX, c.FsckRequest())).findings == ()


async def test_what_a_document_lets_go_is_swept_though_its_session_was_forgotten(
    house: House, catalog: Catalog
) -> None:
    session = await session_of(catalog)
    one, two, three = graph(session, "a"), table(session, "b"), graph(session, "c")
    await put(house, one, two, three)
    await commit(catalog, document("docs", one, two), document("more", two, three))
    await end(catalog, session)
    await collect(catalog)
    assert not catalog._core.ledger.state.ended  # its folders are not listed any more
    await commit(catalog, document("docs"))
    await collect(catalog)
    assert await left(house) == named(two, three)
    catalog = await opened(house)
    await commit(catalog, DeleteDocument(INDEX_DOCUMENTS, "more"))
    await collect(catalog)
    assert await left(house) == set()
    assert not catalog._core.ledger.state.ended
    assert not catalog._core.ledger.state.structures


@pytest.mark.parametrize("during", ["listing", "deletion"])
async def test_what_is_let_go_while_a_sweep_runs_is_left_to_the_next(
    house: House, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    """The session must not be forgotten on the word of a listing from before."""
    session = await session_of(catalog)
    one, other, lost = (graph(session, name) for name in ("one", "other", "lost"))
    await put(house, one, other, lost)
    await commit(catalog, document("docs", one, other))
    await end(catalog, session)
    await commit(catalog, document("else"))
    sweep, delete = collecting.Collecting._sweep, MemoryStore.delete
    meanwhile = [document("docs", other)]

    async def let_go() -> None:
        while meanwhile:
            await commit(catalog, meanwhile.pop())

    async def swept(self: Any, state: Any) -> Any:
        found = await sweep(self, state)
        if during == "listing":
            await let_go()
        return found

    async def deleted(self: MemoryStore, keys: Any) -> None:
        await delete(self, keys)
        if any(key.startswith(VECTORS_FOLDER) for key in keys):
            await let_go()

    monkeypatch.setattr(collecting.Collecting, "_sweep", swept)
    monkeypatch.setattr(MemoryStore, "delete", deleted)
    await collect(catalog, 1 if during == "listing" else 2)
    assert not meanwhile
    assert session in catalog._core.ledger.state.ended
    await collect(catalog)
    assert await left(house) == named(other)
    assert not catalog._core.ledger.state.ended


async def test_structures_in_another_bucket_are_swept_there() -> None:
    house = await build_house(extra=("eu",))
    catalog = await opened(house)
    session = await session_of(catalog)
    made = create("V", "vectors.docs.v1")[0]
    await commit(catalog, replace(made, bucket="eu"))
    kept, lost = graph(session, "kept", "eu"), graph(session, "lost", "eu")
    await put(house, kept, lost)
    await commit(catalog, document("docs", kept, lost))
    await end(catalog, session)
    await commit(catalog, document("docs", kept))
    await collect(catalog)
    assert await left(house, "eu") == named(kept)
    await house.close()


async def test_deleting_an_index_with_its_vectors_is_one_commit(
    house: House, catalog: Catalog
) -> None:
    session = await session_of(catalog)
    one = table(session, "a")
    await put(house, one)
    await commit(catalog, document("docs", one))
    await end(catalog, session)
    await commit(catalog, DropDataset("V"), DeleteDocument(INDEX_DOCUMENTS, "docs"))
    await collect(catalog)
    assert await left(house) == set()


async def test_who_keeps_copies_is_told_nothing_of_structures(
    house: House, catalog: Catalog
) -> None:
    session = await session_of(catalog)
    lost = file_of(session, "V", "lost")
    await house.store.put(lost.key, b"x")
    await put(house, table(session, "a"))
    await end(catalog, session)
    await collect(catalog, 1)
    assert len(catalog._core.ledger.state.objects.condemned) == 1 + len(
        objects_of(table(session, "a"))
    )
    found = await catalog.object_changes(CTX, ObjectChangesRequest("primary"))
    assert [each.key for each in found.given_up] == [lost.key]


# -- random lives


@dataclass
class World:
    """What is known from outside: who lives, what was written, what documents name."""

    house: House
    catalog: Catalog
    rng: random.Random
    live: list[str] = field(default_factory=list)
    written: list[Structure] = field(default_factory=list)
    documents: dict[str, tuple[Structure, ...]] = field(default_factory=dict)
    refusals: int = 0
    crashes: int = 0

    def named_now(self) -> set[Structure]:
        return {each for named in self.documents.values() for each in named}

    async def open_session(self) -> None:
        if len(self.live) < 3:
            self.live.append(await session_of(self.catalog))

    async def end_session(self) -> None:
        if self.live:
            await end(self.catalog, self.live.pop(self.rng.randrange(len(self.live))))

    async def write(self) -> None:
        if self.live:
            make = self.rng.choice((graph, table))
            made = make(self.rng.choice(self.live), f"s{len(self.written)}")
            self.written.append(made)
            await put(self.house, made)

    async def put_document(self) -> None:
        name = self.rng.choice("abc")
        some = self.rng.sample(self.written[-8:], min(len(self.written), self.rng.randrange(4)))
        some += self.documents.get(name, ())[:1]
        wanted = tuple(dict.fromkeys(some))
        before = self.named_now()
        allowed = all(each in before or each.key.split("/")[1] in self.live for each in wanted)
        if not allowed:
            error = await refused(self.catalog, document(name, *wanted))
            assert error.kind is ErrorKind.CONFLICT
            self.refusals += 1
            return
        await commit(self.catalog, document(name, *wanted))
        self.documents[name] = wanted

    async def delete_document(self) -> None:
        if self.documents:
            name = self.rng.choice(sorted(self.documents))
            await commit(self.catalog, DeleteDocument(INDEX_DOCUMENTS, name))
            del self.documents[name]

    async def collect(self) -> None:
        try:
            await self.catalog.collect(CTX, c.PlanRequest())
        except LakehouseError as error:
            if error.message != _DIED:
                raise
            self.crashes += 1
            await self.reopen()

    async def reopen(self) -> None:
        """As after a crash: nothing is closed, another takes over from what is in the bucket."""
        self.catalog = await opened(self.house)

    async def touch(self) -> None:
        """A commit of something else, so that there are checkpoints in between."""
        await commit(self.catalog, SetCard("V", CARD))

    async def check(self) -> None:
        state = self.catalog._core.ledger.state
        there = await left(self.house)
        assert named(*self.named_now()) <= there
        bodies = [each.body for each in state.documents.get(INDEX_DOCUMENTS, {}).values()]
        assert state.structures == of_documents(bodies)
        parts = {part.name: part.table for part in dump_state(state)}
        again = load_state(parts)
        assert (again.structures, again.ended) == (state.structures, state.ended)


@pytest.fixture
def failing_deletes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in eight deletions of structures ends half-way."""
    rng = random.Random(7)
    delete = MemoryStore.delete

    async def half(self: MemoryStore, keys: Any) -> None:
        ours = [key for key in keys if key.startswith(VECTORS_FOLDER)]
        if ours and rng.random() < 0.125:
            await delete(self, ours[: len(ours) // 2])
            raise LakehouseError(ErrorKind.FORBIDDEN, _DIED)
        await delete(self, keys)

    monkeypatch.setattr(MemoryStore, "delete", half)


@pytest.fixture
async def worlds() -> AsyncIterator[list[House]]:
    houses: list[House] = []
    yield houses
    for house in houses:
        await house.close()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("failing_deletes")
async def test_no_life_of_indexes_loses_or_leaves_a_structure(
    worlds: list[House], seed: int
) -> None:
    house = await build_house()
    worlds.append(house)
    catalog = await opened(house)
    await commit(catalog, *create("V", "vectors.docs.v1"))
    world = World(house, catalog, random.Random(seed))
    steps = {
        world.open_session: 2,
        world.end_session: 2,
        world.write: 5,
        world.put_document: 6,
        world.delete_document: 1,
        world.collect: 3,
        world.reopen: 1,
        world.touch: 1,
    }
    for _ in range(120):
        (step,) = world.rng.choices(list(steps), weights=list(steps.values()))
        await step()
        await world.check()
    for session in world.live:
        await end(world.catalog, session)
    for _ in range(8):
        await world.collect()
    assert await left(house) == named(*world.named_now())
    assert not world.catalog._core.ledger.state.ended
    assert not world.catalog._core.ledger.state.objects.condemned
    assert world.refusals
    assert world.written
