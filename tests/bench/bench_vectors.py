"""Vector search over 100,000 x 768 through HTTP and gRPC, against bare hnswlib, Lance and Chroma.

The mixture: 2,000 centres, each with a 16-dimensional subspace of its own out of 64 shared bases.
Exact neighbours by NumPy are the oracle; recall stands beside each latency.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pyarrow as pa

from bench.figures import Figure, resident_mib
from e2e.nodes import Node, running

ROWS: Final = 100_000
DIMENSIONS: Final = 768
QUERIES: Final = 1_000
ASKED: Final = 500
K: Final = 10
BATCH: Final = 5_000
APPENDED: Final = 100
EF: Final = 128
BUILD_SECONDS_MAX: Final = 600.0

Array = np.ndarray[Any, Any]


def mixture(seed: int = 20_261_121) -> tuple[Array, Array]:
    """(rows, queries), unit vectors in float32."""
    chance = np.random.default_rng(seed)
    centres = chance.standard_normal((2_000, DIMENSIONS)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    bases = chance.standard_normal((64, 16, DIMENSIONS)).astype(np.float32)
    bases /= np.linalg.norm(bases, axis=2, keepdims=True)
    of = chance.integers(0, 64, 2_000)

    def draw(count: int) -> Array:
        picked = chance.integers(0, 2_000, count)
        weights = chance.standard_normal((count, 16)).astype(np.float32) / 4.0
        local = np.empty((count, DIMENSIONS), np.float32)
        for base in range(64):
            rows = np.flatnonzero(of[picked] == base)
            local[rows] = weights[rows] @ bases[base]
        drawn = 0.8 * centres[picked] + 0.8 * local
        drawn += 0.02 * chance.standard_normal((count, DIMENSIONS)).astype(np.float32)
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    return draw(ROWS), draw(QUERIES)


def nearest(rows: Array, queries: Array) -> list[set[int]]:
    found = []
    for start in range(0, len(queries), 100):
        scores = queries[start : start + 100] @ rows.T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        found += [set(map(int, one)) for one in best]
    return found


def body(first: int, vectors: Array) -> bytes:
    ids = pa.array([str(first + at) for at in range(len(vectors))])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSIONS)
    table = pa.table({"id": ids, "vector": flat})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def timed(ask: Callable[[Array], list[int]], queries: Array, truth: list[set[int]]) -> Any:
    """(p50 in us, p99 in us, recall) of ``ask``, warm."""
    for query in queries[:20]:
        ask(query)
    taken, right = [], 0
    for query, wanted in zip(queries[:ASKED], truth, strict=False):
        began = time.perf_counter()
        got = ask(query)
        taken.append((time.perf_counter() - began) * 1e6)
        right += len(wanted & set(got))
    taken.sort()
    return statistics.median(taken), taken[int(len(taken) * 0.99)], right / (ASKED * K)


def run() -> list[Figure]:
    rows, queries = mixture()
    truth = nearest(rows, queries)
    figures = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        peers = _peers(folder, rows, queries, truth, figures)
        node = Node(
            folder / "node", folder / "bucket", settings={"LAKEHOUSE__NODE__LOG_LEVEL": "warning"}
        )
        with running(node), httpx.Client(base_url=node.url, timeout=600) as client:
            node.start()
            _build(client, node, rows, figures)
            ours = _searches(client, node, queries, truth, figures)
            _small(client, rows, figures)
    figures.append(
        Figure("http_over_hnswlib_us", ours - peers, "p50 of HTTP less that of bare hnswlib")
    )
    return figures


def _build(client: httpx.Client, node: Node, rows: Array, figures: list[Figure]) -> None:
    made = client.put(
        "/profiles/bench", json={"ef_construction": 80, "ef_search": EF, "distance": "cosine"}
    )
    assert made.status_code in (200, 201), made.text
    made = client.post(
        "/vectors/indexes", json={"name": "mix", "profile": "bench", "dimensions": DIMENSIONS}
    )
    assert made.status_code in (200, 201, 202), made.text
    began = time.perf_counter()
    headers = {"content-type": "application/vnd.apache.arrow.stream"}
    for start in range(0, ROWS, BATCH):
        sent = client.post(
            "/vectors/indexes/mix/vectors",
            content=body(start, rows[start : start + BATCH]),
            headers=headers,
        )
        assert sent.status_code in (200, 201), sent.text
    figures.append(
        Figure(
            "loaded_seconds",
            time.perf_counter() - began,
            f"{ROWS:,} given vectors of {DIMENSIONS}, by HTTP",
        )
    )
    until = began + BUILD_SECONDS_MAX
    while "exact" in _search(client, rows[0]).json()["served_by"]:
        assert time.perf_counter() < until, "no graph was built"
        time.sleep(0.5)
    figures.append(
        Figure(
            "build_seconds",
            time.perf_counter() - began,
            "of that until the graph answers all of it",
        )
    )
    assert node.process is not None
    figures.append(
        Figure("memory_mib", resident_mib(node.process.pid), "of the node, with graph and vectors")
    )


def _search(client: httpx.Client, query: Array) -> httpx.Response:
    text = (
        b'{"index":"mix","k":10,"vector":[' + b",".join(b"%.8g" % x for x in query.tolist()) + b"]}"
    )
    answer = client.post(
        "/vectors/search", content=text, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200, answer.text
    return answer


def _searches(
    client: httpx.Client, node: Node, queries: Array, truth: list[set[int]], figures: list[Figure]
) -> float:
    head = b'{"index":"mix","k":10,"vector":['
    kept = list(queries)
    bodies = {id(q): head + b",".join(b"%.8g" % x for x in q.tolist()) + b"]}" for q in kept}

    def ask(query: Array) -> list[int]:
        answer = client.post(
            "/vectors/search",
            content=bodies[id(query)],
            headers={"content-type": "application/json"},
        )
        return [int(hit["key"]) for hit in answer.json()["hits"]]

    p50, p99, recall = timed(ask, kept, truth)  # type: ignore[arg-type]
    figures += [
        Figure("http_p50_us", p50, f"a given vector, k 10, one client; recall {recall:.4f}"),
        Figure("http_p99_us", p99, "the same"),
        Figure("http_recall", recall, "of exact neighbours, through HTTP"),
    ]
    figures.append(Figure("grpc_p50_us", asyncio.run(_grpc(node, queries)), "the same over gRPC"))
    return float(p50)


async def _grpc(node: Node, queries: Array) -> float:
    from lakehouse.contracts.vectors import SearchRequest, VectorQuery
    from lakehouse.kit.clock import SystemClock
    from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
    from lakehouse.rpc.channel import open_channel
    from lakehouse.rpc.vectors import VectorsClient

    channel = open_channel(node.grpc)
    client = VectorsClient(channel, SystemClock())
    taken = []
    for query in queries[:ASKED]:
        request = SearchRequest("mix", (VectorQuery(vector=query.tobytes()),), K)
        began = time.perf_counter()
        await client.search(Context(ANONYMOUS_OPERATOR, "bench"), request)
        taken.append((time.perf_counter() - began) * 1e6)
    await channel.close(None)
    return statistics.median(taken[20:])


def _small(client: httpx.Client, rows: Array, figures: list[Figure]) -> None:
    """Appended rows that can be found, and one vector by id."""
    chance = np.random.default_rng(7)
    fresh = chance.standard_normal((APPENDED, DIMENSIONS)).astype(np.float32)
    fresh /= np.linalg.norm(fresh, axis=1, keepdims=True)
    headers = {"content-type": "application/vnd.apache.arrow.stream"}
    began = time.perf_counter()
    sent = client.post("/vectors/indexes/mix/vectors", content=body(ROWS, fresh), headers=headers)
    found = _search(client, fresh[7]).json()["hits"][0]["key"]
    figures.append(
        Figure(
            "append_ms",
            (time.perf_counter() - began) * 1000,
            f"{APPENDED} rows, until a search finds one",
        )
    )
    assert sent.status_code in (200, 201), sent.text
    assert int(found) == ROWS + 7
    taken = []
    for at in range(300):
        began = time.perf_counter()
        answer = client.get(f"/vectors/indexes/mix/vectors/{at}")
        taken.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200, answer.text
    figures.append(Figure("get_vector_ms", statistics.median(taken), "one vector by id, HTTP"))


def _peers(
    folder: Path, rows: Array, queries: Array, truth: list[set[int]], figures: list[Figure]
) -> float:
    import hnswlib

    began = time.perf_counter()
    graph = hnswlib.Index("cosine", DIMENSIONS)
    graph.init_index(ROWS, M=16, ef_construction=80, random_seed=100)
    graph.add_items(rows, num_threads=2)
    figures.append(
        Figure("hnswlib_build_seconds", time.perf_counter() - began, "bare hnswlib, two threads")
    )
    graph.set_ef(EF)
    graph.set_num_threads(1)
    p50, _, recall = timed(lambda q: list(map(int, graph.knn_query(q, K)[0][0])), queries, truth)
    figures.append(Figure("hnswlib_p50_us", p50, f"bare, in process, ef {EF}; recall {recall:.4f}"))
    _lance(folder, rows, queries, truth, figures)
    if importlib.util.find_spec("chromadb") is not None:
        _chroma(rows, queries, truth, figures)
    return float(p50)


def _lance(
    folder: Path, rows: Array, queries: Array, truth: list[set[int]], figures: list[Figure]
) -> None:
    os.environ.setdefault("LANCE_LOG", "error")
    import lancedb

    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), DIMENSIONS)
    began = time.perf_counter()
    table = lancedb.connect(str(folder / "lance")).create_table(
        "t", pa.table({"id": pa.array(range(ROWS)), "vector": flat})
    )
    table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1)
    figures.append(Figure("lance_build_seconds", time.perf_counter() - began, "Lance, IVF_HNSW_SQ"))

    def ask(query: Array) -> list[int]:
        found = table.search(query).metric("cosine").ef(EF).refine_factor(2).limit(K).select(["id"])
        return [int(n) for n in found.to_arrow().column("id").to_pylist()]

    p50, _, recall = timed(ask, queries, truth)
    figures.append(Figure("lance_p50_us", p50, f"Lance in process; recall {recall:.4f}"))


def _chroma(rows: Array, queries: Array, truth: list[set[int]], figures: list[Figure]) -> None:
    import chromadb

    client = chromadb.EphemeralClient()
    made = client.create_collection(
        "t",
        configuration={
            "hnsw": {"space": "cosine", "ef_construction": 80, "ef_search": EF, "max_neighbors": 16}
        },
    )
    began = time.perf_counter()
    for start in range(0, ROWS, 5_000):
        part = rows[start : start + 5_000]
        made.add(ids=[str(start + at) for at in range(len(part))], embeddings=part)  # type: ignore[arg-type]
    figures.append(Figure("chroma_build_seconds", time.perf_counter() - began, "Chroma in process"))

    def ask(query: Array) -> list[int]:
        found = made.query(query_embeddings=query[None, :], n_results=K, include=[])  # type: ignore[arg-type]
        return [int(n) for n in found["ids"][0]]

    p50, _, recall = timed(ask, queries, truth)
    figures.append(Figure("chroma_p50_us", p50, f"Chroma in process; recall {recall:.4f}"))
