"""``lakehouse search``, ``vectors`` and ``profiles``: what they ask a node for, what they show."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lakehouse.cli.calls import Invocation
from lakehouse.cli.commands import vectors as commands
from lakehouse.cli.commands.search import key_words
from lakehouse.cli.main import cli
from lakehouse.contracts import profiles as p
from lakehouse.contracts import vectors as v
from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.model.identity import Context
from lakehouse.model.vectors import Profile, VectorBackend, VersionState
from unit.gateway.vector_fakes import FakeProfiles, FakeVectors, index


class Node(FakeVectors):
    """A node whose builds take ``steps`` looks, and end with ``error``."""

    steps = 0
    error = ""

    def _index(self, name: str) -> v.IndexResult:
        building = self.steps > 0
        self.steps -= building
        state = VersionState.BUILDING if building else VersionState.READY
        error = "" if building else self.error
        done = 3 - self.steps
        version = dataclasses.replace(
            index().versions[0], state=state, documents_done=done, documents_total=3, error=error
        )
        found = dataclasses.replace(index(name), versions=(version,))
        return v.IndexResult(found, 812, building=building)

    async def get_index(self, ctx: Context, request: v.IndexRequest) -> v.IndexResult:
        self.saw("get_index", ctx, request)
        return self._index(request.name)


@dataclasses.dataclass
class Clients:
    vectors: Node
    profiles: FakeProfiles


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Clients:
    clients = Clients(Node(), FakeProfiles())

    @asynccontextmanager
    async def connected(invocation: Invocation) -> AsyncIterator[Clients]:
        yield clients

    monkeypatch.setattr(Invocation, "clients", connected)
    monkeypatch.setattr(commands, "_LOOK_SECONDS", 0.0)
    return clients


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def shown(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exception is None, (arguments, result.exception)
    return result.stdout


def test_a_search(node: Clients) -> None:
    text = shown("search", "tickets", "a leak", "-k", "4", "--filter", "a = 1", "--exact")
    asked = node.vectors.last("search")[1]
    query = v.VectorQuery("a leak")
    assert asked == v.SearchRequest("tickets", (query,), 4, "a = 1", exact=True)
    for word in ("0.500", "7", "face-1", '["a",1]', "a text", "hnsw+exact", "being embedded"):
        assert word in text
    two = shown("search", "tickets", "a leak", "a bill", "--number", "2", "--model", "m")
    assert two.index("a leak") < two.index("a bill")
    asked = node.vectors.last("search")[1]
    queries = (query, v.VectorQuery("a bill"))
    assert asked == v.SearchRequest("tickets", queries, number=2, model="m")


def test_a_search_as_json(node: Clients) -> None:
    told = json.loads(shown("search", "tickets", "a leak", "--json"))
    assert told["results"][0]["hits"][0]["key"] == "[7]"
    assert told["behind"] is True


@pytest.mark.parametrize(
    ("key", "words"),
    [("[7]", "7"), ('["a"]', "a"), ('["a",7]', '["a",7]'), ("face", "face"), ("[x", "[x")],
)
def test_keys_in_words(key: str, words: str) -> None:
    assert key_words(key) == words


CALLS: list[tuple[tuple[str, ...], str, Any]] = [
    (("list", "-d", "t", "--limit", "5"), "list_indexes", v.ListIndexesRequest("t", 5)),
    (("show", "i"), "get_index", v.IndexRequest("i")),
    (
        ("create", "i", "-d", "t", "-c", "a", "-c", "b", "--profile", "x", "--no-build"),
        "create_index",
        v.CreateIndexRequest("i", "t", ("a", "b"), "x", build=False),
    ),
    (("create", "i", "--dimensions", "3"), "create_index", v.CreateIndexRequest("i", dimensions=3)),
    (("build", "i"), "build", v.BuildRequest("i")),
    (
        ("build", "i", "--new-version", "--profile", "x", "--no-cut-over"),
        "build",
        v.BuildRequest("i", True, "x", False),
    ),
    (("cut-over", "i"), "cut_over", v.CutOverRequest("i")),
    (("cut-over", "i", "2"), "cut_over", v.CutOverRequest("i", 2)),
    (("compare", "i"), "compare", v.CompareRequest("i")),
    (
        ("compare", "i", "1", "2", "-q", "a", "-q", "b", "-k", "3", "--samples", "7"),
        "compare",
        v.CompareRequest("i", 1, 2, ("a", "b"), k=3, samples=7),
    ),
    (("delete", "i", "--number", "2"), "delete_index", v.DeleteIndexRequest("i", 2)),
]


@pytest.mark.parametrize(("arguments", "method", "expected"), CALLS)
def test_what_is_asked_for(
    node: Clients, arguments: tuple[str, ...], method: str, expected: object
) -> None:
    assert shown("vectors", *arguments).strip()
    assert node.vectors.last(method)[1] == expected
    assert isinstance(json.loads(shown("vectors", *arguments, "--json")), dict)


def test_a_build_is_watched_to_its_end(node: Clients) -> None:
    node.vectors.steps = 3
    told = shown("vectors", "build", "i")
    assert "ready" in told
    assert [name for name, _, _ in node.vectors.calls] == ["build"] + ["get_index"] * 3
    node.vectors.steps, node.vectors.calls = 3, []
    assert "a build runs" in shown("vectors", "build", "i", "--no-wait")
    assert len(node.vectors.calls) == 1


def test_a_build_that_fails(node: Clients) -> None:
    node.vectors.steps, node.vectors.error = 2, "no such model"
    error = run("vectors", "create", "i", "-d", "t", "-c", "a").exception
    assert isinstance(error, LakehouseError)
    assert error.kind is ErrorKind.UNAVAILABLE
    assert error.fields["reason"] == "no such model"
    assert "vectors build i" in str(error.fields["hint"])
    # One that failed before is shown, not told as a failure of this call.
    assert "no such model" in shown("vectors", "show", "i")


def test_what_structures_find_is_told(node: Clients) -> None:
    assert "hnsw 3 (recall 0.987)" in shown("vectors", "show", "i")


def test_figures_of_two_versions(node: Clients) -> None:
    told = shown("vectors", "compare", "i")
    for word in ("parquet", "lance", "0.990", "0.30", "75.0%", "5 queries", "10 hits"):
        assert word in told


def test_profiles(node: Clients, tmp_path: Path) -> None:
    assert "default" in shown("profiles", "list")
    assert "sentences" in shown("profiles", "show", "default")
    told = shown("profiles", "show", "default", "--json")
    path = tmp_path / "p.json"
    path.write_text(told.replace('"parquet"', '"lance"'))
    shown("profiles", "put", "default", str(path), "--expected-version", "0")
    profile = Profile("default", vector_backend=VectorBackend.LANCE)
    assert node.profiles.last("put")[1] == p.PutProfileRequest(profile, 0)
    assert "deleted" in shown("profiles", "delete", "x")
    assert node.profiles.last("delete")[1] == p.DeleteProfileRequest("x")


def test_a_change_that_is_sent_twice_is_done_once(node: Clients) -> None:
    shown("vectors", "cut-over", "i")
    shown("profiles", "delete", "x")
    assert node.vectors.last("cut_over")[0].idempotency_key
    assert node.profiles.last("delete")[0].idempotency_key
