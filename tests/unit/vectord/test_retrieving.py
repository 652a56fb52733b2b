"""Searches of every mode over a store: fused as by hand, filtered, degraded, reranked, of several
indexes, as of then; and what is handed over of them to be remembered."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from lakehouse.contracts import vectors as c
from lakehouse.contracts.as_of import AsOf
from lakehouse.contracts.profiles import PutProfileRequest
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.retrieval import RecordClass, Rerank, SearchMode, Stage
from lakehouse.model.vectors import Profile, VectorBackend
from lakehouse.testing.embedders import HashingEmbedder
from lakehouse.vectord.retrieval import patience
from lakehouse.vectord.retrieval.searched import Searched
from support_vectors import ADA, READER, Shelf
from unit.vectord.building_support import Service, built, docs, made

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORDS = ["harbour", "Rotterdam", "dues", "mill", "wheat", "ship", "tide", "rope", "salt", "quay"]


@pytest_asyncio.fixture(loop_scope="module")
async def service(store: Shelf) -> AsyncIterator[Service]:
    async with store.vectors() as made_service:
        yield made_service


def noted(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[Searched]:
    """What is handed over from now on."""
    found: list[Searched] = []
    monkeypatch.setattr(service[0].recorder, "note", found.extend)
    return found


async def ask(
    service: Service, index: str, *texts: str, k: int = 5, **fields: Any
) -> c.SearchResult:
    queries = tuple(c.VectorQuery(text) for text in texts)
    return await service[0].search(ADA, c.SearchRequest(index, queries, k, **fields))


async def keys(service: Service, index: str, *texts: str, **fields: Any) -> list[str]:
    return [hit.key for hit in (await ask(service, index, *texts, **fields)).results[0].hits]


def sentences(count: int, seed: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    texts = [" ".join(chance.choices(WORDS, k=chance.randrange(1, 9))) for _ in range(count)]
    rows = docs(*texts)
    for row in rows:
        row["year"] = 2000 + row["id"] % 10
    return rows


async def test_hybrid_is_the_fusion_of_the_other_two(store: Shelf, service: Service) -> None:
    rows = sentences(160, 5)
    await made(service, store, "fused", *rows)
    chance = random.Random(6)
    for step in range(12):
        where = ["", "year < 2003", "year = 2004 and id > 100"][step % 3]
        k, candidates = chance.choice([(1, 0), (7, 20), (200, 0)])
        query = " ".join(chance.sample(WORDS, 2))
        most = max(k, candidates or max(100, 4 * k))
        legs = [
            (await ask(service, "fused", query, k=most, mode=mode, filter=where)).results[0].hits
            for mode in (SearchMode.VECTOR, SearchMode.TEXT)
        ]
        ranks: dict[str, list[int]] = {}
        for leg in legs:
            for rank, hit in enumerate(leg, 1):
                ranks.setdefault(hit.key, []).append(rank)
        by_hand = sorted(
            (-sum(1 / (60 + rank) for rank in some), min(some), key) for key, some in ranks.items()
        )
        fields = {"mode": SearchMode.HYBRID, "filter": where, "candidates": candidates}
        found = await ask(service, "fused", query, k=k, **fields)
        hits = found.results[0].hits
        assert [hit.key for hit in hits] == [key for _, _, key in by_hand[:k]]
        assert [hit.score for hit in hits] == [-less for less, _, _ in by_hand[:k]]
        matches = await store.sql(f"select id from fused where {where or 'true'}")
        assert len(hits) == min(k, len(matches))
        assert found.served_by == "exact+bm25"
        assert all(hit.stages[-1].stage is Stage.FUSION for hit in hits)


async def test_text_finds_every_row_with_a_word_and_no_other(
    store: Shelf, service: Service
) -> None:
    rows = sentences(120, 8)
    await made(service, store, "worded", *rows)
    for where, word in (("year > 2004", "salt"), ("false", "salt"), ("id = 3", "zebra"), ("", "a")):
        ids = {
            row["id"] for row in await store.sql(f"select id from worded where {where or 'true'}")
        }
        wanted = {
            f"[{row['id']}]" for row in rows if word in row["text"].split() and row["id"] in ids
        }
        for k in (3, 500):
            found = await keys(service, "worded", word, k=k, mode=SearchMode.TEXT, filter=where)
            assert len(found) == min(k, len(wanted))
            assert set(found) <= wanted
    hybrid = await ask(service, "worded", "salt", mode=SearchMode.HYBRID, filter="false")
    assert hybrid.results[0].hits == ()
    several = await ask(service, "worded", "salt", "quay mill", "zebra", mode=SearchMode.TEXT)
    alone = [
        await ask(service, "worded", text, mode=SearchMode.TEXT)
        for text in ("salt", "quay mill", "zebra")
    ]
    assert [one.hits for one in several.results] == [one.results[0].hits for one in alone]


async def test_rows_are_followed_and_deletions_are_gone(store: Shelf, service: Service) -> None:
    await made(service, store, "moving", *docs("the mill grinds", "a ship sails", "the quay"))
    assert await keys(service, "moving", "mill", mode=SearchMode.TEXT) == ["[1]"]
    await store.upsert("moving", {"id": 2, "text": "a mill by the sea"}, {"id": 9, "text": "Mill"})
    await store.delete("moving", {"id": 1})
    await built(service[0], "moving")
    assert await keys(service, "moving", "mill", mode=SearchMode.TEXT) == ["[9]", "[2]"]
    assert await keys(service, "moving", "ship grinds", mode=SearchMode.TEXT) == []


async def test_without_the_embedder_words_answer_and_say_so(
    store: Shelf, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(service, store, "away", *docs("harbour dues", "wheat mill", "harbour ship"))
    records = noted(service, monkeypatch)
    monkeypatch.setattr(patience, "_AWAY_SECONDS", 0.0)
    embedder = service[2]
    for kind in (ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT, ErrorKind.EXHAUSTED):
        embedder.fail(kind)
        found = await ask(service, "away", "harbour", mode=SearchMode.HYBRID)
        assert (found.degraded, found.served_by) == (True, "bm25")
        assert "embedding server" in found.degraded_reason
        assert {hit.key for hit in found.results[0].hits} == {"[1]", "[3]"}
        assert (records[-1].vector, records[-1].result.degraded) == (b"", True)
        with pytest.raises(LakehouseError) as caught:
            await ask(service, "away", "harbour")
        assert caught.value.kind is kind
        text = await ask(service, "away", "harbour", mode=SearchMode.TEXT, rerank=Rerank.VECTORS)
        assert text.degraded
        assert {hit.key for hit in text.results[0].hits} == {"[1]", "[3]"}
        embedder.recover()
        again = await ask(service, "away", "harbour", mode=SearchMode.HYBRID)
        assert (again.degraded, again.served_by) == (False, "exact+bm25")
        assert len(records[-1].vector) == 4 * embedder.dimensions
    embedder.change_model("all-minilm", "other weights")
    service[0]._searching._models._known.clear()
    with pytest.raises(LakehouseError, match="changed under its name"):
        await ask(service, "away", "harbour", mode=SearchMode.HYBRID)
    embedder.change_model("all-minilm")


async def test_an_embedder_that_hangs_is_not_waited_for(
    store: Shelf, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(service, store, "hanging", *docs("harbour dues", "wheat mill"))
    monkeypatch.setattr(patience, "_SECONDS", 0.1)
    monkeypatch.setattr(patience, "_FIRST_SECONDS", 0.1)
    service[2].gate.clear()
    try:
        asking = ask(service, "hanging", "harbour", mode=SearchMode.HYBRID)
        found = await asyncio.wait_for(asking, 5.0)
        assert (found.degraded, [hit.key for hit in found.results[0].hits]) == (True, ["[1]"])
    finally:
        service[2].gate.set()
    await asyncio.sleep(0.05)
    assert not (await ask(service, "hanging", "harbour", mode=SearchMode.HYBRID)).degraded


async def test_vectors_may_come_with_words(store: Shelf, service: Service) -> None:
    await made(service, store, "both", *docs("harbour dues", "wheat mill", "ship"))
    request = c.GetVectorsRequest("both", ("[3]",))
    vector = (await service[0].get_vectors(ADA, request)).vectors[0].vector
    calls = dict(service[2].texts)
    query = c.VectorQuery("mill", vector)
    found = await service[0].search(
        ADA, c.SearchRequest("both", (query,), 3, mode=SearchMode.HYBRID)
    )
    assert dict(service[2].texts) == calls
    stages = {hit.key: hit.stages[0] for hit in found.results[0].hits}
    assert (stages["[3]"].stage, stages["[3]"].rank) == (Stage.VECTOR, 1)
    assert len(found.results[0].hits) == 3
    for mode, bad in (
        (SearchMode.TEXT, c.VectorQuery(vector=vector)),
        (SearchMode.HYBRID, c.VectorQuery(vector=vector)),
        (SearchMode.TEXT, query),
        (SearchMode.VECTOR, query),
    ):
        with pytest.raises(LakehouseError) as caught:
            await service[0].search(ADA, c.SearchRequest("both", (bad,), mode=mode))
        assert caught.value.kind is ErrorKind.INVALID


async def test_reranks_order_the_best_candidates_anew(store: Shelf, service: Service) -> None:
    rows = docs(
        "mill mill mill mill wheat",
        "The ship leaves. Wheat for the mill. The tide rises.",
        "mill",
        "wheat salt rope quay mill",
    )
    await made(service, store, "anew", *rows)
    by_vector = await keys(service, "anew", "mill wheat", filter="true")
    found = await ask(service, "anew", "mill wheat", mode=SearchMode.TEXT, rerank=Rerank.VECTORS)
    hits = found.results[0].hits
    assert [hit.key for hit in hits] == by_vector
    assert all(hit.score == hit.stages[-1].score for hit in hits)
    assert [hit.stages[0].stage for hit in hits] == [Stage.TEXT] * 4
    best = await ask(service, "anew", "mill wheat", mode=SearchMode.TEXT, rerank=Rerank.SENTENCES)
    embedder = HashingEmbedder()

    def near(text: str) -> float:
        one, other = (embedder._vector("all-minilm", each) for each in (text, "mill wheat"))
        return float(np.dot(one, other))

    cut = [["mill mill mill mill wheat"], ["The ship leaves.", "Wheat for the mill."], ["mill"]]
    wanted = [max(near(each) for each in some) for some in cut]
    scores = {hit.key: hit.score for hit in best.results[0].hits}
    assert [scores["[1]"], scores["[2]"], scores["[3]"]] == pytest.approx(wanted, abs=1e-5)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    few = await ask(service, "anew", "mill", k=2, mode=SearchMode.TEXT, rerank=Rerank.VECTORS)
    assert len(few.results[0].hits) == 2


async def test_several_indexes_are_fused_by_rank(store: Shelf, service: Service) -> None:
    await made(service, store, "ports", *docs("harbour dues", "quay rope"))
    await store.put("grains", docs("wheat mill", "harbour mill"))
    await service[0].create_index(ADA, c.CreateIndexRequest("grains", "grains", ("text",)))
    await built(service[0], "grains")
    for mode in SearchMode:
        found = await ask(service, "ports", "harbour", mode=mode, also=("grains",), filter="id < 2")
        hits = found.results[0].hits
        assert {(hit.index, hit.key) for hit in hits[:2]} == {("ports", "[1]"), ("grains", "[2]")}
        assert ("ports", "[2]") not in {(hit.index, hit.key) for hit in hits}
        assert all(hit.stages[-1].stage is Stage.FUSION for hit in hits)
        count = 2 if mode is SearchMode.TEXT else 3
        assert len(hits) == count
    assert found.index == "ports"
    with pytest.raises(LakehouseError, match="named twice"):
        await ask(service, "ports", "harbour", also=("PORTS",))
    with pytest.raises(LakehouseError) as caught:
        await ask(service, "ports", "harbour", also=("nowhere",), mode=SearchMode.TEXT)
    assert caught.value.kind is ErrorKind.NOT_FOUND


async def test_as_of_searches_what_was_there(store: Shelf, service: Service) -> None:
    first = await store.put("then", docs("harbour dues", "wheat mill"))
    await service[0].create_index(ADA, c.CreateIndexRequest("then", "then", ("text",)))
    await built(service[0], "then")
    before = (await service[0].get_index(ADA, c.IndexRequest("then"))).version
    was = {mode: await ask(service, "then", "harbour", mode=mode) for mode in SearchMode}
    gone = await store.delete("then", {"id": 1})
    await store.upsert("then", {"id": 5, "text": "harbour harbour"}, {"id": 2, "text": "harbour"})
    await built(service[0], "then")
    for mode in SearchMode:
        found = await ask(service, "then", "harbour", mode=mode, as_of=AsOf(version=before))
        assert [hit.key for hit in found.results[0].hits] == [
            hit.key for hit in was[mode].results[0].hits
        ]
        assert [hit.text for hit in found.results[0].hits] == [
            hit.text for hit in was[mode].results[0].hits
        ]
        assert (found.version, found.behind) == (before, False)
        now = [
            hit.key for hit in (await ask(service, "then", "harbour", mode=mode)).results[0].hits
        ]
        assert set(now) == {"[2]", "[5]"}
    # The row was deleted, and the index had not heard of it: it is no hit all the same.
    late = await ask(service, "then", "harbour", as_of=AsOf(version=gone))
    assert [hit.key for hit in late.results[0].hits] == ["[2]"]
    assert (late.behind, late.version) == (True, gone)
    where = await keys(service, "then", "mill", filter="id = 1", as_of=AsOf(version=before))
    assert where == ["[1]"]
    with pytest.raises(LakehouseError, match="not there yet") as caught:
        await ask(service, "then", "harbour", as_of=AsOf(version=first))
    assert caught.value.kind is ErrorKind.NOT_FOUND
    assert caught.value.fields["since"]
    with pytest.raises(LakehouseError, match="no such version yet"):
        await ask(service, "then", "harbour", as_of=AsOf(version=gone + 1_000))


async def test_a_half_built_index_answers_from_what_is_there(
    store: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with store.vectors(batch_documents=4, fresh_seconds=0.05) as service:
        await store.put("half", docs(*[f"harbour dues {at}" for at in range(12)]))
        await service[0].create_index(
            ADA, c.CreateIndexRequest("half", "half", ("text",), build=False)
        )
        calls = service[2]
        embed = calls.embed

        async def two_batches(*given: Any) -> Any:
            if given[2] == "index" and calls.calls[given[2]] >= 2:
                raise LakehouseError(ErrorKind.INVALID, "no more")
            return await embed(*given)

        monkeypatch.setattr(calls, "embed", two_batches)
        await service[0].build(ADA, c.BuildRequest("half", wait_seconds=30))
        for mode in (SearchMode.TEXT, SearchMode.HYBRID):
            found = await ask(service, "half", "harbour", k=50, mode=mode)
            assert 0 < len(found.results[0].hits) < 12


async def test_an_index_that_cannot_catch_up_is_not_waited_for_again(store: Shelf) -> None:
    async with store.vectors(fresh_seconds=0.6) as service:
        await made(service, store, "stuck", *docs("harbour dues", "wheat mill"))
        service[2].fail()
        await store.upsert("stuck", {"id": 7, "text": "harbour"})
        began = store.clock.monotonic()
        assert (await ask(service, "stuck", "harbour", mode=SearchMode.TEXT)).behind
        first = store.clock.monotonic()
        for _ in range(5):
            assert (await ask(service, "stuck", "harbour", mode=SearchMode.HYBRID)).behind
        assert first - began >= 0.6
        assert store.clock.monotonic() - first < 5 * 0.6
        service[2].recover()
        await built(service[0], "stuck")
        found = await ask(service, "stuck", "harbour", mode=SearchMode.TEXT)
        assert (found.behind, len(found.results[0].hits)) == (False, 2)


async def test_answers_are_handed_over_to_be_remembered(
    store: Shelf, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(service, store, "told", *docs("harbour dues", "wheat mill"))
    records = noted(service, monkeypatch)
    kept: list[Searched] = []

    async def keep(searched: list[Searched]) -> None:
        kept.extend(searched)

    monkeypatch.setattr(service[0].recorder, "keep", keep)
    for mode in SearchMode:
        found = await ask(service, "told", "mill", "dues", mode=mode, purpose="rag")
        assert [one.retrieval_id for one in found.results] == [one.id for one in records[-2:]]
        assert len({one.id for one in records}) == len(records)
        for place, one in enumerate(records[-2:]):
            assert (one.place, one.result, one.hits) == (place, found, found.results[place])
            assert one.request.purpose == "rag"
            assert (one.indexes[0].index, one.indexes[0].dataset) == ("told", "told")
            assert one.indexes[0].served_by == found.served_by
            assert len(one.vector) == (0 if mode is SearchMode.TEXT else 128)
    records.clear()
    durable = await ask(service, "told", "mill", record=RecordClass.DURABLE)
    assert ([one.id for one in kept], records) == ([durable.results[0].retrieval_id], [])
    for mode in SearchMode:
        silent = await ask(service, "told", "mill", mode=mode, record=RecordClass.NONE)
        assert silent.results[0].retrieval_id == ""
    assert (len(kept), records) == (1, [])


async def test_a_query_of_100_kb_is_answered(store: Shelf, service: Service) -> None:
    await made(service, store, "long", *docs("harbour dues", "wheat mill", "ship"))
    query = " ".join(f"word{at}" for at in range(12_000)) + " mill "
    assert len(query) > 100_000
    for mode in (SearchMode.TEXT, SearchMode.HYBRID):
        found = await asyncio.wait_for(ask(service, "long", query, mode=mode), 20.0)
        assert found.results[0].hits[0].key == "[2]"


async def test_64_at_once(store: Shelf, service: Service) -> None:
    rows = sentences(80, 21)
    await made(service, store, "crowd", *rows)
    chance = random.Random(3)
    asked = [
        (
            " ".join(chance.sample(WORDS, 2)),
            list(SearchMode)[at % 3],
            chance.choice(["", "id < 40"]),
        )
        for at in range(64)
    ]

    async def one(text: str, mode: SearchMode, where: str) -> list[tuple[str, float]]:
        found = await ask(service, "crowd", text, mode=mode, filter=where)
        return [(hit.key, hit.score) for hit in found.results[0].hits]

    together = await asyncio.gather(*[one(*each) for each in asked])
    assert together == [await one(*each) for each in asked]
    assert service[0]._retrieving._lexical.built == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"candidates": -1},
        {"candidates": c.CANDIDATES_MAX + 1},
        {"rerank_max": c.RERANKED_MAX + 1},
        {"rerank": Rerank.VECTORS, "k": c.RERANKED_MAX + 1},
        {"also": tuple(f"i{at}" for at in range(c.ALSO_MAX + 1))},
        {"purpose": "two words"},
        {"k": 0},
        {"texts": ["x"] * 21, "candidates": c.CANDIDATES_MAX},
        {"texts": ["x"] * 11, "candidates": c.CANDIDATES_MAX, "also": ("other",)},
        {"texts": ["x"] * 21, "rerank": Rerank.SENTENCES},
        {"texts": ["half a \ud83d letter"]},
        {"texts": ["  "]},
    ],
    ids=[
        "fewer candidates than none",
        "too many candidates",
        "too many reranked",
        "too many hits to rerank",
        "too many indexes",
        "purpose",
        "k",
        "too many candidates of all queries",
        "too many candidates of all indexes",
        "too many queries to rerank",
        "no unicode",
        "blank",
    ],
)
async def test_what_cannot_be_is_refused(service: Service, fields: dict[str, Any]) -> None:
    fields = dict(fields)
    texts = fields.pop("texts", ["harbour"])
    with pytest.raises(LakehouseError) as caught:
        await ask(service, "any", *texts, **{"mode": SearchMode.HYBRID, **fields})
    assert caught.value.kind is ErrorKind.INVALID


async def test_who_reads_may_search_by_words(store: Shelf, service: Service) -> None:
    await made(service, store, "read", *docs("harbour dues"))
    request = c.SearchRequest("read", (c.VectorQuery("dues"),), mode=SearchMode.TEXT)
    assert (await service[0].search(READER, request)).results[0].hits[0].stages == ()


@pytest.mark.parametrize("backend", VectorBackend)
async def test_random_changes_against_a_model(
    store: Shelf, service: Service, backend: VectorBackend
) -> None:
    name, chance = f"mixed_{backend}", random.Random(f"{backend} 3")
    profile = Profile(name, vector_backend=backend)
    await service[1].put(ADA, PutProfileRequest(profile))
    rows = {row["id"]: row for row in sentences(60, 17)}
    await store.put(name, list(rows.values()))
    await service[0].create_index(ADA, c.CreateIndexRequest(name, name, ("text",), profile=name))
    await built(service[0], name)
    for _ in range(4):
        new = [
            {"id": chance.randrange(90), "text": " ".join(chance.choices(WORDS, k=3)), "year": 2005}
            for _ in range(chance.choice([0, 1, 20]))
        ]
        new = list({row["id"]: row for row in new}.values())
        gone = chance.sample(sorted(rows), min(len(rows), chance.choice([0, 1, 15])))
        gone = [each for each in gone if each not in {row["id"] for row in new}]
        if new:
            await store.upsert(name, *new)
        if gone:
            await store.delete(name, *[{"id": each} for each in gone])
        rows |= {row["id"]: row for row in new}
        for each in gone:
            del rows[each]
        await built(service[0], name)
        where, holds = chance.choice(
            [
                ("", lambda row: True),
                ("year = 2005", lambda row: row["year"] == 2005),
                ("id < 5", lambda row: row["id"] < 5),
                ("id = -1", lambda row: False),
            ]
        )
        query = chance.sample(WORDS, 2)
        allowed = {f"[{row['id']}]" for row in rows.values() if holds(row)}
        worded = {
            f"[{row['id']}]"
            for row in rows.values()
            if holds(row) and set(query) & set(row["text"].split())
        }
        for mode, matches in ((SearchMode.TEXT, worded), (SearchMode.HYBRID, allowed)):
            for k in (4, 1_000):
                found = await keys(service, name, " ".join(query), k=k, mode=mode, filter=where)
                assert len(found) == len(set(found)) == min(k, len(matches))
                assert set(found) <= matches
