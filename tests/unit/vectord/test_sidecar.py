"""The embedder's adapter against a real sidecar over an Ollama server that does as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from lakehouse.errors import ErrorKind, LakehouseError
from lakehouse.vectord.adapters.sidecar import SidecarEmbedder, batches
from lakehouse.vectord.ports import Lane
from lakehouse.vectord.settings import EmbeddingSettings
from lakehouse_sidecar.app import create_app
from lakehouse_sidecar.settings import Settings
from support_ollama import Ollama, failing, served, vector_of


@asynccontextmanager
async def embedder_over(ollama: Ollama) -> AsyncIterator[SidecarEmbedder]:
    async with served(ollama.app()) as upstream, served(create_app(_settings(upstream))) as url:

        async def where() -> str:
            return url

        embedder = SidecarEmbedder(EmbeddingSettings(timeout_seconds=5), where)
        try:
            yield embedder
        finally:
            await embedder.close()


def _settings(url: str) -> Settings:
    return Settings(url, retry_seconds=0.001, digest_seconds=0.0)


async def test_any_number_of_texts_in_their_order() -> None:
    texts = [f"text {n}" for n in range(700)]
    async with embedder_over(Ollama()) as embedder:
        found = await embedder.embed("small", texts, Lane.INDEX)
        none = await embedder.embed("small", [], Lane.INDEX)
        about = await embedder.model("small")
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, np.array([vector_of(t) for t in texts], "f4"))
    assert none.vectors.shape == (0, 8)
    assert found.model == none.model == about
    assert (about.name, about.digest, about.dimensions) == ("small", "d1", 8)
    assert len(about.canary_sha256) == 64


async def test_a_text_that_is_refused_is_named_by_its_place_among_all() -> None:
    texts = [f"text {n}" for n in range(600)]
    texts[555] = "  "
    async with embedder_over(Ollama()) as embedder:
        with pytest.raises(LakehouseError) as caught:
            await embedder.embed("small", texts, Lane.QUERY)
    assert caught.value.kind is ErrorKind.INVALID
    assert caught.value.fields["place"] == 555


async def test_of_indexing_texts_that_are_refused_keep_no_other_out() -> None:
    texts = [f"text {n}" for n in range(600)]
    texts[1] = texts[300] = "  "
    ollama = Ollama()
    poison = {texts[7], texts[599]}
    ollama.spoil = lambda asked, vectors: failing(400) if poison & {*asked} else vectors
    async with embedder_over(ollama) as embedder:
        found = await embedder.embed("small", texts, Lane.INDEX)
    empty, refused = "a text is empty", "the server refused"
    assert found.refused == {1: empty, 7: refused, 300: empty, 599: refused}
    there = [at for at in range(600) if at not in found.refused]
    wanted = np.array([vector_of(texts[at]) for at in there], "f4")
    np.testing.assert_array_equal(found.vectors[there], wanted)
    assert not found.vectors[[*found.refused]].any()


@pytest.mark.parametrize(
    ("status", "kind", "place"),
    [
        (500, ErrorKind.INVALID, 7),
        (401, ErrorKind.UNAVAILABLE, None),
        (429, ErrorKind.EXHAUSTED, None),
    ],
)
async def test_a_text_is_refused_for_what_it_is_not_for_who_asks(
    status: int, kind: ErrorKind, place: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.vectord.adapters.sidecar._RETRY_SECONDS", 0.001)
    texts = [f"text {n}" for n in range(10)]
    ollama = Ollama()
    ollama.spoil = lambda asked, vectors: failing(status) if texts[7] in asked else vectors
    async with embedder_over(ollama) as embedder:
        with pytest.raises(LakehouseError) as caught:
            await embedder.embed("small", texts, Lane.QUERY)
        assert (caught.value.kind, caught.value.fields.get("place")) == (kind, place)
        if place is None:
            with pytest.raises(LakehouseError) as caught:
                await embedder.embed("small", texts, Lane.INDEX)
            assert caught.value.kind is kind
        else:
            assert [*(await embedder.embed("small", texts, Lane.INDEX)).refused] == [place]


async def test_a_model_that_is_not_there() -> None:
    async with embedder_over(Ollama()) as embedder:
        with pytest.raises(LakehouseError) as caught:
            await embedder.embed("lar/ge?", ["a"], Lane.QUERY)
        with pytest.raises(LakehouseError) as asked:
            await embedder.model("lar/ge?")
    assert caught.value.kind is asked.value.kind is ErrorKind.NOT_FOUND
    assert asked.value.fields.pop("hint")
    assert asked.value.fields == {"model": "lar/ge?", "models": ["small:latest"]}


async def test_a_model_that_changes_between_two_requests_is_a_conflict() -> None:
    ollama = Ollama()
    texts = [f"text {n}" for n in range(600)]

    def swap(asked: list[str], vectors: list[list[float]]) -> list[list[float]]:
        if texts[599] in asked:
            ollama.digest, ollama.salt = "d2", "other"
        return vectors

    ollama.spoil = swap
    async with embedder_over(ollama) as embedder:
        with pytest.raises(LakehouseError) as caught:
            await embedder.embed("small", texts, Lane.INDEX)
    assert caught.value.kind is ErrorKind.CONFLICT


async def test_a_sidecar_that_died_is_looked_for_again_where_it_is_now() -> None:
    async with served(Ollama().app()) as upstream, served(create_app(_settings(upstream))) as url:
        places = ["http://127.0.0.1:9", url]

        async def where() -> str:
            return places.pop(0)

        embedder = SidecarEmbedder(EmbeddingSettings(), where)
        found = await embedder.embed("small", ["a"], Lane.QUERY)
        await embedder.close()
        await embedder.close()
    np.testing.assert_array_equal(found.vectors[0], np.array(vector_of("a"), "f4"))


async def test_nobody_there_is_unavailable() -> None:
    async def where() -> str:
        return "http://127.0.0.1:9"

    embedder = SidecarEmbedder(EmbeddingSettings(), where)
    with pytest.raises(LakehouseError) as caught:
        await embedder.embed("small", ["a"], Lane.QUERY)
    await embedder.close()
    assert caught.value.kind is ErrorKind.UNAVAILABLE


def test_requests_are_bounded_in_texts_and_in_characters() -> None:
    assert list(batches([])) == []
    assert list(batches(["a"] * 600)) == [(0, 256), (256, 512), (512, 600)]
    huge = "x" * (1 << 20)
    assert list(batches([huge, "a", huge, huge])) == [(0, 1), (1, 2), (2, 3), (3, 4)]
