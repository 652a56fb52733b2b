"""Several buckets with endpoints and keys of their own as one lakehouse, over real processes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import boto3
import httpx
import pyarrow.parquet as pq
import pytest
import zstandard

from e2e.nodes import END_SECONDS_MAX, Node, free_ports, running

pytestmark = pytest.mark.timeout(400)

SCRIPT: Final = Path(__file__).with_name("keyed_moto.py")
CANARY: Final = "zaphod-4711"


@dataclass
class S3:
    """A server with one bucket and one access key."""

    process: subprocess.Popen[str]
    endpoint: str
    bucket: str
    access_key: str
    secret_key: str

    @property
    def secret(self) -> str:
        return json.dumps({"access_key_id": self.access_key, "secret_access_key": self.secret_key})

    def switch(self, state: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{state}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == state

    def listed(self) -> list[str]:
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )
        listed = client.list_objects_v2(Bucket=self.bucket)
        client.close()
        return [entry["Key"] for entry in listed.get("Contents", [])]

    def asked(self, name: str, **fields: str) -> dict[str, str]:
        url = f"s3://{self.bucket}/lake"
        return {"name": name, "url": url, "endpoint": self.endpoint, **fields}


@contextlib.contextmanager
def s3_server(name: str) -> Iterator[S3]:
    key, bucket = f"key-of-{name}", f"bucket-{name}"
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), key, bucket],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            endpoint = process.stdout.readline().strip()
            assert endpoint, "moto did not start"
            yield S3(process, endpoint, bucket, key, f"secret-of-{name}-canary")
        finally:
            process.kill()


def add(node: Node, wanted: dict[str, str], **headers: str) -> httpx.Response:
    return httpx.post(f"{node.url}/storage/buckets", json=wanted, headers=headers, timeout=60)


def buckets(node: Node) -> dict[str, Any]:
    answer = httpx.get(f"{node.url}/storage/buckets", timeout=60)
    assert answer.status_code == 200, answer.text
    return {one["name"]: one for one in answer.json()["buckets"]}


def query(node: Node, sql: str) -> httpx.Response:
    return httpx.post(f"{node.url}/query/sql", json={"sql": sql}, timeout=90)


def texts_in(folder: Path) -> str:
    """All that stands in a bucket of files, however it is packed."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if data[:4] == b"PAR1":
            found.append(str(pq.read_table(io.BytesIO(data)).to_pylist()))
        elif data[:4] == b"\x28\xb5\x2f\xfd":
            found.append(zstandard.ZstdDecompressor().decompressobj().decompress(data).decode())
        else:
            found.append(data.decode(errors="replace"))
    return "\n".join(found)


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                found += [int(entry.name), *children(int(entry.name))]
    return found


JOIN: Final = (
    "select p.id, p.name, e.name, u.name, m.name from local p join eu e on p.id = e.id"
    " join us u on p.id = u.id join mem m on p.id = m.id order by 1"
)


def rows(word: str, start: int = 1) -> bytes:
    return f"id,name\n{start},{word}\n{start + 1},{word}-b\n".encode()


def four(tmp_path: Path, eu: S3, us: S3) -> Node:
    """A file, a memory, a configured S3 bucket; one more is added while it runs."""
    return Node(
        tmp_path / "node",
        tmp_path / "primary",
        settings={
            "LAKEHOUSE__BUCKETS__SCRATCH__URL": "memory://scratch",
            "LAKEHOUSE__BUCKETS__CLIENT_US__URL": f"s3://{us.bucket}/lake",
            "LAKEHOUSE__BUCKETS__CLIENT_US__ENDPOINT": us.endpoint,
            "LAKEHOUSE__BUCKETS__CLIENT_US__SECRET_REF": "env:US_KEYS",
            "LAKEHOUSE__BUCKETS__LOST__URL": "s3://nowhere/lake",
            "LAKEHOUSE__BUCKETS__LOST__ENDPOINT": us.endpoint,
            "LAKEHOUSE__BUCKETS__LOST__SECRET_REF": "env:NOBODY_SET_THIS",
            "US_KEYS": us.secret,
            "EU_KEYS": eu.secret,
        },
    )


