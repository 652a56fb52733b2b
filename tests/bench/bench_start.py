"""Starting: help, ready, idle memory, and from kill -9 to the first answer."""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from bench.figures import Figure, median_seconds, resident_mib
from e2e.nodes import PROGRAM, Node, running


def run() -> list[Figure]:
    shown = median_seconds(
        lambda: subprocess.run([*PROGRAM, "--help"], capture_output=True, check=True), 5
    )
    with tempfile.TemporaryDirectory() as place:
        node = Node(Path(place) / "node", Path(place) / "bucket")
        with running(node):
            ready = []
            for _ in range(3):
                began = time.perf_counter()
                node.start()
                ready.append(time.perf_counter() - began)
                node.stop()
            node.start()
            assert node.sql("select 1 as one") == [[1]]
            time.sleep(1)
            assert node.process is not None
            idle = resident_mib(node.process.pid)
            node.kill()
            began = time.perf_counter()
            node.start()
            assert node.sql("select 1 as one") == [[1]]
            back = time.perf_counter() - began
    return [
        Figure("help_seconds", shown, "median of 5"),
        Figure("ready_seconds", sorted(ready)[1], "median of 3, local bucket"),
        Figure("idle_mib", idle, "all roles and one warm query worker"),
        Figure("kill_to_answer_seconds", back, "kill -9 to the first SQL answer"),
    ]
