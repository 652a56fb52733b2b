"""A node as its users meet it: a process, curl, gRPC, the command line; killed and taken over."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from e2e.nodes import (
    END_SECONDS_MAX,
    PEOPLE_CSV,
    START_SECONDS_MAX,
    Node,
    free_ports,
    running,
)

# Every test starts processes: on a busy machine that takes longer than a bound for hangs allows.
pytestmark = pytest.mark.timeout(400)

ROWS = [["007", "Jürgen", "12"], ["008", "Zoë", "N/A"], ["010", "Ann", "7"]]
SELECT = "select id, name, score from people order by id"


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "node", tmp_path / "bucket")


def test_one_answer_by_every_way_in_and_after_kill_9(node: Node) -> None:
    with running(node):
        node.start()
        assert httpx.get(f"{node.url}/health").status_code == 200
        first = node.ingest("people", PEOPLE_CSV)
        assert first.status_code == 201, first.text
        assert first.json()["rows"] == 3
        again = node.ingest("people", PEOPLE_CSV)
        assert again.status_code == 200, again.text
        assert again.json()["no_op"]
        before = _everywhere(node)
        node.kill()
        node.start()
        assert _everywhere(node) == before
        assert node.stop() == 0


def _everywhere(node: Node) -> list[list[str]]:
    """The rows by HTTP, by gRPC through reflection and by the command line: all the same."""
    assert node.sql(SELECT) == ROWS
    assert node.sql(SELECT, engine="duckdb") == node.sql(SELECT, engine="datafusion") == ROWS
    assert _by_reflection(node.grpc) == ROWS
    shown = node.cli("sql", SELECT, "--json")
    assert shown.returncode == 0, shown.stderr.decode()
    assert json.loads(shown.stdout)["rows"] == ROWS
    return ROWS


def _by_reflection(address: str) -> list[list[str]]:
    """As grpcurl does it: no stubs of ours, only what the server says of itself."""
    with grpc.insecure_channel(address) as channel:
        pool = _described(channel, "lakehouse.v1.Query")
        service = pool.FindServiceByName("lakehouse.v1.Query")
        method = next(m for m in service.methods if m.name == "Run")
        request = message_factory.GetMessageClass(method.input_type)()
        part = message_factory.GetMessageClass(method.output_type)
        request.sql, request.format, request.engine = SELECT, "json", "auto"
        run = channel.unary_stream(
            "/lakehouse.v1.Query/Run",
            request_serializer=type(request).SerializeToString,
            response_deserializer=part.FromString,
        )
        return json.loads(b"".join(p.chunk for p in run(request, timeout=30)))["rows"]


def _described(channel: grpc.Channel, symbol: str) -> descriptor_pool.DescriptorPool:
    ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
    answer = next(iter(ask(iter([request]))))
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(data)
        for data in answer.file_descriptor_response.file_descriptor_proto
    ]
    pool, waiting = descriptor_pool.DescriptorPool(), {f.name: f for f in files}

    def add(name: str) -> None:
        file = waiting.pop(name, None)
        if file is not None:
            for dependency in file.dependency:
                add(dependency)
            pool.Add(file)

    for file in files:
        add(file.name)
    return pool


def test_what_was_acknowledged_survives_kill_9_at_any_time(node: Node) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    acknowledged: set[int] = set()
    batch = 0
    with running(node):
        node.start()
        assert node.ingest("events", b"batch\n0\n").status_code == 201
        acknowledged.add(0)
        for _ in range(4):
            with ThreadPoolExecutor(3) as pool:
                numbers = range(batch + 1, batch + 13)
                tasks = {n: pool.submit(_append, node, n) for n in numbers}
                batch = numbers[-1]
                _wait_for_one(list(tasks.values()))
                time.sleep(chance.uniform(0, 0.3))
                node.kill()
            acknowledged |= {n for n, task in tasks.items() if task.result()}
            node.start()
            rows = [row[0] for row in node.sql("select batch from events")]
            assert len(rows) == len(set(rows)), "a batch is there twice"
            assert acknowledged <= {int(row) for row in rows}
        assert len(acknowledged) > 1, "no append was acknowledged: the test proves nothing"


def _wait_for_one(tasks: list[Future[bool]]) -> None:
    """Kills before the first answer prove little, and on a slow machine would be all there are."""
    done, _ = wait(tasks, timeout=START_SECONDS_MAX, return_when=FIRST_COMPLETED)
    assert done, "no append was answered"


def _append(node: Node, number: int) -> bool:
    try:
        answer = node.ingest("events", f"batch\n{number}\n".encode(), mode="append")
    except httpx.TransportError:
        return False
    return answer.status_code in (200, 201)


def test_a_second_node_is_refused_until_told_and_the_first_is_fenced(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    first, second = Node(tmp_path / "one", bucket), Node(tmp_path / "two", bucket)
    with running(first, second):
        first.start()
        assert first.ingest("people", PEOPLE_CSV).status_code == 201
        second.launch("up")
        assert second.wait_end() == 73
        assert "another node holds" in second.log
        assert first.grpc in second.log, "the refusal names the holder"
        assert first.sql(SELECT) == ROWS

        first.signal(signal.SIGSTOP)
        second.start("up", "--take-over")
        assert second.sql(SELECT) == ROWS
        first.signal(signal.SIGCONT)
        assert first.wait_end() == 75
        assert "fenced" in first.log
        assert second.ingest("more", b"a\n1\n").status_code == 201


def test_a_store_whose_holder_is_gone_is_taken_over_without_being_told(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    first, second = Node(tmp_path / "one", bucket), Node(tmp_path / "two", bucket)
    with running(first, second):
        first.start()
        assert first.ingest("people", PEOPLE_CSV).status_code == 201
        first.kill()
        second.start()
        assert second.sql(SELECT) == ROWS


def test_split_roles_answer_the_same(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    writer_ports, reader_ports = free_ports(2), free_ports(2)
    writer = Node(tmp_path / "writer", bucket, writer_ports)
    peer = f"127.0.0.1:{writer_ports[1]}"
    peers = {f"LAKEHOUSE__NODE__PEERS__{r}": peer for r in ("CATALOGD", "INGESTD", "STORAGED")}
    reader = Node(tmp_path / "reader", bucket, reader_ports, peers)
    with running(writer, reader):
        reader.launch("serve", "--roles", "gateway,queryd,vectord")
        writer.launch("serve", "--roles", "catalogd,ingestd,storaged")
        reader.wait_ready()
        _until_answered(reader)
        assert reader.ingest("people", PEOPLE_CSV).status_code == 201
        assert _everywhere(reader) == ROWS
        writer.kill()
        assert reader.ingest("people", b"x\n1\n").status_code == 503
        writer.launch("serve", "--roles", "catalogd,ingestd,storaged")
        _until_answered(reader)
        assert reader.sql(SELECT) == ROWS


def _until_answered(node: Node) -> None:
    """The writer has no HTTP of its own to ask; the reader's catalog calls tell."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while httpx.get(f"{node.url}/catalog/datasets", timeout=30).status_code != 200:
        assert time.monotonic() < deadline, node.log
        time.sleep(0.1)


