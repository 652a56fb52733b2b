"""S3 servers for the conformance tests: moto in this process, and a real one from outside."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from support_s3 import S3Place, new_place


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = DomainDispatcherApplication(create_backend_app)
    lock = threading.Lock()

    def one_at_a_time(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        # moto checks a condition, then writes, and breaks on two puts of one key at once.
        with lock:
            return list(moto(environ, start_response))

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True)
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
    names = ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY")
    found = [os.environ.get(f"LAKEHOUSE_TEST_S3_{name}", "") for name in names]
    assert all(found), "set LAKEHOUSE_TEST_S3_*, or run: tools/s3_server.py --run pytest -m s3"
    return new_place(*found)
