"""``lakehouse retrievals``, ``rag``, ``memory`` and the tuning of vectors: what they ask, show and
write."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lakehouse.cli.calls import Invocation
from lakehouse.cli.commands import vectors_tuning as tuning
from lakehouse.cli.main import cli
from lakehouse.contracts import memory as m
from lakehouse.contracts import rag as g
from lakehouse.contracts import retrievals as t
from lakehouse.contracts import trials as e
from lakehouse.contracts import vectors as v
from lakehouse.contracts.as_of import AsOf
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model import retrieval as r
from unit.gateway.retrieval_fakes import (
    STAGES,
    TEXT,
    FakeMemory,
    FakeRag,
    FakeRetrievals,
    FakeTrials,
    retrieval,
    trial,
)
from unit.gateway.vector_fakes import FakeVectors, hit


@dataclasses.dataclass
class Clients:
    vectors: FakeVectors = dataclasses.field(default_factory=FakeVectors)
    retrievals: FakeRetrievals = dataclasses.field(default_factory=FakeRetrievals)
    trials: FakeTrials = dataclasses.field(default_factory=FakeTrials)
    rag: FakeRag = dataclasses.field(default_factory=FakeRag)
    memory: FakeMemory = dataclasses.field(default_factory=FakeMemory)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Clients:
    clients = Clients()

    @asynccontextmanager
    async def connected(invocation: Invocation) -> AsyncIterator[Clients]:
        yield clients

    monkeypatch.setattr(Invocation, "clients", connected)
    monkeypatch.setattr(tuning, "_LOOK_SECONDS", 0.0)
    return clients


def run(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(cli, arguments, input=given)


def shown(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exception is None, (arguments, result.exception)
    return result.stdout


def refused(*arguments: str) -> LakehouseError:
    error = run(*arguments).exception
    assert isinstance(error, LakehouseError), (arguments, error)
    return error


def words(text: str) -> tuple[str, ...]:
    return tuple(shlex.split(text))


SINCE = datetime(2026, 11, 1, tzinfo=UTC)
TIME = "2026-11-01T00:00:00Z"
CALLS: list[tuple[tuple[str, ...], str, str, Any]] = [
    (("retrievals", "show", "R7"), "retrievals", "get", t.RetrievalRequest("R7")),
    (("retrievals", "replay", "R7"), "retrievals", "replay", t.RetrievalRequest("R7")),
    (("retrievals", "explain", "R7"), "retrievals", "explain", t.RetrievalRequest("R7")),
    (("retrievals", "pin", "R7"), "retrievals", "pin", t.PinRequest("R7")),
    (
        ("retrievals", "pin", "R7", "--remove", "--note", "n"),
        "retrievals",
        "pin",
        t.PinRequest("R7", True, "n"),
    ),
    (
        words(
            f"retrievals list --index i --actor a --mode text --purpose rag --since {TIME}"
            " --limit 3 --cursor c"
        ),
        "retrievals",
        "list",
        t.ListRetrievalsRequest("i", "a", "text", "rag", SINCE, None, 3, "c"),
    ),
    (
        ("vectors", "evals", "put", "s", "i", "--samples", "9", "--seed", "2"),
        "trials",
        "put_eval",
        e.PutEvalRequest("s", "i", (), 9, 2),
    ),
    (("vectors", "evals", "list", "--index", "i"), "trials", "list_evals", e.ListEvalsRequest("i")),
    (("vectors", "evals", "show", "s"), "trials", "get_eval", e.EvalRequest("s")),
    (("vectors", "evals", "delete", "s"), "trials", "delete_eval", e.DeleteEvalRequest("s")),
    (
        ("vectors", "evals", "run", "s", "--mode", "text", "--mode", "hybrid", "-k", "5"),
        "trials",
        "evaluate",
        e.EvaluateRequest("s", (r.SearchMode.TEXT, r.SearchMode.HYBRID), 0, 5),
    ),
    (("vectors", "autotune", "i"), "trials", "autotune", e.AutotuneRequest("i")),
    (
        words(
            "vectors autotune i --recall 0.9 -k 5 --budget 7 --m 8 --m 16 --ef-construction 50"
            " --ef 20 --exhaustive --no-wait"
        ),
        "trials",
        "autotune",
        e.AutotuneRequest(
            "i",
            k=5,
            recall=0.9,
            m=(8, 16),
            ef_construction=(50,),
            ef=(20,),
            budget_seconds=7.0,
            exhaustive=True,
        ),
    ),
    (
        ("vectors", "trials", "--index", "i", "--kind", "mode", "--since", TIME, "--limit", "3"),
        "trials",
        "trials",
        e.TrialsRequest("i", "", "mode", SINCE, None, 3),
    ),
    (("vectors", "promote", "T1", "--number", "2"), "trials", "promote", e.PromoteRequest("T1", 2)),
    (("rag", "tickets", "why?"), "rag", "answer", g.AnswerRequest("tickets", "why?")),
    (
        words(
            "rag tickets why? -k 3 --mode text --filter 'a = 1' --also b --as-of 700 --model x"
            " --instructions 'be brief' --tokens-max 9 --temperature 0 --record none"
        ),
        "rag",
        "answer",
        g.AnswerRequest(
            "tickets",
            "why?",
            3,
            r.SearchMode.TEXT,
            "a = 1",
            also=("b",),
            as_of=AsOf(version=700),
            model="x",
            instructions="be brief",
            tokens_max=9,
            temperature=0.0,
            record=r.RecordClass.NONE,
        ),
    ),
    (
        words(
            "memory remember support 'it leaks' 'and drips' --who ann --tag a --session s"
            f" --at {TIME}"
        ),
        "memory",
        "remember",
        m.RememberRequest(
            "support",
            (
                m.Turn("it leaks", "ann", "s", SINCE, ("a",)),
                m.Turn("and drips", "ann", "s", SINCE, ("a",)),
            ),
        ),
    ),
    (
        words(
            "memory recall support roof -k 3 --mode text --who ann --session s --tag a --tag b"
            f" --since {TIME} --also tickets"
        ),
        "memory",
        "recall",
        m.RecallRequest(
            "support",
            "roof",
            3,
            r.SearchMode.TEXT,
            "s",
            "ann",
            ("a", "b"),
            SINCE,
            also=("tickets",),
        ),
    ),
    (
        ("memory", "catch-up", "support", "--since", TIME, "--who", "ann", "--cursor", "c"),
        "memory",
        "catch_up",
        m.CatchUpRequest("support", SINCE, who="ann", cursor="c"),
    ),
    (("memory", "list", "--limit", "5"), "memory", "memories", m.MemoriesRequest(5)),
]


@pytest.mark.parametrize(("arguments", "noun", "method", "expected"), CALLS)
def test_what_is_asked_for(
    node: Clients, arguments: tuple[str, ...], noun: str, method: str, expected: object
) -> None:
    assert shown(*arguments).strip()
    assert getattr(node, noun).last(method)[1] == expected
    assert isinstance(json.loads(shown(*arguments, "--json")), dict)


def test_a_search_in_another_mode(node: Clients) -> None:
    found = dataclasses.replace(hit("[7]", 0.0325), stages=STAGES, index="posts")
    about = ("tickets", 1, "m", "parquet", "hnsw+bm25", 790, True, 812)
    node.vectors.answer = v.SearchResult(
        (v.Hits((found,), "R7"),), *about, degraded=True, degraded_reason="no model"
    )
    arguments = ("--mode", "hybrid", "--also", "posts", "--candidates", "50", "--rerank", "vectors")
    more = ("--rerank-max", "20", "--as-of", "tag:march", "--record", "durable")
    told = shown("search", "tickets", "a leak", *arguments, *more)
    assert node.vectors.last("search")[1] == v.SearchRequest(
        "tickets",
        (v.VectorQuery("a leak"),),
        mode=r.SearchMode.HYBRID,
        also=("posts",),
        candidates=50,
        rerank=r.Rerank.VECTORS,
        rerank_max=20,
        as_of=AsOf(tag="march"),
        record=r.RecordClass.DURABLE,
    )
    for told_of in (
        "vector 2 (0.61), text 1 (4.25)",
        "posts",
        "retrieval R7",
        "no model",
        "0.0325",
    ):
        assert told_of in told
    assert "retrieval_id" in shown("search", "tickets", "a", "--json")


def test_what_was_asked_and_answered(node: Clients) -> None:
    told = shown("retrievals", "show", "R7")
    for told_of in ("who repairs <i>roofs</i>", "hybrid", "status = 'open'", "face-1", "vector 2"):
        assert told_of in told
    listed = shown("retrievals", "list")
    for told_of in ("R7", "tickets", "3 retrievals came too fast", "--cursor more"):
        assert told_of in listed
    as_json = json.loads(shown("retrievals", "show", "R7", "--json"))
    assert as_json["retrieval"]["vector"] == "AAAAPwAAgL8AAIA+"


def test_a_replay_says_whether_it_is_the_same(node: Clients) -> None:
    told = shown("retrievals", "replay", "R7")
    for told_of in (TEXT, "changed", "gone", "deleted", "null", "1 text cannot be read any more"):
        assert told_of in told

    async def other(ctx: object, request: object) -> t.ReplayReport:
        return t.ReplayReport(retrieval(), (), "ef" * 32, False, 0, 812)

    async def same(ctx: object, request: object) -> t.ReplayReport:
        return t.ReplayReport(retrieval(), (), "cd" * 32, True, 0, 812)

    node.retrievals.replay = other  # type: ignore[method-assign]
    assert "not the same" in shown("retrievals", "replay", "R7")
    node.retrievals.replay = same  # type: ignore[method-assign]
    assert "the same, by digest cdcdcdcd" in shown("retrievals", "replay", "R7")


def test_an_explanation_and_its_page(node: Clients, tmp_path: Path) -> None:
    page = tmp_path / "why.html"
    told = shown("retrievals", "explain", "R7", "--html", str(page))
    for told_of in ("1. searched <tickets>", "both stages had it", "face-1", str(page)):
        assert told_of in told
    assert page.read_text().startswith("<!doctype html>")
    assert "&lt;tickets&gt;" in page.read_text()
    error = refused("retrievals", "explain", "R7", "--html", str(tmp_path / "no" / "why.html"))
    assert (error.kind, error.message) == (ErrorKind.INVALID, "the file cannot be written")


def test_eval_sets_from_files(node: Clients, tmp_path: Path) -> None:
    path = tmp_path / "queries.ndjson"
    path.write_text(
        '{"text": "a", "relevant": [7, ["x", 1], "[8]"], "grades": [3, 2, 1]}\n\n'
        '{"vector": [0.5, -1, 0.25]}\n'
    )
    shown("vectors", "evals", "put", "s", "i", str(path), "--description", "d")
    lines = node.trials.last("put_eval")[1].queries
    assert lines[0] == e.EvalQuery("a", b"", ("[7]", '["x",1]', "[8]"), (3.0, 2.0, 1.0))
    assert len(lines[1].vector) == 12
    path.write_text(json.dumps([{"text": "a"}, {"text": "b"}]))
    shown("vectors", "evals", "put", "s", "i", str(path))
    assert [one.text for one in node.trials.last("put_eval")[1].queries] == ["a", "b"]
    assert "(exact neighbours)" in shown("vectors", "evals", "show", "s")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"text": "a"}\n{', ""),
        ('{"txt": "a"}', "no field 'txt'"),
        ("7", "no object"),
        ("{}", "a text or a vector"),
        ('{"text": "a", "vector": [1]}', "a text or a vector"),
        ('{"text": 7}', "text must be a text"),
        ('{"vector": ["x"]}', "numbers"),
        ('{"text": "a", "grades": ["x"]}', "numbers"),
    ],
)
def test_eval_sets_that_are_none(node: Clients, tmp_path: Path, body: str, reason: str) -> None:
    path = tmp_path / "queries.json"
    path.write_text(body)
    error = refused("vectors", "evals", "put", "s", "i", str(path))
    assert error.kind is ErrorKind.INVALID
    assert reason in str(error.fields["reason"])
    assert node.trials.calls == []


def test_eval_sets_need_queries(node: Clients, tmp_path: Path) -> None:
    assert "--samples" in str(refused("vectors", "evals", "put", "s", "i").fields["hint"])
    absent = refused("vectors", "evals", "put", "s", "i", str(tmp_path / "absent"))
    assert absent.kind is ErrorKind.NOT_FOUND


def test_tuning_is_watched_to_its_end(node: Clients, tmp_path: Path) -> None:
    node.trials.looks = 3
    plot = tmp_path / "plot.svg"
    told = shown("vectors", "autotune", "i", "--plot", str(plot))
    for told_of in (
        "M 16, ef_construction 100, ef 128",
        "chosen",
        "promote T2",
        "21,873",
        "2 settings in 3.5",
    ):
        assert told_of in told
    names = [name for name, _, _ in node.trials.calls]
    assert names == ["autotune"] + ["get_run"] * 3
    assert plot.read_text().startswith("<svg")
    assert "ef 128: recall 1.0000" in plot.read_text()
    node.trials.looks, node.trials.calls = 3, []
    assert "run run-1 goes on" in shown("vectors", "autotune", "i", "--no-wait")
    assert len(node.trials.calls) == 1


def test_tuning_that_fails_and_tuning_that_is_taken(node: Clients) -> None:
    told = shown("vectors", "autotune", "i", "--promote")
    assert "i has it now" in told
    assert "promote T2" not in told
    assert node.trials.last("promote")[1] == e.PromoteRequest("T2")
    shown("vectors", "evals", "run", "s")
    exact = dataclasses.replace(trial(), m=0, note="all are compared", chosen=True)
    mode = dataclasses.replace(trial(), kind="mode", mode=r.SearchMode.TEXT, ndcg=0.75)
    for chosen, told_of in ((exact, "all are compared"), (mode, "best: mode text (nDCG 0.7500)")):
        report = e.TrialsReport("run-1", "i", "done", (chosen,), 812, chosen, True)

        async def ended(ctx: object, request: object, report: Any = report) -> e.TrialsReport:
            return report

        node.trials.evaluate = ended  # type: ignore[method-assign]
        told = shown("vectors", "evals", "run", "s")
        assert told_of in told
        assert "promote" not in told
    node.trials.looks, node.trials.failed = 1, "no vectors"
    error = refused("vectors", "autotune", "i")
    assert (error.kind, error.fields["reason"]) == (ErrorKind.UNAVAILABLE, "no vectors")


def test_trials_and_their_picture(node: Clients, tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    told = shown("vectors", "trials", "--plot", str(plot))
    for told_of in ("T1", "T2", "ef 64", "0.9640", "35.9 MiB", "--cursor more"):
        assert told_of in told
    assert "<svg" in plot.read_text()


def test_an_answer_word_by_word(node: Clients) -> None:
    told = shown("rag", "tickets", "why?")
    assert told.startswith("It is the roof [1].\n")
    for told_of in (TEXT, "[1]", "it cites [9], which there is not", "retrieval R7", "qwen3:0.6b"):
        assert told_of in told
    assert "face-1" not in told
    as_json = json.loads(shown("rag", "tickets", "why?", "--json"))
    assert as_json["end"]["answer"] == "It is the roof [1]."
    assert [one["key"] for one in as_json["header"]["context"]] == ["[7]", "face-1"]
    assert node.rag.closed == 2


def test_an_answer_that_cites_nothing(node: Clients) -> None:
    async def parts() -> AsyncIterator[g.AnswerPart]:
        yield g.AnswerPart("I do not know")
        yield g.AnswerPart(end=g.AnswerEnd("I do not know", ()))

    node.rag._parts = parts  # type: ignore[method-assign]
    assert "it cites nothing of what was found" in shown("rag", "tickets", "why?")


def test_without_a_model_what_was_found_is_shown(node: Clients) -> None:
    context: Any = [{"number": 1, "key": "[7]", "text": TEXT, "start": 0, "end": 9, "version": 790}]
    node.rag.failing["answer"] = LakehouseError(
        ErrorKind.UNAVAILABLE, "no model answers", retrieval_id="R7", context=context
    )
    result = run("rag", "tickets", "why?")
    assert TEXT in result.stdout
    assert isinstance(result.exception, LakehouseError)
    assert result.exception.fields == {"retrieval_id": "R7"}
    error = refused("rag", "tickets", "why?", "--json")
    assert error.fields["context"] == context


def test_an_error_midway_ends_the_line(node: Clients) -> None:
    node.rag.midway = LakehouseError(ErrorKind.UNAVAILABLE, "the model went away")
    result = run("rag", "tickets", "why?")
    assert result.stdout == "It is the roof [1].\n"
    assert isinstance(result.exception, LakehouseError)


def test_turns_from_files(node: Clients, tmp_path: Path) -> None:
    path = tmp_path / "turns.ndjson"
    path.write_text(
        f'{{"text": "a", "who": "ann", "at": "{TIME}", "tags": ["x"]}}\n{{"text": "b"}}'
    )
    told = shown("memory", "remember", "support", "--file", str(path))
    asked = node.memory.last("remember")[1]
    assert asked.turns == (m.Turn("a", "ann", "", SINCE, ("x",)), m.Turn("b"))
    assert "2 turns" in told
    assert node.memory.last("remember")[0].idempotency_key
    for body, reason in (
        ('{"text": ""}', "no text"),
        ('{"text": "a", "when": "b"}', "'when'"),
        ('{"text": "a", "tags": [1]}', "tags must be texts"),
    ):
        path.write_text(body)
        error = refused("memory", "remember", "support", "--file", str(path))
        assert reason in str(error.fields["reason"])
    path.write_text('{"text": "a", "at": "monday"}')
    assert "rfc 3339" in str(refused("memory", "remember", "s", "--file", str(path))).lower()
    assert refused("memory", "remember", "support").kind is ErrorKind.INVALID


def test_what_is_recalled(node: Clients) -> None:
    told = shown("memory", "recall", "support", "roof")
    for told_of in ("ann", "monday", "The roof leaks again", "a text", "retrieval R7", "embedded"):
        assert told_of in told
    caught = shown("memory", "catch-up", "support")
    for told_of in ("The roof leaks again", "there are more", "--cursor on"):
        assert told_of in caught


def test_what_changes_something_is_done_once(node: Clients) -> None:
    for arguments in (
        ("retrievals", "pin", "R7"),
        ("vectors", "evals", "delete", "s"),
        ("vectors", "evals", "run", "s"),
        ("vectors", "autotune", "i"),
        ("vectors", "promote", "T1"),
    ):
        shown(*arguments)
    changes = [*node.retrievals.calls, *node.trials.calls]
    assert [ctx.idempotency_key is not None for _, ctx, _ in changes] == [True] * 5
