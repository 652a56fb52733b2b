"""One row by key through HTTP, of ten million that lie in the order of their key; and compaction.

The keys are drawn at random. Warm: the row groups that are asked were decoded before. Compaction
folds a tenth of a million rows and their changes into the base, in full, beside readers.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from bench.figures import Figure, resident_mib
from e2e.nodes import Node, running

ROWS: Final = 10_000_000
BLOCK: Final = 500_000
ASKED: Final = 300
CHANGES: Final = 40
BATCH: Final = 2_500


def write(path: Path) -> None:
    schema = pa.schema([("id", pa.int64()), ("name", pa.string()), ("score", pa.float64())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, ROWS, BLOCK):
            ids = pa.array(range(start, start + BLOCK), pa.int64())
            names = pa.array([f"person {at}" for at in range(start, start + BLOCK)])
            writer.write_table(pa.table([ids, names, ids.cast(pa.float64())], schema=schema))


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "people.parquet"
        write(path)
        node = Node(Path(place) / "node", Path(place) / "bucket")
        with running(node), httpx.Client(base_url=node.url, timeout=900) as client:
            node.start()
            headers = {"Content-Type": "application/vnd.apache.parquet"}
            with path.open("rb") as body:
                made = client.post("/ingest/datasets/p?key=id", content=body, headers=headers)
            assert made.status_code == 201, made.text
            return [*_points(client), *_compaction(node, client, path.stat().st_size)]


def _points(client: httpx.Client) -> list[Figure]:
    chance = random.Random(5)
    began = time.perf_counter()
    _ask(client, chance.randrange(ROWS))
    cold = time.perf_counter() - began
    for at in range(0, ROWS, 100_000):
        _ask(client, at)
    taken = sorted(_ask(client, chance.randrange(ROWS)) for _ in range(ASKED))
    return [
        Figure("point_p50_ms", statistics.median(taken) * 1000, f"warm, of {ROWS:,} rows, HTTP"),
        Figure("point_p99_ms", taken[int(ASKED * 0.99)] * 1000, "the same"),
        Figure("point_first_seconds", cold, "the first row asked of a node that just ingested"),
    ]


def _ask(client: httpx.Client, key: int) -> float:
    began = time.perf_counter()
    answer = client.get(f"/datasets/p/rows/{key}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["row"]["id"] == key
    return time.perf_counter() - began


def _compaction(node: Node, client: httpx.Client, size_bytes: int) -> list[Figure]:
    chance = random.Random(6)
    for _ in range(CHANGES):
        rows = [{"id": k, "name": "new", "score": 0.5} for k in chance.sample(range(ROWS), BATCH)]
        assert client.post("/ingest/datasets/p/rows", json=rows).status_code == 200
    assert node.process is not None
    before = resident_mib(node.process.pid)
    began = time.perf_counter()
    done = client.post("/ingest/datasets/p/compact?full=true")
    seconds = time.perf_counter() - began
    assert done.status_code == 200, done.text
    assert done.json()["rows"] == ROWS
    grown = max(0.0, resident_mib(node.process.pid) - before)
    return [
        Figure("compact_rows_per_second", ROWS / seconds, f"{ROWS:,} rows, 100,000 changed"),
        Figure("compact_grown_mib", grown, f"after it; the rows are {size_bytes >> 20} MiB"),
    ]
