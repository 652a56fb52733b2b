"""Texts a second through the sidecar against the bare model, by turns; and what a query waits for
while texts are indexed. The texts are the paragraphs of this project's documents.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import httpx
import numpy as np

from bench.figures import Figure
from lakehouse_embedder.model import MiniLM
from lakehouse_embedder.weights import open_weights

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
TEXTS: Final = 256
TURNS: Final = 5
QUERIES: Final = 50
CHARS_MIN: Final = 40
CHARS_MAX: Final = 400
_BINARY: Final = "application/octet-stream"


def paragraphs() -> list[str]:
    """Of 40 to 400 characters, ``TEXTS`` of them."""
    found: list[str] = []
    for path in sorted(DOCS.rglob("*.md")):
        found += [" ".join(part.split()) for part in path.read_text().split("\n\n")]
    fitting = [text for text in dict.fromkeys(found) if CHARS_MIN <= len(text) <= CHARS_MAX]
    assert len(fitting) >= TEXTS, f"only {len(fitting)} paragraphs"
    return [fitting[at] for at in np.random.default_rng(5).permutation(len(fitting))[:TEXTS]]


@contextlib.contextmanager
def serving(module: str, *arguments: str) -> Iterator[str]:
    """The URL of a process of its own, which ends with the context."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:
        port = json.loads(process.stdout.readline())["port"]
        assert json.loads(process.stdout.readline()) == {"ready": True}
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stdin.close()
            process.wait(30)


def run() -> list[Figure]:
    texts, model = paragraphs(), MiniLM(open_weights())
    with (
        serving("lakehouse_embedder") as ollama,
        serving("lakehouse_sidecar", "--ollama-url", ollama) as url,
        httpx.Client(base_url=url, timeout=300) as client,
    ):

        def ask(some: list[str], lane: str) -> int:
            body = {"model": "all-minilm", "input": some, "lane": lane}
            answer = client.post("/embed", json=body, headers={"accept": _BINARY})
            assert answer.status_code == 200, answer.text
            return int(answer.headers["x-rows"])

        assert ask(texts[:64], "index") == len(model.embed(texts[:64])[0])
        bare, through = [], []
        for _ in range(TURNS):
            began = time.perf_counter()
            model.embed(texts)
            between = time.perf_counter()
            assert ask(texts, "index") == TEXTS
            bare.append(between - began)
            through.append(time.perf_counter() - between)
        ratio = statistics.median([a / b for a, b in zip(bare, through, strict=True)])
        alone = _queries(lambda text: ask([text], "query"), texts)
        busy = _while_indexing(url, texts, lambda text: ask([text], "query"))
    return [
        Figure("texts_per_second_bare", TEXTS / min(bare), "the model in this process"),
        Figure("texts_per_second", TEXTS / min(through), "through sidecar and embedder"),
        Figure("sidecar/bare", ratio, "texts a second, by turns"),
        Figure("query_p50_ms", statistics.median(alone), "one text, nothing else to do"),
        Figure("query_indexing_p50_ms", statistics.median(busy), "while texts are indexed"),
        Figure("query_indexing_p95_ms", sorted(busy)[int(len(busy) * 0.95)], "the same"),
    ]


def _queries(ask: Callable[[str], int], texts: list[str]) -> list[float]:
    """Milliseconds of each."""
    taken = []
    for text in texts[:QUERIES]:
        began = time.perf_counter()
        assert ask(text.split(". ")[0][:100]) == 1
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def _while_indexing(url: str, texts: list[str], ask: Callable[[str], int]) -> list[float]:
    ended = threading.Event()

    def index() -> None:
        body = {"model": "all-minilm", "input": texts, "lane": "index"}
        with httpx.Client(base_url=url, timeout=300) as client:
            while not ended.is_set():
                assert client.post("/embed", json=body).status_code == 200

    thread = threading.Thread(target=index)
    thread.start()
    try:
        time.sleep(1.0)
        return _queries(ask, texts)
    finally:
        ended.set()
        thread.join()