def test_a_missing_peer_is_a_start_up_error_that_says_which(tmp_path: Path) -> None:
    node = Node(tmp_path / "node", tmp_path / "bucket")
    with running(node):
        node.launch("serve", "--roles", "queryd")
        assert node.wait_end() == 64
        assert "node.peers.catalogd" in node.log


def test_a_taken_port_is_said_and_the_store_is_left_alone(node: Node, tmp_path: Path) -> None:
    other = Node(tmp_path / "other", tmp_path / "bucket2", (node.http_port, free_ports(1)[0]))
    with running(node, other):
        node.start()
        other.launch("up")
        assert other.wait_end() == 69
        assert "gateway.http" in other.log
        assert not (tmp_path / "bucket2").exists()


def test_an_empty_place_where_a_store_was_is_refused(node: Node, tmp_path: Path) -> None:
    with running(node):
        node.start()
        assert node.stop() == 0
        (tmp_path / "bucket").rename(tmp_path / "unmounted")
        node.launch("up")
        assert node.wait_end() == 73
        assert "a store was here before" in node.log
        (tmp_path / "unmounted").rename(tmp_path / "bucket")
        node.start()


def test_tokens_are_made_before_the_first_start_and_asked_for(tmp_path: Path) -> None:
    settings = {"LAKEHOUSE__GATEWAY__AUTH": "tokens"}
    node = Node(tmp_path / "node", tmp_path / "bucket", settings=settings)
    with running(node):
        made = node.cli("token", "create", "first", "--scope", "operator", "--json")
        assert made.returncode == 0, made.stderr.decode()
        token = json.loads(made.stdout)["token"]
        node.start()
        assert node.ingest("people", PEOPLE_CSV).status_code == 401
        refused = node.cli("catalog", "list")
        assert refused.returncode == 77, refused.stderr.decode()
        assert b"Traceback" not in refused.stderr
        early = node.cli("token", "create", "second", "--scope", "operator")
        assert early.returncode == 77
        assert b"stop the node" in early.stderr
        node.env["LAKEHOUSE_TOKEN"] = token
        listed = node.cli("catalog", "list", "--json")
        assert listed.returncode == 0, listed.stderr.decode()
        reader = node.cli("token", "create", "reader", "--json")
        info = json.loads(reader.stdout)
        headers = {"authorization": f"Bearer {info['token']}"}
        assert httpx.get(f"{node.url}/catalog/datasets", headers=headers).status_code == 200
        assert httpx.post(f"{node.url}/catalog/dedupe", headers=headers).status_code == 403
        assert node.cli("token", "revoke", info["info"]["id"]).returncode == 0
        assert httpx.get(f"{node.url}/catalog/datasets", headers=headers).status_code == 401
        assert token.split(".")[1] not in node.log