def test_four_buckets_with_keys_of_their_own_are_one_lakehouse(tmp_path: Path) -> None:
    with s3_server("eu") as eu, s3_server("us") as us:
        node = four(tmp_path, eu, us)
        with running(node):
            node.start()
            _one_lakehouse(node, eu, us)
            _values_stay(node, tmp_path, eu, us)
            _residency_holds(node)
            _one_down(node, us)
            us.switch("down")
            assert node.stop() == 0
            node.start()
            _down_at_start(node, us)


def _one_lakehouse(node: Node, eu: S3, us: S3) -> None:
    wanted = eu.asked("client_eu", residency="eu", secret_ref="env:EU_KEYS")
    assert add(node, {**wanted, "secret_ref": "env:US_KEYS"}).status_code == 403
    added = add(node, wanted)
    assert added.status_code in (200, 201), added.text
    assert add(node, wanted).status_code in (200, 201)
    assert add(node, {**wanted, "region": "eu-west-1"}).status_code == 409
    shown = buckets(node)
    assert list(shown) == ["client_us", "lost", "primary", "scratch", "client_eu"]
    assert shown["client_eu"]["origin"] == "operator"
    assert shown["client_eu"]["residency"] == "eu"
    assert shown["client_eu"]["reachable"]
    assert not shown["lost"]["reachable"]
    assert "could not be resolved" in shown["lost"]["last_error"]
    for dataset, word, bucket in (
        ("local", "alpha", "primary"),
        ("eu", CANARY, "client_eu"),
        ("us", "gamma", "client_us"),
        ("mem", "delta", "scratch"),
    ):
        answer = node.ingest(dataset, rows(word), bucket=bucket)
        assert answer.status_code == 201, answer.text
    expected = [[1, "alpha", CANARY, "gamma", "delta"]]
    expected += [[2, "alpha-b", f"{CANARY}-b", "gamma-b", "delta-b"]]
    for engine in ("datafusion", "duckdb"):
        assert node.sql(JOIN, engine=engine) == expected


def _values_stay(node: Node, folder: Path, eu: S3, us: S3) -> None:
    """Neither rows nor statistics of a bucket leave it, and no worker knows a key."""
    more = node.ingest("eu", rows(CANARY, 100), mode="append")
    assert more.status_code == 200, more.text
    assert node.sql("select name from eu where id = 100") == [[CANARY]]
    data = [key for key in eu.listed() if key.startswith("lake/datasets/")]
    assert sorted(key.rpartition("/")[2].partition(".")[2] for key in data) == [
        "parquet",
        "parquet",
        "stats.parquet",
        "stats.parquet",
    ]
    assert CANARY not in texts_in(folder / "primary")
    assert "alpha" in texts_in(folder / "primary")
    assert CANARY not in node.log
    assert node.process is not None
    workers = [pid for pid in children(node.process.pid) if _is_worker(pid)]
    assert workers
    for pid in workers:
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode()
        assert "canary" not in environment
        assert eu.access_key not in environment
    assert us.secret_key not in node.log


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"lakehouse.queryd.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _residency_holds(node: Node) -> None:
    card = httpx.get(f"{node.url}/catalog/datasets/eu").json()
    assert (card["bucket"], card["residency"]) == ("client_eu", "eu")
    moved = node.ingest("eu", rows("other", 7), mode="append", bucket="client_us")
    assert (moved.status_code, moved.json()["home"]) == (409, "client_eu")
    used = httpx.delete(f"{node.url}/storage/buckets/client_eu", timeout=60)
    assert (used.status_code, used.json()["datasets"]) == (409, 1)
    body = {
        "name": "stolen",
        "objects": [{"bucket": "client_eu", "key": "inbox/x.parquet", "copy": True}],
        "card": {"owner": "ann", "description": "a copy in another place"},
        "bucket": "primary",
    }
    refused = httpx.post(f"{node.url}/catalog/datasets", json=body, timeout=60)
    assert (refused.status_code, refused.json()["kind"]) == (403, "forbidden")
    assert (refused.json()["residency"], refused.json()["target"]) == ("eu", "primary")


