"""The routes of retrievals and trials: what they ask the contracts for, what they answer."""

from __future__ import annotations

import base64
import dataclasses
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from lakehouse.contracts import retrievals as t
from lakehouse.contracts import trials as e
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.gateway.retrieval_shapes import AskedShape
from lakehouse.model.retrieval import Retrieval, SearchMode
from unit.gateway.fakes import VERSION, World
from unit.gateway.recording import AT
from unit.gateway.retrieval_fakes import STAGES, TEXT, VECTOR, retrieval, trial

ONE = "/retrievals/R7"
SINCE = datetime(2026, 11, 1, tzinfo=UTC)
WHEN = "since=2026-11-01T00:00:00Z"

READS: list[tuple[str, str, str, Any]] = [
    (ONE, "retrievals", "get", t.RetrievalRequest("R7")),
    (f"{ONE}/explain", "retrievals", "explain", t.RetrievalRequest("R7")),
    (
        f"/retrievals?index=tickets&actor=ann&mode=hybrid&purpose=rag&{WHEN}&limit=5&cursor=x",
        "retrievals",
        "list",
        t.ListRetrievalsRequest("tickets", "ann", "hybrid", "rag", SINCE, None, 5, "x"),
    ),
    ("/retrievals", "retrievals", "list", t.ListRetrievalsRequest()),
    ("/vectors/evals", "trials", "list_evals", e.ListEvalsRequest()),
    (
        "/vectors/evals?index=i&limit=1&cursor=c",
        "trials",
        "list_evals",
        e.ListEvalsRequest("i", 1, "c"),
    ),
    ("/vectors/evals/roofs", "trials", "get_eval", e.EvalRequest("roofs")),
    ("/hnsw/runs/run-1", "trials", "get_run", e.RunRequest("run-1")),
    (
        f"/hnsw/trials?index=i&run=r&kind=mode&{WHEN}&limit=9&cursor=c",
        "trials",
        "trials",
        e.TrialsRequest("i", "r", "mode", SINCE, None, 9, "c"),
    ),
]


@pytest.mark.parametrize(("path", "noun", "method", "expected"), READS)
async def test_what_is_asked_for(path: str, noun: str, method: str, expected: object) -> None:
    world = World()
    async with world.client("read") as client:
        answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    assert getattr(world, noun).last(method)[1] == expected
    assert answer.headers["lakehouse-version"] == str(VERSION)


CHANGES: list[tuple[str, str, Any, str, str, Any]] = [
    ("POST", f"{ONE}/pin", None, "retrievals", "pin", t.PinRequest("R7")),
    ("POST", f"{ONE}/pin", {"note": "n"}, "retrievals", "pin", t.PinRequest("R7", note="n")),
    ("DELETE", f"{ONE}/pin", None, "retrievals", "pin", t.PinRequest("R7", remove=True)),
    (
        "POST",
        "/vectors/evals",
        {"name": "s", "index": "i", "samples": 20, "seed": 3, "description": "d"},
        "trials",
        "put_eval",
        e.PutEvalRequest("s", "i", (), 20, 3, "d"),
    ),
    (
        "POST",
        "/vectors/evals",
        {
            "name": "s",
            "index": "i",
            "queries": [
                {"text": "a", "relevant": [[7], "face"], "grades": [2, 1]},
                {"vector": [0.5, -1, 0.25]},
            ],
        },
        "trials",
        "put_eval",
        e.PutEvalRequest(
            "s", "i", (e.EvalQuery("a", b"", ("[7]", "face"), (2, 1)), e.EvalQuery("", VECTOR))
        ),
    ),
    ("DELETE", "/vectors/evals/s", None, "trials", "delete_eval", e.DeleteEvalRequest("s")),
    ("POST", "/vectors/evals/s/run", None, "trials", "evaluate", e.EvaluateRequest("s")),
    (
        "POST",
        "/vectors/evals/s/run",
        {"modes": ["text", "hybrid"], "number": 2, "k": 5},
        "trials",
        "evaluate",
        e.EvaluateRequest("s", (SearchMode.TEXT, SearchMode.HYBRID), 2, 5),
    ),
    ("POST", "/hnsw/autotune", {"index": "i"}, "trials", "autotune", e.AutotuneRequest("i")),
    (
        "POST",
        "/hnsw/autotune",
        {
            "index": "i",
            "number": 2,
            "eval_set": "s",
            "samples": 9,
            "k": 5,
            "recall": 0.9,
            "m": [8, 16],
            "ef_construction": [50],
            "ef": [10, 20],
            "rows_max": 1000,
            "budget_seconds": 5,
            "exhaustive": True,
            "wait_seconds": 1.5,
        },
        "trials",
        "autotune",
        e.AutotuneRequest("i", 2, "s", 9, 5, 0.9, (8, 16), (50,), (10, 20), 1000, 5, True, 1.5),
    ),
    ("POST", "/hnsw/trials/T1/promote", None, "trials", "promote", e.PromoteRequest("T1")),
    (
        "POST",
        "/hnsw/trials/T1/promote",
        {"number": 3},
        "trials",
        "promote",
        e.PromoteRequest("T1", 3),
    ),
]


