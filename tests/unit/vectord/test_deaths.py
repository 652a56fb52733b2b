"""A build that dies at any of its steps: the next one ends where it would have, and nothing that
was embedded and written is embedded again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from lakehouse.contracts import profiles as p
from lakehouse.contracts import vectors as c
from lakehouse.model.vectors import Chunking, ChunkMethod, IndexVersion, Profile, VersionState
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.ports import Lane
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, READER, Shelf

pytestmark = pytest.mark.asyncio(loop_scope="module")

BATCH = 2
STEPS = 12


class Dead(Exception):
    """The process is gone: nothing after this is done, said or tidied up."""


@dataclass
class Steps:
    """Counts calls to the outside; the one numbered ``at`` and all after it are not made. To lose
    an answer instead leaves the store as the death before the next call does."""

    at: int = -1
    made: int = 0

    async def step(self, call: Any) -> Any:
        self.made += 1
        if self.made >= self.at > 0:
            call.close()
            raise Dead
        return await call


class Mortal:
    """A contract whose calls are steps."""

    def __init__(self, real: Any, steps: Steps, *names: str) -> None:
        self._real, self._steps, self._names = real, steps, names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name not in self._names:
            return found
        return lambda *args: self._steps.step(found(*args))


async def build(store: Shelf, name: str, steps: Steps) -> tuple[HashingEmbedder, int]:
    """A build by a service of its own, which may die; what it embedded, and its steps."""
    embedder = HashingEmbedder()
    parts = store.parts(embedder, batch_documents=BATCH)
    steps_of = {
        "catalog": Mortal(parts.catalog, steps, "commit"),
        "rows": Mortal(parts.rows, steps, "change", "diff"),
        "query": Mortal(parts.query, steps, "run"),
        "embedder": Mortal(parts.embedder, steps, "embed"),
    }
    vectors = Vectors(replace(parts, **steps_of))  # type: ignore[arg-type]
    builder = vectors._builder
    try:
        await builder.build(name, 1)
    except Dead:
        pass
    finally:
        await vectors.close()
    return embedder, steps.made


async def chunks(store: Shelf, name: str) -> dict[str, list[str]]:
    rows = await store.sql(f'select * from "vectors.{name}.v1" order by entity, chunk')
    found: dict[str, list[str]] = {}
    for row in rows:
        assert row["chunk"] == len(found.setdefault(row["entity"], []))
        found[row["entity"]].append(row["text"])
    return found


async def indexes(store: Shelf, dataset: str, names: list[str]) -> None:
    """Unbuilt indexes over one dataset that cut their documents into single words."""
    parts = store.parts(HashingEmbedder())
    profile = Profile("words", chunking=Chunking(ChunkMethod.TOKENS, 1, 0))
    await Profiles(parts).put(ADA, p.PutProfileRequest(profile))
    vectors = Vectors(parts)
    for name in names:
        request = c.CreateIndexRequest(name, dataset, ("text",), "words", build=False)
        await vectors.create_index(ADA, request)
    await vectors.close()


async def ready(store: Shelf, name: str) -> IndexVersion:
    vectors = Vectors(store.parts(HashingEmbedder()))
    result = await vectors.get_index(READER, c.IndexRequest(name))
    await vectors.close()
    assert result.index.versions[0].state is VersionState.READY
    assert not result.index.behind
    return result.index.versions[0]


async def test_a_first_build_survives_its_death_at_each_step(store: Shelf) -> None:
    texts = ["a b", "c", "d e f", "g", "h i"]
    await store.put("first", [{"id": at, "text": text} for at, text in enumerate(texts, 1)])
    want = {f"[{at}]": text.split() for at, text in enumerate(texts, 1)}
    names = {f"first_{at}": at for at in range(1, STEPS)}
    await indexes(store, "first", [*names])
    steps = []
    for name, at in names.items():
        first, made = await build(store, name, Steps(at))
        kept = sum(len(each) for each in (await chunks(store, name)).values())
        second, _ = await build(store, name, Steps())
        steps.append(made)
        assert await chunks(store, name) == want, f"step {at}"
        version = await ready(store, name)
        assert (version.documents, version.chunks) == (5, 9)
        assert first.texts[Lane.INDEX] <= 9
        assert second.texts[Lane.INDEX] == 9 - kept
    # The last one lived to its end: there are no more steps.
    assert 6 <= steps[-1] <= STEPS - 2


async def test_catching_up_survives_its_death_at_each_step(store: Shelf) -> None:
    texts = ["a b c", "d", "e f", "g", "h i"]
    await store.put("later", [{"id": at, "text": text} for at, text in enumerate(texts, 1)])
    names = {f"later_{at}": at for at in range(1, STEPS)}
    await indexes(store, "later", [*names])
    for name in names:
        await build(store, name, Steps())
    # Shorter, longer, gone, blank, new; the rest stays.
    await store.upsert(
        "later",
        {"id": 1, "text": "a"},
        {"id": 2, "text": "d j k"},
        {"id": 4, "text": " "},
        {"id": 6, "text": "l m"},
    )
    await store.delete("later", 3)
    steps = [(await build(store, name, Steps(at)))[1] for name, at in names.items()]
    assert 6 <= steps[-1] <= STEPS - 2
    # What is half done meets another change.
    await store.upsert("later", {"id": 1, "text": "a n"}, {"id": 7, "text": "o"})
    want = {"[1]": ["a", "n"], "[2]": ["d", "j", "k"], "[5]": ["h", "i"]}
    want |= {"[6]": ["l", "m"], "[7]": ["o"]}
    for name, at in names.items():
        await build(store, name, Steps())
        assert await chunks(store, name) == want, f"step {at}"
        version = await ready(store, name)
        assert (version.documents, version.chunks) == (5, 10)
