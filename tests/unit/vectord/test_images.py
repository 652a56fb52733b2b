"""Images in memory: structures are caches, whatever happens to them, and searches never wait for
them or miss a row."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lakehouse.contracts import vectors as c
from lakehouse.contracts.profiles import PutProfileRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Distance, Profile
from lakehouse.vectord import book, comparing, image, images, planning
from lakehouse.vectord import structures as structures_
from lakehouse.vectord.adapters import hnsw
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, Shelf
from unit.vectord.given_support import (
    DIMENSIONS,
    QUICK,
    answers,
    body,
    keys,
    make,
    put,
    search,
    service,
    structures,
    vectors_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(autouse=True)
def _graphs_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hnsw, "_CANDIDATE_US", 0.01)
    monkeypatch.setattr(image, "_EF", 24)


async def test_a_graph_is_made_and_used_again_after_a_restart(store: Shelf) -> None:
    async with service(store) as vectors:
        made = await make(vectors, "again")
        named = await structures(vectors, "again")
        assert len(named) == 1
        assert named[0].rows == 300
        assert 0.9 <= named[0].recall <= 1.0
        found = await search(vectors, "again", made[5])
        assert found.served_by == "hnsw"
        assert keys(found)[0] == "5"
        before = await answers(vectors, "again")
        await put(vectors, "again", [5, 900], vectors_of(2, 7))
        assert (await search(vectors, "again", made[5])).served_by == "hnsw+exact"
        await put(vectors, "again", [5], made[5:6])
        await vectors.delete_vectors(ADA, c.DeleteVectorsRequest("again", ("900",)))
    async with service(store) as vectors:
        after = await answers(vectors, "again")
        strip = [[(h.key, h.score) for h in one[0].hits] for one in after]
        assert strip == [[(h.key, h.score) for h in one[0].hits] for one in before]
        assert vectors.images.loader.reader.reads == 2, "rows, and the vectors of one of them"
        assert await structures(vectors, "again") == named


def _flip(at: float) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        place = int(at * (len(data) - 1))
        return data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :]

    return damage


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda _: None,
    "empty": lambda _: b"",
    "half": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"x",
    "header": _flip(0.0),
    "middle": _flip(0.5),
    "end": _flip(1.0),
    "other": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize(
    ("damage", "ending"),
    [*((damage, ".hnsw") for damage in DAMAGE), *((d, ".labels.parquet") for d in ("gone", "end"))],
)
async def test_what_is_damaged_is_made_anew(store: Shelf, damage: str, ending: str) -> None:
    name = f"damage-{damage}{ending.replace('.', '-')}"
    async with service(store) as vectors:
        await make(vectors, name, 120)
        before = await answers(vectors, name)
        (named,) = await structures(vectors, name)
    bucket = store.buckets.get("primary")
    key = named.key if ending == ".hnsw" else named.labels_key
    changed = DAMAGE[damage](await bucket.get(key))
    await bucket.delete([key])
    if changed is not None:
        await bucket.put(key, changed)
    async with service(store) as vectors:
        assert await answers(vectors, name) == before
        assert vectors.images.loader.damaged == 1
        await vectors.images.settled()
        assert await answers(vectors, name) == before
        (fresh,) = await structures(vectors, name)
        assert fresh.key != named.key
        assert fresh.sha256 == named.sha256, "the same rows make the same bytes"


async def test_without_any_object_of_ours_the_answers_are_the_same(store: Shelf) -> None:
    async with service(store) as vectors:
        await make(vectors, "bare", 120)
        before = await answers(vectors, "bare")
    bucket = store.buckets.get("primary")
    ours = [each.key for each in await bucket.list("_vectors/")]
    assert ours
    await bucket.delete(ours)
    async with service(store) as vectors:
        assert await answers(vectors, "bare") == before


async def test_searches_go_on_while_all_else_changes(store: Shelf) -> None:
    async with service(store) as vectors:
        made = await make(vectors, "busy", 200)
        built = vectors.images.built
        gone: set[str] = set()
        done = False

        async def ask(seed: int) -> int:
            asked = 0
            while not done:
                before = set(gone)
                query = vectors_of(1, seed + asked)[0]
                found = keys(await search(vectors, "busy", query, k=12))
                assert len(found) == len(set(found)) == 12
                assert not before & set(found), "a row that was deleted before"
                asked += 1
                await asyncio.sleep(0)
            return asked

        tasks = [asyncio.create_task(ask(1000 * at)) for at in range(8)]
        for turn in range(4):
            fresh = range(1000 + turn * 60, 1060 + turn * 60)
            await put(vectors, "busy", fresh, vectors_of(60, turn + 50))
            assert keys(await search(vectors, "busy", vectors_of(60, turn + 50)[7]))[0] == str(
                fresh[7]
            )
            old = [str(at) for at in range(turn * 25, turn * 25 + 25)]
            await vectors.delete_vectors(ADA, c.DeleteVectorsRequest("busy", tuple(old)))
            gone |= set(old)
        await vectors.images.settled()
        done = True
        assert min(await asyncio.gather(*tasks)) > 3
        assert vectors.images.built > built
        assert vectors.images.loads == 1, "own writes are not read again"
        everything = keys(await search(vectors, "busy", made[0], k=1000))
        assert len(everything) == 200 + 240 - 100
        assert len(await structures(vectors, "busy")) <= 5


async def test_what_another_process_writes_is_found(store: Shelf) -> None:
    async with service(store) as one, service(store) as other:
        await make(one, "shared", 80)
        fresh = vectors_of(1, 77)
        await search(other, "shared", fresh[0])
        await put(one, "shared", ["new"], fresh)
        assert keys(await search(other, "shared", fresh[0]))[0] == "new"
        await other.delete_vectors(ADA, c.DeleteVectorsRequest("shared", ("new", "3")))
        found = keys(await search(one, "shared", fresh[0], k=200))
        assert len(found) == 79
        assert "new" not in found


async def test_a_call_that_may_be_repeated_is_taken_in_as_any_other(store: Shelf) -> None:
    keyed = replace(ADA, idempotency_key="put-1")
    async with service(store) as one, service(store) as other:
        await make(one, "keyed", 80)
        fresh = vectors_of(2, 78)
        await one.put_vectors(keyed, c.PutVectorsRequest("keyed", body(["k", "l"], fresh)))
        assert keys(await search(one, "keyed", fresh[0]))[0] == "k"
        assert one.images.loads == 1
        await other.delete_vectors(ADA, c.DeleteVectorsRequest("keyed", ("l",)))
        again = replace(ADA, idempotency_key="put-2")
        await one.put_vectors(again, c.PutVectorsRequest("keyed", body(["k"], -fresh[:1])))
        found = keys(await search(one, "keyed", -fresh[0], k=100))
        assert found[0] == "k"
        assert "l" not in found
        assert one.images.loads == 2


async def test_what_was_searched_longest_ago_goes_when_memory_is_short(store: Shelf) -> None:
    async with service(store, memory_bytes_max=60_000) as vectors:
        kept = {name: await make(vectors, name, 100, 5) for name in ("one", "two", "three")}
        assert vectors.images.size_bytes <= 60_000
        for name, made in kept.items():
            assert keys(await search(vectors, name, made[9]))[0] == "9"
        assert vectors.images.loads > 3


async def test_a_structure_that_cannot_be_kept_serves_all_the_same(
    store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(store) as vectors:

        async def refuse(*_: Any) -> Any:
            raise LakehouseError(ErrorKind.UNAVAILABLE, "the bucket does not answer")

        monkeypatch.setattr(vectors.images._structures, "save", refuse)
        made = await make(vectors, "unkept", 100)
        assert (await search(vectors, "unkept", made[0])).served_by == "hnsw"
        assert not await structures(vectors, "unkept")


async def test_a_version_that_is_gone_is_not_found(store: Shelf) -> None:
    async with service(store) as vectors:
        made = await make(vectors, "gone", 60)
        await vectors.delete_index(ADA, c.DeleteIndexRequest("gone"))
        with pytest.raises(LakehouseError) as refused:
            await search(vectors, "gone", made[0])
        assert refused.value.kind is ErrorKind.NOT_FOUND


async def test_vectors_too_long_to_compare_are_refused_on_their_way_in(store: Shelf) -> None:
    async with store.vectors(**QUICK) as (vectors, profiles, _):
        await profiles.put(ADA, PutProfileRequest(Profile("far", distance=Distance.L2)))
        for name, profile in (("long", "far"), ("scaled", "default")):
            request = c.CreateIndexRequest(name, profile=profile, dimensions=DIMENSIONS)
            await vectors.create_index(ADA, request)
            await put(vectors, name, range(3), vectors_of(3))
        huge = np.full((1, DIMENSIONS), 3e19, np.float32)
        with pytest.raises(LakehouseError) as refused:
            await put(vectors, "long", ["huge"], huge)
        assert (refused.value.kind, refused.value.fields["ids"]) == (ErrorKind.INVALID, ["huge"])
        with pytest.raises(LakehouseError) as refused:
            await search(vectors, "long", huge[0])
        assert refused.value.kind is ErrorKind.INVALID
        await put(vectors, "scaled", ["huge"], huge)
        assert keys(await search(vectors, "scaled", huge[0]))[0] == "huge"


@pytest.mark.parametrize("quiet", [True, False])
async def test_rows_that_were_replaced_are_let_go(
    store: Shelf, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    monkeypatch.setattr(planning, "_FOLD_ROWS", 100)
    # Without quiet, whatever is written counts as written just now.
    monkeypatch.setattr(images, "_QUIET_SECONDS", 0.0 if quiet else 1e9)
    name = f"few-{quiet}"
    async with service(store) as vectors:
        request = c.CreateIndexRequest(name, profile="small", dimensions=DIMENSIONS)
        await vectors.create_index(ADA, request)
        for turn in range(8):
            made = vectors_of(30, turn)
            await put(vectors, name, range(30), made)
            assert keys(await search(vectors, name, made[3]))[0] == "3"
            await asyncio.sleep(0.02)
        (entry,) = vectors.images._entries.values()
        for _ in range(100):
            if entry.image is not None and entry.image.count < 200:
                break
            await asyncio.sleep(0.01)
        assert entry.image is not None
        assert entry.image.count < 200
        assert entry.image.rows == 30
        assert vectors.images.loads == 1
        assert len(keys(await search(vectors, name, vectors_of(30, 7)[3], k=100))) == 30


async def test_much_is_not_done_on_the_loop(store: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    here = threading.get_ident()
    on_loop: list[bool] = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def note(*args: Any, **fields: Any) -> Any:
            on_loop.append(threading.get_ident() == here)
            return function(*args, **fields)

        return note

    async def drop(vectors: Vectors, ids: range) -> list[bool]:
        on_loop.clear()
        gone = tuple(str(at) for at in ids)
        await vectors.delete_vectors(ADA, c.DeleteVectorsRequest("much", gone))
        return list(on_loop)

    async with service(store) as vectors:
        made = await make(vectors, "much", 200)
        monkeypatch.setattr(image.Image, "applied", noted(image.Image.applied))
        assert await drop(vectors, range(3)) == [True]
        assert await drop(vectors, range(3, 58)) == [False], "many rows"
        monkeypatch.setattr(images, "_SMALL_IMAGE", 100)
        assert await drop(vectors, range(58, 59)) == [False], "a large image"
        on_loop.clear()
        monkeypatch.setattr(comparing, "_overlap", noted(comparing._overlap))
        monkeypatch.setattr(book.Book, "key", noted(book.Book.key))
        report = await vectors.compare(ADA, c.CompareRequest("much", 1, 1, samples=5, k=3))
        assert (report.overlap, report.first.recall) == (1.0, 1.0)
        assert on_loop
        assert not any(on_loop)
    async with service(store) as vectors:
        on_loop.clear()
        monkeypatch.setattr(structures_.pq, "read_table", noted(structures_.pq.read_table))
        assert keys(await search(vectors, "much", made[99]))[0] == "99"
        assert on_loop
        assert not any(on_loop)


@pytest.mark.parametrize("asked", [{"samples": 1_000}, {"queries": ("words",) * 300}])
async def test_comparisons_are_bounded_as_searches_are(store: Shelf, asked: Any) -> None:
    async with service(store) as vectors:
        name = f"bound-{len(asked.get('queries', ()))}"
        request = c.CreateIndexRequest(name, profile="small", dimensions=DIMENSIONS)
        await vectors.create_index(ADA, request)
        with pytest.raises(LakehouseError) as refused:
            await vectors.compare(ADA, c.CompareRequest(name, 1, 1, k=1_000, **asked))
        assert refused.value.kind is ErrorKind.INVALID
        assert refused.value.fields["maximum"] == 200_000


async def test_the_catalog_is_asked_for_rows_only_after_a_commit(
    store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(store) as one, service(store) as other:
        made = await make(one, "seen", 80)
        await other.put_vectors(ADA, c.PutVectorsRequest("seen", body(["old"], vectors_of(1, 3))))
        catalog, asked = one.images._parts.catalog, 0
        get = catalog.get

        async def counted(*args: Any) -> Any:
            nonlocal asked
            asked += 1
            return await get(*args)

        monkeypatch.setattr(catalog, "get", counted)
        assert len(keys(await search(one, "seen", made[0], k=100))) == 81
        before = asked
        assert before > 0, "another process wrote"
        for query in made[:5]:
            await search(one, "seen", query)
        assert asked == before
        fresh = vectors_of(1, 4)
        await put(other, "seen", ["new"], fresh)
        assert keys(await search(one, "seen", fresh[0]))[0] == "new"
        assert asked > before
        await other.delete_index(ADA, c.DeleteIndexRequest("seen"))
        with pytest.raises(LakehouseError) as refused:
            await search(one, "seen", made[0])
        assert refused.value.kind is ErrorKind.NOT_FOUND
