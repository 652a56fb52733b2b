"""moto's S3 server in a process of its own: ``python moto_process.py`` prints its endpoint."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


def one_at_a_time() -> Callable[[dict[str, Any], Any], list[bytes]]:
    """moto as a WSGI application that takes one request after the other: it checks a condition,
    then writes, and breaks on two puts of one key at once."""
    moto = DomainDispatcherApplication(create_backend_app)
    lock = threading.Lock()

    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        with lock:
            return list(moto(environ, start_response))

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    return answer


def main() -> None:
    """Serve until standard input ends, that is: until whoever started it is gone."""
    server = make_server("127.0.0.1", 0, one_at_a_time(), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
