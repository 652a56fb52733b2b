"""A node that is killed in the middle of a run of trials: nothing that was tried is lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from e2e.nodes import Node, running

pytestmark = pytest.mark.flaky(reruns=1)

ROWS = 3_000
DIMENSIONS = 32
SECONDS_MAX = 60.0


def body() -> bytes:
    rows = np.random.default_rng(5).normal(size=(ROWS, DIMENSIONS)).astype(np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), DIMENSIONS)
    table = pa.table({"id": pa.array([str(at) for at in range(ROWS)]), "vector": flat})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def asked(client: httpx.Client, method: str, path: str, **how: Any) -> Any:
    answer = client.request(method, path, **how)
    assert answer.status_code < 300, f"{method} {path}: {answer.text}"
    return answer.json()


def until(client: httpx.Client, run: str, what: Any) -> Any:
    end = time.monotonic() + SECONDS_MAX
    while time.monotonic() < end:
        report = asked(client, "GET", f"/hnsw/runs/{run}")
        if what(report):
            return report
        time.sleep(0.02)
    raise AssertionError(report)


def test_what_was_tried_is_there_after_a_kill_and_the_run_is_told_as_failed(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path / "node", tmp_path / "bucket")
    arrow = {"content-type": "application/vnd.apache.arrow.stream"}
    tune = {
        "index": "points",
        "m": [8, 16, 32, 64],
        "ef_construction": [100, 200, 400, 800],
        "ef": [20, 40, 80],
        "exhaustive": True,
        "budget_seconds": 600,
    }
    with running(node), httpx.Client(base_url=node.url, timeout=60) as client:
        node.start()
        asked(client, "PUT", "/profiles/graphs", json={"exact_rows_max": 100})
        index = {"name": "points", "profile": "graphs", "dimensions": DIMENSIONS}
        asked(client, "POST", "/vectors/indexes", json=index)
        asked(client, "POST", "/vectors/indexes/points/vectors", content=body(), headers=arrow)
        run = asked(client, "POST", "/hnsw/autotune", json=tune)["run"]
        before = until(client, run, lambda report: len(report["trials"]) >= 4)
        assert before["state"] == "running"
        node.kill()
        node.start()
        after = asked(client, "GET", f"/hnsw/runs/{run}")
        assert (after["state"], after["index"]) == ("failed", "points")
        assert after["error"]
        assert {one["id"] for one in before["trials"]} <= {one["id"] for one in after["trials"]}
        listed = asked(client, "GET", f"/hnsw/trials?run={run}&limit=1000")
        assert {one["id"] for one in listed["trials"]} == {one["id"] for one in after["trials"]}
        again = asked(client, "GET", f"/hnsw/runs/{run}")
        assert again["state"] == "failed"
        # Another run may begin, and ends when the node is stopped; that is told too.
        second = asked(client, "POST", "/hnsw/autotune", json=tune)["run"]
        until(client, second, lambda report: report["trials"])
        assert node.stop() == 0
        node.start()
        stopped = asked(client, "GET", f"/hnsw/runs/{second}")
        assert stopped["state"] == "failed"
        assert "stopped" in stopped["error"]
        assert stopped["trials"]
        trial = next(one for one in after["trials"] if one["recall"] > 0.5)
        asked(client, "POST", f"/hnsw/trials/{trial['id']}/promote")
        shown = asked(client, "GET", "/vectors/indexes/points")
        profile = shown["versions"][0]["profile"]
        assert (profile["hnsw_m"], profile["ef_search"]) == (trial["m"], trial["ef"])