@pytest.mark.parametrize(("method", "path", "body", "noun", "call", "expected"), CHANGES)
async def test_changes(
    method: str, path: str, body: Any, noun: str, call: str, expected: object
) -> None:
    world = World()
    async with world.client("write") as client:
        answer = await client.request(method, path, json=body, headers={"Idempotency-Key": "k1"})
        assert answer.status_code in (200, 201), answer.text
        ctx, asked = getattr(world, noun).last(call)
        assert (asked, ctx.idempotency_key) == (expected, "k1")
    async with world.client("read") as client:
        assert (await client.request(method, path, json=body)).status_code == 403


REFUSED: list[tuple[str, Any, str]] = [
    ("/vectors/evals", {"name": "s", "index": "i"}, "either queries or how many"),
    (
        "/vectors/evals",
        {"name": "s", "index": "i", "samples": 1, "queries": [{"text": "a"}]},
        "either queries or how many",
    ),
    ("/vectors/evals", {"name": "s", "index": "i", "queries": [{}]}, "either a text or a vector"),
    (
        "/vectors/evals",
        {
            "name": "s",
            "index": "i",
            "queries": [{"text": "a", "relevant": [[1]], "grades": [1, 2]}],
        },
        "as many grades",
    ),
    ("/vectors/evals", {"name": "s", "index": "i", "samples": 2001}, "body.samples"),
    ("/vectors/evals/s/run", {"modes": ["words"]}, "body.modes.0"),
    ("/vectors/evals/s/run", {"k": 0}, "body.k"),
    ("/hnsw/autotune", {}, "body.index"),
    ("/hnsw/autotune", {"index": "i", "recall": 0}, "body.recall"),
    ("/hnsw/autotune", {"index": "i", "recall": 1.01}, "body.recall"),
    ("/hnsw/autotune", {"index": "i", "m": [0]}, "body.m.0"),
    ("/hnsw/autotune", {"index": "i", "budget_seconds": 3601}, "body.budget_seconds"),
    ("/hnsw/autotune", {"index": "i", "recal": 0.9}, "body.recal"),
    ("/hnsw/trials/T1/promote", {"number": -1}, "body.number"),
    (f"{ONE}/pin", {"remove": True}, "body.remove"),
]


@pytest.mark.parametrize(("path", "body", "words"), REFUSED)
async def test_bodies_that_are_none(path: str, body: Any, words: str) -> None:
    world = World()
    async with world.client() as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["detail"]
    assert world.retrievals.calls == world.trials.calls == []


async def test_a_misspelled_field_is_named_right() -> None:
    async with World().client() as client:
        answer = await client.post("/hnsw/autotune", json={"index": "i", "budget": 30})
        other = await client.get("/retrievals?indx=a")
        mode = await client.get("/retrievals?mode=words")
        kind = await client.get("/hnsw/trials?kind=graph")
    assert answer.json()["hint"] == "did you mean budget_seconds"
    assert (other.status_code, other.json()["hint"]) == (400, "did you mean index")
    assert (mode.status_code, "hybrid" in mode.json()["detail"]) == (400, True)
    assert (kind.status_code, "'hnsw' or 'mode'" in kind.json()["detail"]) == (400, True)


async def test_a_retrieval_is_told_as_it_was() -> None:
    async with World().client() as client:
        told = (await client.get(ONE)).json()
    assert base64.b64decode(told["vector"]) == VECTOR
    assert [one["key"] for one in told["hits"]] == [[7], "face-1"]
    assert told["hits"][0]["stages"] == [
        {"stage": one.stage.value, "rank": one.rank, "score": one.score} for one in STAGES
    ]
    assert (told["hits"][1]["rank"], told["hits"][0]["span"]) == (2, [3, 8])
    assert (told["version"], told["store_version"], told["kept"]) == (800, VERSION, "log")
    assert told["indexes"][0]["served_by"] == "hnsw+bm25"
    assert (told["at"], told["digest"]) == ("2026-11-21T09:30:00Z", "cd" * 32)


