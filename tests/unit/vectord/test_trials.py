"""Settings tried on an index, remembered, found again, and taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import pytest_asyncio

from lakehouse.contracts import profiles as p
from lakehouse.contracts import trials as t
from lakehouse.contracts import vectors as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.vectors import Profile, VectorBackend
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


async def test_every_setting_is_tried_where_that_is_asked(vectors: Vectors) -> None:
    report = await tuned(vectors, exhaustive=True, samples=10)
    assert (report.state, report.ended) == ("done", "all")
    tried = {(one.m, one.ef_construction, one.ef) for one in report.trials}
    assert len(tried) == len(report.trials) == report.planned == 12
    assert [one.chosen for one in report.trials].count(True) == 1
    assert all(one.rows == ROWS - 10 and not one.sampled for one in report.trials)


async def test_a_recall_that_nothing_reaches_gives_the_best_there_is(vectors: Vectors) -> None:
    report = await tuned(vectors, m=(2,), ef_construction=(8,), ef=(10,), recall=1.0)
    assert (report.state, report.reached) == ("done", False)
    assert report.chosen is not None
    assert (report.chosen.m, report.chosen.ef) == (2, 10)


async def test_a_sample_is_said_to_be_one(vectors: Vectors) -> None:
    report = await tuned(vectors, rows_max=200, m=(8,), ef_construction=(40,), ef=(20,))
    trial = report.trials[0]
    assert (trial.sampled, trial.rows) == (True, 200)
    assert trial.note.startswith("on 200 of 600 rows")


async def test_a_run_that_has_no_time_ends_with_what_it_has(vectors: Vectors) -> None:
    report = await tuned(vectors, budget_seconds=1e-6)
    assert (report.state, report.ended, report.trials) == ("done", "time", ())
    assert report.chosen is None
    assert not report.reached


@pytest.mark.parametrize(
    "fields",
    [
        {"recall": 0.0},
        {"recall": 1.1},
        {"recall": float("nan")},
        {"budget_seconds": 0.0},
        {"budget_seconds": 3601.0},
        {"budget_seconds": float("inf")},
        {"k": 0},
        {"k": 10**6},
        {"samples": 0},
        {"samples": 10**9},
        {"rows_max": -1},
        {"wait_seconds": -1.0},
        {"wait_seconds": 1e9},
        {"m": (1,)},
        {"m": (10**6,)},
        {"ef_construction": (10**9,)},
        {"ef": (0,)},
    ],
)
async def test_a_run_that_cannot_be_is_refused(vectors: Vectors, fields: dict[str, Any]) -> None:
    before = await vectors.trials.trials(READER, t.TrialsRequest())
    refused = await refusal(tuned(vectors, **fields))
    assert refused.kind is ErrorKind.INVALID
    assert refused.fields
    assert await vectors.trials.trials(READER, t.TrialsRequest()) == before


async def test_what_is_not_there_is_told_by_name(vectors: Vectors) -> None:
    refused = await refusal(tuned(vectors, index="poimts"))
    assert (refused.kind, refused.fields["nearest"]) == (ErrorKind.NOT_FOUND, "points")
    refused = await refusal(tuned(vectors, number=9))
    assert (refused.kind, refused.fields["number"]) == (ErrorKind.NOT_FOUND, 9)
    refused = await refusal(tuned(vectors, eval_set="nothing"))
    assert (refused.kind, refused.fields["eval_set"]) == (ErrorKind.NOT_FOUND, "nothing")
    for run in ("", "x", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "Z" * 26):
        refused = await refusal(vectors.trials.get_run(READER, t.RunRequest(run)))
        assert refused.kind is ErrorKind.NOT_FOUND
        refused = await refusal(vectors.trials.promote(ADA, t.PromoteRequest(run)))
        assert refused.kind is ErrorKind.NOT_FOUND
    for cursor in ("x", "-1", "9" * 40):
        asked = t.TrialsRequest(cursor=cursor)
        refused = await refusal(vectors.trials.trials(READER, asked))
        assert refused.kind is ErrorKind.INVALID


async def test_an_index_without_vectors_says_so(vectors: Vectors) -> None:
    await vectors.create_index(ADA, c.CreateIndexRequest("empty", dimensions=4))
    refused = await refusal(tuned(vectors, index="empty"))
    assert (refused.kind, refused.message) == (
        ErrorKind.CONFLICT,
        "the index version has no vectors yet",
    )
    refused = await refusal(
        vectors.trials.put_eval(ADA, t.PutEvalRequest("none", "empty", samples=5))
    )
    assert refused.kind is ErrorKind.CONFLICT


async def test_an_index_of_ten_rows_is_compared_exactly_and_says_so(vectors: Vectors) -> None:
    await vectors.create_index(ADA, c.CreateIndexRequest("ten", dimensions=DIMENSIONS))
    await vectors.put_vectors(ADA, c.PutVectorsRequest("ten", body(10)))
    report = await tuned(vectors, index="ten")
    assert (report.state, report.error, len(report.trials)) == ("done", "", 1)
    trial = report.trials[0]
    assert (trial.m, trial.ef, trial.recall, trial.chosen) == (0, 0, 1.0, True)
    assert trial.note == "every vector is compared: graphs are made of more than 5000 rows"
    refused = await refusal(vectors.trials.promote(ADA, t.PromoteRequest(trial.id)))
    assert refused.kind is ErrorKind.CONFLICT


async def test_an_index_without_graphs_of_ours_has_nothing_to_tune(
    vectors: Vectors, store: Shelf
) -> None:
    async with store.vectors() as (_, profiles, _):
        given = Profile("tables", vector_backend=VectorBackend.LANCE)
        await profiles.put(ADA, p.PutProfileRequest(given))
    await vectors.create_index(
        ADA, c.CreateIndexRequest("table", profile="tables", dimensions=DIMENSIONS)
    )
    await vectors.put_vectors(ADA, c.PutVectorsRequest("table", body(10)))
    refused = await refusal(tuned(vectors, index="table"))
    assert (refused.kind, refused.fields["backend"]) == (ErrorKind.CONFLICT, "lance")


async def test_one_run_of_an_index_at_a_time(vectors: Vectors) -> None:
    first = await tuned(vectors, exhaustive=True, wait_seconds=0)
    assert first.state == "running"
    refused = await refusal(tuned(vectors))
    assert (refused.kind, refused.fields["run"]) == (ErrorKind.CONFLICT, first.run)
    refused = await refusal(tuned(vectors, m=(1,)))
    assert refused.kind is ErrorKind.INVALID
    report = await ended(vectors, first.run)
    assert (report.state, len(report.trials)) == ("done", 12)
    assert (await tuned(vectors, m=(4,), ef_construction=(20,))).state == "done"


async def ended(vectors: Vectors, run: str) -> t.TrialsReport:
    async with asyncio.timeout(60):
        while True:
            report = await vectors.trials.get_run(READER, t.RunRequest(run))
            if report.state != "running":
                return report
            await asyncio.sleep(0.02)


async def test_trials_are_listed_newest_first_page_by_page(vectors: Vectors) -> None:
    await tuned(vectors, exhaustive=True, samples=5)
    whole = await vectors.trials.trials(READER, t.TrialsRequest(index="POINTS", limit=1000))
    assert whole.cursor == ""
    assert all(one.index == "points" for one in whole.trials)
    pages: list[str] = []
    cursor = ""
    while True:
        page = await vectors.trials.trials(
            READER, t.TrialsRequest(index="points", limit=5, cursor=cursor)
        )
        assert len(page.trials) <= 5
        pages += [one.id for one in page.trials]
        cursor = page.cursor
        if not cursor:
            break
    assert pages == [one.id for one in whole.trials]
    assert (whole.dropped, whole.unreadable) == (0, 0)
    times = [one.at for one in whole.trials]
    assert times == sorted(times, reverse=True)
    middle = times[len(times) // 2]
    later = await vectors.trials.trials(READER, t.TrialsRequest(since=middle, limit=1000))
    earlier = await vectors.trials.trials(READER, t.TrialsRequest(until=middle, limit=1000))
    assert all(one.at >= middle for one in later.trials)
    assert all(one.at < middle for one in earlier.trials)
    none = await vectors.trials.trials(READER, t.TrialsRequest(index="elsewhere"))
    assert none.trials == ()
    chosen = [one for one in whole.trials if one.chosen]
    assert {one.run for one in chosen} == {one.run for one in whole.trials}


async def test_searches_are_answered_while_a_run_goes_on(vectors: Vectors) -> None:
    first = await tuned(vectors, exhaustive=True, samples=50, wait_seconds=0)
    query = np.ones(DIMENSIONS, "<f4").tobytes()
    asked = c.SearchRequest("points", (c.VectorQuery(vector=query),), k=3)
    loop, longest, count = asyncio.get_running_loop(), 0.0, 0
    while (await vectors.trials.get_run(READER, t.RunRequest(first.run))).state == "running":
        began = loop.time()
        assert len((await vectors.search(READER, asked)).results[0].hits) == 3
        longest, count = max(longest, loop.time() - began), count + 1
        await asyncio.sleep(0.001)
    assert count >= 10
    assert longest < 0.5


async def test_only_who_may_write_tunes(vectors: Vectors) -> None:
    for call in (
        vectors.trials.autotune(READER, t.AutotuneRequest("points")),
        vectors.trials.promote(READER, t.PromoteRequest("x")),
        vectors.trials.put_eval(READER, t.PutEvalRequest("e", "points", samples=1)),
        vectors.trials.delete_eval(READER, t.DeleteEvalRequest("e")),
        vectors.trials.evaluate(READER, t.EvaluateRequest("e")),
    ):
        assert (await refusal(call)).kind is ErrorKind.FORBIDDEN
