"""The trials contract, called directly and over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import pytest_asyncio

from contracts.world import READER, WRITER, Doorkeeper
from lakehouse.contracts import trials as c
from lakehouse.contracts import vectors as v
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.retrieval import SearchMode
from support_retrieval import Library, library
from support_vectors import ADA
from unit.rpc.loopback import loopback

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROWS, DIMENSIONS = 1_500, 16
TUNED = c.AutotuneRequest(
    "points",
    samples=40,
    k=5,
    recall=0.95,
    m=(8, 16),
    ef_construction=(40,),
    ef=(10, 40, 160),
    budget_seconds=60.0,
    wait_seconds=60.0,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Library]:
    async with library(tmp_path_factory.mktemp("store")) as found:
        drawn = np.random.default_rng(5).standard_normal((ROWS, DIMENSIONS)).astype(np.float32)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(drawn.ravel()), DIMENSIONS)
        table = pa.table({"id": [f"p{at}" for at in range(ROWS)], "vector": flat})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        made = v.CreateIndexRequest("points", profile="graphs", dimensions=DIMENSIONS)
        await found.role.create_index(ADA, made)
        await found.role.put_vectors(ADA, v.PutVectorsRequest("points", bytes(sink.getvalue())))
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def trials(here: Library, transport: str) -> AsyncIterator[Any]:
    if transport == "direct":
        yield here.role.trials
        return
    async with loopback({"trials": here.role.trials}, Doorkeeper(None)) as there:
        yield there.client("Trials")


async def refused(call: Any) -> ErrorKind:
    with pytest.raises(LakehouseError) as caught:
        await call
    return caught.value.kind


async def test_eval_sets_come_and_go(trials: Any, transport: str) -> None:
    name = f"foxes_{transport}"
    queries = (
        c.EvalQuery("a red fox", relevant=("[1]", "[5]"), grades=(2.0, 1.0)),
        c.EvalQuery("the blue whale", relevant=("[3]",)),
    )
    made = await trials.put_eval(WRITER, c.PutEvalRequest(name, "books", queries))
    assert made.created
    got = (await trials.get_eval(READER, c.EvalRequest(name))).eval_set
    assert (got.name, got.index, got.queries) == (name, "books", queries)
    again = await trials.put_eval(WRITER, c.PutEvalRequest(name, "books", queries[:1]))
    assert not again.created
    listed = await trials.list_evals(READER, c.ListEvalsRequest(index="books"))
    mine = next(one for one in listed.evals if one.name == name)
    assert (mine.queries, mine.relevant) == (1, 2)
    await trials.delete_eval(WRITER, c.DeleteEvalRequest(name))
    assert await refused(trials.get_eval(READER, c.EvalRequest(name))) is ErrorKind.NOT_FOUND


async def test_modes_are_measured(trials: Any, transport: str) -> None:
    name = f"modes_{transport}"
    queries = (
        c.EvalQuery("a red fox runs", relevant=("[1]",)),
        c.EvalQuery("the blue whale", relevant=("[3]",)),
    )
    await trials.put_eval(WRITER, c.PutEvalRequest(name, "books", queries))
    report = await trials.evaluate(WRITER, c.EvaluateRequest(name, k=3))
    assert {one.mode for one in report.trials} == set(SearchMode)
    for one in report.trials:
        assert (one.kind, one.eval_set, one.queries, one.k) == ("mode", name, 2, 3)
        assert (one.ndcg, one.mrr, one.relevant_recall) == (1.0, 1.0, 1.0)
    kept = await trials.trials(READER, c.TrialsRequest(run=report.run))
    assert {one.id for one in kept.trials} == {one.id for one in report.trials}


async def test_a_setting_is_found_and_taken(here: Library, trials: Any) -> None:
    report = await trials.autotune(WRITER, TUNED)
    assert (report.state, report.error) == ("done", "")
    assert report.chosen is not None
    assert report.reached
    assert report.chosen.recall is not None
    assert report.chosen.recall >= 0.95
    assert all(one.index == "points" for one in report.trials)
    page = await trials.trials(READER, c.TrialsRequest("points", run=report.run, limit=1))
    assert (len(page.trials), bool(page.cursor)) == (1, len(report.trials) > 1)
    same = await trials.get_run(READER, c.RunRequest(report.run))
    assert (same.state, same.chosen) == ("done", report.chosen)
    taken = await trials.promote(WRITER, c.PromoteRequest(report.chosen.id))
    profile = taken.index.versions[0].profile
    assert (profile.hnsw_m, profile.ef_construction, profile.ef_search) == (
        *(report.chosen.m, report.chosen.ef_construction, report.chosen.ef),
    )


async def test_one_run_of_an_index_at_a_time(here: Library, trials: Any) -> None:
    long = replace(TUNED, wait_seconds=0.0, exhaustive=True, m=(8, 16, 32))
    began = await trials.autotune(WRITER, long)
    second = await asyncio.gather(trials.autotune(WRITER, long), return_exceptions=True)
    error = second[0]
    if isinstance(error, LakehouseError):  # else the first had ended meanwhile
        assert error.kind is ErrorKind.CONFLICT
        assert error.fields["run"] == began.run
    until = asyncio.get_running_loop().time() + 60
    for run in {began.run, getattr(error, "run", began.run)}:
        while (await trials.get_run(READER, c.RunRequest(run))).state == "running":
            assert asyncio.get_running_loop().time() < until
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"index": "never"}, ErrorKind.NOT_FOUND),
        ({"recall": 0.0}, ErrorKind.INVALID),
        ({"recall": 1.1}, ErrorKind.INVALID),
        ({"m": (1,)}, ErrorKind.INVALID),
        ({"m": (10**6,)}, ErrorKind.INVALID),
        ({"ef_construction": (0,)}, ErrorKind.INVALID),
        ({"ef": (-1,)}, ErrorKind.INVALID),
        ({"k": 0}, ErrorKind.INVALID),
        ({"budget_seconds": 0.0}, ErrorKind.INVALID),
        ({"budget_seconds": float("nan")}, ErrorKind.INVALID),
        ({"budget_seconds": 1e9}, ErrorKind.INVALID),
        ({"samples": 0}, ErrorKind.INVALID),
        ({"eval_set": "never"}, ErrorKind.NOT_FOUND),
    ],
)
async def test_bad_runs(trials: Any, change: dict[str, Any], kind: ErrorKind) -> None:
    assert await refused(trials.autotune(WRITER, replace(TUNED, **change))) is kind


async def test_refusals(trials: Any) -> None:
    put = c.PutEvalRequest("x", "books", (c.EvalQuery("a", relevant=("[1]",)),))
    assert await refused(trials.put_eval(READER, put)) is ErrorKind.FORBIDDEN
    assert await refused(trials.autotune(READER, TUNED)) is ErrorKind.FORBIDDEN
    for queries in (
        (),
        (c.EvalQuery(),),
        (c.EvalQuery("a", relevant=("[1]",), grades=(1.0, 2.0)),),
        (c.EvalQuery("a"),) * (c.EVAL_QUERIES_MAX + 1),
    ):
        call = trials.put_eval(WRITER, replace(put, queries=queries))
        assert await refused(call) is ErrorKind.INVALID
    assert await refused(trials.get_run(READER, c.RunRequest("never"))) is ErrorKind.NOT_FOUND
    promote = trials.promote(WRITER, c.PromoteRequest("never"))
    assert await refused(promote) is ErrorKind.NOT_FOUND
    assert await refused(trials.trials(READER, c.TrialsRequest(limit=0))) is ErrorKind.INVALID
