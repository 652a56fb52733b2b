"""Vector search over 100,000 x 768 through HTTP and gRPC, against bare hnswlib, Lance and Chroma.

The mixture: 2,000 centres, each with a 16-dimensional subspace of its own out of 64 shared bases.
Exact neighbours by NumPy are the oracle; recall stands beside each latency. What is searched over
HTTP is asked by turns with bare hnswlib, so that a machine that is busy with others is as busy for
both; and by a connection of its own, for a client library in Python takes as long as the answer.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import orjson
import pyarrow as pa

from bench.figures import Figure, resident_mib
from bench.http_load import get, post
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
TURN: Final = 50

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


Ask = Callable[[int], list[int]]


def timed(truth: list[set[int]], *asks: Ask) -> list[tuple[float, float, float]]:
    """(p50 in us, p99 in us, recall) of each of ``asks``, warm, by turns. They are given the number
    of a query."""
    taken: list[list[float]] = [[] for _ in asks]
    right = [0 for _ in asks]
    for ask in asks:
        for at in range(ASKED, ASKED + 20):
            ask(at)
    for start in range(0, ASKED, TURN):
        for number, ask in enumerate(asks):
            for at in range(start, min(ASKED, start + TURN)):
                began = time.perf_counter()
                got = ask(at)
                taken[number].append((time.perf_counter() - began) * 1e6)
                right[number] += len(truth[at] & set(got))
    return [
        (statistics.median(one), sorted(one)[int(len(one) * 0.99)], found / (ASKED * K))
        for one, found in zip(taken, right, strict=True)
    ]


class Kept:
    """A connection of HTTP/1.1 that is kept, and one request at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """The body of the answer, which must be a 200."""
        self._socket.sendall(request)
        seen = self._more()
        while b"\r\n\r\n" not in seen:
            seen += self._more()
        head, _, body = seen.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += self._more()
        assert head.startswith(b"HTTP/1.1 200 "), seen[:500]
        return body

    def _more(self) -> bytes:
        received = self._socket.recv(1 << 16)
        assert received, "the server closed the connection"
        return received

    def p50_us(self, request: bytes, times: int = 300) -> float:
        taken = []
        for _ in range(times):
            began = time.perf_counter()
            self.ask(request)
            taken.append((time.perf_counter() - began) * 1e6)
        return statistics.median(taken)


def run() -> list[Figure]:
    rows, queries = mixture()
    truth = nearest(rows, queries)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bare = _bare(rows, queries, figures)
        node = Node(
            folder / "node", folder / "bucket", settings={"LAKEHOUSE__NODE__LOG_LEVEL": "warning"}
        )
        with running(node), httpx.Client(base_url=node.url, timeout=600) as client:
            node.start()
            _build(client, node, rows, figures)
            _searches(node, queries, truth, bare, figures)
            _small(client, node, rows, figures)
        _lance(folder, rows, queries, truth, figures)
        if importlib.util.find_spec("chromadb") is not None:
            _chroma(rows, queries, truth, figures)
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
    while len(client.get("/vectors/indexes/mix").json()["versions"][0]["structures"]) > 1:
        assert time.perf_counter() < until, "the graphs were not merged"
        time.sleep(0.5)
    figures.append(
        Figure(
            "rested_seconds",
            time.perf_counter() - began,
            "until the two graphs that were built beside each other are one",
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
    node: Node, queries: Array, truth: list[set[int]], bare: Ask, figures: list[Figure]
) -> None:
    head = b'{"index":"mix","k":10,"vector":['
    requests = [
        post("/vectors/search", head + b",".join(b"%.8g" % x for x in q.tolist()) + b"]}")
        for q in queries
    ]
    kept = Kept(node.http_port)

    def ask(at: int) -> list[int]:
        return [int(hit["key"]) for hit in orjson.loads(kept.ask(requests[at]))["hits"]]

    alone, ours = timed(truth, bare, ask)
    figures += [
        Figure("hnswlib_p50_us", alone[0], f"bare, in process, ef {EF}; recall {alone[2]:.4f}"),
        Figure("http_p50_us", ours[0], f"a given vector, k 10, one client; recall {ours[2]:.4f}"),
        Figure("http_p99_us", ours[1], "the same"),
        Figure("http_recall", ours[2], "of exact neighbours, through HTTP"),
        Figure("http_over_hnswlib_us", ours[0] - alone[0], "p50 of HTTP less that of bare hnswlib"),
        Figure("health_p50_us", kept.p50_us(get("/health")), "what an HTTP call takes by itself"),
        Figure("grpc_p50_us", asyncio.run(_grpc(node, queries)), "a given vector over gRPC"),
    ]


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


def _small(client: httpx.Client, node: Node, rows: Array, figures: list[Figure]) -> None:
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
    kept, taken = Kept(node.http_port), []
    for at in range(300):
        began = time.perf_counter()
        kept.ask(get(f"/vectors/indexes/mix/vectors/{at}"))
        taken.append((time.perf_counter() - began) * 1000)
    figures.append(Figure("get_vector_ms", statistics.median(taken), "one vector by id, HTTP"))


def _bare(rows: Array, queries: Array, figures: list[Figure]) -> Ask:
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
    return lambda at: list(map(int, graph.knn_query(queries[at], K)[0][0]))


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

    def ask(at: int) -> list[int]:
        query = queries[at]
        found = table.search(query).metric("cosine").ef(EF).refine_factor(2).limit(K).select(["id"])
        return [int(n) for n in found.to_arrow().column("id").to_pylist()]

    ((p50, _, recall),) = timed(truth, ask)
    figures.append(Figure("lance_p50_us", p50, f"Lance in process; recall {recall:.4f}"))


def _chroma(rows: Array, queries: Array, truth: list[set[int]], figures: list[Figure]) -> None:
    import chromadb

    client = chromadb.EphemeralClient(chromadb.Settings(anonymized_telemetry=False))
    made = client.create_collection(
        "mixture",
        embedding_function=None,
        configuration={
            "hnsw": {"space": "cosine", "ef_construction": 80, "ef_search": EF, "max_neighbors": 16}
        },
    )
    began = time.perf_counter()
    for start in range(0, ROWS, 5_000):
        part = rows[start : start + 5_000]
        made.add(ids=[str(start + at) for at in range(len(part))], embeddings=part)
    figures.append(Figure("chroma_build_seconds", time.perf_counter() - began, "Chroma in process"))

    def ask(at: int) -> list[int]:
        found = made.query(query_embeddings=queries[at : at + 1], n_results=K, include=[])
        return [int(n) for n in found["ids"][0]]

    ((p50, _, recall),) = timed(truth, ask)
    figures.append(Figure("chroma_p50_us", p50, f"Chroma in process; recall {recall:.4f}"))
