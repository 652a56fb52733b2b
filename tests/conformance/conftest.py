"""S3 servers for the conformance tests: moto in this process, and a real one from outside."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from support_s3 import S3Place, new_place


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def moto_place(moto_endpoint: str) -> S3Place:
    return new_place(moto_endpoint, "moto", "moto-takes-any")


@pytest.fixture
def real_place() -> S3Place:
    """For tests marked ``s3`` only: ``make test`` deselects those, and nothing skips them."""
    names = ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY")
    found = [os.environ.get(f"LAKEHOUSE_TEST_S3_{name}", "") for name in names]
    assert all(found), "set LAKEHOUSE_TEST_S3_*, or run: tools/s3_server.py --run pytest -m s3"
    return new_place(*found)
