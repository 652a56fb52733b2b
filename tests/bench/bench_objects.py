"""Objects: a gigabyte up and down by HTTP in a local bucket, and the memory that it takes.

The client is a bare socket, so that the server is what is measured. The disk is measured beside it.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.figures import Figure, resident_mib
from e2e.nodes import Node, running

SIZE: Final = 1 << 30
CHUNK: Final = bytes(range(256)) * (1 << 12)
PATH: Final = "/storage/objects/primary/bench/large.bin"
TIMES: Final = 3


def run() -> list[Figure]:
    with tempfile.TemporaryDirectory() as place:
        node = Node(Path(place) / "node", Path(place) / "bucket")
        with running(node):
            node.start()
            assert node.process is not None
            disk = min(_disk_seconds(Path(place) / "disk") for _ in range(TIMES))
            _put(node, len(CHUNK))
            before = resident_mib(node.process.pid)
            put = min(_put(node, SIZE) for _ in range(TIMES))
            get = min(_get(node) for _ in range(TIMES))
            grown = resident_mib(node.process.pid) - before
            return [
                Figure("put_mb_per_second", SIZE / put / 1e6, f"1 GiB by HTTP, best of {TIMES}"),
                Figure("put/disk", disk / put, "against write and fsync of the same bytes"),
                Figure("get_mb_per_second", SIZE / get / 1e6, f"1 GiB by HTTP, best of {TIMES}"),
                Figure("grown_mib", grown, "resident memory after all of them"),
            ]


def _body(size: int) -> Iterator[bytes]:
    for _ in range(size // len(CHUNK)):
        yield CHUNK


def _disk_seconds(path: Path) -> float:
    began = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for chunk in _body(SIZE):
            file.write(chunk)
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def _put(node: Node, size: int) -> float:
    head = f"PUT {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", node.http_port)) as client:
        began = time.perf_counter()
        client.sendall(head.encode())
        for chunk in _body(size):
            client.sendall(chunk)
        answer = client.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        return time.perf_counter() - began


def _get(node: Node) -> float:
    head = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    buffer, got = bytearray(1 << 20), 0
    with socket.create_connection(("127.0.0.1", node.http_port)) as client:
        began = time.perf_counter()
        client.sendall(head.encode())
        while count := client.recv_into(buffer):
            got += count
        seconds = time.perf_counter() - began
    assert got > SIZE
    return seconds
