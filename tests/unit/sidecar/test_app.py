"""The sidecar's routes: what goes in and out, and how an error looks."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest

from lakehouse_sidecar.app import BINARY, create_app
from lakehouse_sidecar.settings import Settings
from support_ollama import Ollama, failing, served, vector_of

SETTINGS = Settings("", retry_seconds=0.001, queue_max=2, body_bytes_max=2000)


@pytest.fixture
async def ollama() -> Ollama:
    return Ollama()


@pytest.fixture
async def client(ollama: Ollama) -> AsyncIterator[httpx.AsyncClient]:
    async with served(ollama.app()) as upstream:
        app = create_app(dataclasses.replace(SETTINGS, ollama_url=upstream))
        async with (
            served(app) as url,
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client,
        ):
            yield client


async def test_json_and_binary_say_the_same(client: httpx.AsyncClient) -> None:
    asked = {"model": "small", "input": ["a", "b"], "lane": "index"}
    plain = (await client.post("/embed", json=asked)).json()
    binary = await client.post("/embed", json=asked, headers={"accept": BINARY})
    assert plain["model"] == "small"
    assert plain["dimensions"] == int(binary.headers["x-dimensions"]) == 8
    assert plain["digest"] == binary.headers["x-model-digest"] == "d1"
    assert plain["canary_sha256"] == binary.headers["x-canary-sha256"]
    rows = np.frombuffer(binary.content, "<f4").reshape(int(binary.headers["x-rows"]), 8)
    np.testing.assert_allclose(rows, plain["embeddings"], rtol=1e-6)
    np.testing.assert_allclose(rows, [vector_of("a"), vector_of("b")], rtol=1e-6)
    one = await client.post("/embed", json={"model": "small", "input": "a"})
    assert len(one.json()["embeddings"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "the body is no JSON"),
        (b"[]", 400, "the request is malformed"),
        (b'{"model": "small"}', 400, "the request is malformed"),
        (b'{"model": "small", "input": [1]}', 400, "the request is malformed"),
        (b'{"model": "small", "input": ["a"], "lane": "fast"}', 400, "the request is malformed"),
        (b'{"model": "small", "input": ["a"], "speed": 1}', 400, "the request is malformed"),
        (b'{"model": "small", "input": [""]}', 400, "a text is empty"),
        (b'{"model": "large", "input": ["a"]}', 404, "the server has no such model"),
        (b" " * 2001, 400, "the body is too large"),
    ],
)
async def test_what_is_wrong_with_a_request(
    client: httpx.AsyncClient, body: bytes, status: int, says: str
) -> None:
    answer = await client.post("/embed", content=body)
    assert (answer.status_code, answer.json()["error"]) == (status, says)
    assert answer.json()["code"] == ("not_found" if status == 404 else "invalid")
    assert ("ollama pull" in answer.json().get("hint", "")) == (status == 404)


async def test_a_full_queue_is_429_with_a_time_to_come_back(
    client: httpx.AsyncClient, ollama: Ollama
) -> None:
    await client.get("/models/small")
    ollama.seconds = 0.2
    asked = {"model": "small", "input": ["a"]}
    answers = await asyncio.gather(*(client.post("/embed", json=asked) for _ in range(4)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429]
    assert refused[0].json()["code"] == "exhausted"
    assert int(refused[0].headers["retry-after"]) >= 1


async def test_who_hangs_up_no_longer_waits_in_the_queue(
    client: httpx.AsyncClient, ollama: Ollama
) -> None:
    await client.get("/models/small")
    ollama.seconds = 30
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/embed", json={"model": "small", "input": ["a"]}, timeout=0.1)
    ollama.seconds = 0
    async with asyncio.timeout(5):
        while (await client.get("/health")).json()["queue"]["query"]:
            await asyncio.sleep(0.01)
    assert (await client.post("/embed", json={"model": "small", "input": ["b"]})).is_success


async def test_generated_text_comes_as_it_is_made_or_at_once(client: httpx.AsyncClient) -> None:
    asked = {"model": "small", "prompt": "count"}
    lines = (await client.post("/generate", json=asked)).text.splitlines()
    assert [json.loads(line)["response"] for line in lines] == ["one ", "two", ""]
    whole = (await client.post("/generate", json={**asked, "stream": False})).json()
    assert (whole["response"], whole["done"]) == ("one two", True)
    refused = await client.post("/generate", json={**asked, "model": "other"})
    assert (refused.status_code, refused.json()["cause"]) == (422, "does not support generate")


async def test_models_and_health(client: httpx.AsyncClient, ollama: Ollama) -> None:
    (one,) = (await client.get("/models")).json()["models"]
    assert (one["name"], one["digest"], one["size_bytes"]) == ("small:latest", "d1", 7)
    about = (await client.get("/models/small")).json()
    assert (about["digest"], about["dimensions"]) == ("d1", 8)
    assert (await client.get("/health")).json()["status"] == "ok"
    ollama.spoil = lambda texts, vectors: failing(500)
    assert (await client.post("/embed", json={"model": "small", "input": "a"})).status_code == 503


async def test_health_tells_of_a_server_that_is_gone() -> None:
    app = create_app(dataclasses.replace(SETTINGS, ollama_url="http://127.0.0.1:9"))
    async with served(app) as url, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{url}/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