def _one_down(node: Node, us: S3) -> None:
    assert node.ingest("us2", rows("epsilon"), bucket="client_us").status_code == 201
    us.switch("down")
    failed = query(node, "select * from us2 join local on us2.id = local.id")
    assert failed.status_code == 503, failed.text
    assert (failed.json()["dataset"], failed.json()["bucket"]) == ("us2", "client_us")
    refused = node.ingest("us3", rows("zeta"), bucket="client_us")
    assert refused.status_code == 503, refused.text
    assert node.sql("select count(*) from eu") == [[4]]
    assert node.ingest("local2", rows("eta")).status_code == 201
    report = httpx.post(f"{node.url}/catalog/fsck", params={"dry_run": "true"}, timeout=90)
    assert report.status_code == 200, report.text
    unreachable = [one["key"] for one in report.json()["findings"] if one["kind"] == "unreachable"]
    assert unreachable == ["client_us", "lost"]
    assert httpx.get(f"{node.url}/ready").status_code == 200
    us.switch("up")
    # The breaker looks for itself; nobody has to do anything.
    assert _eventually(lambda: query(node, "select name from us2").status_code == 200)


def _down_at_start(node: Node, us: S3) -> None:
    """What was added is there after a restart; what is down is used as soon as it is back."""
    shown = buckets(node)
    assert shown["client_eu"]["reachable"]
    assert not shown["client_us"]["reachable"]
    assert _eventually(lambda: "bucket_lost" in _details(node))
    assert "could not be resolved" in _details(node)["bucket_lost"]
    assert node.sql("select count(*) from eu") == [[4]]
    assert query(node, "select * from us").status_code == 503
    us.switch("up")
    assert _eventually(lambda: query(node, "select name from us").status_code == 200)
    gone = httpx.delete(f"{node.url}/catalog/datasets/eu", params={"purge": "true"}, timeout=60)
    assert gone.status_code == 200, gone.text
    removed = httpx.delete(f"{node.url}/storage/buckets/client_eu", timeout=60)
    assert (removed.status_code, removed.json()["removed"]) == (200, True)
    assert "client_eu" not in buckets(node)
    assert node.ingest("eu9", rows("x"), bucket="client_eu").status_code == 404


def _details(node: Node) -> Any:
    return httpx.get(f"{node.url}/ready").json()["details"]


def _eventually(holds: Any, seconds: float = END_SECONDS_MAX) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.1)
    return False


def test_every_process_of_a_split_store_knows_an_added_bucket(tmp_path: Path) -> None:
    ports = [free_ports(2) for _ in range(2)]
    grpc = [f"127.0.0.1:{port}" for _, port in ports]
    common = {"LAKEHOUSE__STORAGE__LOCAL_ROOT": str(tmp_path / "tenants")}
    front = Node(
        tmp_path / "front",
        tmp_path / "primary",
        ports[0],
        common
        | {
            "LAKEHOUSE__NODE__PEERS__INGESTD": grpc[1],
            "LAKEHOUSE__NODE__PEERS__QUERYD": grpc[1],
            "LAKEHOUSE__NODE__PEERS__VECTORD": grpc[1],
        },
    )
    back = Node(
        tmp_path / "back",
        tmp_path / "primary",
        ports[1],
        common
        | {
            "LAKEHOUSE__NODE__PEERS__CATALOGD": grpc[0],
            # Looks by itself so seldom that what it knows it has asked for.
            "LAKEHOUSE__STORAGE__FOLLOW_SECONDS": "3600",
        },
    )
    with running(front, back):
        front.launch("serve", "--roles", "gateway,storaged,catalogd")
        front.wait_ready()
        back.launch("serve", "--roles", "ingestd,queryd,vectord")
        place = (tmp_path / "tenants" / "eu").as_uri()
        added = add(front, {"name": "client_eu", "url": place, "residency": "eu"})
        assert added.status_code in (200, 201), added.text
        assert _eventually(
            lambda: front.ingest("eu", rows("a"), bucket="client_eu").status_code in (200, 201), 60
        ), front.log + back.log
        assert front.sql("select name from eu order by 1") == [["a"], ["a-b"]]
        assert os.listdir(tmp_path / "tenants" / "eu" / "datasets")
        (front.folder / "more.csv").write_bytes(rows("c"))
        ingested = front.cli("ingest", "more.csv", "--bucket", "client_eu", "--json")
        assert ingested.returncode == 0, ingested.stderr
        card = httpx.get(f"{front.url}/catalog/datasets/more").json()
        assert (card["bucket"], card["residency"]) == ("client_eu", "eu")
        outside = add(front, {"name": "etc", "url": "file:///etc"})
        assert outside.status_code == 403
        hidden = f"{(tmp_path / 'tenants').as_uri()}/%2e%2e/primary"
        assert add(front, {"name": "etc", "url": hidden}).status_code == 403
