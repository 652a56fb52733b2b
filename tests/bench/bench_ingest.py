"""Ingest of TPC-H lineitem as CSV, against DuckDB and pyarrow on the same file in the same run.

Each subject runs in a process of its own, in turn, so that memory is its own and noise is shared;
the best wall time of the rounds counts. ``spool`` is the way of a body to the spool disk alone.
``python tests/bench/bench_ingest.py [scale] [rounds]`` prints a line of JSON a subject.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.figures import Figure

_SUBJECTS = ("lakehouse", "duckdb_whole", "duckdb_default", "pyarrow", "spool")


def make_csv(folder: Path, scale: str) -> Path:
    """The lineitem table as CSV, seeded by its generator."""
    command = [str(Path(sys.executable).with_name("tpchgen-cli")), "csv", "-s", scale]
    command += ["--tables", "lineitem", f"--output-dir={folder}"]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("lineitem*.csv"))


def _duckdb(source: Path, work: Path, sniff: str) -> None:
    import duckdb

    target = work / "out.parquet"
    duckdb.sql(
        f"copy (select * from read_csv('{source}'{sniff})) to '{target}' "
        "(format parquet, compression zstd)"
    )


def _pyarrow(source: Path, work: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    table = pyarrow.csv.read_csv(str(source))
    pyarrow.parquet.write_table(table, work / "out.parquet", compression="zstd")


async def _chunks(source: Path) -> AsyncIterator[bytes]:
    with source.open("rb") as file:
        while chunk := file.read(1 << 18):
            yield chunk


async def _lakehouse(source: Path, work: Path) -> None:
    from lakehouse.catalogd.service import open_catalog
    from lakehouse.catalogd.settings import CatalogSettings
    from lakehouse.contracts.ingest import IngestRequest
    from lakehouse.ingestd.service import Ingest
    from lakehouse.ingestd.settings import IngestSettings
    from lakehouse.kit.clock import SystemClock
    from lakehouse.kit.ids import SystemIds
    from lakehouse.ledger.ledger import WriterInfo
    from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
    from lakehouse.objectstore.buckets import Buckets, BucketSettings
    from lakehouse.objectstore.identity import init_store

    clock = SystemClock()
    ids = SystemIds(clock)
    buckets = Buckets([BucketSettings("primary", f"file:{work}/bucket")], clock, ids)
    await init_store(buckets.get("primary"), clock, ids)
    catalog = await open_catalog(CatalogSettings(), buckets, WriterInfo("bench", ""), clock, ids)
    ingest = Ingest(IngestSettings(str(work / "spool")), catalog, buckets, clock, ids)
    await ingest.start()
    ctx = Context(ANONYMOUS_OPERATOR, "bench")
    await ingest.ingest(ctx, IngestRequest("lineitem"), _chunks(source))
    await ingest.close()
    await catalog.close()
    await buckets.close()


async def _spool(source: Path, work: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from lakehouse.ingestd.settings import IngestSettings
    from lakehouse.ingestd.spool import Spool
    from lakehouse.kit.clock import SystemClock
    from lakehouse.kit.ids import SystemIds

    spool = Spool(IngestSettings(str(work / "spool")), SystemIds(SystemClock()))
    spool.open()
    with ThreadPoolExecutor(2) as pool:
        await spool.receive(spool.new_folder(), _chunks(source), pool, [0])
    spool.close()


def run_subject(name: str, source: Path) -> dict[str, Any]:
    """One subject once, in this process."""
    import asyncio

    subjects: dict[str, Callable[[Path, Path], Any]] = {
        "lakehouse": lambda s, w: asyncio.run(_lakehouse(s, w)),
        "duckdb_whole": lambda s, w: _duckdb(s, w, ", sample_size=-1"),
        "duckdb_default": lambda s, w: _duckdb(s, w, ""),
        "pyarrow": _pyarrow,
        "spool": lambda s, w: asyncio.run(_spool(s, w)),
    }
    with tempfile.TemporaryDirectory() as work:
        started = time.perf_counter()
        subjects[name](source, Path(work))
        seconds = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = usage.ru_utime + usage.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": usage.ru_maxrss // 1024}


def measure(scale: str, rounds: int) -> dict[str, dict[str, Any]]:
    """The best of ``rounds`` of each subject, with its throughput in MB of CSV a second."""
    best: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source = make_csv(Path(folder), scale)
        for _ in range(rounds):
            for name in _SUBJECTS:
                command = [sys.executable, __file__, "--one", name, str(source)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                result = json.loads(done.stdout)
                result["mb_per_second"] = source.stat().st_size / result["seconds"] / 1e6
                if name not in best or result["seconds"] < best[name]["seconds"]:
                    best[name] = result
    return best


def run() -> list[Figure]:
    """The figures of budgets.toml, at scale 1."""
    from bench.figures import Figure

    best = measure("1", 2)
    ours = best["lakehouse"]["seconds"]
    note = "lineitem SF1 as CSV to a queryable dataset"
    return [
        Figure("ratio_duckdb_whole_file", ours / best["duckdb_whole"]["seconds"], note),
        Figure("ratio_duckdb_default", ours / best["duckdb_default"]["seconds"], note),
        Figure("ratio_pyarrow", ours / best["pyarrow"]["seconds"], note),
        Figure("mb_per_second", best["lakehouse"]["mb_per_second"], note),
        Figure("peak_mib", best["lakehouse"]["peak_mb"], note),
        Figure("spool_mb_per_second", best["spool"]["mb_per_second"], "bytes to the spool disk"),
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(run_subject(sys.argv[2], Path(sys.argv[3]))))
    else:
        scale, rounds = [*sys.argv[1:], "1", "3"][:2] if len(sys.argv) != 2 else (sys.argv[1], "3")
        for subject, result in measure(scale, int(rounds)).items():
            print(json.dumps({"subject": subject, "scale": scale, **result}), flush=True)