def test_nothing_of_a_retrieval_is_left_out() -> None:
    told = {field.name for field in dataclasses.fields(AskedShape)}
    assert {field.name for field in dataclasses.fields(Retrieval)} == told | {"hits"}


async def test_a_list_has_the_best_of_each() -> None:
    world = World()
    empty = dataclasses.replace(retrieval("R8", "x" * 9000), hits=(), vector=b"")
    world.retrievals.one = empty
    async with world.client() as client:
        bare = (await client.get("/retrievals")).json()
        world.retrievals.one = retrieval()
        told = (await client.get("/retrievals")).json()
        alone = (await client.get(ONE)).json()
    assert (bare["retrievals"][0]["top"], bare["retrievals"][0]["hits_total"]) == (None, 0)
    assert len(bare["retrievals"][0]["text"]) == 500
    assert told["retrievals"][0]["top"] == alone["hits"][0]
    assert (told["dropped"], told["unreadable"], told["next"]) == (3, 1, "more")
    assert "vector" not in told["retrievals"][0]


async def test_a_replay() -> None:
    world = World()
    async with world.client("read") as client:
        told = (await client.post(f"{ONE}/replay")).json()
    assert (told["id"], told["same"], told["texts_missing"]) == ("R7", False, 1)
    assert [one["text"] for one in told["hits"]] == [TEXT, None]
    assert [(one["text_from"], one["row"]) for one in told["hits"]] == [
        ("vectors", "changed"),
        ("gone", "deleted"),
    ]
    assert told["hits"][0]["key"] == [7]
    assert told["retrieval"]["text"] == "who repairs <i>roofs</i>"
    assert told["digest"] == told["retrieval"]["digest"] == "cd" * 32


