"""22 TPC-H queries: bare DataFusion, bare DuckDB, and a node on each and on auto, over HTTP.

``python tests/bench/bench_scan.py [scale] [repeats]`` writes one line of JSON. Peers run in the
same process run, interleaved, on the same Parquet files, results read to the end as Arrow. Next to
wall seconds stand CPU seconds (this process and all of the node's), which a busy machine disturbs
less.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import datafusion
import duckdb
import httpx
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.figures import Figure
from bench.tpch import QUERIES
from e2e.nodes import Node, running

THREADS = os.cpu_count() or 1
Runner = Callable[[str], Awaitable[int]]


def make_data(scale: float) -> Path:
    """TPC-H files of ``scale`` in the system's temporary folder, made once."""
    folder = Path(tempfile.gettempdir()) / f"lakehouse-tpch-{scale:g}"
    if not (folder / "lineitem.parquet").exists():
        tool = Path(sys.executable).parent / "tpchgen-cli"
        command = [str(tool), "parquet", "-s", f"{scale:g}", f"--output-dir={folder}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def register(node: Node, path: Path) -> None:
    """The file as a dataset of the node, left where it is: in its bucket under another name."""
    object_key = f"imports/{path.name}"
    body = {
        "name": path.stem,
        "objects": [{"key": object_key, "bucket": "primary"}],
        "card": {"owner": "bench", "description": "a table of TPC-H"},
    }
    answer = httpx.post(f"{node.url}/catalog/datasets", json=body, timeout=120)
    assert answer.status_code == 201, answer.text


def bare_datafusion(folder: Path) -> Runner:
    config = datafusion.SessionConfig({"datafusion.sql_parser.parse_float_as_decimal": "true"})
    context = datafusion.SessionContext(config.with_target_partitions(THREADS))
    for path in folder.glob("*.parquet"):
        context.register_parquet(path.stem, str(path))

    async def run(sql: str) -> int:
        reader = pa.RecordBatchReader.from_stream(context.sql(sql))
        return int(sum(batch.num_rows for batch in reader))

    return run


def bare_duckdb(folder: Path) -> Runner:
    connection = duckdb.connect(config={"threads": THREADS})
    for path in folder.glob("*.parquet"):
        connection.execute(f"create view {path.stem} as select * from read_parquet('{path}')")

    async def run(sql: str) -> int:
        reader = connection.sql(sql).to_arrow_reader()
        return int(sum(batch.num_rows for batch in reader))

    return run


def service(client: httpx.AsyncClient, engine: str) -> Runner:
    async def run(sql: str) -> int:
        answer = await client.post("/query/sql", json={"sql": sql, "engine": engine})
        assert answer.status_code == 200, answer.text
        return int(pa.ipc.open_stream(answer.content).read_all().num_rows)

    return run


def cpu_seconds(node: Node) -> float:
    """Of this process and of the node with all its children, ended ones included (Linux)."""
    assert node.process is not None
    ticks: dict[int, int] = {}
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        ticks[pid] = sum(int(field) for field in fields[11:15])
    own, found = {node.process.pid}, 0
    while len(own) > found:
        found = len(own)
        own |= {pid for pid, parent in parents.items() if parent in own}
    spent = sum(ticks.get(pid, 0) for pid in own)
    return time.process_time() + spent / os.sysconf("SC_CLK_TCK")


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


Measured = dict[int, dict[str, float]]


def measure(folder: Path, repeats: int) -> tuple[Measured, Measured]:
    """Median wall and least CPU seconds by query and peer."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        bucket = Path(scratch) / "bucket"
        settings = {
            "LAKEHOUSE__QUERY__THREADS": str(THREADS),
            "LAKEHOUSE__QUERY__MEMORY_BYTES_MAX": str(4 << 30),
            "LAKEHOUSE__QUERY__TIMEOUT_SECONDS": "120",
        }
        node = Node(Path(scratch) / "node", bucket, settings=settings)
        with running(node):
            node.start()
            (bucket / "imports").mkdir()
            for path in sorted(folder.glob("*.parquet")):
                os.link(path.resolve(), bucket / "imports" / path.name)
                register(node, path)
            return asyncio.run(_measure(node, folder, repeats))


async def _measure(node: Node, folder: Path, repeats: int) -> tuple[Measured, Measured]:
    times: Measured = {}
    used: Measured = {}
    headers = {"accept": "application/vnd.apache.arrow.stream"}
    async with httpx.AsyncClient(base_url=node.url, headers=headers, timeout=120) as client:
        runners = {
            "datafusion": bare_datafusion(folder),
            "duckdb": bare_duckdb(folder),
            "lakehouse_datafusion": service(client, "datafusion"),
            "lakehouse_duckdb": service(client, "duckdb"),
            "lakehouse_auto": service(client, "auto"),
        }
        for number, sql in QUERIES.items():
            seen: dict[str, list[float]] = {name: [] for name in runners}
            spent: dict[str, list[float]] = {name: [] for name in runners}
            rows = {await runner(sql) for runner in runners.values()}
            if len(rows) != 1:
                raise SystemExit(f"query {number}: different numbers of rows: {rows}")
            for _ in range(repeats):
                for name, runner in runners.items():
                    before, begun = cpu_seconds(node), time.perf_counter()
                    await runner(sql)
                    seen[name].append(time.perf_counter() - begun)
                    spent[name].append(cpu_seconds(node) - before)
            used[number] = {name: min(v) for name, v in spent.items()}
            times[number] = {name: statistics.median(v) for name, v in seen.items()}
    return times, used


def summary(scale: float, times: Measured, used: Measured) -> dict[str, Any]:
    def ratio(one: str, other: str, by: Measured = times) -> float:
        return round(geometric_mean([t[one] / t[other] for t in by.values()]), 3)

    better = {n: min(t["datafusion"], t["duckdb"]) for n, t in times.items()}
    auto = {n: round(t["lakehouse_auto"] / better[n], 3) for n, t in times.items()}
    ours = {n: min(t["lakehouse_datafusion"], t["lakehouse_duckdb"]) for n, t in times.items()}
    added = {
        n: round(1000 * (t["lakehouse_datafusion"] - t["datafusion"]), 1) for n, t in times.items()
    }
    return {
        "subject": "scan",
        "scale": scale,
        "machine": f"{platform.machine()} {THREADS} cores",
        "total_seconds": {
            name: round(sum(t[name] for t in times.values()), 3) for name in times[1]
        },
        "lakehouse_datafusion/datafusion": ratio("lakehouse_datafusion", "datafusion"),
        "lakehouse_duckdb/duckdb": ratio("lakehouse_duckdb", "duckdb"),
        "lakehouse_auto/datafusion": ratio("lakehouse_auto", "datafusion"),
        "auto/better_bare": auto,
        "auto/better_of_ours": {
            n: round(t["lakehouse_auto"] / ours[n], 3) for n, t in times.items()
        },
        "added_ms": added,
        "cpu_lakehouse_duckdb/duckdb": ratio("lakehouse_duckdb", "duckdb", used),
        "cpu_lakehouse_datafusion/datafusion": ratio("lakehouse_datafusion", "datafusion", used),
        "cpu_duckdb/datafusion": ratio("duckdb", "datafusion", used),
        "duckdb_is_better": sum(t["duckdb"] <= t["datafusion"] for t in used.values()),
        "cpu_seconds": {n: {k: round(v, 3) for k, v in t.items()} for n, t in used.items()},
        "seconds": {n: {k: round(v, 4) for k, v in t.items()} for n, t in times.items()},
    }


def run() -> list[Figure]:
    """The figures of budgets.toml, at scale 1."""
    found = summary(1.0, *measure(make_data(1.0), 5))
    note = "22 queries at SF1 over HTTP as Arrow, geometric mean of medians of 5"
    auto = found["auto/better_of_ours"]
    worst = max(auto, key=auto.get)
    most = max(found["added_ms"], key=found["added_ms"].get)
    return [
        *(
            Figure(name, found[name], note)
            for name in (
                "lakehouse_datafusion/datafusion",
                "lakehouse_duckdb/duckdb",
                "cpu_lakehouse_datafusion/datafusion",
                "cpu_lakehouse_duckdb/duckdb",
            )
        ),
        Figure("added_ms_median", statistics.median(found["added_ms"].values()), "wall, a query"),
        Figure("added_ms_most", found["added_ms"][most], f"wall, query {most}"),
        Figure("auto/better_engine_most", auto[worst], f"query {worst}"),
    ]


def main() -> None:
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print(json.dumps(summary(scale, *measure(make_data(scale), repeats))))


if __name__ == "__main__":
    main()
