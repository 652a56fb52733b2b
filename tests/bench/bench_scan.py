"""22 TPC-H queries: bare DataFusion, bare DuckDB, and the query service on each and on auto.

``python tests/bench/bench_scan.py [scale] [repeats]`` writes one line of JSON. Peers run in the
same process run, interleaved, on the same Parquet files, results read to the end as Arrow. Next to
wall seconds stand CPU seconds (this process and the workers), which a busy machine disturbs less.
"""

from __future__ import annotations

import asyncio
import hashlib
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
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.tpch import QUERIES
from lakehouse.contracts.catalog import DatasetSnapshot
from lakehouse.contracts.query import Engine, QueryRequest, ResultFormat
from lakehouse.model.dataset import Card, DataFile, Dataset, DatasetStatus
from lakehouse.queryd.service import Query
from lakehouse.table.types import schema_from_arrow
from unit.queryd.fake_catalog import CTX, WHEN, FakeCatalog, make_query

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


def register(catalog: FakeCatalog, path: Path) -> None:
    """The file as a dataset of the fake catalog, in place."""
    data = path.read_bytes()
    file = DataFile(
        path.name,
        len(data),
        pq.read_metadata(path).num_rows,
        hashlib.sha256(data).hexdigest(),
    )
    schema = schema_from_arrow(pq.read_schema(path))
    catalog.version += 1
    dataset = Dataset(
        path.stem, path.stem, "", schema, DatasetStatus.LIVE, Card(), WHEN, WHEN,
        catalog.version, 1, len(data), file.rows,
    )  # fmt: skip
    state = {**catalog.states[-1], path.stem: DatasetSnapshot(dataset, (file,), (schema,))}
    catalog.states.append(state)


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


def service(query: Query, engine: Engine) -> Runner:
    async def run(sql: str) -> int:
        request = QueryRequest(sql, engine=engine, format=ResultFormat.ARROW)
        stream = await query.run(CTX, request)
        body = b"".join([chunk async for chunk in stream.chunks])
        return int(pa.ipc.open_stream(body).read_all().num_rows)

    return run


def cpu_seconds(query: Query) -> float:
    """Of this process and of the query workers it has now (Linux)."""
    total = time.process_time()
    for worker in query._pool._all:
        fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


Measured = dict[int, dict[str, float]]


async def measure(folder: Path, repeats: int) -> tuple[Measured, Measured]:
    """Median wall and least CPU seconds by query and peer."""
    times: Measured = {}
    used: Measured = {}
    with tempfile.TemporaryDirectory() as scratch:
        catalog = FakeCatalog(folder)
        for path in sorted(folder.glob("*.parquet")):
            register(catalog, path)
        query, _ = make_query(
            Path(scratch), catalog, threads=THREADS, memory_bytes_max=4 << 30, timeout_seconds=120.0
        )
        await query.start()
        runners = {
            "datafusion": bare_datafusion(folder),
            "duckdb": bare_duckdb(folder),
            "lakehouse_datafusion": service(query, Engine.DATAFUSION),
            "lakehouse_duckdb": service(query, Engine.DUCKDB),
            "lakehouse_auto": service(query, Engine.AUTO),
        }
        try:
            for number, sql in QUERIES.items():
                seen: dict[str, list[float]] = {name: [] for name in runners}
                spent: dict[str, list[float]] = {name: [] for name in runners}
                rows = {await runner(sql) for runner in runners.values()}
                if len(rows) != 1:
                    raise SystemExit(f"query {number}: different numbers of rows: {rows}")
                for _ in range(repeats):
                    for name, runner in runners.items():
                        before, begun = cpu_seconds(query), time.perf_counter()
                        await runner(sql)
                        seen[name].append(time.perf_counter() - begun)
                        spent[name].append(cpu_seconds(query) - before)
                used[number] = {name: min(v) for name, v in spent.items()}
                times[number] = {name: statistics.median(v) for name, v in seen.items()}
        finally:
            await query.close()
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


def main() -> None:
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    times, used = asyncio.run(measure(make_data(scale), repeats))
    print(json.dumps(summary(scale, times, used)))


if __name__ == "__main__":
    main()
