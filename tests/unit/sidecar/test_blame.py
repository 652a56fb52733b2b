"""Whose fault it is that a server gives no vectors: a text's, or the server's own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from starlette.responses import Response

from lakehouse_sidecar.errors import Code, SidecarError
from lakehouse_sidecar.lanes import Lane
from support_ollama import Ollama, Vector, failing
from unit.sidecar.test_embedding import code_of, right, sidecar_over

TEXTS = [f"text {n}" for n in range(20)]
POISON = TEXTS[13]
NAN = '{"model": "small", "embeddings": [[NaN, 1]]}'


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Code.REFUSED),
        (413, Code.REFUSED),
        (422, Code.REFUSED),
        (429, Code.EXHAUSTED),
        (401, Code.UNAVAILABLE),
        (403, Code.UNAVAILABLE),
        (408, Code.UNAVAILABLE),
        (500, Code.REFUSED),
    ],
)
async def test_only_what_is_said_of_a_text_is_its_fault(status: int, code: Code) -> None:
    ollama = Ollama()
    ollama.spoil = lambda asked, vectors: failing(status) if POISON in asked else vectors
    async with sidecar_over(ollama) as sidecar:
        error = await code_of(sidecar, TEXTS)
    assert error.code is code
    assert error.fields.get("text") == (13 if code is Code.REFUSED else None)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
async def test_a_server_that_does_nothing_for_anybody_refuses_no_text(status: int) -> None:
    ollama = Ollama()
    async with sidecar_over(ollama, digest_seconds=9) as sidecar:
        await sidecar.models.get("small", Lane.QUERY)
        ollama.spoil = lambda asked, vectors: failing(status)
        error = await code_of(sidecar, TEXTS)
        sidecar.models.forget(await sidecar.models.get("small", Lane.QUERY))
        anew = await code_of(sidecar, TEXTS)
    assert Code.REFUSED not in (error.code, anew.code)
    assert "text" not in error.fields
    # Told at once: it is not asked for every half.
    assert len(ollama.calls) < 10


async def test_a_text_whose_vector_is_no_number_is_named() -> None:
    ollama = Ollama()

    def spoil(asked: list[str], vectors: list[Vector]) -> list[Vector] | Response:
        return Response(NAN, media_type="application/json") if POISON in asked else vectors

    ollama.spoil = spoil
    async with sidecar_over(ollama) as sidecar:
        error = await code_of(sidecar, TEXTS)
        found = await sidecar.embedding.embed("small", TEXTS[:13], Lane.INDEX)
    assert (error.code, error.fields["text"]) == (Code.REFUSED, 13)
    np.testing.assert_array_equal(found.vectors, right(TEXTS[:13]))


async def test_a_server_that_fails_often_costs_no_text_its_vector() -> None:
    ollama, calls = Ollama(), itertools.count()

    def spoil(asked: list[str], vectors: list[Vector]) -> list[Vector] | Response:
        # Four of five of those for the text, while the known one always succeeds.
        return failing(500) if POISON in asked and next(calls) % 5 < 4 else vectors

    ollama.spoil = spoil
    async with sidecar_over(ollama) as sidecar:
        found = await sidecar.embedding.embed("small", [POISON], Lane.INDEX)
    np.testing.assert_array_equal(found.vectors, right([POISON]))


@pytest.mark.parametrize("status", [400, 500])
async def test_texts_that_are_refused_cost_the_others_little(status: int) -> None:
    texts = [f"text {n:03}" for n in range(256)]
    poison = {texts[77], texts[200]}
    ollama = Ollama()
    ollama.spoil = lambda asked, vectors: failing(status) if poison & {*asked} else vectors
    async with sidecar_over(ollama, digest_seconds=9, batch_seconds=9) as sidecar:
        found = await sidecar.embedding.embed("small", texts, Lane.INDEX, partial=True)
        sent = sum(map(len, ollama.calls))
    assert found.refused == {77: "the server refused", 200: "the server refused"}
    keep = [at for at in range(256) if at not in found.refused]
    np.testing.assert_array_equal(found.vectors[keep], right([texts[at] for at in keep]))
    # All of them, some times where a server may only have stumbled, and halves of what is left.
    assert sent < (4 if status == 400 else 6) * 256 + 64
    assert len(ollama.calls) < 90


async def test_what_is_asked_for_in_part_still_fails_where_the_server_does() -> None:
    ollama = Ollama()
    async with sidecar_over(ollama, digest_seconds=9) as sidecar:
        await sidecar.models.get("small", Lane.QUERY)
        ollama.spoil = lambda asked, vectors: failing(500)
        with pytest.raises(SidecarError) as caught:
            await sidecar.embedding.embed("small", TEXTS, Lane.INDEX, partial=True)
    assert caught.value.code is Code.UNAVAILABLE
