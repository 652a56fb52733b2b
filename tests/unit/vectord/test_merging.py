"""Graphs that were built beside each other become one when writes rest, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from lakehouse.contracts import vectors as c
from lakehouse.vectord import images, planning
from lakehouse.vectord.adapters import hnsw
from support_vectors import ADA, Shelf
from unit.vectord.given_support import (
    answers,
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
def _two_graphs_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hnsw, "_CANDIDATE_US", 0.01)
    monkeypatch.setattr(planning, "_SPLIT_ROWS", 100)


def rest(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> None:
    monkeypatch.setattr(images, "_REST_SECONDS", seconds)


async def merged(vectors: Any, name: str) -> Any:
    """The one structure that is there in the end."""
    for _ in range(400):
        await vectors.images.settled()
        named = await structures(vectors, name)
        if len(named) == 1:
            return named[0]
        await asyncio.sleep(0.01)
    raise AssertionError(f"{len(named)} structures")


async def test_two_graphs_become_one_of_the_same_bytes(
    store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for name in ("first", "second"):
        async with service(store) as vectors:
            rest(monkeypatch, 60.0)
            made = await make(vectors, name)
            two = await structures(vectors, name)
            assert [one.rows for one in two] == [150, 150]
            before = await answers(vectors, name)
        rest(monkeypatch)
        async with service(store) as vectors:
            assert keys(await search(vectors, name, made[7]))[0] == "7"
            one = await merged(vectors, name)
            assert (one.rows, one.recall >= 0.9) == (300, True)
            assert await answers(vectors, name) == before
            assert (await search(vectors, name, made[7])).served_by == "hnsw"
            assert vectors.images.loads == 1
        async with service(store) as vectors:
            assert await answers(vectors, name) == before
            assert await structures(vectors, name) == (one,)
        digests.append(one.sha256)
    assert digests[0] == digests[1]


async def test_what_changes_meanwhile_is_not_lost(
    store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    grow = hnsw.grow_graph

    def slowly(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return grow(*args)

    monkeypatch.setattr(hnsw, "grow_graph", slowly)
    rest(monkeypatch)
    async with service(store, tail_rows=80) as vectors:
        making = asyncio.create_task(make(vectors, "changed"))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        fresh = vectors_of(3, 77)
        await put(vectors, "changed", [5, 290, 900], fresh)
        await vectors.delete_vectors(ADA, c.DeleteVectorsRequest("changed", ("6", "291")))
        go_on.set()
        made = await making
        one = await merged(vectors, "changed")
        assert one.rows == 300
        for key, vector in zip(("5", "290", "900"), fresh, strict=True):
            assert keys(await search(vectors, "changed", vector))[0] == key
        everything = keys(await search(vectors, "changed", made[0], k=1000))
        assert len(everything) == len(set(everything)) == 299
        assert not {"6", "291"} & set(everything)
        before = await answers(vectors, "changed")
        assert vectors.images.loads == 1
    async with service(store) as vectors:
        assert await answers(vectors, "changed") == before


async def test_a_merge_gives_way_to_writes(store: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    grow = hnsw.grow_graph

    def slowly(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return grow(*args)

    monkeypatch.setattr(hnsw, "grow_graph", slowly)
    rest(monkeypatch)
    async with service(store) as vectors:
        making = asyncio.create_task(make(vectors, "crowded"))
        while not begun.is_set():
            await asyncio.sleep(0.01)
        await put(vectors, "crowded", range(1000, 1090), vectors_of(90, 5))
        go_on.set()
        await making
        built = vectors.images.built
        assert built > 2, "a graph of what was written came first"
        assert vectors.images.loads == 1
        found = keys(await search(vectors, "crowded", vectors_of(90, 5)[3], k=1000))
        assert (found[0], len(found)) == ("1003", 390)


async def test_nothing_is_merged_while_writes_go_on(
    store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest(monkeypatch, 1.5)
    monkeypatch.setattr(images, "_QUIET_SECONDS", 0.05)
    async with service(store) as vectors:
        await make(vectors, "going")
        for turn in range(18):
            await put(vectors, "going", [turn], vectors_of(1, turn))
            assert len(await structures(vectors, "going")) == 2
            await asyncio.sleep(0.1)
        assert (await merged(vectors, "going")).rows >= 300
