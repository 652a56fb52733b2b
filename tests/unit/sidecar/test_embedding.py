"""Texts through the sidecar to a server that errs in every way a server has."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from lakehouse_sidecar.app import Sidecar
from lakehouse_sidecar.checks import CANARY_TEXT
from lakehouse_sidecar.errors import Code, SidecarError
from lakehouse_sidecar.lanes import Lane
from lakehouse_sidecar.settings import Settings
from support_ollama import Ollama, Vector, failing, served, vector_of

QUICK = Settings("", retry_seconds=0.001, digest_seconds=0.0)


@asynccontextmanager
async def sidecar_over(ollama: Ollama, **changes: object) -> AsyncIterator[Sidecar]:
    async with served(ollama.app()) as url:
        settings = dataclasses.replace(QUICK, ollama_url=url, **changes)  # type: ignore[arg-type]
        sidecar = Sidecar(settings)
        try:
            yield sidecar
        finally:
            await sidecar.server.close()


async def code_of(sidecar: Sidecar, texts: list[str], model: str = "small") -> SidecarError:
    with pytest.raises(SidecarError) as caught:
        await sidecar.embedding.embed(model, texts, Lane.QUERY)
    return caught.value


def right(texts: list[str], salt: str = "") -> np.ndarray:
    return np.array([vector_of(text, salt) for text in texts], np.float32)


async def test_vectors_come_in_the_order_of_the_texts_in_pieces_one_at_a_time() -> None:
    ollama = Ollama()
    texts = [f"{'word ' * (n % 17)}{n}" for n in range(300)]
    async with sidecar_over(ollama, batch_texts_max=40) as sidecar:
        one, other = await asyncio.gather(
            sidecar.embedding.embed("small", texts, Lane.INDEX),
            sidecar.embedding.embed("small", texts[:5], Lane.QUERY),
        )
    np.testing.assert_array_equal(one.vectors, right(texts))
    np.testing.assert_array_equal(other.vectors, right(texts[:5]))
    assert one.model.digest == "d1"
    assert ollama.at_once == 1
    assert max(map(len, ollama.calls)) <= 41


async def test_a_query_waits_for_one_piece_of_indexing() -> None:
    ollama = Ollama(seconds=0.01)
    texts = [f"text {n}" for n in range(60)]
    async with sidecar_over(ollama, batch_texts_max=2, digest_seconds=9) as sidecar:
        await sidecar.models.get("small", Lane.QUERY)
        indexing = asyncio.create_task(sidecar.embedding.embed("small", texts, Lane.INDEX))
        while len(ollama.calls) < 6:
            await asyncio.sleep(0.002)
        before = len(ollama.calls)
        await sidecar.embedding.embed("small", ["the query"], Lane.QUERY)
        place = next(n for n, call in enumerate(ollama.calls) if "the query" in call)
        assert place - before <= 1
        assert not indexing.done()
        np.testing.assert_array_equal((await indexing).vectors, right(texts))


@pytest.mark.parametrize("how", ["nan", "fewer", "ragged", "wider", "zero", "500", "no json"])
async def test_a_wrong_answer_is_asked_for_again(how: str) -> None:
    ollama, spoiled = Ollama(), list[str]()

    def spoil(texts: list[str], vectors: list[Vector]) -> object:
        if "a" not in texts or spoiled:
            return vectors
        spoiled.append(how)
        match how:
            case "nan":
                # JSON of servers that do not look: not a number, as Python writes it.
                from starlette.responses import Response

                body = '{"model": "small", "embeddings": [[NaN, 1], [1, 2]]}'
                return Response(body, media_type="application/json")
            case "fewer":
                return vectors[:1]
            case "ragged":
                return [vectors[0], vectors[1][:3]]
            case "wider":
                return [[*one, 1.0] for one in vectors]
            case "zero":
                return [vectors[0], [0.0] * 8]
            case "500":
                return failing(500)
        from starlette.responses import Response

        return Response("<html>", media_type="text/html")

    ollama.spoil = spoil  # type: ignore[assignment]
    async with sidecar_over(ollama) as sidecar:
        found = await sidecar.embedding.embed("small", ["a", "b"], Lane.QUERY)
    assert spoiled == [how]
    np.testing.assert_array_equal(found.vectors, right(["a", "b"]))


async def test_a_server_that_stays_wrong_is_told() -> None:
    ollama = Ollama()
    async with sidecar_over(ollama) as sidecar:
        await sidecar.models.get("small", Lane.QUERY)
        ollama.spoil = lambda texts, vectors: [[0.0] * 8 for _ in texts]
        error = await code_of(sidecar, ["a", "b"])
        assert (error.code, str(error)) == (Code.CORRUPT, "a vector is zero")
        ollama.spoil = lambda texts, vectors: failing(503, "loading")
        assert (await code_of(sidecar, ["a"])).code is Code.UNAVAILABLE


async def test_one_text_that_the_server_cannot_take_is_named() -> None:
    ollama = Ollama()
    texts = [f"text {n}" for n in range(20)]
    ollama.spoil = lambda asked, vectors: failing(400, "no") if texts[13] in asked else vectors
    async with sidecar_over(ollama) as sidecar:
        error = await code_of(sidecar, texts)
    assert error.code is Code.REFUSED
    assert error.fields["text"] == 13
    assert error.fields["cause"] == "no"


async def test_a_server_that_mixes_up_texts_is_found_out_by_the_canary() -> None:
    ollama = Ollama()
    async with sidecar_over(ollama, canary_seconds=0.0) as sidecar:
        await sidecar.models.get("small", Lane.QUERY)
        ollama.spoil = lambda texts, vectors: vectors[::-1]
        error = await code_of(sidecar, ["a", "b"])
        assert (error.code, str(error)) == (
            Code.CORRUPT,
            "a known text has another vector than before",
        )
        ollama.spoil = None
        await sidecar.embedding.embed("small", ["a", "b"], Lane.QUERY)
    assert all(call[-1] == CANARY_TEXT for call in ollama.calls)


async def test_vectors_of_two_models_are_never_in_one_answer() -> None:
    ollama = Ollama()
    texts = [f"text {n}" for n in range(30)]

    def swap(asked: list[str], vectors: list[Vector]) -> list[Vector]:
        if texts[20] in asked and ollama.digest == "d1":
            ollama.digest, ollama.salt = "d2", "other"
        return vectors

    ollama.spoil = swap
    async with sidecar_over(ollama, batch_texts_max=4) as sidecar:
        found = await sidecar.embedding.embed("small", texts, Lane.INDEX)
    assert found.model.digest == "d2"
    np.testing.assert_array_equal(found.vectors, right(texts, "other"))


async def test_a_model_that_changes_without_a_digest_has_another_canary() -> None:
    ollama = Ollama(digest="")
    async with sidecar_over(ollama, canary_seconds=0.0) as sidecar:
        before = await sidecar.models.get("small", Lane.QUERY)
        ollama.salt = "other"
        assert (await code_of(sidecar, ["a"])).code is Code.CORRUPT
        after = await sidecar.models.get("small", Lane.QUERY)
    assert before.canary_sha256 != after.canary_sha256


async def test_what_is_no_request_is_refused_before_it_waits() -> None:
    ollama = Ollama()
    async with sidecar_over(ollama, texts_max=3, text_bytes_max=10) as sidecar:
        for texts, field in (
            (["a", " \n"], {"text": 1}),
            (["ä" * 6], {"text": 0, "bytes_max": 10}),
            (["a"] * 4, {"texts": 4, "texts_max": 3}),
        ):
            error = await code_of(sidecar, texts)
            assert (error.code, error.fields) == (Code.INVALID, field)
    assert ollama.calls == []


async def test_a_model_that_is_not_there_names_those_that_are() -> None:
    async with sidecar_over(Ollama()) as sidecar:
        error = await code_of(sidecar, ["a"], "large")
    assert (error.code, error.fields["models"]) == (Code.NOT_FOUND, ["small:latest"])


async def test_a_deadline_ends_what_waits_and_leaves_the_queue_as_it_was() -> None:
    ollama = Ollama()
    async with sidecar_over(ollama, digest_seconds=9) as sidecar:
        await sidecar.models.get("small", Lane.QUERY)
        ollama.seconds = 5
        with pytest.raises(SidecarError) as late:
            await sidecar.embedding.embed("small", ["a"], Lane.QUERY, 0.05)
        assert late.value.code is Code.DEADLINE
        ollama.seconds = 0
        assert sidecar.lanes.depth() == {"query": 0, "index": 0}
        await sidecar.embedding.embed("small", ["a"], Lane.QUERY, 5)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    sidecar = Sidecar(dataclasses.replace(QUICK, ollama_url="http://127.0.0.1:9"))
    error = await code_of(sidecar, ["a"])
    await sidecar.server.close()
    assert error.code is Code.UNAVAILABLE
    assert error.fields["url"] == "http://127.0.0.1:9"
