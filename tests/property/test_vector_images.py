"""Random mixes of filters, deletions, appends, rebuilds and k, against NumPy over the same rows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakehouse.model.vectors import Distance, Structure
from lakehouse.vectord import image
from lakehouse.vectord.adapters import hnsw
from lakehouse.vectord.adapters.exact import ExactIndex
from lakehouse.vectord.adapters.hnsw import HnswIndex, build_graph, grow_graph
from lakehouse.vectord.book import sorted_rows
from lakehouse.vectord.image import Image, Part
from lakehouse.vectord.nearest import distances
from lakehouse.vectord.planning import merge_of
from lakehouse.vectord.publishing import unit

DIMENSIONS = 16
RECALL_MIN = 0.97
Key = tuple[str, int]


class Model:
    """What is there, as a dictionary, and the same as an image."""

    def __init__(self, seed: int, distance: Distance, folder: str, graphs: bool) -> None:
        self.chance = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.distance, self.folder, self.graphs = distance, folder, graphs
        self.rows: dict[Key, Any] = {}
        self.head = 1
        self.found, self.wanted, self.merged = 0, 0, 0
        rows = self._draw(self.chance.choice([0, 30, 400, 1200]))
        table = sorted_rows(self._table(rows))
        self.rows.update(rows)
        columns = [table.column(name).to_pylist() for name in ("entity", "chunk")]
        keys = list(zip(*columns, strict=True))
        vectors = self._matrix([self.rows[key] for key in keys])
        shape = (DIMENSIONS, distance)
        self.image = Image.of(shape, 1, table, vectors=lambda some: vectors[some])

    def _draw(self, count: int) -> dict[Key, Any]:
        keys = {
            (f"[{self.chance.randrange(1500)}]", self.chance.choice([0, 0, 0, 1, 2]))
            for _ in range(count)
        }
        # Few distinct corners: many rows are exactly as near as others.
        drawn = self.numbers.standard_normal((len(keys), DIMENSIONS)).astype(np.float32)
        if self.chance.random() < 0.3:
            drawn = np.sign(np.round(drawn)).astype(np.float32) + np.float32(0.5)
        made = unit(drawn, self.distance)
        return dict(zip(sorted(keys), made, strict=True))

    def _matrix(self, rows: Sequence[Any]) -> Any:
        return np.array(rows, np.float32).reshape(len(rows), DIMENSIONS)

    def _table(self, rows: dict[Key, Any]) -> pa.Table:
        keys = list(rows)
        self.chance.shuffle(keys)
        flat = pa.array(self._matrix([rows[key] for key in keys]).ravel())
        count = len(keys)
        return pa.table(
            {
                "entity": pa.array([key[0] for key in keys], pa.string()),
                "chunk": pa.array([key[1] for key in keys], pa.int64()),
                "start": pa.array([0] * count, pa.int64()),
                "end": pa.array([1] * count, pa.int64()),
                "text": pa.array([f"text of {key}" for key in keys], pa.string()),
                "digest": pa.array(["d"] * count, pa.string()),
                "version": pa.array([self.head] * count, pa.int64()),
                "vector": pa.FixedSizeListArray.from_arrays(flat, DIMENSIONS),
            }
        )

    def step(self) -> None:
        self.chance.choice(
            [
                *(self.append, self.delete, self.build, self.merge, self.fold),
                *(self.ask, self.ask, self.ask),
            ]
        )()

    def append(self) -> None:
        rows = self._draw(self.chance.choice([1, 5, 80]))
        gone = self._some() if self.chance.random() < 0.2 else []
        gone = [key for key in gone if key not in rows]
        self.head += 1
        self.image = self.image.applied(self._table(rows), gone, self.head)
        self.rows.update(rows)
        for key in gone:
            self.rows.pop(key, None)

    def delete(self) -> None:
        gone = self._some()
        self.head += 1
        self.image = self.image.applied(None, [*gone, ("[-1]", 0)], self.head)
        for key in gone:
            del self.rows[key]

    def _some(self) -> list[Key]:
        share = self.chance.choice([0.01, 0.1, 0.6])
        return [key for key in self.rows if self.chance.random() < share]

    def build(self) -> None:
        """A structure of the tail and of some of the parts there are, made of an older image."""
        older = self.image
        dropped = [part for part in older.parts if self.chance.random() < 0.5]
        rows = np.concatenate([older.tail_rows, *(p.rows[p.rows >= 0] for p in dropped)])
        rows = older.book.in_order(rows[older.live[rows]])
        if not len(rows):
            return
        if self.chance.random() < 0.5:
            self.append()
        vectors = older.vectors(rows)
        index: Any = ExactIndex(vectors, self.distance)
        if self.graphs:
            index = build_graph(vectors, self.distance, (16, 100), self.folder)
        part = Part(Structure("hnsw", "", len(rows)), index, rows)
        self.image = self.image.rebuilt([part], dropped)

    def merge(self) -> None:
        """One graph of an older image: the largest, and all others behind it."""
        older = self.image
        if not self.graphs or len(older.parts) < 2:
            return
        plan = merge_of(older)
        assert plan.grown is not None
        grown, rows = plan.grown.index, plan.rows[0]
        assert isinstance(grown, HnswIndex)
        if self.chance.random() < 0.5:
            self.append()
        if self.chance.random() < 0.5:
            self.delete()
        index = grow_graph(grown, older.vectors(rows), self.folder)
        keys = [older.book.key(int(row)) if row >= 0 else ("", -1) for row in plan.labelled[0]]
        index.told_apart_by(np.argsort(np.array(sorted(range(len(keys)), key=keys.__getitem__))))
        part = Part(Structure("hnsw", "", index.rows), index, plan.labelled[0])
        self.image = self.image.rebuilt([part], plan.dropped)
        assert len(self.image.parts) == 1
        self.merged += 1

    def fold(self) -> None:
        self.image = self.image.folded()

    def ask(self) -> None:
        k = self.chance.choice([1, 3, 10, 10, 60, 1000])
        query = self._draw(1).popitem()[1]
        if self.rows and self.chance.random() < 0.5:
            near = self.chance.choice(list(self.rows.values()))
            query = unit((near + 0.1 * query)[None, :], self.distance)[0]
        matches, flags = self.rows, None
        if self.chance.random() < 0.6:
            share = self.chance.choice([0.0, 0.02, 0.3, 0.9])
            entities = {e for e in {key[0] for key in self.rows} if self.chance.random() < share}
            matches = {key: row for key, row in self.rows.items() if key[0] in entities}
            flags = self.image.matching(pa.array(sorted(entities), pa.string()))
        exact = not self.graphs or self.chance.random() < 0.3
        queries = np.stack([query, -query])
        got = self.image.search(queries, k, self.chance.choice([0, 0, 200]), flags, exact)
        for one, (rows, far) in zip(queries, got, strict=True):
            self._check(one, k, matches, [self.image.book.key(int(row)) for row in rows], far)
            if exact:
                assert self.expected(one, k, matches) == self.keys(rows)

    def keys(self, rows: Any) -> list[Key]:
        return [self.image.book.key(int(row)) for row in rows]

    def expected(self, query: Any, k: int, matches: dict[Key, Any]) -> list[Key]:
        keys = list(matches)
        far = distances(self._matrix(list(matches.values())), query, self.distance)
        return [key for _, key in sorted(zip(far.tolist(), keys, strict=True))[:k]]

    def _check(self, query: Any, k: int, matches: dict[Key, Any], keys: Any, far: Any) -> None:
        assert len(keys) == min(k, len(matches)), "fewer than there are"
        assert len(set(keys)) == len(keys)
        assert set(keys) <= set(matches), "a row that is gone, or that the filter does not have"
        own = distances(self._matrix([matches[key] for key in keys]), query, self.distance)
        assert np.array_equal(own, far), "a distance that is not the row's"
        assert sorted(zip(far.tolist(), keys, strict=True)) == list(
            zip(far.tolist(), keys, strict=True)
        )
        if keys and k < len(matches):
            self.wanted += len(keys)
            self.found += len(set(keys) & set(self.expected(query, k, matches)))


def run(seeds: Sequence[int], steps: int, folder: Path, graphs: bool) -> None:
    found = wanted = merged = 0
    for seed in seeds:
        distance = list(Distance)[seed % 3]
        model = Model(seed, distance, str(folder), graphs)
        try:
            for _ in range(steps):
                model.step()
        except BaseException as error:
            error.add_note(f"seed {seed}, {distance}, graphs {graphs}")
            raise
        found, wanted = found + model.found, wanted + model.wanted
        merged += model.merged
    assert found >= RECALL_MIN * wanted
    assert merged or not graphs
    print("recall", found / max(wanted, 1), "of", wanted, "merged", merged)


@pytest.fixture(autouse=True)
def _graphs_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are compared one by one at no more cost; here graphs are what is tested, and they
    look at few candidates."""
    monkeypatch.setattr(hnsw, "_CANDIDATE_US", 0.1)
    monkeypatch.setattr(image, "_EF", 24)
    monkeypatch.setattr(image, "_EF_MIN", 12)


