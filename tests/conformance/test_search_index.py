"""One suite over every search structure."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from lakehouse.model.vectors import Distance
from lakehouse.objectstore.folders import Claim
from lakehouse.testing.suites.search_index import SearchIndexSuite
from lakehouse.vectord.adapters import lance
from lakehouse.vectord.adapters.exact import ExactIndex
from lakehouse.vectord.adapters.hnsw import HnswIndex, build_graph, grow_graph, nameless_file
from lakehouse.vectord.adapters.lance import FOLDER, LanceIndex, build_table
from lakehouse.vectord.ports import SearchIndex, Vectors

_NAMES = itertools.count()


def labels_of(rows: int) -> pa.Table:
    """What stands beside the vectors of a table, as vectord has it."""
    return pa.table(
        {
            "entity": pa.array([f"[{at}]" for at in range(rows)], pa.string()),
            "chunk": pa.array([0] * rows, pa.int64()),
            "digest": pa.array([f"{at:032x}" for at in range(rows)], pa.string()),
            "version": pa.array(range(rows), pa.int64()),
        }
    )


class TestExact(SearchIndexSuite):
    def build(self, vectors: Vectors, distance: Distance) -> SearchIndex:
        return ExactIndex(vectors, distance)


class TestHnsw(SearchIndexSuite):
    recall_min = 0.99

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = str(tmp_path)

    def build(self, vectors: Vectors, distance: Distance) -> SearchIndex:
        self.shape = (vectors.shape[1], distance)
        return build_graph(vectors, distance, (16, 100), self.folder)

    def reopened(self, index: SearchIndex) -> SearchIndex:
        assert isinstance(index, HnswIndex)
        with nameless_file(self.folder) as file:
            file.write(index.content)
            file.flush()
            return HnswIndex.load(file, *self.shape)


class TestGrown(TestHnsw):
    """A graph that others were added to, and added to again."""

    def build(self, vectors: Vectors, distance: Distance) -> SearchIndex:
        self.shape = (vectors.shape[1], distance)
        half, most = max(1, len(vectors) // 2), max(1, len(vectors) * 9 // 10)
        first = build_graph(vectors[:half], distance, (16, 100), self.folder)
        before = bytes(first.content)
        grown = grow_graph(first, vectors[half:most], self.folder)
        again = grow_graph(self.reopened(first), vectors[half:most], self.folder)
        assert bytes(grown.content) == bytes(again.content), "the same rows make the same bytes"
        assert bytes(first.content) == before, "others may be searching it"
        assert first.rows == half
        return grow_graph(grown, vectors[most:], self.folder)


class TestLance(SearchIndexSuite):
    recall_min = 0.99
    mixes = 30

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        # Written and read in more than one piece.
        monkeypatch.setattr(lance, "_BLOCK_ROWS", 700)
        self.folder = str(tmp_path / "tables")
        yield
        left = list((tmp_path / "tables").iterdir())
        assert left == [], "a table that nobody has any more was left"

    def claim(self) -> Claim:
        return Claim(self.folder, f"t{next(_NAMES)}")

    def build(self, vectors: Vectors, distance: Distance) -> SearchIndex:
        self.shape = (vectors.shape[1], distance)
        return build_table(vectors, labels_of(len(vectors)), distance, self.claim())

    def reopened(self, index: SearchIndex) -> SearchIndex:
        assert isinstance(index, LanceIndex)
        claim = self.claim()
        shutil.copytree(index.folder, claim.path / FOLDER)
        return LanceIndex(claim, index.version, *self.shape)
