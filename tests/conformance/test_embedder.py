"""The model that comes with the release, by the official client; and that it is the real one."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import ollama
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from lakehouse_embedder.model import CONTEXT, batches
from lakehouse_embedder.weights import Weights, open_weights

TEXTS = [
    "a cat sits on the mat",
    "The quarterly revenue rose by 3.5 %, to €12 million.",
    "Ünïcode, 漢字 and emoji 🙂 are text too",
    "x",
    "storage " * 20,
]


@pytest.fixture(scope="module")
def client() -> Iterator[ollama.Client]:
    process = subprocess.Popen(
        [sys.executable, "-m", "lakehouse_embedder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:
        port = json.loads(process.stdout.readline())["port"]
        assert json.loads(process.stdout.readline()) == {"ready": True}
        with ollama.Client(f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client
        # Nothing else ends it: its standard input does.
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.fixture(scope="module")
def weights() -> Weights:
    return open_weights()


def reference(weights: Weights, text: str) -> np.ndarray:
    """BERT with mean pooling as its paper has it, in float64, over weights read by their own
    library."""
    held = {k: v.astype(np.float64) for k, v in load_file(weights.path).items() if v.ndim < 3}
    tokenizer = Tokenizer.from_file(str(weights.tokenizer))
    tokenizer.no_padding()
    tokenizer.enable_truncation(CONTEXT)
    ids = tokenizer.encode(text).ids

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ held[f"{name}.weight"].T + held[f"{name}.bias"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = x - x.mean(1, keepdims=True)
        x = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-12)
        return x * held[f"{name}.weight"] + held[f"{name}.bias"]

    x = held["embeddings.word_embeddings.weight"][ids]
    x = x + held["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + held["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(6):
        here = f"encoder.layer.{layer}"
        q, k, v = (
            linear(x, f"{here}.attention.self.{part}").reshape(len(ids), 12, 32).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        seen = np.exp(q @ k.swapaxes(1, 2) / math.sqrt(32))
        seen = (seen / seen.sum(2, keepdims=True)) @ v
        seen = linear(seen.swapaxes(0, 1).reshape(len(ids), 384), f"{here}.attention.output.dense")
        x = norm(x + seen, f"{here}.attention.output.LayerNorm")
        wide = linear(x, f"{here}.intermediate.dense")
        wide = wide * 0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2)))
        x = norm(x + linear(wide, f"{here}.output.dense"), f"{here}.output.LayerNorm")
    pooled: np.ndarray = x.mean(0)
    return pooled


def test_the_vectors_are_those_of_the_model(client: ollama.Client, weights: Weights) -> None:
    found = np.array(client.embed("all-minilm", TEXTS).embeddings)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    for text, vector in zip(TEXTS, found, strict=True):
        wanted = reference(weights, text)
        assert vector @ wanted / np.linalg.norm(wanted) > 0.999999, text
        older = np.array(client.embeddings("all-minilm", text).embedding)
        np.testing.assert_allclose(older, wanted, atol=2e-5)


def test_a_text_has_its_vector_whatever_is_beside_it(client: ollama.Client) -> None:
    alone = np.array([client.embed("all-minilm", text).embeddings[0] for text in TEXTS])
    together = np.array(client.embed("all-minilm", TEXTS * 6).embeddings)
    np.testing.assert_allclose(together, np.tile(alone, (6, 1)), atol=2e-6)


def test_meaning_is_near(client: ollama.Client) -> None:
    cat, feline, money = client.embed(
        "all-minilm", ["a cat on a rug", "the feline lies upon a carpet", "interest rates rise"]
    ).embeddings
    assert np.dot(cat, feline) > 0.5 > 0.2 > np.dot(cat, money)


def test_long_texts_are_cut_where_the_model_ends_or_refused(client: ollama.Client) -> None:
    long = "word " * 400
    cut, other = client.embed("all-minilm", [long, long + "something else"]).embeddings
    assert cut == other
    assert client.embed("all-minilm", long).prompt_eval_count == CONTEXT
    with pytest.raises(ollama.ResponseError, match="exceeds the context length") as refused:
        client.embed("all-minilm", long, truncate=False)
    assert refused.value.status_code == 400


def test_what_there_is(client: ollama.Client, weights: Weights) -> None:
    (one,) = client.list().models
    assert (one.model, one.digest) == ("all-minilm:latest", weights.sha256)
    shown = client.show("all-minilm:latest")
    assert shown.modelinfo is not None
    assert shown.modelinfo["bert.embedding_length"] == 384
    assert shown.capabilities == ["embedding"]
    assert list(client.embed("all-minilm", "").embeddings) == []
    assert list(client.embed("all-minilm", []).embeddings) == []


def test_what_it_does_not_do_is_said(client: ollama.Client) -> None:
    for refused, status, says in (
        (lambda: client.generate("all-minilm", "hi"), 400, "does not support generate"),
        (lambda: client.chat("all-minilm", []), 400, "does not support chat"),
        (lambda: client.embed("other", "hi"), 404, 'model "other" not found'),
        (lambda: client.show("other"), 404, 'model "other" not found'),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            refused()
        assert caught.value.status_code == status
        assert re.search(says, caught.value.error)


@pytest.mark.parametrize("threads", [1, 4])
def test_batches_hold_every_text_once_and_so_many_tokens(threads: int) -> None:
    lengths = [int(n) for n in np.random.default_rng(3).integers(2, 257, 300)]
    found = batches(lengths, threads)
    assert sorted(place for batch in found for place in batch) == list(range(300))
    for batch in found:
        assert len(batch) * max(lengths[place] for place in batch) <= 512
    assert batches([], threads) == []
    assert len(batches([10] * 30, threads)) == (1 if threads == 1 else 3)
