"""moto's S3 server in a process of its own that knows one access key: ``keyed_moto.py KEY BUCKET``.

Prints its endpoint. Lines on standard input switch it: ``down`` answers 503 to everything, ``up``
serves again; the end of the input ends it.
"""

from __future__ import annotations

import logging
import sys
import threading
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_ERROR = "<Error><Code>{}</Code><Message>not here</Message></Error>"


class Server:
    """What is asked of moto, if the key is right and it is up."""

    def __init__(self, access_key: str) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._credential = f"Credential={access_key}/"
        self.up = True

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if not self.up:
            return _refuse(start_response, "503 Slow Down", "SlowDown")
        if self._credential not in environ.get("HTTP_AUTHORIZATION", ""):
            return _refuse(start_response, "403 Forbidden", "InvalidAccessKeyId")
        # moto checks a condition, then writes, and breaks on two puts of one key at once.
        with self._lock:
            return list(self._moto(environ, start_response))


def _refuse(start_response: Any, status: str, code: str) -> list[bytes]:
    start_response(status, [("Content-Type", "application/xml")])
    return [_ERROR.format(code).encode()]


def main(access_key: str, bucket: str) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    served = Server(access_key)
    server = make_server("127.0.0.1", 0, served, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key="any",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=bucket)
    print(endpoint, flush=True)
    for line in sys.stdin:
        served.up = line.strip() == "up"
        print(line.strip(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
