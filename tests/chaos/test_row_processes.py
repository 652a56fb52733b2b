"""Row changes in real processes: kill -9 at any time, and compaction beside writers and readers."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import pytest

from chaos.rows_worker import KEYS, NAME, opened, played
from e2e.nodes import Node, running
from lakehouse.contracts.journal import HistoryRequest
from lakehouse.ingestd.journal.service import Journal
from lakehouse.kit.clock import SystemClock
from lakehouse.kit.ids import SystemIds
from lakehouse.model.identity import ANONYMOUS_OPERATOR, Context
from lakehouse.objectstore.buckets import BucketSettings, open_adapter
from lakehouse.objectstore.identity import init_store

WORKER: Final = Path(__file__).with_name("rows_worker.py")
CTX: Final = Context(ANONYMOUS_OPERATOR, "chaos")
CLOCK: Final = SystemClock()
ACCOUNTS: Final = 40


def life(url: str, scratch: Path, first: int, seconds: float) -> int:
    """The last call that was answered before the process was killed, so long after it opened."""
    command = [sys.executable, str(WORKER), url, str(scratch), str(first), str(first + 10_000)]
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        killer = threading.Timer(seconds, process.kill)
        killer.start()
        said = [line for line in process.stdout if line.endswith("\n")]
        killer.join()
    assert process.returncode == -9, said
    return int(said[-1].split()[0]) if said else first - 1


async def seen(url: str, scratch: Path) -> tuple[dict[int, int], dict[int, list[object]]]:
    """The rows, and what the journal says ``n`` was, newest first, by ``id``."""
    catalog, ingest = await opened(url, scratch)
    snapshot, _ = await ingest.parts.reader.snapshot(CTX, NAME)
    table = await ingest.parts.reader.read(snapshot)
    journal, told = Journal(ingest.parts), {}
    for key in KEYS:
        past = await journal.history(CTX, HistoryRequest(NAME, str(key), limit=1000))
        told[key] = [
            (
                one.kind,
                [(change.field, change.new_json) for change in one.fields if change.new_json],
            )
            for one in past.revisions
        ]
    await ingest.close()
    await catalog.close()
    rows = {row["id"]: row["n"] for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    return rows, told


def played_history(last: int) -> dict[int, list[object]]:
    """What ``seen`` should say of the past of each row."""
    told: dict[int, list[object]] = {key: [] for key in KEYS}
    before = played(0)
    for number in range(1, last + 1):
        after = played(number)
        for key in KEYS:
            old, new = before.get(key), after.get(key)
            if old != new and new is None:
                told[key].insert(0, ("delete", []))
            elif old != new and old is None:
                told[key].insert(0, ("insert", []))
            elif old != new:
                told[key].insert(0, ("update", [("n", str(new))]))
        before = after
    return told


def killed(folder: Path, kills: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    url = (folder / "bucket").as_uri()
    (folder / "bucket").mkdir()
    ids = SystemIds(CLOCK)
    asyncio.run(init_store(open_adapter(BucketSettings("primary", url), CLOCK), CLOCK, ids))
    last = -1
    for number in range(kills):
        seconds = chance.uniform(0, 0.25) if number else 0.5
        last = life(url, folder / "scratch", last + 1, seconds)
    # Whether the call under way when it was killed counts is settled by making it again.
    last = max(last, 0)
    rows, told = asyncio.run(settled(url, folder / "scratch", last + 1))
    assert rows == played(last + 1)
    assert told == played_history(last + 1)


async def settled(
    url: str, scratch: Path, number: int
) -> tuple[dict[int, int], dict[int, list[object]]]:
    command = [sys.executable, str(WORKER), url, str(scratch), str(number), str(number)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)
    return await seen(url, scratch)


@pytest.mark.timeout(300)
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    killed(tmp_path, 10)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_what_was_acknowledged_survives_many_kill_9(tmp_path: Path) -> None:
    killed(tmp_path, 150)


def moving(node: Node, seconds: float) -> None:
    """Writers move money between accounts while it is compacted: no reader sees more or less."""
    rows = [{"id": at, "n": 100} for at in range(ACCOUNTS)]
    with httpx.Client(base_url=node.url, timeout=60) as client:
        made = client.post("/ingest/datasets/money?key=id", json=rows)
        assert made.status_code == 201, made.text
    over = time.monotonic() + seconds

    def write(worker: int) -> int:
        chance, moved = random.Random(worker), 0
        with httpx.Client(base_url=node.url, timeout=60) as client:
            while time.monotonic() < over:
                # Each writer has accounts of its own: what it read is what it changes.
                mine = [at for at in range(ACCOUNTS) if at % 2 == worker]
                left, right = chance.sample(mine, 2)
                pair = [client.get(f"/datasets/money/rows/{at}").json() for at in (left, right)]
                less, more = (each["row"] for each in pair)
                body = [{**less, "n": less["n"] - 1}, {**more, "n": more["n"] + 1}]
                done = client.post("/ingest/datasets/money/rows", json=body)
                assert done.status_code == 200, done.text
                moved += 1
        return moved

    def read(engine: str) -> int:
        sql, times = "select count(*) as c, sum(n) as n, count(distinct id) as d from money", 0
        with httpx.Client(base_url=node.url, timeout=60) as client:
            while time.monotonic() < over:
                done = client.post("/query/sql", json={"sql": sql, "engine": engine})
                assert done.status_code == 200, done.text
                assert [int(v) for v in done.json()["rows"][0]] == [
                    ACCOUNTS,
                    ACCOUNTS * 100,
                    ACCOUNTS,
                ]
                times += 1
        return times

    def compact() -> int:
        times = 0
        with httpx.Client(base_url=node.url, timeout=60) as client:
            while time.monotonic() < over:
                full = "?full=true" if times % 3 else ""
                done = client.post(f"/ingest/datasets/money/compact{full}")
                assert done.status_code == 200, done.text
                times += 1
        return times

    with ThreadPoolExecutor(5) as pool:
        tasks = [pool.submit(write, worker) for worker in (0, 1)]
        tasks += [pool.submit(read, engine) for engine in ("datafusion", "duckdb")]
        tasks += [pool.submit(compact)]
        done = [task.result() for task in tasks]
    print(f"moves {done[:2]}, reads {done[2:4]}, compactions {done[4]}")
    assert all(done), done
    # Two fields a move, and every one of them is told, compacted or not.
    assert told_of(node, "money") == 2 * sum(done[:2]), done


def told_of(node: Node, name: str) -> int:
    """How many updates the journal tells."""
    count, cursor = 0, ""
    with httpx.Client(base_url=node.url, timeout=60) as client:
        while True:
            asked = {"dataset": name, "kind": "update", "limit": 1000, "cursor": cursor}
            answer = client.get("/journal/events", params={k: v for k, v in asked.items() if v})
            assert answer.status_code == 200, answer.text
            count += len(answer.json()["events"])
            cursor = answer.json().get("next", "")
            if not cursor:
                return count


@pytest.mark.timeout(200)
def test_compaction_beside_writers_and_readers(tmp_path: Path) -> None:
    node = Node(tmp_path / "node", tmp_path / "bucket")
    with running(node):
        node.start()
        moving(node, 6)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_minute_of_compaction_beside_writers_and_readers(tmp_path: Path) -> None:
    node = Node(tmp_path / "node", tmp_path / "bucket")
    with running(node):
        node.start()
        moving(node, 60)
