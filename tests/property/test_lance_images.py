"""Random mixes of filters, deletions, appends, rebuilds and k over Lance tables, against NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lakehouse.model.vectors import Distance, Structure
from lakehouse.objectstore.folders import Claim
from lakehouse.vectord import image
from lakehouse.vectord.adapters import lance
from lakehouse.vectord.adapters.lance import build_table
from lakehouse.vectord.image import Part
from lakehouse.vectord.structures import LABELS
from property.test_vector_images import Model

RECALL_MIN = 0.97


class LanceModel(Model):
    """As its parent, with tables for structures."""

    names = itertools.count()

    def build(self) -> None:
        older = self.image
        dropped = [part for part in older.parts if self.chance.random() < 0.5]
        rows = np.concatenate([older.tail_rows, *(p.rows[p.rows >= 0] for p in dropped)])
        rows = older.book.in_order(rows[older.live[rows]])
        if not len(rows):
            return
        if self.chance.random() < 0.5:
            self.append()
        claim = Claim(self.folder, f"t{next(self.names)}")
        labels = older.book.table(rows).select(LABELS)
        index: Any = build_table(older.vectors(rows), labels, self.distance, claim)
        part = Part(Structure("lance", "", len(rows)), index, rows)
        self.image = self.image.rebuilt([part], dropped)

    def merge(self) -> None:
        """Tables are not grown."""


def run(seeds: Sequence[int], steps: int, folder: Path) -> None:
    found = wanted = 0
    for seed in seeds:
        distance = list(Distance)[seed % 3]
        model = LanceModel(seed, distance, str(folder / "tables"), graphs=True)
        try:
            for _ in range(steps):
                model.step()
        except BaseException as error:
            error.add_note(f"seed {seed}, {distance}")
            raise
        found, wanted = found + model.found, wanted + model.wanted
    assert found >= RECALL_MIN * wanted
    print("recall", found / max(wanted, 1), "of", wanted)


@pytest.fixture(autouse=True)
def _tables_are_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Also small ones, and for few candidates."""
    monkeypatch.setattr(lance, "_INDEXED_ROWS_MIN", 64)
    monkeypatch.setattr(lance, "_TAKEN_ROWS_MAX", 8)
    monkeypatch.setattr(lance, "_PARTITION_ROWS", 128)
    monkeypatch.setattr(lance, "_CANDIDATES_MIN", 16)
    monkeypatch.setattr(image, "_EF", 24)
    monkeypatch.setattr(image, "_EF_MIN", 12)
    asked: list[int] = []
    nearest = lance.LanceIndex._nearest

    def counted(self: Any, *given: Any) -> Any:
        asked.append(1)
        return nearest(self, *given)

    monkeypatch.setattr(lance.LanceIndex, "_nearest", counted)
    yield
    assert len(asked) > 10
    assert list((tmp_path / "tables").iterdir()) == []


def test_any_mix_over_tables_gives_what_numpy_gives(tmp_path: Path) -> None:
    run(range(3), 60, tmp_path)


@pytest.mark.soak
def test_three_hundred_mixes(tmp_path: Path) -> None:
    run(range(100, 130), 60, tmp_path)
