"""The same node on a real S3 server, by three settings: refused, made, killed, taken over."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from e2e.nodes import PEOPLE_CSV, Node, running
from support_s3 import S3Place, new_place

pytestmark = [pytest.mark.s3, pytest.mark.timeout(400)]

SELECT = "select id, name, score from people order by id"
ROWS = [["007", "Jürgen", "12"], ["008", "Zoë", "N/A"], ["010", "Ann", "7"]]


@pytest.fixture
def place() -> S3Place:
    names = ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY")
    return new_place(*(os.environ[f"LAKEHOUSE_TEST_S3_{name}"] for name in names))


def _node(folder: Path, place: S3Place) -> Node:
    secret = {"access_key_id": place.access_key, "secret_access_key": place.secret_key}
    settings = {
        "LAKEHOUSE__BUCKETS__PRIMARY__URL": place.settings().url,
        "LAKEHOUSE__BUCKETS__PRIMARY__ENDPOINT": place.endpoint,
        "LAKEHOUSE__BUCKETS__PRIMARY__SECRET_REF": "env:MY_S3",
        "MY_S3": json.dumps(secret),
    }
    return Node(folder, folder / "unused", settings=settings)


def test_three_settings_make_it_a_node_on_s3(tmp_path: Path, place: S3Place) -> None:
    node = _node(tmp_path / "one", place)
    with running(node):
        node.launch("up")
        assert node.wait_end() == 66
        assert "lakehouse init" in node.log
        checked = node.cli("doctor")
        assert checked.returncode == 0, checked.stderr.decode()
        made = node.cli("init")
        assert made.returncode == 0, made.stderr.decode()
        node.start()
        assert node.ingest("people", PEOPLE_CSV).status_code == 201
        assert node.sql(SELECT) == ROWS
        node.kill()
        node.start()
        assert node.sql(SELECT) == node.sql(SELECT, engine="duckdb") == ROWS
        assert node.ingest("people", PEOPLE_CSV).json()["no_op"]
        assert place.secret_key not in node.log


def test_a_second_node_on_the_bucket_is_refused_until_the_first_is_gone(
    tmp_path: Path, place: S3Place
) -> None:
    first, second = _node(tmp_path / "one", place), _node(tmp_path / "two", place)
    with running(first, second):
        assert first.cli("init").returncode == 0
        first.start()
        assert first.ingest("people", PEOPLE_CSV).status_code == 201
        second.launch("up")
        assert second.wait_end() == 73
        assert first.grpc in second.log
        first.kill()
        second.start()
        assert second.sql(SELECT) == ROWS