@pytest.mark.parametrize("graphs", [False, True])
def test_any_mix_gives_what_numpy_gives(tmp_path: Path, graphs: bool) -> None:
    run(range(9), 50, tmp_path, graphs)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("graphs", [False, True])
def test_ten_thousand_mixes(tmp_path: Path, graphs: bool) -> None:
    run(range(100, 300), 100, tmp_path, graphs)


def test_two_images_made_of_one_do_not_share_what_comes_after(tmp_path: Path) -> None:
    model = Model(2, Distance.COSINE, str(tmp_path), graphs=False)
    before = model.image
    one = {("[a]", 0): unit(np.ones((1, DIMENSIONS), np.float32), Distance.COSINE)[0]}
    other = {("[b]", 0): unit(-np.ones((1, DIMENSIONS), np.float32), Distance.COSINE)[0]}
    first = before.applied(model._table(one), (), 2)
    second = before.applied(model._table(other), (), 2)
    query = np.stack([one["[a]", 0]])
    assert first.book.key(int(first.search(query, 1)[0][0][0])) == ("[a]", 0)
    keys = [second.book.key(int(row)) for row in second.search(query, 1000)[0][0]]
    assert ("[b]", 0) in keys
    assert ("[a]", 0) not in keys
    assert replace(before).rows == first.rows - 1 == second.rows - 1