def test_a_graceful_stop_finishes_what_runs(node: Node) -> None:
    stopping = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"a\n1\n"
        assert stopping.wait(END_SECONDS_MAX)
        yield b"2\n"

    with running(node), ThreadPoolExecutor(1) as pool:
        node.start()
        answer = pool.submit(
            lambda: httpx.post(f"{node.url}/ingest/datasets/slow", content=body(), timeout=60)
        )
        _until(lambda: any(node.folder.glob("data/spool/*/*/body")))
        node.signal(signal.SIGTERM)
        _until(lambda: not _takes_more(node))
        stopping.set()
        assert answer.result(60).status_code == 201, answer.result().text
        assert node.wait_end() == 0
        node.start()
        assert node.sql("select a from slow order by a") == [[1], [2]]


def _until(seen: Callable[[], bool]) -> None:
    deadline = time.monotonic() + END_SECONDS_MAX
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _takes_more(node: Node) -> bool:
    """Whether it takes requests, as who sends them to it asks."""
    try:
        return httpx.get(f"{node.url}/ready", timeout=30).status_code == 200
    except httpx.TransportError:
        return False


def test_split_roles_show_each_other_tokens(tmp_path: Path) -> None:
    bucket, auth = tmp_path / "bucket", {"LAKEHOUSE__GATEWAY__AUTH": "tokens"}
    writer = Node(tmp_path / "writer", bucket, settings=auth)
    made = writer.cli("token", "create", "node", "--scope", "operator", "--json")
    token = json.loads(made.stdout)["token"]
    peers = {f"LAKEHOUSE__NODE__PEERS__{role}": writer.grpc for role in ("CATALOGD", "STORAGED")}
    own = {"LAKEHOUSE__NODE__SECRET_REF": "env:NODE_TOKEN", "NODE_TOKEN": token}
    reader = Node(tmp_path / "reader", bucket, settings=auth | peers | own)
    headers = {"authorization": f"Bearer {token}", "content-type": "text/csv"}
    with running(writer, reader):
        writer.launch("serve", "--roles", "catalogd,storaged")
        _until_listening(writer)
        reader.start("serve", "--roles", "gateway,ingestd,queryd,vectord")
        url = f"{reader.url}/ingest/datasets/people"
        assert httpx.post(url, content=PEOPLE_CSV).status_code == 401
        answer = httpx.post(url, content=PEOPLE_CSV, headers=headers, timeout=60)
        assert answer.status_code == 201, answer.text + reader.log
        query = httpx.post(
            f"{reader.url}/query/sql",
            json={"sql": SELECT},
            timeout=60,
            headers={"authorization": f"Bearer {token}"},
        )
        assert query.json()["rows"] == ROWS, query.text
        assert token.split(".")[1] not in reader.log + writer.log


def _until_listening(node: Node) -> None:
    with grpc.insecure_channel(node.grpc) as channel:
        grpc.channel_ready_future(channel).result(timeout=START_SECONDS_MAX)


def test_a_node_dies_with_the_process_that_tests_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from e2e.nodes import Node\n"
        f"node = Node(Path({str(tmp_path / 'node')!r}), Path({str(tmp_path / 'bucket')!r}))\n"
        "node.start(); print(node.process.pid, flush=True); time.sleep(600)"
    )
    tests = str(Path(__file__).resolve().parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": tests},
        stdout=subprocess.PIPE,
    ) as tester:
        assert tester.stdout is not None
        pid = int(tester.stdout.readline())
        tester.kill()
    deadline = time.monotonic() + END_SECONDS_MAX
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the node outlived its test"
        time.sleep(0.05)