async def test_a_retrieval_that_is_none() -> None:
    world = World()
    error = LakehouseError(ErrorKind.NOT_FOUND, "there is no such retrieval", hint="dropped")
    for method in ("get", "replay", "explain", "pin"):
        world.retrievals.failing[method] = error
    async with world.client() as client:
        answers = [
            await client.request(method, path)
            for method, path in (
                ("GET", ONE),
                ("POST", f"{ONE}/replay"),
                ("GET", f"{ONE}/explain"),
                ("GET", f"{ONE}/explain?format=html"),
                ("POST", f"{ONE}/pin"),
                ("DELETE", f"{ONE}/pin"),
            )
        ]
    assert {one.status_code for one in answers} == {404}
    assert {one.json()["hint"] for one in answers} == {"dropped"}


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "br", "!doctype"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def looked_at(answer: Any) -> Page:
    """The page, which loads nothing, runs nothing and is well nested."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    page = Page(answer.text)
    assert page.open == []
    assert page.links == []
    assert page.tags.isdisjoint({"script", "img", "iframe", "link", "object", "form", "i", "b2"})
    assert not [name for name in page.attributes if name.startswith("on")]
    assert not re.findall(r"url\(|@import", answer.text)
    return page


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        (f"{ONE}/explain?format=html", None),
        (f"{ONE}/explain", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ],
)
async def test_an_explanation_for_people(path: str, accept: str | None) -> None:
    async with World().client() as client:
        answer = await client.get(path, headers={"Accept": accept} if accept else {})
    page = looked_at(answer)
    for words in ("R7", "who repairs <i>roofs</i>", TEXT, "searched <tickets>", "face-1"):
        assert words in page.text
    for words in ("cannot be read any more", "4.25", "status = 'open'", "2 hits", "cd" * 32):
        assert words in page.text
    assert answer.headers["lakehouse-version"] == str(VERSION)
    assert answer.headers["vary"] == "Accept"


async def test_an_explanation_of_what_went_wrong_and_found_nothing() -> None:
    world = World()
    world.retrievals.one = dataclasses.replace(
        retrieval("R8", "<script>alert(1)</script>" + "\ud800" + "long " * 1000),
        degraded=True,
        degraded_reason="<model> away",
    )

    async def nothing(ctx: object, request: object) -> t.Explanation:
        return t.Explanation(world.retrievals.one, (), (), VERSION)

    world.retrievals.explain = nothing  # type: ignore[method-assign]
    async with world.client() as client:
        page = looked_at(await client.get("/retrievals/R8/explain?format=html"))
    for words in ("Degraded", "<model> away", "Nothing was found", "0 hits", "<script>alert(1)"):
        assert words in page.text
    assert "…" in page.text


async def test_an_explanation_of_ten_thousand_hits_stays_a_page() -> None:
    world = World()
    reason = t.HitReason(1, "[7]", 0, 0.5, ("vector",), "", "x" * 1000, STAGES)

    async def many(ctx: object, request: object) -> t.Explanation:
        hits = tuple(dataclasses.replace(reason, rank=rank) for rank in range(1, 10_001))
        return t.Explanation(world.retrievals.one, (), hits, VERSION)

    world.retrievals.explain = many  # type: ignore[method-assign]
    async with world.client() as client:
        answer = await client.get(f"{ONE}/explain?format=html")
    assert "9,800 more" in looked_at(answer).text
    assert len(answer.content) < 1_000_000


async def test_an_explanation_as_json() -> None:
    async with World().client() as client:
        told = (await client.get(f"{ONE}/explain")).json()
        stated = await client.get(f"{ONE}/explain?format=json", headers={"Accept": "text/html"})
        neither = await client.get(f"{ONE}/explain", headers={"Accept": "image/png"})
        wrong = await client.get(f"{ONE}/explain?format=pdf")
    assert told == stated.json()
    assert told["steps"] == ["searched <tickets>", "fused"]
    assert [one["key"] for one in told["hits"]] == [[7], "face-1"]
    assert told["hits"][0]["brought_by"] == ["vector", "text"]
    assert (neither.status_code, wrong.status_code) == (406, 400)


async def test_eval_sets_and_runs() -> None:
    world = World()
    async with world.client() as client:
        one = (await client.get("/vectors/evals/roofs")).json()
        listed = (await client.get("/vectors/evals")).json()
        body = {"name": "s", "index": "i", "samples": 5}
        made = await client.post("/vectors/evals", json=body)
        world.trials.created = False
        again = await client.post("/vectors/evals", json=body)
        world.trials.looks = 1
        running = await client.post("/hnsw/autotune", json={"index": "i"})
        done = await client.get("/hnsw/runs/run-1")
        promoted = await client.post("/hnsw/trials/T1/promote")
        world.trials.building = True
        building = await client.post("/hnsw/trials/T1/promote")
    assert one["queries"][0] == {
        "text": "who repairs roofs",
        "vector": None,
        "relevant": [[7], "face-1"],
        "grades": [2.0, 1.0],
    }
    assert base64.b64decode(one["queries"][1]["vector"]) == VECTOR
    assert (one["version"], one["store_version"]) == (800, VERSION)
    assert (listed["evals"][0]["queries"], listed["next"]) == (2, "more")
    assert (made.status_code, again.status_code) == (201, 200)
    assert (running.status_code, running.json()["state"]) == (202, "running")
    assert (done.status_code, done.json()["chosen"]["id"]) == (200, "T2")
    assert (promoted.status_code, building.status_code) == (200, 202)
    assert promoted.json()["name"] == "tickets"


async def test_trials_as_json() -> None:
    async with World().client() as client:
        told = (await client.get("/hnsw/trials")).json()
    assert [one["id"] for one in told["trials"]] == ["T2", "T1"]
    assert (told["trials"][0]["recall"], told["trials"][0]["ndcg"]) == (1.0, None)
    assert told["trials"][0]["at"] == AT.isoformat().replace("+00:00", "Z")
    assert (told["next"], told["dropped"], told["unreadable"]) == ("more", 2, 1)


async def test_trials_for_people() -> None:
    world = World()
    async with world.client() as client:
        answer = await client.get("/hnsw/trials", headers={"Accept": "text/html"})
    page = looked_at(answer)
    assert "svg" in page.tags
    for words in ("M 16, ef_construction 100, ef 128, chosen", "<script>alert(1)", "cursor=more"):
        assert words in page.text
    assert "Recall against latency" in page.text


async def test_trials_of_modes_and_none_at_all_for_people() -> None:
    world = World()
    mode = dataclasses.replace(
        trial("T3"), kind="mode", mode=SearchMode.HYBRID, recall=None, ndcg=0.75, mrr=0.5
    )
    answers = [e.TrialsResult((mode,), VERSION), e.TrialsResult((), VERSION)]

    async def trials(ctx: object, request: object) -> e.TrialsResult:
        return answers.pop(0)

    world.trials.trials = trials  # type: ignore[method-assign]
    async with world.client() as client:
        modes = looked_at(await client.get("/hnsw/trials?format=html"))
        none = looked_at(await client.get("/hnsw/trials?format=html"))
    for words in ("mode hybrid", "0.7500", "nDCG against latency"):
        assert words in modes.text
    assert "Nothing was tried yet" in none.text
