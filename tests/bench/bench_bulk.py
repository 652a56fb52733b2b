"""Bulk: a gigabyte up by HTTP, and how soon a large result begins.

The upload is a file that nobody has to understand, refused after the last byte has reached the
spool: what is measured is the way to the spool disk, not the reading of it. The disk itself is
measured beside it. The first row is that of a result of five million, as NDJSON.
"""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

from bench.figures import Figure
from e2e.nodes import Node, running

SIZE: Final = 1 << 30
CHUNK: Final = bytes(range(256)) * (1 << 12)
ROWS: Final = 5_000_000
FIRST_BYTES: Final = 64


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory() as place:
        node = Node(Path(place) / "node", Path(place) / "bucket")
        with running(node):
            node.start()
            disk = _disk_mb_per_second(Path(place) / "disk")
            seconds = [_upload(node) for _ in range(3)]
            upload = SIZE / min(seconds) / 1e6
            return [
                Figure("upload_mb_per_second", upload, "1 GiB by HTTP to the spool, best of 3"),
                Figure("upload/disk", upload / disk, "against write and fsync of the same bytes"),
                *_first_row(node),
            ]


def _body() -> Iterator[bytes]:
    for _ in range(SIZE // len(CHUNK)):
        yield CHUNK


def _disk_mb_per_second(path: Path) -> float:
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for chunk in _body():
            file.write(chunk)
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return SIZE / seconds / 1e6


def _upload(node: Node) -> float:
    """Seconds until the last byte was answered; bytes of no format are refused by then."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", node.http_port)) as connection:
        head = (
            "POST /ingest/datasets/bulk?format=parquet HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            f"content-type: application/octet-stream\r\ncontent-length: {SIZE}\r\n\r\n"
        )
        connection.sendall(head.encode())
        for chunk in _body():
            connection.sendall(chunk)
        answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 400"), answer[:300]
    return time.perf_counter() - began


def _first_row(node: Node) -> Iterator[Figure]:
    body = b"n,s\n" + b"".join(b"%d,row %d\n" % (n, n) for n in range(ROWS // 10))
    assert node.ingest("rows", body).status_code == 201
    sql = "select a.n, a.s, b.n as m from rows a, (select n from rows where n < 10) b"
    first: list[float] = []
    with httpx.Client(base_url=node.url, timeout=60) as client:
        for _ in range(9):
            began = time.perf_counter()
            with client.stream(
                "POST",
                "/query/sql",
                json={"sql": sql},
                headers={"accept": "application/x-ndjson"},
            ) as answer:
                assert answer.status_code == 200
                next(answer.iter_bytes(FIRST_BYTES))
                first.append(time.perf_counter() - began)
    note = f"{ROWS} rows of a join as NDJSON; each is left after its first row"
    yield Figure("first_row_ms", statistics.median(first) * 1e3, note)
