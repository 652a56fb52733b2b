"""Settings tried on an index, remembered, found again, and taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import pytest_asyncio

from lakehouse.contracts import profiles as p
from lakehouse.contracts import trials as t
from lakehouse.contracts import vectors as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.retrieval import SearchMode
from lakehouse.model.vectors import Profile, VectorBackend
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.profiles import Profiles
from lakehouse.vectord.publishing import ipc
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, READER, Shelf

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS = 600
DIMENSIONS = 16
GRID = {"m": (4, 16), "ef_construction": (20, 80), "ef": (10, 30, 50)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vectors(store: Shelf) -> AsyncIterator[Vectors]:
    async with store.vectors() as (made, profiles, _):
        given = Profile("graphs", exact_rows_max=100, hnsw_m=8, ef_construction=40)
        await profiles.put(ADA, p.PutProfileRequest(given))
        await made.create_index(
            ADA, c.CreateIndexRequest("points", profile="graphs", dimensions=DIMENSIONS)
        )
        await made.put_vectors(ADA, c.PutVectorsRequest("points", body(ROWS)))
        await made.images.settled()
        yield made


def body(count: int, seed: int = 1, dimensions: int = DIMENSIONS) -> bytes:
    chance = np.random.default_rng(seed)
    rows = chance.normal(size=(count, dimensions)).astype(np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), dimensions)
    ids = pa.array([f"v{at:05d}" for at in range(count)])
    return ipc(pa.table({"id": ids, "vector": flat}))


async def refusal(call: Any) -> LakehouseError:
    with pytest.raises(LakehouseError) as refused:
        await call
    return refused.value


async def tuned(vectors: Vectors, **fields: Any) -> t.TrialsReport:
    asked: dict[str, Any] = {"index": "points", "samples": 20, "wait_seconds": 60, **GRID, **fields}
    return await vectors.trials.autotune(ADA, t.AutotuneRequest(**asked))


async def test_a_run_finds_a_setting_that_reaches_the_recall(vectors: Vectors) -> None:
    report = await tuned(vectors, recall=0.95)
    assert (report.state, report.error, report.reached) == ("done", "", True)
    assert report.chosen is not None
    assert report.chosen.recall is not None
    assert report.chosen.recall >= 0.95
    assert report.chosen.cpu_ms > 0
    assert report.planned == 12
    assert {(one.m, one.ef_construction) for one in report.trials} <= {
        (m, ef) for m in GRID["m"] for ef in GRID["ef_construction"]
    }
    again = await vectors.trials.get_run(READER, t.RunRequest(report.run))
    assert (again.trials, again.chosen, again.state) == (report.trials, report.chosen, "done")
    listed = await vectors.trials.trials(READER, t.TrialsRequest(run=report.run, limit=1000))
    assert {one.id: one for one in listed.trials} == {one.id: one for one in report.trials}
    assert [one.id for one in listed.trials] == sorted((o.id for o in report.trials), reverse=True)
