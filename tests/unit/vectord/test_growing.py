"""A graph that has grown, whose labels are in no order: what is as near as another goes by key."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lakehouse.model.vectors import Distance, IndexVersion, Profile, VersionState
from lakehouse.vectord.structures import Built, Structures
from support_vectors import Shelf

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROFILE = Profile("ties", distance=Distance.DOT)
ROWS, LATER = 1_000, 400
MADE = datetime(2024, 1, 1, tzinfo=UTC)
VERSION = IndexVersion(1, VersionState.READY, PROFILE, "m", "", 4, "vectors.t.v1", "", MADE)


def labels(entities: Any) -> pa.Table:
    count = len(entities)
    return pa.table(
        {
            "entity": pa.array([f"[{n:05}]" for n in entities], pa.string()),
            "chunk": pa.array([0] * count, pa.int64()),
            "digest": pa.array(["d"] * count, pa.string()),
            "version": pa.array([1] * count, pa.int64()),
        }
    )


def check(built: Built, vectors: Any) -> None:
    keys = built.labels.column("entity").to_pylist()
    index: Any = built.index
    for k in (1, 7, 40):
        for at in (0, 3, ROWS + 5):
            query = vectors[at : at + 1]
            far = -(vectors @ query[0])
            wanted = sorted(zip(far.tolist(), keys, strict=True))[:k]
            for found in (index.search(query, k, 200), index.compare(query, k)):
                got = [(float(d), keys[n]) for n, d in zip(found[0][0], found[1][0], strict=True)]
                assert got == wanted
            near, apart = index.nearest(query, k, 200)
            assert [(float(d), keys[n]) for n, d in zip(near, apart, strict=True)] == wanted


async def test_ties_go_by_key_in_what_has_grown_also_when_it_is_loaded(store: Shelf) -> None:
    draw = np.random.default_rng(11)
    # Few vectors, so many rows have the same one.
    few = draw.integers(-2, 3, (60, 4)).astype(np.float32)
    vectors = few[draw.integers(0, 60, ROWS + LATER)]
    entities = draw.permutation(ROWS + LATER)
    first, later = np.sort(entities[:ROWS]), np.sort(entities[ROWS:])
    async with store.vectors() as (_, profiles, _):
        with ThreadPoolExecutor(1) as builders:
            structures = Structures(profiles._parts, builders)
            built = await structures.build(PROFILE, vectors[:ROWS], labels(first))
            grown = await structures.grow(built, vectors[ROWS:], labels(later))
            check(grown, vectors)
            saved = await structures.save("_vectors/ties/", "primary", grown)
            loaded = await structures.load(VERSION, replace(saved, kind="hnsw"))
            assert loaded.labels.num_rows == ROWS + LATER
            check(loaded, vectors)
