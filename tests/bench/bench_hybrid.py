"""Search by words and meaning over the 117,000 glosses of WordNet: latency through HTTP, and the
order and scores of BM25 against one written here, with NumPy, from its formula.
"""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pyarrow as pa

from bench import glosses
from bench.figures import Figure
from e2e.nodes import Node, running

QUERIES: Final = 300
K: Final = 10
BATCH: Final = 10_000
CLIENTS: Final = 64
ALIKE: Final = 0.01
K1: Final = 1.2
B: Final = 0.75
BUILD_SECONDS_MAX: Final = 600.0

Array = np.ndarray[Any, Any]


def words_of(text: str) -> list[str]:
    """Words of letters and digits, lower case, without accents."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore").decode()
    return re.findall(r"[a-z0-9]+", plain)


class Bm25:
    """Robertson and Zaragoza's formula, every document compared."""

    def __init__(self, rows: list[str]) -> None:
        self.words: dict[str, int] = {}
        pairs, lengths = [], np.empty(len(rows))
        for at, text in enumerate(rows):
            found = words_of(text)
            lengths[at] = len(found)
            pairs += [(self.words.setdefault(word, len(self.words)), at) for word in found]
        keys, self.times = np.unique(np.array(pairs, np.int64), axis=0, return_counts=True)
        self.documents = keys[:, 1]
        self.starts = np.searchsorted(keys[:, 0], np.arange(len(self.words) + 1))
        self.lengths = lengths
        self.average = lengths.mean()

    def scores(self, query: str) -> Array:
        """Of every document."""
        total = np.zeros(len(self.lengths))
        for word in dict.fromkeys(words_of(query)):
            if word not in self.words:
                continue
            at = self.words[word]
            part = slice(self.starts[at], self.starts[at + 1])
            documents, times = self.documents[part], self.times[part]
            rare = np.log(1 + (len(total) - len(documents) + 0.5) / (len(documents) + 0.5))
            norm = K1 * (1 - B + B * self.lengths[documents] / self.average)
            total[documents] += rare * times * (K1 + 1) / (times + norm)
        return total


