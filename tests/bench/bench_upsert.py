"""Row changes: commits of 100 rows into a million, against delta-rs, Lance and PyIceberg.

Ours go through HTTP to a node on a local bucket, every object synced to disk, with an event for
each changed field; the peers write files in this process. Interleaved, in one run. Then the whole
table is read on both engines beside a dataset of the same rows without changes.
"""

from __future__ import annotations

import io
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from bench.figures import Figure
from bench.upsert_peers import PEERS, Peer
from e2e.nodes import Node, running

ROWS: Final = 1_000_000
BATCH: Final = 100
COMMITS: Final = 1_000
PEER_COMMITS: Final = 12
ROUNDS: Final = 4
SCANS: Final = 7
SQL: Final = "select count(*), sum(score), min(phone), max(name) from {}"


def rows_of(keys: list[int], salt: int) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(keys, pa.int64()),
            "name": [f"person {key}" for key in keys],
            "phone": [f"+49 351 {key * 7919 + salt:09d}" for key in keys],
            "score": pa.array([float(key % 1000) + salt for key in keys], pa.float64()),
        }
    )


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


class Ours:
    """A node over HTTP; ``p`` is changed, ``q`` stays as it was."""

    name = "ours"

    def __init__(self, node: Node, base: pa.Table) -> None:
        self.client = httpx.Client(base_url=node.url, timeout=600)
        body, headers = parquet(base), {"Content-Type": "application/vnd.apache.parquet"}
        for name in ("p", "q"):
            made = self.client.post(
                f"/ingest/datasets/{name}?key=id", content=body, headers=headers
            )
            assert made.status_code == 201, made.text
        self.upsert(rows_of([0], 1))

    def upsert(self, rows: pa.Table) -> None:
        done = self.client.post(
            "/ingest/datasets/p/rows",
            content=arrow(rows),
            headers={"Content-Type": "application/vnd.apache.arrow.stream"},
        )
        assert done.status_code == 200, done.text

    insert = upsert

    def scan(self, name: str, engine: str) -> float:
        began = time.perf_counter()
        done = self.client.post("/query/sql", json={"sql": SQL.format(name), "engine": engine})
        assert done.status_code == 200, done.text
        return time.perf_counter() - began


def rate(change: Callable[[pa.Table], None], batches: list[pa.Table]) -> float:
    began = time.perf_counter()
    for batch in batches:
        change(batch)
    return len(batches) / (time.perf_counter() - began)


def run() -> list[Figure]:
    chance = random.Random(4)
    base = rows_of(list(range(ROWS)), 0)
    fresh = ROWS
    with tempfile.TemporaryDirectory() as place:
        node = Node(Path(place) / "node", Path(place) / "bucket")
        with running(node):
            node.start()
            ours = Ours(node, base)
            peers: list[Peer] = [peer(Path(place), base) for peer in PEERS]
            rates: dict[tuple[str, str], list[float]] = {}
            for turn in range(ROUNDS):
                for each in (ours, *peers):
                    count = COMMITS // (2 * ROUNDS) if each is ours else PEER_COMMITS // ROUNDS
                    added = [
                        rows_of(list(range(at, at + BATCH)), 0)
                        for at in range(fresh, fresh + count * BATCH, BATCH)
                    ]
                    fresh += count * BATCH
                    changed = [
                        rows_of(chance.sample(range(ROWS), BATCH), turn + 1) for _ in range(count)
                    ]
                    rates.setdefault((each.name, "insert"), []).append(rate(each.insert, added))
                    rates.setdefault((each.name, "upsert"), []).append(rate(each.upsert, changed))
            return [*_rates(rates), *_scans(ours)]


def _rates(rates: dict[tuple[str, str], list[float]]) -> list[Figure]:
    found = []
    for kind in ("insert", "upsert"):
        middle = {name: statistics.median(all_) for (name, k), all_ in rates.items() if k == kind}
        best = max(value for name, value in middle.items() if name != "ours")
        others = ", ".join(f"{name} {value:.1f}" for name, value in middle.items())
        found += [
            Figure(f"{kind}s_per_second", middle["ours"], f"commits of {BATCH} rows: {others}"),
            Figure(f"{kind}/best_peer", middle["ours"] / best, "commits a second"),
        ]
    return found


def _scans(ours: Ours) -> list[Figure]:
    found = []
    for engine in ("datafusion", "duckdb"):
        cold = ours.scan("p", engine) / ours.scan("q", engine)
        times = [(ours.scan("p", engine), ours.scan("q", engine)) for _ in range(SCANS)]
        changed, plain = (statistics.median(each) for each in zip(*times, strict=True))
        note = f"{plain * 1000:.1f} ms without changes, {changed * 1000:.1f} ms with"
        found.append(Figure(f"scan_warm_ratio_{engine}", changed / plain, note))
        found.append(Figure(f"scan_cold_ratio_{engine}", cold, "the first of each"))
    return found
