"""S3 servers for the conformance tests: moto in this process, and a real one from outside."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from support_s3 import S3Place, new_place, place_of_environment


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    from werkzeug.serving import make_server

    from chaos.moto_process import one_at_a_time

    server = make_server("127.0.0.1", 0, one_at_a_time(), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def moto_place(moto_endpoint: str) -> S3Place:
    return new_place(moto_endpoint, "moto", "moto-takes-any")


@pytest.fixture
def real_place() -> S3Place:
    """For tests marked ``s3`` only: ``make test`` deselects those, and nothing skips them."""
    return place_of_environment()
