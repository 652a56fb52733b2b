"""The gateway at 64 clients on one core: health, a card of the catalog, a small SELECT.

The node runs as people run it, uvloop and httptools included. It and its query workers are kept
to one core; the client has another, where there is one.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvloop

from bench.figures import Figure
from bench.http_load import CLIENTS, Load, get, load, post
from e2e.nodes import PEOPLE_CSV, Node, running

SECONDS: Final = 4.0
WARM_SECONDS: Final = 1.0
NOTE: Final = f"{CLIENTS} clients"
REQUESTS: Final = {
    "health": get("/health"),
    "catalog_get": get("/catalog/datasets/people"),
    "select": post("/query/sql", b'{"sql": "select id, name from people"}'),
}


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory() as place:
        node = Node(Path(place) / "node", Path(place) / "bucket")
        cores = sorted(os.sched_getaffinity(0))
        with running(node):
            try:
                # What it starts inherits the core.
                os.sched_setaffinity(0, cores[:1])
                node.start()
                os.sched_setaffinity(0, cores[1:] or cores)
                assert node.ingest("people", PEOPLE_CSV).status_code == 201
                return list(_figures(node.http_port))
            finally:
                os.sched_setaffinity(0, cores)


def _figures(port: int) -> Iterator[Figure]:
    for name, request in REQUESTS.items():
        _run(port, request, WARM_SECONDS)
        seen = _run(port, request, SECONDS)
        assert seen.failures == 0, f"{name}: {seen}"
        yield Figure(f"{name}_per_second", seen.per_second, NOTE)
        yield Figure(f"{name}_p50_ms", seen.p50_ms, NOTE)
        yield Figure(f"{name}_p99/p50", seen.p99_ms / seen.p50_ms, NOTE)


def _run(port: int, request: bytes, seconds: float) -> Load:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(load(port, request, seconds))