def body(first: int, texts: list[str], vectors: Array) -> bytes:
    ids = pa.array([str(first + at) for at in range(len(texts))])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = pa.table({"id": ids, "vector": flat, "text": pa.array(texts)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def asked(rows: list[str], seed: int = 20_261_122) -> list[tuple[str, int]]:
    """Two to six words out of a gloss each, and which gloss it is."""
    chance = np.random.default_rng(seed)
    found = []
    for at in chance.integers(0, len(rows), QUERIES).tolist():
        words = words_of(rows[at])
        count = min(len(words), int(chance.integers(2, 7)))
        found.append((" ".join(chance.choice(words, count, replace=False)), at))
    return found


def run() -> list[Figure]:
    rows = glosses.texts()
    vectors = np.array(glosses.vectors(rows))
    queries = asked(rows)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        node = Node(
            folder / "node", folder / "bucket", settings={"LAKEHOUSE__NODE__LOG_LEVEL": "warning"}
        )
        with running(node), httpx.Client(base_url=node.url, timeout=600) as client:
            node.start()
            _build(client, rows, vectors, figures)
            _first(client, figures)
            for mode in ("text", "vector", "hybrid"):
                _latency(client, mode, queries, vectors, figures)
            _agreement(client, rows, queries, figures)
            _crowd(node, queries, vectors, figures)
    return figures


def _build(client: httpx.Client, rows: list[str], vectors: Array, figures: list[Figure]) -> None:
    made = client.post("/vectors/indexes", json={"name": "glosses", "dimensions": vectors.shape[1]})
    assert made.status_code in (200, 201, 202), made.text
    headers = {"content-type": "application/vnd.apache.arrow.stream"}
    began = time.perf_counter()
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)
        sent = client.post(
            "/vectors/indexes/glosses/vectors",
            content=body(start, rows[part], vectors[part]),
            headers=headers,
        )
        assert sent.status_code in (200, 201), sent.text
    while "exact" in _search(client, mode="vector", vector=vectors[0].tolist())["served_by"]:
        assert time.perf_counter() - began < BUILD_SECONDS_MAX, "no graph was built"
        time.sleep(0.5)
    seconds = time.perf_counter() - began
    figures.append(Figure("loaded_seconds", seconds, f"{len(rows):,} glosses, with their graph"))


def _search(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/vectors/search", json={"index": "glosses", "k": K, **fields})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _first(client: httpx.Client, figures: list[Figure]) -> None:
    began = time.perf_counter()
    _search(client, mode="text", text="a mended machine")
    seconds = time.perf_counter() - began
    figures.append(Figure("words_seconds", seconds, "the first search by words: they are counted"))


def _query(mode: str, query: tuple[str, int], vectors: Array) -> dict[str, Any]:
    text, at = query
    given: dict[str, Any] = {"mode": mode}
    if mode != "vector":
        given["text"] = text
    if mode != "text":
        given["vector"] = vectors[at].tolist()
    return given


def _latency(
    client: httpx.Client,
    mode: str,
    queries: list[tuple[str, int]],
    vectors: Array,
    figures: list[Figure],
) -> None:
    bodies = [
        json.dumps({"index": "glosses", "k": K, **_query(mode, one, vectors)}).encode()
        for one in queries
    ]
    taken = []
    for sent in bodies[:20] + bodies:
        began = time.perf_counter()
        answer = client.post(
            "/vectors/search", content=sent, headers={"content-type": "application/json"}
        )
        taken.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200, answer.text
    taken = sorted(taken[20:])
    figures += [
        Figure(f"{mode}_p50_ms", statistics.median(taken), "through HTTP, one client, k 10"),
        Figure(f"{mode}_p99_ms", taken[int(len(taken) * 0.99)], "the same"),
    ]


def _agreement(
    client: httpx.Client, rows: list[str], queries: list[tuple[str, int]], figures: list[Figure]
) -> None:
    """Orders are equal where scores differ by more than ``ALIKE``."""
    oracle = Bm25(rows)
    equal, apart = 0, []
    for text, _ in queries:
        hits = _search(client, mode="text", text=text)["hits"]
        scores = oracle.scores(text)
        ours = [int(hit["key"]) for hit in hits]
        best = np.sort(scores[scores > 0])[::-1][:K]
        theirs = scores[ours]
        falls = np.all(theirs[1:] <= theirs[:-1] * (1 + ALIKE))
        whole = len(theirs) == len(best) and np.all(theirs >= best * (1 - ALIKE))
        equal += bool(falls and whole)
        given = np.array([hit["score"] for hit in hits])
        apart.append(float(np.max(np.abs(given - theirs) / theirs)))
    note = f"of {len(queries)} queries, where scores differ by over 1 %; BM25 written with NumPy"
    figures += [
        Figure("bm25_same_order", equal / len(queries), note),
        Figure("bm25_score_difference_max", max(apart), "of a hit's score, relative"),
    ]


def _crowd(
    node: Node, queries: list[tuple[str, int]], vectors: Array, figures: list[Figure]
) -> None:
    """Many clients at once."""

    def one(at: int) -> float:
        with httpx.Client(base_url=node.url, timeout=60) as own:
            worst = 0.0
            for turn in range(5):
                began = time.perf_counter()
                _search(own, **_query("hybrid", queries[(at * 5 + turn) % QUERIES], vectors))
                worst = max(worst, time.perf_counter() - began)
        return worst

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        worst = list(pool.map(one, range(CLIENTS)))
    rate = CLIENTS * 5 / (time.perf_counter() - began)
    figures += [
        Figure("hybrid_per_second_64", rate, f"{CLIENTS} clients, who run on the same cores"),
        Figure("hybrid_worst_ms_64", max(worst) * 1000, "the slowest of them"),
    ]
