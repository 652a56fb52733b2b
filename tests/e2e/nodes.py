"""Real nodes for the end-to-end tests: subprocesses of the installed program on free ports."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

# Bounds for a machine that is busy with other tests; none of them is slept through.
START_SECONDS_MAX: Final = 80.0
END_SECONDS_MAX: Final = 60.0
PROGRAM: Final = [sys.executable, "-c", "from lakehouse.cli.main import main; main()"]
# A node of a test dies with the test, also when the test is killed itself (Linux).
_TIED: Final = """
import ctypes, os, signal
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != {parent}:
    os._exit(1)
from lakehouse.cli.main import main
main()
"""
# Below what the system gives to outgoing connections, one of which might take a port in between.
_PORTS: Final = itertools.cycle(random.Random(os.getpid()).sample(range(10_000, 32_000), 4_000))

PEOPLE_CSV: Final = (
    b"id;name;phone;score\r\n"
    b"007;J\xfcrgen;+49 351 5550001;12\r\n"
    b"008;Zo\xeb;unknown;N/A\r\n"
    b"010;Ann;+49 351 5550003;7\r\n"
)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; all different, in this process for a long time."""
    found: list[int] = []
    while len(found) < count:
        port = next(_PORTS)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
    return found


def environment(folder: Path) -> dict[str, str]:
    """This process's environment without settings of ours, its state kept below ``folder``."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LAKEHOUSE")}
    return kept | {"XDG_STATE_HOME": str(folder / "state")}


# Logs of all nodes of this session and the environments of their processes; conftest reads them.
WATCHED: Final[list[tuple[Path, dict[str, str]]]] = []


class Node:
    """One node process over the bucket in ``bucket`` (a folder may serve several nodes)."""

    def __init__(
        self,
        folder: Path,
        bucket: Path,
        ports: Sequence[int] | None = None,
        settings: dict[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.http_port, self.grpc_port = ports or free_ports(2)
        self.env = environment(bucket.parent) | {
            "LAKEHOUSE__GATEWAY__HTTP": f"127.0.0.1:{self.http_port}",
            "LAKEHOUSE__GATEWAY__GRPC": f"127.0.0.1:{self.grpc_port}",
            "LAKEHOUSE__BUCKETS__PRIMARY__URL": bucket.as_uri(),
            "LAKEHOUSE__NODE__LOG_LEVEL": "debug",
            "LAKEHOUSE__NODE__SECRET_REF": "env:NODE_CANARY",
            "NODE_CANARY": "lh_canary0.0123456789abcdef0123456789abcdef",
            **(settings or {}),
        }
        WATCHED.append((folder / "log", self.env))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def launch(self, *arguments: str) -> None:
        """Start the process; do not wait."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _TIED.format(parent=os.getpid()), *(arguments or ("up",))],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self, *arguments: str) -> Node:
        """Start the process and wait until it is ready."""
        self.launch(*arguments)
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log}"
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/ready", timeout=5).status_code == 200:
                    return
            time.sleep(0.02)
        raise AssertionError(f"not ready in {START_SECONDS_MAX} s: {self.log}")

    def wait_end(self, seconds: float = END_SECONDS_MAX) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9 of the node and of every process it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(END_SECONDS_MAX)

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait_end()

    def cli(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command against this node."""
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=self.folder,
            env=self.env,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=END_SECONDS_MAX,
        )

    def ingest(self, dataset: str, body: bytes, **params: str) -> httpx.Response:
        return httpx.post(
            f"{self.url}/ingest/datasets/{dataset}",
            params=params,
            content=body,
            headers={"content-type": "text/csv"},
            timeout=60,
        )

    def sql(self, sql: str, **body: Any) -> Any:
        """The rows of a query; fails loudly with the problem document."""
        answer = httpx.post(f"{self.url}/query/sql", json={"sql": sql, **body}, timeout=60)
        assert answer.status_code == 200, answer.text + self.log
        return json.loads(answer.text)["rows"]


@contextlib.contextmanager
def running(*nodes: Node) -> Iterator[None]:
    """Kill what still runs in the end."""
    try:
        yield
    finally:
        for node in nodes:
            node.kill()
