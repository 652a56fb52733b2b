"""A build that dies at any of its steps: the next one ends where it would have, and nothing that
was embedded and written is embedded again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from lakehouse.contracts import profiles as p
from lakehouse.contracts import vectors as c
from lakehouse.model.vectors import Chunking, ChunkMethod, Profile, VersionState
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.ports import Lane
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, READER, Shelf

pytestmark = pytest.mark.asyncio(loop_scope="module")

BATCH = 2


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


async def index(store: Shelf, name: str, *texts: str) -> None:
    """An unbuilt index that cuts its documents into single words."""
    await store.put(name, [{"id": at, "text": text} for at, text in enumerate(texts, 1)])
    parts = store.parts(HashingEmbedder())
    profile = Profile("words", chunking=Chunking(ChunkMethod.TOKENS, 1, 0))
    await Profiles(parts).put(ADA, p.PutProfileRequest(profile))
    vectors = Vectors(parts)
    request = c.CreateIndexRequest(name, name, ("text",), "words", build=False)
    await vectors.create_index(ADA, request)
    await vectors.close()


async def ready(store: Shelf, name: str) -> c.IndexResult:
    vectors = Vectors(store.parts(HashingEmbedder()))
    result = await vectors.get_index(READER, c.IndexRequest(name))
    await vectors.close()
    assert result.index.versions[0].state is VersionState.READY
    assert not result.index.behind
    return result


async def test_a_first_build_survives_its_death_at_each_step(store: Shelf) -> None:
    texts = ["a b", "c", "d e f", "g", "h i"]
    want = {f"[{at}]": text.split() for at, text in enumerate(texts, 1)}
    words = sum(len(each) for each in want.values())
    await index(store, "whole", *texts)
    _, steps = await build(store, "whole", Steps())
    assert steps >= 8
    for at in range(1, steps + 1):
        name = f"first_{at}"
        await index(store, name, *texts)
        first, _ = await build(store, name, Steps(at))
        kept = sum(len(each) for each in (await chunks(store, name)).values())
        second, _ = await build(store, name, Steps())
        assert await chunks(store, name) == want, f"step {at}"
        info = (await ready(store, name)).index
        assert (info.versions[0].documents, info.versions[0].chunks) == (5, words)
        assert first.texts[Lane.INDEX] <= words
        assert second.texts[Lane.INDEX] == words - kept


async def test_catching_up_survives_its_death_at_each_step(store: Shelf) -> None:
    steps, at = 99, 0
    while at <= steps:
        name = f"later_{at}"
        await index(store, name, "a b c", "d", "e f", "g", "h i")
        await build(store, name, Steps())
        # Shorter, longer, gone, blank, new; the rest stays.
        await store.upsert(
            name,
            {"id": 1, "text": "a"},
            {"id": 2, "text": "d j k"},
            {"id": 4, "text": " "},
            {"id": 6, "text": "l m"},
        )
        await store.delete(name, 3)
        _, made = await build(store, name, Steps(at) if at else Steps())
        if not at:
            steps = made
            assert steps >= 6
        else:
            # What is half done meets another change.
            await store.upsert(name, {"id": 1, "text": "a n"}, {"id": 7, "text": "o"})
            await build(store, name, Steps())
            want = {"[1]": ["a", "n"], "[2]": ["d", "j", "k"], "[5]": ["h", "i"]}
            want |= {"[6]": ["l", "m"], "[7]": ["o"]}
            assert await chunks(store, name) == want, f"step {at}"
            info = (await ready(store, name)).index
            assert (info.versions[0].documents, info.versions[0].chunks) == (5, 10)
        at += 1
