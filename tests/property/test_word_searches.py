"""Random mixes of filters, deletions, appends, folds and k: searches by words against a model."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.vectors import Distance, VectorBackend
from lakehouse.vectord.adapters import lance_words
from lakehouse.vectord.book import ROW_SCHEMA, sorted_rows
from lakehouse.vectord.image import Image
from lakehouse.vectord.lexical import lexical as keeping
from lakehouse.vectord.lexical.lexical import Lexical
from lakehouse.vectord.parts import VectorParts

WORDS = [f"w{at}" for at in range(60)]
Key = tuple[str, int]


class Model:
    """Texts by key, and the same as an image."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.texts: dict[Key, str] = {}
        self.head = 1
        self.image = Image.of(
            (2, Distance.DOT), 1, sorted_rows(self._table({})), vectors=self._vectors
        )
        self.change(upserts=self.chance.choice([0, 50, 300]))

    @staticmethod
    def _vectors(rows: Any) -> Any:
        return np.ones((len(rows), 2), np.float32)

    @staticmethod
    def _table(texts: dict[Key, str]) -> pa.Table:
        keys = list(texts)
        columns = {
            "entity": [entity for entity, _ in keys],
            "chunk": [chunk for _, chunk in keys],
            "start": [0] * len(keys),
            "end": [0] * len(keys),
            "text": list(texts.values()),
            "digest": [""] * len(keys),
            "version": [1] * len(keys),
        }
        table = pa.Table.from_pydict(columns, schema=ROW_SCHEMA)
        vectors = pa.array([[1.0, 1.0]] * len(keys), pa.list_(pa.float32()))
        return table.append_column("vector", vectors)

    def change(self, upserts: int, gone: int = 0) -> None:
        """Rows written and deleted, in one commit."""
        self.head += 1
        new = {
            (f"[{self.chance.randrange(400)}]", self.chance.choice([0, 0, 1])): " ".join(
                self.chance.choices(WORDS, [1 / (at + 1) for at in range(60)], k=at % 9)
            )
            for at in range(upserts)
        }
        leaving = self.chance.sample(sorted(self.texts), min(gone, len(self.texts)))
        leaving = [key for key in leaving if key not in new]
        for key in leaving:
            del self.texts[key]
        self.texts |= new
        self.image = self.image.applied(self._table(new), leaving, self.head)

    def step(self) -> None:
        kind = self.chance.random()
        if kind < 0.5:
            self.change(self.chance.choice([1, 1, 40]), self.chance.choice([0, 3]))
        elif kind < 0.7:
            self.change(0, len(self.texts) // 3)
        elif kind < 0.8:
            self.image = self.image.folded()


def parts_of(folder: Path) -> VectorParts:
    clock = SystemClock()
    made = SimpleNamespace(
        settings=SimpleNamespace(cache_dir=str(folder)),
        clock=clock,
        ids=SystemIds(clock),
        jobs=ThreadPoolExecutor(2),
    )
    return cast("VectorParts", made)


@pytest.mark.parametrize("backend", VectorBackend)
@pytest.mark.parametrize("seed", range(3))
async def test_min_of_k_and_matches_are_found(
    backend: VectorBackend, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small enough for indexes to be made anew while this goes on.
    monkeypatch.setattr(keeping, "_DEAD_MIN", 30)
    monkeypatch.setattr(lance_words, "_SEGMENTS_MAX", 3)
    if not seed:
        monkeypatch.setattr(keeping, "_SMALL_BYTES", 0)
    model, parts = Model(seed), parts_of(tmp_path)
    lexical, chance = Lexical(parts), random.Random(seed)
    older: list[tuple[Image, dict[Key, str]]] = []
    try:
        for _ in range(40 if seed and backend is VectorBackend.PARQUET else 12):
            model.step()
            older = [*older[-1:], (model.image, dict(model.texts))]
            # Also one that was searched a moment ago, and is no longer the newest.
            image, texts = chance.choice(older)
            entities = sorted({entity for entity, _ in texts})
            chosen = chance.choice(
                [None, [], entities[:3], chance.sample(entities, len(entities) // 2)]
            )
            wanted = None if chosen is None else image.matching(pa.array(chosen, pa.string()))
            k = chance.choice([1, 5, 60, 1_000])
            queries = [" ".join(chance.sample(WORDS, chance.choice([1, 2, 5]))) for _ in range(3)]
            answers = await lexical.search(image, backend, queries, k, wanted)
            for query, (rows, scores) in zip(queries, answers, strict=True):
                matches = {
                    key
                    for key, text in texts.items()
                    if (chosen is None or key[0] in chosen)
                    and set(text.split()) & set(query.split())
                }
                found = [image.book.key(int(row)) for row in rows]
                assert len(found) == min(k, len(matches)), (seed, query, chosen)
                assert set(found) <= matches
                assert len(set(found)) == len(found)
                assert (np.diff(scores) <= 0).all()
                told = list(zip((-scores).tolist(), found, strict=True))
                assert told == sorted(told)
        assert lexical.built > 1
    finally:
        await lexical.close()
        parts.jobs.shutdown()


@pytest.mark.parametrize("backend", VectorBackend)
async def test_a_cache_that_was_cleared_away_is_made_anew(
    backend: VectorBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_SMALL_BYTES", 0)
    model, parts = Model(9), parts_of(tmp_path)
    lexical = Lexical(parts)
    try:
        for turn in range(1, 4):
            model.change(upserts=50)
            matches = [key for key, text in model.texts.items() if "w0" in text.split()]
            [(rows, _)] = await lexical.search(model.image, backend, ["w0"], 1_000)
            assert sorted(model.image.book.key(int(row)) for row in rows) == sorted(matches)
            assert lexical.built >= turn
            shutil.rmtree(tmp_path)
            # Also where nothing was written meanwhile: what is open still answers, or is made anew.
            [(again, _)] = await lexical.search(model.image, backend, ["w0"], 1_000)
            assert again.tolist() == rows.tolist()
    finally:
        await lexical.close()
        parts.jobs.shutdown()


async def test_many_who_ask_at_once_wait_for_one_index(tmp_path: Path) -> None:
    model, parts = Model(10), parts_of(tmp_path)
    model.change(upserts=200)
    lexical = Lexical(parts)
    try:
        asked = [
            lexical.search(model.image, VectorBackend.PARQUET, ["w0 w1"], 1_000) for _ in range(64)
        ]
        answers = await asyncio.gather(*asked)
        assert lexical.built == 1
        first = answers[0][0][0].tolist()
        assert len(first) == len(set(first)) > 0
        assert all(rows.tolist() == first for [(rows, _)] in answers)
        # Who gives up takes nothing from the others, and no row is indexed twice.
        model.change(upserts=50)
        searching = lexical.search(model.image, VectorBackend.PARQUET, ["w0"], 1_000)
        task = asyncio.create_task(searching)
        await asyncio.sleep(0)
        task.cancel()
        [(rows, _)] = await lexical.search(model.image, VectorBackend.PARQUET, ["w0"], 1_000)
        matches = [key for key, text in model.texts.items() if "w0" in text.split()]
        assert sorted(model.image.book.key(int(row)) for row in rows) == sorted(matches)
    finally:
        await lexical.close()
        parts.jobs.shutdown()


async def test_no_text_is_searched_for_when_nobody_waits_or_it_is_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, parts = Model(11), parts_of(tmp_path)
    model.change(upserts=20)
    lexical = Lexical(parts)
    begun, go_on, searched = threading.Event(), threading.Event(), 0
    real = keeping.best_rows

    def slow(*args: Any) -> Any:
        nonlocal searched
        searched += 1
        begun.set()
        assert go_on.wait(10)
        return real(*args)

    monkeypatch.setattr(keeping, "best_rows", slow)
    texts, backend = ["w0"] * 50, VectorBackend.PARQUET
    try:
        task = asyncio.create_task(lexical.search(model.image, backend, texts, 5))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        go_on.set()
        parts.jobs.shutdown()
        assert (task.cancelled(), searched) == (True, 1)
        cast("Any", parts).jobs = ThreadPoolExecutor(2)
        late = parts.clock.monotonic() - 1.0
        with pytest.raises(LakehouseError) as caught:
            await lexical.search(model.image, backend, texts, 5, deadline=late)
        assert (caught.value.kind, searched) == (ErrorKind.TIMEOUT, 1)
        assert len(await lexical.search(model.image, backend, texts, 5, deadline=late + 600)) == 50
    finally:
        go_on.set()
        await lexical.close()
        parts.jobs.shutdown()
