"""Eval sets: kept, asked in every mode, and a setting of a trial that is taken over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from lakehouse.contracts import profiles as p
from lakehouse.contracts import trials as t
from lakehouse.contracts import vectors as c
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.model.retrieval import SearchMode
from lakehouse.model.vectors import IndexVersion, Profile
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.service import Vectors
from support_vectors import ADA, READER, Shelf
from unit.vectord.test_trials import body, refusal

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = ("red", "green", "blue", "stone", "river", "cloud", "apple", "horse", "iron", "glass")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedder() -> HashingEmbedder:
    return HashingEmbedder()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vectors(store: Shelf, embedder: HashingEmbedder) -> AsyncIterator[Vectors]:
    rows = [
        {"id": f"{a}-{b}", "text": f"the {a} {b} of number {at * 10 + on}"}
        for at, a in enumerate(WORDS)
        for on, b in enumerate(WORDS)
    ]
    await store.put("things", rows)
    async with store.vectors(embedder) as (made, profiles, _):
        small = Profile("small", exact_rows_max=20, hnsw_m=4, ef_construction=20)
        await profiles.put(ADA, p.PutProfileRequest(small))
        await made.create_index(ADA, c.CreateIndexRequest("things", "things", ("text",), "small"))
        await made.build(ADA, c.BuildRequest("things", wait_seconds=60))
        await made.create_index(ADA, c.CreateIndexRequest("points", profile="small", dimensions=16))
        await made.put_vectors(ADA, c.PutVectorsRequest("points", body(300)))
        await made.images.settled()
        yield made


async def put(vectors: Vectors, name: str, *queries: t.EvalQuery, **fields: Any) -> t.EvalResult:
    ctx, index = fields.pop("ctx", ADA), fields.pop("index", "things")
    asked = t.PutEvalRequest(name, index, queries, **fields)
    return await vectors.trials.put_eval(ctx, asked)


async def test_a_set_is_made_read_listed_replaced_and_deleted(vectors: Vectors) -> None:
    queries = (
        t.EvalQuery("red stone", relevant=("red-stone", '["red-river"]'), grades=(2.0, 1.0)),
        t.EvalQuery("blue", np.ones(32, "<f4").tobytes()),
    )
    made = await put(vectors, "First", *queries, description="by hand")
    assert (made.created, made.eval_set.queries, made.eval_set.index) == (True, queries, "things")
    read = await vectors.trials.get_eval(READER, t.EvalRequest("first"))
    assert read.eval_set == made.eval_set
    listed = await vectors.trials.list_evals(READER, t.ListEvalsRequest(index="THINGS"))
    (one,) = [each for each in listed.evals if each.name == "First"]
    assert (one.queries, one.relevant, one.description) == (2, 2, "by hand")
    again = await put(vectors, "first", t.EvalQuery("green"))
    assert (again.created, len(again.eval_set.queries)) == (False, 1)
    await vectors.trials.delete_eval(ADA, t.DeleteEvalRequest("FIRST"))
    for call in (
        vectors.trials.get_eval(READER, t.EvalRequest("first")),
        vectors.trials.delete_eval(ADA, t.DeleteEvalRequest("first")),
        vectors.trials.evaluate(ADA, t.EvaluateRequest("first")),
    ):
        assert (await refusal(call)).kind is ErrorKind.NOT_FOUND


async def test_a_large_set_is_in_several_documents_and_one_piece(vectors: Vectors) -> None:
    chance = np.random.default_rng(1)
    queries = tuple(
        t.EvalQuery("", chance.normal(size=32).astype("<f4").tobytes(), ("k" * 900,))
        for _ in range(1_500)
    )
    await put(vectors, "large", *queries)
    read = await vectors.trials.get_eval(READER, t.EvalRequest("large"))
    assert read.eval_set.queries == queries
    await put(vectors, "large", t.EvalQuery("red"))
    read = await vectors.trials.get_eval(READER, t.EvalRequest("large"))
    assert [one.text for one in read.eval_set.queries] == ["red"]
    huge = t.EvalQuery("x" * 600_000)
    assert (await refusal(put(vectors, "huge", huge))).kind is ErrorKind.INVALID
    many = [t.EvalQuery("x" * 400_000)] * 20
    assert (await refusal(put(vectors, "huge", *many))).kind is ErrorKind.INVALID
    await vectors.trials.delete_eval(ADA, t.DeleteEvalRequest("large"))


async def test_the_same_call_again_has_one_effect(vectors: Vectors) -> None:
    ctx: Context = replace(ADA, idempotency_key="eval-1")
    first = await put(vectors, "once", t.EvalQuery("a", np.ones(32, "<f4").tobytes()), ctx=ctx)
    second = await put(vectors, "once", t.EvalQuery("a", np.ones(32, "<f4").tobytes()), ctx=ctx)
    assert (first.created, second.created) == (True, True)
    assert first.eval_set == second.eval_set
    refused = await refusal(put(vectors, "once", t.EvalQuery("b"), ctx=ctx))
    assert refused.kind is ErrorKind.INVALID


@pytest.mark.parametrize(
    ("queries", "fields"),
    [
        ((), {}),
        ((t.EvalQuery("a"),), {"samples": 5}),
        ((), {"samples": 2_001}),
        ((), {"samples": -1}),
        ((), {"samples": 1, "seed": -1}),
        ((t.EvalQuery(" "),), {}),
        ((t.EvalQuery("a"),) * 2_001, {}),
        ((t.EvalQuery("a", relevant=("",)),), {}),
        ((t.EvalQuery("a", relevant=("k",), grades=(1.0, 2.0)),), {}),
        ((t.EvalQuery("a", relevant=("k",), grades=(-1.0,)),), {}),
        ((t.EvalQuery("a", relevant=("k",), grades=(float("nan"),)),), {}),
        ((t.EvalQuery("a", relevant=("k",) * 1_001),), {}),
        ((t.EvalQuery("", b"\0" * 128),), {}),
        ((t.EvalQuery("", np.ones(31, "<f4").tobytes()),), {}),
        ((t.EvalQuery("", b"123"),), {}),
        ((t.EvalQuery("", np.full(32, np.nan, "<f4").tobytes()),), {}),
        ((t.EvalQuery("a"),), {"description": "d" * 1_001}),
    ],
)
async def test_a_set_that_cannot_be_asked_is_refused(
    vectors: Vectors, queries: tuple[t.EvalQuery, ...], fields: dict[str, Any]
) -> None:
    refused = await refusal(put(vectors, "bad", *queries, **fields))
    assert refused.kind is ErrorKind.INVALID
    assert (await refusal(vectors.trials.get_eval(READER, t.EvalRequest("bad")))).kind is (
        ErrorKind.NOT_FOUND
    )


async def test_names_that_cannot_be_are_refused(vectors: Vectors) -> None:
    for name in ("", " ", "a\nb", "n" * 300):
        refused = await refusal(put(vectors, name, t.EvalQuery("a")))
        assert refused.kind is ErrorKind.INVALID


async def test_each_mode_becomes_a_trial_with_its_figures(vectors: Vectors) -> None:
    queries = [t.EvalQuery(f"{a} {b}", relevant=(f"{a}-{b}",)) for a, b in pairwise(WORDS)]
    await put(vectors, "pairs", *queries)
    report = await vectors.trials.evaluate(ADA, t.EvaluateRequest("pairs", k=20))
    assert (report.state, report.error) == ("done", "")
    assert [one.mode for one in report.trials] == [*SearchMode]
    for trial in report.trials:
        assert (trial.kind, trial.eval_set, trial.queries) == ("mode", "pairs", len(queries))
        assert trial.ndcg is not None
        assert 0.0 < trial.ndcg <= 1.0
        assert trial.recall is None
        assert trial.p50_ms > 0
    words = report.trials[1]
    # "red green" and "green red" have the same words; nothing else has both.
    assert words.mrr is not None
    assert words.mrr >= 0.5
    assert words.relevant_recall == 1.0
    again = await vectors.trials.get_run(READER, t.RunRequest(report.run))
    assert replace(again, version=report.version) == report
    listed = await vectors.trials.trials(READER, t.TrialsRequest(kind="mode"))
    assert {one.id for one in report.trials} <= {one.id for one in listed.trials}


async def test_without_the_model_words_alone_can_be_asked(
    vectors: Vectors, embedder: HashingEmbedder
) -> None:
    await put(vectors, "words", t.EvalQuery("red stone", relevant=("red-stone",)))
    embedder.failure = LakehouseError(ErrorKind.UNAVAILABLE, "away")
    try:
        asked = t.EvaluateRequest("words", modes=(SearchMode.TEXT,))
        report = await vectors.trials.evaluate(ADA, asked)
        assert [one.mrr for one in report.trials] == [1.0]
        refused = await refusal(vectors.trials.evaluate(ADA, t.EvaluateRequest("words")))
        assert refused.kind is ErrorKind.UNAVAILABLE
    finally:
        embedder.failure = None


async def test_drawn_queries_find_their_exact_neighbours(vectors: Vectors) -> None:
    made = await put(vectors, "drawn", index="points", samples=25, seed=7)
    assert len(made.eval_set.queries) == 25
    assert all(one.vector and len(one.relevant) == 10 for one in made.eval_set.queries)
    other = await put(vectors, "drawn 8", index="points", samples=25, seed=8)
    assert other.eval_set.queries != made.eval_set.queries
    again = await put(vectors, "drawn", index="points", samples=25, seed=7)
    assert again.eval_set.queries == made.eval_set.queries
    report = await vectors.trials.evaluate(ADA, t.EvaluateRequest("drawn"))
    (trial,) = report.trials
    assert trial.mode is SearchMode.VECTOR
    assert trial.ndcg is not None
    assert trial.ndcg > 0.9
    asked = t.AutotuneRequest(
        "points", eval_set="drawn", m=(32,), ef_construction=(200,), ef=(200,), wait_seconds=60
    )
    tuned = await vectors.trials.autotune(ADA, asked)
    (trial,) = tuned.trials
    assert (trial.eval_set, trial.queries, trial.recall) == ("drawn", 25, 1.0)
    assert (trial.ndcg, trial.mrr, trial.relevant_recall) == (1.0, 1.0, 1.0)
    refused = await refusal(
        vectors.trials.autotune(ADA, t.AutotuneRequest("things", eval_set="drawn"))
    )
    assert (refused.kind, refused.fields["eval_index"]) == (ErrorKind.INVALID, "points")


async def test_queries_without_keys_are_held_against_exact_neighbours(vectors: Vectors) -> None:
    await put(vectors, "open", t.EvalQuery("iron glass"), t.EvalQuery("cloud"))
    asked = t.EvaluateRequest("open", modes=(SearchMode.VECTOR,), k=5)
    (trial,) = (await vectors.trials.evaluate(ADA, asked)).trials
    assert trial.ndcg is not None
    assert trial.ndcg > 0.5


async def version(vectors: Vectors, name: str) -> IndexVersion:
    found = await vectors.get_index(READER, c.IndexRequest(name))
    return found.index.versions[0]


async def test_a_promoted_setting_is_searched_with_and_its_graph_built(
    vectors: Vectors, store: Shelf
) -> None:
    before = await version(vectors, "points")
    assert [(one.m, one.ef_construction) for one in before.structures] == [(4, 20)]
    asked = t.AutotuneRequest(
        "points", m=(12,), ef_construction=(60,), ef=(25,), recall=0.5, wait_seconds=60
    )
    report = await vectors.trials.autotune(ADA, asked)
    assert report.chosen is not None
    ctx = replace(ADA, idempotency_key="promote-1")
    done = await vectors.trials.promote(ctx, t.PromoteRequest(report.chosen.id))
    assert done.building
    profile = done.index.versions[0].profile
    assert (profile.hnsw_m, profile.ef_construction, profile.ef_search) == (12, 60, 25)
    query = c.VectorQuery(vector=np.ones(16, "<f4").tobytes())
    found = await vectors.search(READER, c.SearchRequest("points", (query,), k=5))
    assert len(found.results[0].hits) == 5
    await vectors.images.settled()
    after = await version(vectors, "points")
    assert [(one.m, one.ef_construction) for one in after.structures] == [(12, 60)]
    assert after.structures[0].key != before.structures[0].key
    # A write afterwards keeps what was promoted.
    await vectors.put_vectors(ADA, c.PutVectorsRequest("points", body(301, seed=3)))
    await vectors.images.settled()
    assert (await version(vectors, "points")).profile == profile
    again = await vectors.trials.promote(ctx, t.PromoteRequest(report.chosen.id))
    assert again.index.versions[0].profile == profile
    assert not again.building


async def test_a_promoted_setting_outlives_a_build(vectors: Vectors, store: Shelf) -> None:
    asked = t.AutotuneRequest(
        "things", m=(6,), ef_construction=(30,), ef=(15,), recall=0.1, wait_seconds=60
    )
    report = await vectors.trials.autotune(ADA, asked)
    assert report.chosen is not None
    await vectors.trials.promote(ADA, t.PromoteRequest(report.chosen.id))
    await store.upsert("things", {"id": "new", "text": "a new thing"})
    await vectors.build(ADA, c.BuildRequest("things", wait_seconds=60))
    now = await version(vectors, "things")
    assert (now.profile.hnsw_m, now.profile.ef_search) == (6, 15)
    assert now.documents == 101


async def test_a_trial_of_a_mode_and_a_version_that_is_not_there_cannot_be_taken(
    vectors: Vectors,
) -> None:
    listed = await vectors.trials.trials(READER, t.TrialsRequest(index="things", limit=1000))
    mode = next(one for one in listed.trials if one.kind == "mode")
    refused = await refusal(vectors.trials.promote(ADA, t.PromoteRequest(mode.id)))
    assert refused.kind is ErrorKind.CONFLICT
    graph = next(one for one in listed.trials if one.kind == "hnsw")
    refused = await refusal(vectors.trials.promote(ADA, t.PromoteRequest(graph.id, number=7)))
    assert refused.kind is ErrorKind.NOT_FOUND


async def test_a_graph_that_was_not_built_before_the_node_ended_is_built_after(
    vectors: Vectors, store: Shelf
) -> None:
    asked = t.AutotuneRequest(
        "points", m=(5,), ef_construction=(33,), ef=(20,), recall=0.1, wait_seconds=60
    )
    report = await vectors.trials.autotune(ADA, asked)
    assert report.chosen is not None
    async with store.vectors() as (before, _, _):
        before.images.consider = lambda _: None  # type: ignore[method-assign]
        await before.trials.promote(ADA, t.PromoteRequest(report.chosen.id))
        now = await version(before, "points")
        assert now.profile.hnsw_m == 5
        assert [one.m for one in now.structures] != [5]
    async with store.vectors() as (after, _, _):
        query = c.VectorQuery(vector=np.ones(16, "<f4").tobytes())
        found = await after.search(READER, c.SearchRequest("points", (query,), k=5))
        assert len(found.results[0].hits) == 5
        await after.images.settled()
        now = await version(after, "points")
        assert [(one.m, one.ef_construction) for one in now.structures] == [(5, 33)]


async def test_words_are_not_searched_for_where_a_query_has_none(vectors: Vectors) -> None:
    await put(vectors, "no words", index="points", samples=3)
    for modes in ((SearchMode.TEXT,), (SearchMode.VECTOR, SearchMode.HYBRID)):
        asked = t.EvaluateRequest("no words", modes=modes)
        refused = await refusal(vectors.trials.evaluate(ADA, asked))
        assert (refused.kind, refused.fields["query"]) == (ErrorKind.INVALID, 0)
    for fields in ({"k": 0}, {"k": 10**6}, {"number": 5}):
        asked = t.EvaluateRequest("no words", **fields)
        refused = await refusal(vectors.trials.evaluate(ADA, asked))
        assert refused.kind in (ErrorKind.INVALID, ErrorKind.NOT_FOUND)
    same = t.EvaluateRequest("no words", modes=(SearchMode.VECTOR, SearchMode.VECTOR))
    assert len((await vectors.trials.evaluate(ADA, same)).trials) == 1
