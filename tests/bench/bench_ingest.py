"""TPC-H lineitem as CSV to a queryable dataset, against DuckDB's COPY on the same file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import duckdb

from bench.figures import Figure, resident_mib
from e2e.nodes import Node, running

SCALE = os.environ.get("LAKEHOUSE_BENCH_SCALE", "0.2")


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        program = Path(sys.executable).with_name("tpchgen-cli")
        subprocess.run([program, "csv", "-s", SCALE, "--tables", "lineitem", "--output-dir", place],
                       check=True, capture_output=True)  # fmt: skip
        file = next(place.rglob("lineitem*.csv"))
        node = Node(place / "node", place / "bucket")
        with running(node):
            node.start()
            ours, whole, default, peak = [], [], [], 0.0
            for number in range(3):
                seconds, seen = _ours(node, file, f"lineitem_{number}")
                ours.append(seconds)
                peak = max(peak, seen)
                whole.append(_duckdb(file, place / "out.parquet", ", sample_size=-1"))
                default.append(_duckdb(file, place / "out.parquet", ""))
        mine = sorted(ours)[1]
        size = f"{file.stat().st_size / 1e6:.0f} MB"
        return [
            Figure("ratio_duckdb_whole_file", mine / sorted(whole)[1], f"{size}, {mine:.2f} s"),
            Figure("ratio_duckdb_default", mine / sorted(default)[1], "its sampled inference"),
            Figure("peak_mib", peak, "the node and its query worker"),
        ]


def _ours(node: Node, file: Path, name: str) -> tuple[float, float]:
    """Seconds to a queryable dataset, and the most memory seen meanwhile."""
    assert node.process is not None
    pid, peak, done = node.process.pid, [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            peak[0] = max(peak[0], resident_mib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    answer = node.cli("ingest", str(file), "--dataset", name, "--json")
    seconds = time.perf_counter() - began
    done.set()
    watcher.join()
    assert answer.returncode == 0, answer.stderr.decode()
    assert json.loads(answer.stdout)["rows"] > 0
    return seconds, peak[0]


def _duckdb(file: Path, out: Path, options: str) -> float:
    began = time.perf_counter()
    with duckdb.connect() as connection:
        connection.execute(
            f"copy (from read_csv('{file}'{options})) to '{out}' (format parquet, compression zstd)"
        )
    return time.perf_counter() - began
