"""Feeds of a real node: they tell what comes as it comes, and hold up no stop."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import grpc
import httpx
import pytest

from e2e.nodes import Node, running
from lakehouse.v1.journal_pb2 import FeedPart, FeedRequest

pytestmark = pytest.mark.timeout(200)
DRAIN_SECONDS = 30


def test_a_feed_follows_and_ends_when_its_node_stops(tmp_path: Path) -> None:
    settings = {"LAKEHOUSE__NODE__DRAIN_SECONDS": str(DRAIN_SECONDS)}
    one = Node(tmp_path / "node", tmp_path / "bucket", settings=settings)
    lines: list[str] = []
    came = threading.Event()

    def follow() -> None:
        with httpx.stream("GET", f"{one.url}{feed}", timeout=60) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                came.set()

    with running(one):
        one.start()
        made = httpx.post(
            f"{one.url}/ingest/datasets/people?key=id",
            content=b"id,name\n1,Ann\n",
            headers={"Content-Type": "text/csv"},
        ).json()
        feed = f"/journal/feed?dataset=people&follow&after={made['version']}"
        reader = threading.Thread(target=follow)
        reader.start()
        with grpc.insecure_channel(one.grpc) as channel:
            request = FeedRequest(dataset="people", after_version=made["version"], follow=True)
            told = channel.unary_stream("/lakehouse.v1.Journal/Feed")(request.SerializeToString())
            assert FeedPart.FromString(next(told)).dataset == "people"
            rows = f"{one.url}/ingest/datasets/people/rows"
            httpx.post(rows, json=[{"id": 1, "name": "Anna"}]).raise_for_status()
            assert came.wait(30)
            assert FeedPart.FromString(next(told)).events[0].new_json == '"Anna"'
            began = time.monotonic()
            assert one.stop() == 0
            assert time.monotonic() - began < DRAIN_SECONDS
            with pytest.raises(grpc.RpcError) as caught:
                next(told)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        reader.join(30)
    assert not reader.is_alive()
    assert json.loads(lines[0])["new"] == "Anna"
    assert json.loads(lines[-1])["error"]["kind"] == "unavailable"
